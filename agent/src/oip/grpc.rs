//! Owns `inference.GRPCInferenceService`, on a listener of its own. The one module that names tonic.
//!
//! **Invariant:** a message is in memory only with room taken for it, and is decompressed and made
//! tensors of away from the reactor; a connection that is idle is asked to go, and closed if it does
//! not.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::{self, HeaderMap, HeaderValue};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::FutureExt as _;
use futures_util::future::Either;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, UnaryService};
use tonic::{Code, Request, Response, Status};

use super::compression::{self, Encoding, Unread};
use super::messages::{
    self, ConfigOutput, ConfigTensor, Message, ModelConfig, ModelConfigResponse, ModelIndex,
    ModelInferRequest, ModelInferResponse, ModelMetadataResponse, ModelRequest, Nothing,
    ReadyResponse, RepositoryIndexRequest, RepositoryIndexResponse, RepositoryModelRequest,
    ServerLiveResponse, ServerMetadataResponse, TensorMetadata,
};
use super::refusal::{Kind, Refusal, shown};
use super::request::MAX_DEADLINE;
use super::work::{self, InPlaceOf, TEXT_WEIGHT, off_reactor};
use super::{EXTENSIONS, SMALL_BODY, ask, contents, dtype};
use crate::access::{self, Caller, Denied, Need, Peer};
use crate::api::body::{self, Limit, Place};
use crate::api::{Api, Tls, guard, listen, server};
use crate::engine;

/// What all methods are under.
const SERVICE: &str = "/inference.GRPCInferenceService/";
/// Before each message: whether it is compressed, and its length in four bytes.
const FRAME: usize = 5;
/// Connections are tried this often, so that one whose other end is gone is noticed.
const PING_EVERY: Duration = Duration::from_secs(20);

/// Serves the protocol on `listener` until `stop`, then ends when the calls under way are answered.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    api: Api,
    stop: CancellationToken,
) {
    let limit = api.config.max_connections;
    server::accept(listener, limit, stop, move |stream, stop| {
        let (api, tls) = (api.clone(), tls.clone());
        async move {
            let Some(tls) = tls else { return connection(stream, Peer::Network, api, stop).await };
            if let Some(stream) = tls.greet(stream).await {
                let peer = listen::certified(&stream);
                connection(stream, peer, api, stop).await;
            }
        }
    })
    .await;
}

/// Calls of one connection: under way, and begun so far.
#[derive(Debug, Default)]
struct Calls {
    under_way: AtomicUsize,
    begun: AtomicUsize,
}

/// One connection to its end; after `stop` it ends with the calls under way.
async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
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
    let calls = Arc::new(Calls::default());
    let (counted, stopping) = (Arc::clone(&calls), stop.clone());
    let service = service_fn(move |request| {
        let (api, calls, stopping) = (api.clone(), Arc::clone(&counted), stopping.clone());
        async move {
            calls.begun.fetch_add(1, Ordering::Relaxed);
            calls.under_way.fetch_add(1, Ordering::Relaxed);
            // A caller that goes away ends the call here, and its place in the model's line with it.
            let _under_way = UnderWay(calls);
            Ok::<_, Infallible>(tokio::select! {
                biased;
                reply = answer(api, peer, request) => reply,
                () = server::stopped_for_long(&stopping) => come_back(),
            })
        }
    });
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let (mut is_stopping, mut seen) = (false, 0);
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a gRPC connection broke");
                }
                return;
            }
            _ = idle.tick() => {
                let begun = calls.begun.load(Ordering::Relaxed);
                let is_idle = begun == seen && calls.under_way.load(Ordering::Relaxed) == 0;
                seen = begun;
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

struct UnderWay(Arc<Calls>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

type Reply = http::Response<tonic::body::Body>;

/// Answers one call, whatever it is.
async fn answer(api: Api, peer: Peer, request: http::Request<Incoming>) -> Reply {
    let method = request.uri().path().strip_prefix(SERVICE).unwrap_or_default().to_owned();
    let (caller, _place) = match admitted(&api, peer, &method, request.headers()) {
        Ok(admitted) => admitted,
        Err(denied) => {
            body::discard(Body::new(request.into_body())).await;
            return status(&Refusal::from(denied)).into_http();
        }
    };
    let engine = Arc::clone(&api.service.engine);
    match method.as_str() {
        "ServerLive" => {
            unary(&api, request, |_| async { Ok(ServerLiveResponse { live: true }) }).await
        }
        "ServerReady" => {
            let ready = ask::is_any_ready(&engine);
            unary(&api, request, |_| async move { Ok(ReadyResponse { ready }) }).await
        }
        "ServerMetadata" => unary(&api, request, |_| async { Ok(server_metadata()) }).await,
        "ModelReady" => {
            let call = |bytes| async move {
                let ModelRequest { name, version } = read(bytes)?;
                caller.may_ask(&name)?;
                // What is not there is not ready, and no error to who asks for that.
                let ready = ask::is_ready(&engine, &name, some(&version)).await.unwrap_or(false);
                Ok(ReadyResponse { ready })
            };
            unary(&api, request, call).await
        }
        "ModelMetadata" => {
            let call = |bytes| async move {
                let ModelRequest { name, version } = read(bytes)?;
                caller.may_ask(&name)?;
                Ok(metadata(ask::metadata(&engine, &name, some(&version)).await?))
            };
            unary(&api, request, call).await
        }
        "ModelConfig" => {
            let call = |bytes| async move {
                let ModelRequest { name, version } = read(bytes)?;
                caller.may_ask(&name)?;
                let config = config(ask::metadata(&engine, &name, some(&version)).await?);
                Ok(ModelConfigResponse { config: Some(config) })
            };
            unary(&api, request, call).await
        }
        "ModelInfer" => {
            let (begun, given) = (Instant::now(), timeout_of(request.headers()));
            let own = api.clone();
            unary(&api, request, |bytes| infer(own, caller, bytes, begun, given)).await
        }
        _ => repository(&api, &engine, request).await,
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
async fn repository(api: &Api, engine: &engine::Engine, request: http::Request<Incoming>) -> Reply {
    match request.uri().path().strip_prefix(SERVICE).unwrap_or_default() {
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
                parameters.keys().try_for_each(|key| ask::load_parameter(key))?;
                engine.load(&model_name).await?;
                Ok(Nothing {})
            };
            unary(api, request, call).await
        }
        "RepositoryModelUnload" => {
            let call = |bytes| async move {
                let RepositoryModelRequest { model_name, .. } = read(bytes)?;
                engine.unload(&model_name).await?;
                Ok(Nothing {})
            };
            unary(api, request, call).await
        }
        _ => {
            let path = shown(request.uri().path());
            body::discard(Body::new(request.into_body())).await;
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

fn server_metadata() -> ServerMetadataResponse {
    ServerMetadataResponse {
        name: "holdfast".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        extensions: EXTENSIONS.map(str::to_owned).to_vec(),
    }
}

fn metadata(found: engine::ModelMetadata) -> ModelMetadataResponse {
    let tensor = |tensor: &engine::TensorMetadata| TensorMetadata {
        name: tensor.name.clone(),
        datatype: dtype::name(tensor.dtype).to_owned(),
        shape: ask::dims(tensor),
    };
    ModelMetadataResponse {
        inputs: found.inputs.iter().map(tensor).collect(),
        outputs: found.outputs.iter().map(tensor).collect(),
        name: found.name,
        versions: found.versions,
        platform: found.platform,
    }
}

fn config(found: engine::ModelMetadata) -> ModelConfig {
    let input = |tensor: &engine::TensorMetadata| ConfigTensor {
        name: tensor.name.clone(),
        data_type: dtype::number(tensor.dtype),
        dims: ask::dims(tensor),
    };
    let output = |tensor: &engine::TensorMetadata| ConfigOutput {
        name: tensor.name.clone(),
        data_type: dtype::number(tensor.dtype),
        dims: ask::dims(tensor),
    };
    ModelConfig {
        name: found.name,
        platform: String::new(),
        // The shapes are whole: a free batch stands in them as -1.
        max_batch_size: 0,
        input: found.inputs.iter().map(input).collect(),
        output: found.outputs.iter().map(output).collect(),
        backend: found.platform,
    }
}

fn index(entries: Vec<engine::ModelEntry>) -> RepositoryIndexResponse {
    let models = entries.into_iter().map(|entry| ModelIndex {
        name: entry.name,
        version: entry.version,
        state: ask::state(entry.state).to_owned(),
        reason: entry.reason,
    });
    RepositoryIndexResponse { models: models.collect() }
}

async fn infer(
    api: Api,
    caller: Caller,
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
    caller.may_ask(&model)?;
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

/// Reads the one message of a call, and lets tonic answer with what `call` makes of it.
async fn unary<M, F, R>(api: &Api, request: http::Request<Incoming>, call: F) -> Reply
where
    M: Message + Send + 'static,
    F: FnOnce(Bytes) -> R + Send,
    R: Future<Output = Result<M, Refusal>> + Send,
{
    let (mut parts, body) = request.into_parts();
    let is_infer = parts.uri.path().ends_with("/ModelInfer");
    let read = framed(api, &parts.headers, Body::new(body), is_infer).await;
    let (framed, _room, _place) = match read {
        Ok(read) => read,
        Err(refusal) => return status(&refusal).into_http(),
    };
    parts.headers.remove("grpc-encoding");
    let call = |bytes| async move { call(bytes).await.map(Response::new).map_err(|r| status(&r)) };
    let request = http::Request::from_parts(parts, Full::new(framed));
    Grpc::new(Plain::<M>(PhantomData))
        // What is too large was refused before.
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(usize::MAX)
        .unary(Once(Some(call)), request)
        .await
}

/// The body of a call as it was sent, decompressed, with the room that it takes.
async fn framed<'a>(
    api: &'a Api,
    headers: &HeaderMap,
    body: Body,
    is_infer: bool,
) -> Result<(Bytes, Place, tokio::sync::SemaphorePermit<'a>), Refusal> {
    let admitted = encoding_of(headers).and_then(|encoding| Ok((encoding, api.place()?)));
    let (encoding, place) = match admitted {
        Ok(admitted) => admitted,
        Err(refusal) => {
            body::discard(body).await;
            return Err(refusal);
        }
    };
    let busy_s = api.retry_after_s();
    let (limit, message) = match is_infer {
        true => (Limit::Configured { frame: FRAME }, api.config.max_body_bytes),
        false => (Limit::Call(SMALL_BODY + FRAME), SMALL_BODY),
    };
    let (bytes, mut taken) =
        body::read(&api.room, &api.config, limit, headers, body, busy_s).await?;
    let is_compressed = match bytes.first() {
        Some(0) => false,
        Some(1) => true,
        _ => return Err(Refusal::bad("the call has no message, or one with an unknown flag")),
    };
    if !is_compressed {
        return Ok((bytes, taken, place));
    }
    let Some(encoding) = encoding else {
        return Err(Refusal::bad("the message is compressed, and grpc-encoding does not say how"));
    };
    let room = api.room.clone();
    // What is in it nobody knows before.
    let (out, taken) = off_reactor(usize::MAX, move || {
        let more = |bytes| room.try_take(bytes, &mut taken);
        Ok((expanded(&bytes, encoding, message, more, busy_s)?, taken))
    })
    .await?;
    Ok((out, taken, place))
}

fn encoding_of(headers: &HeaderMap) -> Result<Option<Encoding>, Refusal> {
    let text = headers.get("grpc-encoding").map_or(Ok(""), HeaderValue::to_str);
    let encoding = text.map_err(|_| ()).and_then(Encoding::of_content);
    encoding.map_err(|()| {
        let what = "this grpc-encoding is not read here; send identity, gzip or deflate";
        Refusal::new(Kind::Encoding, what)
    })
}

/// One compressed message with its frame, as a plain one.
fn expanded(
    bytes: &[u8],
    encoding: Encoding,
    limit: usize,
    room: impl FnMut(usize) -> bool,
    busy_s: u64,
) -> Result<Bytes, Refusal> {
    let (frame, body) = bytes.split_at_checked(FRAME).unwrap_or((bytes, &[]));
    let length = frame.get(1..FRAME).and_then(|length| length.try_into().ok());
    let length = length.map(u32::from_be_bytes).and_then(|length| usize::try_from(length).ok());
    if length != Some(body.len()) {
        return Err(Refusal::bad("the message is not as long as it says"));
    }
    let out = compression::expand(body, encoding, limit, room).map_err(|why| match why {
        Unread::Damaged => Refusal::bad("the message is not compressed as grpc-encoding says"),
        Unread::TooLarge => Refusal::new(
            Kind::TooLarge,
            format!("more than the {limit} bytes that are allowed come out of the message"),
        ),
        Unread::NoRoom => work::no_room(busy_s),
    })?;
    let mut plain = BytesMut::with_capacity(FRAME + out.len());
    plain.put_u8(0);
    plain.put_u32(u32::try_from(out.len()).unwrap_or(u32::MAX));
    plain.put_slice(&out);
    Ok(plain.freeze())
}

/// gRPC's status of a refusal.
fn status(refusal: &Refusal) -> Status {
    let code = match refusal.kind {
        Kind::Bad => Code::InvalidArgument,
        Kind::Unknown => Code::NotFound,
        Kind::Unauthenticated => Code::Unauthenticated,
        Kind::Forbidden => Code::PermissionDenied,
        Kind::TooLarge | Kind::TooFast => Code::ResourceExhausted,
        Kind::Encoding | Kind::NotOffered => Code::Unimplemented,
        Kind::Busy => Code::Unavailable,
        Kind::Slow | Kind::Late => Code::DeadlineExceeded,
        Kind::Failed => Code::Internal,
    };
    let mut status = Status::new(code, refusal.message.clone());
    if let Some(seconds) = refusal.retry_after_s {
        status.metadata_mut().insert("retry-after", seconds.into());
    }
    status
}

/// A call that is made once.
struct Once<F>(Option<F>);

impl<F, R, M> UnaryService<Bytes> for Once<F>
where
    F: FnOnce(Bytes) -> R,
    R: Future<Output = Result<Response<M>, Status>>,
{
    type Response = M;
    type Future = Either<R, std::future::Ready<R::Output>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        match self.0.take() {
            Some(call) => call(request.into_inner()).left_future(),
            None => std::future::ready(Err(Status::internal("called twice"))).right_future(),
        }
    }
}

/// Answers as messages; questions as the bytes of one, to be read elsewhere.
struct Plain<M>(PhantomData<fn() -> M>);

impl<M: Message + Send + 'static> Codec for Plain<M> {
    type Encode = M;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self(PhantomData)
    }

    fn decoder(&mut self) -> Self {
        Self(PhantomData)
    }
}

impl<M: Message> Encoder for Plain<M> {
    type Item = M;
    type Error = Status;

    fn encode(&mut self, message: M, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        messages::write(&message, to).map_err(Status::internal)
    }
}

impl<M> Decoder for Plain<M> {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
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

    #[test]
    fn a_compressed_message_becomes_a_plain_one() {
        let body = compression::shrink(b"message", Encoding::Gzip).unwrap();
        let mut framed = vec![1];
        framed.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
        framed.extend_from_slice(&body);
        let plain = expanded(&framed, Encoding::Gzip, 99, |_| true, 1).unwrap();
        assert_eq!(&plain[..], b"\0\0\0\0\x07message");
        for (case, bytes, limit, status) in [
            ("cut", &framed[..framed.len() - 1], 99, 400),
            ("no frame", &framed[..3], 99, 400),
            ("too large", &framed[..], 6, 413),
        ] {
            let refusal = expanded(bytes, Encoding::Gzip, limit, |_| true, 1).unwrap_err();
            assert_eq!(refusal.kind.http(), status, "{case}: {refusal:?}");
        }
    }
}
