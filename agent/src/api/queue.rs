//! The queue as the API shows and changes it.
//!
//! **Invariant:** what is changed here is on disk before it is said to be done.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::{Api, Problem, known_id, unknown_request};
use crate::listing::Numbers;
use crate::queue::{QueueError, Recorded};
use crate::service::{AskError, ReplyBody};

pub(super) async fn cancel(
    State(api): State<Api>,
    Path(text): Path<String>,
) -> Result<Response, Problem> {
    let id = known_id(&text)?;
    let now_ms = api.service.clock.now_ms();
    match api.service.queue.open()?.cancel(id, now_ms).await {
        Ok(Recorded::Stored) => {}
        Ok(Recorded::AlreadyFinal(state)) => {
            let detail = format!("request {id} is {state} already");
            return Err(Problem::new(StatusCode::CONFLICT, "already_final", detail));
        }
        Err(QueueError::Unknown { .. }) => return Err(unknown_request(&text)),
        Err(error) => return Err(AskError::from(error).into()),
    }
    let reply = api.service.look_up(id, Duration::ZERO).await?;
    let reply = reply.ok_or_else(|| unknown_request(&text))?;
    Ok(Json(ReplyBody::from(&reply)).into_response())
}

pub(super) async fn list(State(api): State<Api>) -> Result<Response, Problem> {
    let now_ms = api.service.clock.now_ms();
    let listing = crate::listing::of_queue(api.service.queue.open()?, now_ms).await;
    let listing = listing.map_err(AskError::from)?;
    Ok(Json(listing).into_response())
}

pub(super) async fn stats(State(api): State<Api>) -> Result<Response, Problem> {
    let stats = api.service.queue.open()?.stats().await.map_err(AskError::from)?;
    Ok(Json(Numbers::of(stats, api.service.clock.now_ms())).into_response())
}
