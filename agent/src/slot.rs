//! Owns the queue's place in the agent.
//!
//! **Invariant:** a queue that cannot be opened is known as such, with its reason, and nothing else stops.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::ask_error::AskError;
use crate::queue::{Queue, QueueError};

/// The queue's place: empty while its disk cannot be used, which the device outlives.
#[derive(Debug, Clone, Default)]
pub struct Slot(Arc<SlotInner>);

#[derive(Debug, Default)]
struct SlotInner {
    queue: OnceLock<Queue>,
    why: Mutex<String>,
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

    fn why(&self) -> String {
        self.0.why.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
