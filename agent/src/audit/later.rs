//! Owns the lines that nobody waits for: how sends ended. They are written with what comes next, or after a
//! moment, so that a busy device does not touch its disk for each of them.
//!
//! **Invariant:** who puts one here first has somebody told; nothing stays here unseen.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::event::Entry;

/// Lines that wait at most.
const MOST: usize = 4096;

/// Lines that are written some time soon.
#[derive(Debug, Default)]
pub(super) struct Later(Mutex<Vec<Entry>>);

/// What putting a line here means for whoever did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// It is the first: the writer has to be told.
    First,
    /// The writer knows.
    Another,
    /// There are too many, and it is not kept.
    TooMany,
}

impl Later {
    pub(super) fn put(&self, line: Entry) -> Put {
        let mut lines = self.lines();
        let put = match lines.len() {
            0 => Put::First,
            1..MOST => Put::Another,
            _ => return Put::TooMany,
        };
        lines.push(line);
        put
    }

    /// All of them, in their order.
    pub(super) fn take(&self) -> Vec<Entry> {
        std::mem::take(&mut *self.lines())
    }

    /// What a panicked holder left are lines all the same.
    fn lines(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
