//! Owns the emptying of the queue: what is held is sent up as soon as somebody may be asked.
//!
//! Waits while no destination can be asked, so that an outage costs no attempts and no disk.
//! Most urgent first, then oldest; as many at once as the destinations take together.
//!
//! **Invariant:** the policy in force is asked anew for every destination at every attempt, and a
//! request leaves the queue only by its one final state.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::answer::{Answer, Reason};
use crate::clock::Clock;
use crate::destination::{Destination, Zone};
use crate::envelope::{Envelope, EnvelopeError, Final};
use crate::escalate::{Escalator, Next, SendError, jitter, link};
use crate::policy::{Denied, Policy};
use crate::queue::{Lease, Queue, QueueError, Recorded, RequestId};
use crate::request::{Escalate, Request};

/// Sends that are under way when the agent stops get this long.
const GRACE: Duration = Duration::from_secs(2);
/// Requests worked on at once, at most.
const MOST_AT_ONCE: usize = 64;
/// What waits for one link while another is up is looked at again after this time.
const LINK_WAIT: Duration = Duration::from_secs(5);
/// What no destination is configured for is looked at again after this time.
const NOBODY_WAIT: Duration = Duration::from_secs(60);
/// A disk that failed is tried again after this time.
const DISK_WAIT: Duration = Duration::from_secs(2);
/// Requests past their time are looked for this often.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);
/// The longest wait without a look at the queue.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Refusals remembered at most; forgetting one costs one more refusal.
const MOST_REFUSALS: usize = 10_000;

/// Empties `queue` upward until `cancel`, then finishes or gives back what is under way.
pub async fn run(
    queue: Queue,
    escalator: Arc<Escalator>,
    destinations: Arc<[Destination]>,
    policy: Arc<Policy>,
    clock: Clock,
    cancel: CancellationToken,
) {
    let refusals = Mutex::default();
    Drain { queue, escalator, destinations, policy, clock, refusals }.work(cancel).await;
}

struct Drain {
    queue: Queue,
    escalator: Arc<Escalator>,
    destinations: Arc<[Destination]>,
    policy: Arc<Policy>,
    clock: Clock,
    /// Who will never answer which request.
    refusals: Mutex<HashMap<RequestId, Vec<Refusal>>>,
}

/// What becomes of a request after an attempt.
#[derive(Debug)]
enum Outcome {
    /// It has its answer.
    Answer(Final),
    /// Nobody will answer it.
    Fail(String),
    /// Somebody may, later.
    Later { after: Duration, why: String },
    /// Somebody may, as soon as a link is there; this was no attempt.
    GiveBack,
    /// Nobody wants the answer any more.
    Expired,
}

/// The kindest word of the destinations that gave no answer.
#[derive(Debug)]
struct Hope {
    /// When to ask again; `None`: when the link is back.
    after: Option<Duration>,
    why: String,
}

/// A destination's last word on a request.
#[derive(Debug)]
struct Refusal {
    destination: String,
    error: String,
}

impl Drain {
    async fn work(&self, cancel: CancellationToken) {
        let mut changes = self.queue.changes();
        let mut links = self.escalator.links();
        let mut expiry = interval(EXPIRE_EVERY);
        expiry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut under_way = FuturesUnordered::new();
        loop {
            changes.borrow_and_update();
            links.borrow_and_update();
            let (wait, reads) = match self.fill(&mut under_way).await {
                Ok(wait) => (wait, true),
                Err(QueueError::Closed) => break,
                Err(error) => {
                    tracing::warn!(%error, "the queue cannot be read; trying again");
                    (DISK_WAIT, false)
                }
            };
            tokio::select! {
                () = cancel.cancelled() => break,
                Some(()) = under_way.next() => {}
                // A failed read changes the queue itself; a disk that fails is left in peace.
                changed = changes.changed(), if reads => if changed.is_err() { break },
                _ = links.changed(), if reads => {}
                () = sleep(wait) => {}
                _ = expiry.tick() => self.expire().await,
            }
        }
        let rest = async { while under_way.next().await.is_some() {} };
        if timeout(GRACE, rest).await.is_err() {
            tracing::info!(count = under_way.len(), "sends under way are given back to the queue");
        }
    }

    /// Takes on as much as may be sent now; returns how long it is worth waiting for more.
    async fn fill<'a>(
        &'a self,
        under_way: &mut FuturesUnordered<BoxFuture<'a, ()>>,
    ) -> Result<Duration, QueueError> {
        if let Some(wait) = self.closed() {
            return Ok(wait);
        }
        let places: usize = self.destinations.iter().map(|each| each.concurrency.max(1)).sum();
        while under_way.len() < places.min(MOST_AT_ONCE) {
            let now_ms = self.clock.now_ms();
            let Some(lease) = self.queue.lease_next(now_ms).await? else {
                let due_ms = self.queue.next_due(now_ms).await?;
                let wait = due_ms.map(|due| Duration::from_millis(due.saturating_sub(now_ms)));
                return Ok(wait.unwrap_or(LOOK_EVERY).clamp(Duration::from_millis(1), LOOK_EVERY));
            };
            under_way.push(self.carry(lease).boxed());
        }
        Ok(LOOK_EVERY)
    }

    /// How long nobody at all can be asked; `None` when somebody can.
    fn closed(&self) -> Option<Duration> {
        let waits = self.destinations.iter().map(|destination| {
            let name = &destination.name;
            match self.escalator.pause(name) {
                // A change of the link wakes us.
                _ if !self.escalator.is_reachable(name) => LOOK_EVERY,
                Some(pause) => pause.left().clamp(Duration::from_millis(1), LOOK_EVERY),
                None => Duration::ZERO,
            }
        });
        waits.min().or(Some(LOOK_EVERY)).filter(|wait| !wait.is_zero())
    }

    /// Takes one request as far as it comes.
    async fn carry(&self, lease: Lease) {
        let id = lease.id();
        let outcome = self.attempt(&lease).await;
        let word = match &outcome {
            Outcome::Answer(stored) if stored.answer.zone > Zone::Device => "answered",
            Outcome::Answer(_) => "local_stands",
            Outcome::Fail(_) => "failed",
            Outcome::Later { .. } | Outcome::GiveBack => "later",
            Outcome::Expired => "expired",
        };
        metrics::counter!("holdfast_drained_total", "outcome" => word).increment(1);
        match outcome {
            Outcome::Answer(stored) => {
                let bytes = Bytes::from(stored.to_bytes());
                self.record(id, || self.queue.answer(id, bytes.clone(), self.clock.now_ms())).await;
            }
            Outcome::Fail(why) => {
                tracing::warn!(%id, %why, "a held request failed for good");
                self.record(id, || self.queue.fail(id, &why, self.clock.now_ms())).await;
            }
            Outcome::Later { after, why } => {
                let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
                let at_ms = self.clock.now_ms().saturating_add(after_ms);
                if let Err(error) = self.queue.retry_at(id, at_ms, &why).await {
                    tracing::warn!(%id, %error, "a retry could not be noted");
                    // The lease gives the request back; not in a circle as fast as the disk fails.
                    sleep(DISK_WAIT).await;
                }
            }
            Outcome::GiveBack => {}
            Outcome::Expired => {
                drop(lease);
                self.expire().await;
            }
        }
    }

    /// Writes a final state down, for as long as the disk takes; a result in hand is not let go.
    async fn record<F>(&self, id: RequestId, write: impl Fn() -> F)
    where
        F: Future<Output = Result<Recorded, QueueError>>,
    {
        loop {
            match write().await {
                Ok(Recorded::Stored) => break,
                Ok(Recorded::AlreadyFinal(state)) => {
                    tracing::debug!(%id, %state, "it had its final state already");
                    break;
                }
                Err(error @ (QueueError::Storage { .. } | QueueError::NoSpace { .. })) => {
                    tracing::warn!(%id, %error, "a result cannot be written down yet");
                    sleep(DISK_WAIT).await;
                }
                Err(error) => {
                    tracing::warn!(%id, %error, "a result could not be written down");
                    break;
                }
            }
        }
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    async fn expire(&self) {
        match self.queue.expire(self.clock.now_ms()).await {
            Ok(ids) if ids.is_empty() => {}
            Ok(ids) => {
                metrics::counter!("holdfast_expired_total").increment(ids.len() as u64);
                let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
                for id in &ids {
                    refusals.remove(id);
                }
                tracing::info!(count = ids.len(), "held requests came to the end of their time");
            }
            Err(error) => tracing::warn!(%error, "requests past their time cannot be ended yet"),
        }
    }

    async fn attempt(&self, lease: &Lease) -> Outcome {
        let (envelope, mut request) = match self.unpack(lease).await {
            Ok(unpacked) => unpacked,
            Err(outcome) => return outcome,
        };
        if let Some(expires_at_ms) = lease.expires_at_ms() {
            // What is left of its time is what the next agent may keep it for.
            request.ttl_ms = expires_at_ms.saturating_sub(self.clock.now_ms());
            if request.ttl_ms == 0 {
                return Outcome::Expired;
            }
        }
        let mut reasons = envelope.reasons.clone();
        if request.escalate == Escalate::Never {
            reasons.push(Reason::CallerForbade);
            return settle(envelope, reasons);
        }
        let (mut hope, mut is_served) = (None::<Hope>, false);
        for destination in self.destinations.iter().filter(|each| each.serves(&request.task)) {
            is_served = true;
            let cleared = match self.policy.clear(&request, destination) {
                Ok(cleared) => cleared,
                Err(Denied { class, destination, zone, .. }) => {
                    reasons.push(Reason::ClassForbids { class, destination, zone });
                    continue;
                }
            };
            if let Some(error) = self.refused(request.id, &destination.name) {
                let destination = destination.name.clone();
                reasons.push(Reason::SendFailed { destination, error });
                continue;
            }
            let within = destination.timeout.min(Duration::from_millis(request.ttl_ms));
            match self.escalator.send(cleared, within).await {
                Ok(answer) => {
                    let (destination, zone) = (destination.name.clone(), destination.zone);
                    reasons.push(Reason::Escalated { destination, zone });
                    let Envelope { task, class, .. } = envelope;
                    return Outcome::Answer(Final { task, class, answer, reasons });
                }
                Err(error) => match Hope::of(&error, lease.attempts()) {
                    Some(better) => hope = Some(better.or(hope)),
                    None => {
                        let destination = destination.name.clone();
                        let error = self.refuse(request.id, &destination, &error);
                        reasons.push(Reason::SendFailed { destination, error });
                    }
                },
            }
        }
        match hope {
            Some(hope) => self.later(hope),
            // A configuration that lost its destinations must not cost what is held.
            None if !is_served => {
                let why = Reason::NoDestination.to_string();
                Outcome::Later { after: NOBODY_WAIT, why }
            }
            None => settle(envelope, reasons),
        }
    }

    /// Reads the request back, or says what becomes of a record that does not read back.
    async fn unpack(&self, lease: &Lease) -> Result<(Envelope, Request), Outcome> {
        let unreadable = |error: EnvelopeError| Outcome::Fail(error.to_string());
        let envelope = Envelope::from_bytes(lease.envelope()).map_err(unreadable)?;
        let body = lease.body().await.map_err(|error| match error {
            QueueError::Damaged { .. } => Outcome::Fail(error.to_string()),
            error => Outcome::Later { after: DISK_WAIT, why: error.to_string() },
        })?;
        let request = envelope.request(lease.id(), body).map_err(unreadable)?;
        Ok((envelope, request))
    }

    fn later(&self, hope: Hope) -> Outcome {
        match hope {
            Hope { after: Some(after), why } => Outcome::Later { after, why },
            // Nobody else can be asked either: the next look is when a link is back.
            Hope { after: None, .. } if self.closed().is_some() => Outcome::GiveBack,
            Hope { after: None, why } => Outcome::Later { after: LINK_WAIT, why },
        }
    }

    fn refused(&self, id: RequestId, destination: &str) -> Option<String> {
        let refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let refusal =
            refusals.get(&id)?.iter().find(|refusal| refusal.destination == destination)?;
        Some(refusal.error.clone())
    }

    /// Remembers that `destination` is not to be asked for `id` again.
    fn refuse(&self, id: RequestId, destination: &str, error: &SendError) -> String {
        let error = error.to_string();
        let refusal = Refusal { destination: destination.to_owned(), error: error.clone() };
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if refusals.len() >= MOST_REFUSALS {
            refusals.clear();
        }
        refusals.entry(id).or_default().push(refusal);
        error
    }
}

impl Hope {
    /// What a failed send leaves to hope for; `None` when its destination never will answer.
    fn of(error: &SendError, attempts: u32) -> Option<Self> {
        let after = match error.next() {
            Next::Retry { after } => {
                // A throttled destination still gets its requests one after the other.
                Some(after.unwrap_or_default().max(link::backoff(attempts, jitter())))
            }
            Next::AwaitOperator { after } => Some(after),
            Next::AwaitLink => None,
            Next::NotHere => return None,
        };
        Some(Self { after, why: error.to_string() })
    }

    /// The sooner one.
    fn or(self, other: Option<Self>) -> Self {
        let soon = |hope: &Self| hope.after.unwrap_or(LINK_WAIT);
        match other {
            Some(other) if soon(&other) < soon(&self) => other,
            _ => self,
        }
    }
}

/// The end of a request that nobody above will answer: what the device said itself, or nothing.
fn settle(envelope: Envelope, mut reasons: Vec<Reason>) -> Outcome {
    match envelope.provisional {
        Some(answer) => {
            reasons.push(Reason::LocalStands);
            let answer = Answer { provisional: false, ..answer };
            Outcome::Answer(Final { task: envelope.task, class: envelope.class, answer, reasons })
        }
        None => {
            let sentences: Vec<String> = reasons.iter().map(ToString::to_string).collect();
            Outcome::Fail(sentences.join("; "))
        }
    }
}
