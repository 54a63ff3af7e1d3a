//! Which requests are next.
//!
//! **Invariant:** `in_flight` is locked only for the length of a few reads of the index, and a request
//! that came to its end is not leased: whoever leases looks at the index while holding the lock, and
//! the writer takes finished requests out only after the index says that they are.

use std::{
    cmp::Reverse,
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use super::{
    NEVER, QueueError, RequestId,
    index::Index,
    keys::{self, Entry},
    shared::{Shared, read_entry},
};

/// The token of the writer, which no lease has.
pub(super) const RESERVED: u64 = 0;

/// A request that was picked to be leased.
#[derive(Debug)]
pub(super) struct Picked {
    /// Its id.
    pub(super) id: RequestId,
    /// Its entry.
    pub(super) entry: Entry,
    /// What makes this lease this one.
    pub(super) token: u64,
}

#[derive(Debug, Default)]
struct Leases {
    held: HashMap<RequestId, Hand>,
    next_token: u64,
}

/// Whose hand a request is in.
#[derive(Debug, Clone)]
struct Hand {
    token: u64,
    /// What whoever has it has read of it.
    envelope: Option<Bytes>,
}

/// Who has which request in hand.
#[derive(Debug, Default)]
pub(super) struct InFlight(Mutex<Leases>);

impl InFlight {
    /// A lock whose holder panicked holds plain numbers all the same.
    fn lock(&self) -> MutexGuard<'_, Leases> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a request out of hand, if this lease still has it.
    pub(super) fn release(&self, id: RequestId, token: u64) -> bool {
        let mut leases = self.lock();
        let ours = leases.held.get(&id).is_some_and(|hand| hand.token == token);
        if ours {
            leases.held.remove(&id);
        }
        ours
    }

    /// Whether somebody has this request.
    pub(super) fn has(&self, id: RequestId) -> bool {
        self.lock().held.contains_key(&id)
    }

    /// How many are in hand.
    pub(super) fn count(&self) -> u64 {
        self.lock().held.len() as u64
    }

    /// Keeps a request from being leased; false when a worker has it.
    pub(super) fn reserve(&self, id: RequestId) -> bool {
        let mut leases = self.lock();
        if leases.held.contains_key(&id) {
            return false;
        }
        leases.held.insert(id, Hand { token: RESERVED, envelope: None });
        true
    }

    /// Takes over what workers have: the ends of their leases give nothing back any more.
    pub(super) fn take_over(&self, ids: &[RequestId]) {
        let mut leases = self.lock();
        for id in ids {
            if let Some(hand) = leases.held.get_mut(id) {
                hand.token = RESERVED;
            }
        }
    }

    /// Gives back what is reserved of these.
    pub(super) fn release_reserved(&self, ids: &[RequestId]) {
        let mut leases = self.lock();
        for id in ids {
            if leases.held.get(id).is_some_and(|hand| hand.token == RESERVED) {
                leases.held.remove(id);
            }
        }
    }

    /// Remembers the envelope that whoever has this request has read.
    pub(super) fn remember(&self, id: RequestId, token: u64, envelope: &Bytes) {
        if let Some(hand) = self.lock().held.get_mut(&id).filter(|hand| hand.token == token) {
            hand.envelope = Some(envelope.clone());
        }
    }

    /// The envelope of a request in hand, if it was read.
    pub(super) fn envelope(&self, id: RequestId) -> Option<Bytes> {
        self.lock().held.get(&id)?.envelope.clone()
    }
}

impl Shared {
    /// The requests that are the first to be leased now (see [`rank`]), marked as in flight.
    pub(super) fn pick(
        &self,
        now_ms: u64,
        least_priority: u8,
        most: usize,
    ) -> Result<Vec<Picked>, QueueError> {
        let index = self.index()?;
        let mut leases = self.in_flight.lock();
        let mut first: Vec<(Rank, RequestId)> = Vec::new();
        for priority in (least_priority..=9).rev() {
            for (from_due, to_due) in [(0, 0), (1, now_ms)] {
                let waiting = free(&index, &leases, priority, (from_due, to_due), most)?;
                let ranked = waiting.into_iter().map(|waiting| {
                    (rank(priority, &waiting, now_ms, self.config.ageing_ms), waiting.id)
                });
                first.extend(ranked);
            }
        }
        first.sort_unstable_by_key(|(rank, _)| Reverse(*rank));
        let mut picked = Vec::new();
        for (_, id) in first {
            if picked.len() == most {
                break;
            }
            let Some(entry) = read_entry(&index, id)?.filter(|entry| entry.ended.is_none()) else {
                continue;
            };
            leases.next_token += 1;
            let token = leases.next_token;
            leases.held.insert(id, Hand { token, envelope: None });
            picked.push(Picked { id, entry, token });
        }
        Ok(picked)
    }

    /// The oldest request of the lowest priority up to this one, in nobody's hand.
    pub(super) fn least_urgent(&self, most_priority: u8) -> Result<Option<RequestId>, QueueError> {
        let index = self.index()?;
        let leases = self.in_flight.lock();
        for priority in 0..=most_priority.min(9) {
            let waiting = free(&index, &leases, priority, (0, NEVER), 1)?;
            if let Some(waiting) = waiting.first() {
                return Ok(Some(waiting.id));
            }
        }
        Ok(None)
    }

    /// When the next request may be leased; `now_ms` when one may be leased at once.
    pub(super) fn next_due(&self, now_ms: u64) -> Result<Option<u64>, QueueError> {
        let index = self.index()?;
        let leases = self.in_flight.lock();
        let mut next: Option<u64> = None;
        for priority in 0..=9 {
            if !free(&index, &leases, priority, (0, now_ms), 1)?.is_empty() {
                return Ok(Some(now_ms));
            }
            let later = free(&index, &leases, priority, (now_ms + 1, NEVER - 1), 1)?;
            next = next.into_iter().chain(later.first().map(|waiting| waiting.due_ms)).min();
        }
        Ok(next)
    }
}

/// What decides who is first: priority and age in one number, then the order of acceptance.
type Rank = (u64, Reverse<u64>);

/// A request that waits, as its place in the order says it.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    id: RequestId,
    accepted_at_ms: u64,
    due_ms: u64,
    order: u64,
}

/// A request that waited for `ageing_ms` is as urgent as a new one that is one priority higher, so that
/// none waits for ever behind more urgent ones that keep coming.
pub(super) fn urgency(priority: u8, accepted_at_ms: u64, now_ms: u64, ageing_ms: u64) -> u64 {
    let age = now_ms.saturating_sub(accepted_at_ms);
    u64::from(priority).saturating_mul(ageing_ms).saturating_add(age)
}

fn rank(priority: u8, waiting: &Waiting, now_ms: u64, ageing_ms: u64) -> Rank {
    (urgency(priority, waiting.accepted_at_ms, now_ms, ageing_ms), Reverse(waiting.order))
}

/// The first requests of a priority that are due then, and in nobody's hand.
fn free(
    index: &Index,
    leases: &Leases,
    priority: u8,
    (from_due, to_due): (u64, u64),
    most: usize,
) -> Result<Vec<Waiting>, QueueError> {
    let mut from = keys::queue_key(priority, from_due, 0);
    let to = keys::queue_key(priority, to_due, u64::MAX);
    let mut found = Vec::new();
    while found.len() < most {
        let page = (most - found.len()).max(16);
        let pairs = index.range(&from, &to, page)?;
        let is_last = pairs.len() < page;
        if let Some((last, _)) = pairs.last() {
            from = [last.as_slice(), &[0]].concat();
        }
        let waiting = pairs.iter().filter_map(|(key, value)| {
            let (due_ms, order) = keys::due_and_order(key)?;
            let (id, accepted_at_ms) = keys::waiting_in(value)?;
            Some(Waiting { id, accepted_at_ms, due_ms, order })
        });
        let is_free = |waiting: &Waiting| !leases.held.contains_key(&waiting.id);
        found.extend(waiting.filter(is_free).take(most - found.len()));
        if is_last {
            break;
        }
    }
    Ok(found)
}
