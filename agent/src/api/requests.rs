//! Owns the list of requests on disk over HTTP: page by page, and followed as they are made.
//!
//! ```text
//! GET /v1/requests   a page; with Accept: text/event-stream each one once, those to come too
//! ```
//!
//! **Invariant:** a list holds no input and no answer; a stream holds one page in memory, takes a place
//! of `api.max_waiting`, and ends when the agent stops.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State as From};
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event, KeepAlive};
use axum::response::{IntoResponse, Response, Sse};
use axum::{Extension, Json};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::access_log::Ending;
use super::look_up::known_id;
use super::query::bad_query;
use super::results::HEARTBEAT;
use super::{Api, Problem};
use crate::ask_error::AskError;
use crate::listing::{MAX_LISTED, Row, page_of};
use crate::queue::{Queue, RequestId, State};

/// Requests in a page unless the caller says otherwise.
const PAGE: usize = 100;
/// Requests that a stream reads at once.
const STREAM_PAGE: usize = 50;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RequestsQuery {
    state: Option<State>,
    after: Option<String>,
    limit: Option<usize>,
}

/// A page of requests.
#[derive(Debug, Serialize)]
struct PageBody {
    requests: Vec<Row>,
    /// Pass as `after` for the next page; nothing where this is the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

pub(super) async fn list(
    From(api): From<Api>,
    query: Result<Query<RequestsQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let states = State::ALL.map(State::name).join(", ");
    let known = format!("state (one of {states}), after, limit (1..={MAX_LISTED})");
    let Query(query) = query.map_err(|error| bad_query(&error, &known))?;
    let limit = query.limit.unwrap_or(PAGE);
    if !(1..=MAX_LISTED).contains(&limit) {
        return Err(Problem::bad_term(format!("limit is {limit}, must be 1..={MAX_LISTED}")));
    }
    let after = query.after.as_deref().map(known_id).transpose()?;
    let queue = api.service.queue.open()?.clone();
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    if accepts.is_some_and(|accepts| accepts.contains("text/event-stream")) {
        return follow(&api, queue, query.state, after);
    }
    let now_ms = api.service.clock.now_ms();
    let requests = page_of(&queue, query.state, after, limit, now_ms).await;
    let requests = requests.map_err(AskError::from)?;
    let is_full = requests.len() == limit;
    let next = requests.last().filter(|_| is_full).map(|row| row.id.clone());
    Ok(Json(PageBody { requests, next }).into_response())
}

/// A stream of requests on its way.
struct Following {
    api: Api,
    queue: Queue,
    state: Option<State>,
    after: Option<RequestId>,
    changes: watch::Receiver<u64>,
    ready: VecDeque<Event>,
    ending: Ending,
    _place: OwnedSemaphorePermit,
}

fn follow(
    api: &Api,
    queue: Queue,
    state: Option<State>,
    after: Option<RequestId>,
) -> Result<Response, Problem> {
    let place = api.waiting_place()?;
    let (changes, api, ready) = (queue.changes(), api.clone(), VecDeque::new());
    let ending = Ending::default();
    let told = ending.clone();
    let following = Following { api, queue, state, after, changes, ready, ending, _place: place };
    let events = stream::unfold(following, |mut following| async move {
        let next = following.next().await;
        let event = following.ending.endless(next)?;
        Some((Ok::<_, Infallible>(event), following))
    });
    let events = Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT));
    Ok((Extension(told), events).into_response())
}

impl Following {
    /// The next request; `None` when the agent stops or the queue cannot be read.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            self.changes.borrow_and_update();
            let now_ms = self.api.service.clock.now_ms();
            let rows = page_of(&self.queue, self.state, self.after, STREAM_PAGE, now_ms).await;
            let rows = rows
                .inspect_err(|error| tracing::warn!(%error, "a stream of requests ended"))
                .ok()?;
            for row in rows {
                self.after = row.id.parse().ok().or(self.after);
                // Our own types always become JSON, and JSON has no line breaks.
                let data = serde_json::to_string(&row).unwrap_or_default();
                self.ready.push_back(Event::default().event("request").id(row.id).data(data));
            }
            if !self.ready.is_empty() {
                continue;
            }
            tokio::select! {
                () = self.api.stop.cancelled() => return None,
                changed = self.changes.changed() => changed.ok()?,
            }
        }
    }
}
