//! Owns how many bytes a call over HTTP puts on the wire.
//!
//! The client does not let anybody between itself and its sockets. So heads and bodies are counted as
//! HTTP/1.1 writes them, which for plain HTTP is what goes over TCP, to the byte; for TLS the
//! frame of each record is added, and for each connection that is really made a handshake of usual
//! size. HTTP/2 packs heads tighter than they are counted. What TCP and IP add (headers, what is
//! sent twice) is not in it.
//!
//! **Invariant:** a call that may have gone out is counted as if it had.

use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use reqwest::header::{CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};
use tower_layer::Layer;
use tower_service::Service;

use super::trust;
use crate::network::Tap;

/// A record of TLS has at most so many bytes, and so many of its own.
const RECORD: u64 = 16 * 1024;
const FRAME: u64 = 22;
/// What both sides say before the first request, with a certificate and the one that signed it.
const HANDSHAKE_SENT: u64 = 400;
const HANDSHAKE_RECEIVED: u64 = 3_000;
/// What the client adds to every head: `accept: */*` and its own name.
const ADDED: u64 =
    13 + "user-agent: holdfast/\r\n".len() as u64 + env!("CARGO_PKG_VERSION").len() as u64;

/// Counts what goes to one host.
#[derive(Debug, Clone, Default)]
pub(super) struct Wire {
    tap: Tap,
    is_tls: bool,
}

/// A call that goes out: counted when it is dropped, unless nobody was reached.
pub(super) struct Outgoing {
    wire: Wire,
    bytes: u64,
}

impl Wire {
    pub(super) fn new(tap: Tap, is_tls: bool) -> Self {
        Self { tap, is_tls }
    }

    /// The same wire, for another purpose.
    pub(super) fn of(&self, purpose: crate::network::Purpose) -> Self {
        Self { tap: self.tap.of(purpose), is_tls: self.is_tls }
    }

    /// `request` goes out.
    pub(super) fn outgoing(&self, request: &reqwest::Request) -> Outgoing {
        let body = request.body().and_then(reqwest::Body::as_bytes).map_or(0, length);
        let bytes = request_head(request, body).saturating_add(body);
        Outgoing { wire: self.clone(), bytes }
    }

    /// The head of an answer came in.
    pub(super) fn head(&self, response: &reqwest::Response) {
        let status = response.status();
        let usual = status.canonical_reason().unwrap_or_default().as_bytes();
        let other = response.extensions().get::<hyper::ext::ReasonPhrase>();
        let reason = other.map_or(usual, |reason| reason.as_bytes());
        let line = length(b"HTTP/1.1 200 ") + length(reason) + 2;
        self.received(line + headers(response.headers()) + 2);
    }

    /// A piece of its body came in.
    pub(super) fn piece(&self, headers: &HeaderMap, piece: &[u8]) {
        let bytes = length(piece);
        let chunked = headers.contains_key(TRANSFER_ENCODING);
        // Length in hexadecimal, and two line ends.
        let frame = if chunked { u64::from(bytes.max(1).ilog(16)) + 5 } else { 0 };
        self.received(bytes + frame);
    }

    /// The body has come to its end.
    pub(super) fn end(&self, headers: &HeaderMap) {
        if headers.contains_key(TRANSFER_ENCODING) {
            self.received(length(b"0\r\n\r\n"));
        }
    }

    /// So many bytes of content, both ways, over a network that a test makes up.
    #[cfg(test)]
    pub(super) fn scripted(&self, sent: usize, received: usize) {
        self.tap.sent(sent as u64);
        self.tap.received(received as u64);
    }

    fn received(&self, bytes: u64) {
        self.tap.received(self.framed(bytes));
    }

    fn framed(&self, bytes: u64) -> u64 {
        let frames = if self.is_tls { bytes.div_ceil(RECORD) * FRAME } else { 0 };
        bytes.saturating_add(frames)
    }

    fn shook_hands(&self) {
        if self.is_tls {
            self.tap.sent(HANDSHAKE_SENT);
            self.tap.received(HANDSHAKE_RECEIVED);
        }
    }
}

impl Outgoing {
    /// Nobody was reached: nothing of it went out.
    pub(super) fn stays(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.wire.tap.sent(self.wire.framed(self.bytes));
        }
    }
}

fn request_head(request: &reqwest::Request, body: u64) -> u64 {
    let url = request.url();
    let query = url.query().map_or(0, |query| length(query.as_bytes()) + 1);
    let line = length(request.method().as_str().as_bytes())
        + length(url.path().as_bytes())
        + query
        + length(b"  HTTP/1.1\r\n");
    let port = url.port().map_or(0, |port| u64::from(port.max(1).ilog10()) + 2);
    let host = length(url.host_str().unwrap_or_default().as_bytes()) + port;
    let is_sized = request.body().is_some() && !request.headers().contains_key(CONTENT_LENGTH);
    let sized = if is_sized {
        length(b"content-length: \r\n") + u64::from(body.max(1).ilog10()) + 1
    } else {
        0
    };
    line + length(b"host: \r\n") + host + sized + ADDED + headers(request.headers()) + 2
}

fn headers(headers: &HeaderMap) -> u64 {
    let each = headers.iter().map(|(name, value)| {
        length(name.as_str().as_bytes()) + length(value.as_bytes()) + length(b": \r\n")
    });
    each.sum()
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// Counts the handshakes of the connections that are made.
impl<S> Layer<S> for Wire {
    type Service = Connecting<S>;

    fn layer(&self, inner: S) -> Connecting<S> {
        Connecting { inner, wire: self.clone() }
    }
}

/// What makes connections, and counts them.
#[derive(Clone)]
pub(super) struct Connecting<S> {
    inner: S,
    wire: Wire,
}

impl<S, T> Service<T> for Connecting<S>
where
    S: Service<T, Error = Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, target: T) -> Self::Future {
        let (connecting, wire) = (self.inner.call(target), self.wire.clone());
        Box::pin(async move {
            let connected = connecting.await;
            // A certificate that was refused has come all the same.
            if connected.as_ref().map_or_else(|error| trust::is_of_tls(&**error), |_| true) {
                wire.shook_hands();
            }
            connected
        })
    }
}
