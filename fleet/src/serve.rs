//! `serve`: wires the parts, and takes them down again.
//!
//! **Invariant:** a stop takes at most [`STOP_WITHIN`], and what was acknowledged is on disk.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{self, Api};
use crate::broker::{self, BrokerError};
use crate::clock::Clock;
use crate::config::Config;
use crate::exit::Exit;
use crate::intake::{Intake, State};
use crate::key::{self, KeyError};
use crate::link::{self, Address};
use crate::roster::Roster;
use crate::store::{Store, StoreError};

const STOP_WITHIN: Duration = Duration::from_secs(5);
/// The embedded broker is there at once; an external one may come later.
const BROKER_WITHIN: Duration = Duration::from_secs(5);

/// Why the controller does not serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(
        "http.listen = {address} cannot be used; is another program listening there? choose another with --http"
    )]
    Http { address: SocketAddr, source: io::Error },
    #[error("the embedded broker at {0} ended; start the controller again")]
    BrokerEnded(SocketAddr),
    #[error(
        "the embedded broker at {0} does not answer; is something between this program and that port?"
    )]
    BrokerMute(SocketAddr),
    #[error("ready file {path} cannot be written")]
    ReadyFile { path: PathBuf, source: io::Error },
    #[error("the system refuses what every program gets")]
    System(#[source] io::Error),
}

impl ServeError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Store(_) | Self::Key(_) | Self::ReadyFile { .. } => Exit::Storage,
            Self::Broker(_) | Self::Http { .. } | Self::BrokerMute(_) => Exit::Unavailable,
            Self::BrokerEnded(_) | Self::System(_) => Exit::Bug,
        }
    }
}

#[derive(Serialize)]
struct Ready {
    http: String,
    mqtt: String,
}

/// Serves until a signal comes.
pub(crate) async fn serve(config: Config, ready_file: Option<&Path>) -> Result<(), ServeError> {
    let clock = Clock::start();
    let store = Store::open(&config.data_dir).await?;
    let signer = key::load_or_make(&config.data_dir)?;
    let devices = store.load().await?;
    let state = Arc::new(State::new(Roster::new(devices, config.max_devices), clock));

    let http = TcpListener::bind(config.http_listen)
        .await
        .map_err(|source| ServeError::Http { address: config.http_listen, source })?;
    let http_address = http.local_addr().map_err(ServeError::System)?;
    let (broker, ended) = the_broker(&config)?;

    let cancel = CancellationToken::new();
    let tasks = TaskTracker::new();
    let (mut link, inbox, link_task) = link::new(broker.clone(), signer.public_key());
    let api = Api {
        state: state.clone(),
        results: store.results(),
        link: link.clone(),
        broker: broker.to_string(),
        public_key: signer.public_key(),
        cancel: cancel.child_token(),
    };
    let link_cancel = CancellationToken::new();
    let intake = tasks
        .spawn(Intake::new(state, store, link.clone(), signer).run(inbox, cancel.child_token()));
    tasks.spawn(link_task.run(link_cancel.clone()));
    let stop = cancel.child_token();
    let server = axum::serve(http, api::router(api)).with_graceful_shutdown(stop.cancelled_owned());
    tasks.spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "http server ended");
        }
    });
    tasks.close();

    let result = tokio::select! {
        result = until_stopped(&config, &mut link, &broker, http_address, ready_file) => result,
        () = broker_ended(ended) => Err(ServeError::BrokerEnded(config.mqtt_listen)),
    };
    cancel.cancel();
    let all_stopped = async {
        let _finished = intake.await;
        link::let_leave().await;
        link_cancel.cancel();
        tasks.wait().await;
    };
    if timeout(STOP_WITHIN, all_stopped).await.is_err() {
        tracing::warn!(
            within_ms = STOP_WITHIN.as_millis(),
            "some work did not stop in time, it is left"
        );
    }
    result
}

/// Where the broker is, and for the embedded one what resolves if it ends.
fn the_broker(config: &Config) -> Result<(Address, Option<oneshot::Receiver<()>>), BrokerError> {
    if let Some((host, port)) = &config.mqtt_broker {
        return Ok((Address { host: host.clone(), port: *port }, None));
    }
    let embedded = broker::start(config.mqtt_listen)?;
    let port = embedded.address.port();
    let ip = embedded.address.ip();
    // The controller itself cannot connect to "every address".
    let host = match ip {
        ip if !ip.is_unspecified() => ip.to_string(),
        ip if ip.is_ipv6() => "::1".to_owned(),
        _ => "127.0.0.1".to_owned(),
    };
    Ok((Address { host, port }, Some(embedded.ended)))
}

async fn broker_ended(ended: Option<oneshot::Receiver<()>>) {
    match ended {
        Some(ended) => {
            let _closed = ended.await;
        }
        None => std::future::pending().await,
    }
}

async fn until_stopped(
    config: &Config,
    link: &mut link::Link,
    broker: &Address,
    http: SocketAddr,
    ready_file: Option<&Path>,
) -> Result<(), ServeError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::System)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::System)?;
    let serving = async {
        if timeout(BROKER_WITHIN, link.wait_until_up()).await.is_err() {
            if config.mqtt_broker.is_none() {
                return Err(ServeError::BrokerMute(config.mqtt_listen));
            }
            tracing::warn!(%broker, "broker not reached yet; devices are not heard until it is, trying on");
        }
        if !http.ip().is_loopback() {
            tracing::warn!(%http, "page and API are open to the network and ask nobody for a password");
        }
        announce_ready(http, broker, ready_file)?;
        std::future::pending().await
    };
    tokio::select! {
        result = serving => result,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

fn announce_ready(
    http: SocketAddr,
    broker: &Address,
    ready_file: Option<&Path>,
) -> Result<(), ServeError> {
    println!("ready: page http://{http}/  mqtt {broker}");
    let Some(path) = ready_file else { return Ok(()) };
    let failed = |source| ServeError::ReadyFile { path: path.to_path_buf(), source };
    let ready = Ready { http: format!("http://{http}"), mqtt: broker.to_string() };
    let new = path.with_extension("new");
    let text = serde_json::to_string(&ready).map_err(|error| failed(error.into()))?;
    std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, path)).map_err(failed)
}
