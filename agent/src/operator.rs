//! Owns what an operator does to single requests, the same through the API and on a stopped queue.
//!
//! **Invariant:** what is done is on disk before it is said to be; a request that has its end keeps
//! that end, and only dropping makes it unknown.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::envelope::Envelope;
use crate::export::Line;
use crate::listing::named;
use crate::queue::{Accepted, NewEntry, Queue, QueueError, Record, Recorded, RequestId, State};

/// A request that was dropped: what is lost with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Its id.
    pub id: RequestId,
    /// The state that it was in.
    pub was: State,
    /// Its task; a question mark when its record cannot be read, nothing where it asked a model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The model that it asked by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Its data class; a question mark when its record cannot be read.
    pub class: String,
}

/// A request that was taken in, or was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenIn {
    /// The request; one with the same key may be there under another id.
    pub id: RequestId,
    /// Whether it was there already.
    pub known: bool,
}

/// Removes a request, whatever its state: one that has no end is cancelled first.
///
/// # Errors
/// [`QueueError::Unknown`], or the storage's.
pub async fn drop_request(
    queue: &Queue,
    id: RequestId,
    now_ms: u64,
) -> Result<Dropped, QueueError> {
    let (was, envelope) = match queue.get(id).await {
        Ok(Some(Record { summary, envelope, .. })) => (summary.state, envelope),
        Ok(None) => return Err(QueueError::Unknown { id }),
        // Its bytes are damaged: all the more reason.
        Err(QueueError::Damaged { .. }) => (State::Failed, Bytes::new()),
        Err(error) => return Err(error),
    };
    let was = match queue.cancel(id, now_ms).await? {
        Recorded::Stored => was,
        Recorded::AlreadyFinal(state) => state,
    };
    if !queue.forget(id).await? {
        return Err(QueueError::Unknown { id });
    }
    let envelope = Envelope::from_bytes(&envelope).ok();
    let (task, model) = named(envelope.as_ref());
    let unknown = || "?".to_owned();
    Ok(Dropped {
        id,
        was,
        task,
        model,
        class: envelope.as_ref().map_or_else(unknown, |e| e.class.to_string()),
    })
}

/// A request in its exported form; `None`: it is not known, or has its end by now.
///
/// # Errors
/// [`QueueError::Damaged`], or the storage's.
pub async fn exported(
    queue: &Queue,
    id: RequestId,
    now_ms: u64,
) -> Result<Option<Line>, QueueError> {
    let Some(body) = queue.body(id).await? else { return Ok(None) };
    let Some(record) = queue.get(id).await? else { return Ok(None) };
    if record.summary.state.is_final() {
        return Ok(None);
    }
    // Megabytes of base64 are not for the reactor.
    let made = move || Line::of(&record.summary, &record.envelope, &body, now_ms);
    let made = tokio::task::spawn_blocking(made).await;
    made.map(Some).map_err(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_stopping) => QueueError::Closed,
    })
}

/// Puts an exported request in; one that is there by its id or its key is left as it is.
///
/// # Errors
/// [`QueueError::KeyConflict`], or why the queue takes no more.
pub async fn take_in(queue: &Queue, entry: NewEntry) -> Result<TakenIn, QueueError> {
    let id = entry.id;
    match queue.accept(entry).await {
        Ok(Accepted::New) => Ok(TakenIn { id, known: false }),
        Ok(Accepted::Known { id, .. }) => Ok(TakenIn { id, known: true }),
        Err(QueueError::IdTaken { id }) => Ok(TakenIn { id, known: true }),
        Err(error) => Err(error),
    }
}
