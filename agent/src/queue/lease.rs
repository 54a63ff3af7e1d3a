//! A request in a worker's hands.
//!
//! **Invariant:** a lease that is dropped gives its own request back, and never one that was leased to
//! somebody else since.

use std::{io::ErrorKind, sync::Arc};

use bytes::Bytes;
use tracing::error;

use super::{
    Queue, QueueError, RequestId,
    journal::{FinalState, Meta, Place},
    keys::Entry,
    off_reactor,
};

/// A request to be worked on. End it by [`Queue::answer`], [`Queue::fail`] or [`Queue::retry_at`];
/// dropped before, it is given back as it was, without an attempt counted.
#[derive(Debug)]
pub struct Lease {
    queue: Queue,
    id: RequestId,
    token: u64,
    entry: Entry,
    envelope: Bytes,
}

impl Lease {
    /// The request's id.
    #[must_use]
    pub fn id(&self) -> RequestId {
        self.id
    }

    /// The envelope that it was accepted with.
    #[must_use]
    pub fn envelope(&self) -> &Bytes {
        &self.envelope
    }

    /// How often it was given back by [`Queue::retry_at`].
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.entry.attempts
    }

    /// Why it was given back last.
    #[must_use]
    pub fn last_reason(&self) -> Option<&str> {
        self.entry.reason.as_deref()
    }

    /// 0..=9, 9 is the most urgent.
    #[must_use]
    pub fn priority(&self) -> u8 {
        self.entry.priority
    }

    /// When it was accepted.
    #[must_use]
    pub fn accepted_at_ms(&self) -> u64 {
        self.entry.accepted_at_ms
    }

    /// When it expires.
    #[must_use]
    pub fn expires_at_ms(&self) -> Option<u64> {
        self.entry.expires_at_ms
    }

    /// The caller's idempotency key.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.entry.key.as_ref().map(|(key, _)| key.as_str())
    }

    /// Bytes of the body.
    #[must_use]
    pub fn body_len(&self) -> u64 {
        self.entry.place.body_len
    }

    /// Reads the body from disk and checks it.
    ///
    /// # Errors
    /// [`QueueError::Damaged`] when its bytes are not what was accepted: fail the request then.
    pub async fn body(&self) -> Result<Bytes, QueueError> {
        let shared = Arc::clone(&self.queue.shared);
        let (id, place) = (self.id, self.entry.place);
        off_reactor(move || {
            let (_, file) = shared.read_meta(id, &place)?;
            shared.read_body(&*file, id, &place)
        })
        .await
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.queue.shared.release(self.id, Some(self.token)) {
            self.queue.shared.notify();
        }
    }
}

/// Leases the next request.
pub(super) async fn next(
    queue: &Queue,
    now_ms: u64,
    least_priority: u8,
) -> Result<Option<Lease>, QueueError> {
    loop {
        let Some(picked) = queue.read(move |shared| shared.pick(now_ms, least_priority)).await?
        else {
            return Ok(None);
        };
        // From here on the request is given back when anything goes wrong.
        let mut lease = Lease {
            queue: queue.clone(),
            id: picked.id,
            token: picked.token,
            entry: picked.entry,
            envelope: Bytes::new(),
        };
        let (id, place) = (lease.id, lease.entry.place);
        match queue.read(move |shared| shared.read_meta(id, &place)).await {
            Ok((Meta::Accept(meta), _)) => {
                lease.envelope = meta.envelope.into();
                return Ok(Some(lease));
            }
            // It came to its end, or was moved, in this moment.
            Err(QueueError::Storage { .. }) if !queue.is_at(id, place).await? => {}
            Ok(_) | Err(QueueError::Damaged { .. }) => {
                error!(%id, "queue: a request is damaged on disk; set aside as failed");
                let reason = Some("its bytes on disk are damaged");
                queue.end(id, FinalState::Failed, reason, now_ms, false).await?;
            }
            Err(QueueError::Storage { source, .. }) if source.kind() == ErrorKind::NotFound => {
                error!(%id, "queue: a request's segment is gone; set aside as failed");
                let reason = Some("its bytes on disk are gone");
                queue.end(id, FinalState::Failed, reason, now_ms, false).await?;
            }
            Err(other) => return Err(other),
        }
    }
}

impl Queue {
    /// Whether a request still waits where it did.
    async fn is_at(&self, id: RequestId, place: Place) -> Result<bool, QueueError> {
        let entry = self.read(move |shared| shared.entry(id)).await?;
        Ok(entry.is_some_and(|entry| entry.ended.is_none() && entry.place == place))
    }
}
