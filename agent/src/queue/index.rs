//! The index: an ordered map of small keys to small values, kept in sled.
//!
//! Owns everything that knows sled; the rest of the queue sees seven functions. **Invariant:** what is
//! in here can be made again from the journal, and is never asked to be durable: it counts only when
//! it was closed in good order (its files are synced then), or when the machine has not been restarted
//! since it was written (the page cache outlives the process).
//!
//! sled 0.34 can panic on a damaged file and fails on a full disk; both come out of here as an error.
//! Where there is no room for sled, the same map is kept in memory.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{RwLock, RwLockReadGuard},
};

use super::{QueueError, files};

/// Changes to be made at once: a value, or `None` to remove the key.
pub(super) type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// A key and its value.
pub(super) type Pair = (Vec<u8>, Vec<u8>);

const CACHE_BYTES: u64 = 8 * 1024 * 1024;

/// The map.
#[derive(Debug)]
pub(super) enum Index {
    /// In sled, in this directory.
    Sled {
        /// The database.
        db: sled::Db,
        /// Its directory.
        dir: PathBuf,
    },
    /// In memory, while the disk has no room, or to read a stopped queue.
    Memory(RwLock<Map>),
}

impl Index {
    /// Opens or creates the map in `dir`.
    pub(super) fn open(dir: &Path) -> Result<Self, QueueError> {
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE_BYTES)
            .mode(sled::Mode::LowSpace)
            .flush_every_ms(Some(1000));
        guarded(|| config.open()).map(|db| Index::Sled { db, dir: dir.to_owned() })
    }

    /// An empty map in memory.
    pub(super) fn in_memory() -> Self {
        Index::Memory(RwLock::default())
    }

    /// Whether it is kept on disk.
    pub(super) fn is_on_disk(&self) -> bool {
        matches!(self, Index::Sled { .. })
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, QueueError> {
        match self {
            Index::Sled { db, .. } => guarded(|| Ok(db.get(key)?.map(|value| value.to_vec()))),
            Index::Memory(map) => Ok(read(map)?.get(key).cloned()),
        }
    }

    /// At most `limit` pairs in order, from the first key at or after `from` up to `to`, inclusive.
    pub(super) fn range(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, QueueError> {
        if from > to {
            return Ok(Vec::new());
        }
        match self {
            Index::Sled { db, .. } => guarded(|| {
                db.range(from..=to)
                    .take(limit)
                    .map(|pair| pair.map(|(key, value)| (key.to_vec(), value.to_vec())))
                    .collect()
            }),
            Index::Memory(map) => Ok(read(map)?
                .range::<[u8], _>((Bound::Included(from), Bound::Included(to)))
                .take(limit)
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect()),
        }
    }

    /// Makes all changes, or none of them.
    pub(super) fn apply(&self, changes: &Changes) -> Result<(), QueueError> {
        match self {
            Index::Sled { db, .. } => {
                let mut batch = sled::Batch::default();
                for (key, value) in changes {
                    match value {
                        Some(value) => batch.insert(key.as_slice(), value.as_slice()),
                        None => batch.remove(key.as_slice()),
                    }
                }
                guarded(|| db.apply_batch(batch))
            }
            Index::Memory(map) => {
                let mut map = map.write().map_err(|_poisoned| broken("a writer panicked"))?;
                for (key, value) in changes {
                    match value {
                        Some(value) => map.insert(key.clone(), value.clone()),
                        None => map.remove(key),
                    };
                }
                Ok(())
            }
        }
    }

    /// Hands everything to the operating system, so that it outlives the process.
    pub(super) fn flush(&self) -> Result<(), QueueError> {
        match self {
            Index::Sled { db, .. } => guarded(|| db.flush()).map(drop),
            Index::Memory(_) => Ok(()),
        }
    }

    /// Hands everything to the disk, so that it outlives a power cut. The last call before closing.
    pub(super) fn sync(&self) -> Result<(), QueueError> {
        self.flush()?;
        let Index::Sled { dir, .. } = self else { return Ok(()) };
        sync_tree(dir)
    }
}

fn sync_tree(dir: &Path) -> Result<(), QueueError> {
    let list = std::fs::read_dir(dir).map_err(|source| QueueError::storage("list", dir, source))?;
    for found in list {
        let path = found.map_err(|source| QueueError::storage("list", dir, source))?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            File::open(&path)
                .and_then(|file| files::sync_data(&file))
                .map_err(|source| QueueError::storage("sync", &path, source))?;
        }
    }
    files::sync_dir(dir)
}

fn guarded<T>(run: impl FnOnce() -> sled::Result<T>) -> Result<T, QueueError> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Err(sled::Error::Io(source))) if source.kind() == io::ErrorKind::StorageFull => {
            Err(QueueError::storage("write", Path::new("index"), source))
        }
        Ok(result) => result.map_err(|error| broken(&error.to_string())),
        Err(panic) => {
            let said = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("panicked");
            Err(broken(said))
        }
    }
}

fn broken(detail: &str) -> QueueError {
    QueueError::Index { detail: detail.to_owned() }
}

fn read(map: &RwLock<Map>) -> Result<RwLockReadGuard<'_, Map>, QueueError> {
    map.read().map_err(|_poisoned| broken("a writer panicked"))
}
