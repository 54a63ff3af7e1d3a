//! Owns one exchange over HTTP with one destination.
//!
//! **Invariant:** bytes go to the configured host alone, through the configured proxy alone: no redirect is
//! followed, and the environment's proxy is taken where that is what the configuration says.

mod reply;

use std::path::PathBuf;
use std::sync::Once;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use tokio::time::{Instant, timeout_at};

pub(super) use self::reply::{Flow, LONGEST_RETRY_AFTER, Opened, Patience, Reply};
use self::reply::{is_kind, text, whole};
use super::error::EscalateError;
use super::proof::Proof;
use super::trust;
use super::wire::Wire;
use crate::destination::{Destination, Protocol, Proxy, Transport};
use crate::network::{Purpose, Tap};

/// More bytes than this are no answer of most protocols.
const MAX_ANSWER: usize = 1024 * 1024;
/// Of an agent or a server of tensors, which may answer with masks and tensors.
const MAX_ANSWER_OF_AGENT: usize = 32 * MAX_ANSWER;

/// The pooled connections to one destination.
#[derive(Debug, Clone)]
pub(super) struct Http {
    client: reqwest::Client,
    max_answer: usize,
    wire: Wire,
    #[cfg(test)]
    network: Option<std::sync::Arc<dyn super::scripted::Network>>,
}

/// One call to a destination.
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) url: String,
    pub(super) headers: Vec<(&'static str, String)>,
    /// Headers that prove who asks; never shown.
    pub(super) proof: Proof,
    pub(super) body: Bytes,
}

/// The methods that the protocols need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Asks.
    Post,
    /// Takes back.
    Delete,
}

/// Why nothing came back.
#[derive(Debug)]
pub(super) enum HttpError {
    /// No connection.
    Connect(String),
    /// Somebody is there, with a certificate for another name.
    Impostor(String),
    /// The deadline came before the head of an answer.
    NoAnswer,
    /// The connection broke before the head of an answer.
    Cut(String),
    /// The head of an answer came, and not the rest.
    Unfinished(String),
    /// The answer is longer than what is read of one.
    TooLong {
        /// So many bytes are.
        limit: usize,
    },
}

impl HttpError {
    /// Whether somebody on the other side spoke HTTP.
    pub(super) fn is_answered(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Impostor(_) | Self::NoAnswer | Self::Cut(_) => false,
            Self::Unfinished(_) | Self::TooLong { .. } => true,
        }
    }
}

impl Http {
    /// Sets up the connections to `destination`, counted by `tap`; opens none.
    pub(super) fn new(destination: &Destination, tap: Tap) -> Result<Self, EscalateError> {
        let Destination { name, url, protocol, connect_timeout, concurrency, transport, .. } =
            destination;
        let max_answer = match protocol {
            Protocol::Chat(_) => MAX_ANSWER,
            _ => MAX_ANSWER_OF_AGENT,
        };
        let http = Self::to(name, url, *connect_timeout, *concurrency, transport, tap)?;
        Ok(http.reading_up_to(max_answer))
    }

    /// Sets up at most so many idle connections to the host of `base`, counted by `tap`; opens none.
    pub(super) fn to(
        name: &str,
        base: &str,
        connect_timeout: Duration,
        concurrency: usize,
        transport: &Transport,
        tap: Tap,
    ) -> Result<Self, EscalateError> {
        let address = reqwest::Url::parse(base).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none()
        });
        let Some(address) = address else {
            let url = if base.contains('@') { "its url" } else { base };
            return Err(EscalateError::Url { name: name.to_owned(), url: url.to_owned() });
        };
        install_provider();
        let wire = Wire::new(tap, address.scheme() == "https");
        let mut builder = reqwest::Client::builder()
            .connector_layer(wire.clone())
            .user_agent(concat!("holdfast/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .connect_timeout(connect_timeout)
            .pool_max_idle_per_host(concurrency.max(1))
            .pool_idle_timeout(Duration::from_secs(60))
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(15));
        if address.scheme() == "http" {
            // A board without CA certificates still reaches its site over plain HTTP.
            builder = builder.tls_certs_only([]);
        }
        let setup = |cause| EscalateError::Setup { name: name.to_owned(), cause };
        if let Some(tls) = trust::of(transport).map_err(setup)? {
            builder = builder.tls_backend_preconfigured(tls);
        }
        builder = through(builder, transport.proxy.as_ref()).map_err(setup)?;
        let client = builder.build().map_err(|error| setup(cause(error)))?;
        Ok(Self {
            client,
            max_answer: MAX_ANSWER,
            wire,
            #[cfg(test)]
            network: None,
        })
    }

    /// Sets up the way to the agent of this device behind its Unix socket; connects to nobody.
    pub(super) fn over_socket(path: PathBuf) -> Result<Self, EscalateError> {
        install_provider();
        let builder = reqwest::Client::builder().unix_socket(path).no_proxy().tls_certs_only([]);
        let client = builder.build().map_err(|error| EscalateError::Setup {
            name: "agent".to_owned(),
            cause: cause(error),
        })?;
        Ok(Self {
            client,
            max_answer: MAX_ANSWER,
            wire: Wire::default(),
            #[cfg(test)]
            network: None,
        })
    }

    /// So many bytes of an answer are read at most.
    pub(super) fn max_answer(&self) -> usize {
        self.max_answer
    }

    /// The same connections, counted for another purpose but for how they are made.
    pub(super) fn counted_as(&self, purpose: Purpose) -> Self {
        Self { wire: self.wire.of(purpose), ..self.clone() }
    }

    /// The same, with another bound on answers.
    pub(super) fn reading_up_to(self, max_answer: usize) -> Self {
        Self { max_answer, ..self }
    }

    /// Sends into `network` from here on.
    #[cfg(test)]
    pub(super) fn script(&mut self, network: std::sync::Arc<dyn super::scripted::Network>) {
        self.network = Some(network);
    }

    /// Sends `call` and reads the whole answer, both before `deadline`. `on_head` is called as
    /// soon as the head of an answer is there.
    pub(super) async fn exchange(
        &self,
        call: Call,
        deadline: Instant,
        on_head: impl FnOnce(),
    ) -> Result<Reply, HttpError> {
        self.exchange_up_to(call, deadline, self.max_answer, on_head).await
    }

    /// As [`Self::exchange`], with so many bytes of an answer at most.
    pub(super) async fn exchange_up_to(
        &self,
        call: Call,
        deadline: Instant,
        most: usize,
        on_head: impl FnOnce(),
    ) -> Result<Reply, HttpError> {
        #[cfg(test)]
        if let Some(network) = &self.network {
            return super::scripted::exchange(network, &self.wire, call, deadline, on_head).await;
        }
        let response = self.head(call, deadline).await?;
        on_head();
        whole(response, &self.wire, most, deadline).await
    }

    /// Sends `call` and reads the head of the answer; where that is a success of the content type
    /// `wanted`, the rest is for who reads it piece by piece. `on_head` is called as soon as the head
    /// is there.
    pub(super) async fn open(
        &self,
        call: Call,
        patience: Patience,
        wanted: &str,
        on_head: impl FnOnce(),
    ) -> Result<Opened, HttpError> {
        let response = self.head(call, patience.head).await?;
        on_head();
        let kind = text(response.headers(), &CONTENT_TYPE).unwrap_or_default();
        if !response.status().is_success() || !is_kind(kind, wanted) {
            let until = patience.end.min(patience.head);
            return whole(response, &self.wire, self.max_answer, until).await.map(Opened::Reply);
        }
        Ok(Opened::Flow(Flow::new(response, self.wire.clone(), patience)))
    }

    async fn head(&self, call: Call, deadline: Instant) -> Result<reqwest::Response, HttpError> {
        let request = self.request(call).map_err(HttpError::Cut)?;
        let outgoing = self.wire.outgoing(&request);
        match timeout_at(deadline, self.client.execute(request)).await {
            Err(_) => Err(HttpError::NoAnswer),
            Ok(Err(error)) if error.is_connect() => {
                outgoing.stays();
                let is_impostor = trust::is_for_another_name(&error);
                let error = cause(error);
                Err(match is_impostor {
                    true => HttpError::Impostor(error),
                    false => HttpError::Connect(error),
                })
            }
            Ok(Err(error)) => Err(HttpError::Cut(cause(error))),
            Ok(Ok(response)) => {
                self.wire.head(&response);
                Ok(response)
            }
        }
    }

    fn request(&self, call: Call) -> Result<reqwest::Request, String> {
        let mut builder = match call.method {
            Method::Get => self.client.get(call.url),
            Method::Post => self.client.post(call.url).body(call.body),
            Method::Delete => self.client.delete(call.url),
        };
        let mut headers = HeaderMap::new();
        for (name, value) in call.headers {
            let value =
                HeaderValue::try_from(value).map_err(|_| format!("header {name} is unfit"))?;
            headers.insert(HeaderName::from_static(name), value);
        }
        for (name, value) in call.proof {
            let mut value = HeaderValue::try_from(value)
                .map_err(|_| "the credential does not fit a header".to_owned())?;
            value.set_sensitive(true);
            headers.insert(HeaderName::from_static(name), value);
        }
        builder = builder.headers(headers);
        builder.build().map_err(cause)
    }
}

/// Goes through a proxy, or straight. Blocks.
fn through(
    builder: reqwest::ClientBuilder,
    proxy: Option<&Proxy>,
) -> Result<reqwest::ClientBuilder, String> {
    let (url, user_file) = match proxy {
        None => return Ok(builder.no_proxy()),
        Some(Proxy::Environment) => return Ok(builder),
        Some(Proxy::At { url, user_file }) => (url, user_file),
    };
    let mut proxy = reqwest::Proxy::all(url).map_err(cause)?;
    if let Some(path) = user_file {
        let unfit = |why: &str| format!("proxy_user_file {}: {why}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| unfit(&error.to_string()))?;
        let (user, password) =
            text.trim().split_once(':').ok_or_else(|| unfit("is not `user:password`"))?;
        proxy = proxy.basic_auth(user, password);
    }
    Ok(builder.proxy(proxy))
}

/// What the error comes from, without the layers of client that it went through, and without the URL.
pub(super) fn cause(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut innermost: &dyn std::error::Error = &error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let told = trust::told(innermost);
    super::error::clean(&told.unwrap_or_else(|| innermost.to_string()))
}

/// One provider serves the whole process; whoever installed one first is right too.
pub(super) fn install_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if rustls::crypto::ring::default_provider().install_default().is_err() {
            tracing::debug!("a TLS provider was installed already");
        }
    });
}
