//! Owns the queue's place in the agent.
//!
//! **Invariant:** a queue that cannot be opened is known as such, with its reason, and nothing else stops;
//! what was answered without it under a key is not asked again when it opens, as far as memory for that
//! goes.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;

use crate::ask_error::AskError;
use crate::queue::{Accepted, NewEntry, Queue, QueueError};

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
        self.keep_waiting(&queue, now_ms).await;
        self.fill(queue.clone());
        // Of those that were answered meanwhile.
        self.keep_waiting(&queue, now_ms).await;
    }

    async fn keep_waiting(&self, queue: &Queue, now_ms: u64) {
        let waiting = std::mem::take(&mut *self.waiting());
        for unkept in waiting {
            let id = unkept.entry.id;
            if let Err(error) = unkept.keep_in(queue, now_ms).await {
                let error = crate::error_chain(&error);
                tracing::warn!(%id, %error, "an answer could not be kept under its key");
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Unkept>> {
        self.0.unkept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn why(&self) -> String {
        self.0.why.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
