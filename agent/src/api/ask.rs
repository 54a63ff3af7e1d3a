//! Owns asking a task: what is sent, as a request, and what its caller is told.
//!
//! **Invariant:** what can be said of a request without its body is said before the body is read.

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use holdfast_models::{Media, MediaError, MediaKind};
use serde::Serialize;
use tokio::sync::SemaphorePermit;

use super::access_log::Logged;
use super::query::bad_query;
use super::tasks::known_task;
use super::terms::{self, Terms, TermsQuery};
use super::{Api, Problem, body};
use crate::access::Caller;
use crate::queue::{RequestId, State as Stage};
use crate::reply::{Reply, ReplyBody};
use crate::request::{Request, TaskName};

pub(super) async fn ask(
    State(api): State<Api>,
    caller: Caller,
    Path(task): Path<String>,
    query: Result<Query<TermsQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    // What can be said without the body is said before it is read.
    let (task, terms, (ttl_ms, not_before_ms), _place) =
        admit(&api, &caller, &task, query, &headers).await?;
    let busy_s = api.retry_after_s();
    let limit = body::Limit::Configured { frame: 0 };
    let (bytes, _room) = body::read(&api.room, &api.config, limit, &headers, body, busy_s).await?;
    let media = read_media(&api, &task, &headers, bytes)?;
    let class = terms.class.unwrap_or(api.service.policy.default_class);
    let logged = Extension(Logged { task: Some(task.to_string()), class: Some(class) });
    let request = Request {
        id: RequestId::new(),
        task,
        media,
        class,
        priority: terms.priority.unwrap_or_default(),
        escalate: terms.escalate.unwrap_or_default(),
        deadline_ms: terms.deadline_ms.unwrap_or(api.defaults.deadline_ms),
        ttl_ms,
        not_before_ms,
        key: terms.key,
        hops: terms.hops,
    };
    let asked = api.service.ask(request).await;
    api.service.pressure.note_call();
    let (waiting, rate) = (api.service.waiting(), api.service.pressure.queue());
    let reply = asked.map_err(|error| Problem::of_queue(error, waiting, rate))?;
    if reply.state.is_final() {
        return Ok((logged, Json(ReplyBody::from(&reply))).into_response());
    }
    Ok((logged, told_later(&api, &reply, not_before_ms)).into_response())
}

/// What is told who was not answered yet: the request, where it is found, and what waits with it.
pub(super) fn told_later(api: &Api, reply: &Reply, not_before_ms: u64) -> Response {
    let (length, rate) = (api.service.waiting(), api.service.pressure.queue());
    let expected_wait_s = length.and_then(|length| rate.time_for(length));
    let now_ms = api.service.clock.now_ms();
    let due_in_ms = match &reply.kept {
        Some(before) => before.not_before_ms.saturating_sub(now_ms),
        None => not_before_ms,
    };
    let due_in_ms = Some(due_in_ms).filter(|ms| *ms > 0 && reply.state == Stage::Held);
    let queue = Ahead { length, expected_wait_s };
    let body = HeldBody { reply: ReplyBody::from(reply), due_in_ms, queue };
    let location = format!("/v1/requests/{}", reply.id);
    (StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(body)).into_response()
}

/// A reply to who was not answered yet: the request, and what waits with it.
#[derive(Debug, Serialize)]
struct HeldBody<'a> {
    #[serde(flatten)]
    reply: ReplyBody<'a>,
    /// Milliseconds before which it is not sent, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    due_in_ms: Option<u64>,
    queue: Ahead,
}

#[derive(Debug, Serialize)]
struct Ahead {
    /// Requests in the queue, this one included; `null` when that is not known.
    length: Option<u64>,
    /// Seconds in which so many were finished lately; `null` when nothing was.
    expected_wait_s: Option<u64>,
}

/// What can be said of a request before its body is read.
async fn admit<'a>(
    api: &'a Api,
    caller: &Caller,
    task: &str,
    query: Result<Query<TermsQuery>, QueryRejection>,
    headers: &HeaderMap,
) -> Result<(TaskName, Terms, (u64, u64), SemaphorePermit<'a>), Problem> {
    let task = known_task(api, task).await?;
    let Query(query) = query.map_err(|error| bad_query(&error, TermsQuery::KEYS))?;
    let mut terms = terms::read(headers, &query)?;
    terms.key = terms.key.map(|key| caller.own(key));
    caller.may_label(terms.class.unwrap_or(api.service.policy.default_class))?;
    let times = terms.times(api.defaults.ttl_ms, terms::in_query)?;
    Ok((task, terms, times, api.place()?))
}

fn read_media(
    api: &Api,
    task: &TaskName,
    headers: &HeaderMap,
    bytes: Bytes,
) -> Result<Media, Problem> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let lane = api.service.engine.lane(task);
    let expects = lane.map(|lane| lane.expects());
    let media = Media::detect_for(bytes, content_type, expects).map_err(|error| {
        let status = if !matches!(error, MediaError::Empty | MediaError::TooLarge(_)) {
            StatusCode::UNSUPPORTED_MEDIA_TYPE
        } else {
            StatusCode::UNPROCESSABLE_ENTITY
        };
        Problem::new(status, "bad_input", crate::error_chain(&error))
    })?;
    if let Some(expects) = expects.filter(|expects| !expects.takes(media.media_type())) {
        let want = match expects {
            MediaKind::Audio => "a recording",
            MediaKind::Image => "a picture",
            MediaKind::Tensor => "numbers",
            MediaKind::Text => "a text",
        };
        let accepted = expects.content_types();
        let got = media.media_type().mime();
        let detail = format!("task {task} takes {want} ({accepted}), this is {got}");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "wrong_media", detail));
    }
    Ok(media)
}
