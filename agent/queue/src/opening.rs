//! Opening a queue, to write or to look at.
//!
//! **Invariant:** nothing that cannot be read is deleted: it is renamed, and reported; whoever only
//! looks changes nothing.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tracing::warn;

use super::{
    Damage, QueueConfig, QueueError, RequestId,
    begin::{Headroom, Prepared, Setup},
    disk::{Disk, RealDisk},
    index::Index,
    journal::SegmentHeader,
    lock::DirLock,
    lost::{self, Trust},
    meter::{Meter, count},
    replay::{Distrust, Opened, Place, Tail, take_clean},
    segments::Journal,
    shared::Shared,
    unfinished::Unfinished,
    writer::Writer,
};

/// What was found when the queue was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Requests that are held.
    pub held: u64,
    /// Records read from the journal to bring the index up to date.
    pub replayed: u64,
    /// Why the index was made anew, if it was.
    pub rebuilt: Option<String>,
    /// Places in the journal that are no record and not empty, or whose checksum is wrong.
    pub damaged: u64,
    /// The first thousand of them. The end of an interrupted write is one too.
    pub damage: Vec<Damage>,
    /// Requests of which nothing is left, where the old index could name them.
    pub lost: Vec<RequestId>,
    /// Why the old index cannot name what is lost with a part of the journal, after a repair.
    pub untold: Option<String>,
    /// What could not be read and was renamed.
    pub bad: Vec<PathBuf>,
    /// There is no room for the index on disk: it is in memory until there is.
    pub index_in_memory: bool,
}

/// A queue whose writer only has to be started.
pub(super) type Ready = (Arc<Shared>, Writer, OpenReport);

/// Opens a queue to write.
pub(super) fn open(dir: &Path, config: QueueConfig) -> Result<Ready, QueueError> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    disk.make_dir(dir)?;
    let lock = DirLock::take(dir)?;
    open_on(&disk, dir, config, Some(lock))
}

/// Opens the queue that is on this disk, or makes one.
pub(super) fn open_on(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    config: QueueConfig,
    lock: Option<DirLock>,
) -> Result<Ready, QueueError> {
    let unfinished = Unfinished::read(&**disk, dir);
    let (mut ready, unfinished) = open_after_repair(disk, dir, config, lock, unfinished)?;
    if let Some(unfinished) = unfinished {
        let (shared, writer, report) = &mut ready;
        unfinished.end(&writer.place, shared.config.keep_bad, report);
    }
    Ok(ready)
}

/// The same, with the note of a repair, if there was one, which is left to be removed when what it says
/// was told.
pub(super) fn open_after_repair(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    config: QueueConfig,
    lock: Option<DirLock>,
    mut unfinished: Option<Unfinished>,
) -> Result<(Ready, Option<Unfinished>), QueueError> {
    let place = Place { disk: Arc::clone(disk), dir: dir.to_owned(), boot: disk.boot() };
    let journal_dir = place.journal_dir();
    disk.make_dir(&journal_dir)?;
    Prepared::clear(&**disk, &journal_dir)?;
    let mut report = OpenReport::default();
    let found = place.segments(Some(config.keep_bad), &mut report)?;
    let clean = take_clean(&**disk, dir)?;
    let index = match &unfinished {
        Some(repair) if repair.needs_new_index() => {
            Unfinished::move_index_away(&place)?;
            Err(Distrust::behind("it was repaired"))
        }
        _ => place.open_index(&found, clean.as_ref(), &mut report),
    };
    let opened = match index {
        Ok(opened) => opened,
        Err(distrust) => {
            let trust = Trust { clean, boot: place.boot.clone() };
            make_anew(distrust, &place, &found, (&trust, config.keep_bad), &mut report)?
        }
    };
    if let Some(unfinished) = &mut unfinished {
        unfinished.tell(&place, &opened.index, &mut report);
    }
    let meter = Arc::new(Meter::default());
    let is_counted = |id: &&RequestId| report.damage.iter().any(|place| place.id == Some(**id));
    let lost = report.lost.iter().filter(|id| !is_counted(id)).count();
    count(&meter.damaged, report.damaged + lost as u64);
    let setup = Setup {
        disk: Arc::clone(disk),
        dir: journal_dir.clone(),
        store: opened.store,
        segment_bytes: config.segment_bytes,
        headroom: Headroom { bytes: config.headroom_bytes, inodes: config.headroom_inodes },
        meter: Arc::clone(&meter),
    };
    let Opened { index, mut ledger, mut tail, store } = opened;
    tail.next_sequence = tail.next_sequence.saturating_add(place.lost_sequences()?);
    let journal = go_on(setup, &tail)?;
    ledger.add_segment(journal.active());
    report.held = ledger.totals.held;
    report.index_in_memory = !index.is_on_disk();
    let shared = Arc::new(Shared::new(config, Arc::clone(disk), journal_dir, meter, index));
    let mut writer = Writer::new(place, Arc::clone(&shared), (journal, ledger), store, lock);
    writer.start()?;
    Ok(((shared, writer, report), unfinished))
}

/// The index made anew from the journal: on disk, or in memory where there is no room for it there.
fn make_anew(
    distrust: Distrust,
    place: &Place,
    found: &[SegmentHeader],
    (trust, keep_bad): (&Trust, usize),
    report: &mut OpenReport,
) -> Result<Opened, QueueError> {
    let (why, is_damaged) = match distrust {
        Distrust::Rebuild { why, is_damaged } => (why, is_damaged),
        Distrust::NoRoom(failed) => return place.in_memory(found, failed, report),
        Distrust::Fail(failed) => return Err(failed),
    };
    if !found.is_empty() {
        report.rebuilt = Some(why);
    }
    if !is_damaged {
        // What cannot be removed is set aside.
        RealDisk.remove(&place.index_dir()).ok();
    }
    let opened = place.rebuild(found, keep_bad, report)?;
    name_lost(place, trust, &opened.index, report);
    Ok(opened)
}

/// The journal behind its last record, or a new segment where that one's end is not to be had back: what
/// could be read of it is served.
fn go_on(setup: Setup, tail: &Tail) -> Result<Journal, QueueError> {
    match tail.header.map(|header| Journal::resume(setup.clone(), header, tail)) {
        Some(Err(failed)) if !failed.is_unreadable() => Err(failed),
        Some(Ok(journal)) => Ok(journal),
        Some(Err(_)) | None => Journal::begin(setup, tail.after + 1, tail.next_sequence),
    }
}

/// Names what the old index knew and the journal has no more. It may be too damaged to tell.
fn name_lost(place: &Place, trust: &Trust, made: &Index, report: &mut OpenReport) {
    let Some(old) = lost::index_in(&report.bad, &place.index_dir()) else { return };
    match lost::requests(old, trust, made, &*place.disk, &place.journal_dir()) {
        Ok(Some(lost)) => report.lost = lost,
        Ok(None) => warn!("queue: the old index is too old to tell whether anything is lost"),
        Err(failed) => warn!(%failed, "queue: the old index cannot tell whether anything is lost"),
    }
}

/// Opens a queue that nobody writes to read it, without changing anything.
pub(super) fn open_to_read(
    dir: &Path,
) -> Result<(Shared, Option<DirLock>, OpenReport), QueueError> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let lock = DirLock::take_to_read(dir)?;
    let mut report = OpenReport::default();
    let place = Place { disk: Arc::clone(&disk), dir: dir.to_owned(), boot: String::new() };
    let found = place.segments(None, &mut report)?;
    let index = Index::in_memory();
    let (ledger, _) = place.replay(&found, &index, &mut report)?;
    report.held = ledger.totals.held;
    report.index_in_memory = true;
    let meter = Arc::new(Meter::default());
    let shared = Shared::new(QueueConfig::default(), disk, place.journal_dir(), meter, index);
    shared.publish(&ledger);
    Ok((shared, lock, report))
}
