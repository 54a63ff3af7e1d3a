//! Owns what nobody read of a request's body when its response is ready.
//!
//! A connection that is closed with bytes of its request unread may lose the response on its way: the
//! kernel answers those bytes with a reset. So they are taken first, whoever the response was for.
//!
//! **Invariant:** a body is read to its end before its response is sent, within bounds of bytes and time;
//! one that its sender holds back until it is asked for is not asked for.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use futures_util::StreamExt;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Of a body that nobody reads, at most this much is taken, for at most this long.
const DISCARD_BYTES: usize = 64 << 20;
const DISCARD_WITHIN: Duration = Duration::from_secs(2);

/// A body that comes back when its reader leaves it before its end.
struct Lent {
    body: Option<Incoming>,
    back: Option<oneshot::Sender<Incoming>>,
}

/// What comes back of it.
pub(super) struct Rest(Option<oneshot::Receiver<Incoming>>);

/// A body for its reader, and what is left of it then.
pub(super) fn lend(headers: &HeaderMap, body: Incoming) -> (Body, Rest) {
    if body.is_end_stream() || headers.contains_key(header::EXPECT) {
        return (Body::new(body), Rest(None));
    }
    let (back, rest) = oneshot::channel();
    (Body::new(Lent { body: Some(body), back: Some(back) }), Rest(Some(rest)))
}

impl Rest {
    /// Takes what nobody read.
    pub(super) async fn discard(self) {
        if let Some(Ok(body)) = self.0.map(|mut rest| rest.try_recv()) {
            discard(Body::new(body)).await;
        }
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let body = self.body.take().filter(|body| !body.is_end_stream());
        if let (Some(body), Some(back)) = (body, self.back.take()) {
            // Whoever asked may be gone already; then so is the connection.
            drop(back.send(body));
        }
    }
}

/// Takes what is left of a refused body, within bounds.
pub(crate) async fn discard(body: Body) {
    let mut data = body.into_data_stream();
    let mut left = DISCARD_BYTES;
    let all = async {
        while let Some(Ok(chunk)) = data.next().await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                break;
            }
        }
    };
    // What did not come in time is not waited for.
    drop(timeout(DISCARD_WITHIN, all).await);
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::post;
    use hyper_util::rt::TokioIo;
    use hyper_util::service::TowerToHyperService;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const SIZE: usize = 4 << 20;

    async fn first(_: Body) -> StatusCode {
        StatusCode::UNAUTHORIZED
    }

    async fn half(body: Body) -> StatusCode {
        body.into_data_stream().next().await.unwrap().unwrap();
        StatusCode::PAYLOAD_TOO_LARGE
    }

    /// Serves connections as the API does, as far as bodies are concerned.
    async fn served() -> std::net::SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/first", post(first)).route("/half", post(half));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let router = TowerToHyperService::new(router.clone());
                let service =
                    hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
                        let (head, body) = request.into_parts();
                        let (body, rest) = lend(&head.headers, body);
                        let response = hyper::service::Service::call(
                            &router,
                            hyper::Request::from_parts(head, body),
                        );
                        async move {
                            let response = response.await;
                            rest.discard().await;
                            response
                        }
                    });
                let http = hyper::server::conn::http1::Builder::new();
                tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
            }
        });
        address
    }

    #[tokio::test]
    async fn a_response_that_comes_before_the_body_is_read_arrives() {
        let address = served().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        for (path, status) in [("first", "401"), ("half", "413"), ("first", "401")] {
            let head =
                format!("POST /{path} HTTP/1.1\r\nhost: here\r\ncontent-length: {SIZE}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&vec![7; SIZE]).await.unwrap();
            // On the same connection, which goes on.
            let mut got = [0; 12];
            stream.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, format!("HTTP/1.1 {status}").as_bytes(), "{path}");
            while !got.ends_with(b"\r\n\r\n") {
                got.rotate_left(1);
                stream.read_exact(&mut got[11..]).await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_body_that_waits_to_be_asked_for_is_not() {
        let mut stream = TcpStream::connect(served().await).await.unwrap();
        let head = format!(
            "POST /first HTTP/1.1\r\nhost: here\r\nexpect: 100-continue\r\n\
             content-length: {SIZE}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut got = String::new();
        stream.read_to_string(&mut got).await.unwrap();
        assert!(got.starts_with("HTTP/1.1 401") && !got.contains("100 Continue"), "{got}");
    }
}
