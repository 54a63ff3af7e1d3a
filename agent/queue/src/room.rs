//! What happens when the queue's bounds are reached.
//!
//! **Invariant:** nothing is dropped in silence: a dropped request ends as failed, its reason says why,
//! and it is counted and logged; and it is never more urgent than the one that it makes room for.

use bytes::Bytes;
use tracing::warn;

use super::{
    FullRule, NewEntry, QueueError, WhenFull, command::Finish, journal::FinalState, meter::count,
    writer::Writer,
};

impl Writer {
    /// Makes sure that there is room for a new request, by the configured rule.
    pub(super) fn make_room(&mut self, new: &NewEntry) -> Result<(), QueueError> {
        let (bytes, limit) = (bytes_of(new), self.shared.config.max_bytes);
        if bytes > limit {
            // However empty the queue, it does not fit.
            return Err(QueueError::TooLarge { what: "a request", bytes, limit });
        }
        while let Err(full) = self.check_room(new) {
            if self.shared.config.when_full == WhenFull::Refuse || !self.drop_oldest(new)? {
                return Err(full);
            }
        }
        Ok(())
    }

    fn check_room(&self, new: &NewEntry) -> Result<(), QueueError> {
        let config = &self.shared.config;
        let totals = &self.ledger.totals;
        if totals.held >= config.max_requests {
            return Err(QueueError::Full { rule: FullRule::Count, limit: config.max_requests });
        }
        let bytes = bytes_of(new);
        if totals.held_bytes.saturating_add(bytes) > config.max_bytes {
            return Err(QueueError::Full { rule: FullRule::Bytes, limit: config.max_bytes });
        }
        Ok(())
    }

    /// Ends the oldest request of the lowest priority, if it is not more urgent than `new`. False: there
    /// is none.
    fn drop_oldest(&mut self, new: &NewEntry) -> Result<bool, QueueError> {
        // What this batch changes is in the index only after its commit.
        self.commit()?;
        let Some(id) = self.shared.least_urgent(new.priority)? else { return Ok(false) };
        let finish = Finish {
            id,
            state: FinalState::Failed,
            answer: Bytes::new(),
            answer_crc: 0,
            reason: Some("dropped: the queue was full and newer requests came".into()),
            now_ms: new.accepted_at_ms,
            spare_in_flight: true,
        };
        let dropped = self.finish(&finish)?.is_some();
        if dropped {
            count(&self.shared.meter.dropped, 1);
            warn!(%id, for_request = %new.id, "queue: full; the oldest of the lowest priority is dropped");
        }
        Ok(dropped)
    }
}

/// Bytes of a request that its caller gives.
fn bytes_of(new: &NewEntry) -> u64 {
    (new.envelope.len() + new.body.len()) as u64
}
