//! A request in a worker's hands.
//!
//! **Invariant:** a lease that is dropped gives its own request back, and never one that was leased to
//! somebody else since.

use std::{cmp::Reverse, io::ErrorKind};

use bytes::Bytes;
use tracing::error;

use super::{
    Queue, QueueError, RequestId,
    journal::{FinalState, Place},
    keys::Entry,
    line::LINE,
    pick::{Picked, Wanted, urgency},
    reader::Reader,
    shared::Shared,
};

/// What a disk does not give now is asked for again after this time.
const UNREADABLE_WAIT_MS: u64 = 60_000;

/// A request to be worked on. End it by [`Queue::answer`], [`Queue::fail`] or [`Queue::retry_at`];
/// dropped before, it is given back as it was, without an attempt counted.
#[derive(Debug)]
pub struct Lease {
    queue: Queue,
    id: RequestId,
    token: u64,
    entry: Entry,
    envelope: Bytes,
    /// There if it is small.
    body: Option<Bytes>,
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

    /// How urgent it is at `now_ms`, by priority and age: the greater goes first.
    #[must_use]
    pub fn urgency(&self, now_ms: u64) -> impl Ord + use<> {
        let ageing_ms = self.queue.shared.config.ageing_ms;
        let urgency = urgency(self.entry.priority, self.entry.accepted_at_ms, now_ms, ageing_ms);
        (urgency, Reverse(self.entry.order))
    }

    /// Whether it goes back into the line when it is dropped: see [`Queue::put_in_line`].
    #[must_use]
    pub fn is_in_line(&self) -> bool {
        self.entry.not_before_ms == LINE
    }

    /// Its place in the order of its priority.
    pub(super) fn order(&self) -> u64 {
        self.entry.order
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

    /// Says that nothing is done with the request for now, for a lease that is kept for long: it keeps no
    /// body in memory, and the request is told as held. Nobody else leases it.
    pub fn rest(&mut self) {
        self.body = None;
        self.queue.shared.in_flight.rest(self.id, self.token);
    }

    /// Reads the body from disk and checks it.
    ///
    /// # Errors
    /// [`QueueError::Damaged`] when its bytes are not what was accepted: fail the request then;
    /// [`QueueError::Unknown`] when it came to its end meanwhile.
    pub async fn body(&self) -> Result<Bytes, QueueError> {
        if let Some(body) = &self.body {
            return Ok(body.clone());
        }
        let id = self.id;
        self.queue.body(id).await?.ok_or(QueueError::Unknown { id })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.queue.shared.in_flight.release(self.id, self.token) {
            self.queue.shared.notify();
        }
    }
}

/// Leases the next requests; none when none may be worked on.
pub(super) async fn next(queue: &Queue, wanted: Wanted) -> Result<Vec<Lease>, QueueError> {
    loop {
        let ours = queue.clone();
        let read = move |shared: &Shared| read(&ours, shared, &wanted);
        let mut leases = Vec::new();
        let mut was_any = false;
        for (lease, read) in queue.read(read).await? {
            was_any = true;
            match read {
                Ok(()) => leases.push(lease),
                Err(failed) => pass_over(queue, &lease, failed, wanted.now_ms).await?,
            }
        }
        // All that were damaged are out of the way now.
        if !leases.is_empty() || !was_any {
            return Ok(leases);
        }
    }
}

/// A lease, and whether its bytes could be read.
type Read = (Lease, Result<(), QueueError>);

/// Picks requests and reads them. The leases are made here, so that they are given back when nobody
/// waits for them any more.
fn read(queue: &Queue, shared: &Shared, wanted: &Wanted) -> Result<Vec<Read>, QueueError> {
    let mut reader = Reader::default();
    let picked = shared.pick(wanted)?;
    let places: Vec<Place> = picked.iter().map(|picked| picked.entry.place).collect();
    let leases = picked.into_iter().enumerate().map(|(at, Picked { id, entry, token })| {
        let next = places.get(at + 1..).unwrap_or_default();
        let queue = queue.clone();
        let (envelope, body) = (Bytes::new(), None);
        let mut lease = Lease { queue, id, token, entry, envelope, body };
        let read = shared.read_waiting(&mut reader, id, &lease.entry.place, next).map(
            |(envelope, body)| {
                shared.in_flight.remember(id, token, &envelope);
                (lease.envelope, lease.body) = (envelope, body);
            },
        );
        (lease, read)
    });
    Ok(leases.collect())
}

/// Gets a request whose bytes cannot be read out of the way of the others: it ends if they are lost,
/// and is tried again later if its disk does not give them now. One that was moved in this moment is
/// given back.
async fn pass_over(
    queue: &Queue,
    lease: &Lease,
    failed: QueueError,
    now_ms: u64,
) -> Result<(), QueueError> {
    let id = lease.id;
    let why = match &failed {
        QueueError::Storage { .. } if !queue.is_at(id, lease.entry.place).await? => return Ok(()),
        QueueError::Damaged { .. } => "its bytes on disk are damaged",
        QueueError::Storage { source, .. } if source.kind() == ErrorKind::NotFound => {
            "its bytes on disk are gone"
        }
        QueueError::Storage { .. } => {
            error!(%id, %failed, "queue: a request cannot be read now; others go before it");
            let until_ms = now_ms.saturating_add(UNREADABLE_WAIT_MS);
            return queue.put_off(id, until_ms, &failed.to_string()).await;
        }
        _ => return Err(failed),
    };
    error!(%id, why, "queue: a request cannot be read; it ends as failed");
    queue.end(id, FinalState::Failed, Some(why), now_ms, false).await.map(drop)
}

impl Queue {
    /// Whether a request still waits where it did.
    async fn is_at(&self, id: RequestId, place: Place) -> Result<bool, QueueError> {
        let entry = self.read(move |shared| shared.entry(id)).await?;
        Ok(entry.is_some_and(|entry| entry.ended.is_none() && entry.place == place))
    }
}
