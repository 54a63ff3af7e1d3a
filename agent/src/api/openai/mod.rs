//! Owns the API that OpenAI's clients speak: chat completions, completions, responses, embeddings,
//! transcriptions, models.
//!
//! ```text
//! POST /v1/chat/completions      in one piece, or as server-sent events
//! POST /v1/completions           the same, of a prompt
//! POST /v1/responses             the same, as typed events, or in the background
//! GET  /v1/responses/{id}/input_items  what a response in the background was asked
//! POST /v1/embeddings            a bundle of that name, or a destination
//! POST /v1/audio/transcriptions  the same, of a recording
//! GET  /v1/models                every name that can be asked
//! ```
//!
//! **Invariant:** what is answered here is what the module's callers know, errors too; what is asked and
//! cannot be honoured is refused by its name.

mod background;
mod caching;
mod complaint;
mod embeddings;
mod following;
mod form;
mod holding;
mod input_items;
mod models;
mod pouring;
mod talk;
mod transcriptions;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use self::complaint::Complaint;
use super::access_log::Logged;
use super::body::{Limit, Place, read};
use super::{Api, Problem, Route};
use crate::access::{Caller, Denied};
use crate::gateway::Answered;
use crate::inquiry::Terms;
use crate::queue::RequestId;

/// From this size on a body is neither taken apart nor written on the reactor.
const LARGE: usize = 256 * 1024;
/// What a value of JSON takes in memory at most, however short its text is.
const BYTES_OF_A_VALUE: usize = 768;
/// Values of JSON in one body at most.
const MAX_VALUES: usize = 65_536;

pub(super) fn routes() -> Vec<Route> {
    let mut routes = vec![
        ("/v1/embeddings", post(embeddings::embed)),
        ("/v1/audio/transcriptions", post(transcriptions::transcribe)),
        ("/v1/models", get(models::list)),
        ("/v1/models/{*id}", get(models::one)),
    ];
    routes.extend(talk::routes());
    routes.extend(background::routes());
    routes.push(input_items::route());
    routes
}

/// Whether what is under this path is spoken to as OpenAI's clients do.
pub(super) fn is_under(path: &str) -> bool {
    // Those of OpenAI's API, also what is not offered here: its clients are told so in their own form.
    const FAMILIES: [&str; 18] = [
        "assistants",
        "audio",
        "batches",
        "chat",
        "completions",
        "containers",
        "conversations",
        "embeddings",
        "evals",
        "files",
        "fine_tuning",
        "images",
        "models",
        "moderations",
        "responses",
        "threads",
        "uploads",
        "vector_stores",
    ];
    let rest = path.strip_prefix("/v1/").unwrap_or_default();
    FAMILIES.contains(&rest.split('/').next().unwrap_or_default())
}

/// The first name in the query of a question that means nothing there: a term would be taken for none.
pub(super) fn unknown_in<'a>(path: &str, query: &'a str) -> Option<&'a str> {
    const QUESTIONS: [&str; 5] = [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/embeddings",
        "/v1/audio/transcriptions",
    ];
    // Azure's clients say it of every call.
    const KNOWN: &str = "api-version";
    if !QUESTIONS.contains(&path) {
        return None;
    }
    let names = query.split('&').filter(|pair| !pair.is_empty());
    let mut names = names.map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name));
    names.find(|name| *name != KNOWN)
}

/// A caller that is refused before it is heard.
pub(super) fn refused(denied: Denied) -> Response {
    Call::begin().end(Err(denied.into()))
}

/// A problem in the form of this API.
pub(super) fn in_form(problem: Problem) -> Response {
    Call::begin().end(Err(problem.into()))
}

/// The terms as this caller's own, if it may ask this model so; and what the log says of it then.
fn allowed(caller: &Caller, model: &str, terms: Terms) -> Result<(Terms, Logged), Complaint> {
    caller.may_ask(model)?;
    caller.may_label(terms.class)?;
    let (task, class) = (Some(model.chars().take(64).collect()), Some(terms.class));
    let key = terms.key.map(|key| caller.own(key));
    Ok((Terms { key, ..terms }, Logged { task, class }))
}

/// One call, from its beginning.
#[derive(Debug, Clone, Copy)]
struct Call {
    id: RequestId,
    began: Instant,
}

impl Call {
    fn begin() -> Self {
        Self { id: RequestId::new(), began: Instant::now() }
    }

    /// The response, with what every one has; the log is told what was asked.
    fn end_logged(self, outcome: Result<(Response, Logged), Complaint>) -> Response {
        self.end(outcome.map(|(mut response, logged)| {
            response.extensions_mut().insert(logged);
            response
        }))
    }

    /// The response, with what every one has.
    fn end(self, outcome: Result<Response, Complaint>) -> Response {
        let mut response = outcome.unwrap_or_else(Complaint::into_response);
        let headers = response.headers_mut();
        if let Ok(id) = HeaderValue::try_from(self.id.to_string()) {
            headers.insert("x-request-id", id);
        }
        let took = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        headers.insert("openai-processing-ms", HeaderValue::from(took));
        response
    }
}

/// A body, and what it takes while its call is under way.
struct Taken {
    bytes: Bytes,
    place: OwnedSemaphorePermit,
    room: Place,
}

/// Takes a call in: a place for it, then its body.
async fn take(api: &Api, headers: &HeaderMap, body: Body) -> Result<Taken, Complaint> {
    check_encoding(headers)?;
    let place = api.owned_place()?;
    let limit = Limit::Configured { frame: 0 };
    let busy_s = api.retry_after_s();
    let (bytes, room) = read(&api.room, &api.config, limit, headers, body, busy_s).await?;
    Ok(Taken { bytes, place, room })
}

/// Takes a call of JSON in, with the room for what its text becomes.
async fn take_json(api: &Api, headers: &HeaderMap, body: Body) -> Result<Taken, Complaint> {
    let mut taken = take(api, headers, body).await?;
    check_json(headers)?;
    let bytes = taken.bytes.clone();
    let values = aside(bytes.len(), move || values(&bytes)).await?;
    if values > MAX_VALUES {
        let what = format!("the body has more than {MAX_VALUES} values");
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", what).into());
    }
    if !api.room.try_take(values * BYTES_OF_A_VALUE, &mut taken.room) {
        let what = "the bodies under way take all of api.max_body_memory_mib; try again shortly";
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", what);
        return Err(problem.retry_after(api.retry_after_s()).into());
    }
    Ok(taken)
}

/// How many values a body of JSON has, by what stands between them outside of texts.
fn values(bytes: &[u8]) -> usize {
    let (mut count, mut is_text, mut is_escaped) = (1, false, false);
    for byte in bytes {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_text => is_escaped = true,
            b'"' => is_text = !is_text,
            b'{' | b'[' | b',' | b':' if !is_text => count += 1,
            _ => {}
        }
    }
    count
}

/// Bodies come as they are.
fn check_encoding(headers: &HeaderMap) -> Result<(), Complaint> {
    for value in headers.get_all(header::CONTENT_ENCODING) {
        let encoding = value.to_str().unwrap_or("of another kind").trim();
        if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity") {
            let shown: String = encoding.chars().take(32).collect();
            let what = format!("Content-Encoding {shown} is not read here; send the body as it is");
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(Problem::new(status, "wrong_media", what).into());
        }
    }
    Ok(())
}

/// Calls that say what their body is say JSON.
fn check_json(headers: &HeaderMap) -> Result<(), Complaint> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = kind.map(|kind| kind.split(';').next().unwrap_or_default().trim());
    match essence {
        None => Ok(()),
        Some(kind) if kind.eq_ignore_ascii_case("application/json") => Ok(()),
        Some(_) => {
            let what = "the body must be JSON, with content-type: application/json";
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            Err(Problem::new(status, "wrong_media", what).into())
        }
    }
}

/// Takes a body apart with `read`; a large one off the reactor.
async fn apart<T: Send + 'static>(
    bytes: Bytes,
    read: impl FnOnce(&[u8]) -> Result<T, holdfast_chat::served::Refusal> + Send + 'static,
) -> Result<T, Complaint> {
    Ok(aside(bytes.len(), move || read(&bytes)).await??)
}

/// Does work on so many bytes: where it is asked for, or off the reactor where they are many.
async fn aside<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Complaint> {
    if bytes < LARGE {
        return Ok(work());
    }
    // Only a runtime that ends takes none in.
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| crate::gateway::Refused::Stopping.into())
}

/// A response with a body of this type that says who answered, and for how much.
fn told<A>(by: &Answered<A>, content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Ok(place) = HeaderValue::try_from(&by.place) {
        headers.insert("holdfast-destination", place);
    }
    headers.insert("holdfast-zone", HeaderValue::from_static(by.zone.as_str()));
    if let Some(micros) = by.cost_micros {
        headers.insert("holdfast-cost-micros", HeaderValue::from(micros));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_outside_of_texts() {
        for (text, want) in [
            ("", 1),
            ("[]", 2),
            (r#"{"a": [1, 2, {"b": "x, y: [z] \" {"}]}"#, 8),
            (r#""\\\\", 1"#, 2),
        ] {
            assert_eq!(values(text.as_bytes()), want, "{text}");
        }
    }
}
