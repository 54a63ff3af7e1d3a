//! A queue that no agent has, to be looked at.
//!
//! **Invariant:** nothing on disk is changed, and nobody writes while it is looked at.

use std::path::Path;

use bytes::Bytes;

use super::{
    OpenReport, QueueError, Record, RequestId, State, Stats, Summary, lock::DirLock, opening,
    shared::Shared,
};

/// A queue that nobody writes, opened to be looked at. Nothing on disk is changed; while it is open no
/// agent can open the queue.
#[derive(Debug)]
pub struct StoppedQueue {
    shared: Shared,
    _lock: Option<DirLock>,
}

/// Opens the queue in `dir` to read while no agent runs. Reads the whole journal; blocks.
///
/// # Errors
/// [`QueueError::InUse`] when an agent has it: ask that one; [`QueueError::Storage`] when there is no
/// queue or it cannot be read.
pub fn read_only(dir: &Path) -> Result<(StoppedQueue, OpenReport), QueueError> {
    let (shared, lock, report) = opening::open_to_read(dir)?;
    Ok((StoppedQueue { shared, _lock: lock }, report))
}

impl StoppedQueue {
    /// As [`super::Queue::list`].
    ///
    /// # Errors
    /// As there.
    pub fn list(&self, state: Option<State>, limit: usize) -> Result<Vec<Summary>, QueueError> {
        self.shared.list(state, limit)
    }

    /// As [`super::Queue::get`].
    ///
    /// # Errors
    /// As there.
    pub fn get(&self, id: RequestId) -> Result<Option<Record>, QueueError> {
        self.shared.record(id)
    }

    /// As [`super::Queue::body`].
    ///
    /// # Errors
    /// As there.
    pub fn body(&self, id: RequestId) -> Result<Option<Bytes>, QueueError> {
        self.shared.body(id)
    }

    /// As [`super::Queue::stats`].
    ///
    /// # Errors
    /// As there.
    pub fn stats(&self) -> Result<Stats, QueueError> {
        self.shared.stats()
    }

    /// Reads every byte of a request; one that is not there is intact.
    ///
    /// # Errors
    /// [`QueueError::Damaged`], or the storage's.
    pub fn check(&self, id: RequestId) -> Result<(), QueueError> {
        let Some(entry) = self.shared.entry(id)? else { return Ok(()) };
        let (_, file) = self.shared.read_meta(id, &entry.place)?;
        self.shared.read_body(&*file, id, &entry.place).map(drop)
    }
}
