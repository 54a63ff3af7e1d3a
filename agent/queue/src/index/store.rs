//! Where pages are kept: in sled.
//!
//! **Invariant:** nothing that sled does on damage or on a full disk, a panic included, comes out of
//! here other than as an error.

use std::{
    fs::File,
    io,
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{QueueError, pages::Stored};

const CACHE_BYTES: u64 = 8 * 1024 * 1024;
/// Pages copied together.
const COPIED: usize = 512;
/// What sled says of a file that somebody has.
const LOCKED: &str = "could not acquire lock";
/// So often, and so long each time, it is waited for.
const LOCK_TRIES: usize = 400;
const LOCK_WAIT: Duration = Duration::from_millis(5);
/// What the system says of a disk without room, as sled's panics pass it on.
const FULL: &str = "os error 28";
/// A page's key begins with this byte, since sled's may not be empty.
const PAGE: u8 = b'.';

/// A page, as it was when it was read.
#[derive(Debug, Clone)]
pub(super) struct Page {
    /// Its lowest key.
    pub(super) low: Vec<u8>,
    /// The next page's lowest key.
    pub(super) end: Option<Vec<u8>>,
    /// Its pairs.
    pub(super) bytes: sled::IVec,
}

impl Page {
    /// Whether this is the page that `key` is in.
    pub(super) fn is_of(&self, key: &[u8]) -> bool {
        *self.low <= *key && self.is_up_to(key)
    }

    fn is_up_to(&self, key: &[u8]) -> bool {
        self.end.as_deref().is_none_or(|end| key < end)
    }
}

/// The pages.
#[derive(Debug)]
pub(super) struct Store {
    db: sled::Db,
    dir: PathBuf,
}

impl Store {
    /// Opens or creates the store in `dir`.
    pub(super) fn open(dir: &Path) -> Result<Self, QueueError> {
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE_BYTES)
            .mode(sled::Mode::LowSpace)
            .flush_every_ms(Some(1000));
        let mut opened = guarded(dir, || config.open());
        for _ in 0..LOCK_TRIES {
            match &opened {
                // sled's threads may have the file a moment longer than its last user had.
                Err(QueueError::Index { detail }) if detail.contains(LOCKED) => {
                    std::thread::sleep(LOCK_WAIT);
                    opened = guarded(dir, || config.open());
                }
                _ => break,
            }
        }
        opened.map(|db| Store { db, dir: dir.to_owned() })
    }

    /// The page that `key` is in; none while nothing was ever stored.
    pub(super) fn page_of(&self, key: &[u8]) -> Result<Option<Page>, QueueError> {
        loop {
            let found =
                guarded(&self.dir, || self.db.range(..=named(key)).next_back().transpose())?;
            let Some((low, bytes)) = lowest(found) else { return Ok(None) };
            let end = self.next_low(&low)?;
            let page = Page { low, end, bytes };
            // Else it was split between the two looks.
            if page.is_up_to(key) {
                return Ok(Some(page));
            }
        }
    }

    /// The lowest key of the next page.
    fn next_low(&self, low: &[u8]) -> Result<Option<Vec<u8>>, QueueError> {
        let from = (Bound::Excluded(named(low)), Bound::Unbounded);
        let next = guarded(&self.dir, || self.db.range::<Vec<u8>, _>(from).next().transpose())?;
        Ok(lowest(next).map(|(low, _)| low))
    }

    /// Writes every page into a new store in `dir`, which is closed again.
    pub(super) fn copy_to(&self, dir: &Path) -> Result<(), QueueError> {
        let copy = Store::open(dir)?;
        let mut pages = self.db.iter();
        loop {
            let next = |_| guarded(&self.dir, || pages.next().transpose()).transpose();
            let some: Vec<_> = (0..COPIED).map_while(next).collect::<Result<_, _>>()?;
            if some.is_empty() {
                return copy.flush();
            }
            let pages = some.into_iter().filter_map(|page| lowest(Some(page)));
            copy.apply(pages.map(|(low, bytes)| (low, Some(bytes.to_vec()))).collect())?;
        }
    }

    /// Stores all of these pages, or none.
    pub(super) fn apply(&self, pages: Vec<Stored>) -> Result<(), QueueError> {
        let mut batch = sled::Batch::default();
        for (low, bytes) in pages {
            match bytes {
                Some(bytes) => batch.insert(named(&low), bytes),
                None => batch.remove(named(&low)),
            }
        }
        guarded(&self.dir, || self.db.apply_batch(batch))
    }

    /// Hands everything to the operating system.
    pub(super) fn flush(&self) -> Result<(), QueueError> {
        guarded(&self.dir, || self.db.flush()).map(drop)
    }

    /// Hands everything to the disk.
    pub(super) fn sync(&self) -> Result<(), QueueError> {
        self.flush()?;
        sync_tree(&self.dir)
    }

    /// Bytes on disk.
    pub(super) fn bytes(&self) -> Result<u64, QueueError> {
        guarded(&self.dir, || self.db.size_on_disk())
    }
}

fn named(low: &[u8]) -> Vec<u8> {
    [&[PAGE], low].concat()
}

fn lowest(found: Option<(sled::IVec, sled::IVec)>) -> Option<(Vec<u8>, sled::IVec)> {
    let (key, bytes) = found?;
    let low = key.strip_prefix(&[PAGE])?;
    Some((low.to_vec(), bytes))
}

fn sync_tree(dir: &Path) -> Result<(), QueueError> {
    let list = std::fs::read_dir(dir).map_err(|source| QueueError::storage("list", dir, source))?;
    for found in list {
        let path = found.map_err(|source| QueueError::storage("list", dir, source))?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            File::open(&path)
                .and_then(|file| file.sync_data())
                .map_err(|source| QueueError::storage("sync", &path, source))?;
        }
    }
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|source| QueueError::storage("sync", dir, source))
}

/// Runs what sled does in `dir`. A full disk has its own error, in words that are not sled's: what is
/// in the index is as good as before.
fn guarded<T>(dir: &Path, run: impl FnOnce() -> sled::Result<T>) -> Result<T, QueueError> {
    let said = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(result)) => return Ok(result),
        Ok(Err(sled::Error::Io(source))) if is_full(&source) => return Err(full(dir)),
        Ok(Err(failed)) => failed.to_string(),
        Err(panic) => match panic.downcast::<String>() {
            Ok(said) => *said,
            Err(panic) => panic.downcast_ref::<&str>().map_or("it panicked", |said| said).into(),
        },
    };
    Err(if said.contains(FULL) { full(dir) } else { broken(&said) })
}

/// Whether a write found no room; sled says of one that was cut short that nothing was written.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::WriteZero)
}

fn full(dir: &Path) -> QueueError {
    QueueError::storage("write", dir, io::ErrorKind::StorageFull.into())
}

/// The index is of no use any more.
pub(super) fn broken(detail: &str) -> QueueError {
    QueueError::Index { detail: detail.to_owned() }
}
