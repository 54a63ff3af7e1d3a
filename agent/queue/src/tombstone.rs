//! Requests that were forgotten for good, before their time.
//!
//! A tombstone says so in the journal, so that no rebuild brings them back.
//!
//! **Invariant:** a tombstone counts while any other segment exists that may have a record of what it
//! is of: those that there were when it was first written.

use serde::{Deserialize, Serialize};

use super::{
    QueueError, RequestId,
    index::Index,
    journal::{Place, TombstoneMeta},
    keys::{self, Ended, Entry},
    ledger::Ledger,
};

/// A tombstone that counts, as the index has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tombstone {
    /// Its record.
    pub(super) place: Place,
    /// What it says.
    pub(super) meta: TombstoneMeta,
}

impl Ledger {
    /// The tombstone of this id that counts.
    pub(super) fn tombstone(
        &self,
        index: &Index,
        id: RequestId,
    ) -> Result<Option<Tombstone>, QueueError> {
        self.read(index, &keys::tombstone_key(id))?.map(|value| keys::decode(&value)).transpose()
    }

    /// Forgets what came up to the tombstone; a request that came with the same id since stays.
    pub(super) fn bury(
        &mut self,
        index: &Index,
        id: RequestId,
        known: Option<Entry>,
        meta: TombstoneMeta,
        place: Place,
    ) -> Result<(), QueueError> {
        match known {
            Some(Entry { ended: Some(Ended { number, .. }), .. }) if number <= meta.number => {
                self.forget(index, id)?;
            }
            Some(entry) if entry.ended.is_none() && entry.order <= meta.number => {
                self.remove_held(id, &entry);
                self.remove(keys::entry_key(id));
                self.remove_name(index, &entry, id)?;
            }
            Some(_) | None => {}
        }
        if let Some(old) = self.tombstone(index, id)? {
            self.release(old.place.segment, old.place.span());
        }
        let tombstone = Tombstone { place, meta };
        if self.is_needed(&tombstone) {
            self.count(place);
            self.put(keys::tombstone_key(id), keys::encode(&tombstone)?);
        } else {
            self.remove(keys::tombstone_key(id));
        }
        Ok(())
    }

    /// Lets tombstones go that nothing is left of. All changes are in the index.
    pub(super) fn clear_tombstones(&mut self, index: &Index) -> Result<(), QueueError> {
        let (from, to) = keys::prefix_bounds(&[keys::TOMBSTONES]);
        for (key, value) in index.range(&from, &to, usize::MAX)? {
            let tombstone: Tombstone = keys::decode(&value)?;
            if !self.is_needed(&tombstone) {
                self.release(tombstone.place.segment, tombstone.place.span());
                self.remove(key.into());
            }
        }
        Ok(())
    }

    fn is_needed(&self, Tombstone { place, meta }: &Tombstone) -> bool {
        let mut older = self.segments().range(..=meta.up_to);
        older.any(|(number, _)| *number != place.segment)
    }
}
