//! Repairing a queue that nobody has: the index is made anew, and what is no record is taken out of
//! the journal.
//!
//! **Invariant:** nothing is lost by a repair: a segment is changed only after a copy of it, as it was,
//! is on disk beside it, and only where no record can be read.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tracing::warn;

use super::{
    Damage, OpenReport, Queue, QueueConfig, QueueError, RequestId,
    begin::{number_in, path_of},
    disk::{self, Disk, DiskFile, RealDisk},
    error::READ_HEADER,
    handle::off_reactor,
    lock::DirLock,
    opening,
    replay::{Distrust, Place, see_clean},
    scan,
    unfinished::Unfinished,
};

/// So much of a segment is copied at once.
const PIECE: usize = 64 * 1024;

/// What a repair found and did.
#[derive(Debug, Default)]
pub struct Repaired {
    /// The journal's folder was not there; it is made, and empty.
    pub journal_was_gone: bool,
    /// Places in the journal that were no records and are empty now, unless the disk does not let them
    /// be written.
    pub damage: Vec<Damage>,
    /// What was set aside of the journal because it is no file, or its header does not read.
    pub given_up: Vec<PathBuf>,
    /// Copies and files that were set aside: segments as they were, what is no segment, a bad index.
    pub aside: Vec<PathBuf>,
    /// Requests of which nothing is left.
    pub lost: Vec<RequestId>,
    /// Requests of which a record was damaged, and which are there all the same: an attempt, or
    /// their end, may be forgotten.
    pub touched: Vec<RequestId>,
    /// Why the old index cannot name what is lost with a part of the journal.
    pub untold: Option<String>,
    /// The opening of the repaired queue.
    pub report: OpenReport,
}

/// Repairs the queue in `dir` and closes it again. Reads the whole journal. Killed at any moment, it is
/// done again, or the queue opened, with the same to tell.
///
/// # Errors
/// [`QueueError::InUse`] when an agent has it, or the storage's; the queue is then as good as it was.
pub async fn repair(dir: &Path, config: QueueConfig) -> Result<Repaired, QueueError> {
    repair_on(Arc::new(RealDisk), dir, config).await
}

/// Repairs the queue that is on this disk.
pub(super) async fn repair_on(
    disk: Arc<dyn Disk>,
    dir: &Path,
    config: QueueConfig,
) -> Result<Repaired, QueueError> {
    let at = dir.to_owned();
    let keep_bad = config.keep_bad;
    let repairing = move || {
        let lock = DirLock::take(&at)?;
        let place = Place { disk: Arc::clone(&disk), dir: at.clone(), boot: disk.boot() };
        let (repaired, unfinished) = clear(&place, config.keep_bad)?;
        let damaged = unfinished.named.clone();
        // As it is at hand: on a full disk there is none to be read.
        let (noted, held) = (Some(unfinished), Some(lock.clone()));
        let (opened, unfinished) = opening::open_after_repair(&disk, &at, config, held, noted)?;
        Ok((repaired, damaged, Queue::start(opened, &at)?, (unfinished, place, lock)))
    };
    let (mut repaired, damaged, (queue, mut report), rest) = off_reactor(repairing).await?;
    for id in damaged {
        if queue.get(id).await?.is_some() {
            repaired.touched.push(id);
        }
    }
    queue.close().await?;
    // The note goes last, when all else is done and nobody has the queue yet.
    let ending = move || {
        let (unfinished, place, _lock) = rest;
        if let Some(unfinished) = unfinished {
            unfinished.end(&place, keep_bad, &mut report);
        }
        Ok(report)
    };
    let mut report = off_reactor(ending).await?;
    let is_segment = |path: &&PathBuf| path.to_string_lossy().contains(".seg.");
    repaired.given_up.extend(report.bad.iter().filter(is_segment).cloned());
    repaired.aside.extend(report.bad.iter().cloned());
    repaired.lost.clone_from(&report.lost);
    repaired.untold = report.untold.take();
    repaired.report = report;
    Ok(repaired)
}

/// Whether the index is worth a look: it does not open, or not to this journal.
fn is_bad(place: &Place) -> Result<bool, QueueError> {
    let mut report = OpenReport::default();
    let found = place.segments(None, &mut report)?;
    let clean = see_clean(&*place.disk, &place.dir);
    match place.open_index(&found, clean.as_ref(), &mut report) {
        Ok(_opened) => Ok(false),
        Err(Distrust::Rebuild { is_damaged, .. }) => Ok(is_damaged),
        // Whoever asks it what is lost will see.
        Err(Distrust::NoRoom(_)) => Ok(false),
        Err(Distrust::Fail(failed)) => Err(failed),
    }
}

/// Empties the damaged places. The note that this leaves has the next opening make the index anew and
/// tell what is lost.
fn clear(place: &Place, keep_bad: usize) -> Result<(Repaired, Unfinished), QueueError> {
    let disk = &*place.disk;
    let mut repaired = Repaired::default();
    let journal = place.journal_dir();
    if !journal.exists() {
        repaired.journal_was_gone = true;
        disk.make_dir(&journal)?;
    }
    let mut unfinished = Unfinished::of(place);
    unfinished.write(place)?;
    let segments = || -> Result<Vec<PathBuf>, QueueError> {
        let names = disk.list(&journal)?;
        Ok(names.iter().filter_map(|name| Some(path_of(&journal, number_in(name)?))).collect())
    };
    for path in segments()? {
        if !disk.is_regular(&path)? || !gives_header(disk, &path)? {
            let aside = disk.set_aside(&path, keep_bad)?;
            repaired.given_up.push(aside.clone());
            repaired.aside.push(aside);
        }
    }
    if !Unfinished::has_old_index(place) {
        // Before anything is changed that it could be held against.
        unfinished.is_bad = is_bad(place)?;
        unfinished.write(place)?;
    }
    for path in segments()? {
        clear_segment(place, &path, keep_bad, &mut unfinished, &mut repaired)?;
    }
    disk.sync_entries(&place.dir)?;
    Ok((repaired, unfinished))
}

/// Whether the disk gives a segment's header, or what is in its place.
fn gives_header(disk: &dyn Disk, path: &Path) -> Result<bool, QueueError> {
    let read = scan::read_header(&*disk.file_to_read(path)?);
    Ok(!read.is_err_and(|error| disk::is_unreadable(&error)))
}

/// Empties the damaged places of one segment; what the disk does not let be written stays as it is, and
/// takes nothing else with it.
fn clear_segment(
    place: &Place,
    path: &Path,
    keep_bad: usize,
    unfinished: &mut Unfinished,
    repaired: &mut Repaired,
) -> Result<(), QueueError> {
    let disk = &*place.disk;
    let failed = |what, source| QueueError::storage(what, path, source);
    let file = disk.open_file(path)?;
    // Without its header it is no segment: the opening sets it aside.
    let header = scan::read_header(&*file).map_err(|source| failed(READ_HEADER, source))?;
    let Some(header) = header else { return Ok(()) };
    let mut damage = Vec::new();
    scan::scan(path, &*file, &header, 0, |_| Ok(()), |found| damage.push(found))?;
    if damage.is_empty() {
        return Ok(());
    }
    unfinished.named.extend(damage.iter().filter_map(|found| found.id));
    unfinished.write(place)?;
    repaired.aside.push(keep_copy(disk, path, keep_bad)?);
    let len = file.bytes().map_err(|source| failed("measure", source))?;
    let mut cleared = Ok(());
    for found in &damage {
        let end = found.offset.saturating_add(found.bytes).min(len);
        cleared = cleared.and(disk::zero_range(&*file, found.offset.min(end), end));
    }
    match cleared.and_then(|()| file.sync_data()) {
        Err(error) if disk::is_unreadable(&error) => {
            warn!(segment = %path.display(), %error, "queue: a damaged part stays: the disk does not take it");
        }
        other => other.map_err(|source| failed("clear the damage in", source))?,
    }
    repaired.damage.append(&mut damage);
    Ok(())
}

/// A copy of a segment, synced, under the name that bad ones get; what the disk does not give is
/// filled up.
fn keep_copy(disk: &dyn Disk, path: &Path, keep_bad: usize) -> Result<PathBuf, QueueError> {
    // The original keeps its name all the time; only a whole copy gets the name of a bad one.
    let beside = path.with_extension("copy");
    let copied = disk.file_to_read(path).and_then(|from| {
        let to = disk.create_file(&beside, 0)?;
        copy(&*from, &*to).map_err(|source| QueueError::storage("copy", path, source))
    });
    if let Err(failed) = copied {
        disk.delete(&beside).ok();
        return Err(failed);
    }
    disk.set_aside_as(&beside, path, keep_bad)
}

fn copy(from: &dyn DiskFile, to: &dyn DiskFile) -> io::Result<()> {
    let (mut at, len) = (0, from.bytes()?);
    let mut bytes = vec![0; PIECE];
    while at < len {
        let piece = usize::try_from(len - at).unwrap_or(PIECE).min(PIECE);
        let (piece, _) = bytes.split_at_mut(piece);
        scan::read_what_reads(from, piece, at)?;
        to.write_all_at(piece, at)?;
        at += piece.len() as u64;
    }
    to.sync_data()
}

#[cfg(test)]
mod tests;
