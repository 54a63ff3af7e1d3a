//! Owns the connections of the API: how many there are, and how long one may take.
//!
//! **Invariant:** a connection that does not bring a whole request header in time is closed, and
//! no more are open than configured: one that waits gives way to a newcomer. So nobody can keep the others
//! out by doing nothing. Whoever waits for a response when the agent stops gets one.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::listen::{self, Socket, Source};
use super::seats::{self, Held, Seat, Seats, Taken};
use super::stalled::Watched;
use super::tls::{self, Spoken, Tls};
use super::{Problem, guard, unread};
use crate::access::Peer;
use crate::config::ApiConfig;

/// After a failed accept (no file descriptor is left, say) the next one waits this long.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Whoever still waits so long after the agent was told to stop is told to come back. Long enough for what
/// is put on disk, and shorter than the agent gives the API.
const ANSWER_WITHIN: Duration = Duration::from_millis(1200);
/// Whoever is told to come back is told to do so after this many seconds: an agent that is started again
/// answers in less.
pub(crate) const BACK_IN_S: u64 = 2;
/// What they are told. What a call without an answer had put on disk is found by its key alone.
pub(crate) const STOPPING: &str = "the agent stops before this call has its answer: send it again, \
     under the same idempotency key if it has one";
/// A connection for which there is no place is told so within this time, and so many at once; more are closed.
const REFUSE_WITHIN: Duration = Duration::from_secs(1);
const REFUSED_AT_ONCE: usize = 32;
/// It is told to come back after this many seconds.
const REFUSED_FOR_S: u64 = 1;
/// Request headers at most; more are refused with 431.
const MAX_HEADERS: usize = 64;

/// Serves `router` on `listener`, in TLS if there is any, until `stop`, then ends when the requests under
/// way are answered.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    router: Router,
    config: &ApiConfig,
    stop: CancellationToken,
) {
    let (http, patience) = (http(config), config.read_timeout);
    // Before a handshake nothing can be said.
    let bounds = Bounds { limit: config.max_connections, says_so: tls.is_none() };
    let serve = move |stream, seat: Seat, stop| {
        let (http, router, tls) = (http.clone(), router.clone(), tls.clone());
        async move {
            let Some(tls) = tls else {
                let stream = Watched::new(stream, patience, seat.clone());
                return connection(stream, (Peer::Network, seat), http, router, stop).await;
            };
            if let Some(stream) = tls.greet(stream, Spoken::Http).await {
                let peer = tls::certified(&stream);
                let stream = Watched::new(stream, patience, seat.clone());
                connection(stream, (peer, seat), http, router, stop).await;
            }
        }
    };
    accept(listener, bounds, stop, serve).await;
}

/// Serves `router` on a Unix socket until `stop`, as [`serve`] does.
pub(crate) async fn serve_socket(
    socket: Socket,
    router: Router,
    config: &ApiConfig,
    stop: CancellationToken,
) {
    let (http, patience) = (http(config), config.read_timeout);
    let bounds = Bounds { limit: config.max_connections, says_so: true };
    let serve = move |stream, seat: Seat, stop| {
        let peer = listen::process(&stream);
        let stream = Watched::new(stream, patience, seat.clone());
        connection(stream, (peer, seat), http.clone(), router.clone(), stop)
    };
    accept(socket, bounds, stop, serve).await;
}

fn http(config: &ApiConfig) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout)
        .max_headers(MAX_HEADERS);
    http
}

/// How many connections are open, and what happens to more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// So many at once.
    pub(crate) limit: usize,
    /// Whether one without a place is told so in HTTP, or just closed.
    pub(crate) says_so: bool,
}

/// Takes connections until `stop`, then waits for those that are open. Of too many the one that waited
/// longest gives way; if all have a request under way, the newcomer is refused.
pub(crate) async fn accept<S, C>(
    source: S,
    bounds: Bounds,
    stop: CancellationToken,
    connection: impl Fn(S::Stream, Seat, CancellationToken) -> C,
) where
    S: Source,
    C: Future<Output = ()> + Send + 'static,
{
    let seats = Seats::new(bounds.limit);
    let refusals = Arc::new(Semaphore::new(if bounds.says_so { REFUSED_AT_ONCE } else { 0 }));
    let connections = TaskTracker::new();
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            accepted = source.next() => match accepted {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection to the API could not be accepted");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            },
        };
        let taken = loop {
            match seats.take() {
                // Who comes meanwhile waits in the kernel's queue.
                Taken::Later(at) => tokio::select! {
                    () = stop.cancelled() => break None,
                    () = sleep_until(at) => {}
                },
                Taken::Place(place) => break Some(place),
                Taken::Full => break None,
            }
        };
        let Some(place) = taken else {
            seats::count("newcomer");
            if let Ok(refusal) = refusals.clone().try_acquire_owned() {
                connections.spawn(async move {
                    // Who does not take it in time, does not.
                    timeout(REFUSE_WITHIN, refuse(stream, bounds.limit)).await.ok();
                    drop(refusal);
                });
            }
            continue;
        };
        let connection = connection(stream, place.seat().clone(), stop.clone());
        connections.spawn(async move {
            place.seat().run(connection).await;
            drop(place);
        });
    }
    drop(source);
    connections.close();
    connections.wait().await;
}

/// Tells a connection for which there is no place to come back.
async fn refuse(mut stream: impl AsyncRead + AsyncWrite + Unpin, limit: usize) -> io::Result<()> {
    let detail = format!(
        "{limit} connections have a request under way, as many as api.max_connections allows; try \
         again shortly"
    );
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail);
    let body = serde_json::to_string(&problem)?;
    let response = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
         retry-after: {}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        REFUSED_FOR_S,
        body.len(),
    );
    // A response to nothing is none, and bytes that nobody read would take it back.
    let mut unread = [0; 4096];
    if stream.read(&mut unread).await? == 0 {
        return Ok(());
    }
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await?;
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}

/// One connection to its end; after `stop` it ends with the request under way.
async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    (peer, seat): (Peer, Seat),
    http: http1::Builder,
    router: Router,
    stop: CancellationToken,
) {
    let (router, stopping) = (TowerToHyperService::new(router), Arc::new(stop.clone()));
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let (mut head, body) = request.into_parts();
        let uri = head.uri.clone();
        head.extensions.insert(peer);
        let (body, rest) = unread::lend(&head.headers, body);
        let request = hyper::Request::from_parts(head, body);
        let (response, stopping) = (router.call(request), Arc::clone(&stopping));
        let under_way = seat.begin();
        async move {
            // The connection gives way, and ends before this does.
            let Some(under_way) = under_way else { return std::future::pending().await };
            let response: Result<Response, Infallible> = tokio::select! {
                biased;
                response = response => response,
                () = stopped_for_long(&stopping) => Ok(come_back(&uri)),
            };
            // Then the process ends before a long body does.
            if !stopping.is_cancelled() {
                rest.discard().await;
            }
            response.map(|response| response.map(|body| Held::new(body, under_way)))
        }
    });
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let mut is_stopping = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection to the API broke");
                }
                return;
            }
            () = stop.cancelled(), if !is_stopping => {
                is_stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Ends when whoever still waits is told to come back.
pub(crate) async fn stopped_for_long(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(ANSWER_WITHIN).await;
}

fn come_back(uri: &Uri) -> Response {
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", STOPPING);
    guard::in_form(uri.path(), problem.retry_after(BACK_IN_S))
}
