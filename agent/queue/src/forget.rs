//! Forgetting what ended: finals that are old, or too many.
//!
//! **Invariant:** what has no end is not forgotten.

use tracing::warn;

use super::{
    Forgotten, QueueError, RequestId,
    begin::Purpose,
    journal::{Meta, TombstoneMeta},
    writer::Writer,
};

/// Finals forgotten in one commit at most.
const FORGET: usize = 4096;

impl Writer {
    /// Forgets a final before its time, for good. False: there is no such final.
    pub(super) fn forget_one(&mut self, id: RequestId) -> Result<bool, QueueError> {
        let index = self.shared.index()?;
        let known = self.ledger.entry(&index, id)?;
        let Some(ended) = known.as_ref().and_then(|entry| entry.ended) else { return Ok(false) };
        let meta = TombstoneMeta { number: ended.number, up_to: self.journal.active() };
        self.write(id, known, &Meta::Tombstone(meta), &[], 0, Purpose::Progress)?;
        Ok(true)
    }

    /// Forgets finals up to a time, and at most so many of those that are too many; then looks after
    /// the space.
    pub(super) fn forget(
        &mut self,
        to_ms: Option<u64>,
        most: u64,
    ) -> Result<Forgotten, QueueError> {
        let by_age = to_ms.map_or(Ok(0), |to_ms| self.forget_oldest(to_ms, u64::MAX))?;
        let kept = self.ledger.totals.finals();
        let surplus = kept.saturating_sub(self.shared.config.max_finals).min(most);
        let by_count = self.forget_oldest(u64::MAX, surplus)?;
        if let Err(failed) = self.return_index_to_disk() {
            warn!(%failed, "queue: the index stays in memory for now");
        }
        if let Err(failed) = self.copy_index_if_grown() {
            warn!(%failed, "queue: the index could not be copied; it stays as large as it is");
        }
        self.try_compact();
        Ok(Forgotten { by_age, by_count })
    }

    /// Forgets the oldest finals up to a time, at most so many.
    fn forget_oldest(&mut self, to_ms: u64, most: u64) -> Result<u64, QueueError> {
        let mut forgotten = 0;
        while forgotten < most {
            // What this batch ends is in the index only after its commit.
            self.commit()?;
            let index = self.shared.index()?;
            let limit = usize::try_from(most - forgotten).unwrap_or(FORGET).min(FORGET);
            let ids = self.shared.up_to(b'f', to_ms, limit)?;
            let mut now = 0;
            for id in &ids {
                now += u64::from(self.ledger.forget(&index, *id)?);
            }
            forgotten += now;
            if now == 0 {
                break;
            }
        }
        Ok(forgotten)
    }
}
