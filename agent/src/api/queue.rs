//! The queue as the API shows and changes it.
//!
//! **Invariant:** what is changed here is on disk before it is said to be done.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::look_up::{check_own, known_id, unknown_request};
use super::query::bad_query;
use super::{Api, Problem, body};
use crate::access::Caller;
use crate::ask_error::AskError;
use crate::export::{Line, MAX_LINE_BYTES};
use crate::listing::{self, Numbers};
use crate::operator;
use crate::queue::{self, QueueError, Recorded, RequestId};
use crate::reply::ReplyBody;

/// Which requests are meant.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    state: Option<queue::State>,
}

impl Which {
    fn of(query: Result<Query<Self>, QueryRejection>) -> Result<Option<queue::State>, Problem> {
        let known = queue::State::ALL.map(queue::State::name).join(", ");
        let which = query.map_err(|error| bad_query(&error, &format!("state, one of {known}")))?;
        Ok(which.0.state)
    }
}

/// How a request is taken back.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Back {
    forget: Option<bool>,
}

/// The ids of some requests.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ids {
    /// In the order in which they were made.
    pub ids: Vec<RequestId>,
}

pub(super) async fn cancel(
    State(api): State<Api>,
    caller: Caller,
    Path(text): Path<String>,
    query: Result<Query<Back>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(back) = query.map_err(|error| bad_query(&error, "forget=true or false"))?;
    let id = known_id(&text)?;
    check_own(&api, &caller, id, &text).await?;
    let now_ms = api.service.clock.now_ms();
    let queue = api.service.queue.open()?;
    if back.forget == Some(true) {
        let dropped = operator::drop_request(queue, id, now_ms).await;
        return Ok(Json(dropped.map_err(|error| of_queue(error, &text))?).into_response());
    }
    changed(&api, id, &text, queue.cancel(id, now_ms).await).await
}

pub(super) async fn retry(
    State(api): State<Api>,
    Path(text): Path<String>,
) -> Result<Response, Problem> {
    let id = known_id(&text)?;
    let retried = api.service.queue.open()?.retry_now(id).await;
    changed(&api, id, &text, retried).await
}

/// The request as it is after a change, or why there was none.
async fn changed(
    api: &Api,
    id: RequestId,
    text: &str,
    outcome: Result<Recorded, QueueError>,
) -> Result<Response, Problem> {
    match outcome.map_err(|error| of_queue(error, text))? {
        Recorded::Stored => {}
        Recorded::AlreadyFinal(state) => {
            let detail = format!("request {id} is {state} already");
            return Err(Problem::new(StatusCode::CONFLICT, "already_final", detail));
        }
    }
    let reply = api.service.look_up(id, Duration::ZERO).await?;
    let reply = reply.ok_or_else(|| unknown_request(text))?;
    Ok(Json(ReplyBody::from(&reply)).into_response())
}

fn of_queue(error: QueueError, text: &str) -> Problem {
    match error {
        QueueError::Unknown { .. } => unknown_request(text),
        error => AskError::from(error).into(),
    }
}

pub(super) async fn list(
    State(api): State<Api>,
    query: Result<Query<Which>, QueryRejection>,
) -> Result<Response, Problem> {
    let state = Which::of(query)?;
    let now_ms = api.service.clock.now_ms();
    let listing = listing::of_queue(api.service.queue.open()?, state, now_ms).await;
    Ok(Json(listing.map_err(AskError::from)?).into_response())
}

/// The ids in one state, or of all that have no end yet.
pub(super) async fn ids(
    State(api): State<Api>,
    query: Result<Query<Which>, QueryRejection>,
) -> Result<Response, Problem> {
    let state = Which::of(query)?;
    let ids = api.service.queue.open()?.ids(state).await.map_err(AskError::from)?;
    Ok(Json(Ids { ids }).into_response())
}

pub(super) async fn stats(State(api): State<Api>) -> Result<Response, Problem> {
    let stats = api.service.queue.open()?.stats().await.map_err(AskError::from)?;
    Ok(Json(Numbers::of(stats, api.service.clock.now_ms())).into_response())
}

/// A request with all its bytes, for another queue.
pub(super) async fn export(
    State(api): State<Api>,
    Path(text): Path<String>,
) -> Result<Response, Problem> {
    let id = known_id(&text)?;
    let _place = api.place()?;
    let line = operator::exported(api.service.queue.open()?, id, api.service.clock.now_ms()).await;
    let line = line.map_err(|error| match error {
        QueueError::Damaged { .. } => {
            Problem::new(StatusCode::CONFLICT, "damaged", error.to_string())
        }
        error => of_queue(error, &text),
    })?;
    let line = line.ok_or_else(|| {
        let detail = format!("no request {id} here that has no end yet");
        Problem::new(StatusCode::NOT_FOUND, "unknown_request", detail)
    })?;
    Ok(Json(line).into_response())
}

/// Takes in a request of another queue.
pub(super) async fn import(
    State(api): State<Api>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let _place = api.place()?;
    let (limit, busy_s) = (body::Limit::Call(MAX_LINE_BYTES), api.retry_after_s());
    let (bytes, _room) = body::read(&api.room, &api.config, limit, &headers, body, busy_s).await?;
    let now_ms = api.service.clock.now_ms();
    let unfit = |why: String| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_record", why);
    // Megabytes of base64 are not for the reactor.
    let read = tokio::task::spawn_blocking(move || {
        let entry = Line::parse(&bytes).and_then(|line| line.entry(now_ms));
        entry.map_err(|error| crate::error_chain(&error))
    });
    let entry = read.await.map_err(|error| unfit(error.to_string()))?.map_err(unfit)?;
    let taken = operator::take_in(api.service.queue.open()?, entry).await;
    Ok(Json(taken.map_err(AskError::from)?).into_response())
}
