//! Owns `inference.GRPCInferenceService`, on a listener of its own. The one module that names tonic.
//!
//! **Invariant:** a message is in memory only with room taken for it, and is decompressed and made
//! tensors of away from the reactor; a connection that is idle is asked to go, and closed if it does
//! not.

mod about;
mod call;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{self, HeaderMap};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::about::{config, index, metadata, server_metadata};
use self::call::{status, unary};
use super::messages::{
    self, Message, ModelConfigResponse, ModelInferRequest, ModelInferResponse, ModelRequest,
    Nothing, ReadyResponse, RepositoryIndexRequest, RepositoryModelRequest, ServerLiveResponse,
};
use super::refusal::{Kind, Refusal, shown};
use super::request::MAX_DEADLINE;
use super::work::{InPlaceOf, TEXT_WEIGHT, off_reactor};
use super::{ask, contents};
use crate::access::{self, Caller, Denied, Need, Peer, Standing};
use crate::api::access_log::{Counted, Line};
use crate::api::body::Place;
use crate::api::seats::{Held, Seat};
use crate::api::server::{self, Bounds};
use crate::api::stalled::Watched;
use crate::api::tls::{self, Spoken, Tls};
use crate::api::{Api, guard, unread};
use crate::engine;

/// What all methods are under.
const SERVICE: &str = "/inference.GRPCInferenceService/";
/// Those that there are.
const METHODS: [&str; 10] = [
    "ServerLive",
    "ServerReady",
    "ServerMetadata",
    "ModelReady",
    "ModelMetadata",
    "ModelConfig",
    "ModelInfer",
    "RepositoryIndex",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
];
/// Connections are tried this often, so that one whose other end is gone is noticed.
const PING_EVERY: Duration = Duration::from_secs(20);

/// Serves the protocol on `listener` until `stop`, then ends when the calls under way are answered.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    api: Api,
    stop: CancellationToken,
) {
    let bounds = Bounds { limit: api.config.max_connections, says_so: false };
    let patience = api.config.read_timeout;
    server::accept(listener, bounds, stop, move |stream, seat: Seat, stop| {
        let (api, tls) = (api.clone(), tls.clone());
        async move {
            let Some(tls) = tls else {
                let stream = Watched::new(stream, patience, seat.clone());
                return connection(stream, (Peer::Network, seat), api, stop).await;
            };
            if let Some(stream) = tls.greet(stream, Spoken::Grpc).await {
                let peer = tls::certified(&stream);
                let stream = Watched::new(stream, patience, seat.clone());
                connection(stream, (peer, seat), api, stop).await;
            }
        }
    })
    .await;
}

/// One connection to its end; after `stop` it ends with the calls under way.
async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    (peer, seat): (Peer, Seat),
    api: Api,
    stop: CancellationToken,
) {
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_EVERY)
        // A caller that takes all its calls back at once, and again, keeps its connection.
        .max_pending_accept_reset_streams(4 * api.config.max_concurrent)
        .max_concurrent_streams(u32::try_from(api.config.max_concurrent).ok());
    let mut idle = tokio::time::interval(api.config.header_timeout);
    idle.reset();
    let mut seen = seat.waits_since();
    let (own, stopping) = (seat.clone(), stop.clone());
    let service = service_fn(move |request| {
        let (api, under_way, stopping) = (api.clone(), own.begin(), stopping.clone());
        async move {
            // The connection gives way, and ends before this does.
            let Some(under_way) = under_way else { return std::future::pending().await };
            // A caller that goes away ends the call here, and its place in the model's line with it.
            let reply = tokio::select! {
                biased;
                reply = answer(api, peer, request) => reply,
                () = server::stopped_for_long(&stopping) => told(come_back(), None),
            };
            Ok::<_, Infallible>(reply.map(|body| Held::new(body, under_way)))
        }
    });
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let mut is_stopping = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a gRPC connection broke");
                }
                return;
            }
            _ = idle.tick() => {
                let since = seat.waits_since();
                let is_idle = since.is_some() && since == seen;
                seen = since;
                match (is_idle, is_stopping) {
                    (false, _) => {}
                    (true, true) => return,
                    (true, false) => {
                        is_stopping = true;
                        connection.as_mut().graceful_shutdown();
                    }
                }
            }
            () = stop.cancelled(), if !is_stopping => {
                is_stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

type Reply = http::Response<tonic::body::Body>;
/// The same, counted for the log.
type Told = http::Response<Counted<tonic::body::Body>>;

/// Answers one call, whatever it is, with its line in the log.
async fn answer(api: Api, peer: Peer, request: http::Request<Incoming>) -> Told {
    let admitted = admitted(&api, peer, method(request.uri()), request.headers());
    let caller = admitted.as_ref().map_or("-", |(caller, _)| caller.name());
    let line = api.config.access_log.then(|| {
        let path = request.uri().path();
        // What is no method here is whatever somebody sent.
        let route = if METHODS.contains(&method(request.uri())) { path } else { "-" };
        Line::begin(caller, request.method().clone(), route, request.headers())
    });
    let reply = match admitted {
        Ok((caller, _place)) => {
            let mut standing = api.access.standing(caller.clone());
            tokio::select! {
                biased;
                reply = call(&api, caller, request, line.as_ref()) => reply,
                () = Standing::lost(&mut standing) => {
                    status(&Refusal::from(Denied::Unknown)).into_http()
                }
            }
        }
        Err(denied) => {
            unread::discard(Body::new(request.into_body())).await;
            status(&Refusal::from(denied)).into_http()
        }
    };
    told(reply, line)
}

fn told(reply: Reply, line: Option<Line>) -> Told {
    let (head, body) = reply.into_parts();
    let body = Counted::of_grpc(&head.headers, body, line);
    http::Response::from_parts(head, body)
}

fn method(uri: &http::Uri) -> &str {
    uri.path().strip_prefix(SERVICE).unwrap_or_default()
}

/// Whether the caller may ask this model; the log says for which the call is.
fn allowed(caller: &Caller, model: &str, line: Option<&Line>) -> Result<(), Denied> {
    caller.may_ask(model)?;
    line.inspect(|line| line.name(model));
    Ok(())
}

async fn call(
    api: &Api,
    caller: Caller,
    request: http::Request<Incoming>,
    line: Option<&Line>,
) -> Reply {
    let engine = Arc::clone(&api.service.engine);
    match method(request.uri()) {
        "ServerLive" => {
            unary(api, request, |_| async { Ok(ServerLiveResponse { live: true }) }).await
        }
        "ServerReady" => {
            let ready = ask::is_any_ready(&engine);
            unary(api, request, |_| async move { Ok(ReadyResponse { ready }) }).await
        }
        "ServerMetadata" => unary(api, request, |_| async { Ok(server_metadata()) }).await,
        "ModelReady" => {
            let call = |bytes| async move {
                let ModelRequest { name, version } = read(bytes)?;
                allowed(&caller, &name, line)?;
                // What is not there is not ready, and no error to who asks for that.
                let ready = ask::is_ready(&engine, &name, some(&version)).await.unwrap_or(false);
                Ok(ReadyResponse { ready })
            };
            unary(api, request, call).await
        }
        "ModelMetadata" => {
            let call = |bytes| async move {
                let ModelRequest { name, version } = read(bytes)?;
                allowed(&caller, &name, line)?;
                Ok(metadata(ask::metadata(&engine, &name, some(&version)).await?))
            };
            unary(api, request, call).await
        }
        "ModelConfig" => {
            let call = |bytes| async move {
                let ModelRequest { name, version } = read(bytes)?;
                allowed(&caller, &name, line)?;
                let config = config(ask::metadata(&engine, &name, some(&version)).await?);
                Ok(ModelConfigResponse { config: Some(config) })
            };
            unary(api, request, call).await
        }
        "ModelInfer" => {
            let (begun, given) = (Instant::now(), timeout_of(request.headers()));
            let own = api.clone();
            let call =
                |bytes| async move { infer(own, (&caller, line), bytes, begun, given).await };
            unary(api, request, call).await
        }
        _ => repository(api, &engine, request, line).await,
    }
}

/// Who calls, if they may call this.
fn admitted(
    api: &Api,
    peer: Peer,
    method: &str,
    headers: &HeaderMap,
) -> Result<(Caller, Option<access::Place>), Denied> {
    let need = match method {
        "ServerLive" | "ServerReady" => return Ok((Caller::anybody(), None)),
        "RepositoryModelLoad" | "RepositoryModelUnload" => Need::Admin,
        _ => Need::Token,
    };
    let (caller, place) = api.access.caller(peer, guard::shown(headers))?;
    caller.may(need)?;
    Ok((caller, place))
}

/// Answers a call of the model repository extension, or one that is none.
async fn repository(
    api: &Api,
    engine: &engine::Engine,
    request: http::Request<Incoming>,
    line: Option<&Line>,
) -> Reply {
    match method(request.uri()) {
        "RepositoryIndex" => {
            let call = |bytes| async move {
                let RepositoryIndexRequest { ready, .. } = read(bytes)?;
                Ok(index(ask::index(engine, ready)))
            };
            unary(api, request, call).await
        }
        "RepositoryModelLoad" => {
            let call = |bytes| async move {
                let RepositoryModelRequest { model_name, parameters, .. } = read(bytes)?;
                line.inspect(|line| line.name(&model_name));
                parameters.keys().try_for_each(|key| ask::load_parameter(key))?;
                engine.load(&model_name).await?;
                Ok(Nothing {})
            };
            unary(api, request, call).await
        }
        "RepositoryModelUnload" => {
            let call = |bytes| async move {
                let RepositoryModelRequest { model_name, .. } = read(bytes)?;
                line.inspect(|line| line.name(&model_name));
                engine.unload(&model_name).await?;
                Ok(Nothing {})
            };
            unary(api, request, call).await
        }
        _ => {
            let path = shown(request.uri().path());
            unread::discard(Body::new(request.into_body())).await;
            let what = format!("{path} is not offered here; see ServerMetadata for the extensions");
            status(&Refusal::new(Kind::NotOffered, what)).into_http()
        }
    }
}

/// What a call gets that is under way when the agent has no more time for it.
fn come_back() -> Reply {
    let refusal = Refusal::new(Kind::Busy, server::STOPPING).retry_after(server::BACK_IN_S);
    status(&refusal).into_http()
}

fn some(version: &str) -> Option<&str> {
    Some(version).filter(|version| !version.is_empty())
}

fn read<M: Message + Default>(bytes: Bytes) -> Result<M, Refusal> {
    messages::read(bytes).map_err(Refusal::bad)
}

async fn infer(
    api: Api,
    (caller, line): (&Caller, Option<&Line>),
    bytes: Bytes,
    begun: Instant,
    given: Option<Duration>,
) -> Result<ModelInferResponse, Refusal> {
    // Typed contents are many small numbers.
    let weight = bytes.len() * TEXT_WEIGHT;
    let (room, busy_s) = (api.room.clone(), api.retry_after_s());
    let (model, version, request, _more) = off_reactor(weight, move || {
        let mut more = Place::default();
        // The message itself has its room.
        let mut tensors = InPlaceOf::body(bytes.len(), &room, busy_s, &mut more);
        tensors.take(messages::memory(&bytes))?;
        let mut message: ModelInferRequest = read(bytes)?;
        let model = std::mem::take(&mut message.model_name);
        let version = std::mem::take(&mut message.model_version);
        Ok((model, version, contents::parse(message), more))
    })
    .await?;
    allowed(caller, &model, line)?;
    let engine = &api.service.engine;
    let in_view = |refusal| ask::in_view_of_the_model(engine, &model, some(&version), refusal);
    let request = request.map_err(in_view)?;
    let default = Duration::from_millis(api.defaults.deadline_ms);
    let deadline = given.map_or(default, |given| given.min(MAX_DEADLINE));
    let answered = ask::infer(engine, &model, some(&version), request, (begun, deadline)).await;
    api.service.pressure.note_call();
    let answered = answered?;
    let weight = answered.answer.outputs.iter().map(|(_, t)| t.len() * t.dtype().bytes()).sum();
    off_reactor(weight, move || Ok(contents::write(&answered))).await
}

/// How long the caller waits, by the header that every gRPC client sets from its deadline: at most
/// eight digits and a unit.
fn timeout_of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let value: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_is_open_when_the_agent_stops_is_told_to_come_back() {
        let reply = come_back();
        let header = |name: &str| reply.headers().get(name).and_then(|value| value.to_str().ok());
        assert_eq!(header("grpc-status"), Some("14"), "UNAVAILABLE");
        assert_eq!(header("retry-after"), Some("2"));
        assert!(header("grpc-message").is_some_and(|text| text.contains("stops")));
    }

    #[test]
    fn a_caller_s_timeout_is_read() {
        for (text, want) in [
            ("250m", Some(Duration::from_millis(250))),
            ("3S", Some(Duration::from_secs(3))),
            ("1H", Some(Duration::from_secs(3600))),
            ("99999999u", Some(Duration::from_micros(99_999_999))),
            ("999999999u", None),
            ("5", None),
            ("", None),
            ("S", None),
            ("5x", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            assert_eq!(timeout_of(&headers), want, "{text:?}");
        }
    }
}
