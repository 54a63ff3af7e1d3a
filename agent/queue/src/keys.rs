//! The index's keys and values.
//!
//! **Invariant:** keys sort as their numbers do (big endian), so that the first of a range is the next
//! to be served.
//!
//! | key | value | what for |
//! |---|---|---|
//! | `e` id | [`Entry`] | each request |
//! | `k` key | id | idempotency |
//! | `q` 9-priority due order | id, accepted | waiting requests; due is 0 when there is no time to wait for |
//! | `x` expires id | | waiting requests that expire |
//! | `f` finished id | | finals, to be forgotten |
//! | `r` number | id | finals in the order they were recorded |
//! | `s` segment | [`Use`] | what of a segment counts |
//! | `p` accept's segment, final's segment | count | finals that count because an accept exists |
//! | `d` id | [`Tombstone`](super::tombstone::Tombstone) | what was forgotten for good |
//! | `m` | [`Mark`] | how much of the journal is in the index |

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    QueueError, RequestId, State,
    index::Key,
    journal::{FinalState, Place, Wait},
};

/// The end that a request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ended {
    /// Which.
    pub(super) state: FinalState,
    /// Milliseconds.
    pub(super) at_ms: u64,
    /// Its number among the results.
    pub(super) number: u64,
}

/// A request, as the index has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Its end, if it came to one.
    pub(super) ended: Option<Ended>,
    /// 0..=9.
    pub(super) priority: u8,
    /// Age order.
    pub(super) order: u64,
    /// Leases given back.
    pub(super) attempts: u32,
    /// Last reason.
    pub(super) reason: Option<String>,
    /// Milliseconds.
    pub(super) accepted_at_ms: u64,
    /// Milliseconds; 0: at once.
    pub(super) not_before_ms: u64,
    /// What it waits for.
    pub(super) wait: Wait,
    /// Milliseconds.
    pub(super) expires_at_ms: Option<u64>,
    /// Idempotency key and digest.
    pub(super) key: Option<(String, [u8; 32])>,
    /// The accept record, or the final one.
    pub(super) place: Place,
    /// Segment and bytes of the last retry record.
    pub(super) retry: Option<(u64, u64)>,
    /// Segments that have an accept record of this id.
    pub(super) accepts_in: Vec<u64>,
}

impl Entry {
    /// The state on disk; in flight is known only in memory.
    pub(super) fn state(&self) -> State {
        match (self.ended, self.wait) {
            (Some(ended), _) => ended.state.into(),
            (None, Wait::Turn) => State::Held,
            (None, Wait::Budget) => State::WaitingForBudget,
            (None, Wait::Operator) => State::SetAside,
        }
    }

    /// Its key among the waiting ones.
    pub(super) fn queue_key(&self) -> Key {
        queue_key(self.priority, self.not_before_ms, self.order)
    }
}

/// What of a segment counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Use {
    /// Reasons to keep it; at 0 it is deleted.
    pub(super) reasons: u64,
    /// Bytes of records that count for themselves.
    pub(super) bytes: u64,
    /// Behind the last record that ever counted: its file is not shorter, unless it was cut off.
    pub(super) end: u64,
}

impl Use {
    /// The value of a segment. Of older agents it says nothing of the end.
    pub(super) fn decode(value: &[u8]) -> Result<Self, QueueError> {
        decode(value).or_else(|_| {
            let (reasons, bytes) = decode(value)?;
            Ok(Use { reasons, bytes, end: 0 })
        })
    }
}

/// How much of which journal is in the index, and the totals at that point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// The queue.
    pub(super) store: [u8; 16],
    /// The machine's boot in which this was written.
    pub(super) boot: String,
    /// Segment of the end.
    pub(super) segment: u64,
    /// Offset of the end.
    pub(super) end: u64,
    /// Sequence of the next record.
    pub(super) next_sequence: u64,
    /// The last record: its offset in `segment` and the CRC32C of its header; `None`: the segment
    /// has none.
    pub(super) last: Option<(u64, u32)>,
    /// Totals.
    pub(super) totals: Totals,
    /// No id is greater: see [`super::ledger::Ledger::newest`].
    pub(super) newest: RequestId,
}

/// Counts that the index keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Totals {
    /// Waiting or in flight.
    pub(super) held: u64,
    /// Their bytes in the journal.
    pub(super) held_bytes: u64,
    /// Of the held ones, those that wait for budget.
    pub(super) budget: u64,
    /// Of the held ones, those that are set aside.
    pub(super) set_aside: u64,
    /// Kept finals by [`FinalState`].
    pub(super) answered: u64,
    /// Failed.
    pub(super) failed: u64,
    /// Expired.
    pub(super) expired: u64,
    /// Cancelled.
    pub(super) cancelled: u64,
}

impl Totals {
    /// All that came to an end.
    pub(super) fn finals(&self) -> u64 {
        self.answered + self.failed + self.expired + self.cancelled
    }

    /// The count of one end.
    pub(super) fn of(&mut self, state: FinalState) -> &mut u64 {
        match state {
            FinalState::Answered => &mut self.answered,
            FinalState::Failed => &mut self.failed,
            FinalState::Expired => &mut self.expired,
            FinalState::Cancelled => &mut self.cancelled,
        }
    }
}

/// The key of [`Mark`].
pub(super) const MARK: &[u8] = b"m";
/// First byte of the keys of entries.
pub(super) const ENTRIES: u8 = b'e';
/// First byte of the keys of segments.
pub(super) const SEGMENTS: u8 = b's';

/// First byte of the keys of tombstones.
pub(super) const TOMBSTONES: u8 = b'd';

/// Key of an entry.
pub(super) fn entry_key(id: RequestId) -> Key {
    Key::of(&[b"e", &id.bytes()])
}

/// Key of a tombstone.
pub(super) fn tombstone_key(id: RequestId) -> Key {
    Key::of(&[&[TOMBSTONES], &id.bytes()])
}

/// Key of an idempotency key.
pub(super) fn name_key(key: &str) -> Key {
    Key::of(&[b"k", key.as_bytes()])
}

/// Key of a waiting request.
pub(super) fn queue_key(priority: u8, due: u64, order: u64) -> Key {
    let urgency = 9 - priority.min(9);
    Key::of(&[b"q", &[urgency], &due.to_be_bytes(), &order.to_be_bytes()])
}

/// Value of a waiting request.
pub(super) fn waiting_value(id: RequestId, accepted_at_ms: u64) -> Vec<u8> {
    [&id.bytes()[..], &accepted_at_ms.to_be_bytes()].concat()
}

/// Id and time of acceptance in a value of a waiting request.
pub(super) fn waiting_in(value: &[u8]) -> Option<(RequestId, u64)> {
    let (id, at) = value.split_at_checked(16)?;
    Some((id_of(id)?, u64::from_be_bytes(at.try_into().ok()?)))
}

/// Due time and order in a key of a waiting request.
pub(super) fn due_and_order(key: &[u8]) -> Option<(u64, u64)> {
    let due = key.get(2..10)?.try_into().ok().map(u64::from_be_bytes)?;
    let order = key.get(10..18)?.try_into().ok().map(u64::from_be_bytes)?;
    Some((due, order))
}

/// Key of a waiting request that expires.
pub(super) fn expiry_key(at: u64, id: RequestId) -> Key {
    Key::of(&[b"x", &at.to_be_bytes(), &id.bytes()])
}

/// The time in a key of a waiting request that expires.
pub(super) fn expiry_in(key: &[u8]) -> Option<u64> {
    segment_in(key)
}

/// Key of a final.
pub(super) fn final_key(at: u64, id: RequestId) -> Key {
    Key::of(&[b"f", &at.to_be_bytes(), &id.bytes()])
}

/// Key of a result.
pub(super) fn result_key(number: u64) -> Key {
    Key::of(&[b"r", &number.to_be_bytes()])
}

/// The number in a result's key.
pub(super) fn result_in(key: &[u8]) -> Option<u64> {
    segment_in(key)
}

/// First key of a time in `expiry_key` and `final_key`.
pub(super) fn time_bounds(kind: u8, to: u64) -> (Key, Key) {
    (Key::of(&[&[kind]]), Key::of(&[&[kind], &to.to_be_bytes(), &[0xff; 16]]))
}

/// The id at the end of a key.
pub(super) fn id_in(key: &[u8]) -> Option<RequestId> {
    let at = key.len().checked_sub(16)?;
    Some(RequestId::from_bytes(key.get(at..)?.try_into().ok()?))
}

/// The id that a value is.
pub(super) fn id_of(value: &[u8]) -> Option<RequestId> {
    Some(RequestId::from_bytes(value.try_into().ok()?))
}

/// Key of a segment.
pub(super) fn segment_key(segment: u64) -> Key {
    Key::of(&[b"s", &segment.to_be_bytes()])
}

/// The number in a segment's key.
pub(super) fn segment_in(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(1..9)?.try_into().ok()?))
}

/// Key of a pin.
pub(super) fn pin_key(accept: u64, last: u64) -> Key {
    Key::of(&[b"p", &accept.to_be_bytes(), &last.to_be_bytes()])
}

/// First and last key of the pins by accepts in a segment.
pub(super) fn pins_of(accept: u64) -> (Key, Key) {
    (pin_key(accept, 0), pin_key(accept, u64::MAX))
}

/// The second number in a pin's key.
pub(super) fn pinned_in(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(9..17)?.try_into().ok()?))
}

/// First and last key that start with these bytes (and have at most 40 more).
pub(super) fn prefix_bounds(prefix: &[u8]) -> (Vec<u8>, Vec<u8>) {
    (prefix.to_vec(), [prefix, &[0xff; 40]].concat())
}

/// A value's bytes.
pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, QueueError> {
    // Most values are of requests, and shorter; none takes more memory than it needs.
    let mut short = [0; 160];
    if let Ok(bytes) = postcard::to_slice(value, &mut short) {
        return Ok(bytes.to_vec());
    }
    postcard::to_extend(value, Vec::new())
        .map_err(|error| QueueError::Index { detail: error.to_string() })
}

/// A value.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, QueueError> {
    postcard::from_bytes(bytes)
        .map_err(|error| QueueError::Index { detail: format!("a value does not read: {error}") })
}
