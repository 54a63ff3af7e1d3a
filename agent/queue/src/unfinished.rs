//! What a repair has still to tell, on disk while it is at work.
//!
//! A repair takes away what lost requests could be named from: damaged records are written over, the
//! index is made anew. It may be killed between any two of its steps. So it notes first what it found,
//! and keeps the index aside; whoever opens the queue next, the repair itself or an agent after a kill,
//! tells from both what is lost, and removes them.
//!
//! **Invariant:** nothing that names a lost request is changed before the note says so, and the note goes
//! last.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{
    OpenReport, QueueError, RequestId,
    disk::{Disk, RealDisk},
    index::Index,
    keys::{self, Mark},
    lost::{self, Trust},
    replay::{self, Place},
};

/// The note's name, and the one that it has until it is whole.
const NOTE: &str = "repair.note";
const NEW: &str = "repair.note.new";
/// A longer note is none.
const LONGEST: usize = 64 * 1024 * 1024;
/// The name of the old index until it has told what it knows.
const OLD_INDEX: &str = "index.old";

/// The note.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Unfinished {
    /// The mark of the last close in good order before the repair.
    clean: Option<Mark>,
    /// The boot in which the repair began.
    boot: String,
    /// The index is worth a look.
    pub(super) is_bad: bool,
    /// Requests of which a record was damaged, or the old index said that they are lost.
    pub(super) named: BTreeSet<RequestId>,
    /// The old index has said what it knows.
    is_told: bool,
}

impl Unfinished {
    /// The note of a repair that was killed.
    pub(super) fn read(disk: &dyn Disk, dir: &Path) -> Option<Self> {
        keys::decode(&disk.read_up_to(&dir.join(NOTE), LONGEST)?).ok()
    }

    /// The note of a repair that begins, or goes on where one was killed.
    pub(super) fn of(place: &Place) -> Self {
        let killed = Self::read(&*place.disk, &place.dir).unwrap_or_default();
        if !killed.boot.is_empty() && !killed.is_told {
            return killed;
        }
        let clean = replay::see_clean(&*place.disk, &place.dir);
        Self { clean, boot: place.boot.clone(), named: killed.named, ..Self::default() }
    }

    /// Whether the index is to be made anew, because the journal was changed behind its back.
    pub(super) fn needs_new_index(&self) -> bool {
        !self.is_told
    }

    /// Puts the note on disk. On a full one a repair goes on without: that it is killed is less likely
    /// than that it is needed.
    pub(super) fn write(&self, place: &Place) -> Result<(), QueueError> {
        let (disk, new) = (&*place.disk, place.dir.join(NEW));
        let written = disk
            .write_small(&new, &keys::encode(self)?)
            .and_then(|()| disk.move_file(&new, &place.dir.join(NOTE)))
            .and_then(|()| disk.sync_entries(&place.dir));
        match written {
            Err(failed) if failed.is_no_space() => {
                warn!(%failed, "queue: what a repair finds cannot be noted; let it end");
                disk.delete(&new)
            }
            other => other,
        }
    }

    /// The index that there was before the repair; a newer one goes: all that it says is in the journal.
    pub(super) fn move_index_away(place: &Place) -> Result<(), QueueError> {
        let (old, index) = (place.dir.join(OLD_INDEX), place.index_dir());
        let disk: &dyn Disk = &RealDisk;
        match (old.exists(), index.exists()) {
            (true, _) => disk.delete(&index)?,
            (false, true) => disk.move_file(&index, &old)?,
            (false, false) => return Ok(()),
        }
        disk.sync_entries(&place.dir)
    }

    /// Whether an index waits aside to be asked.
    pub(super) fn has_old_index(place: &Place) -> bool {
        place.dir.join(OLD_INDEX).exists()
    }

    /// Says in the report what is lost. `made` is the index that was made of the repaired journal.
    pub(super) fn tell(&mut self, place: &Place, made: &Index, report: &mut OpenReport) {
        for id in &self.named {
            match is_known(made, *id) {
                Ok(false) => report.lost.push(*id),
                Ok(true) => {}
                Err(failed) => warn!(%failed, "queue: whether {id} is lost cannot be told"),
            }
        }
        let old = place.dir.join(OLD_INDEX);
        if !self.is_told && old.exists() {
            self.ask(&old, place, made, report);
        }
    }

    /// Removes the note with the old index; a bad one is kept.
    pub(super) fn end(mut self, place: &Place, keep_bad: usize, report: &mut OpenReport) {
        self.is_told = true;
        let old = place.dir.join(OLD_INDEX);
        match self.write(place).and_then(|()| self.remove(place, &old, keep_bad)) {
            Ok(aside) => report.bad.extend(aside),
            // It is told once more with the next opening.
            Err(failed) => warn!(%failed, "queue: the note of a repair cannot be removed"),
        }
    }

    fn ask(&mut self, old: &Path, place: &Place, made: &Index, report: &mut OpenReport) {
        let trust = Trust { clean: self.clean.clone(), boot: self.boot.clone() };
        match lost::requests(old, &trust, made, &*place.disk, &place.journal_dir()) {
            Ok(Some(lost)) => {
                let new = lost.into_iter().filter(|id| self.named.insert(*id));
                report.lost.extend(new);
            }
            Ok(None) => report.untold = Some("it is not of this boot or of a clean stop".into()),
            Err(failed) => {
                report.untold = Some(failed.to_string());
                self.is_bad = true;
            }
        }
    }

    fn remove(
        &self,
        place: &Place,
        old: &Path,
        keep_bad: usize,
    ) -> Result<Option<PathBuf>, QueueError> {
        let (real, disk): (&dyn Disk, _) = (&RealDisk, &*place.disk);
        let mut aside = None;
        if old.exists() && self.is_bad {
            aside = Some(real.set_aside_as(old, &place.index_dir(), keep_bad)?);
        } else {
            real.delete(old)?;
        }
        disk.delete(&place.dir.join(NOTE))?;
        disk.sync_entries(&place.dir)?;
        Ok(aside)
    }
}

fn is_known(made: &Index, id: RequestId) -> Result<bool, QueueError> {
    Ok(made.get(&keys::entry_key(id))?.is_some() || made.get(&keys::tombstone_key(id))?.is_some())
}
