//! Owns the handle on an open queue: what its callers ask of it.
//!
//! **Invariant:** whatever changes the queue goes through its writer, and who asks for it hears when it is
//! on disk; reads block no reactor.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Accepted, Forgotten, Idempotency, Lease, MAX_BODY_BYTES, MAX_ENVELOPE_BYTES, NewEntry,
    OpenReport, QueueConfig, QueueError, Record, Recorded, RequestId, State, Stats, Summary,
    command::{Command, Finish},
    entry::MAX_KEY_BYTES,
    journal::FinalState,
    lease,
    opening::{self, Ready},
    pick::Wanted,
    shared::Shared,
};

/// Commands that wait for the writer at most; callers beyond wait to hand theirs over.
const WAITING: usize = 4096;
/// From this size on a checksum is not made on the caller's thread.
const LARGE: usize = 256 * 1024;
/// Requests expired in one call at most.
const EXPIRE: usize = 4096;

/// A handle on an open queue; clones are the same queue. It closes when the last one is dropped, or
/// by [`Queue::close`], which also waits for it.
#[derive(Debug, Clone)]
pub struct Queue {
    pub(super) shared: Arc<Shared>,
    pub(super) commands: mpsc::Sender<Command>,
    #[cfg(any(test, feature = "paused-clock"))]
    pub(super) holds_time: bool,
}

impl Queue {
    /// Opens the queue in `dir`, or makes one. Blocks; call it off the reactor.
    ///
    /// # Errors
    /// [`QueueError::InUse`] when another process has it; [`QueueError::Storage`] when the directory
    /// cannot be read or written. Damage is no error: see the report.
    pub fn open(dir: &Path, config: QueueConfig) -> Result<(Queue, OpenReport), QueueError> {
        Self::start(opening::open(dir, config)?, dir)
    }

    /// Starts the writer of a queue that was opened.
    pub(super) fn start(
        (shared, writer, report): Ready,
        dir: &Path,
    ) -> Result<(Queue, OpenReport), QueueError> {
        let (commands, receiver) = mpsc::channel(WAITING);
        std::thread::Builder::new()
            .name("queue-writer".into())
            .spawn(move || writer.run(receiver))
            .map_err(|source| QueueError::storage("start the writer of", dir, source))?;
        let queue = Queue {
            shared,
            commands,
            #[cfg(any(test, feature = "paused-clock"))]
            holds_time: false,
        };
        Ok((queue, report))
    }

    /// Puts a request in; it is on disk when this returns.
    ///
    /// # Errors
    /// See [`QueueError`]; after an error the request is not in the queue.
    pub async fn accept(&self, entry: NewEntry) -> Result<Accepted, QueueError> {
        check_sizes(&entry)?;
        let crc = crc_of(entry.body.clone()).await?;
        let entry = Box::new(entry);
        self.ask(|reply| Command::Accept { entry, crc, answer: None, reply }).await
    }

    /// Keeps a request that was answered at once, with its answer, so that its idempotency key is
    /// known; the entry's body is not kept. On disk when this returns.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn accept_answered(
        &self,
        entry: NewEntry,
        answer: impl Into<Bytes>,
    ) -> Result<Accepted, QueueError> {
        check_sizes(&entry)?;
        let answer = checked_answer(answer.into())?;
        let answer_crc = crc_of(answer.clone()).await?;
        let entry = Box::new(NewEntry { body: Bytes::new(), ..entry });
        let answer = Some((answer, answer_crc));
        self.ask(|reply| Command::Accept { entry, crc: 0, answer, reply }).await
    }

    /// The most urgent request that may be worked on now, then the oldest; `None` when there is none.
    /// Waiting makes urgent, see [`QueueConfig::ageing_ms`].
    /// It stays in flight until it is answered, failed, given back, or the lease is dropped. A request
    /// whose bytes are damaged is set aside as failed on the way.
    ///
    /// # Errors
    /// [`QueueError::Storage`] and [`QueueError::Index`].
    pub async fn lease_next(&self, now_ms: u64) -> Result<Option<Lease>, QueueError> {
        self.lease_urgent(now_ms, 0).await
    }

    /// As [`Queue::lease_next`], up to so many at once, the first one first.
    ///
    /// # Errors
    /// As there.
    pub async fn lease_many(&self, now_ms: u64, most: usize) -> Result<Vec<Lease>, QueueError> {
        lease::next(self, Wanted { now_ms, least_priority: 0, most, line: None }).await
    }

    /// As [`Queue::lease_next`], but only requests of at least this priority.
    ///
    /// # Errors
    /// As there.
    pub async fn lease_urgent(
        &self,
        now_ms: u64,
        least_priority: u8,
    ) -> Result<Option<Lease>, QueueError> {
        let wanted = Wanted { now_ms, least_priority, most: 1, line: None };
        Ok(lease::next(self, wanted).await?.pop())
    }

    /// Records the answer of a request. The first final state wins: `AlreadyFinal` tells that this
    /// answer was not taken and must not be delivered.
    ///
    /// # Errors
    /// [`QueueError::Unknown`], [`QueueError::TooLarge`], or the storage's; the request is then as it
    /// was.
    pub async fn answer(
        &self,
        id: RequestId,
        answer: impl Into<Bytes>,
        now_ms: u64,
    ) -> Result<Recorded, QueueError> {
        let answer = checked_answer(answer.into())?;
        let answer_crc = crc_of(answer.clone()).await?;
        self.finish(Finish {
            id,
            state: FinalState::Answered,
            answer,
            answer_crc,
            reason: None,
            now_ms,
            spare_in_flight: false,
        })
        .await
        .map(|recorded| recorded.unwrap_or(Recorded::Stored))
    }

    /// Sets a request aside for good.
    ///
    /// # Errors
    /// [`QueueError::Unknown`] or the storage's.
    pub async fn fail(
        &self,
        id: RequestId,
        reason: &str,
        now_ms: u64,
    ) -> Result<Recorded, QueueError> {
        self.end(id, FinalState::Failed, Some(reason), now_ms, false)
            .await
            .map(|recorded| recorded.unwrap_or(Recorded::Stored))
    }

    /// Takes a request back, also one that a worker has: its answer then comes too late.
    ///
    /// # Errors
    /// [`QueueError::Unknown`] or the storage's.
    pub async fn cancel(&self, id: RequestId, now_ms: u64) -> Result<Recorded, QueueError> {
        self.end(id, FinalState::Cancelled, None, now_ms, false)
            .await
            .map(|recorded| recorded.unwrap_or(Recorded::Stored))
    }

    /// Ends the waiting requests whose time is over, some thousands in one call, and names them; those
    /// in flight are left to their worker.
    ///
    /// # Errors
    /// The storage's.
    pub async fn expire(&self, now_ms: u64) -> Result<Vec<RequestId>, QueueError> {
        let ids = self.read(move |shared| shared.up_to(b'x', now_ms, EXPIRE)).await?;
        let ends = ids.into_iter().map(|id| async move {
            let ended = self.end(id, FinalState::Expired, None, now_ms, true).await;
            ended.map(|recorded| (recorded == Some(Recorded::Stored)).then_some(id))
        });
        let mut expired = Vec::new();
        for ended in futures_util::future::join_all(ends).await {
            expired.extend(ended?);
        }
        Ok(expired)
    }

    /// Forgets what came to its end `keep_ms` before `now_ms` or earlier, and the oldest beyond
    /// `max_finals`; their space comes back.
    ///
    /// # Errors
    /// The storage's.
    pub async fn forget_before(&self, now_ms: u64, keep_ms: u64) -> Result<Forgotten, QueueError> {
        self.forget_foreseen(now_ms, keep_ms, u64::MAX).await
    }

    /// As [`Queue::forget_before`], but of those beyond `max_finals` at most `most`: so many as whoever
    /// is to have them first has looked at.
    ///
    /// # Errors
    /// As there.
    pub async fn forget_foreseen(
        &self,
        now_ms: u64,
        keep_ms: u64,
        most: u64,
    ) -> Result<Forgotten, QueueError> {
        let to_ms = now_ms.checked_sub(keep_ms);
        self.ask(|reply| Command::Forget { to_ms, most, reply }).await
    }

    /// Forgets a request that has its end, before its time and for good: it is on disk when this returns.
    /// False: it is not known, or has no end yet.
    ///
    /// # Errors
    /// The storage's.
    pub async fn forget(&self, id: RequestId) -> Result<bool, QueueError> {
        self.ask(|reply| Command::ForgetOne { id, reply }).await
    }

    /// A request with its envelope and, if it has one, its answer.
    ///
    /// # Errors
    /// [`QueueError::Damaged`] or the storage's.
    pub async fn get(&self, id: RequestId) -> Result<Option<Record>, QueueError> {
        self.read(move |shared| shared.record(id)).await
    }

    /// The body of a request that has no end yet, checked; `None`: there is no such request.
    ///
    /// # Errors
    /// [`QueueError::Damaged`] or the storage's.
    pub async fn body(&self, id: RequestId) -> Result<Option<Bytes>, QueueError> {
        self.read(move |shared| shared.body(id)).await
    }

    /// Requests that came to their end, with their numbers, in the order in which that was recorded,
    /// from the first number behind `after` on. Numbers grow, with gaps, and never change.
    ///
    /// # Errors
    /// The index's.
    pub async fn results_after(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Summary)>, QueueError> {
        self.read(move |shared| shared.results_after(after, limit)).await
    }

    /// The request that was made before under an idempotency key.
    ///
    /// # Errors
    /// [`QueueError::KeyConflict`] when the key belongs to another request, or the index's.
    pub async fn find_key(&self, name: &Idempotency) -> Result<Option<Summary>, QueueError> {
        let name = name.clone();
        self.read(move |shared| shared.named(&name)).await
    }

    /// Requests in the order of their ids, all or those in one state.
    ///
    /// # Errors
    /// The index's.
    pub async fn list(
        &self,
        state: Option<State>,
        limit: usize,
    ) -> Result<Vec<Summary>, QueueError> {
        self.read(move |shared| shared.list(state, None, limit)).await
    }

    /// The same, from the first behind `after` on.
    ///
    /// # Errors
    /// The index's.
    pub async fn list_after(
        &self,
        state: Option<State>,
        after: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<Summary>, QueueError> {
        self.read(move |shared| shared.list(state, after, limit)).await
    }

    /// The ids of requests in one state, or of all that have no end yet, in the order of their making.
    ///
    /// # Errors
    /// The index's.
    pub async fn ids(&self, state: Option<State>) -> Result<Vec<RequestId>, QueueError> {
        self.read(move |shared| shared.ids(state)).await
    }

    /// The queue in numbers.
    ///
    /// # Errors
    /// The index's, or when the directory cannot be read.
    pub async fn stats(&self) -> Result<Stats, QueueError> {
        self.read(Shared::stats).await
    }

    /// Requests that have no end yet; cheap.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.shared.waiting()
    }

    /// When the next request may be leased: `now_ms` if one may be now, `None` if none waits.
    ///
    /// # Errors
    /// The index's.
    pub async fn next_due(&self, now_ms: u64) -> Result<Option<u64>, QueueError> {
        self.read(move |shared| shared.next_due(now_ms)).await
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

    /// Changes whenever something in the queue did; look again then.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// Closes the queue in good order, so that the next opening is quick even after a restart of the
    /// machine. What was handed over before is done; later calls get [`QueueError::Closed`].
    ///
    /// # Errors
    /// The storage's; nothing is lost then, but the index may be made anew on the next opening.
    pub async fn close(&self) -> Result<(), QueueError> {
        match self.ask(|reply| Command::Close { reply }).await {
            Err(QueueError::Closed) => Ok(()),
            other => other,
        }
    }

    pub(super) async fn end(
        &self,
        id: RequestId,
        state: FinalState,
        reason: Option<&str>,
        now_ms: u64,
        spare_in_flight: bool,
    ) -> Result<Option<Recorded>, QueueError> {
        let reason = reason.map(str::to_owned);
        let answer = Bytes::new();
        self.finish(Finish { id, state, answer, answer_crc: 0, reason, now_ms, spare_in_flight })
            .await
    }

    async fn finish(&self, finish: Finish) -> Result<Option<Recorded>, QueueError> {
        let finish = Box::new(finish);
        self.ask(|reply| Command::Finish { finish, reply }).await
    }

    pub(super) async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, QueueError>>) -> Command,
    ) -> Result<T, QueueError> {
        #[cfg(any(test, feature = "paused-clock"))]
        let _still = self.holds_time.then(super::still::Still::hold);
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_closed| QueueError::Closed)?;
        answer.await.map_err(|_closed| QueueError::Closed)?
    }

    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Shared) -> Result<T, QueueError> + Send + 'static,
    ) -> Result<T, QueueError> {
        let shared = Arc::clone(&self.shared);
        off_reactor(move || {
            shared.wait_for_index();
            read(&shared)
        })
        .await
    }
}

fn check_sizes(entry: &NewEntry) -> Result<(), QueueError> {
    let key = entry.idempotency.as_ref().map_or(0, |name| name.key.len());
    for (what, bytes, limit) in [
        ("an idempotency key", key, MAX_KEY_BYTES),
        ("an envelope", entry.envelope.len(), MAX_ENVELOPE_BYTES),
        ("a body", entry.body.len(), MAX_BODY_BYTES),
    ] {
        if bytes > limit {
            return Err(QueueError::TooLarge { what, bytes: bytes as u64, limit: limit as u64 });
        }
    }
    Ok(())
}

fn checked_answer(answer: Bytes) -> Result<Bytes, QueueError> {
    if answer.len() > MAX_BODY_BYTES {
        let (bytes, limit) = (answer.len() as u64, MAX_BODY_BYTES as u64);
        return Err(QueueError::TooLarge { what: "an answer", bytes, limit });
    }
    Ok(answer)
}

async fn crc_of(bytes: Bytes) -> Result<u32, QueueError> {
    if bytes.len() < LARGE {
        return Ok(crc32c::crc32c(&bytes));
    }
    off_reactor(move || Ok(crc32c::crc32c(&bytes))).await
}

/// Runs what blocks, and not on the reactor.
pub(super) async fn off_reactor<T: Send + 'static>(
    run: impl FnOnce() -> Result<T, QueueError> + Send + 'static,
) -> Result<T, QueueError> {
    match tokio::task::spawn_blocking(run).await {
        Ok(result) => result,
        // The runtime is going down, or the index panicked where it should not.
        Err(failed) if failed.is_panic() => Err(QueueError::Index { detail: failed.to_string() }),
        Err(_) => Err(QueueError::Closed),
    }
}
