//! Owns letting go of what waits for the budget of a metered link, as soon as there is no need to wait.
//!
//! What waits is on disk with the time at which the budget renews. The link may be another one long
//! before that, or the budget larger after a restart.
//!
//! **Invariant:** nothing is sent, and what waits for money stays as it is.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{DISK_WAIT, Worker};
use crate::queue::{QueueError, RequestId, State};

/// What such a request's reason begins with.
pub(super) const USED_UP: &str = "the data budget of the metered link is used up";
/// Requests looked at in one go.
const PAGE: usize = 64;
/// So often all that waits is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(300);
/// Between two pages the disk is left to others.
const PAUSE: Duration = Duration::from_millis(20);

impl Worker {
    /// Lets go of what waits at the start, whenever the link is metered no more, and now and then.
    pub(super) async fn release(&self) {
        let network = self.drain.escalator.network();
        let mut metered = network.metered();
        loop {
            metered.borrow_and_update();
            if !network.is_used_up() {
                self.release_all().await;
            }
            if !network.plan().has_budget() {
                return;
            }
            // Who was looked at a moment before that is found by the next look.
            match timeout(LOOK_EVERY, metered.changed()).await {
                Ok(Ok(())) | Err(_) => {}
                Ok(Err(_)) => return,
            }
        }
    }

    async fn release_all(&self) {
        let (queue, mut after) = (&self.drain.queue, None::<RequestId>);
        // Most often nobody waits, and a look through all that is held is long.
        if queue.stats().await.is_ok_and(|stats| stats.waiting_for_budget == 0) {
            return;
        }
        loop {
            let page = match queue.list_after(Some(State::WaitingForBudget), after, PAGE).await {
                Ok(page) => page,
                Err(QueueError::Closed) => return,
                Err(error) => {
                    tracing::warn!(%error, "what waits for a budget cannot be looked through yet");
                    sleep(DISK_WAIT).await;
                    continue;
                }
            };
            let Some(last) = page.last() else { return };
            after = Some(last.id);
            for summary in page {
                let why = summary.last_reason.as_deref().unwrap_or_default();
                if why.starts_with(USED_UP)
                    && let Err(error) = queue.retry_now(summary.id).await
                {
                    tracing::debug!(id = %summary.id, %error, "it goes when the budget renews");
                }
            }
            sleep(PAUSE).await;
        }
    }
}
