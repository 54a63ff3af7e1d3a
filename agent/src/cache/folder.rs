//! Owns the folder of kept answers: a file each, and no more of them than there is room for.
//!
//! The oldest goes first. What has an answer's name here and is none that can still be given (damaged, cut,
//! or over) is removed; a disk that is full or cannot be written to keeps nothing, and stops nothing.
//!
//! **Invariant:** what the index counts is on disk; the sum of it is at most what is allowed; what is called
//! otherwise than an answer is left alone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::entry::{HEAD, Head, NAME};
use crate::clock::Stamp;
use crate::whole_file;

/// What is being written has this after its name (`whole_file.rs`).
const UNFINISHED: &str = ".new";
/// What a file takes on disk at least.
const BLOCK: u64 = 4096;
/// One answer may take this part of the room at most.
const PART: u64 = 8;

/// The folder.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    max_bytes: u64,
    /// Bytes of the disk that are left to others.
    headroom: u64,
    index: Mutex<Index>,
    has_failed: AtomicBool,
}

/// What is there, in the order in which it came.
#[derive(Debug, Default)]
struct Index {
    by_order: BTreeMap<u64, Held>,
    by_name: HashMap<String, u64>,
    bytes: u64,
    next: u64,
}

#[derive(Debug)]
struct Held {
    name: String,
    /// On disk.
    bytes: u64,
    head: Head,
}

impl Index {
    fn add(&mut self, name: String, length: u64, head: Head) {
        self.remove(&name);
        let bytes = length.next_multiple_of(BLOCK);
        self.by_name.insert(name.clone(), self.next);
        self.by_order.insert(self.next, Held { name, bytes, head });
        self.bytes = self.bytes.saturating_add(bytes);
        self.next += 1;
    }

    fn remove(&mut self, name: &str) {
        let order = self.by_name.remove(name);
        if let Some(held) = order.and_then(|order| self.by_order.remove(&order)) {
            self.bytes = self.bytes.saturating_sub(held.bytes);
        }
    }

    /// The oldest, as long as there is more than `most`.
    fn surplus(&self, most: u64) -> Option<String> {
        if self.bytes <= most {
            return None;
        }
        self.by_order.first_key_value().map(|(_, held)| held.name.clone())
    }
}

impl Folder {
    /// The folder `dir`, of which nothing is known yet.
    pub(super) fn new(dir: PathBuf, max_bytes: u64, headroom: u64) -> Self {
        let (index, has_failed) = (Mutex::default(), AtomicBool::new(false));
        Self { dir, max_bytes, headroom, index, has_failed }
    }

    /// Looks at everything that is there, from the oldest; removes what cannot be given any more, and what
    /// there is no room for. Blocks.
    pub(super) fn load(&self, now: &Stamp) {
        let mut index = self.index();
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if !metadata.is_file() {
                continue;
            }
            let Ok(name) = entry.file_name().into_string() else { continue };
            if !is_own(&name) {
                continue;
            }
            let name = Some(name).filter(|name| is_name(name));
            let head = name.as_ref().and_then(|_| read_head(&entry.path()).ok().flatten());
            match (name, head.filter(|head| head.age_ms(now).is_some())) {
                (Some(name), Some(head)) => {
                    let written = (metadata.mtime(), metadata.mtime_nsec());
                    found.push((written, name, metadata.len(), head));
                }
                _ => remove(&entry.path()),
            }
        }
        found.sort_by_key(|(written, ..)| *written);
        // What was kept meanwhile is the newest.
        let newer: Vec<Held> = std::mem::take(&mut *index).by_order.into_values().collect();
        let older = found.into_iter().map(|(_, name, length, head)| (name, length, head));
        let newer = newer.into_iter().map(|Held { name, bytes, head }| (name, bytes, head));
        older.chain(newer).for_each(|(name, length, head)| index.add(name, length, head));
        self.make_room(&mut index);
    }

    /// Removes what is over by now, and forgets what somebody else has removed. Blocks.
    pub(super) fn sweep(&self, now: &Stamp) {
        let mut index = self.index();
        let there: HashSet<String> = names(&self.dir).into_iter().flatten().collect();
        let is_over = |held: &&Held| held.head.age_ms(now).is_none() || !there.contains(&held.name);
        let over: Vec<String> =
            index.by_order.values().filter(is_over).map(|held| held.name.clone()).collect();
        for name in over {
            index.remove(&name);
            remove(&self.dir.join(name));
        }
        tell(&index);
    }

    /// The bytes of a file, if it is there and no longer than one may be. Blocks.
    pub(super) fn read(&self, name: &str) -> Option<Vec<u8>> {
        let file = File::open(self.dir.join(name)).ok()?;
        let mut bytes = Vec::new();
        file.take(self.most() + 1).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Takes a file away. Blocks.
    pub(super) fn remove(&self, name: &str) {
        let mut index = self.index();
        index.remove(name);
        remove(&self.dir.join(name));
        tell(&index);
    }

    /// Keeps a file, in the place of what is oldest. Blocks.
    pub(super) fn keep(&self, name: String, head: Head, bytes: &[u8]) {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if length > self.most() {
            return;
        }
        let mut index = self.index();
        match self.write(&name, bytes) {
            Ok(()) => {
                self.has_failed.store(false, Ordering::Relaxed);
                metrics::counter!("holdfast_written_bytes_total", "purpose" => "cache")
                    .increment(length);
                index.add(name, length, head);
                self.make_room(&mut index);
            }
            Err(error) => {
                if !self.has_failed.swap(true, Ordering::Relaxed) {
                    tracing::warn!(path = %self.dir.display(), %error, "answers cannot be kept; everything else goes on");
                }
            }
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let made = fs::DirBuilder::new().mode(0o700).create(&self.dir);
        made.or_else(|error| match error.kind() {
            ErrorKind::AlreadyExists => Ok(()),
            _ => Err(error),
        })?;
        let disk = rustix::fs::statvfs(&self.dir)?;
        if disk.f_bavail.saturating_mul(disk.f_frsize) < self.headroom {
            return Err(io::Error::other("less is free than queue.headroom_mib"));
        }
        whole_file::write_losable(&self.dir.join(name), bytes, 0o600)
    }

    fn make_room(&self, index: &mut Index) {
        while let Some(name) = index.surplus(self.max_bytes) {
            index.remove(&name);
            remove(&self.dir.join(name));
        }
        tell(index);
    }

    /// Bytes of one answer at most.
    fn most(&self) -> u64 {
        self.max_bytes / PART
    }

    /// What a panicked holder left is a count that is off by one file.
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What lies in a folder of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Answers.
    pub entries: u64,
    /// Bytes of their files.
    pub bytes: u64,
}

/// Counts the answers of a folder, also what was not written to its end, and removes them if `is_clearing`.
/// Blocks.
pub(super) fn count(dir: &Path, is_clearing: bool) -> io::Result<Stats> {
    let mut stats = Stats::default();
    for name in names(dir)? {
        let path = dir.join(name);
        // The agent may have removed it just now.
        let Some(metadata) = if_there(fs::symlink_metadata(&path))? else { continue };
        if is_clearing && if_there(fs::remove_file(&path))?.is_none() {
            continue;
        }
        stats.entries += 1;
        stats.bytes = stats.bytes.saturating_add(metadata.len());
    }
    Ok(stats)
}

/// The names of answers in a folder, also of what was not written to its end; none where it is not there.
fn names(dir: &Path) -> io::Result<impl Iterator<Item = String>> {
    let names = if_there(fs::read_dir(dir))?.into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter(|name| is_own(name)))
}

fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(there) => Ok(Some(there)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes the answers of a folder away, and the folder where nothing else lies there. Blocks.
pub(super) fn remove_all(dir: &Path) {
    let removed = count(dir, true).and_then(|_| match if_there(fs::remove_dir(dir)) {
        // Somebody else's files are none of the cache's affair.
        Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Ok(None),
        removed => removed,
    });
    if let Err(error) = removed {
        tracing::warn!(path = %dir.display(), %error, "answers that are kept no more cannot be removed");
    }
}

/// Whether an answer is called so, or what is being written of one.
fn is_own(name: &str) -> bool {
    is_name(name.strip_suffix(UNFINISHED).unwrap_or(name))
}

fn is_name(name: &str) -> bool {
    name.len() == NAME && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn read_head(path: &Path) -> io::Result<Option<Head>> {
    let mut bytes = [0; HEAD];
    match File::open(path)?.read_exact(&mut bytes) {
        Ok(()) => Ok(Head::parse(&bytes)),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            let name = path.file_name().and_then(OsStr::to_str);
            tracing::debug!(name, %error, "a kept answer cannot be removed");
        }
        _ => {}
    }
}

#[expect(clippy::cast_precision_loss, reason = "gauges are f64")]
fn tell(index: &Index) {
    metrics::gauge!("holdfast_cache_entries").set(index.by_order.len() as f64);
    metrics::gauge!("holdfast_cache_bytes").set(index.bytes as f64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::request::DataClass;

    const MIB: u64 = 1 << 20;

    fn head(ttl_ms: u64) -> Head {
        Head { class: DataClass::Public, ttl_ms, kept: clock::stamp() }
    }

    fn name(number: usize) -> String {
        format!("{number:032x}")
    }

    fn file(length: usize) -> Vec<u8> {
        let mut bytes = head(60_000).to_bytes();
        bytes.resize(length.max(HEAD), 7);
        bytes
    }

    fn all(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_oldest_goes_first_also_of_those_from_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache");
        let folder = Folder::new(path.clone(), MIB, 0);
        let length = 100 * 1024;
        for number in 0..12 {
            folder.keep(name(number), head(60_000), &file(length));
        }
        let kept: Vec<String> = (2..12).map(name).collect();
        assert_eq!(all(&path), kept, "ten have room");
        let smaller = Folder::new(path.clone(), MIB / 2, 0);
        smaller.load(&clock::stamp());
        assert_eq!(all(&path).len(), 5);
        assert_eq!(smaller.index().by_order.len(), 5);
        let bytes = smaller.read(&all(&path)[0]).unwrap();
        assert_eq!(bytes.len() as u64, MIB / 16 + 1, "it is longer than one may be here");
    }

    #[test]
    fn one_answer_takes_a_part_of_the_room_at_most() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path().to_owned(), MIB, 0);
        let most = usize::try_from(MIB / PART).unwrap();
        folder.keep(name(1), head(60_000), &file(most + 1));
        folder.keep(name(2), head(60_000), &file(most));
        assert_eq!(all(dir.path()), [name(2)]);
        assert_eq!(folder.read(&name(2)).unwrap().len(), most);
        // The same again takes the place of what was there.
        folder.keep(name(2), head(60_000), &file(HEAD));
        assert_eq!(folder.index().bytes, BLOCK);
    }

    #[test]
    fn what_cannot_be_given_any_more_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in [
            (name(1), file(100)),
            (name(2), head(0).to_bytes()),
            (name(3), b"foreign, and as long as a head is, so that it can be read as one".to_vec()),
            (name(4), b"cut".to_vec()),
            (name(5), Vec::new()),
            (format!("{}.new", name(6)), file(100)),
            ("README".to_owned(), file(100)),
        ] {
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        fs::create_dir(dir.path().join("theirs")).unwrap();
        let folder = Folder::new(dir.path().to_owned(), MIB, 0);
        folder.load(&clock::stamp());
        assert_eq!(all(dir.path()), [name(1), "README".to_owned(), "theirs".to_owned()]);
        folder.keep(name(7), head(0), &file(100));
        folder.sweep(&clock::stamp());
        assert_eq!(all(dir.path()), [name(1), "README".to_owned(), "theirs".to_owned()]);
        assert_eq!(count(dir.path(), false).unwrap(), Stats { entries: 1, bytes: 100 });
        fs::write(dir.path().join(format!("{}.new", name(6))), "cut").unwrap();
        assert_eq!(count(dir.path(), true).unwrap(), Stats { entries: 2, bytes: 103 });
        assert_eq!(count(&dir.path().join("none"), true).unwrap(), Stats::default());
        assert_eq!(all(dir.path()), ["README", "theirs"]);
        folder.sweep(&clock::stamp());
        assert_eq!(folder.index().bytes, 0, "somebody else has removed it");
    }

    #[test]
    fn what_is_somebody_elses_stays_when_answers_are_kept_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache");
        for foreign in [None, Some("notes.txt"), Some("backup.new")] {
            fs::create_dir(&path).unwrap();
            let own = [name(1), format!("{}.new", name(2))];
            for each in own.iter().map(String::as_str).chain(foreign) {
                fs::write(path.join(each), file(100)).unwrap();
            }
            remove_all(&path);
            remove_all(&path);
            assert_eq!(path.exists(), foreign.is_some(), "{foreign:?}");
            if let Some(foreign) = foreign {
                assert_eq!(all(&path), [foreign]);
                fs::remove_dir_all(&path).unwrap();
            }
        }
    }

    #[test]
    fn a_disk_that_takes_nothing_stops_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "in the way").unwrap();
        for folder in [
            Folder::new(path.clone(), MIB, 0),
            Folder::new(dir.path().join("no/such"), MIB, 0),
            Folder::new(dir.path().to_owned(), MIB, u64::MAX),
        ] {
            folder.load(&clock::stamp());
            folder.keep(name(1), head(60_000), &file(100));
            assert_eq!(folder.read(&name(1)), None, "{folder:?}");
            assert_eq!(folder.index().bytes, 0);
        }
    }
}
