//! Owns the protocol over HTTP, under `/v2` of the agent's API.
//!
//! **Invariant:** every answer is the protocol's JSON, a refusal too (`{"error": "..."}`); what is left
//! of a refused body never becomes the next request.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::ask::{self, Answered};
use super::compression::{self, Encoding, Unread};
use super::json::{self, Written};
use super::reader::Reader;
use super::refusal::{Kind, Refusal, shown};
use super::request::Infer;
use super::work::{self, InPlaceOf, TEXT_WEIGHT, off_reactor};
use super::{EXTENSIONS, SMALL_BODY, dtype};
use crate::access::Denied;
use crate::api::body::{self, Limit, Place};
use crate::api::{Api, Problem};
use crate::engine::{ModelMetadata, TensorMetadata};

/// How much of a body is JSON, where tensors follow; the same in answers.
const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// The protocol's routes, to be nested under `/v2`.
pub(crate) fn routes() -> Vec<(String, MethodRouter<Api>)> {
    let of_all = [
        ("/", get(server)),
        ("/health/live", get(|| async { StatusCode::OK })),
        ("/health/ready", get(ready)),
        ("/repository/index", post(index)),
        ("/repository/models/{model}/load", post(load)),
        ("/repository/models/{model}/unload", post(unload)),
    ];
    let of_one = [
        ("", get(metadata)),
        ("/ready", get(model_ready)),
        ("/config", get(config)),
        ("/infer", post(infer)),
    ];
    let mut routes: Vec<_> =
        of_all.into_iter().map(|(path, methods)| (path.to_owned(), methods)).collect();
    for (path, methods) in of_one {
        routes.push((format!("/models/{{model}}{path}"), methods.clone()));
        routes.push((format!("/models/{{model}}/versions/{{version}}{path}"), methods));
    }
    routes
}

/// The same, with what is said where there is none.
pub(crate) fn router() -> Router<Api> {
    let router = routes()
        .into_iter()
        .fold(Router::new(), |router, (path, methods)| router.route(&path, methods));
    router.fallback(unknown_path).method_not_allowed_fallback(wrong_method)
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.kind.http());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(json!({ "error": self.message }))).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        Problem::from(denied).into()
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        let kind = match problem.status() {
            400 => Kind::Bad,
            401 => Kind::Unauthenticated,
            403 => Kind::Forbidden,
            404 => Kind::Unknown,
            429 => Kind::TooFast,
            408 => Kind::Slow,
            413 => Kind::TooLarge,
            503 => Kind::Busy,
            _ => Kind::Failed,
        };
        let refusal = Self::new(kind, problem.detail());
        match problem.retry_after_s() {
            Some(seconds) => refusal.retry_after(seconds),
            None => refusal,
        }
    }
}

/// A model, and the version if the path names one.
#[derive(serde::Deserialize)]
struct ModelPath {
    model: String,
    version: Option<String>,
}

type Asked = Result<Response, Refusal>;

fn answer(value: &Value) -> Response {
    axum::Json(value).into_response()
}

async fn server() -> Response {
    let version = env!("CARGO_PKG_VERSION");
    answer(&json!({ "name": "holdfast", "version": version, "extensions": EXTENSIONS }))
}

async fn ready(State(api): State<Api>) -> StatusCode {
    status_of(ask::is_any_ready(&api.service.engine))
}

fn status_of(is_ready: bool) -> StatusCode {
    if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

async fn model_ready(State(api): State<Api>, Path(path): Path<ModelPath>) -> Asked {
    let (engine, version) = (&api.service.engine, path.version.as_deref());
    let is_ready = ask::is_ready(engine, &path.model, version).await?;
    Ok(status_of(is_ready).into_response())
}

async fn metadata(State(api): State<Api>, Path(path): Path<ModelPath>) -> Asked {
    let (engine, version) = (&api.service.engine, path.version.as_deref());
    let found = ask::metadata(engine, &path.model, version).await?;
    let tensor = |tensor: &TensorMetadata| {
        json!({
            "name": tensor.name,
            "datatype": dtype::name(tensor.dtype),
            "shape": ask::dims(tensor),
        })
    };
    Ok(answer(&json!({
        "name": found.name,
        "versions": found.versions,
        "platform": found.platform,
        "inputs": found.inputs.iter().map(tensor).collect::<Vec<_>>(),
        "outputs": found.outputs.iter().map(tensor).collect::<Vec<_>>(),
    })))
}

async fn config(State(api): State<Api>, Path(path): Path<ModelPath>) -> Asked {
    let (engine, version) = (&api.service.engine, path.version.as_deref());
    let found = ask::metadata(engine, &path.model, version).await?;
    let ModelMetadata { name, platform, inputs, outputs, .. } = found;
    let tensor = |tensor: &TensorMetadata| {
        json!({
            "name": tensor.name,
            "data_type": dtype::config_name(tensor.dtype),
            "dims": ask::dims(tensor),
        })
    };
    Ok(answer(&json!({
        "name": name,
        "platform": "",
        "backend": platform,
        // The shapes are whole: a free batch stands in them as -1.
        "max_batch_size": 0,
        "input": inputs.iter().map(tensor).collect::<Vec<_>>(),
        "output": outputs.iter().map(tensor).collect::<Vec<_>>(),
    })))
}

async fn index(State(api): State<Api>, headers: HeaderMap, body: Body) -> Asked {
    let (bytes, _place) = small_body(&api, &headers, body).await?;
    let mut ready_only = false;
    let mut reader = Reader::new(text(&bytes)?);
    if reader.peek().is_some() {
        reader.object(|reader, key| {
            match key {
                "ready" => ready_only = reader.boolean()?,
                _ => reader.skip()?,
            }
            Ok::<_, Refusal>(())
        })?;
        reader.end()?;
    }
    let entries: Vec<Value> = ask::index(&api.service.engine, ready_only)
        .into_iter()
        .map(|entry| {
            json!({
                "name": entry.name,
                "version": entry.version,
                "state": ask::state(entry.state),
                "reason": entry.reason,
            })
        })
        .collect();
    Ok(answer(&Value::Array(entries)))
}

async fn load(
    State(api): State<Api>,
    Path(path): Path<ModelPath>,
    headers: HeaderMap,
    body: Body,
) -> Asked {
    let (bytes, _place) = small_body(&api, &headers, body).await?;
    let mut reader = Reader::new(text(&bytes)?);
    if reader.peek().is_some() {
        reader.object(|reader, key| match key {
            "parameters" => reader.object(|reader, key| {
                ask::load_parameter(key)?;
                Ok::<_, Refusal>(reader.skip()?)
            }),
            _ => Ok(reader.skip()?),
        })?;
        reader.end()?;
    }
    api.service.engine.load(&path.model).await?;
    Ok(StatusCode::OK.into_response())
}

async fn unload(
    State(api): State<Api>,
    Path(path): Path<ModelPath>,
    headers: HeaderMap,
    body: Body,
) -> Asked {
    // What is in it (whether models that hang on it go too) means nothing here.
    drop(small_body(&api, &headers, body).await?);
    api.service.engine.unload(&path.model).await?;
    Ok(StatusCode::OK.into_response())
}

async fn small_body(api: &Api, headers: &HeaderMap, body: Body) -> Result<(Bytes, Place), Refusal> {
    let _place = api.place()?;
    let busy_s = api.retry_after_s();
    let limit = Limit::Call(SMALL_BODY);
    Ok(body::read(&api.room, &api.config, limit, headers, body, busy_s).await?)
}

fn text(bytes: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(bytes).map_err(|_| Refusal::bad("the body is not UTF-8"))
}

/// What the headers of an inference say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Announced {
    json_length: Option<usize>,
    encoding: Option<Encoding>,
    wanted: Option<Encoding>,
}

fn announced(headers: &HeaderMap) -> Result<Announced, Refusal> {
    let foreign = headers.keys().find(|name| name.as_str().starts_with("holdfast-"));
    if let Some(name) = foreign {
        let parameter = name.as_str().replace('-', "_");
        return Err(Refusal::bad(format!(
            "header {name} means nothing under /v2; send parameter {parameter} in the JSON"
        )));
    }
    let one = |name: HeaderName| -> Result<Option<&str>, Refusal> {
        let mut values = headers.get_all(&name).iter();
        let (first, more) = (values.next(), values.next());
        if more.is_some() {
            return Err(Refusal::bad(format!("header {name} is given twice")));
        }
        let text = first.map(|value| value.to_str()).transpose();
        text.map_err(|_| Refusal::bad(format!("header {name} is no text")))
    };
    let json_length = match one(JSON_LENGTH)? {
        None => None,
        Some(text) => Some(text.trim().parse().map_err(|_| {
            let text = shown(text);
            Refusal::bad(format!("Inference-Header-Content-Length is {text}, no number of bytes"))
        })?),
    };
    let content = one(header::CONTENT_ENCODING)?.unwrap_or_default();
    let encoding = Encoding::of_content(content).map_err(|()| {
        let content = shown(content);
        let message = format!("Content-Encoding {content} is not read here; send gzip or deflate");
        Refusal::new(Kind::Encoding, message)
    })?;
    let accepted = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
    Ok(Announced { json_length, encoding, wanted: accepted.and_then(Encoding::wanted) })
}

async fn infer(
    State(api): State<Api>,
    Path(path): Path<ModelPath>,
    headers: HeaderMap,
    body: Body,
) -> Asked {
    let begun = Instant::now();
    let ModelPath { model, version } = path;
    let engine = &api.service.engine;
    // What can be said without the body is said before it is read.
    let announced = announced(&headers)?;
    let _place = api.place()?;
    let (limit, busy_s) = (Limit::Configured { frame: 0 }, api.retry_after_s());
    let (bytes, place) = body::read(&api.room, &api.config, limit, &headers, body, busy_s).await?;
    let in_view = |refusal| ask::in_view_of_the_model(engine, &model, version.as_deref(), refusal);
    let (request, _room) = decoded(&api, announced, bytes, place).await.map_err(in_view)?;
    let default = std::time::Duration::from_millis(api.defaults.deadline_ms);
    let answered = ask::infer(engine, &model, version.as_deref(), request, (begun, default)).await;
    api.service.pressure.note_call();
    let answered = answered?;
    let outputs = answered.outputs();
    let inside: usize = outputs.iter().filter(|o| !o.2).map(|o| o.1.len()).sum();
    let behind: usize = outputs.iter().map(|o| o.1.len() * o.1.dtype().bytes()).sum();
    let squeezed = if announced.wanted.is_some() { behind * TEXT_WEIGHT } else { 0 };
    let weight = inside * TEXT_WEIGHT + behind + squeezed;
    off_reactor(weight, move || written(&answered, announced.wanted)).await
}

/// The request in a body; its tensors take the place of the bytes, and more room where they are larger.
async fn decoded(
    api: &Api,
    announced: Announced,
    bytes: Bytes,
    mut place: Place,
) -> Result<(Infer, Place), Refusal> {
    let Announced { json_length, encoding, .. } = announced;
    let weight = match (encoding, json_length) {
        // What is in a compressed body nobody knows before.
        (Some(_), _) => usize::MAX,
        (None, None) => bytes.len() * TEXT_WEIGHT,
        (None, Some(json)) => bytes.len() + json.min(bytes.len()) * TEXT_WEIGHT,
    };
    let (room, limit) = (api.room.clone(), api.config.max_body_bytes);
    let busy_s = api.retry_after_s();
    off_reactor(weight, move || {
        let plain = match encoding {
            None => bytes,
            Some(encoding) => {
                expanded(&bytes, encoding, limit, (&room, busy_s), &mut place)?.into()
            }
        };
        let mut tensors = InPlaceOf::body(plain.len(), &room, busy_s, &mut place);
        let infer = json::parse(&plain, json_length, &mut |bytes| tensors.take(bytes))?;
        Ok((infer, place))
    })
    .await
}

fn expanded(
    bytes: &[u8],
    encoding: Encoding,
    limit: usize,
    (room, busy_s): (&body::Room, u64),
    place: &mut Place,
) -> Result<Vec<u8>, Refusal> {
    let more = |bytes| room.try_take(bytes, place);
    compression::expand(bytes, encoding, limit, more).map_err(|why| match why {
        Unread::Damaged => {
            let name = encoding.name();
            Refusal::bad(format!("the body is not {name} as its Content-Encoding says, or is cut"))
        }
        Unread::TooLarge => Refusal::new(
            Kind::TooLarge,
            format!(
                "more than the {limit} bytes that api.max_body_mib allows come out of the body"
            ),
        ),
        Unread::NoRoom => work::no_room(busy_s),
    })
}

fn written(answered: &Answered, wanted: Option<Encoding>) -> Asked {
    let answer = &answered.answer;
    let names = (answer.model.as_str(), answer.version.as_str(), answered.id.as_str());
    let failed = |error: &dyn std::error::Error| {
        Refusal::new(Kind::Failed, format!("the answer cannot be written: {error}"))
    };
    let Written { body, json_length } =
        json::write(names, &answered.outputs()).map_err(|error| failed(&error))?;
    let body = match wanted {
        None => body,
        Some(encoding) => compression::shrink(&body, encoding).map_err(|error| failed(&error))?,
    };
    let kind = if json_length.is_some() { "application/octet-stream" } else { "application/json" };
    let mut response = ([(header::CONTENT_TYPE, kind)], body).into_response();
    if let Some(length) = json_length {
        response.headers_mut().insert(JSON_LENGTH, length.into());
    }
    if let Some(encoding) = wanted {
        let name = HeaderValue::from_static(encoding.name());
        response.headers_mut().insert(header::CONTENT_ENCODING, name);
    }
    Ok(response)
}

async fn unknown_path(uri: Uri) -> Refusal {
    let detail = format!(
        "nothing at /v2{}; this agent speaks the Open Inference Protocol v2 with the extensions {}",
        path_of(&uri),
        EXTENSIONS.join(", ")
    );
    Refusal::new(Kind::Unknown, detail)
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let message = format!("{method} does not work on /v2{}", path_of(&uri));
    let mut response = Refusal::bad(message).into_response();
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
}

fn path_of(uri: &Uri) -> String {
    uri.path().chars().take(128).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn headers_are_read_as_triton_s_client_writes_them() {
        let read = announced(&headers(&[
            ("inference-header-content-length", "123"),
            ("content-encoding", "gzip"),
            ("accept-encoding", "deflate"),
        ]));
        let want = Announced {
            json_length: Some(123),
            encoding: Some(Encoding::Gzip),
            wanted: Some(Encoding::Deflate),
        };
        assert_eq!(read, Ok(want));
    }

    #[test]
    fn headers_that_cannot_be_read_refuse_the_request() {
        for (pairs, status, want) in [
            (&[("inference-header-content-length", "-1")][..], 400, "no number of bytes"),
            (
                &[
                    ("inference-header-content-length", "1"),
                    ("inference-header-content-length", "2"),
                ],
                400,
                "given twice",
            ),
            (&[("content-encoding", "br")], 415, "send gzip or deflate"),
            (&[("holdfast-class", "public")], 400, "send parameter holdfast_class"),
        ] {
            let refusal = announced(&headers(pairs)).unwrap_err();
            assert_eq!(refusal.kind.http(), status, "{pairs:?}");
            assert!(refusal.message.contains(want), "{refusal:?}");
        }
    }
}
