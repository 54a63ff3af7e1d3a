//! Owns TLS as the API speaks it: certificate and key, whose clients are known, and their renewal.
//!
//! Who renews a certificate (cert-manager, certbot, step-ca) replaces files and tells nobody: they are
//! looked at again and again, as those of the tokens are.
//!
//! **Invariant:** what a handshake does not bring to its end in time is closed. Files that cannot be used
//! leave what was read before in service; connections that are open go on as they began.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::access::Peer;
use crate::config::TlsConfig;
use crate::pem::{self, PemError};
use crate::stamp::Stamp;

/// The files are looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is spoken in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoken {
    Http,
    Grpc,
}

/// TLS as the API speaks it; clones are the same.
#[derive(Clone)]
pub(crate) struct Tls(Arc<Inner>);

struct Inner {
    files: TlsConfig,
    /// What a handshake may take.
    within: Duration,
    served: Mutex<Served>,
}

/// What new connections get.
struct Served {
    acceptors: Acceptors,
    /// The files as they were when it was read.
    stamps: Stamps,
    /// Why what the files hold now is not what is served.
    fault: Option<String>,
}

struct Acceptors {
    http: TlsAcceptor,
    grpc: TlsAcceptor,
}

/// Of each file; `None` where there is none.
type Stamps = Vec<Option<Stamp>>;

/// Why TLS cannot be spoken.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file with certificates or a key.
    #[error("api.tls: {0}")]
    File(#[from] PemError),
    /// The two do not fit each other, or into TLS.
    #[error("api.tls: certificate and key cannot be used: {0}")]
    Unfit(String),
}

impl Tls {
    /// Reads certificate and key, and whose clients are known. Blocks.
    ///
    /// # Errors
    /// [`TlsError`]
    pub(crate) fn read(files: &TlsConfig, within: Duration) -> Result<Self, TlsError> {
        let stamps = stamps(files);
        let served = Served { acceptors: Acceptors::read(files)?, stamps, fault: None };
        let served = Mutex::new(served);
        Ok(Self(Arc::new(Inner { files: files.clone(), within, served })))
    }

    /// Shakes hands; nothing if the other end does not, or not in time.
    pub(crate) async fn greet(
        &self,
        stream: TcpStream,
        spoken: Spoken,
    ) -> Option<TlsStream<TcpStream>> {
        let acceptor = self.acceptor(spoken);
        match tokio::time::timeout(self.0.within, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake failed");
                None
            }
            Err(_) => None,
        }
    }

    fn acceptor(&self, spoken: Spoken) -> TlsAcceptor {
        let served = self.served();
        match spoken {
            Spoken::Http => served.acceptors.http.clone(),
            Spoken::Grpc => served.acceptors.grpc.clone(),
        }
    }

    /// Why what the files hold now is not what is served; `None` where it is.
    pub(crate) fn fault(&self) -> Option<String> {
        self.served().fault.clone()
    }

    /// Serves what the files hold, whenever they are replaced, until `stop`.
    pub(crate) async fn keep(self, stop: CancellationToken) {
        let mut every = interval(LOOK_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut before = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = every.tick() => {}
            }
            let tls = self.clone();
            before = tokio::task::spawn_blocking(move || tls.look(before)).await.ok();
            let is_current = self.served().fault.is_none();
            metrics::gauge!("holdfast_tls_current").set(f64::from(u8::from(is_current)));
        }
    }

    /// Looks at the files, which were seen so the time before, and reads them if there is a reason to;
    /// what is seen now. Blocks.
    fn look(&self, before: Option<Stamps>) -> Stamps {
        let now = stamps(&self.0.files);
        let is_served = {
            let served = self.served();
            served.fault.is_none() && served.stamps == now
        };
        // One is replaced after the other: while they change, they need not fit each other.
        if is_served || before.as_ref() != Some(&now) {
            return now;
        }
        let read = Acceptors::read(&self.0.files);
        let mut served = self.served();
        match read {
            Ok(acceptors) => {
                *served = Served { acceptors, stamps: now.clone(), fault: None };
                tracing::info!(
                    "api.tls: the files were replaced: new connections get what they hold"
                );
            }
            Err(error) => {
                let why = crate::error_chain(&error);
                if served.fault.as_ref() != Some(&why) {
                    tracing::warn!(error = %why, "the API's certificate is not renewed: the one before stays in service");
                }
                served.fault = Some(why);
            }
        }
        now
    }

    /// What a look left that panicked is whole all the same.
    fn served(&self) -> MutexGuard<'_, Served> {
        self.0.served.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Acceptors {
    fn read(files: &TlsConfig) -> Result<Self, TlsError> {
        let unfit = |error: &dyn std::error::Error| TlsError::Unfit(crate::error_chain(error));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| unfit(&error))?;
        let builder = match &files.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(pem::roots(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                builder.with_client_cert_verifier(verifier.build().map_err(|error| unfit(&error))?)
            }
        };
        let server = builder
            .with_single_cert(pem::certificates(&files.certificate)?, pem::key(&files.key)?)
            .map_err(|error| unfit(&error))?;
        // With each reading the sessions begin anew: none is resumed that another root let in.
        let speaking = |alpn: &[u8]| {
            let mut server = server.clone();
            server.alpn_protocols = vec![alpn.to_vec()];
            TlsAcceptor::from(Arc::new(server))
        };
        Ok(Self { http: speaking(b"http/1.1"), grpc: speaking(b"h2") })
    }
}

/// What the files are told by. Blocks.
fn stamps(files: &TlsConfig) -> Stamps {
    let TlsConfig { certificate, key, client_ca } = files;
    let all: [Option<&PathBuf>; 3] = [Some(certificate), Some(key), client_ca.as_ref()];
    all.into_iter().flatten().map(|path| Stamp::of(path)).collect()
}

/// Who is at the other end of TLS: somebody with a certificate that was checked, or anybody.
pub(crate) fn certified(stream: &TlsStream<TcpStream>) -> Peer {
    let (_, connection) = stream.get_ref();
    match connection.peer_certificates() {
        Some([_, ..]) => Peer::Certified,
        Some([]) | None => Peer::Network,
    }
}
