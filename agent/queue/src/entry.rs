//! The queue's words: what is put in, what is read back.
//!
//! **Invariant:** the queue never looks inside an envelope, a body or an answer.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::journal::Wait;

/// Largest envelope.
pub const MAX_ENVELOPE_BYTES: usize = 64 * 1024;
/// Largest body, and largest answer.
pub const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;
/// Longest idempotency key.
pub(super) const MAX_KEY_BYTES: usize = 255;
/// Longest reason that is kept; longer ones are cut.
pub(super) const MAX_REASON_BYTES: usize = 512;

/// A request's name, the same for the whole of its life and at every destination: a UUID v7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(Uuid);

impl RequestId {
    /// A new id.
    #[must_use]
    pub fn new() -> Self {
        RequestId(Uuid::now_v7())
    }

    /// The id in a UUID's text.
    ///
    /// # Errors
    /// When the text is no UUID.
    pub fn parse(text: &str) -> Result<Self, uuid::Error> {
        Uuid::try_parse(text).map(RequestId)
    }

    /// The UUID.
    #[must_use]
    pub fn uuid(self) -> Uuid {
        self.0
    }

    pub(super) fn bytes(self) -> [u8; 16] {
        *self.0.as_bytes()
    }

    pub(super) fn from_bytes(bytes: [u8; 16]) -> Self {
        RequestId(Uuid::from_bytes(bytes))
    }
}

impl Default for RequestId {
    fn default() -> Self {
        RequestId::new()
    }
}

impl From<Uuid> for RequestId {
    fn from(uuid: Uuid) -> Self {
        RequestId(uuid)
    }
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for RequestId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        RequestId::parse(text)
    }
}

/// The caller's own name for a request, with a digest of what was asked under it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idempotency {
    /// The key, 1..=255 bytes.
    pub key: String,
    /// SHA-256 of the request; another digest under the same key is refused.
    pub digest: [u8; 32],
}

/// A request as it is put into the queue. Times are milliseconds on one clock of the caller's.
#[derive(Debug, Clone)]
pub struct NewEntry {
    /// Its id.
    pub id: RequestId,
    /// The caller's key, if it gave one.
    pub idempotency: Option<Idempotency>,
    /// 0..=9, 9 is the most urgent; more is taken as 9.
    pub priority: u8,
    /// When it was accepted.
    pub accepted_at_ms: u64,
    /// Not before this; 0 or a time that is not after `accepted_at_ms`: at once.
    pub not_before_ms: u64,
    /// When it expires; `None`: never.
    pub expires_at_ms: Option<u64>,
    /// Small opaque bytes, at most [`MAX_ENVELOPE_BYTES`].
    pub envelope: Bytes,
    /// Opaque bytes, at most [`MAX_BODY_BYTES`].
    pub body: Bytes,
}

/// Where a request is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// On disk, waiting.
    Held,
    /// Given to a worker of this process. Not durable: after a restart it is `Held`.
    InFlight,
    /// On disk, waiting until its destinations may cost something again.
    WaitingForBudget,
    /// On disk, tried too often: it waits for the operator to retry or drop it.
    SetAside,
    /// It has its answer.
    Answered,
    /// Set aside for good.
    Failed,
    /// Its time to live ended first.
    Expired,
    /// The caller took it back.
    Cancelled,
}

impl State {
    /// Every state, in the order of a request's life.
    pub const ALL: [State; 8] = [
        State::Held,
        State::InFlight,
        State::WaitingForBudget,
        State::SetAside,
        State::Answered,
        State::Failed,
        State::Expired,
        State::Cancelled,
    ];

    /// Whether nothing more happens to the request.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            State::Held | State::InFlight | State::WaitingForBudget | State::SetAside => false,
            State::Answered | State::Failed | State::Expired | State::Cancelled => true,
        }
    }

    /// The state's name, as in JSON and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            State::Held => "held",
            State::InFlight => "in_flight",
            State::WaitingForBudget => "waiting_for_budget",
            State::SetAside => "set_aside",
            State::Answered => "answered",
            State::Failed => "failed",
            State::Expired => "expired",
            State::Cancelled => "cancelled",
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// What became of a request that was put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It is on disk.
    New,
    /// The same key with the same digest is there already.
    Known {
        /// The request that has the key.
        id: RequestId,
        /// Its state.
        state: State,
    },
}

/// What became of a final state that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// It is on disk and is the request's one final state.
    Stored,
    /// Another was there first and stays.
    AlreadyFinal(State),
}

/// How a request that is given back goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GivenBack {
    /// What becomes of the count of its attempts.
    pub(super) attempts: Attempts,
    /// Milliseconds; 0: at once.
    pub(super) not_before_ms: u64,
    /// Why; `None` leaves the last reason.
    pub(super) reason: Option<String>,
    /// What it waits for.
    pub(super) wait: Wait,
}

/// What becomes of the count of attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempts {
    /// One more.
    Counted,
    /// As it was.
    Kept,
    /// None were made.
    Reset,
}

/// A request without its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Its id.
    pub id: RequestId,
    /// Its state now.
    pub state: State,
    /// 0..=9, 9 is the most urgent.
    pub priority: u8,
    /// Leases that were given back by [`super::Queue::retry_at`], since the operator retried it.
    pub attempts: u32,
    /// Why it was given back, or ended, last.
    pub last_reason: Option<String>,
    /// When it was accepted.
    pub accepted_at_ms: u64,
    /// Not before this; 0: at once.
    pub not_before_ms: u64,
    /// When it expires.
    pub expires_at_ms: Option<u64>,
    /// When it came to its final state.
    pub finished_at_ms: Option<u64>,
    /// The caller's key.
    pub key: Option<String>,
    /// Bytes of the body (of the answer, when it has its final state).
    pub bytes: u64,
}

/// A request with its envelope and, when it has one, its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// All but the bytes.
    pub summary: Summary,
    /// The envelope it was accepted with.
    pub envelope: Bytes,
    /// The answer; `None` unless the state is [`State::Answered`].
    pub answer: Option<Bytes>,
}

/// How many kept requests were forgotten, and why.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Their keep time was over.
    pub by_age: u64,
    /// They were the oldest of too many.
    pub by_count: u64,
}

/// The queue in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Requests that wait.
    pub held: u64,
    /// Requests that a worker has.
    pub in_flight: u64,
    /// Requests that wait for budget.
    pub waiting_for_budget: u64,
    /// Requests that were tried too often and wait for the operator.
    pub set_aside: u64,
    /// Answers that are kept.
    pub answered: u64,
    /// Failed requests that are kept.
    pub failed: u64,
    /// Expired requests that are kept.
    pub expired: u64,
    /// Cancelled requests that are kept.
    pub cancelled: u64,
    /// Bytes in the journal of requests that are held or in flight.
    pub held_bytes: u64,
    /// Bytes in the journal that are still needed, held or final.
    pub live_bytes: u64,
    /// Bytes that the journal has on disk.
    pub allocated_bytes: u64,
    /// Segments on disk.
    pub segments: u64,
    /// Bytes that the index has on disk.
    pub index_bytes: u64,
    /// There was no room for the index on disk: it is in memory until there is.
    pub index_in_memory: bool,
    /// When the oldest waiting request was accepted (of the first thousand of each priority).
    #[serde(skip)]
    pub oldest_accepted_at_ms: Option<u64>,
    /// fdatasync calls on journal segments since the queue was opened.
    pub syncs: u64,
    /// Records appended since the queue was opened.
    pub appended: u64,
    /// Bytes written to the journal since the queue was opened, all of them.
    pub written_bytes: u64,
    /// Of these, zeros written ahead of the records.
    pub prepared_bytes: u64,
    /// Of these, records moved out of nearly dead segments.
    pub moved_bytes: u64,
    /// Requests dropped since the queue was opened, because it was full.
    pub dropped: u64,
    /// Bytes that this process had written to the disk for anything, as the kernel counts them.
    pub process_written_bytes: Option<u64>,
    /// Records found damaged since the queue was opened.
    pub damaged: u64,
}

/// Cuts a reason to [`MAX_REASON_BYTES`] at a character's edge.
pub(super) fn cut_reason(reason: &str) -> String {
    let mut end = reason.len().min(MAX_REASON_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.get(..end).unwrap_or_default().to_owned()
}
