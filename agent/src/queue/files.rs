//! The queue's file operations, each with its error's words and counted.
//!
//! Owns every system call that allocates space or makes bytes durable. **Invariant:** nothing else in
//! the queue syncs, so that the counts here are the whole truth about the flash's wear.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::fs::{FallocateFlags, FlockOperation};

use super::QueueError;

/// What was done to the disk since the queue was opened.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// fdatasync calls on segments.
    pub(super) syncs: AtomicU64,
    /// Bytes written to segments.
    pub(super) written: AtomicU64,
    /// Records appended.
    pub(super) appended: AtomicU64,
    /// Records found damaged.
    pub(super) damaged: AtomicU64,
}

/// Adds to a counter.
pub(super) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// Creates (or takes over) a file of `bytes` bytes whose blocks are allocated.
pub(super) fn create_allocated(path: &Path, bytes: u64) -> Result<File, QueueError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .map_err(|source| QueueError::storage("create", path, source))?;
    let allocated = match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => zero_whole(&file, bytes),
        other => other.map_err(io::Error::from),
    };
    match allocated {
        Ok(()) => Ok(file),
        Err(source) => {
            // The space that was had is given back; what is reported is why it was not enough.
            drop(file);
            remove(path).ok();
            Err(QueueError::storage("allocate", path, source))
        }
    }
}

fn zero_whole(file: &File, bytes: u64) -> io::Result<()> {
    zero_range(file, 0, bytes)
}

/// Writes zeros over a range.
pub(super) fn zero_range(file: &File, from: u64, to: u64) -> io::Result<()> {
    let mut at = from;
    while at < to {
        let left = usize::try_from(to - at).unwrap_or(ZEROS.len()).min(ZEROS.len());
        file.write_all_at(ZEROS.split_at(left).0, at)?;
        at += left as u64;
    }
    Ok(())
}

/// Opens a file to read and write.
pub(super) fn open(path: &Path) -> Result<File, QueueError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|source| QueueError::storage("open", path, source))
}

/// Opens a file to read.
pub(super) fn open_to_read(path: &Path) -> Result<File, QueueError> {
    File::open(path).map_err(|source| QueueError::storage("open", path, source))
}

/// fdatasync.
pub(super) fn sync_data(file: &File) -> io::Result<()> {
    rustix::fs::fdatasync(file).map_err(io::Error::from)
}

/// Makes a directory's entries durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), QueueError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|source| QueueError::storage("sync the directory", dir, source))
}

/// Creates a directory and makes its entry durable.
pub(super) fn create_dir(dir: &Path) -> Result<(), QueueError> {
    std::fs::create_dir_all(dir)
        .map_err(|source| QueueError::storage("create the directory", dir, source))?;
    dir.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), sync_dir)
}

/// Renames a file or directory.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), QueueError> {
    std::fs::rename(from, to).map_err(|source| QueueError::storage("rename", from, source))
}

/// Deletes a file; one that is not there is fine.
pub(super) fn remove(path: &Path) -> Result<(), QueueError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(QueueError::storage("delete", path, source))
        }
        _ => Ok(()),
    }
}

/// Bytes that are free for us on the file system of `dir`.
pub(super) fn free_bytes(dir: &Path) -> Result<u64, QueueError> {
    let stat = rustix::fs::statvfs(dir).map_err(|errno| {
        QueueError::storage("measure the free space of", dir, io::Error::from(errno))
    })?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Renames `path` to `path.bad-N`, the first N that is free, and deletes the oldest of those beyond
/// `keep`. Returns the new name.
pub(super) fn set_aside(path: &Path, keep: usize) -> Result<PathBuf, QueueError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let dir = path.parent().unwrap_or(Path::new("."));
    let prefix = format!("{name}.bad-");
    let mut taken: Vec<u64> = std::fs::read_dir(dir)
        .map_err(|source| QueueError::storage("list", dir, source))?
        .filter_map(|found| found.ok()?.file_name().to_str()?.strip_prefix(&prefix)?.parse().ok())
        .collect();
    taken.sort_unstable();
    let next = taken.last().map_or(1, |last| last + 1);
    let to = dir.join(format!("{prefix}{next}"));
    rename(path, &to)?;
    let surplus = (taken.len() + 1).saturating_sub(keep.max(1));
    for old in taken.into_iter().take(surplus) {
        let old = dir.join(format!("{prefix}{old}"));
        let gone =
            if old.is_dir() { std::fs::remove_dir_all(&old) } else { std::fs::remove_file(&old) };
        gone.map_err(|source| QueueError::storage("delete", &old, source))?;
    }
    sync_dir(dir)?;
    Ok(to)
}

/// The lock on the queue's directory, released when it is dropped or the process ends.
#[derive(Debug)]
pub(super) struct DirLock {
    _file: File,
}

impl DirLock {
    /// Takes the lock, or says who has it.
    pub(super) fn take(dir: &Path) -> Result<Self, QueueError> {
        let path = dir.join("lock");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|source| QueueError::storage("open", &path, source))?;
        Self::lock(&file, dir, &path, FlockOperation::NonBlockingLockExclusive)?;
        let pid = std::process::id().to_string();
        // Only for the other's error message: a full disk must not keep the queue from opening.
        file.set_len(0).and_then(|()| file.write_all_at(pid.as_bytes(), 0)).ok();
        Ok(DirLock { _file: file })
    }

    /// Takes the lock to read, beside other readers and without writing anything. A directory that
    /// has no lock file has never been opened, and needs none.
    pub(super) fn take_to_read(dir: &Path) -> Result<Option<Self>, QueueError> {
        let path = dir.join("lock");
        let file = match File::open(&path) {
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|source| QueueError::storage("open", &path, source))?,
        };
        Self::lock(&file, dir, &path, FlockOperation::NonBlockingLockShared)?;
        Ok(Some(DirLock { _file: file }))
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
