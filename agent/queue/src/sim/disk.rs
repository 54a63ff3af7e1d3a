//! A disk that loses power: of what was not synced it keeps whatever it likes.
//!
//! What POSIX leaves open is thrown with dice. After a power cut, each sector of a file that was written
//! since its last sync has any of the contents that it had since, or a mixture of two; its length is
//! one of those since; each of a directory's changes since its sync was made or not. A sync that fails
//! may have kept any of it, and a later one does not make up for it. A process that is killed loses
//! nothing of what it wrote, but what it had not synced is still not synced.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    thread::JoinHandle,
};

use super::dice::Dice;
use crate::disk::{Disk, DiskFile, Free};

const SECTOR: usize = 512;
/// The bytes at a file's beginning that a failing disk may not give.
const HEADER: usize = 4096;

#[derive(Debug, Clone)]
pub(super) struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    dice: Dice,
    files: BTreeMap<u64, Contents>,
    /// The directory tree as programs see it, and as it is on the disk.
    names: BTreeMap<PathBuf, u64>,
    durable: BTreeMap<PathBuf, u64>,
    /// Changes of names since the last sync of their directory.
    changes: Vec<Change>,
    next_file: u64,
    boot: u64,
    /// Operations until the power goes.
    left: Option<u64>,
    is_off: bool,
    /// One in so many syncs fails; 0: none.
    bad_syncs: usize,
    /// One in so many writes fails; 0: none.
    bad_writes: usize,
    /// One in so many reads of a file's beginning fails; 0: none.
    bad_headers: usize,
    free: u64,
    has_index: bool,
}

#[derive(Debug, Default)]
struct Contents {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// What was written since the last sync, in order, and the lengths that there were.
    writes: Vec<(usize, Vec<u8>)>,
    lengths: Vec<usize>,
}

#[derive(Debug, Clone)]
enum Change {
    Named(PathBuf, u64),
    Renamed(PathBuf, PathBuf, u64),
    Removed(PathBuf),
}

impl Change {
    fn is_in(&self, dir: &Path) -> bool {
        let (Change::Named(path, _) | Change::Renamed(_, path, _) | Change::Removed(path)) = self;
        path.parent() == Some(dir)
    }

    fn make(self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Change::Named(path, file) => drop(names.insert(path, file)),
            Change::Renamed(from, to, file) => {
                names.remove(&from);
                names.insert(to, file);
            }
            Change::Removed(path) => drop(names.remove(&path)),
        }
    }
}

impl SimDisk {
    pub(super) fn new(seed: u64, has_index: bool) -> Self {
        SimDisk(Arc::new(Mutex::new(State {
            dice: Dice::new(seed),
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            durable: BTreeMap::new(),
            changes: Vec::new(),
            next_file: 1,
            boot: 1,
            left: None,
            is_off: false,
            bad_syncs: 0,
            bad_writes: 0,
            bad_headers: 0,
            free: u64::MAX / 2,
            has_index,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics with it")
    }

    /// The process ends, or the power goes, after so many operations more.
    pub(super) fn stop_after(&self, operations: u64) {
        self.state().left = Some(operations);
    }

    pub(super) fn has_stopped(&self) -> bool {
        self.state().is_off
    }

    /// One in so many syncs fails from now on; 0: none.
    pub(super) fn fail_syncs(&self, one_in: usize) {
        self.state().bad_syncs = one_in;
    }

    /// One in so many writes fails from now on, a part of it done; 0: none.
    pub(super) fn fail_writes(&self, one_in: usize) {
        self.state().bad_writes = one_in;
    }

    /// One in so many reads of a file's first bytes fails from now on, as a disk fails that may give them
    /// the next time; 0: none.
    pub(super) fn fail_headers(&self, one_in: usize) {
        self.state().bad_headers = one_in;
    }

    /// So much is free from now on.
    pub(super) fn set_free(&self, bytes: u64) {
        self.state().free = bytes;
    }

    /// Whether there is room for an index from now on.
    pub(super) fn set_has_index(&self, has_index: bool) {
        self.state().has_index = has_index;
    }

    /// Another process begins on the same machine.
    pub(super) fn restart(&self) {
        let mut state = self.state();
        (state.is_off, state.left) = (false, None);
    }

    /// The machine begins again, with what its disk kept.
    pub(super) fn cut_power(&self) {
        let mut state = self.state();
        let state = &mut *state;
        (state.is_off, state.left) = (false, None);
        state.boot += 1;
        // Half of the time in order up to a point, else any of them.
        let count = state.changes.len();
        let up_to = state.dice.below(count + 1);
        let in_order = state.dice.one_in(2);
        for (at, change) in std::mem::take(&mut state.changes).into_iter().enumerate() {
            let kept = if in_order { at < up_to } else { state.dice.one_in(2) };
            if kept {
                change.make(&mut state.durable);
            }
        }
        state.names.clone_from(&state.durable);
        let named: std::collections::BTreeSet<u64> = state.durable.values().copied().collect();
        state.files.retain(|file, _| named.contains(file));
        for contents in state.files.values_mut() {
            contents.settle(&mut state.dice);
            contents.now.clone_from(&contents.durable);
        }
    }
}

impl State {
    /// Counts an operation; true when the power goes in the middle of it.
    fn operate(&mut self) -> io::Result<bool> {
        if self.is_off {
            return Err(io::Error::other("the machine is off"));
        }
        match &mut self.left {
            Some(0) => {
                self.is_off = true;
                Ok(true)
            }
            Some(left) => {
                *left -= 1;
                Ok(false)
            }
            None => Ok(false),
        }
    }

    fn look(&self) -> io::Result<()> {
        if self.is_off { Err(io::Error::other("the machine is off")) } else { Ok(()) }
    }

    fn change(&mut self, change: Change) -> io::Result<()> {
        let stops = self.operate()?;
        if !stops || self.dice.one_in(2) {
            change.clone().make(&mut self.names);
            self.changes.push(change);
        }
        stopped(stops)
    }

    fn find(&self, path: &Path) -> io::Result<u64> {
        self.look()?;
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn stopped(stops: bool) -> io::Result<()> {
    if stops { Err(io::Error::other("the machine goes off")) } else { Ok(()) }
}

impl Contents {
    /// What is on the disk when nothing more is written: the dice decide what was not synced.
    fn settle(&mut self, dice: &mut Dice) {
        let mut lengths = vec![self.durable.len()];
        lengths.append(&mut self.lengths);
        let length = *dice.pick(&lengths).expect("there is one");
        let before = self.durable.clone();
        self.durable.resize(length, 0);
        let writes = std::mem::take(&mut self.writes);
        let sectors = writes.iter().flat_map(|(at, bytes)| {
            let last = at + bytes.len().max(1) - 1;
            at / SECTOR..=last / SECTOR
        });
        let sectors: std::collections::BTreeSet<usize> = sectors.collect();
        for sector in sectors {
            let versions = versions(&before, &writes, sector);
            let mut kept = dice.pick(&versions).expect("there is one").clone();
            if dice.one_in(8) {
                let other = dice.pick(&versions).expect("there is one");
                let torn = dice.below(SECTOR);
                kept[torn..].copy_from_slice(&other[torn..]);
            }
            let at = sector * SECTOR;
            for (to, from) in self.durable.iter_mut().skip(at).zip(kept) {
                *to = from;
            }
        }
    }
}

/// What a sector held, one write after the other.
fn versions(before: &[u8], writes: &[(usize, Vec<u8>)], sector: usize) -> Vec<Vec<u8>> {
    let at = sector * SECTOR;
    let mut held = vec![0; SECTOR];
    for (to, from) in held.iter_mut().zip(before.iter().skip(at)) {
        *to = *from;
    }
    let mut versions = vec![held.clone()];
    for (start, bytes) in writes {
        let (from, to) = ((*start).max(at), (start + bytes.len()).min(at + SECTOR));
        if from < to {
            held[from - at..to - at].copy_from_slice(&bytes[from - start..to - start]);
            versions.push(held.clone());
        }
    }
    versions
}

impl Disk for SimDisk {
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        if bytes > state.free {
            state.operate()?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = state.next_file;
        state.next_file += 1;
        let length = usize::try_from(bytes).expect("a small file");
        let now = vec![0; length];
        let contents = Contents { now, lengths: vec![length], ..Contents::default() };
        state.files.insert(file, contents);
        // One that was there loses its name; its bytes are never asked for again.
        state.change(Change::Named(path.to_owned(), file))?;
        drop(state);
        Ok(Arc::new(SimFile { disk: self.clone(), file }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.state().find(path)?;
        Ok(Arc::new(SimFile { disk: self.clone(), file }))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.open(path)
    }

    fn is_file(&self, path: &Path) -> io::Result<bool> {
        match self.state().find(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            found => found.map(|_| true),
        }
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        state.look()?;
        let inside = state.names.keys().filter(|path| path.parent() == Some(dir));
        let names = inside.filter_map(|path| path.file_name()?.to_str());
        Ok(names.map(str::to_owned).collect())
    }

    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        self.state().look()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        let stops = state.operate()?;
        stopped(stops)?;
        let (synced, rest) =
            std::mem::take(&mut state.changes).into_iter().partition(|change| change.is_in(dir));
        state.changes = rest;
        let synced: Vec<Change> = synced;
        for change in synced {
            change.make(&mut state.durable);
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let file = state.find(from)?;
        state.change(Change::Renamed(from.to_owned(), to.to_owned(), file))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.find(path)?;
        state.change(Change::Removed(path.to_owned()))
    }

    fn free(&self, _dir: &Path) -> io::Result<Free> {
        let state = self.state();
        state.look()?;
        Ok(Free { bytes: state.free, inodes: None })
    }

    fn allocated(&self, dir: &Path) -> io::Result<u64> {
        let state = self.state();
        let inside = state.names.iter().filter(|(path, _)| path.parent() == Some(dir));
        let sizes = inside.filter_map(|(_, file)| state.files.get(file));
        Ok(sizes.map(|contents| contents.now.len() as u64).sum())
    }

    fn written_by_process(&self) -> Option<u64> {
        None
    }

    fn boot(&self) -> String {
        self.state().boot.to_string()
    }

    fn has_index(&self) -> bool {
        self.state().has_index
    }

    fn behind(
        &self,
        _what: &str,
        work: Box<dyn FnOnce() + Send>,
    ) -> io::Result<Option<JoinHandle<()>>> {
        // At once, so that a seed always gives the same schedule.
        work();
        Ok(None)
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    file: u64,
}

impl SimFile {
    fn with<T>(&self, run: impl FnOnce(&mut Contents) -> T) -> T {
        run(self.disk.state().files.get_mut(&self.file).expect("files stay"))
    }
}

impl DiskFile for SimFile {
    fn read_exact_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        let at = usize::try_from(at).expect("a small file");
        {
            let mut state = self.disk.state();
            state.look()?;
            let one_in = state.bad_headers;
            if at < HEADER && one_in > 0 && state.dice.one_in(one_in) {
                return Err(rustix::io::Errno::IO.into());
            }
        }
        self.with(|contents| match contents.now.get(at..at + bytes.len()) {
            Some(found) => {
                bytes.copy_from_slice(found);
                Ok(())
            }
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        })
    }

    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let stops = self.disk.state().operate()?;
        let at = usize::try_from(at).expect("a small file");
        let (fails, len) = {
            let mut state = self.disk.state();
            let one_in = state.bad_writes;
            let fails = one_in > 0 && state.dice.one_in(one_in);
            // Of the write that fails or in which the power goes, a part.
            let is_whole = !stops && !fails;
            (fails, if is_whole { bytes.len() } else { state.dice.below(bytes.len() + 1) })
        };
        self.with(|contents| {
            let end = at + len;
            if end > contents.now.len() {
                contents.now.resize(end, 0);
                contents.lengths.push(end);
            }
            contents.now[at..end].copy_from_slice(&bytes[..len]);
            contents.writes.push((at, bytes[..len].to_vec()));
        });
        stopped(stops)?;
        if fails { Err(io::Error::other("the write failed")) } else { Ok(()) }
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let stops = state.operate()?;
        let fails = state.bad_syncs > 0 && {
            let one_in = state.bad_syncs;
            state.dice.one_in(one_in)
        };
        stopped(stops)?;
        if fails {
            let state = &mut *state;
            let contents = state.files.get_mut(&self.file).expect("files stay");
            // The kernel takes the pages for written from now on.
            contents.settle(&mut state.dice);
            return Err(io::Error::other("the sync failed"));
        }
        drop(state);
        self.with(|contents| {
            // What a failed sync lost is not on the disk, whatever is in memory.
            let length = contents.lengths.last().copied().unwrap_or(contents.durable.len());
            contents.durable.resize(length, 0);
            for (at, bytes) in std::mem::take(&mut contents.writes) {
                let end = (at + bytes.len()).min(length);
                if at < end {
                    contents.durable[at..end].copy_from_slice(&bytes[..end - at]);
                }
            }
            contents.lengths.clear();
        });
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let stops = self.disk.state().operate()?;
        stopped(stops)?;
        let length = usize::try_from(bytes).expect("a small file");
        self.with(|contents| {
            contents.now.resize(length, 0);
            contents.lengths.push(length);
            // A later length does not bring back what was cut off.
            let cut = contents.durable.len().max(length);
            contents.writes.push((length, vec![0; cut - length]));
        });
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        self.disk.state().look()?;
        Ok(self.with(|contents| contents.now.len() as u64))
    }
}
