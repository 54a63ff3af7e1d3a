//! Owns how a call ends: with an answer, kept where its caller named the request, or held in the queue.
//!
//! **Invariant:** a request is told to be held only when it is on disk; an answer that is there is given
//! whether or not it can be kept.

use bytes::Bytes;
use tokio::time::Instant;

use super::{Journey, Service};
use crate::answer::{Answer, Reason};
use crate::ask_error::AskError;
use crate::destination::Zone;
use crate::envelope::{Envelope, Final, Held};
use crate::queue::{Accepted, Idempotency, MAX_ENVELOPE_BYTES, NewEntry, QueueError, State};
use crate::reply::Reply;
use crate::request::{Escalate, Request, TaskName};
use crate::subject::Subject;

/// A provisional answer that is larger than what the queue keeps beside a request, such as a mask: the
/// caller has it at once, and whoever asks later gets the answer from above.
fn take_oversized(envelope: &mut Envelope) -> Option<Answer> {
    let may_be_large = |answer: &&Answer| answer.outcome.is_some() || answer.recorded.is_some();
    let Held::Task(held) = &envelope.held else { return None };
    held.provisional.as_ref().filter(may_be_large)?;
    let is_oversized = envelope.to_bytes().len() > MAX_ENVELOPE_BYTES;
    is_oversized.then(|| take_provisional(envelope)).flatten()
}

fn take_provisional(envelope: &mut Envelope) -> Option<Answer> {
    match &mut envelope.held {
        Held::Task(held) => held.provisional.take(),
        Held::Conversation(_) => None,
    }
}

impl Service {
    /// The local answer is the final one.
    pub(super) async fn finish_local(&self, mut journey: Journey<'_>) -> Result<Reply, AskError> {
        match journey.local.take() {
            Some(answer) => self.finish(journey, answer, "local").await,
            None => Err(journey.nobody()),
        }
    }

    /// The final answer of this call; kept on disk when the caller named the request.
    pub(super) async fn finish(
        &self,
        journey: Journey<'_>,
        answer: Answer,
        outcome: &'static str,
    ) -> Result<Reply, AskError> {
        let Journey { request, name, reasons, .. } = journey;
        self.count(&request.task, outcome);
        let (subject, class) = (Subject::Task(request.task.clone()), request.class);
        let mut stored = Final { subject, class, answer, reasons };
        if name.is_some() {
            match self.keep(request, name, &stored).await {
                Ok(Accepted::New) => {}
                Ok(Accepted::Known { id, .. }) => return self.reply(id).await,
                Err(error @ AskError::Queue(QueueError::KeyConflict { .. })) => return Err(error),
                // The answer is there; that it cannot be kept does not take it away.
                Err(error) => {
                    tracing::warn!(%error, "an answer could not be kept under its key");
                    stored.reasons.push(Reason::NotHeld { error: error.to_string() });
                }
            }
        }
        let Final { subject, answer, reasons, .. } = stored;
        let (id, state, answer) = (request.id, State::Answered, Some(answer));
        Ok(Reply { id, subject, class, state, answer, reasons, note: None, kept: None })
    }

    /// Keeps a final answer under the request's key.
    async fn keep(
        &self,
        request: &Request,
        name: Option<Idempotency>,
        stored: &Final,
    ) -> Result<Accepted, AskError> {
        let envelope = Envelope::of(request, None, Vec::new());
        let entry = self.entry(request, name, &envelope, Bytes::new());
        let bytes = stored.to_bytes();
        match stored.answer.zone {
            // What is held under the key waits for a better one.
            Zone::Device => Ok(self.queue.open()?.accept_answered(entry, bytes).await?),
            _ => self.queue.keep_answered(entry, bytes.into(), self.clock.now_ms()).await,
        }
    }

    fn entry(
        &self,
        request: &Request,
        idempotency: Option<Idempotency>,
        envelope: &Envelope,
        body: Bytes,
    ) -> NewEntry {
        let now_ms = self.clock.now_ms();
        NewEntry {
            id: request.id,
            idempotency,
            priority: request.priority.get(),
            accepted_at_ms: now_ms,
            not_before_ms: now_ms.saturating_add(request.not_before_ms),
            expires_at_ms: Some(now_ms.saturating_add(request.ttl_ms)),
            envelope: envelope.to_bytes().into(),
            body,
        }
    }

    /// Counts a request; tasks that nothing here names by itself share one label, since anybody
    /// can invent them.
    fn count(&self, task: &TaskName, outcome: &'static str) {
        let is_known = self.engine.lane(task).is_some()
            || self.destinations.iter().any(|destination| destination.tasks.contains(task));
        let task = if is_known { task.to_string() } else { "other".to_owned() };
        metrics::counter!("holdfast_requests_total", "task" => task, "outcome" => outcome)
            .increment(1);
    }

    /// Puts the request in the queue, and gives the local answer meanwhile.
    pub(super) async fn hold(&self, journey: Journey<'_>) -> Result<Reply, AskError> {
        let Journey { request, name, local, mut reasons, .. } = journey;
        let provisional = local.map(|answer| Answer { provisional: true, ..answer });
        reasons.push(Reason::Held);
        let mut envelope = Envelope::of(request, provisional, reasons);
        let unheld = take_oversized(&mut envelope);
        let entry = self.entry(request, name.clone(), &envelope, request.media.bytes().clone());
        let provisional = take_provisional(&mut envelope).or(unheld);
        let mut reasons = envelope.reasons;
        let accepted = match self.queue.open() {
            Ok(queue) => queue.accept(entry).await.map_err(AskError::from),
            Err(error) => Err(error),
        };
        match accepted {
            Ok(Accepted::New) => {
                self.count(&request.task, "held");
                self.pressure.note_held();
            }
            Ok(Accepted::Known { id, .. }) => return self.reply(id).await,
            Err(error @ AskError::Queue(QueueError::KeyConflict { .. })) => return Err(error),
            Err(error) => {
                reasons.pop();
                let begun = Instant::now();
                let journey =
                    Journey { request, begun, name, local: provisional, expected: None, reasons };
                return self.not_held(journey, error).await;
            }
        }
        let (id, class) = (request.id, request.class);
        Ok(Reply {
            id,
            subject: Subject::Task(request.task.clone()),
            class,
            state: State::Held,
            answer: provisional,
            reasons,
            note: None,
            kept: None,
        })
    }

    /// The local answer stands, unless its caller asked for a bigger model in any case: who did is told
    /// that it cannot be had.
    async fn not_held(&self, mut journey: Journey<'_>, error: AskError) -> Result<Reply, AskError> {
        let is_enough = journey.request.escalate == Escalate::Auto;
        let Some(answer) = journey.local.take().filter(|_| is_enough) else {
            return Err(error);
        };
        tracing::warn!(%error, "a request could not be held, the local answer stands");
        journey.reasons.push(Reason::NotHeld { error: error.to_string() });
        journey.reasons.push(Reason::LocalStands);
        // What stands is kept under its key: a full queue still has room for answers.
        self.finish(journey, Answer { provisional: false, ..answer }, "local").await
    }
}
