//! The line: requests that wait, without a time, until whom they wait for takes more.
//!
//! A request that is looked at while its destination is shut, behind many others of the same, would cost
//! a look each time. In line it is leased only by whoever asks for the line, and walks along it once.
//!
//! **Invariant:** a request is put in line by one record, and gone over as often as one likes by none.

use super::{
    NEVER, Queue, QueueError, RequestId,
    entry::Attempts,
    journal::Wait,
    lease::{self, Lease},
    pick::Wanted,
};

/// The due time of what is in line: no time, but before that of what waits for the operator.
pub(super) const LINE: u64 = NEVER - 1;

/// How far somebody has gone along the line, in each priority.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Walk {
    from: [u64; 10],
}

impl Walk {
    /// Leaves a request behind.
    pub fn pass(&mut self, lease: &Lease) {
        if let Some(from) = self.from.get_mut(usize::from(lease.priority())) {
            *from = (*from).max(lease.order().saturating_add(1));
        }
    }

    /// Goes back as far as to a request.
    pub fn back_to(&mut self, lease: &Lease) {
        if let Some(from) = self.from.get_mut(usize::from(lease.priority())) {
            *from = (*from).min(lease.order());
        }
    }

    /// Begins again, for requests of at least this priority.
    pub fn begin_again(&mut self, least_priority: u8) {
        self.from.iter_mut().skip(usize::from(least_priority)).for_each(|from| *from = 0);
    }

    /// The order from which on requests of a priority were not passed.
    pub(super) fn from(&self, priority: u8) -> u64 {
        self.from.get(usize::from(priority)).copied().unwrap_or_default()
    }
}

impl Queue {
    /// Puts a leased request in line; no attempt is counted. Its age and its time to live go on.
    ///
    /// # Errors
    /// As [`Queue::retry_at`].
    pub async fn put_in_line(&self, id: RequestId, reason: &str) -> Result<(), QueueError> {
        self.until(id, LINE, (Attempts::Kept, Wait::Turn), reason).await
    }

    /// As [`Queue::lease_urgent`], and what is in line as if it were due, but for what was passed.
    ///
    /// # Errors
    /// As there.
    pub async fn lease_along(
        &self,
        now_ms: u64,
        least_priority: u8,
        walk: &Walk,
    ) -> Result<Option<Lease>, QueueError> {
        let wanted = Wanted { now_ms, least_priority, most: 1, line: Some(*walk) };
        Ok(lease::next(self, wanted).await?.pop())
    }
}

/// A due time, as whoever lists requests is told it: what is in line has none.
pub(super) fn due_as_told(due_ms: u64) -> u64 {
    if due_ms == LINE { 0 } else { due_ms }
}
