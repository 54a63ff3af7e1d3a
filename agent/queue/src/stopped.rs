//! A queue that no agent has, to be looked at.
//!
//! **Invariant:** nothing on disk is changed, and nobody writes while it is looked at.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::{
    OpenReport, QueueError, Record, RequestId, State, Stats, Summary,
    disk::{Disk, RealDisk},
    lock::DirLock,
    lost::Trust,
    opening, replay,
    shared::Shared,
};

/// A queue that nobody writes, opened to be looked at. Nothing on disk is changed; while it is open no
/// agent can open the queue.
#[derive(Debug)]
pub struct StoppedQueue {
    dir: PathBuf,
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
    Ok((StoppedQueue { dir: dir.to_owned(), shared, _lock: lock }, report))
}

impl StoppedQueue {
    /// As [`super::Queue::list`].
    ///
    /// # Errors
    /// As there.
    pub fn list(&self, state: Option<State>, limit: usize) -> Result<Vec<Summary>, QueueError> {
        self.shared.list(state, None, limit)
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

    /// Requests that the index knows and of which the journal has nothing, as after a whole segment is
    /// gone. `None`: there is no index that can tell. The index is looked at in a copy, since opening
    /// one changes it.
    ///
    /// # Errors
    /// The index cannot be copied or read.
    pub fn lost(&self) -> Result<Option<Vec<RequestId>>, QueueError> {
        let index = self.dir.join("index");
        if !index.is_dir() {
            return Ok(None);
        }
        let copy =
            Copy::of(&index).map_err(|source| QueueError::storage("copy", &index, source))?;
        let trust = Trust { clean: replay::see_clean(&RealDisk, &self.dir), boot: RealDisk.boot() };
        self.shared.lost_since(&copy.0, &trust)
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

/// A copy of a folder that is gone when it is dropped.
struct Copy(PathBuf);

impl Copy {
    fn of(folder: &Path) -> io::Result<Self> {
        let name = format!("holdfast-{}-{}", std::process::id(), RequestId::new());
        let copy = Copy(std::env::temp_dir().join(name));
        copy_into(folder, &copy.0).map(|()| copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // What is left behind lies among temporary files.
        fs::remove_dir_all(&self.0).ok();
    }
}

fn copy_into(from: &Path, to: &Path) -> io::Result<()> {
    // As private as the queue is.
    fs::DirBuilder::new().mode(0o700).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_into(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
