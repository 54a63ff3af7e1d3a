//! Owns the requests that were looked at and wait for a destination while others are served.
//!
//! Their leases are kept, so that the queue shows what is behind them; nothing is written.
//!
//! **Invariant:** no more than [`MOST_PARKED`] are kept, and none beyond its time to live.

use super::plan::{self, Wait};
use crate::escalate::{Share, Standing};
use crate::queue::Lease;
use crate::subject::Subject;

/// Requests kept in memory at most; those beyond stand in line on disk (`line.rs`).
pub(super) const MOST_PARKED: usize = 512;

/// What waits, in the order in which the queue gave it.
#[derive(Debug, Default)]
pub(super) struct Parked(Vec<Waiting>);

/// One that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) lease: Lease,
    pub(super) asked: Subject,
    pub(super) wait: Wait,
}

impl Parked {
    /// Whether one more is too many to keep.
    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= MOST_PARKED
    }

    pub(super) fn park(&mut self, mut lease: Lease, asked: Subject, wait: Wait) {
        lease.rest();
        self.0.push(Waiting { lease, asked, wait });
    }

    /// Takes out the most urgent one whose wait is over.
    pub(super) fn release(
        &mut self,
        now_ms: u64,
        standing: impl Fn(usize, &Subject, Share) -> Standing,
    ) -> Option<Waiting> {
        let is_next = |waiting: &&Waiting| {
            let Waiting { lease, asked, wait } = waiting;
            let share = plan::share(lease.priority());
            let is_open = |index: &usize| standing(*index, asked, share) == Standing::Open;
            let is_full = |index| standing(index, asked, share) == Standing::Full;
            wait.open.iter().any(is_open) || wait.not_full.is_some_and(|index| !is_full(index))
        };
        let urgency = |waiting: &&Waiting| waiting.lease.urgency(now_ms);
        let first = self.0.iter().filter(is_next).max_by_key(urgency).map(|w| w.lease.id())?;
        let place = self.0.iter().position(|waiting| waiting.lease.id() == first)?;
        Some(self.0.remove(place))
    }

    /// Takes out all.
    pub(super) fn leave(&mut self) -> Vec<Waiting> {
        std::mem::take(&mut self.0)
    }

    /// What is waited for: destinations, and what each would be asked.
    pub(super) fn waits(&self) -> impl Iterator<Item = (usize, &Subject)> {
        self.0.iter().flat_map(|each| each.wait.indexes().map(|index| (index, &each.asked)))
    }

    /// Gives back what is past its time.
    pub(super) fn drop_expired(&mut self, now_ms: u64) {
        self.0.retain(|waiting| waiting.lease.expires_at_ms().is_none_or(|at| at > now_ms));
    }
}
