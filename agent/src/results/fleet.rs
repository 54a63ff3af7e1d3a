//! Owns the delivery of results to the fleet's controller, over the device's link.
//!
//! A batch is under way at a time. The cursor moves when the controller has acknowledged that the batch
//! is on record, and not when a broker has it.
//!
//! **Invariant:** a report is made of a cleared result only; the link is never waited on by anything
//! but this.

use std::sync::Arc;
use std::time::Duration;

use holdfast_wire::message::{AnswerReport, MAX_TEXT, ResultReport};
use holdfast_wire::unit::Micros;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::feed::{Page, Reader};
use super::patience::{DISK_WAIT, until_written};
use super::receiver::Receiver;
use super::takers::{TakerName, Takers};
use super::withheld::Withheld;
use crate::answer::Answer;
use crate::escalate::jitter;
use crate::policy::{ClearedResult, Policy};
use crate::queue::{Queue, QueueError};

/// Results in one message: so many fit, however long their texts.
const BATCH: usize = 12;
/// A batch that was not acknowledged is sent again after up to this time.
const AGAIN: Duration = Duration::from_secs(2);

/// A batch on its way to the controller.
#[derive(Debug)]
pub struct Batch {
    /// The results.
    pub reports: Vec<ResultReport>,
    /// Told when the controller has them on record; dropped when it does not say so in time.
    pub acknowledged: oneshot::Sender<()>,
}

/// Sends results to the link until `stop`.
pub async fn run(
    queue: Queue,
    takers: Takers,
    policy: Arc<Policy>,
    receiver: Receiver,
    link: mpsc::Sender<Batch>,
    stop: CancellationToken,
) {
    let (taker, withheld) = (TakerName::fleet(), Withheld::default());
    let delivery = Delivery { queue, takers, taker, policy, receiver, withheld, link };
    tokio::select! {
        () = stop.cancelled() => {}
        () = delivery.work() => {}
    }
}

struct Delivery {
    queue: Queue,
    takers: Takers,
    taker: TakerName,
    policy: Arc<Policy>,
    receiver: Receiver,
    withheld: Withheld,
    link: mpsc::Sender<Batch>,
}

impl Delivery {
    async fn work(&self) {
        until_written(&self.taker, || self.takers.ensure(&self.taker)).await;
        let cursor = self.takers.cursor(&self.taker).await.number;
        let mut reader = Reader::new(self.queue.clone(), cursor, None);
        loop {
            let page = match reader.next(BATCH).await {
                Ok(page) => page,
                Err(QueueError::Closed) => return,
                Err(error) => {
                    tracing::warn!(%error, "results for the controller cannot be read; trying again");
                    sleep(DISK_WAIT).await;
                    continue;
                }
            };
            self.takers.note_shown(page.last);
            if self.deliver(&page).await.is_none() {
                return;
            }
            until_written(&self.taker, || async {
                self.takers.acknowledge(&self.queue, &self.taker, page.last).await.map(drop)
            })
            .await;
        }
    }

    /// One page, until the controller has it; `None` when there is no link any more.
    async fn deliver(&self, page: &Page) -> Option<()> {
        loop {
            let reports = self.reports(page);
            if reports.is_empty() {
                return Some(());
            }
            let count = reports.len() as u64;
            let (acknowledged, answer) = oneshot::channel();
            self.link.send(Batch { reports, acknowledged }).await.ok()?;
            if answer.await.is_ok() {
                metrics::counter!("holdfast_fleet_results_total").increment(count);
                return Some(());
            }
            sleep(AGAIN.mul_f64(0.5 + jitter() / 2.0)).await;
        }
    }

    /// What of a page the controller may have, by the policy in force.
    fn reports(&self, page: &Page) -> Vec<ResultReport> {
        let mut reports = Vec::new();
        for found in &page.found {
            let Some(reply) = self.withheld.readable(found, &self.receiver) else { continue };
            match self.policy.clear_result(found.number, reply, &self.receiver) {
                Ok(cleared) => reports.push(report(cleared)),
                Err(denied) => self.withheld.note(&self.receiver, &denied),
            }
        }
        reports
    }
}

fn report(cleared: ClearedResult<'_>) -> ResultReport {
    let reply = cleared.reply();
    ResultReport {
        number: cleared.number(),
        request: reply.id.to_string(),
        // The contract has no word of its own for a model.
        task: fit(reply.subject.name()),
        class: reply.class.to_string(),
        state: reply.state.name().to_owned(),
        answer: reply.answer.as_ref().map(answer),
    }
}

fn answer(answer: &Answer) -> AnswerReport {
    let clamped =
        |value: f64, most: f64| if value.is_finite() { value.clamp(0.0, most) } else { 0.0 };
    // The contract has no word for an answer that does not tell how sure it is.
    let confidence = clamped(answer.confidence.map_or(0.0, f64::from), 1.0) * 1000.0;
    let took = clamped(answer.took_ms, 1e12) * 1000.0;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "both are clamped to what fits"
    )]
    let (confidence_milli, took) = (confidence.round() as u16, Micros(took.round() as u64));
    AnswerReport {
        label: fit(&answer.label),
        confidence_milli,
        zone: answer.zone.to_string(),
        place: fit(&answer.place),
        model: fit(&answer.model),
        took,
        provisional: answer.provisional,
    }
}

/// A text as the contract takes it: short, and without control characters.
fn fit(text: &str) -> String {
    let mut fitting = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if fitting.len() + c.len_utf8() > MAX_TEXT {
            break;
        }
        fitting.push(c);
    }
    fitting
}

#[cfg(test)]
mod tests {
    use holdfast_wire::message::Up;

    use super::*;
    use crate::destination::Zone;

    #[test]
    fn the_longest_results_fit_into_one_message() {
        let long = "ä\n".repeat(500);
        let longest = Answer {
            label: long.clone(),
            confidence: Some(f32::NAN),
            classes: Vec::new(),
            outcome: None,
            recorded: None,
            zone: Zone::Private,
            place: long.clone(),
            model: long,
            took_ms: f64::INFINITY,
            provisional: true,
            cost_micros: None,
        };
        let report = ResultReport {
            number: u64::MAX,
            request: "01a1fd07-e5c8-712a-b58f-da26b1bfc112".into(),
            task: "t".repeat(64),
            class: "confidential".into(),
            state: "waiting_for_budget".into(),
            answer: Some(answer(&longest)),
        };
        assert_eq!(report.answer.as_ref().unwrap().label.len(), MAX_TEXT);
        Up::Results(vec![report; BATCH]).encode().unwrap();
    }
}
