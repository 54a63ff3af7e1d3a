//! The index: an ordered map of small keys to small values. What changed lately is in memory; the rest
//! is in sled, in pages.
//!
//! Owns everything that knows sled (`store.rs`); the rest of the queue sees a few functions.
//! **Invariant:** what is in here can be made again from the journal, and is never asked to be durable:
//! it counts only when it was closed in good order (its files are synced then), or when the machine has
//! not been restarted since it was written (the page cache outlives the process). What is in memory
//! only is younger than the mark that is in sled, so that the next opening reads it from the journal.
//!
//! Writing behind spares the flash: a request that comes and goes within some seconds costs the index
//! nothing, and a page is written once for all changes to it. Where there is no room for sled,
//! everything is kept in memory.

mod gaps;
mod key;
mod near;
mod pages;
mod store;

use std::{
    collections::{BTreeMap, btree_map},
    iter::Peekable,
    ops::{Bound, RangeBounds},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    thread::JoinHandle,
};

use gaps::Gaps;
pub(super) use key::Key;
use near::{Near, NearPage};
use store::{Page, Store, broken};

use super::QueueError;

/// Changes to be made at once: a value, or `None` to remove the key.
pub(super) type Changes = BTreeMap<Key, Option<Vec<u8>>>;

/// A key and its value.
pub(super) type Pair = (Vec<u8>, Vec<u8>);

const NO_PAGE: &str = "a page does not read";
/// Bytes of changes that are written out together.
const WRITE_OUT: usize = 4 * 1024 * 1024;
/// Bytes of changes beyond which the caller waits for the one that writes.
const MOST_BEHIND: usize = 24 * 1024 * 1024;
/// What a change costs in memory beyond its bytes.
const OVERHEAD: usize = 96;

/// The map.
#[derive(Debug)]
pub(super) struct Index {
    inner: Arc<Inner>,
    writing: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Inner {
    /// None: everything is kept in memory.
    store: Option<Store>,
    lately: RwLock<Lately>,
    /// Pages that were looked into. Only who reads `lately` uses them, so that a page that was written
    /// meanwhile is still covered by what is there.
    near: Mutex<Near>,
    /// Added to only by who reads `lately`, taken from only by who changes it.
    gaps: Mutex<Gaps>,
}

/// What changed lately.
#[derive(Debug, Default)]
struct Lately {
    /// Changes since the last writing out began; everything, where there is no store.
    fresh: Changes,
    fresh_bytes: usize,
    /// Changes that are being written out.
    frozen: Option<Arc<Changes>>,
    /// Why they could not be.
    failed: Option<QueueError>,
    /// For tests: the next changes fail, when somebody says so.
    #[cfg(test)]
    trap: Option<Mutex<std::sync::mpsc::Receiver<()>>>,
}

impl Index {
    /// Opens or creates the map in `dir`.
    pub(super) fn open(dir: &Path) -> Result<Self, QueueError> {
        Store::open(dir).map(|store| Index::over(Some(store)))
    }

    /// An empty map in memory.
    pub(super) fn in_memory() -> Self {
        Index::over(None)
    }

    fn over(store: Option<Store>) -> Self {
        let (lately, near, gaps) = Default::default();
        let inner = Inner { store, lately, near, gaps };
        Index { inner: Arc::new(inner), writing: Mutex::default() }
    }

    /// Whether it is kept on disk.
    pub(super) fn is_on_disk(&self) -> bool {
        self.inner.store.is_some()
    }

    /// Bytes that it takes on disk.
    pub(super) fn bytes(&self) -> Result<u64, QueueError> {
        self.inner.store.as_ref().map_or(Ok(0), Store::bytes)
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, QueueError> {
        let lately = self.inner.read();
        if let Some(known) = lately.known(key) {
            return Ok(known.map(<[u8]>::to_vec));
        }
        let Some(page) = self.inner.page_near(key, &lately)? else { return Ok(None) };
        Ok(page.get(key).map(<[u8]>::to_vec))
    }

    /// At most `limit` pairs in order, from the first key at or after `from` up to `to`, inclusive.
    pub(super) fn range(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, QueueError> {
        self.range_as(from, to, limit, |key, value| (key.to_vec(), value.to_vec()))
    }

    /// As [`Index::range`], each pair as what `read` makes of it.
    pub(super) fn range_as<T>(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
        mut read: impl FnMut(&[u8], &[u8]) -> T,
    ) -> Result<Vec<T>, QueueError> {
        let lately = self.inner.read();
        let (mut found, mut first) = (Vec::new(), None);
        let mut take = |key: &[u8], value: &[u8]| {
            first.get_or_insert_with(|| Key::from(key));
            found.push(read(key, value));
            found.len() < limit
        };
        let mut is_over = limit == 0;
        let mut next = Some(self.inner.gaps().end_of(from));
        while let Some(from) = next.take().filter(|from| **from <= *to && !is_over) {
            let page = self.inner.page_near(&from, &lately)?;
            let end = page.as_ref().and_then(|page| page.end().map(Key::from));
            // This page's part of the range.
            let part = match end.as_deref().filter(|end| *end <= to) {
                Some(end) => (Bound::Included(&*from), Bound::Excluded(end)),
                None => (Bound::Included(&*from), Bound::Included(to)),
            };
            let stored = page.iter().flat_map(|page| page.pairs_from(&from));
            is_over = !lately.merge(stored, part, &mut take);
            next = end;
        }
        match first {
            Some(first) => self.inner.gaps().add(from, &first),
            None if limit > 0 => self.inner.gaps().add(from, &[to, &[0]].concat()),
            None => {}
        }
        Ok(found)
    }

    /// Makes all changes, or none of them.
    pub(super) fn apply(&self, changes: Changes) -> Result<(), QueueError> {
        let behind = self.take(changes)?;
        if self.is_on_disk() && behind >= WRITE_OUT {
            let mut writing = self.writing();
            if behind >= MOST_BEHIND || writing.as_ref().is_none_or(JoinHandle::is_finished) {
                join(&mut writing)?;
                *writing = self.inner.write_out_behind()?;
            }
        }
        Ok(())
    }

    /// The next changes fail, as soon as a message or the end of messages comes.
    #[cfg(test)]
    pub(super) fn fail_when(&self, told: std::sync::mpsc::Receiver<()>) {
        self.inner.write().trap = Some(Mutex::new(told));
    }

    fn take(&self, changes: Changes) -> Result<usize, QueueError> {
        #[cfg(test)]
        self.spring_trap();
        let mut lately = self.inner.write();
        if let Some(failed) = &lately.failed {
            return Err(failed.clone());
        }
        let mut gaps = self.inner.gaps();
        for (key, value) in changes {
            if value.is_some() {
                gaps.fill(&key);
            }
            lately.take(key, value, self.is_on_disk());
        }
        Ok(lately.fresh_bytes)
    }

    /// Hands everything to the operating system, so that it outlives the process.
    pub(super) fn flush(&self) -> Result<(), QueueError> {
        let Some(store) = &self.inner.store else { return Ok(()) };
        let mut writing = self.writing();
        join(&mut writing)?;
        if self.inner.freeze()? {
            self.inner.write_out()?;
        }
        store.flush()
    }

    /// Hands everything to the disk, so that it outlives a power cut. The last call before closing.
    pub(super) fn sync(&self) -> Result<(), QueueError> {
        self.flush()?;
        self.inner.store.as_ref().map_or(Ok(()), Store::sync)
    }

    /// Writes all of it into a new index in `dir`, without what sled keeps of the past.
    pub(super) fn copy_to(&self, dir: &Path) -> Result<(), QueueError> {
        self.flush()?;
        self.inner.store.as_ref().map_or(Ok(()), |store| store.copy_to(dir))
    }

    #[cfg(test)]
    fn spring_trap(&self) {
        let trap = self.inner.write().trap.take();
        if let Some(trap) = trap {
            trap.into_inner().unwrap_or_else(PoisonError::into_inner).recv().ok();
            self.inner.write().failed = Some(broken("a test wants it to"));
        }
    }

    fn writing(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Index {
    /// The store's files are closed when this returns.
    fn drop(&mut self) {
        join(&mut self.writing()).ok();
    }
}

fn join(writing: &mut Option<JoinHandle<()>>) -> Result<(), QueueError> {
    match writing.take().map(JoinHandle::join) {
        Some(Err(_panic)) => Err(broken("the thread that writes it panicked")),
        _ => Ok(()),
    }
}

fn read_page(bytes: &[u8]) -> Result<Vec<pages::Pair<'_>>, QueueError> {
    pages::decode(bytes).ok_or_else(|| broken(NO_PAGE))
}

impl Inner {
    // Whoever panicked while it had the lock left whole changes.
    fn read(&self) -> RwLockReadGuard<'_, Lately> {
        self.lately.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Lately> {
        self.lately.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The page that `key` is in, for who reads what changed lately.
    fn page_near(
        &self,
        key: &[u8],
        _lately: &RwLockReadGuard<'_, Lately>,
    ) -> Result<Option<Arc<NearPage>>, QueueError> {
        let Some(store) = &self.store else { return Ok(None) };
        let known = self.near().page_of(key);
        if known.is_some() {
            return Ok(known);
        }
        let page = store.page_of(key)?.map(NearPage::new).transpose()?.map(Arc::new);
        if let Some(page) = &page {
            self.near().keep(page);
        }
        Ok(page)
    }

    fn gaps(&self) -> MutexGuard<'_, Gaps> {
        self.gaps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn near(&self) -> MutexGuard<'_, Near> {
        self.near.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets what is fresh apart to be written out; false when nothing is.
    fn freeze(&self) -> Result<bool, QueueError> {
        let mut lately = self.write();
        if let Some(failed) = &lately.failed {
            return Err(failed.clone());
        }
        if lately.fresh.is_empty() {
            return Ok(false);
        }
        let fresh = std::mem::take(&mut lately.fresh);
        lately.fresh_bytes = 0;
        lately.frozen = Some(Arc::new(fresh));
        Ok(true)
    }

    /// Writes what is fresh out on another thread.
    fn write_out_behind(self: &Arc<Self>) -> Result<Option<JoinHandle<()>>, QueueError> {
        if !self.freeze()? {
            return Ok(None);
        }
        let inner = Arc::clone(self);
        let started = std::thread::Builder::new().name("queue-index".into()).spawn(move || {
            // Whoever changes the index next is told.
            inner.write_out().ok();
        });
        match started {
            Ok(thread) => Ok(Some(thread)),
            Err(_no_thread) => self.write_out().map(|()| None),
        }
    }

    /// Writes what was set apart into the store. Readers find it in memory until then.
    fn write_out(&self) -> Result<(), QueueError> {
        let Some(frozen) = self.read().frozen.clone() else { return Ok(()) };
        let written = match &self.store {
            Some(store) => pages_of(store, &frozen).and_then(|pages| store.apply(pages)),
            None => Ok(()),
        };
        let mut lately = self.write();
        match &written {
            Ok(()) => {
                lately.frozen = None;
                self.near().clear();
            }
            Err(failed) => lately.failed = Some(failed.clone()),
        }
        written
    }
}

/// The pages that these changes make.
fn pages_of(store: &Store, changes: &Changes) -> Result<Vec<pages::Stored>, QueueError> {
    let mut stored = Vec::new();
    let mut changes = changes.iter().map(|(k, v)| (&**k, v.as_deref())).peekable();
    while let Some((key, _)) = changes.peek() {
        let page = store.page_of(key)?;
        let (low, end, bytes) = match &page {
            Some(Page { low, end, bytes }) => (&**low, end.as_deref(), &**bytes),
            None => Default::default(),
        };
        let mut own = Vec::new();
        while let Some(change) = changes.next_if(|(key, _)| end.is_none_or(|end| *key < end)) {
            own.push(change);
        }
        stored.extend(pages::change(low, &read_page(bytes)?, &own));
    }
    Ok(stored)
}

impl Lately {
    fn take(&mut self, key: Key, value: Option<Vec<u8>>, is_on_disk: bool) {
        if value.is_none() && !is_on_disk {
            self.fresh.remove(&key);
            return;
        }
        let bytes = |value: &Option<Vec<u8>>| value.as_ref().map_or(0, Vec::len);
        self.fresh_bytes += bytes(&value);
        match self.fresh.entry(key) {
            btree_map::Entry::Vacant(vacant) => {
                self.fresh_bytes += vacant.key().len() + OVERHEAD;
                vacant.insert(value);
            }
            btree_map::Entry::Occupied(mut there) => {
                self.fresh_bytes -= bytes(there.get());
                there.insert(value);
            }
        }
    }

    /// What is known of a key here.
    fn known(&self, key: &Key) -> Option<Option<&[u8]>> {
        let frozen = || self.frozen.as_ref().and_then(|frozen| frozen.get(key));
        self.fresh.get(key).or_else(frozen).map(Option::as_deref)
    }

    /// Passes the pairs of a page and what changed lately, in this part, to `take`, until it has
    /// enough; false then.
    fn merge<'a>(
        &self,
        page: impl Iterator<Item = pages::Pair<'a>>,
        part: (Bound<&[u8]>, Bound<&[u8]>),
        take: &mut impl FnMut(&[u8], &[u8]) -> bool,
    ) -> bool {
        static NONE: Changes = BTreeMap::new();
        let changed = |changes| range_of(changes, part).peekable();
        let mut fresh = changed(&self.fresh);
        let mut frozen = changed(self.frozen.as_deref().unwrap_or(&NONE));
        let inside = page.take_while(|(key, _)| RangeBounds::<[u8]>::contains(&part, *key));
        let mut stored = inside.map(|(key, value)| (key, Some(value))).peekable();
        loop {
            let keys = [fresh.peek(), frozen.peek(), stored.peek()];
            let Some(key) = keys.into_iter().flatten().map(|(key, _)| *key).min() else {
                return true;
            };
            // All three step over the key; the youngest knows best.
            let values = [step(&mut fresh, key), step(&mut frozen, key), step(&mut stored, key)];
            let value = values.into_iter().flatten().next().flatten();
            if value.is_some_and(|value| !take(key, value)) {
                return false;
            }
        }
    }
}

type Change<'a> = (&'a [u8], Option<&'a [u8]>);

fn range_of<'a>(
    changes: &'a Changes,
    part: (Bound<&[u8]>, Bound<&[u8]>),
) -> impl Iterator<Item = Change<'a>> {
    changes.range::<[u8], _>(part).map(|(key, value)| (&**key, value.as_deref()))
}

fn step<'a>(
    changes: &mut Peekable<impl Iterator<Item = Change<'a>>>,
    key: &[u8],
) -> Option<Option<&'a [u8]>> {
    changes.next_if(|(next, _)| *next == key).map(|(_, value)| value)
}

#[cfg(test)]
mod tests;
