//! Owns the one look through everything that is held when the drain starts.
//!
//! A configuration can change while requests are held. Those that nobody may be asked any more are
//! settled at once, whether or not a destination can be reached, and not when their turn comes.
//!
//! **Invariant:** nothing is sent, and what somebody may still be asked is left as it is.

use std::time::Duration;

use tokio::time::sleep;

use super::outcome::{Outcome, settle};
use super::{DISK_WAIT, Worker};
use crate::envelope::Envelope;
use crate::queue::{QueueError, RequestId};

/// Requests looked at in one go.
const PAGE: usize = 64;
/// Between two pages the disk is left to others.
const PAUSE: Duration = Duration::from_millis(20);

impl Worker {
    /// Settles what nobody may be asked.
    pub(super) async fn sweep(&self) {
        let mut after = None::<RequestId>;
        loop {
            let page = match self.drain.queue.open_after(after, PAGE).await {
                Ok(page) => page,
                Err(QueueError::Closed) => return,
                Err(error) => {
                    tracing::warn!(%error, "what is held cannot be looked through yet");
                    sleep(DISK_WAIT).await;
                    continue;
                }
            };
            let Some(last) = page.last() else { return };
            after = Some(*last);
            for id in page {
                self.sweep_one(id).await;
            }
            sleep(PAUSE).await;
        }
    }

    async fn sweep_one(&self, id: RequestId) {
        // What cannot be read is the drain's to say when its turn comes.
        let Ok(Some(record)) = self.drain.queue.get(id).await else { return };
        let Ok(envelope) = Envelope::from_bytes(&record.envelope) else { return };
        if record.summary.state.is_final() {
            return;
        }
        let candidates = self.candidates(id, &envelope);
        if candidates.is_served && candidates.indexes.is_empty() {
            let outcome = settle(envelope, candidates.reasons);
            if matches!(outcome, Outcome::Answer(_) | Outcome::Fail(_)) {
                self.end(id, outcome).await;
            }
        }
    }
}
