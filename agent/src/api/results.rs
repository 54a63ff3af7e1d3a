//! Owns the results over HTTP: pages for those who poll, server-sent events for those who listen, and
//! the acknowledgements of takers.
//!
//! ```text
//! GET    /v1/results                  a page; with Accept: text/event-stream a stream
//! POST   /v1/results/{number}/ack     everything up to the number is acknowledged
//! GET    /v1/takers                   who takes results, and how far each is
//! DELETE /v1/takers/{name}            forgets a taker
//! GET    /v1/requests/{id}/events     the states of one request, to its end
//! ```
//!
//! **Invariant:** a stream holds one page in memory, takes a place of `api.max_waiting`, and ends when
//! the agent stops.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State as From};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive};
use axum::response::{IntoResponse, Response, Sse};
use axum::{Extension, Json};
use futures_util::Stream;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::access_log::Ending;
use super::look_up::{check_own, known_id, unknown_request};
use super::query::{bad_query, wait_of};
use super::{Api, Problem};
use crate::access::Caller;
use crate::ask_error::AskError;
use crate::queue::{Queue, QueueError, RequestId, State};
use crate::reply::{ReplyBody, reply_of};
use crate::request::TaskName;
use crate::results::feed::{self, Reader, ResultBody};
use crate::results::takers::{Gap, TakerError, TakerName};
use crate::service::Service;

/// Results in a page unless the caller says otherwise.
const PAGE: usize = 100;
/// Results that a stream reads at once.
const STREAM_PAGE: usize = 50;
/// A stream without news says so much after this time.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);
const KEYS: &str = "after, limit (1..=1000), task, taker, wait_ms";

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResultsQuery {
    after: Option<u64>,
    limit: Option<usize>,
    task: Option<String>,
    taker: Option<String>,
    wait_ms: Option<u64>,
}

/// What a caller asks for, checked.
struct Wanted {
    after: u64,
    limit: usize,
    task: Option<TaskName>,
    taker: Option<TakerName>,
    wait: Duration,
}

/// A page of results.
#[derive(Debug, Serialize)]
struct PageBody<'a> {
    results: Vec<ResultBody<'a>>,
    /// Pass as `after` for the next page; the number to acknowledge for all of this one.
    next: u64,
    /// Results that this taker never acknowledged and that are kept no longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<Gap>,
}

pub(super) async fn results(
    From(api): From<Api>,
    query: Result<Query<ResultsQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|error| bad_query(&error, KEYS))?;
    let mut wanted = Wanted::read(&api, query).await?;
    let last = last_event(&headers)?;
    let queue = api.service.queue.open()?.clone();
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    if accepts.is_some_and(|accepts| accepts.contains("text/event-stream")) {
        wanted.after = wanted.after.max(last.unwrap_or(0));
        return stream_results(&api, queue, wanted).await;
    }
    page(&api, &queue, wanted).await
}

impl Wanted {
    async fn read(api: &Api, query: ResultsQuery) -> Result<Self, Problem> {
        let limit = query.limit.unwrap_or(PAGE);
        if !(1..=feed::MAX_PAGE).contains(&limit) {
            return Err(Problem::bad_term(format!("limit is {limit}, must be 1..=1000")));
        }
        let task = query.task.as_deref().map(|text| {
            let want = "task must be a task's name: 1 to 64 of a-z, 0-9 and -";
            TaskName::parse(text).ok_or_else(|| Problem::bad_term(want))
        });
        let taker = query.taker.as_deref().map(taker_name).transpose()?;
        let after = match (query.after, &taker) {
            (Some(_), Some(_)) => {
                return Err(Problem::bad_term(
                    "after and taker cannot both be given: a taker goes on where it acknowledged",
                ));
            }
            (after, None) => after.unwrap_or(0),
            (None, Some(taker)) => api.takers.cursor(taker).await.number,
        };
        let wait = wait_of(query.wait_ms)?;
        Ok(Self { after, limit, task: task.transpose()?, taker, wait })
    }
}

fn taker_name(text: &str) -> Result<TakerName, Problem> {
    TakerName::parse(text)
        .ok_or_else(|| Problem::bad_term("taker must be a name: 1 to 64 of a-z, 0-9 and -"))
}

/// The number that a reader who comes back has seen last.
fn last_event(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    match number {
        Some(number) => Ok(Some(number)),
        None => Err(Problem::bad_term("header last-event-id must be the number of a result")),
    }
}

async fn page(api: &Api, queue: &Queue, wanted: Wanted) -> Result<Response, Problem> {
    let Wanted { after, limit, task, taker, wait } = wanted;
    let mut page = feed::page(queue, after, limit, task.as_ref()).await.map_err(AskError::from)?;
    let gap = gap(api, taker.as_ref(), page.first).await;
    if page.found.is_empty() && page.is_end && gap.is_none() && !wait.is_zero() {
        let _place = api.waiting_place()?;
        let mut reader = Reader::new(queue.clone(), page.last, task);
        match timeout(wait, reader.next(limit)).await {
            Ok(Ok(next)) => page = next,
            Ok(Err(error)) => return Err(AskError::from(error).into()),
            Err(_) => page.last = reader.after(),
        }
    }
    if page.first.is_some() {
        api.takers.note_shown(page.last);
    }
    let results = page.found.iter().map(ResultBody::from).collect();
    Ok(Json(PageBody { results, next: page.last, gap }).into_response())
}

async fn gap(api: &Api, taker: Option<&TakerName>, first: Option<u64>) -> Option<Gap> {
    api.takers.cursor(taker?).await.gap(first)
}

/// A stream on its way.
struct Streaming {
    api: Api,
    reader: Reader,
    ready: VecDeque<Event>,
    ending: Ending,
    _place: OwnedSemaphorePermit,
}

async fn stream_results(api: &Api, queue: Queue, wanted: Wanted) -> Result<Response, Problem> {
    let place = api.waiting_place()?;
    let mut ready = VecDeque::new();
    if wanted.taker.is_some() {
        let first = queue.results_after(wanted.after, 1).await.map_err(AskError::from)?;
        let first = first.first().map(|(number, _)| *number);
        if let Some(gap) = gap(api, wanted.taker.as_ref(), first).await {
            ready.push_back(event("gap", &gap));
        }
    }
    let reader = Reader::new(queue, wanted.after, wanted.task);
    let ending = Ending::default();
    let streaming =
        Streaming { api: api.clone(), reader, ready, ending: ending.clone(), _place: place };
    let events = stream::unfold(streaming, |mut streaming| async move {
        let next = streaming.next().await;
        let event = streaming.ending.endless(next)?;
        Some((Ok(event), streaming))
    });
    Ok(sse(events, ending))
}

impl Streaming {
    /// The next event; `None` when the agent stops or the queue cannot be read: who comes back then goes
    /// on where this ended.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let page = tokio::select! {
                () = self.api.stop.cancelled() => return None,
                page = self.reader.next(STREAM_PAGE) => page,
            };
            let page = page
                .inspect_err(|error| tracing::warn!(%error, "a stream of results ended"))
                .ok()?;
            self.api.takers.note_shown(page.last);
            self.ready.extend(page.found.iter().map(|found| {
                event("result", &ResultBody::from(found)).id(found.number.to_string())
            }));
        }
    }
}

fn sse(
    events: impl Stream<Item = Result<Event, Infallible>> + Send + 'static,
    ending: Ending,
) -> Response {
    let events = Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT));
    (Extension(ending), events).into_response()
}

fn event(name: &str, content: &impl Serialize) -> Event {
    // Our own types always become JSON, and JSON has no line breaks.
    Event::default().event(name).data(serde_json::to_string(content).unwrap_or_default())
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AckQuery {
    taker: Option<String>,
}

/// How far a taker is.
#[derive(Debug, Serialize)]
struct TakerBody {
    taker: String,
    /// Everything up to this number is acknowledged.
    cursor: u64,
}

pub(super) async fn acknowledge(
    From(api): From<Api>,
    Path(number): Path<String>,
    query: Result<Query<AckQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|error| bad_query(&error, "taker"))?;
    let taker = query.taker.ok_or_else(|| Problem::bad_term("taker is missing: who are you?"))?;
    let taker = taker_name(&taker)?;
    let number = number
        .parse()
        .map_err(|_| Problem::bad_term("the path must hold the number of a result"))?;
    let queue = api.service.queue.open()?;
    let cursor = api.takers.acknowledge(queue, &taker, number).await.map_err(taker_problem)?;
    Ok(Json(TakerBody { taker: taker.to_string(), cursor: cursor.number }).into_response())
}

fn taker_problem(error: TakerError) -> Problem {
    let detail = crate::error_chain(&error);
    match error {
        TakerError::Unknown { .. } => Problem::new(StatusCode::NOT_FOUND, "unknown_result", detail),
        TakerError::TooMany { .. } => Problem::new(StatusCode::CONFLICT, "too_many_takers", detail),
        TakerError::File { .. } => {
            tracing::error!(error = %detail, "an acknowledgement could not be kept");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "storage_failed", detail)
        }
        TakerError::Queue(error) => AskError::from(error).into(),
    }
}

#[derive(Debug, Serialize)]
struct TakersBody {
    takers: Vec<TakerBody>,
}

pub(super) async fn takers(From(api): From<Api>) -> Response {
    let takers = api.takers.list().await;
    let takers = takers
        .into_iter()
        .map(|(name, cursor)| TakerBody { taker: name.to_string(), cursor: cursor.number })
        .collect();
    Json(TakersBody { takers }).into_response()
}

pub(super) async fn forget_taker(
    From(api): From<Api>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    let taker = taker_name(&name)?;
    if api.takers.remove(&taker).await.map_err(taker_problem)? {
        return Ok(StatusCode::NO_CONTENT);
    }
    let detail = format!("nobody takes results as {taker}");
    Err(Problem::new(StatusCode::NOT_FOUND, "unknown_taker", detail))
}

/// One request, being watched.
struct Watching {
    service: Service,
    id: RequestId,
    changes: watch::Receiver<u64>,
    last: Option<(State, u32)>,
    stop: CancellationToken,
    ending: Ending,
    _place: OwnedSemaphorePermit,
}

pub(super) async fn request_events(
    From(api): From<Api>,
    caller: Caller,
    Path(text): Path<String>,
) -> Result<Response, Problem> {
    let id = known_id(&text)?;
    check_own(&api, &caller, id, &text).await?;
    let queue = api.service.queue.open()?;
    let changes = queue.changes();
    if queue.get(id).await.map_err(AskError::from)?.is_none() {
        return Err(unknown_request(&text));
    }
    let _place = api.waiting_place()?;
    let (service, stop) = (api.service.clone(), api.stop.clone());
    let ending = Ending::default();
    let told = ending.clone();
    let watching = Watching { service, id, changes, last: None, stop, ending, _place };
    let events = stream::unfold(watching, |mut watching| async move {
        let next = watching.next().await;
        let event = if watching.is_over() { next? } else { watching.ending.endless(next)? };
        Some((Ok(event), watching))
    });
    Ok(sse(events, told))
}

impl Watching {
    fn is_over(&self) -> bool {
        self.last.is_some_and(|(state, _)| state.is_final())
    }

    /// The next state; `None` behind the final one.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if self.is_over() {
                return None;
            }
            self.changes.borrow_and_update();
            let record = self.service.queue.get()?.get(self.id).await;
            let record = record.or_else(|error| match error {
                QueueError::Closed => Ok(None),
                error => Err(error),
            });
            let record = record
                .inspect_err(|error| tracing::warn!(%error, "a stream of states ended"))
                .ok()??;
            let now = (record.summary.state, record.summary.attempts);
            if self.last != Some(now) {
                self.last = Some(now);
                let reply = reply_of(record).ok()?;
                return Some(event("state", &ReplyBody::from(&reply)));
            }
            tokio::select! {
                () = self.stop.cancelled() => return None,
                changed = self.changes.changed() => changed.ok()?,
            }
        }
    }
}
