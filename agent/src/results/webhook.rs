//! Owns the delivery of results to one webhook: in their order, again and again until it took each.
//!
//! One result is under way at a time, so that the order holds. The cursor on disk follows at the latest
//! after 16 results (`WINDOW`): so many may come twice after a kill, and are known by `webhook-id`.
//!
//! **Invariant:** a result is passed over only when it is not wanted, when the policy keeps it, or when
//! the receiver answered and refused it for `give_up_s`; a receiver that cannot be reached is waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::feed::{Found, Reader};
use super::patience::{DISK_WAIT, until_written};
use super::receiver::Webhook;
use super::takers::{TakerError, TakerName, Takers};
use super::withheld::Withheld;
use crate::audit::Audit;
use crate::clock;
use crate::escalate::{Hook, Posted, jitter};
use crate::network::Network;
use crate::policy::Policy;
use crate::queue::{Queue, QueueError};

/// Results that are delivered before the cursor is written down.
const WINDOW: usize = 16;
/// The first wait after a failure, doubled with every further one.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// While a budget is used up: the link may be another one by then.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Delivers until `stop`, or until the receiver says that it is gone.
pub async fn run(
    webhook: Webhook,
    queue: Queue,
    takers: Takers,
    policy: Arc<Policy>,
    (audit, network): (Audit, Network),
    stop: CancellationToken,
) {
    let hook = match Hook::new(&webhook, audit, &network) {
        Ok(hook) => hook,
        Err(error) => {
            let error = crate::error_chain(&error);
            tracing::error!(webhook = %webhook.name, %error, "no results are sent to it");
            return;
        }
    };
    let taker = TakerName::webhook(&webhook.name);
    let withheld = Withheld::default();
    let cursor = AtomicU64::new(0);
    let delivery =
        Delivery { webhook, hook, queue, takers, taker, policy, withheld, cursor, network };
    tokio::select! {
        // What is under way is cut; it comes again after the next start.
        () = stop.cancelled() => delivery.leave().await,
        () = delivery.work() => {}
    }
}

struct Delivery {
    webhook: Webhook,
    hook: Hook,
    queue: Queue,
    takers: Takers,
    taker: TakerName,
    policy: Arc<Policy>,
    withheld: Withheld,
    /// Everything up to this number is delivered or passed over.
    cursor: AtomicU64,
    /// What a metered link may carry.
    network: Network,
}

/// The receiver wants nothing any more.
struct Gone;

impl Delivery {
    async fn work(&self) {
        until_written(&self.taker, || self.takers.ensure(&self.taker)).await;
        let cursor = self.takers.cursor(&self.taker).await.number;
        self.cursor.store(cursor, Ordering::Relaxed);
        let mut reader = Reader::new(self.queue.clone(), cursor, None);
        loop {
            let page = match reader.next(WINDOW).await {
                Ok(page) => page,
                Err(QueueError::Closed) => return,
                Err(error) => {
                    tracing::warn!(webhook = %self.webhook.name, %error, "results cannot be read; trying again");
                    sleep(DISK_WAIT).await;
                    continue;
                }
            };
            self.takers.note_shown(page.last);
            for found in &page.found {
                if let Err(Gone) = self.deliver(found).await {
                    self.keep().await;
                    tracing::error!(webhook = %self.webhook.name, "the receiver says 410, gone: nothing is sent to it \
                        until the agent is restarted");
                    return;
                }
                self.cursor.store(found.number, Ordering::Relaxed);
            }
            self.cursor.store(page.last, Ordering::Relaxed);
            self.keep().await;
        }
    }

    /// Writes down how far it is.
    async fn keep(&self) {
        until_written(&self.taker, || self.write()).await;
    }

    /// The same, once, since the agent stops.
    async fn leave(&self) {
        if let Err(error) = self.write().await {
            let error = crate::error_chain(&error);
            tracing::debug!(webhook = %self.webhook.name, %error, "some results will be posted again");
        }
    }

    async fn write(&self) -> Result<(), TakerError> {
        let cursor = self.cursor.load(Ordering::Relaxed);
        self.takers.acknowledge(&self.queue, &self.taker, cursor).await.map(drop)
    }

    /// One result, until it is taken or passed over.
    async fn deliver(&self, found: &Found) -> Result<(), Gone> {
        let receiver = &self.webhook.receiver;
        let Some(reply) = self.withheld.readable(found, receiver) else { return Ok(()) };
        if !self.webhook.wants(&reply.subject) {
            return Ok(());
        }
        let (mut attempt, mut refused_since) = (0, None::<Instant>);
        loop {
            self.has_room().await;
            // The policy is asked at every attempt, and only what it clears can be posted.
            let cleared = match self.policy.clear_result(found.number, reply, receiver) {
                Ok(cleared) => cleared,
                Err(denied) => {
                    self.withheld.note(receiver, &denied);
                    return Ok(());
                }
            };
            let posted = self.hook.post(cleared, clock::date_ms() / 1000).await;
            let (why, asked) = match posted {
                Posted::Taken => {
                    self.count("delivered");
                    return Ok(());
                }
                Posted::Gone => return Err(Gone),
                Posted::Refused { why, retry_after } => {
                    let since = *refused_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= self.webhook.give_up {
                        self.count("given_up");
                        let give_up = self.webhook.give_up;
                        tracing::warn!(webhook = %self.webhook.name, id = %found.id, number = found.number, %why,
                            ?give_up, "a result was refused for too long and is passed over");
                        return Ok(());
                    }
                    (why, retry_after)
                }
                Posted::Unreached { why } => (why, None),
            };
            self.count("failed");
            if attempt == 0 {
                tracing::warn!(webhook = %self.webhook.name, id = %found.id, %why, "a result was not delivered; trying again");
                self.keep().await;
            } else {
                tracing::debug!(webhook = %self.webhook.name, id = %found.id, %why, attempt, "still not delivered");
            }
            sleep(wait(attempt, asked, jitter())).await;
            attempt = attempt.saturating_add(1);
        }
    }

    /// Waits until the link may carry a result: it is not metered, or its budget has room.
    async fn has_room(&self) {
        let name = self.webhook.name.as_str();
        let Err(used_up) = self.network.may(name, false) else { return };
        tracing::info!(
            webhook = name,
            until = used_up.until(),
            "the data budget of the metered link is used up: results wait"
        );
        self.keep().await;
        while let Err(used_up) = self.network.may(name, false) {
            sleep(used_up.renews_in.min(LOOK_EVERY)).await;
        }
    }

    fn count(&self, outcome: &'static str) {
        let name = self.webhook.name.to_string();
        metrics::counter!("holdfast_webhook_posts_total", "webhook" => name, "outcome" => outcome)
            .increment(1);
    }
}

/// How long to wait after failure number `attempt`, from 0 on; `chance` in `0.0..=1.0` spreads a fleet
/// whose receiver comes back.
fn wait(attempt: u32, asked: Option<Duration>, chance: f64) -> Duration {
    let doubled = FIRST_WAIT.saturating_mul(1 << attempt.min(16)).min(LONGEST_WAIT);
    doubled.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0).max(asked.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit_are_spread_and_last_as_long_as_asked() {
        for (attempt, asked_s, low_ms, high_ms) in [
            (0, None, 250, 500),
            (1, None, 500, 1_000),
            (5, None, 8_000, 16_000),
            (99, None, 150_000, 300_000),
            (0, Some(7), 7_000, 7_000),
            (99, Some(7), 150_000, 300_000),
        ] {
            let asked = asked_s.map(Duration::from_secs);
            assert_eq!(wait(attempt, asked, 0.0), Duration::from_millis(low_ms), "{attempt}");
            assert_eq!(wait(attempt, asked, 1.0), Duration::from_millis(high_ms), "{attempt}");
        }
    }
}
