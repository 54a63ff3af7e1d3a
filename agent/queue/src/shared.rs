//! What the queue's handles, its leases and its writer have in common, and all reading.
//!
//! Owns the index's handle. **Invariant:** what is read is checked against its checksum, and a record
//! that is moved in the middle of a read is found in its new place.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::watch;

use super::{
    Idempotency, QueueConfig, QueueError, Record, RequestId, State, Stats, Summary,
    begin::path_of,
    disk::{Disk, DiskFile},
    index::Index,
    journal::{FinalState, Meta, Place},
    keys::{self, Entry, Totals},
    ledger::Ledger,
    lost::{self, Trust},
    meter::{Meter, count},
    pick::InFlight,
    scan,
};

/// Numbers that the writer publishes after each commit.
#[derive(Debug, Clone, Copy, Default)]
struct Published {
    totals: Totals,
    live_bytes: u64,
    segments: u64,
}

/// Bodies up to this size are read together with what stands before them.
const SMALL: u64 = 64 * 1024;

/// The segment that was read last: the next request is mostly in it too.
#[derive(Debug, Default)]
pub(super) struct OpenSegment(Option<(u64, Arc<dyn DiskFile>)>);

impl OpenSegment {
    fn get(
        &mut self,
        disk: &dyn Disk,
        path: &Path,
        number: u64,
    ) -> Result<Arc<dyn DiskFile>, QueueError> {
        if let Some((_, file)) = self.0.as_ref().filter(|(open, _)| *open == number) {
            return Ok(Arc::clone(file));
        }
        let file = disk.file_to_read(path)?;
        self.0 = Some((number, Arc::clone(&file)));
        Ok(file)
    }
}

/// The common part.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: QueueConfig,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) journal_dir: PathBuf,
    pub(super) meter: Arc<Meter>,
    pub(super) changed: watch::Sender<u64>,
    index: RwLock<Option<Arc<Index>>>,
    /// Locked to write while the index lacks something that a caller was told of.
    catching_up: RwLock<()>,
    closed: AtomicBool,
    pub(super) in_flight: InFlight,
    published: Mutex<Published>,
}

/// A lock whose holder panicked holds plain numbers all the same.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(
        config: QueueConfig,
        disk: Arc<dyn Disk>,
        journal_dir: PathBuf,
        meter: Arc<Meter>,
        index: Index,
    ) -> Self {
        Shared {
            config,
            disk,
            journal_dir,
            meter,
            changed: watch::Sender::new(0),
            index: RwLock::new(Some(Arc::new(index))),
            catching_up: RwLock::default(),
            closed: AtomicBool::new(false),
            in_flight: InFlight::default(),
            published: Mutex::default(),
        }
    }

    /// The index, unless the queue is closed or the index waits to be made anew.
    pub(super) fn index(&self) -> Result<Arc<Index>, QueueError> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        index.clone().ok_or_else(|| match self.closed.load(Ordering::Acquire) {
            true => QueueError::Closed,
            false => QueueError::Index { detail: "the journal cannot be read now".into() },
        })
    }

    /// Lets whoever wants to look something up wait, as long as this is held.
    pub(super) fn catch_up(&self) -> RwLockWriteGuard<'_, ()> {
        self.catching_up.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the index has all that any caller was told of.
    pub(super) fn wait_for_index(&self) {
        drop(self.catching_up.read());
    }

    /// Closes the queue for everybody, and returns the index.
    pub(super) fn close(&self) -> Option<Arc<Index>> {
        self.closed.store(true, Ordering::Release);
        self.replace_index(None)
    }

    /// Puts another index in place, or none, and returns the old one.
    pub(super) fn replace_index(&self, new: Option<Index>) -> Option<Arc<Index>> {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *index, new.map(Arc::new))
    }

    /// Puts the index in place that `make` returns; whoever reads waits for it. The old one is closed
    /// before, unless somebody reads it still.
    pub(super) fn exchange_index(
        &self,
        make: impl FnOnce() -> Result<Index, QueueError>,
    ) -> Result<(), QueueError> {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        drop(index.take());
        *index = Some(Arc::new(make()?));
        Ok(())
    }

    /// Makes the totals of a ledger known.
    pub(super) fn publish(&self, ledger: &Ledger) {
        let segments = ledger.segments();
        *locked(&self.published) = Published {
            totals: ledger.totals,
            live_bytes: segments.values().map(|used| used.bytes).sum(),
            segments: segments.len() as u64,
        };
    }

    /// Tells everyone who waits that something changed.
    pub(super) fn notify(&self) {
        self.changed.send_modify(|version| *version = version.wrapping_add(1));
    }

    /// The state as callers see it.
    pub(super) fn state_of(&self, id: RequestId, entry: &Entry) -> State {
        match entry.state() {
            state if !state.is_final() && self.in_flight.has(id) => State::InFlight,
            state => state,
        }
    }

    /// A request's entry.
    pub(super) fn entry(&self, id: RequestId) -> Result<Option<Entry>, QueueError> {
        read_entry(&*self.index()?, id)
    }

    /// A request with its envelope and answer.
    pub(super) fn record(&self, id: RequestId) -> Result<Option<Record>, QueueError> {
        self.where_it_is(id, |entry| self.read_record(id, entry))
    }

    fn read_record(&self, id: RequestId, entry: &Entry) -> Result<Record, QueueError> {
        let summary = summary(id, self.state_of(id, entry), entry);
        let (meta, file) = self.read_meta(id, &entry.place)?;
        let (envelope, answer) = match meta {
            Meta::Accept(meta) => (meta.envelope, None),
            Meta::Final(meta) if meta.state == FinalState::Answered => {
                (meta.request.envelope, Some(self.read_body(&*file, id, &entry.place)?))
            }
            Meta::Final(meta) => (meta.request.envelope, None),
            Meta::Retry(_) | Meta::Tombstone(_) => return Err(self.damaged(id, &entry.place)),
        };
        Ok(Record { summary, envelope, answer })
    }

    /// A record's meta, with the file it is in.
    pub(super) fn read_meta(
        &self,
        id: RequestId,
        place: &Place,
    ) -> Result<(Meta, Arc<dyn DiskFile>), QueueError> {
        let path = path_of(&self.journal_dir, place.segment);
        let file = self.disk.file_to_read(&path)?;
        let meta = scan::read_meta(&*file, place)
            .map_err(|source| QueueError::storage("read", &path, source))?;
        Ok((meta.ok_or_else(|| self.damaged(id, place))?, file))
    }

    /// The envelope of a request that waits, and its body if it is small, read by its entry.
    pub(super) fn read_waiting(
        &self,
        files: &mut OpenSegment,
        id: RequestId,
        place: &Place,
    ) -> Result<(Bytes, Option<Bytes>), QueueError> {
        let path = path_of(&self.journal_dir, place.segment);
        let file = files.get(&*self.disk, &path, place.segment)?;
        let read = match place.body_len <= SMALL {
            true => scan::read_whole(&*file, place),
            false => scan::read_meta(&*file, place).map(|meta| meta.map(|meta| (meta, None))),
        };
        match read.map_err(|source| QueueError::storage("read", &path, source))? {
            Some((Meta::Accept(meta), body)) => Ok((meta.envelope, body)),
            _ => Err(self.damaged(id, place)),
        }
    }

    /// A record's body.
    pub(super) fn read_body(
        &self,
        file: &dyn DiskFile,
        id: RequestId,
        place: &Place,
    ) -> Result<Bytes, QueueError> {
        let body = scan::read_body(file, place).map_err(|source| {
            QueueError::storage("read", &path_of(&self.journal_dir, place.segment), source)
        })?;
        body.map(Bytes::from).ok_or_else(|| self.damaged(id, place))
    }

    fn damaged(&self, id: RequestId, place: &Place) -> QueueError {
        count(&self.meter.damaged, 1);
        QueueError::Damaged { id, segment: place.segment, offset: place.offset }
    }

    /// The request that has an idempotency key, if it is the same request.
    pub(super) fn named(&self, name: &Idempotency) -> Result<Option<Summary>, QueueError> {
        let index = self.index()?;
        let Some(id) = index.get(&keys::name_key(&name.key))?.and_then(|value| keys::id_of(&value))
        else {
            return Ok(None);
        };
        let Some(entry) = read_entry(&index, id)? else { return Ok(None) };
        if entry.key.as_ref().is_none_or(|(_, digest)| *digest != name.digest) {
            return Err(QueueError::KeyConflict { key: name.key.clone(), id });
        }
        Ok(Some(summary(id, self.state_of(id, &entry), &entry)))
    }

    /// Requests in the order of their ids, which is that of their making; in a state, if one is given.
    pub(super) fn list(
        &self,
        state: Option<State>,
        limit: usize,
    ) -> Result<Vec<Summary>, QueueError> {
        let mut found = Vec::new();
        self.each(|id, is, entry| {
            if found.len() < limit && state.is_none_or(|wanted| wanted == is) {
                found.push(summary(id, is, entry));
            }
            found.len() < limit
        })?;
        Ok(found)
    }

    /// The ids of requests in one state, or of all that have no end yet.
    pub(super) fn ids(&self, state: Option<State>) -> Result<Vec<RequestId>, QueueError> {
        let mut found = Vec::new();
        self.each(|id, is, _| {
            if state.map_or(!is.is_final(), |wanted| wanted == is) {
                found.push(id);
            }
            true
        })?;
        Ok(found)
    }

    /// Passes every request to `visit`, in order of ids, until it has enough.
    fn each(
        &self,
        mut visit: impl FnMut(RequestId, State, &Entry) -> bool,
    ) -> Result<(), QueueError> {
        const PAGE: usize = 256;
        let index = self.index()?;
        let (mut from, to) = keys::prefix_bounds(&[keys::ENTRIES]);
        loop {
            let page = index.range(&from, &to, PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            from = [last.as_slice(), &[0]].concat();
            let is_last = page.len() < PAGE;
            for (key, value) in page {
                let Some(id) = keys::id_in(&key) else { continue };
                let entry: Entry = keys::decode(&value)?;
                if !visit(id, self.state_of(id, &entry), &entry) {
                    return Ok(());
                }
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// Requests without an end in the order of their ids, behind `after`.
    pub(super) fn open_after(
        &self,
        after: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<RequestId>, QueueError> {
        const PAGE: usize = 256;
        let index = self.index()?;
        let (mut from, to) = keys::prefix_bounds(&[keys::ENTRIES]);
        if let Some(after) = after {
            from = [keys::entry_key(after).as_slice(), &[0]].concat();
        }
        let mut found = Vec::new();
        loop {
            let page = index.range(&from, &to, PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(found) };
            from = [last.as_slice(), &[0]].concat();
            for (key, value) in page {
                let Some(id) = keys::id_in(&key) else { continue };
                if keys::decode::<Entry>(&value)?.ended.is_none() {
                    found.push(id);
                }
                if found.len() >= limit {
                    return Ok(found);
                }
            }
        }
    }

    /// When the next time to live ends.
    pub(super) fn next_expiry(&self) -> Result<Option<u64>, QueueError> {
        let (from, to) = keys::time_bounds(b'x', u64::MAX);
        let first = self.index()?.range(&from, &to, 1)?;
        Ok(first.first().and_then(|(key, _)| keys::expiry_in(key)))
    }

    /// The body of a request without an end.
    pub(super) fn body(&self, id: RequestId) -> Result<Option<Bytes>, QueueError> {
        self.where_it_is(id, |entry| {
            if entry.ended.is_some() {
                return Ok(None);
            }
            let (_, file) = self.read_meta(id, &entry.place)?;
            self.read_body(&*file, id, &entry.place).map(Some)
        })
        .map(Option::flatten)
    }

    /// Reads something of a request by its entry; a record can move, and its old segment go, between
    /// the look into the index and the read.
    fn where_it_is<T>(
        &self,
        id: RequestId,
        read: impl Fn(&Entry) -> Result<T, QueueError>,
    ) -> Result<Option<T>, QueueError> {
        let mut tried = None;
        loop {
            let Some(entry) = self.entry(id)? else { return Ok(None) };
            let place = Some(entry.place);
            match read(&entry) {
                Err(QueueError::Storage { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound && tried != place =>
                {
                    tried = place;
                }
                other => return other.map(Some),
            }
        }
    }

    /// Finals in the order of their numbers, behind `after`.
    pub(super) fn results_after(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Summary)>, QueueError> {
        let index = self.index()?;
        let from = keys::result_key(after.saturating_add(1));
        let mut found = Vec::new();
        for (key, value) in index.range(&from, &keys::result_key(u64::MAX), limit)? {
            let (Some(number), Some(id)) = (keys::result_in(&key), keys::id_of(&value)) else {
                continue;
            };
            if let Some(entry) = read_entry(&index, id)? {
                found.push((number, summary(id, entry.state(), &entry)));
            }
        }
        Ok(found)
    }

    /// Ids whose time in `x` or `f` keys is up to `to_ms`, at most `limit`.
    pub(super) fn up_to(
        &self,
        kind: u8,
        to_ms: u64,
        limit: usize,
    ) -> Result<Vec<RequestId>, QueueError> {
        let (from, to) = keys::time_bounds(kind, to_ms);
        let pairs = self.index()?.range(&from, &to, limit)?;
        Ok(pairs.iter().filter_map(|(key, _)| keys::id_in(key)).collect())
    }

    /// Requests of an index that was set aside of which nothing is left.
    pub(super) fn lost_since(
        &self,
        old: &Path,
        trust: &Trust,
    ) -> Result<Option<Vec<RequestId>>, QueueError> {
        lost::requests(old, trust, &*self.index()?, &*self.disk, &self.journal_dir)
    }

    /// Whether a request was forgotten for good.
    pub(super) fn is_forgotten(&self, id: RequestId) -> Result<bool, QueueError> {
        Ok(self.index()?.get(&keys::tombstone_key(id))?.is_some())
    }

    /// Requests that have no end yet.
    pub(super) fn waiting(&self) -> u64 {
        locked(&self.published).totals.held
    }

    /// The queue in numbers.
    pub(super) fn stats(&self) -> Result<Stats, QueueError> {
        let Published { totals, live_bytes, segments } = *locked(&self.published);
        let in_flight = self.in_flight.count();
        let counter = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Ok(Stats {
            held: totals.held.saturating_sub(in_flight + totals.budget + totals.set_aside),
            in_flight: in_flight.min(totals.held),
            waiting_for_budget: totals.budget,
            set_aside: totals.set_aside,
            answered: totals.answered,
            failed: totals.failed,
            expired: totals.expired,
            cancelled: totals.cancelled,
            held_bytes: totals.held_bytes,
            live_bytes,
            allocated_bytes: self
                .disk
                .allocated(&self.journal_dir)
                .map_err(|source| QueueError::storage("list", &self.journal_dir, source))?,
            segments,
            index_bytes: self.index()?.bytes()?,
            index_in_memory: !self.index()?.is_on_disk(),
            oldest_accepted_at_ms: self.oldest()?,
            syncs: counter(&self.meter.syncs),
            appended: counter(&self.meter.appended),
            written_bytes: counter(&self.meter.written),
            prepared_bytes: counter(&self.meter.prepared),
            moved_bytes: counter(&self.meter.moved),
            dropped: counter(&self.meter.dropped),
            process_written_bytes: self.disk.written_by_process(),
            damaged: counter(&self.meter.damaged),
        })
    }

    fn oldest(&self) -> Result<Option<u64>, QueueError> {
        let index = self.index()?;
        let mut oldest: Option<(u64, RequestId)> = None;
        for priority in 0..=9 {
            let from = keys::queue_key(priority, 0, 0);
            let to = keys::queue_key(priority, u64::MAX, u64::MAX);
            for (key, value) in index.range(&from, &to, 1000)? {
                if let (Some((_, order)), Some((id, _))) =
                    (keys::due_and_order(&key), keys::waiting_in(&value))
                {
                    oldest = oldest.into_iter().chain([(order, id)]).min();
                }
            }
        }
        let Some((_, id)) = oldest else { return Ok(None) };
        Ok(read_entry(&index, id)?.map(|entry| entry.accepted_at_ms))
    }
}

/// A request's entry in an index.
pub(super) fn read_entry(index: &Index, id: RequestId) -> Result<Option<Entry>, QueueError> {
    index.get(&keys::entry_key(id))?.map(|value| keys::decode(&value)).transpose()
}

fn summary(id: RequestId, state: State, entry: &Entry) -> Summary {
    Summary {
        id,
        state,
        priority: entry.priority,
        attempts: entry.attempts,
        last_reason: entry.reason.clone(),
        accepted_at_ms: entry.accepted_at_ms,
        not_before_ms: entry.not_before_ms,
        expires_at_ms: entry.expires_at_ms,
        finished_at_ms: entry.ended.map(|ended| ended.at_ms),
        key: entry.key.as_ref().map(|(key, _)| key.clone()),
        bytes: entry.place.body_len,
    }
}
