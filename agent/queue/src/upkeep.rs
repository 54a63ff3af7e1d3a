//! What the writer does for the index: makes it anew when it failed, copies it when it has grown, brings
//! it back to the disk when there is room.
//!
//! **Invariant:** the journal is durable up to where the ledger is whenever the index is replaced, so
//! that nothing is lost with the old one.

use tracing::{error, info, warn};

use super::{QueueError, writer::Writer};

impl Writer {
    /// Everything in the journal is durable here, so that nothing is lost with the index.
    pub(super) fn rebuild_index(&mut self) -> Result<(), QueueError> {
        let old = self.shared.replace_index(None);
        drop(old);
        let (index, ledger) = self.place.rebuild_running(self.shared.config.keep_bad)?;
        self.ledger = ledger;
        self.shared.replace_index(Some(index));
        // What was forgotten for its age may be back.
        self.shared.publish(&self.ledger);
        Ok(())
    }

    /// Brings an index that is in memory back to the disk, when the disk has room again.
    pub(super) fn return_index_to_disk(&mut self) -> Result<(), QueueError> {
        self.commit()?;
        if self.shared.index()?.is_on_disk() || !self.place.may_have_index() {
            return Ok(());
        }
        // Each try reads the whole journal.
        self.tries_to_return = self.tries_to_return.wrapping_add(1);
        if !self.tries_to_return.is_power_of_two() {
            return Ok(());
        }
        let (index, ledger) = self.place.rebuild_running(self.shared.config.keep_bad)?;
        if index.is_on_disk() {
            info!("queue: the index is on disk again");
            self.ledger = ledger;
            drop(self.shared.replace_index(Some(index)));
        }
        Ok(())
    }

    pub(super) fn copy_index_if_grown(&mut self) -> Result<(), QueueError> {
        self.commit()?;
        let index = self.shared.index()?;
        let totals = &self.ledger.totals;
        if !self.place.copy_if_grown(&index, totals.held + totals.finals())? {
            return Ok(());
        }
        drop(index);
        let exchanged = self.shared.exchange_index(|| self.place.take_copy());
        exchanged.or_else(|failed| {
            warn!(%failed, "queue: the index's copy does not open; rebuilding it from the journal");
            self.rebuild_index()
        })
    }

    /// Tries again to make an index that could not be made anew when it failed.
    pub(super) fn restore_index(&mut self) {
        if matches!(self.shared.index(), Err(QueueError::Index { .. })) {
            match self.rebuild_index() {
                Ok(()) => warn!("queue: the index is there again"),
                Err(failed) => error!(%failed, "queue: there is no index; nothing is lost"),
            }
        }
    }
}
