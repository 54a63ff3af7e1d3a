//! Owns what becomes of a held request after it was looked at or tried, and its writing down.
//!
//! **Invariant:** a result in hand is not let go before it is on disk, and what the disk does not take
//! stays as it was.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use super::{DISK_WAIT, NOBODY_WAIT, Worker};
use crate::answer::{Answer, Reason};
use crate::destination::Zone;
use crate::envelope::{Envelope, EnvelopeError, Final, Held};
use crate::queue::{Lease, QueueError, Recorded, RequestId};

/// What becomes of a request after an attempt.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It has its answer.
    Answer(Box<Final>),
    /// Nobody will answer it.
    Fail(String),
    /// Somebody failed on it; again later.
    Retry { after: Duration, why: String },
    /// It was tried too often.
    SetAside { why: String },
    /// Somebody may answer it later; this was no attempt.
    PutOff { after: Duration, why: String },
    /// Many others wait for the same before it; this was no attempt.
    InLine { why: String },
    /// It can be paid for later; this was no attempt.
    Budget { after: Duration, why: String },
    /// As before; where the destinations stand says when it goes on.
    GiveBack,
    /// Nobody wants the answer any more.
    Expired,
}

impl Worker {
    /// Writes down what became of a request, and lets it go.
    pub(super) async fn conclude(&self, lease: Lease, outcome: Outcome) {
        let (id, queue) = (lease.id(), &self.drain.queue);
        let at_ms = |after: Duration| {
            let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            self.drain.clock.now_ms().saturating_add(after_ms)
        };
        let noted = match outcome {
            Outcome::Answer(_) | Outcome::Fail(_) => return self.end(id, outcome).await,
            Outcome::Retry { after, why } => {
                count("later");
                queue.retry_at(id, at_ms(after), &why).await
            }
            Outcome::SetAside { why } => {
                metrics::counter!("holdfast_set_aside_total").increment(1);
                tracing::warn!(%id, attempts = self.drain.max_attempts, %why, "a held request is set aside; `queue retry` lets it go again");
                count("set_aside");
                queue.set_aside(id, &why).await
            }
            Outcome::PutOff { after, why } => {
                count("later");
                queue.put_off(id, at_ms(after), &why).await
            }
            Outcome::InLine { why } => {
                count("later");
                queue.put_in_line(id, &why).await
            }
            Outcome::Budget { after, why } => {
                count("waits_for_budget");
                queue.wait_for_budget(id, at_ms(after), &why).await
            }
            Outcome::GiveBack => {
                count("later");
                match lease.is_in_line() {
                    // The walk along the line may be past its place.
                    true => {
                        queue.put_off(id, 0, "it was its turn, and nobody could be asked").await
                    }
                    false => Ok(()),
                }
            }
            Outcome::Expired => {
                count("expired");
                // The look for those past their time ends it.
                Ok(())
            }
        };
        if let Err(error) = noted {
            tracing::warn!(%id, %error, "what became of a request could not be noted");
            // The lease gives the request back; not in a circle as fast as the disk fails.
            sleep(DISK_WAIT).await;
        }
    }

    /// Writes a final state down, for as long as the disk takes; a result in hand is not let go.
    pub(super) async fn end(&self, id: RequestId, outcome: Outcome) {
        let (queue, clock) = (&self.drain.queue, &self.drain.clock);
        match outcome {
            Outcome::Answer(stored) => {
                let is_local = stored.answer.zone == Zone::Device;
                count(if is_local { "local_stands" } else { "answered" });
                let bytes = Bytes::from(stored.to_bytes());
                record(id, || queue.answer(id, bytes.clone(), clock.now_ms())).await;
            }
            Outcome::Fail(why) => {
                tracing::warn!(%id, %why, "a held request failed for good");
                count("failed");
                record(id, || queue.fail(id, &why, clock.now_ms())).await;
            }
            _ => {}
        }
        self.memory.forget(&[id]);
    }
}

/// What becomes of a request whose stored form does not read back: one that another version of the agent
/// wrote waits for that.
pub(super) fn unread(error: EnvelopeError) -> Outcome {
    match error {
        EnvelopeError::Version(_) => Outcome::PutOff { after: NOBODY_WAIT, why: error.to_string() },
        EnvelopeError::Damaged => Outcome::Fail(error.to_string()),
    }
}

/// The end of a request that nobody above will answer: what the device said itself, or nothing.
pub(super) fn settle(envelope: Envelope, mut reasons: Vec<Reason>) -> Outcome {
    let (subject, class) = (envelope.subject(), envelope.class);
    let provisional = match envelope.held {
        Held::Task(held) => held.provisional,
        Held::Conversation(_) => None,
    };
    match provisional {
        Some(answer) => {
            reasons.push(Reason::LocalStands);
            let answer = Answer { provisional: false, ..answer };
            let stored = Final { subject, class, answer, reasons };
            Outcome::Answer(Box::new(stored))
        }
        None => {
            // It is held no more.
            let last = reasons.iter().filter(|reason| **reason != Reason::Held);
            let sentences: Vec<String> = last.map(ToString::to_string).collect();
            Outcome::Fail(sentences.join("; "))
        }
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("holdfast_drained_total", "outcome" => outcome).increment(1);
}

async fn record<F>(id: RequestId, write: impl Fn() -> F)
where
    F: Future<Output = Result<Recorded, QueueError>>,
{
    loop {
        match write().await {
            Ok(Recorded::Stored) => return,
            Ok(Recorded::AlreadyFinal(state)) => {
                return tracing::debug!(%id, %state, "it had its final state already");
            }
            Err(error @ (QueueError::Storage { .. } | QueueError::NoSpace { .. })) => {
                tracing::warn!(%id, %error, "a result cannot be written down yet");
                sleep(DISK_WAIT).await;
            }
            Err(error) => {
                return tracing::warn!(%id, %error, "a result could not be written down");
            }
        }
    }
}
