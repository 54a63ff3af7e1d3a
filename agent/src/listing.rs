//! Owns the list of requests on disk, as `queue ls` and `GET /v1/queue` show it.
//!
//! **Invariant:** the list holds no input and no answer, only what is needed to find one.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::envelope::Envelope;
use crate::queue::{Queue, QueueError, Record, RequestId, State, Stats, StoppedQueue, Summary};
use crate::subject::Subject;

/// At most this many requests are listed.
pub const MAX_LISTED: usize = 1000;

/// What waits comes first, so that kept answers never hide it.
const ORDER: [State; 8] = [
    State::InFlight,
    State::Held,
    State::WaitingForBudget,
    State::SetAside,
    State::Failed,
    State::Answered,
    State::Expired,
    State::Cancelled,
];

/// A record, also when its own bytes are damaged; `None` when it is gone meanwhile.
fn readable(
    read: Result<Option<Record>, QueueError>,
    summary: Summary,
) -> Result<Option<Record>, QueueError> {
    match read {
        Err(QueueError::Damaged { .. }) => {
            Ok(Some(Record { summary, envelope: Bytes::new(), answer: None }))
        }
        other => other,
    }
}

/// What the queue holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Requests that wait.
    pub held: u64,
    /// Requests that are being sent.
    pub in_flight: u64,
    /// Requests that wait until a destination may cost something again.
    #[serde(default)]
    pub waiting_for_budget: u64,
    /// Requests that were tried too often and wait for the operator.
    #[serde(default)]
    pub set_aside: u64,
    /// Answers that can be fetched.
    pub answered: u64,
    /// Requests that were given up.
    pub failed: u64,
    /// Requests whose time to live ended.
    pub expired: u64,
    /// Requests that were taken back.
    pub cancelled: u64,
    /// The requests, what waits first and then the oldest first; at most [`MAX_LISTED`].
    pub requests: Vec<Row>,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Its id.
    pub id: String,
    /// Its state.
    pub state: String,
    /// Its task; a question mark when its record cannot be read, nothing where it asks a model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The model that it asks by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Its data class; a question mark when its record cannot be read.
    pub class: String,
    /// 0..=9, 9 is the most urgent.
    pub priority: u8,
    /// Sends that failed.
    pub attempts: u32,
    /// Milliseconds since it was accepted.
    pub age_ms: u64,
    /// Bytes of its input.
    pub bytes: u64,
    /// What happened to it last.
    pub note: Option<String>,
}

/// What happened to a request last, in words; an answer speaks for itself.
pub(crate) fn note_of(summary: &Summary) -> Option<String> {
    let before =
        || summary.last_reason.as_ref().map_or(String::new(), |why| format!("; before: {why}"));
    match summary.state {
        State::Answered => None,
        State::Expired => Some(format!("its time to live ended{}", before())),
        State::Cancelled => Some(format!("it was taken back{}", before())),
        _ => summary.last_reason.clone(),
    }
}

/// The queue in numbers, as `queue stats` and `GET /v1/queue/stats` show it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    /// What the queue counts.
    #[serde(flatten)]
    pub stats: Stats,
    /// Milliseconds since the oldest waiting request was accepted.
    pub oldest_age_ms: Option<u64>,
}

impl Numbers {
    /// The numbers at a moment of the queue's clock.
    pub fn of(stats: Stats, now_ms: u64) -> Self {
        let oldest_age_ms = stats.oldest_accepted_at_ms.map(|at| now_ms.saturating_sub(at));
        Self { stats, oldest_age_ms }
    }
}

/// The list of an open queue, or of its requests in one state, at a moment of its clock.
///
/// # Errors
/// When the queue cannot be read.
pub async fn of_queue(
    queue: &Queue,
    only: Option<State>,
    now_ms: u64,
) -> Result<Listing, QueueError> {
    let mut summaries = Vec::new();
    for state in wanted(only) {
        summaries.extend(queue.list(Some(state), MAX_LISTED - summaries.len()).await?);
    }
    let mut records = Vec::new();
    for summary in summaries {
        records.extend(readable(queue.get(summary.id).await, summary)?);
    }
    Ok(of_records(&queue.stats().await?, &records, now_ms))
}

/// A page of an open queue in the order in which requests were made: those behind `after`, all or in one
/// state, at most `limit`, at a moment of its clock.
///
/// # Errors
/// When the queue cannot be read.
pub async fn page_of(
    queue: &Queue,
    only: Option<State>,
    after: Option<RequestId>,
    limit: usize,
    now_ms: u64,
) -> Result<Vec<Row>, QueueError> {
    let mut rows = Vec::new();
    for summary in queue.list_after(only, after, limit).await? {
        let read = readable(queue.get(summary.id).await, summary)?;
        rows.extend(read.map(|record| row(&record, now_ms)));
    }
    Ok(rows)
}

/// The same of a queue that no agent has, at a moment of its clock.
///
/// # Errors
/// When the queue cannot be read.
pub fn of_stopped_queue(
    queue: &StoppedQueue,
    only: Option<State>,
    now_ms: u64,
) -> Result<Listing, QueueError> {
    let mut summaries = Vec::new();
    for state in wanted(only) {
        summaries.extend(queue.list(Some(state), MAX_LISTED - summaries.len())?);
    }
    let mut records = Vec::new();
    for summary in summaries {
        records.extend(readable(queue.get(summary.id), summary)?);
    }
    Ok(of_records(&queue.stats()?, &records, now_ms))
}

fn wanted(only: Option<State>) -> impl Iterator<Item = State> {
    ORDER.into_iter().filter(move |state| only.is_none_or(|only| only == *state))
}

fn of_records(stats: &Stats, records: &[Record], now_ms: u64) -> Listing {
    Listing {
        held: stats.held,
        in_flight: stats.in_flight,
        waiting_for_budget: stats.waiting_for_budget,
        set_aside: stats.set_aside,
        answered: stats.answered,
        failed: stats.failed,
        expired: stats.expired,
        cancelled: stats.cancelled,
        requests: records.iter().map(|record| row(record, now_ms)).collect(),
    }
}

/// The task and the model of a request: one of the two; a question mark for a task that cannot be read.
pub(crate) fn named(envelope: Option<&Envelope>) -> (Option<String>, Option<String>) {
    match envelope.map(Envelope::subject) {
        Some(Subject::Task(task)) => (Some(task.to_string()), None),
        Some(Subject::Model(model)) => (None, Some(model)),
        None => (Some("?".to_owned()), None),
    }
}

fn row(record: &Record, now_ms: u64) -> Row {
    let summary = &record.summary;
    let envelope = Envelope::from_bytes(&record.envelope).ok();
    let (task, model) = named(envelope.as_ref());
    let unknown = || "?".to_owned();
    Row {
        id: summary.id.to_string(),
        state: summary.state.name().to_owned(),
        task,
        model,
        class: envelope.as_ref().map_or_else(unknown, |e| e.class.to_string()),
        priority: summary.priority,
        attempts: summary.attempts,
        age_ms: now_ms.saturating_sub(summary.accepted_at_ms),
        bytes: summary.bytes,
        // Why it was sent more than once is of no interest once it is answered.
        note: note_of(summary),
    }
}
