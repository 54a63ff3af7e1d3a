//! Repairing a queue that nobody has: the index is made anew, and what is no record is taken out of
//! the journal.
//!
//! **Invariant:** nothing is lost by a repair: a segment is changed only after a copy of it, as it was,
//! is on disk beside it, and only where no record can be read.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Damage, OpenReport, Queue, QueueConfig, QueueError, RequestId,
    begin::{number_in, path_of},
    disk::{self, Disk, RealDisk},
    error::READ_HEADER,
    keys::Mark,
    lock::DirLock,
    lost::Trust,
    replay::{Distrust, Place, take_clean},
    scan,
};

/// The name of the index while the new one is made.
const OLD_INDEX: &str = "index.old";

/// What a repair found and did.
#[derive(Debug, Default)]
pub struct Repaired {
    /// Places in the journal that were no records and are empty now.
    pub damage: Vec<Damage>,
    /// Copies and files that were set aside: segments as they were, what is no segment, a bad index.
    pub aside: Vec<PathBuf>,
    /// Requests whose records were damaged and of which nothing is left.
    pub lost: Vec<RequestId>,
    /// Requests of which a record was damaged, and which are there all the same: an attempt, or
    /// their end, may be forgotten.
    pub touched: Vec<RequestId>,
    /// Why the old index cannot name what is lost with a part of the journal.
    pub untold: Option<String>,
    /// The opening of the repaired queue.
    pub report: OpenReport,
}

/// Repairs the queue in `dir` and closes it again. Reads the whole journal.
///
/// # Errors
/// [`QueueError::InUse`] when an agent has it, or the storage's; the queue is then as good as it was.
pub async fn repair(dir: &Path, config: QueueConfig) -> Result<Repaired, QueueError> {
    let (at, keep_bad) = (dir.to_owned(), config.keep_bad);
    let cleared = super::off_reactor(move || clear(&at, keep_bad)).await?;
    let Cleared { mut repaired, trust, old } = cleared;
    let at = dir.to_owned();
    let (queue, report) = super::off_reactor(move || Queue::open(&at, config)).await?;
    repaired.aside.extend(report.bad.iter().cloned());
    repaired.report = report;
    let named: BTreeSet<RequestId> = repaired.damage.iter().filter_map(|place| place.id).collect();
    for id in named.iter().copied() {
        match queue.get(id).await? {
            Some(_) => repaired.touched.push(id),
            None if queue.read(move |shared| shared.is_forgotten(id)).await? => {}
            None => repaired.lost.push(id),
        }
    }
    if let Some(OldIndex { path, mut is_bad }) = old {
        let at = path.clone();
        match queue.read(move |shared| shared.lost_since(&at, &trust)).await {
            Ok(Some(lost)) => {
                repaired.lost.extend(lost.into_iter().filter(|id| !named.contains(id)));
            }
            Ok(None) => repaired.untold = Some("the machine stopped since it was written".into()),
            Err(failed) => {
                repaired.untold = Some(failed.to_string());
                is_bad = true;
            }
        }
        let index = dir.join("index");
        let put = move || put_aside(&path, &index, is_bad, keep_bad);
        repaired.aside.extend(super::off_reactor(put).await?);
    }
    queue.close().await?;
    Ok(repaired)
}

/// What a repair goes on with when the journal is good.
struct Cleared {
    repaired: Repaired,
    trust: Trust,
    old: Option<OldIndex>,
}

/// The index that there was, out of the new one's way.
struct OldIndex {
    path: PathBuf,
    is_bad: bool,
}

/// Keeps a bad index beside the new one, and deletes a good one: all that it says is in the journal.
fn put_aside(
    old: &Path,
    index: &Path,
    is_bad: bool,
    keep_bad: usize,
) -> Result<Option<PathBuf>, QueueError> {
    let disk: &dyn Disk = &RealDisk;
    if is_bad {
        return disk.set_aside_as(old, index, keep_bad).map(Some);
    }
    disk.delete(old)?;
    Ok(None)
}

/// Whether the index is worth a look: it does not open, or not to this journal.
fn is_bad(place: &Place, clean: Option<&Mark>) -> Result<bool, QueueError> {
    let mut report = OpenReport::default();
    let found = place.segments(None, &mut report)?;
    match place.open_index(&found, clean, &mut report) {
        Ok(_opened) => Ok(false),
        Err(Distrust::Rebuild { is_damaged, .. }) => Ok(is_damaged),
        // Whoever asks it what is lost will see.
        Err(Distrust::NoRoom(_)) => Ok(false),
        Err(Distrust::Fail(failed)) => Err(failed),
    }
}

fn move_away(disk: &dyn Disk, place: &Place) -> Result<PathBuf, QueueError> {
    let old = place.dir.join(OLD_INDEX);
    disk.delete(&old)?;
    disk.move_file(&place.index_dir(), &old)?;
    Ok(old)
}

/// Empties the damaged places and moves the index out of the way, so that the next opening makes it anew.
fn clear(dir: &Path, keep_bad: usize) -> Result<Cleared, QueueError> {
    let lock = DirLock::take(dir)?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let place = Place { disk: Arc::clone(&disk), dir: dir.to_owned(), boot: disk.boot() };
    let disk = &*disk;
    let mut repaired = Repaired::default();
    let journal = place.journal_dir();
    let segments = || -> Result<Vec<PathBuf>, QueueError> {
        let names = disk.list(&journal)?;
        Ok(names.iter().filter_map(|name| Some(path_of(&journal, number_in(name)?))).collect())
    };
    for path in segments()? {
        let file = disk.file_to_read(&path)?;
        if scan::read_header(&*file).is_err_and(|error| disk::is_unreadable(&error)) {
            repaired.aside.push(disk.set_aside(&path, keep_bad)?);
        }
    }
    let clean = take_clean(disk, dir)?;
    // Before anything is changed that it could be held against.
    let is_bad = is_bad(&place, clean.as_ref())?;
    for path in segments()? {
        clear_segment(disk, &path, keep_bad, &mut repaired)?;
    }
    let old = if place.index_dir().exists() { Some(move_away(disk, &place)?) } else { None };
    disk.sync_entries(dir)?;
    drop(lock);
    let trust = Trust { clean, boot: place.boot };
    Ok(Cleared { repaired, trust, old: old.map(|path| OldIndex { path, is_bad }) })
}

fn clear_segment(
    disk: &dyn Disk,
    path: &Path,
    keep_bad: usize,
    repaired: &mut Repaired,
) -> Result<(), QueueError> {
    let failed = |what, source| QueueError::storage(what, path, source);
    let file = disk.open_file(path)?;
    // Without its header it is no segment: the opening sets it aside.
    let header = scan::read_header(&*file).map_err(|source| failed(READ_HEADER, source))?;
    let Some(header) = header else { return Ok(()) };
    let mut damage = Vec::new();
    scan::scan(path, &*file, &header, 0, |_| Ok(()), |place| damage.push(place))?;
    if damage.is_empty() {
        return Ok(());
    }
    repaired.aside.push(keep_copy(disk, path, keep_bad)?);
    let len = file.bytes().map_err(|source| failed("measure", source))?;
    for place in &damage {
        let end = place.offset.saturating_add(place.bytes).min(len);
        disk::zero_range(&*file, place.offset.min(end), end)
            .map_err(|source| failed("clear the damage in", source))?;
    }
    file.sync_data().map_err(|source| failed("sync", source))?;
    repaired.damage.append(&mut damage);
    Ok(())
}

/// A copy of a segment, synced, under the name that bad ones get.
fn keep_copy(disk: &dyn Disk, path: &Path, keep_bad: usize) -> Result<PathBuf, QueueError> {
    // The original keeps its name all the time; only a whole copy gets the name of a bad one.
    let beside = path.with_extension("copy");
    std::fs::copy(path, &beside)
        .and_then(|_| std::fs::File::open(&beside)?.sync_all())
        .inspect_err(|_| drop(std::fs::remove_file(&beside)))
        .map_err(|source| QueueError::storage("copy", path, source))?;
    disk.set_aside_as(&beside, path, keep_bad)
}
