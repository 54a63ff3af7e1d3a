//! The lock on the queue's directory.
//!
//! **Invariant:** at most one process writes a queue; the lock ends with the process that has it.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
};

use rustix::fs::FlockOperation;

use super::{QueueError, disk::open_regular};

/// The lock on the queue's directory, released when it and its clones are dropped or the process ends.
#[derive(Debug, Clone)]
pub(super) struct DirLock {
    _file: Arc<File>,
}

impl DirLock {
    /// Takes the lock, or says who has it.
    pub(super) fn take(dir: &Path) -> Result<Self, QueueError> {
        let path = dir.join("lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = open_regular(&mut options, &path)
            .map_err(|source| QueueError::storage("open", &path, source))?;
        Self::lock(&file, dir, &path, FlockOperation::NonBlockingLockExclusive)?;
        let pid = std::process::id().to_string();
        // Only for the other's error message: a full disk must not keep the queue from opening.
        file.set_len(0).and_then(|()| file.write_all_at(pid.as_bytes(), 0)).ok();
        Ok(DirLock { _file: Arc::new(file) })
    }

    /// Takes the lock to read, beside other readers and without writing anything. A directory that
    /// has no lock file has never been opened, and needs none.
    pub(super) fn take_to_read(dir: &Path) -> Result<Option<Self>, QueueError> {
        let path = dir.join("lock");
        let file = match open_regular(OpenOptions::new().read(true), &path) {
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|source| QueueError::storage("open", &path, source))?,
        };
        Self::lock(&file, dir, &path, FlockOperation::NonBlockingLockShared)?;
        Ok(Some(DirLock { _file: Arc::new(file) }))
    }

    fn lock(
        file: &File,
        dir: &Path,
        path: &Path,
        operation: FlockOperation,
    ) -> Result<(), QueueError> {
        match rustix::fs::flock(file, operation) {
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let holder = match std::fs::read_to_string(path) {
                    Ok(pid) if !pid.trim().is_empty() => format!("process {}", pid.trim()),
                    _ => "another process".to_owned(),
                };
                Err(QueueError::InUse { dir: dir.to_owned(), holder })
            }
            other => {
                other.map_err(|errno| QueueError::storage("lock", path, io::Error::from(errno)))
            }
        }
    }
}
