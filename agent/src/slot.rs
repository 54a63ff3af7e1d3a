//! Owns the queue's place in the agent.
//!
//! **Invariant:** a queue that cannot be opened is known as such, with its reason, and nothing else stops;
//! what was answered without it under a key is not asked again, before it opens and after, as far as memory
//! for that goes.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;

use crate::ask_error::AskError;
use crate::queue::{
    Accepted, Idempotency, NewEntry, Queue, QueueError, Record, RequestId, State, Summary,
};

/// Bytes of answers, with their requests, that wait in memory for the queue at most.
const MOST_UNKEPT: usize = 4 << 20;

/// The queue's place: empty while its disk cannot be used, which the device outlives.
#[derive(Debug, Clone, Default)]
pub struct Slot(Arc<SlotInner>);

#[derive(Debug, Default)]
struct SlotInner {
    queue: OnceLock<Queue>,
    why: Mutex<String>,
    unkept: Mutex<Vec<Unkept>>,
}

/// A request that was answered at once under a key, and its answer.
#[derive(Debug, Clone)]
struct Unkept {
    entry: NewEntry,
    answer: Bytes,
}

impl Unkept {
    fn bytes(&self) -> usize {
        self.entry.envelope.len() + self.answer.len()
    }

    /// It, as the queue will tell it.
    fn record(&self) -> Record {
        let Self { entry, answer } = self;
        let summary = Summary {
            id: entry.id,
            state: State::Answered,
            priority: entry.priority,
            attempts: 0,
            last_reason: None,
            accepted_at_ms: entry.accepted_at_ms,
            not_before_ms: entry.not_before_ms,
            expires_at_ms: entry.expires_at_ms,
            finished_at_ms: Some(entry.accepted_at_ms),
            key: entry.idempotency.as_ref().map(|name| name.key.clone()),
            bytes: u64::try_from(answer.len()).unwrap_or(u64::MAX),
        };
        Record { summary, envelope: entry.envelope.clone(), answer: Some(answer.clone()) }
    }

    /// Keeps it; what is held under the key already has its end with this answer, and nobody is asked it
    /// any more.
    async fn keep_in(self, queue: &Queue, now_ms: u64) -> Result<Accepted, QueueError> {
        let Self { entry, answer } = self;
        let accepted = queue.accept_answered(entry, answer.clone()).await?;
        if let Accepted::Known { id, state } = accepted
            && !state.is_final()
        {
            queue.answer(id, answer, now_ms).await?;
        }
        Ok(accepted)
    }
}

impl Slot {
    /// The queue, if it is open.
    pub fn get(&self) -> Option<&Queue> {
        self.0.queue.get()
    }

    /// Puts the opened queue in its place; a second one is dropped.
    pub fn fill(&self, queue: Queue) {
        drop(self.0.queue.set(queue));
    }

    /// Notes why there is no queue.
    pub fn refuse(&self, error: &QueueError) {
        let why = crate::error_chain(error);
        tracing::error!(error = %why, "no queue: nothing can be held until its disk can be used");
        *self.0.why.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// The queue.
    ///
    /// # Errors
    /// Why there is none.
    pub fn open(&self) -> Result<&Queue, AskError> {
        self.get().ok_or_else(|| AskError::NoQueue(self.why()))
    }

    /// Why there is no queue; `None` while there is one.
    pub fn missing(&self) -> Option<String> {
        self.get().is_none().then(|| self.why())
    }

    /// The request that was made before under this name: in the queue, or, while there is none, in memory.
    ///
    /// # Errors
    /// [`QueueError::KeyConflict`] when the key belongs to another request, or the queue's.
    pub(crate) async fn find_key(
        &self,
        name: &Idempotency,
    ) -> Result<Option<RequestId>, QueueError> {
        let found = match self.get() {
            Some(_) => None,
            None => self.unkept_under(name)?,
        };
        // It may have opened meanwhile, and has them all then.
        match self.get() {
            Some(queue) if found.is_none() => {
                Ok(queue.find_key(name).await?.map(|summary| summary.id))
            }
            _ => Ok(found),
        }
    }

    fn unkept_under(&self, name: &Idempotency) -> Result<Option<RequestId>, QueueError> {
        let waiting = self.waiting();
        let named = waiting.iter().filter_map(|unkept| {
            let known = unkept.entry.idempotency.as_ref()?;
            (known.key == name.key).then_some((known, unkept.entry.id))
        });
        match named.last() {
            None => Ok(None),
            Some((known, id)) if known.digest == name.digest => Ok(Some(id)),
            Some((known, id)) => Err(QueueError::KeyConflict { key: known.key.clone(), id }),
        }
    }

    /// A request by its id: in the queue, or, while there is none, in memory.
    ///
    /// # Errors
    /// When it cannot be read, or might be in the queue that is missing.
    pub(crate) async fn record(&self, id: RequestId) -> Result<Option<Record>, AskError> {
        if self.get().is_none() {
            let waiting = self.waiting();
            let found = waiting.iter().find(|unkept| unkept.entry.id == id).map(Unkept::record);
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(self.open()?.get(id).await?)
    }

    /// Keeps the answer to a request that was answered at once, as [`Queue::accept_answered`]; what is held
    /// under its key already has its end with it. Without a queue it is kept when there is one.
    ///
    /// # Errors
    /// When it is not on disk.
    pub(crate) async fn keep_answered(
        &self,
        entry: NewEntry,
        answer: Bytes,
        now_ms: u64,
    ) -> Result<Accepted, AskError> {
        let unkept = Unkept { entry, answer };
        if self.get().is_none() {
            let mut waiting = self.waiting();
            // Who comes to take them comes behind the queue.
            if self.get().is_none() {
                let bytes = waiting.iter().chain([&unkept]).map(Unkept::bytes).sum::<usize>();
                if bytes <= MOST_UNKEPT {
                    waiting.push(unkept);
                }
                return Err(AskError::NoQueue(self.why()));
            }
        }
        Ok(unkept.keep_in(self.open()?, now_ms).await?)
    }

    /// Puts the opened queue in its place, behind what was answered while there was none: that is kept in it
    /// first.
    pub(crate) async fn fill_behind(&self, queue: Queue, now_ms: u64) {
        // Until the queue is there they are looked up in memory.
        let waiting = self.waiting().clone();
        keep_all(waiting, &queue, now_ms).await;
        self.fill(queue.clone());
        // Those that were answered meanwhile, too; what is kept already stays as it is.
        let waiting = std::mem::take(&mut *self.waiting());
        keep_all(waiting, &queue, now_ms).await;
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Unkept>> {
        self.0.unkept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn why(&self) -> String {
        self.0.why.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn keep_all(waiting: Vec<Unkept>, queue: &Queue, now_ms: u64) {
    for unkept in waiting {
        let id = unkept.entry.id;
        if let Err(error) = unkept.keep_in(queue, now_ms).await {
            let error = crate::error_chain(&error);
            tracing::warn!(%id, %error, "an answer could not be kept under its key");
        }
    }
}
