//! Owns one exchange over HTTP with one destination.
//!
//! **Invariant:** bytes go to the configured host alone, through the configured proxy alone: no redirect is
//! followed, and the environment's proxy is taken where that is what the configuration says; an answer is read up to a bound of its protocol and up to a deadline,
//! and one that comes piece by piece waits so long for each.

use std::path::PathBuf;
use std::sync::Once;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use tokio::time::{Instant, timeout_at};

use super::error::EscalateError;
use super::proof::Proof;
use super::trust;
use super::wire::Wire;
use crate::destination::{Destination, Protocol, Proxy, Transport};
use crate::network::{Purpose, Tap};
use crate::oip::outgoing;

/// More bytes than this are no answer of most protocols.
const MAX_ANSWER: usize = 1024 * 1024;
/// Of an agent or a server of tensors, which may answer with masks and tensors.
const MAX_ANSWER_OF_AGENT: usize = 32 * MAX_ANSWER;
/// An answer that comes piece by piece has no more bytes than this.
const MAX_STREAM: usize = 64 * MAX_ANSWER;
/// A destination is left alone for at most this long, whatever it asks for.
pub(super) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(600);

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

/// What came back, read whole.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) is_json: bool,
    pub(super) content_type: String,
    pub(super) retry_after: Option<Duration>,
    /// What it tells of its limits and errors in headers, names in lower case.
    pub(super) told: Vec<(String, String)>,
    pub(super) body: Bytes,
}

/// How long is waited for an answer that comes piece by piece.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For its head.
    pub(super) head: Instant,
    /// For each piece after the one before.
    pub(super) idle: Duration,
    /// For its end.
    pub(super) end: Instant,
}

/// What came back of a call for an answer piece by piece.
#[derive(Debug)]
pub(super) enum Opened {
    /// The answer begins.
    Flow(Flow),
    /// Something else, read whole.
    Reply(Reply),
}

/// The rest of an answer that comes piece by piece; the call ends when it is dropped.
#[derive(Debug)]
pub(super) struct Flow {
    response: reqwest::Response,
    wire: Wire,
    left: usize,
    idle: Duration,
    end: Instant,
}

impl Flow {
    /// The bytes that come next, as they come; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, HttpError> {
        let until = self.end.min(Instant::now() + self.idle);
        let chunk = timeout_at(until, self.response.chunk()).await.map_err(|_| {
            HttpError::Unfinished(match until == self.end {
                true => "its time ended in the middle".to_owned(),
                false => format!("nothing more came for {} ms", self.idle.as_millis()),
            })
        })?;
        let chunk = chunk.map_err(|error| HttpError::Unfinished(cause(error)))?;
        count(&self.wire, self.response.headers(), chunk.as_deref());
        let length = chunk.as_ref().map_or(0, Bytes::len);
        self.left =
            self.left.checked_sub(length).ok_or(HttpError::TooLong { limit: MAX_STREAM })?;
        Ok(chunk)
    }
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
        let Patience { idle, end, .. } = patience;
        let wire = self.wire.clone();
        Ok(Opened::Flow(Flow { response, wire, left: MAX_STREAM, idle, end }))
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

async fn whole(
    response: reqwest::Response,
    wire: &Wire,
    max_answer: usize,
    deadline: Instant,
) -> Result<Reply, HttpError> {
    timeout_at(deadline, read(response, wire, max_answer))
        .await
        .unwrap_or_else(|_| Err(HttpError::Unfinished("its time ended in the middle".to_owned())))
}

/// Counts a piece of a body, or its end.
fn count(wire: &Wire, headers: &HeaderMap, piece: Option<&[u8]>) {
    match piece {
        Some(piece) => wire.piece(headers, piece),
        None => wire.end(headers),
    }
}

async fn read(
    mut response: reqwest::Response,
    wire: &Wire,
    max_answer: usize,
) -> Result<Reply, HttpError> {
    let promised = response.content_length().unwrap_or(0);
    if usize::try_from(promised).map_or(true, |promised| promised > max_answer) {
        return Err(HttpError::TooLong { limit: max_answer });
    }
    let status = response.status().as_u16();
    let content_type = text(response.headers(), &CONTENT_TYPE).unwrap_or_default().to_owned();
    let retry_after = retry_after(response.headers());
    let told = told(response.headers());
    let mut body = BytesMut::new();
    loop {
        let chunk = response.chunk().await.map_err(|error| HttpError::Unfinished(cause(error)))?;
        count(wire, response.headers(), chunk.as_deref());
        let Some(chunk) = chunk else { break };
        if body.len() + chunk.len() > max_answer {
            return Err(HttpError::TooLong { limit: max_answer });
        }
        body.extend_from_slice(&chunk);
    }
    let is_json = is_json(&content_type);
    Ok(Reply { status, is_json, content_type, retry_after, told, body: body.freeze() })
}

/// The headers in which providers tell of limits and errors, portals of themselves, and servers of how much
/// of an answer is JSON.
fn told(headers: &HeaderMap) -> Vec<(String, String)> {
    const TELLING: [&str; 5] =
        ["retry-after", "x-ratelimit-", "x-amzn-errortype", "location", outgoing::JSON_LENGTH];
    let telling = headers
        .iter()
        .filter(|(name, _)| TELLING.iter().any(|beginning| name.as_str().starts_with(beginning)));
    let texts = telling
        .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
    texts.collect()
}

fn is_json(content_type: &str) -> bool {
    let json = ["application/json", "application/problem+json", "application/x-amz-json-1.1"];
    json.iter().any(|kind| is_kind(content_type, kind))
}

fn is_kind(content_type: &str, kind: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case(kind)
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// How long the other side asks to wait: seconds, or a date measured by its own clock (ours may
/// be wrong), at most [`LONGEST_RETRY_AFTER`].
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let asked = text(headers, &RETRY_AFTER)?.trim();
    let wait = match asked.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let parser = DateTimeParser::new();
            let until = parser.parse_timestamp(asked).ok()?;
            let now = parser.parse_timestamp(text(headers, &DATE)?).ok()?;
            Duration::try_from(until.duration_since(now)).unwrap_or_default()
        }
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_read_in_both_forms_and_capped() {
        let date = "Fri, 20 Nov 2026 12:00:00 GMT";
        for (asked, own, want) in [
            ("7", None, Some(7)),
            ("0", None, Some(0)),
            ("999999", None, Some(600)),
            ("Fri, 20 Nov 2026 12:00:30 GMT", Some(date), Some(30)),
            ("Fri, 20 Nov 2026 11:00:00 GMT", Some(date), Some(0)),
            ("Fri, 20 Nov 2026 22:00:00 GMT", Some(date), Some(600)),
            ("Fri, 20 Nov 2026 12:00:30 GMT", None, None),
            ("soon", Some(date), None),
            ("-3", None, None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(asked));
            if let Some(own) = own {
                headers.insert(DATE, HeaderValue::from_static(own));
            }
            assert_eq!(retry_after(&headers), want.map(Duration::from_secs), "{asked}");
        }
    }

    #[test]
    fn only_json_is_json() {
        for (text, want) in [
            ("application/json", true),
            ("application/json; charset=utf-8", true),
            ("Application/Problem+JSON", true),
            ("text/html", false),
            ("application/json-seq", false),
            ("", false),
        ] {
            assert_eq!(is_json(text), want, "{text}");
        }
    }
}
