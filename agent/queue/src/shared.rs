//! What the queue's handles, its leases and its writer have in common, and the reading of one request.
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
    Idempotency, QueueConfig, QueueError, Record, RequestId, State, Summary,
    begin::path_of,
    disk::{Disk, DiskFile},
    index::Index,
    journal::{FinalState, Meta, Place},
    keys::{self, Entry, Totals},
    ledger::Ledger,
    line,
    lost::{self, Trust},
    meter::Meter,
    pick::InFlight,
    scan,
};

/// Numbers that the writer publishes after each commit.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Published {
    pub(super) totals: Totals,
    pub(super) live_bytes: u64,
    pub(super) segments: u64,
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
            state if !state.is_final() && self.in_flight.is_worked_on(id) => State::InFlight,
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

    pub(super) fn damaged(&self, id: RequestId, place: &Place) -> QueueError {
        self.meter.count_damaged(place.segment, place.offset);
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

    /// Requests of an index that was set aside of which nothing is left.
    pub(super) fn lost_since(
        &self,
        old: &Path,
        trust: &Trust,
    ) -> Result<Option<Vec<RequestId>>, QueueError> {
        lost::requests(old, trust, &*self.index()?, &*self.disk, &self.journal_dir)
    }

    /// Requests that have no end yet.
    pub(super) fn waiting(&self) -> u64 {
        self.published().totals.held
    }

    /// What the writer published last.
    pub(super) fn published(&self) -> Published {
        *locked(&self.published)
    }
}

/// A request's entry in an index.
pub(super) fn read_entry(index: &Index, id: RequestId) -> Result<Option<Entry>, QueueError> {
    index.get(&keys::entry_key(id))?.map(|value| keys::decode(&value)).transpose()
}

/// A request without its bytes.
pub(super) fn summary(id: RequestId, state: State, entry: &Entry) -> Summary {
    Summary {
        id,
        state,
        priority: entry.priority,
        attempts: entry.attempts,
        last_reason: entry.reason.clone(),
        accepted_at_ms: entry.accepted_at_ms,
        not_before_ms: line::due_as_told(entry.not_before_ms),
        expires_at_ms: entry.expires_at_ms,
        finished_at_ms: entry.ended.map(|ended| ended.at_ms),
        key: entry.key.as_ref().map(|(key, _)| key.clone()),
        bytes: entry.place.body_len,
    }
}
