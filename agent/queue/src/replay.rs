//! How the index comes to be: as it lies there, if it can be trusted, else made anew from the journal.
//!
//! **Invariant:** the index is trusted only when it was closed in good order or written in this boot of
//! the machine, and its mark matches the journal byte for byte; the journal decides everything else.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use tracing::warn;

use super::{
    Damage, OpenReport, QueueError,
    begin::{number_in, path_of},
    disk::{Disk, RealDisk},
    error::READ_HEADER,
    index::Index,
    journal::{ALIGN, RecordHeader, SEGMENT_HEADER, SegmentHeader},
    keys::{self, Mark},
    ledger::Ledger,
    scan::{self, End, Found},
};

/// Damaged places that the report names; the rest is only counted.
const NAMED_DAMAGE: usize = 1000;
/// Changes that go into the index at once in a replay.
const STEP: usize = 8192;
/// The mark of a close in good order.
const CLEAN: &str = "index.clean";
/// The folder of an index that is being copied.
const COPY: &str = "index.copy";
/// An index that is in memory goes back to a disk that has this much free.
const INDEX_ROOM: u64 = 16 * 1024 * 1024;
/// An index is copied when it takes more than this on disk,
const GROWN_BYTES: u64 = 32 * 1024 * 1024;
/// and so many times what its requests need,
const GROWN_TIMES: u64 = 4;
/// which is about this for each.
const LIVE_BYTES: u64 = 256;

/// A queue's directory in a boot of the machine.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) boot: String,
}

/// An index that is at the journal's end.
pub(super) struct Opened {
    pub(super) index: Index,
    pub(super) ledger: Ledger,
    pub(super) tail: Tail,
    /// The queue that it belongs to.
    pub(super) store: [u8; 16],
}

/// Where the journal goes on.
pub(super) struct Tail {
    /// The last segment; `None`: there is none.
    pub(super) header: Option<SegmentHeader>,
    /// Where in it records were read: what is before was in the index.
    pub(super) read_from: u64,
    /// Its end.
    pub(super) end: End,
    /// The highest number seen.
    pub(super) after: u64,
    pub(super) next_sequence: u64,
    pub(super) last: Option<(u64, u32)>,
}

/// Why the index is not taken as it lies there.
pub(super) enum Distrust {
    /// The index is of no use.
    Rebuild {
        /// Why.
        why: String,
        /// It is worth a look, and not only behind the journal.
        is_damaged: bool,
    },
    /// There is no room to open it.
    NoRoom(QueueError),
    /// Not even the journal can be read.
    Fail(QueueError),
}

impl Distrust {
    fn damaged(why: impl Into<String>) -> Self {
        Distrust::Rebuild { why: why.into(), is_damaged: true }
    }

    pub(super) fn behind(why: &str) -> Self {
        Distrust::Rebuild { why: why.to_owned(), is_damaged: false }
    }
}

impl From<QueueError> for Distrust {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::Index { detail } => Distrust::damaged(detail),
            full if full.is_no_space() => Distrust::NoRoom(full),
            other => Distrust::Fail(other),
        }
    }
}

impl Place {
    /// The journal's directory.
    pub(super) fn journal_dir(&self) -> PathBuf {
        self.dir.join("journal")
    }

    pub(super) fn index_dir(&self) -> PathBuf {
        self.dir.join("index")
    }

    /// The readable segments in order; the others are set aside when `keep_bad` is given.
    pub(super) fn segments(
        &self,
        keep_bad: Option<usize>,
        report: &mut OpenReport,
    ) -> Result<Vec<SegmentHeader>, QueueError> {
        let dir = &self.journal_dir();
        let names = self.disk.list(dir).map_err(|failed| failed.or_no_journal(&self.dir))?;
        let numbers: BTreeSet<u64> = names.iter().filter_map(|name| number_in(name)).collect();
        let mut good: Vec<SegmentHeader> = Vec::new();
        let mut bad = Vec::new();
        for number in numbers {
            let path = path_of(dir, number);
            let header = match self.disk.is_regular(&path)? {
                true => scan::read_header(&*self.disk.file_to_read(&path)?)
                    .map_err(|source| QueueError::storage(READ_HEADER, &path, source))?,
                // A folder, a pipe, a device or a link to nothing: it is not even opened.
                false => None,
            };
            match header.filter(|header| header.number == number) {
                Some(header) => good.push(header),
                None => bad.push(path),
            }
        }
        if let Some(store) = good.last().map(|header| header.store) {
            let (ours, others) = good.into_iter().partition(|header| header.store == store);
            good = ours;
            bad.extend(others.iter().map(|header: &SegmentHeader| path_of(dir, header.number)));
        }
        for path in bad {
            let now = keep_bad.map_or(Ok(path.clone()), |keep| self.disk.set_aside(&path, keep))?;
            report.bad.push(now);
        }
        Ok(good)
    }

    /// Sequences that records of segments set aside may have had: results are numbered by them, and
    /// whoever takes results counts on none coming twice.
    pub(super) fn lost_sequences(&self) -> Result<u64, QueueError> {
        let dir = self.journal_dir();
        let mut lost = 0_u64;
        for name in self.disk.list(&dir)?.iter().filter(|name| name.contains(".seg.bad-")) {
            let file = self.disk.open_to_read(&dir.join(name)).and_then(|file| file.bytes());
            lost = lost.saturating_add(file.unwrap_or(0).div_ceil(ALIGN));
        }
        Ok(lost)
    }

    /// Whether there is room for an index on disk.
    pub(super) fn may_have_index(&self) -> bool {
        let free = self.disk.free(&self.dir).map_or(0, |free| free.bytes);
        self.disk.has_index() && free >= INDEX_ROOM
    }

    /// Writes a running queue's index into a new folder, when sled's files have grown far beyond what
    /// is in them. True: [`Place::take_copy`] puts it in place.
    pub(super) fn copy_if_grown(&self, index: &Index, requests: u64) -> Result<bool, QueueError> {
        let live = requests.saturating_mul(LIVE_BYTES);
        if index.bytes()? <= GROWN_BYTES.max(live.saturating_mul(GROWN_TIMES)) {
            return Ok(false);
        }
        let copy = self.dir.join(COPY);
        let disk: &dyn Disk = &RealDisk;
        disk.delete(&copy)?;
        index.copy_to(&copy)?;
        Ok(true)
    }

    /// Puts the copy in the place of the index, which is closed.
    pub(super) fn take_copy(&self) -> Result<Index, QueueError> {
        let disk: &dyn Disk = &RealDisk;
        disk.delete(&self.index_dir())?;
        disk.move_file(&self.dir.join(COPY), &self.index_dir())?;
        Index::open(&self.index_dir())
    }

    /// A new index from the journal, while the queue runs; everything in it is synced.
    pub(super) fn rebuild_running(&self, keep_bad: usize) -> Result<(Index, Ledger), QueueError> {
        let mut report = OpenReport::default();
        let found = self.segments(None, &mut report)?;
        let opened = self.rebuild(&found, keep_bad, &mut report)?;
        Ok((opened.index, opened.ledger))
    }

    /// The index as it lies there, brought up to the journal's end, if it can be trusted.
    pub(super) fn open_index(
        &self,
        found: &[SegmentHeader],
        clean: Option<&Mark>,
        report: &mut OpenReport,
    ) -> Result<Opened, Distrust> {
        let path = self.index_dir();
        if !self.disk.has_index() || !path.is_dir() {
            return Err(Distrust::behind("there was none"));
        }
        let index = Index::open(&path)?;
        let Some(mark) = index.get(&keys::MARK.into())? else {
            return Err(Distrust::damaged("it has no mark"));
        };
        let mark: Mark = keys::decode(&mark)?;
        if clean != Some(&mark) && (mark.boot != self.boot || self.boot.is_empty()) {
            return Err(Distrust::behind("the machine stopped before it was closed"));
        }
        self.check_mark(found, &mark)?;
        let mut ledger = Ledger::load(&index, &mark)?;
        self.check_lengths(found, &ledger)?;
        let known: BTreeSet<u64> = ledger.segments().keys().copied().collect();
        let strangers = |header: &&SegmentHeader| {
            header.number <= mark.segment && !known.contains(&header.number)
        };
        if let Some(header) = found.iter().find(strangers) {
            return Err(Distrust::damaged(format!("it does not know segment {}", header.number)));
        }
        let rest = found.iter().filter(|header| header.number >= mark.segment);
        let mut tail = Tail {
            header: None,
            read_from: mark.end,
            end: End { end: mark.end, dirty_end: mark.end },
            after: mark.segment,
            next_sequence: mark.next_sequence,
            last: mark.last,
        };
        for header in rest {
            let from = if header.number == mark.segment { mark.end } else { 0 };
            ledger.add_segment(header.number);
            self.replay_segment(header, from, &index, &mut ledger, &mut tail, report)?;
        }
        let exist: BTreeSet<u64> = found.iter().map(|header| header.number).collect();
        for number in known.difference(&exist) {
            if ledger.segments().get(number).is_some_and(|used| used.reasons > 0) {
                return Err(Distrust::damaged(format!("segment {number} that it needs is gone")));
            }
            ledger.segment_gone(&index, *number)?;
        }
        ledger.commit(&index, &self.mark_at(&tail, mark.store, &ledger))?;
        Ok(Opened { index, ledger, tail, store: mark.store })
    }

    /// No segment may be shorter than what the index has in it: whoever looks into the files' lengths
    /// notices a cut without reading them.
    fn check_lengths(&self, found: &[SegmentHeader], ledger: &Ledger) -> Result<(), Distrust> {
        for header in found {
            let Some(used) = ledger.segments().get(&header.number) else { continue };
            if self.length_of(header.number)? < used.end {
                let why = format!("a part of segment {} is cut off", header.number);
                return Err(Distrust::damaged(why));
            }
        }
        Ok(())
    }

    fn length_of(&self, segment: u64) -> Result<u64, QueueError> {
        let path = path_of(&self.journal_dir(), segment);
        let bytes = self.disk.file_to_read(&path)?.bytes();
        bytes.map_err(|source| QueueError::storage("measure", &path, source))
    }

    /// The mark must point at the very record that it was made with.
    fn check_mark(&self, found: &[SegmentHeader], mark: &Mark) -> Result<(), Distrust> {
        let Some(header) = found.iter().find(|header| header.number == mark.segment) else {
            return Err(Distrust::damaged(format!("its segment {} is gone", mark.segment)));
        };
        if header.store != mark.store {
            return Err(Distrust::damaged("it belongs to another journal"));
        }
        let path = path_of(&self.journal_dir(), mark.segment);
        let file = self.disk.file_to_read(&path)?;
        let bytes = file.bytes().map_err(|source| QueueError::storage("measure", &path, source))?;
        if bytes < mark.end {
            return Err(Distrust::damaged("a part of the journal is cut off"));
        }
        let Some((offset, crc)) = mark.last else { return Ok(()) };
        let mut bytes = [0; 64];
        let read = file.read_exact_at(&mut bytes, offset);
        let stored = bytes.get(60..64).and_then(|crc| crc.try_into().ok()).map(u32::from_le_bytes);
        let same = read.is_ok()
            && RecordHeader::decode(&bytes, header.tag).is_some()
            && stored == Some(crc);
        if same { Ok(()) } else { Err(Distrust::damaged("it is not of this journal's age")) }
    }

    /// Makes the index anew: in sled, or in memory when its place on disk cannot be used.
    pub(super) fn rebuild(
        &self,
        found: &[SegmentHeader],
        keep_bad: usize,
        report: &mut OpenReport,
    ) -> Result<Opened, QueueError> {
        let path = self.index_dir();
        let store = self.store_of(found)?;
        if !self.disk.has_index() {
            return self.replay_into(Index::in_memory(), found, store, report);
        }
        let mut attempt = || -> Result<Opened, QueueError> {
            if path.exists() {
                let disk: &dyn Disk = &RealDisk;
                let aside = disk.set_aside(&path, keep_bad)?;
                report.bad.push(aside);
            }
            self.replay_into(Index::open(&path)?, found, store, report)
        };
        // Whatever is wrong with the index's place, the journal may still be read.
        attempt().or_else(|failed| self.in_memory(found, failed, report))
    }

    /// The index in memory, while its place on disk cannot be used.
    pub(super) fn in_memory(
        &self,
        found: &[SegmentHeader],
        failed: QueueError,
        report: &mut OpenReport,
    ) -> Result<Opened, QueueError> {
        warn!(%failed, "queue: no index on disk; it is kept in memory until there is room");
        self.replay_into(Index::in_memory(), found, self.store_of(found)?, report)
    }

    fn replay_into(
        &self,
        index: Index,
        found: &[SegmentHeader],
        store: [u8; 16],
        report: &mut OpenReport,
    ) -> Result<Opened, QueueError> {
        let (ledger, tail) = self.replay(found, &index, report)?;
        Ok(Opened { index, ledger, tail, store })
    }

    fn store_of(&self, found: &[SegmentHeader]) -> Result<[u8; 16], QueueError> {
        if let Some(header) = found.last() {
            return Ok(header.store);
        }
        let mut store = [0; 16];
        getrandom::fill(&mut store).map_err(|error| {
            QueueError::storage("name", &self.dir, std::io::Error::other(error))
        })?;
        Ok(store)
    }

    /// Reads the whole journal into an empty index.
    pub(super) fn replay(
        &self,
        found: &[SegmentHeader],
        index: &Index,
        report: &mut OpenReport,
    ) -> Result<(Ledger, Tail), QueueError> {
        report.damage.clear();
        report.damaged = 0;
        report.replayed = 0;
        let mut ledger = Ledger::new(found.iter().map(|header| header.number));
        let mut tail = Tail {
            header: None,
            read_from: 0,
            end: End { end: 0, dirty_end: 0 },
            after: 0,
            next_sequence: 1,
            last: None,
        };
        for header in found {
            self.replay_segment(header, 0, index, &mut ledger, &mut tail, report)?;
        }
        if let Some(header) = found.last() {
            ledger.commit(index, &self.mark_at(&tail, header.store, &ledger))?;
        }
        Ok((ledger, tail))
    }

    fn replay_segment(
        &self,
        header: &SegmentHeader,
        from: u64,
        index: &Index,
        ledger: &mut Ledger,
        tail: &mut Tail,
        report: &mut OpenReport,
    ) -> Result<(), QueueError> {
        let path = path_of(&self.journal_dir(), header.number);
        let file = self.disk.file_to_read(&path)?;
        if from == 0 {
            tail.last = None;
            tail.end = End { end: SEGMENT_HEADER, dirty_end: SEGMENT_HEADER };
        }
        tail.header = Some(*header);
        tail.read_from = from.max(SEGMENT_HEADER);
        tail.after = header.number;
        let mut damage = Vec::new();
        let mut damaged = 0;
        let mut replayed = 0;
        let end = scan::scan(
            &path,
            &*file,
            header,
            from,
            |Found { id, meta, place, sequence, header_crc }| {
                ledger.apply(index, id, &meta, place)?;
                tail.next_sequence = tail.next_sequence.max(sequence + 1);
                tail.last = Some((place.offset, header_crc));
                tail.end.end = place.offset + place.span();
                replayed += 1;
                if ledger.pending() >= STEP {
                    ledger.commit(index, &self.mark_at(tail, header.store, ledger))?;
                }
                Ok(())
            },
            |found: Damage| {
                damaged += 1;
                if damage.len() < NAMED_DAMAGE {
                    damage.push(found);
                }
            },
        )?;
        tail.end = end;
        report.replayed += replayed;
        report.damaged += damaged;
        let room = NAMED_DAMAGE.saturating_sub(report.damage.len());
        report.damage.extend(damage.into_iter().take(room));
        Ok(())
    }

    fn mark_at(&self, tail: &Tail, store: [u8; 16], ledger: &Ledger) -> Mark {
        Mark {
            store,
            boot: self.boot.clone(),
            segment: tail.after,
            end: tail.end.end,
            next_sequence: tail.next_sequence,
            last: tail.last,
            totals: ledger.totals,
            newest: ledger.newest(),
        }
    }
}

/// Says that the index was synced with this mark.
pub(super) fn write_clean(disk: &dyn Disk, dir: &Path, mark: &Mark) -> Result<(), QueueError> {
    disk.write_small(&dir.join(CLEAN), &keys::encode(mark)?)?;
    disk.sync_entries(dir)
}

/// Waits, for a while, until no reader has the index any more, so that its files are closed.
pub(super) fn wait_until_free(mut index: Arc<Index>) {
    for _ in 0..2000 {
        match Arc::try_unwrap(index) {
            Ok(_) => return,
            Err(shared) => index = shared,
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// The mark of a close in good order, which is good for one opening.
pub(super) fn take_clean(disk: &dyn Disk, dir: &Path) -> Result<Option<Mark>, QueueError> {
    let path = dir.join(CLEAN);
    let Some(bytes) = disk.read_small(&path) else { return Ok(None) };
    disk.delete(&path)?;
    disk.sync_entries(dir)?;
    Ok(keys::decode(&bytes).ok())
}

/// The mark of a close in good order, which stays.
pub(super) fn see_clean(disk: &dyn Disk, dir: &Path) -> Option<Mark> {
    keys::decode(&disk.read_small(&dir.join(CLEAN))?).ok()
}
