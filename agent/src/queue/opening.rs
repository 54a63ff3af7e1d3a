//! Opening a queue: which segments there are, whether the index can be trusted, and the replay of the
//! journal when it cannot.
//!
//! **Invariant:** the index is trusted only when it was closed in good order or written in this boot
//! of the machine, and its mark matches the journal byte for byte; the journal decides everything
//! else. Nothing that cannot be read is deleted: it is renamed, and reported.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use tracing::warn;

use super::{
    Damage, OpenReport, QueueConfig, QueueError,
    files::{self, DirLock, Meter, count},
    index::Index,
    journal::{RecordHeader, SEGMENT_HEADER, SegmentHeader},
    keys::{self, Mark},
    ledger::Ledger,
    scan::{self, End, Found},
    segments::{self, Journal, Setup, path_of},
    shared::Shared,
    writer::Writer,
};

/// Damaged places that the report names; the rest is only counted.
const NAMED_DAMAGE: usize = 1000;
/// Changes that go into the index at once in a replay.
const STEP: usize = 8192;
const CLEAN: &str = "index.clean";

/// The journal's directory in a queue's.
pub(super) fn journal_dir(dir: &Path) -> PathBuf {
    dir.join("journal")
}

fn index_dir(dir: &Path) -> PathBuf {
    dir.join("index")
}

fn boot_id() -> String {
    // Where there is none, no boot is taken to be the same.
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Opens a queue to write.
pub(super) fn open(
    dir: &Path,
    config: QueueConfig,
) -> Result<(Arc<Shared>, Writer, OpenReport), QueueError> {
    let journal_dir = journal_dir(dir);
    files::create_dir(dir)?;
    let lock = DirLock::take(dir)?;
    files::create_dir(&journal_dir)?;
    segments::remove_prepared(&journal_dir)?;
    let mut report = OpenReport::default();
    let found = list_segments(&journal_dir, Some(config.keep_bad), &mut report)?;
    let clean = take_clean(dir)?;
    let boot = boot_id();
    let opened = match open_index(dir, &journal_dir, &found, clean.as_ref(), &boot, &mut report) {
        Ok(opened) => opened,
        Err(Distrust::Rebuild(why)) => {
            if !found.is_empty() {
                report.rebuilt = Some(why);
            }
            rebuild(dir, &found, &boot, config.keep_bad, &mut report)?
        }
        Err(Distrust::NoRoom(failed)) => {
            in_memory(&journal_dir, &found, &boot, failed, &mut report)?
        }
        Err(Distrust::Fail(failed)) => return Err(failed),
    };
    let meter = Arc::new(Meter::default());
    count(&meter.damaged, report.damaged);
    let setup = Setup {
        dir: journal_dir.clone(),
        store: opened.store,
        segment_bytes: config.segment_bytes,
        headroom: config.headroom_bytes,
        meter: Arc::clone(&meter),
    };
    let Opened { index, mut ledger, tail, store } = opened;
    let journal = match tail.header {
        Some(header) => Journal::resume(setup, header, tail.end, tail.next_sequence, tail.last)?,
        None => Journal::begin(setup, tail.after + 1, tail.next_sequence)?,
    };
    ledger.add_segment(journal.active());
    report.held = ledger.totals.held;
    report.index_in_memory = !index.is_on_disk();
    let shared = Arc::new(Shared::new(config, journal_dir, meter, index));
    let mut writer =
        Writer::new(dir.to_owned(), Arc::clone(&shared), (journal, ledger), store, boot, lock);
    writer.start()?;
    Ok((shared, writer, report))
}

/// Opens a queue that nobody writes to read it, without changing anything.
pub(super) fn open_to_read(
    dir: &Path,
) -> Result<(Shared, Option<DirLock>, OpenReport), QueueError> {
    let journal_dir = journal_dir(dir);
    let lock = DirLock::take_to_read(dir)?;
    let mut report = OpenReport::default();
    let found = list_segments(&journal_dir, None, &mut report)?;
    let index = Index::in_memory();
    let (ledger, _) = replay(&journal_dir, &found, &index, "", &mut report)?;
    report.held = ledger.totals.held;
    report.index_in_memory = true;
    let shared =
        Shared::new(QueueConfig::default(), journal_dir, Arc::new(Meter::default()), index);
    shared.publish(&ledger);
    Ok((shared, lock, report))
}

/// A new index from the journal, while the queue runs; everything in it is synced.
pub(super) fn rebuild_running(
    dir: &Path,
    keep_bad: usize,
    boot: &str,
) -> Result<(Index, Ledger), QueueError> {
    let mut report = OpenReport::default();
    let found = list_segments(&journal_dir(dir), None, &mut report)?;
    let opened = rebuild(dir, &found, boot, keep_bad, &mut report)?;
    Ok((opened.index, opened.ledger))
}

struct Opened {
    index: Index,
    ledger: Ledger,
    tail: Tail,
    store: [u8; 16],
}

/// Where the journal goes on.
struct Tail {
    /// The last segment; `None`: there is none.
    header: Option<SegmentHeader>,
    /// Its end.
    end: End,
    /// The highest number seen.
    after: u64,
    next_sequence: u64,
    last: Option<(u64, u32)>,
}

enum Distrust {
    /// The index is of no use, and why.
    Rebuild(String),
    /// There is no room to open it.
    NoRoom(QueueError),
    /// Not even the journal can be read.
    Fail(QueueError),
}

impl From<QueueError> for Distrust {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::Index { detail } => Distrust::Rebuild(detail),
            full if full.is_no_space() => Distrust::NoRoom(full),
            other => Distrust::Fail(other),
        }
    }
}

/// The readable segments in order; the others are set aside when `keep_bad` is given.
fn list_segments(
    dir: &Path,
    keep_bad: Option<usize>,
    report: &mut OpenReport,
) -> Result<Vec<SegmentHeader>, QueueError> {
    let list = std::fs::read_dir(dir).map_err(|source| QueueError::storage("list", dir, source))?;
    let mut numbers = BTreeSet::new();
    for found in list {
        let name = found.map_err(|source| QueueError::storage("list", dir, source))?.file_name();
        numbers.extend(name.to_str().and_then(segments::number_in));
    }
    let mut good: Vec<SegmentHeader> = Vec::new();
    let mut bad = Vec::new();
    for number in numbers {
        let path = path_of(dir, number);
        let header = scan::read_header(&files::open_to_read(&path)?)
            .map_err(|source| QueueError::storage("read", &path, source))?;
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
        let now = keep_bad.map_or(Ok(path.clone()), |keep| files::set_aside(&path, keep))?;
        report.bad.push(now);
    }
    Ok(good)
}

/// The mark of a close in good order, which is good for one opening.
fn take_clean(dir: &Path) -> Result<Option<Mark>, QueueError> {
    let path = dir.join(CLEAN);
    let Ok(bytes) = std::fs::read(&path) else { return Ok(None) };
    files::remove(&path)?;
    files::sync_dir(dir)?;
    Ok(keys::decode(&bytes).ok())
}

/// Says that the index was synced with this mark.
pub(super) fn write_clean(dir: &Path, mark: &Mark) -> Result<(), QueueError> {
    let path = dir.join(CLEAN);
    let bytes = keys::encode(mark)?;
    let written =
        std::fs::write(&path, bytes).and_then(|()| std::fs::File::open(&path)?.sync_all());
    written.map_err(|source| QueueError::storage("write", &path, source))?;
    files::sync_dir(dir)
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

fn open_index(
    dir: &Path,
    journal_dir: &Path,
    found: &[SegmentHeader],
    clean: Option<&Mark>,
    boot: &str,
    report: &mut OpenReport,
) -> Result<Opened, Distrust> {
    let path = index_dir(dir);
    if !path.is_dir() {
        return Err(Distrust::Rebuild("there was none".into()));
    }
    let index = Index::open(&path)?;
    let Some(mark) = index.get(keys::MARK)? else {
        return Err(Distrust::Rebuild("it has no mark".into()));
    };
    let mark: Mark = keys::decode(&mark)?;
    if clean != Some(&mark) && (mark.boot != boot || boot.is_empty()) {
        return Err(Distrust::Rebuild("the machine stopped before it was closed".into()));
    }
    check_mark(journal_dir, found, &mark)?;
    let mut ledger = Ledger::load(&index, &mark)?;
    let known: BTreeSet<u64> = ledger.segments().keys().copied().collect();
    let strangers =
        |header: &&SegmentHeader| header.number <= mark.segment && !known.contains(&header.number);
    if let Some(header) = found.iter().find(strangers) {
        return Err(Distrust::Rebuild(format!("it does not know segment {}", header.number)));
    }
    let rest = found.iter().filter(|header| header.number >= mark.segment);
    let mut tail = Tail {
        header: None,
        end: End { end: mark.end, dirty_end: mark.end },
        after: mark.segment,
        next_sequence: mark.next_sequence,
        last: mark.last,
    };
    for header in rest {
        let from = if header.number == mark.segment { mark.end } else { 0 };
        ledger.add_segment(header.number);
        replay_segment(journal_dir, header, from, &index, &mut ledger, &mut tail, boot, report)?;
    }
    let exist: BTreeSet<u64> = found.iter().map(|header| header.number).collect();
    for number in known.difference(&exist) {
        if ledger.segments().get(number).is_some_and(|used| used.reasons > 0) {
            return Err(Distrust::Rebuild(format!("segment {number} that it needs is gone")));
        }
        ledger.segment_gone(&index, *number)?;
    }
    ledger.commit(&index, &mark_at(&tail, mark.store, boot, &ledger))?;
    Ok(Opened { index, ledger, tail, store: mark.store })
}

/// The mark must point at the very record that it was made with.
fn check_mark(dir: &Path, found: &[SegmentHeader], mark: &Mark) -> Result<(), Distrust> {
    use std::os::unix::fs::FileExt;
    let Some(header) = found.iter().find(|header| header.number == mark.segment) else {
        return Err(Distrust::Rebuild(format!("its segment {} is gone", mark.segment)));
    };
    if header.store != mark.store {
        return Err(Distrust::Rebuild("it belongs to another journal".into()));
    }
    let Some((offset, crc)) = mark.last else { return Ok(()) };
    let mut bytes = [0; 64];
    let read = files::open_to_read(&path_of(dir, mark.segment))?.read_exact_at(&mut bytes, offset);
    let stored = bytes.get(60..64).and_then(|crc| crc.try_into().ok()).map(u32::from_le_bytes);
    let same =
        read.is_ok() && RecordHeader::decode(&bytes, header.tag).is_some() && stored == Some(crc);
    if same { Ok(()) } else { Err(Distrust::Rebuild("it is not of this journal's age".into())) }
}

/// Makes the index anew: in sled, or in memory when its place on disk cannot be used.
fn rebuild(
    dir: &Path,
    found: &[SegmentHeader],
    boot: &str,
    keep_bad: usize,
    report: &mut OpenReport,
) -> Result<Opened, QueueError> {
    let path = index_dir(dir);
    let store = store_of(found, dir)?;
    let journal_dir = journal_dir(dir);
    let mut attempt = || -> Result<Opened, QueueError> {
        if path.exists() {
            let aside = files::set_aside(&path, keep_bad)?;
            report.bad.push(aside);
        }
        let index = Index::open(&path)?;
        let (ledger, tail) = replay(&journal_dir, found, &index, boot, report)?;
        Ok(Opened { index, ledger, tail, store })
    };
    // Whatever is wrong with the index's place, the journal may still be read.
    attempt().or_else(|failed| in_memory(&journal_dir, found, boot, failed, report))
}

fn in_memory(
    journal_dir: &Path,
    found: &[SegmentHeader],
    boot: &str,
    failed: QueueError,
    report: &mut OpenReport,
) -> Result<Opened, QueueError> {
    warn!(%failed, "queue: no index on disk; it is kept in memory until the next start");
    let store = store_of(found, journal_dir)?;
    let index = Index::in_memory();
    let (ledger, tail) = replay(journal_dir, found, &index, boot, report)?;
    Ok(Opened { index, ledger, tail, store })
}

fn store_of(found: &[SegmentHeader], dir: &Path) -> Result<[u8; 16], QueueError> {
    found.last().map_or_else(|| new_store(dir), |header| Ok(header.store))
}

fn new_store(dir: &Path) -> Result<[u8; 16], QueueError> {
    let mut store = [0; 16];
    getrandom::fill(&mut store)
        .map_err(|error| QueueError::storage("name", dir, std::io::Error::other(error)))?;
    Ok(store)
}

fn replay(
    dir: &Path,
    found: &[SegmentHeader],
    index: &Index,
    boot: &str,
    report: &mut OpenReport,
) -> Result<(Ledger, Tail), QueueError> {
    report.damage.clear();
    report.damaged = 0;
    report.replayed = 0;
    let mut ledger = Ledger::new(found.iter().map(|header| header.number));
    let mut tail = Tail {
        header: None,
        end: End { end: 0, dirty_end: 0 },
        after: 0,
        next_sequence: 1,
        last: None,
    };
    for header in found {
        replay_segment(dir, header, 0, index, &mut ledger, &mut tail, boot, report)?;
    }
    if let Some(header) = found.last() {
        ledger.commit(index, &mark_at(&tail, header.store, boot, &ledger))?;
    }
    Ok((ledger, tail))
}

#[allow(clippy::too_many_arguments, reason = "one step of a replay, called twice")]
fn replay_segment(
    dir: &Path,
    header: &SegmentHeader,
    from: u64,
    index: &Index,
    ledger: &mut Ledger,
    tail: &mut Tail,
    boot: &str,
    report: &mut OpenReport,
) -> Result<(), QueueError> {
    let path = path_of(dir, header.number);
    let file = files::open_to_read(&path)?;
    if from == 0 {
        tail.last = None;
        tail.end = End { end: SEGMENT_HEADER, dirty_end: SEGMENT_HEADER };
    }
    tail.header = Some(*header);
    tail.after = header.number;
    let mut damage = Vec::new();
    let mut damaged = 0;
    let mut replayed = 0;
    let end = scan::scan(
        &path,
        &file,
        header,
        from,
        |Found { id, meta, place, sequence, header_crc }| {
            ledger.apply(index, id, &meta, place)?;
            tail.next_sequence = tail.next_sequence.max(sequence + 1);
            tail.last = Some((place.offset, header_crc));
            tail.end.end = place.offset + place.span();
            replayed += 1;
            if ledger.pending() >= STEP {
                ledger.commit(index, &mark_at(tail, header.store, boot, ledger))?;
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

fn mark_at(tail: &Tail, store: [u8; 16], boot: &str, ledger: &Ledger) -> Mark {
    Mark {
        store,
        boot: boot.to_owned(),
        segment: tail.after,
        end: tail.end.end,
        next_sequence: tail.next_sequence,
        last: tail.last,
        totals: ledger.totals,
        newest: ledger.newest(),
    }
}
