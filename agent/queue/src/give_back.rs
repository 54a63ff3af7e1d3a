//! What a worker gives back, and when it may be leased again.
//!
//! **Invariant:** nothing in here ends a request.

use super::{
    NEVER, Queue, QueueError, Recorded, RequestId,
    command::Command,
    entry::{Attempts, GivenBack},
    journal::Wait,
};

impl Queue {
    /// Gives a leased request back, with one attempt more, not to be leased before `not_before_ms`.
    ///
    /// # Errors
    /// [`QueueError::Unknown`] or the storage's; the lease's end gives it back in any case.
    pub async fn retry_at(
        &self,
        id: RequestId,
        not_before_ms: u64,
        reason: &str,
    ) -> Result<(), QueueError> {
        self.until(id, not_before_ms, (Attempts::Counted, Wait::Turn), reason).await
    }

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
        self.until(id, until_ms, (Attempts::Kept, Wait::Turn), reason).await
    }

    /// Gives a leased request back until there is budget again; no attempt is counted.
    ///
    /// # Errors
    /// As [`Queue::retry_at`].
    pub async fn wait_for_budget(
        &self,
        id: RequestId,
        until_ms: u64,
        reason: &str,
    ) -> Result<(), QueueError> {
        self.until(id, until_ms, (Attempts::Kept, Wait::Budget), reason).await
    }

    /// Gives a leased request back, with one attempt more, to be leased no more until
    /// [`Queue::retry_now`]. Its body stays, and it expires as others do.
    ///
    /// # Errors
    /// As [`Queue::retry_at`].
    pub async fn set_aside(&self, id: RequestId, reason: &str) -> Result<(), QueueError> {
        self.until(id, NEVER, (Attempts::Counted, Wait::Operator), reason).await
    }

    /// Lets a request that waits or is set aside go at once, as if it had not been tried. One that a
    /// worker has is left alone.
    ///
    /// # Errors
    /// [`QueueError::Unknown`] or the storage's.
    pub async fn retry_now(&self, id: RequestId) -> Result<Recorded, QueueError> {
        let (attempts, wait) = (Attempts::Reset, Wait::Turn);
        let back = GivenBack { attempts, not_before_ms: 0, reason: None, wait };
        self.give_back(id, back, true).await
    }

    pub(super) async fn until(
        &self,
        id: RequestId,
        not_before_ms: u64,
        (attempts, wait): (Attempts, Wait),
        reason: &str,
    ) -> Result<(), QueueError> {
        let reason = Some(reason.to_owned());
        let back = GivenBack { attempts, not_before_ms, reason, wait };
        self.give_back(id, back, false).await.map(drop)
    }

    async fn give_back(
        &self,
        id: RequestId,
        back: GivenBack,
        spare_in_flight: bool,
    ) -> Result<Recorded, QueueError> {
        self.ask(|reply| Command::Retry { id, back, spare_in_flight, reply }).await
    }
}
