//! What only whoever empties the queue asks of it.
//!
//! **Invariant:** nothing in here counts an attempt or ends a request.

use super::{
    Queue, QueueError, RequestId,
    entry::{Attempts, GivenBack},
    journal::Wait,
    shared::Shared,
};

impl Queue {
    /// Gives a leased request back, not to be leased before `until_ms`; no attempt is counted.
    ///
    /// # Errors
    /// As [`Queue::retry_at`].
    pub async fn put_off(
        &self,
        id: RequestId,
        until_ms: u64,
        reason: &str,
    ) -> Result<(), QueueError> {
        let (attempts, wait) = (Attempts::Kept, Wait::Turn);
        let reason = Some(reason.to_owned());
        let back = GivenBack { attempts, not_before_ms: until_ms, reason, wait };
        self.give_back(id, back, false).await.map(drop)
    }

    /// When the time to live of the next request ends; `None` if none waits that has one.
    ///
    /// # Errors
    /// The index's.
    pub async fn next_expiry(&self) -> Result<Option<u64>, QueueError> {
        self.read(Shared::next_expiry).await
    }

    /// Requests without an end, in the order of their ids, from the first behind `after` on.
    ///
    /// # Errors
    /// The index's.
    pub async fn open_after(
        &self,
        after: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<RequestId>, QueueError> {
        self.read(move |shared| shared.open_after(after, limit)).await
    }
}
