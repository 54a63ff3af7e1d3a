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
    /// Destinations that failed on it: how many answers each had given by then, and how often in a row
    /// nobody blamed the request.
    failures: Vec<(usize, u64, u32)>,
}

/// A failure of a destination on a request, beside the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failure {
    /// The destination answered others in between.
    pub(super) has_answered: bool,
    /// Failures in a row before this one, without an answer to others in between.
    pub(super) in_a_row: u32,
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

    /// Takes note that a destination, which has given so many answers by now, failed on `id`.
    pub(super) fn failed(&self, id: RequestId, destination: usize, answers: u64) -> Failure {
        self.of(id, |said| {
            let before = said.failures.iter_mut().find(|failure| failure.0 == destination);
            match before {
                None => {
                    said.failures.push((destination, answers, 1));
                    Failure { has_answered: false, in_a_row: 0 }
                }
                Some((_, then, in_a_row)) => {
                    let has_answered = answers > *then;
                    let before = if has_answered { 0 } else { *in_a_row };
                    (*then, *in_a_row) = (answers, before.saturating_add(1));
                    Failure { has_answered, in_a_row: before }
                }
            }
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
