//! Which requests are next.
//!
//! **Invariant:** a request that came to its end is not leased: whoever leases marks it first and looks
//! at the index then, and the writer takes finished requests out only after the index says that they
//! are. Nobody waits for the index while holding the lock.

use std::{
    cmp::Reverse,
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use super::{
    NEVER, QueueError, RequestId,
    index::{Index, Key},
    keys::{self, Entry},
    line::{LINE, Walk},
    shared::{Shared, read_entry},
};

/// The token of the writer, which no lease has.
const RESERVED: u64 = 0;

/// So often requests are looked for that do not end in the same moment.
const ROUNDS: usize = 3;

/// Which requests are asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// Those that are due by then.
    pub(super) now_ms: u64,
    /// Those of at least this priority.
    pub(super) least_priority: u8,
    /// So many at most.
    pub(super) most: usize,
    /// Those in line, too, from there on.
    pub(super) line: Option<Walk>,
}

impl Wanted {
    /// Whether a request that is due then is one of them.
    fn takes(&self, due_ms: u64) -> bool {
        due_ms <= self.now_ms || (self.line.is_some() && due_ms == LINE)
    }
}

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
    /// Of these, those that rest.
    resting: usize,
    next_token: u64,
}

impl Leases {
    fn remove(&mut self, id: RequestId) {
        if self.held.remove(&id).is_some_and(|hand| hand.rests) {
            self.resting = self.resting.saturating_sub(1);
        }
    }
}

/// Whose hand a request is in.
#[derive(Debug, Clone)]
struct Hand {
    token: u64,
    /// The worker that the writer took it from, as long as that one has its lease.
    taken_from: Option<u64>,
    /// What whoever has it has read of it.
    envelope: Option<Bytes>,
    /// Whoever has it waits for something, and does nothing with it.
    rests: bool,
}

impl Hand {
    fn new(token: u64) -> Self {
        Hand { token, taken_from: None, envelope: None, rests: false }
    }
}

/// Who has which request in hand.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    leases: Mutex<Leases>,
    /// Held by who picks, so that no two look at the same requests.
    picking: Mutex<()>,
}

impl InFlight {
    /// A lock whose holder panicked holds plain numbers all the same.
    fn lock(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a request out of hand, if this lease still has it.
    pub(super) fn release(&self, id: RequestId, token: u64) -> bool {
        let mut leases = self.lock();
        let Some(hand) = leases.held.get_mut(&id) else { return false };
        if hand.token == token {
            leases.remove(id);
            return true;
        }
        hand.taken_from = hand.taken_from.filter(|from| *from != token);
        false
    }

    /// Whether somebody works on this request.
    pub(super) fn is_worked_on(&self, id: RequestId) -> bool {
        self.lock().held.get(&id).is_some_and(|hand| !hand.rests)
    }

    /// How many are worked on.
    pub(super) fn worked_on(&self) -> u64 {
        let leases = self.lock();
        leases.held.len().saturating_sub(leases.resting) as u64
    }

    /// Whoever has this request by this lease only waits.
    pub(super) fn rest(&self, id: RequestId, token: u64) {
        let mut leases = self.lock();
        let hand = leases.held.get_mut(&id).filter(|hand| hand.token == token && !hand.rests);
        if let Some(hand) = hand {
            hand.rests = true;
            leases.resting += 1;
        }
    }

    /// Keeps a request from being leased: the writer has it, until [`InFlight::settle`] or
    /// [`InFlight::hand_back`]. False: a worker has it, and is to be spared.
    pub(super) fn take(&self, id: RequestId, spare: bool) -> bool {
        let mut leases = self.lock();
        let Some(hand) = leases.held.get_mut(&id) else {
            leases.held.insert(id, Hand::new(RESERVED));
            return true;
        };
        if spare {
            return false;
        }
        if hand.token != RESERVED {
            hand.taken_from = Some(std::mem::replace(&mut hand.token, RESERVED));
        }
        true
    }

    /// What the writer took is in nobody's hand any more.
    pub(super) fn settle(&self, ids: &[RequestId]) {
        let mut leases = self.lock();
        for id in ids {
            if leases.held.get(id).is_some_and(|hand| hand.token == RESERVED) {
                leases.remove(*id);
            }
        }
    }

    /// What the writer took is again in the hand that it was taken from, if there still is one.
    pub(super) fn hand_back(&self, ids: &[RequestId]) {
        let mut leases = self.lock();
        for id in ids {
            match leases.held.get_mut(id).filter(|hand| hand.token == RESERVED) {
                Some(Hand { token, taken_from: from @ Some(_), .. }) => {
                    *token = from.take().unwrap_or(RESERVED);
                }
                Some(_) => leases.remove(*id),
                None => {}
            }
        }
    }

    /// Marks those of these that are in nobody's hand, each with a token of its own.
    fn mark(&self, ids: impl Iterator<Item = RequestId>) -> Vec<(RequestId, u64)> {
        let mut leases = self.lock();
        let mut marked = Vec::new();
        for id in ids {
            if leases.held.contains_key(&id) {
                continue;
            }
            leases.next_token += 1;
            let token = leases.next_token;
            leases.held.insert(id, Hand::new(token));
            marked.push((id, token));
        }
        marked
    }

    /// Those of these that are in nobody's hand.
    fn without(&self, waiting: impl Iterator<Item = Waiting>) -> Vec<Waiting> {
        let leases = self.lock();
        waiting.filter(|waiting| !leases.held.contains_key(&waiting.id)).collect()
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
    pub(super) fn pick(&self, wanted: &Wanted) -> Result<Vec<Picked>, QueueError> {
        let mut picked = Vec::new();
        // All of them may come to their end meanwhile; then those behind are looked at.
        for _ in 0..ROUNDS {
            let (marked, was_any) = self.mark_first(wanted)?;
            // From here on nobody else takes them; what happened before is in the index, which may be
            // another one by now.
            let entries = self.index().and_then(|index| {
                marked.iter().map(|(id, _)| read_entry(&index, *id)).collect::<Result<Vec<_>, _>>()
            });
            let entries = entries.inspect_err(|_| {
                for (id, token) in &marked {
                    self.in_flight.release(*id, *token);
                }
            })?;
            for ((id, token), entry) in marked.into_iter().zip(entries) {
                match entry {
                    Some(entry) if entry.ended.is_none() && wanted.takes(entry.not_before_ms) => {
                        picked.push(Picked { id, entry, token });
                    }
                    Some(_) | None => {
                        self.in_flight.release(id, token);
                    }
                }
            }
            if !picked.is_empty() || !was_any {
                break;
            }
        }
        Ok(picked)
    }

    /// Marks the first that may be leased, in their order; and whether there was any to mark.
    fn mark_first(&self, wanted: &Wanted) -> Result<(Vec<(RequestId, u64)>, bool), QueueError> {
        let _alone = self.in_flight.picking.lock().unwrap_or_else(PoisonError::into_inner);
        let first = self.first_free(&*self.index()?, wanted)?;
        let marked = self.in_flight.mark(first.iter().map(|(_, id)| *id).take(wanted.most));
        Ok((marked, !first.is_empty()))
    }

    /// The first requests that may be leased now and are in nobody's hand, in their order.
    fn first_free(
        &self,
        index: &Index,
        wanted: &Wanted,
    ) -> Result<Vec<(Rank, RequestId)>, QueueError> {
        let Wanted { now_ms, least_priority, most, line } = *wanted;
        let mut first: Vec<(Rank, RequestId)> = Vec::new();
        for priority in (least_priority..=9).rev() {
            let in_line = line.map(|walk| ((LINE, walk.from(priority)), LINE));
            for (from, to_due) in [((0, 0), 0), ((1, 0), now_ms)].into_iter().chain(in_line) {
                let waiting = self.free(index, priority, (from, to_due), most)?;
                let ranked = waiting.into_iter().map(|waiting| {
                    (rank(priority, &waiting, now_ms, self.config.ageing_ms), waiting.id)
                });
                first.extend(ranked);
            }
        }
        first.sort_unstable_by_key(|(rank, _)| Reverse(*rank));
        Ok(first)
    }

    /// The oldest request of the lowest priority up to this one, in nobody's hand.
    pub(super) fn least_urgent(&self, most_priority: u8) -> Result<Option<RequestId>, QueueError> {
        let index = self.index()?;
        for priority in 0..=most_priority.min(9) {
            let waiting = self.free(&index, priority, ((0, 0), NEVER), 1)?;
            if let Some(waiting) = waiting.first() {
                return Ok(Some(waiting.id));
            }
        }
        Ok(None)
    }

    /// When the next request may be leased; `now_ms` when one may be leased at once.
    pub(super) fn next_due(&self, now_ms: u64) -> Result<Option<u64>, QueueError> {
        let index = self.index()?;
        let mut next: Option<u64> = None;
        for priority in 0..=9 {
            if !self.free(&index, priority, ((0, 0), now_ms), 1)?.is_empty() {
                return Ok(Some(now_ms));
            }
            let later = self.free(&index, priority, ((now_ms + 1, 0), LINE - 1), 1)?;
            next = next.into_iter().chain(later.first().map(|waiting| waiting.due_ms)).min();
        }
        Ok(next)
    }

    /// The first requests of a priority from this due time and order on, up to that due time, and in
    /// nobody's hand.
    fn free(
        &self,
        index: &Index,
        priority: u8,
        ((from_due, from_order), to_due): ((u64, u64), u64),
        most: usize,
    ) -> Result<Vec<Waiting>, QueueError> {
        let mut from = keys::queue_key(priority, from_due, from_order);
        let to = keys::queue_key(priority, to_due, u64::MAX);
        let mut found = Vec::new();
        while found.len() < most {
            let page = (most - found.len()).max(16);
            let mut last = None;
            let waiting = index.range_as(&from, &to, page, |key, value| {
                last = Some(Key::behind(key));
                let (due_ms, order) = keys::due_and_order(key)?;
                let (id, accepted_at_ms) = keys::waiting_in(value)?;
                Some(Waiting { id, accepted_at_ms, due_ms, order })
            })?;
            let is_last = waiting.len() < page;
            from = last.unwrap_or(from);
            let free = self.in_flight.without(waiting.into_iter().flatten());
            found.extend(free.into_iter().take(most - found.len()));
            if is_last {
                break;
            }
        }
        Ok(found)
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
