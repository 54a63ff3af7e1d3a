//! Repairing a queue that nobody has: the index is made anew, and what is no record is taken out of
//! the journal.
//!
//! **Invariant:** nothing is lost by a repair: a segment is changed only after a copy of it, as it was,
//! is on disk beside it, and only where no record can be read.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::{
    Damage, OpenReport, Queue, QueueConfig, QueueError, RequestId,
    begin::{number_in, path_of},
    disk::{self, Disk, RealDisk},
    lock::DirLock,
    lost::{self, Trust},
    replay::take_clean,
    scan,
};

/// What a repair found and did.
#[derive(Debug, Default)]
pub struct Repaired {
    /// Places in the journal that were no records and are empty now.
    pub damage: Vec<Damage>,
    /// Copies and files that were set aside: segments as they were, what is no segment, the old index.
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
    let (mut repaired, trust) = super::off_reactor(move || clear(&at, keep_bad)).await?;
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
    if let Some(old) = lost::index_in(&repaired.aside, &dir.join("index")).cloned() {
        match queue.read(move |shared| shared.lost_since(&old, &trust)).await {
            Ok(Some(lost)) => {
                repaired.lost.extend(lost.into_iter().filter(|id| !named.contains(id)));
            }
            Ok(None) => repaired.untold = Some("the machine stopped since it was written".into()),
            Err(failed) => repaired.untold = Some(failed.to_string()),
        }
    }
    queue.close().await?;
    Ok(repaired)
}

/// Empties the damaged places and sets the index aside, so that the next opening makes it anew.
fn clear(dir: &Path, keep_bad: usize) -> Result<(Repaired, Trust), QueueError> {
    let lock = DirLock::take(dir)?;
    let disk: &dyn Disk = &RealDisk;
    let mut repaired = Repaired::default();
    let journal = dir.join("journal");
    for number in disk.list(&journal)?.iter().filter_map(|name| number_in(name)) {
        clear_segment(disk, &path_of(&journal, number), keep_bad, &mut repaired)?;
    }
    let trust = Trust { clean: take_clean(disk, dir)?, boot: disk.boot() };
    let index = dir.join("index");
    if index.exists() {
        repaired.aside.push(disk.set_aside(&index, keep_bad)?);
    }
    disk.sync_entries(dir)?;
    drop(lock);
    Ok((repaired, trust))
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
    let header = scan::read_header(&*file).map_err(|source| failed("read", source))?;
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
