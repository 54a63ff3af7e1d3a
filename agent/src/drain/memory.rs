//! Owns what destinations said of single requests, as long as this process runs.
//!
//! **Invariant:** bounded; forgetting costs one more refusal, and no answer.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::queue::RequestId;

/// Requests remembered at most.
const MOST: usize = 10_000;

/// What is remembered, by request.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<HashMap<RequestId, Said>>);

#[derive(Debug, Default)]
struct Said {
    /// Who will never answer it, and why.
    refusals: Vec<(String, String)>,
    /// How often somebody held it and had no answer yet.
    pending: u32,
}

impl Memory {
    /// Why `destination` is not to be asked for `id` again.
    pub(super) fn refusal(&self, id: RequestId, destination: &str) -> Option<String> {
        let memory = self.lock();
        let (_, error) = memory.get(&id)?.refusals.iter().find(|(name, _)| name == destination)?;
        Some(error.clone())
    }

    /// Remembers that `destination` is not to be asked for `id` again.
    pub(super) fn refuse(&self, id: RequestId, destination: &str, error: String) {
        self.of(id, |said| said.refusals.push((destination.to_owned(), error)));
    }

    /// Counts that somebody holds `id` and has no answer yet; returns how often that was before.
    pub(super) fn pending(&self, id: RequestId) -> u32 {
        self.of(id, |said| {
            said.pending = said.pending.saturating_add(1);
            said.pending - 1
        })
    }

    pub(super) fn forget(&self, ids: &[RequestId]) {
        let mut memory = self.lock();
        for id in ids {
            memory.remove(id);
        }
    }

    fn of<T>(&self, id: RequestId, change: impl FnOnce(&mut Said) -> T) -> T {
        let mut memory = self.lock();
        if memory.len() >= MOST && !memory.contains_key(&id) {
            memory.clear();
        }
        change(memory.entry(id).or_default())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RequestId, Said>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
