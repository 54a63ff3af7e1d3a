//! Moving what still counts out of segments that are nearly dead, so that one long-lived record does
//! not keep a whole segment on the disk.
//!
//! **Invariant:** a record that is moved is durable in its new place before its old one can go; what a
//! request is does not change by it.

use std::collections::BTreeSet;

use tracing::warn;

use super::{
    QueueError, RequestId,
    begin::{Purpose, path_of},
    error::READ_HEADER,
    journal::{FinalMeta, Meta, Place, RetryMeta},
    ledger::Ledger,
    meter::count,
    scan::{self, Found},
    shared::Shared,
    writer::Writer,
};

/// A segment of which less than so many hundredths count is nearly dead.
const NEARLY_DEAD: u64 = 25;
/// The same where there is little room: two of them give at least one back.
const NEARLY_DEAD_IF_TIGHT: u64 = 50;
/// Segments' worth of space that may be dead before anything is moved.
const SPARED: u64 = 2;
/// Segments emptied at once, at most.
const AT_ONCE: usize = 2;
/// With room for fewer segments than this, space is looked after with each one that is begun.
const TIGHT: u64 = 4;

/// What the writer remembers of moving records.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    /// Segments that were tried to be emptied since the opening, and are there still.
    stuck: BTreeSet<u64>,
    /// The disk had room for few segments more, or for none, when the last one was begun.
    pub(super) is_due: bool,
    /// Bytes that were free when there was no room to move anything.
    no_room_with: Option<u64>,
}

/// The segment to empty next: the one with the least that counts, when enough space is dead.
fn nearly_dead(
    ledger: &Ledger,
    active: u64,
    (percent, spared): (u64, u64),
    size_of: impl Fn(u64) -> Option<u64>,
) -> Option<u64> {
    let mut dead = 0_u64;
    let mut least: Option<(u64, u64)> = None;
    for (number, used) in ledger.segments() {
        let Some(size) = size_of(*number).filter(|_| *number != active) else { continue };
        dead = dead.saturating_add(size.saturating_sub(used.bytes));
        // One without bytes that count is kept for another's sake: there is nothing to move.
        if used.bytes > 0 && used.bytes < size / 100 * percent {
            least = least.into_iter().chain([(used.bytes, *number)]).min();
        }
    }
    least.map(|(_, number)| number).filter(|_| dead > spared)
}

impl Writer {
    /// Whether the disk has room for few segments more.
    pub(super) fn has_little_room(&self) -> bool {
        let Shared { config, disk, journal_dir, .. } = &*self.shared;
        let little = config.headroom_bytes.saturating_add(TIGHT * config.segment_bytes);
        let few = config.headroom_inodes.saturating_add(TIGHT);
        disk.free(journal_dir)
            .is_ok_and(|free| free.bytes < little || free.inodes.is_some_and(|inodes| inodes < few))
    }

    /// Empties nearly dead segments when the disk is nearly full, unless there was no room to and is no
    /// more now.
    pub(super) fn compact_if_tight(&mut self) {
        if !std::mem::take(&mut self.compaction.is_due) {
            return;
        }
        let free = self.shared.disk.free(&self.shared.journal_dir).map_or(0, |free| free.bytes);
        if self.compaction.no_room_with.is_none_or(|then| free > then) {
            self.try_compact();
        }
    }

    /// Empties nearly dead segments, if there is room to; else they stay for now.
    pub(super) fn try_compact(&mut self) {
        let compacted = self.compact();
        self.compaction.no_room_with = None;
        if let Err(failed) = compacted {
            if failed.is_no_space() {
                let free = self.shared.disk.free(&self.shared.journal_dir);
                self.compaction.no_room_with = free.ok().map(|free| free.bytes);
            } else {
                warn!(%failed, "queue: nearly dead segments stay for now");
            }
        }
    }

    /// Empties nearly dead segments, some at a time.
    fn compact(&mut self) -> Result<(), QueueError> {
        for _ in 0..AT_ONCE {
            self.commit()?;
            let (disk, dir) = (&self.shared.disk, &self.shared.journal_dir);
            let stuck = &self.compaction.stuck;
            let size_of = |number| match stuck.contains(&number) {
                true => None,
                false => disk.open_to_read(&path_of(dir, number)).ok()?.bytes().ok(),
            };
            let (ledger, active) = (&self.ledger, self.journal.active());
            let rule = match self.has_little_room() {
                true => (NEARLY_DEAD_IF_TIGHT, 0),
                false => (NEARLY_DEAD, SPARED * self.shared.config.segment_bytes),
            };
            let Some(victim) = nearly_dead(ledger, active, rule, size_of) else {
                return Ok(());
            };
            self.empty(victim)?;
            self.commit()?;
            self.collect_garbage();
            if self.ledger.segments().contains_key(&victim) {
                // What is damaged, or kept for another segment's sake, must not be in the way of others.
                self.compaction.stuck.insert(victim);
            }
        }
        Ok(())
    }

    fn empty(&mut self, victim: u64) -> Result<(), QueueError> {
        let path = path_of(&self.shared.journal_dir, victim);
        let file = self.shared.disk.file_to_read(&path)?;
        let header = scan::read_header(&*file)
            .map_err(|source| QueueError::storage(READ_HEADER, &path, source))?;
        let Some(header) = header else { return Ok(()) };
        let mut places = Vec::new();
        let found = |Found { id, place, .. }| {
            places.push((id, place));
            Ok(())
        };
        // What is damaged stays where it is, and keeps its segment.
        scan::scan(&path, &*file, &header, 0, found, |_damage| {})?;
        for (id, place) in places {
            if let Some(meta) = self.as_of_now(id, &place)? {
                let body = self.shared.read_body(&*file, id, &place)?;
                let index = self.shared.index()?;
                let known = self.ledger.entry(&index, id)?;
                self.write(id, known, &meta, &body, place.body_crc, Purpose::Compaction)?;
                count(&self.shared.meter.moved, place.span());
            }
        }
        Ok(())
    }

    /// What a record says today, if it still counts.
    fn as_of_now(&mut self, id: RequestId, place: &Place) -> Result<Option<Meta>, QueueError> {
        let index = self.shared.index()?;
        if let Some(tombstone) = self.ledger.tombstone(&index, id)?
            && tombstone.place == *place
        {
            return Ok(Some(Meta::Tombstone(tombstone.meta)));
        }
        let Some(entry) = self.ledger.entry(&index, id)? else { return Ok(None) };
        let meta = match entry.ended {
            None if entry.place == *place => Meta::Accept(self.accepted_as(id, &entry)?),
            None if entry.retry == Some((place.segment, place.span())) && place.body_len == 0 => {
                Meta::Retry(RetryMeta {
                    attempts: entry.attempts,
                    not_before_ms: entry.not_before_ms,
                    reason: entry.reason,
                    wait: entry.wait,
                })
            }
            Some(ended) if entry.place == *place => {
                let Meta::Final(meta) = self.shared.read_meta(id, place)?.0 else {
                    return Ok(None);
                };
                let accepts_in = entry.accepts_in;
                Meta::Final(FinalMeta { number: ended.number, accepts_in, ..meta })
            }
            None | Some(_) => return Ok(None),
        };
        Ok(Some(meta))
    }
}
