//! The journal's disk: every file operation that the queue's promises rest on.
//!
//! Owns every system call that allocates space or makes the journal durable. There are two versions:
//! [`RealDisk`], and in the tests one that loses power at any operation and keeps of what was not
//! synced whatever it likes (`sim/`).
//!
//! **Invariant:** nothing else in the queue writes or syncs the journal.

use std::{
    fmt::Debug,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
};

use rustix::fs::{FallocateFlags, OFlags};

use super::QueueError;

/// What is free for us on a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Free {
    /// Bytes.
    pub(super) bytes: u64,
    /// Files that can be made; `None` where the file system does not count them.
    pub(super) inodes: Option<u64>,
}

/// A disk.
pub(super) trait Disk: Debug + Send + Sync {
    /// Creates a file of `bytes` bytes whose blocks are allocated, or takes one over.
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file to read and write.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file to read.
    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Whether there is a regular file; nothing is opened to see that.
    fn is_file(&self, path: &Path) -> io::Result<bool>;
    /// The names in a directory.
    fn names(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Creates a directory and those above it.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes a directory's entries durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Renames a file or directory.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Deletes a file, or a directory with all that is in it.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// What is free on the file system of `dir`.
    fn free(&self, dir: &Path) -> io::Result<Free>;
    /// Bytes that the files in `dir` take.
    fn allocated(&self, dir: &Path) -> io::Result<u64>;
    /// Bytes that this process had written to any disk.
    fn written_by_process(&self) -> Option<u64>;
    /// The boot of the machine that this is; empty: none is taken to be the same.
    fn boot(&self) -> String;
    /// Whether there can be an index on it.
    fn has_index(&self) -> bool;
    /// Does something behind the caller's back, on the thread that is returned, if it is not done yet.
    fn behind(
        &self,
        what: &str,
        work: Box<dyn FnOnce() + Send>,
    ) -> io::Result<Option<JoinHandle<()>>>;
}

/// An open file.
pub(super) trait DiskFile: Debug + Send + Sync {
    /// Fills `bytes` from `at` on.
    fn read_exact_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `at`.
    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;
    /// Makes what was written, and the length, durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Cuts the file off, or makes it longer with zeros.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// The file's length.
    fn bytes(&self) -> io::Result<u64>;
}

static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// Writes zeros over a range.
pub(super) fn zero_range(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
    let mut at = from;
    while at < to {
        let left = usize::try_from(to - at).unwrap_or(ZEROS.len()).min(ZEROS.len());
        file.write_all_at(ZEROS.split_at(left).0, at)?;
        at += left as u64;
    }
    Ok(())
}

/// Opens a regular file. A pipe in its place is not waited for, and neither a pipe nor a device is used.
pub(super) fn open_regular(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = options.custom_flags(flags.bits().cast_signed()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    Ok(file)
}

fn is_nothing(error: &io::Error) -> bool {
    let loops = rustix::io::Errno::LOOP.raw_os_error();
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(loops)
}

/// Whether the disk has lost what was there.
pub(super) fn is_unreadable(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// Cuts a file off, so that the next sync has it to do, also when one before failed at it.
pub(super) fn cut_to(file: &dyn DiskFile, bytes: u64) -> io::Result<()> {
    file.set_len(bytes + 1)?;
    file.set_len(bytes)
}

/// Writes a range as it is read, so that the next sync has it to do.
pub(super) fn write_again(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
    let mut bytes = vec![0; ZEROS.len()];
    let mut at = from;
    while at < to {
        let left = usize::try_from(to - at).unwrap_or(ZEROS.len()).min(ZEROS.len());
        let (part, _) = bytes.split_at_mut(left);
        file.read_exact_at(part, at)?;
        file.write_all_at(part, at)?;
        at += left as u64;
    }
    Ok(())
}

/// The operations with an error's words around them.
impl dyn Disk + '_ {
    /// As [`Disk::create`]; space that was had and is not enough is given back.
    pub(super) fn create_file(
        &self,
        path: &Path,
        bytes: u64,
    ) -> Result<Arc<dyn DiskFile>, QueueError> {
        self.create(path, bytes).map_err(|source| {
            self.remove(path).ok();
            QueueError::storage("allocate", path, source)
        })
    }

    /// As [`Disk::open`].
    pub(super) fn open_file(&self, path: &Path) -> Result<Arc<dyn DiskFile>, QueueError> {
        self.open(path).map_err(|source| QueueError::storage("open", path, source))
    }

    /// As [`Disk::open_to_read`].
    pub(super) fn file_to_read(&self, path: &Path) -> Result<Arc<dyn DiskFile>, QueueError> {
        self.open_to_read(path).map_err(|source| QueueError::storage("open", path, source))
    }

    /// As [`Disk::is_file`].
    pub(super) fn is_regular(&self, path: &Path) -> Result<bool, QueueError> {
        self.is_file(path).map_err(|source| QueueError::storage("look at", path, source))
    }

    /// As [`Disk::names`].
    pub(super) fn list(&self, dir: &Path) -> Result<Vec<String>, QueueError> {
        self.names(dir).map_err(|source| QueueError::storage("list", dir, source))
    }

    /// Creates a directory and makes its entry durable.
    pub(super) fn make_dir(&self, dir: &Path) -> Result<(), QueueError> {
        self.create_dir(dir)
            .map_err(|source| QueueError::storage("create the directory", dir, source))?;
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
        parent.map_or(Ok(()), |parent| self.sync_entries(parent))
    }

    /// As [`Disk::sync_dir`].
    pub(super) fn sync_entries(&self, dir: &Path) -> Result<(), QueueError> {
        self.sync_dir(dir).map_err(|source| QueueError::storage("sync the directory", dir, source))
    }

    /// As [`Disk::rename`].
    pub(super) fn move_file(&self, from: &Path, to: &Path) -> Result<(), QueueError> {
        self.rename(from, to).map_err(|source| QueueError::storage("rename", from, source))
    }

    /// Deletes a file; one that is not there is fine.
    pub(super) fn delete(&self, path: &Path) -> Result<(), QueueError> {
        match self.remove(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(QueueError::storage("delete", path, source))
            }
            _ => Ok(()),
        }
    }

    /// As [`Disk::free`].
    pub(super) fn free_space(&self, dir: &Path) -> Result<Free, QueueError> {
        self.free(dir)
            .map_err(|source| QueueError::storage("measure the free space of", dir, source))
    }

    /// The whole of a small file; `None` when there is none.
    pub(super) fn read_small(&self, path: &Path) -> Option<Vec<u8>> {
        self.read_up_to(path, 65_536)
    }

    /// The whole of a file of less than `limit` bytes; `None` when there is none.
    pub(super) fn read_up_to(&self, path: &Path, limit: usize) -> Option<Vec<u8>> {
        let file = self.open_to_read(path).ok()?;
        let mut bytes = vec![0; usize::try_from(file.bytes().ok()?).ok().filter(|n| *n < limit)?];
        file.read_exact_at(&mut bytes, 0).ok()?;
        Some(bytes)
    }

    /// Writes a small file; durable when its directory is synced too.
    pub(super) fn write_small(&self, path: &Path, bytes: &[u8]) -> Result<(), QueueError> {
        self.create(path, 0)
            .and_then(|file| file.write_all_at(bytes, 0).and_then(|()| file.sync_data()))
            .map_err(|source| QueueError::storage("write", path, source))
    }

    /// Renames `path` to `path.bad-N`, N behind the highest taken, and deletes the oldest of those
    /// beyond `keep`. Returns the new name.
    pub(super) fn set_aside(&self, path: &Path, keep: usize) -> Result<PathBuf, QueueError> {
        self.set_aside_as(path, path, keep)
    }

    /// The same with a file that gets the name that `path` would.
    pub(super) fn set_aside_as(
        &self,
        file: &Path,
        path: &Path,
        keep: usize,
    ) -> Result<PathBuf, QueueError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let dir = path.parent().unwrap_or(Path::new("."));
        let prefix = format!("{name}.bad-");
        let names = self.list(dir)?;
        let mut taken: Vec<u64> =
            names.iter().filter_map(|name| name.strip_prefix(&prefix)?.parse().ok()).collect();
        taken.sort_unstable();
        let next = taken.last().map_or(1, |last| last + 1);
        let to = dir.join(format!("{prefix}{next}"));
        self.move_file(file, &to)?;
        let surplus = (taken.len() + 1).saturating_sub(keep.max(1));
        for old in taken.into_iter().take(surplus) {
            self.delete(&dir.join(format!("{prefix}{old}")))?;
        }
        self.sync_entries(dir)?;
        Ok(to)
    }
}

/// The machine's own.
#[derive(Debug, Clone, Copy)]
pub(super) struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        let file = open_regular(options.read(true).write(true).create(true).truncate(true), path)?;
        if bytes > 0 {
            match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes) {
                Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                    zero_range(&file, 0, bytes)?;
                }
                other => other?,
            }
        }
        Ok(Arc::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(open_regular(OpenOptions::new().read(true).write(true), path)?))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(open_regular(OpenOptions::new().read(true), path)?))
    }

    fn is_file(&self, path: &Path) -> io::Result<bool> {
        match std::fs::metadata(path) {
            Ok(found) => Ok(found.is_file()),
            // A link to nothing, or to itself.
            Err(error) if is_nothing(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for found in std::fs::read_dir(dir)? {
            names.extend(found?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        // What is held is nobody else's to read.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }
    }

    fn free(&self, dir: &Path) -> io::Result<Free> {
        let stat = rustix::fs::statvfs(dir)?;
        let inodes = Some(stat.f_favail).filter(|_| stat.f_files > 0);
        Ok(Free { bytes: stat.f_bavail.saturating_mul(stat.f_frsize), inodes })
    }

    fn allocated(&self, dir: &Path) -> io::Result<u64> {
        // A file that is deleted while we look takes nothing.
        let found = std::fs::read_dir(dir)?.filter_map(|found| found.ok()?.metadata().ok());
        Ok(found.map(|meta| meta.blocks() * 512).sum())
    }

    fn written_by_process(&self) -> Option<u64> {
        let io = std::fs::read_to_string("/proc/self/io").ok()?;
        let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "))?;
        line.trim().parse().ok()
    }

    fn boot(&self) -> String {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        id.unwrap_or_default().trim().to_owned()
    }

    fn has_index(&self) -> bool {
        true
    }

    fn behind(
        &self,
        what: &str,
        work: Box<dyn FnOnce() + Send>,
    ) -> io::Result<Option<JoinHandle<()>>> {
        std::thread::Builder::new().name(what.to_owned()).spawn(work).map(Some)
    }
}

impl DiskFile for File {
    fn read_exact_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, bytes, at)
    }

    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, at)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        File::set_len(self, bytes)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}
