//! Owns looking a request up by its id, and whose it is.
//!
//! **Invariant:** of a request that is none of a caller's it hears as of one that is not there.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::query::{bad_query, wait_of};
use super::{Api, Problem};
use crate::access::Caller;
use crate::queue::RequestId;
use crate::reply::ReplyBody;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LookUpQuery {
    wait_ms: Option<u64>,
}

pub(super) async fn look_up(
    State(api): State<Api>,
    caller: Caller,
    Path(text): Path<String>,
    query: Result<Query<LookUpQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|error| bad_query(&error, "wait_ms in 0..=60000"))?;
    let id = known_id(&text)?;
    let wait = wait_of(query.wait_ms)?;
    let _place = if wait.is_zero() { None } else { Some(api.waiting_place()?) };
    check_own(&api, &caller, id, &text).await?;
    let reply = api.service.look_up(id, wait).await?.ok_or_else(|| unknown_request(&text))?;
    Ok(Json(ReplyBody::at(&reply, api.service.clock.now_ms())).into_response())
}

/// A token that is for some tasks or classes is told of their requests alone; of others it hears as of none.
pub(super) async fn check_own(
    api: &Api,
    caller: &Caller,
    id: RequestId,
    text: &str,
) -> Result<(), Problem> {
    if !caller.is_bounded() {
        return Ok(());
    }
    let reply = api.service.look_up(id, Duration::ZERO).await?;
    let is_own = reply.is_some_and(|reply| caller.may_hear(reply.subject.name(), reply.class));
    if is_own { Ok(()) } else { Err(unknown_request(text)) }
}

pub(super) fn known_id(text: &str) -> Result<RequestId, Problem> {
    text.parse().map_err(|_| unknown_request(text))
}

pub(super) fn unknown_request(text: &str) -> Problem {
    let shown: String = text.chars().take(64).collect();
    let detail = format!(
        "no request {shown} here; answers given in the call itself are not kept unless an \
         idempotency key was sent, others for queue.keep_answers_s"
    );
    Problem::new(StatusCode::NOT_FOUND, "unknown_request", detail)
}
