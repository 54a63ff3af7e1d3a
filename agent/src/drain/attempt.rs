//! Owns one try to have one held request answered.
//!
//! **Invariant:** the policy in force is asked anew for every destination, and an attempt is counted
//! only where a destination that is there failed on the request.

use std::time::Duration;

use tokio::time::Instant;

use super::lanes::Place;
use super::outcome::{Outcome as Becomes, settle, unread};
use super::pace::Event;
use super::plan::{Way, choose, share};
use super::{DISK_WAIT, Worker};
use crate::answer::{Answer, Reason};
use crate::destination::Destination;
use crate::envelope::{Envelope, Final, Held, Unpacked};
use crate::escalate::{Fault, Next, SendError, Told, Turn, jitter, link};
use crate::gateway::plan::meant;
use crate::policy::Denied;
use crate::queue::{Lease, QueueError, RequestId};
use crate::request::Escalate;

/// From this size on a body is not read on the reactor.
const LARGE: usize = 256 * 1024;
/// The first wait after a counted attempt; it doubles with every one.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest one.
const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);
/// A request that waits for a destination which fails on everybody waits as after so many attempts.
const SPARED: u32 = 5;

/// Who may be asked a request.
#[derive(Debug)]
pub(super) struct Candidates {
    /// Their places among the destinations, in order.
    pub(super) indexes: Vec<usize>,
    /// Why it is held, and why others may not be asked.
    pub(super) reasons: Vec<Reason>,
    /// Whether any destination is configured for it at all, or it was not to be sent in any case.
    pub(super) is_served: bool,
}

/// What a destination that gave no answer leaves to hope for.
#[derive(Debug)]
enum Word {
    Answered(Box<Answer>),
    /// Never from it.
    Never,
    /// It failed on it.
    Failed(String),
    /// Later, whatever its standing says.
    Later {
        after: Duration,
        why: String,
    },
    /// When its standing is better.
    Standing,
}

impl Worker {
    /// Who may be asked the request `id` now.
    pub(super) fn candidates(&self, id: RequestId, envelope: &Envelope) -> Candidates {
        let mut reasons = envelope.reasons.clone();
        if matches!(&envelope.held, Held::Task(held) if held.escalate == Escalate::Never) {
            reasons.push(Reason::CallerForbade);
            return Candidates { indexes: Vec::new(), reasons, is_served: true };
        }
        let (mut indexes, mut is_served) = (Vec::new(), false);
        for (index, each) in self.serving(&envelope.held) {
            is_served = true;
            let destination = each.name.clone();
            if !self.drain.policy.allows(envelope.class, each.zone) {
                let (class, zone) = (envelope.class, each.zone);
                reasons.push(Reason::ClassForbids { class, destination, zone });
            } else if let Some(error) = self.memory.refusal(id, &each.name) {
                reasons.push(Reason::SendFailed { destination, error });
            } else {
                indexes.push(index);
            }
        }
        Candidates { indexes, reasons, is_served }
    }

    /// The destinations that are configured for it, with their places among all.
    fn serving(&self, held: &Held) -> Vec<(usize, &Destination)> {
        let all = self.drain.destinations.iter().enumerate();
        match held {
            Held::Task(held) => all.filter(|(_, each)| each.serves(&held.task)).collect(),
            Held::Conversation(held) => {
                let (found, _) = meant(&held.model, &self.drain.destinations, &self.drain.routes);
                let place = |each: &Destination| all.clone().find(|(_, of)| of.name == each.name);
                found.into_iter().filter_map(place).collect()
            }
        }
    }

    /// Asks one destination after the other, beginning with the one that there is a place at.
    pub(super) async fn attempt(
        &self,
        lease: &Lease,
        envelope: Envelope,
        mut place: Place<'_>,
    ) -> Becomes {
        let mut asked = match unpack(lease, &envelope).await {
            Ok(asked) => asked,
            Err(outcome) => return outcome,
        };
        let (mut tried, mut failed, mut later) = (Vec::new(), None, None);
        loop {
            let now_ms = self.drain.clock.now_ms();
            let left_ms = lease.expires_at_ms().map(|at| at.saturating_sub(now_ms));
            if left_ms == Some(0) {
                return Becomes::Expired;
            }
            if let (Unpacked::Task(request), Some(left_ms)) = (&mut asked, left_ms) {
                // What is left of its time is what the next agent may keep it for.
                request.ttl_ms = left_ms;
            }
            let index = place.index();
            tried.push(index);
            match self.ask(&asked, left_ms, place).await {
                Word::Answered(answer) => {
                    return self.answered(&envelope, asked.id(), index, *answer);
                }
                Word::Never | Word::Standing => {}
                Word::Failed(why) => failed = Some(why),
                Word::Later { after, why } => later = Some((after, why)),
            }
            match self.next_place(lease, &envelope, &tried) {
                Some(next) => place = next,
                None => break,
            }
        }
        let attempts = lease.attempts();
        match (failed, later) {
            (Some(why), _) if attempts.saturating_add(1) >= self.drain.max_attempts => {
                Becomes::SetAside { why }
            }
            (Some(why), _) => Becomes::Retry { after: wait_after(attempts, jitter()), why },
            (None, Some((after, why))) => Becomes::PutOff { after, why },
            (None, None) => {
                let candidates = self.candidates(asked.id(), &envelope);
                match candidates.indexes.is_empty() {
                    true => settle(envelope, candidates.reasons),
                    false => Becomes::GiveBack,
                }
            }
        }
    }

    fn answered(
        &self,
        envelope: &Envelope,
        id: RequestId,
        index: usize,
        answer: Answer,
    ) -> Becomes {
        let mut reasons = self.candidates(id, envelope).reasons;
        if let Some(destination) = self.drain.destinations.get(index) {
            let (destination, zone) = (destination.name.clone(), destination.zone);
            reasons.push(Reason::Escalated { destination, zone });
        }
        let (subject, class) = (envelope.subject(), envelope.class);
        let stored = Final { subject, class, answer, reasons };
        Becomes::Answer(Box::new(stored))
    }

    /// A place at a destination that was not tried yet.
    fn next_place(&self, lease: &Lease, envelope: &Envelope, tried: &[usize]) -> Option<Place<'_>> {
        let share = share(lease.priority());
        let mut candidates = self.candidates(lease.id(), envelope).indexes;
        candidates.retain(|index| !tried.contains(index));
        let asked = envelope.subject();
        let candidates = self.in_order(&candidates, envelope);
        match choose(&self.standings(&candidates, Some(&asked), share), share) {
            Way::Go(index) => {
                self.lanes.take(&self.drain.escalator, index, (&asked, share), lease.body_len())
            }
            Way::Wait(_) | Way::Budget(_) => None,
        }
    }

    async fn ask(&self, asked: &Unpacked, left_ms: Option<u64>, mut place: Place<'_>) -> Word {
        let index = place.index();
        let (Some(destination), Some(turn)) = (self.drain.destinations.get(index), place.turn())
        else {
            return Word::Never;
        };
        let left = left_ms.map_or(Duration::MAX, Duration::from_millis);
        let within = destination.timeout.min(left);
        let begun = Instant::now().into_std();
        let Ok(result) = self.send(asked, destination, (turn, within)).await else {
            return Word::Never;
        };
        drop(place);
        let error = match result {
            Ok(answer) => {
                self.lanes.note(index, Event::Answered);
                return Word::Answered(Box::new(answer));
            }
            Err(error) => error,
        };
        match error.next() {
            Next::NotHere => {
                self.lanes.note(index, Event::Answered);
                self.memory.refuse(asked.id(), &destination.name, error.to_string());
                Word::Never
            }
            Next::AwaitLink => Word::Standing,
            Next::Retry => self.failed(asked, index, begun, &error).await,
            Next::Later { after } => self.later(asked.id(), index, begun, &error, after),
            // The pause says when.
            Next::AwaitOperator { .. } if !is_of_this_disk(&error) => Word::Standing,
            // Its standing says so too, and what waits for it is let go when the link is another one.
            _ if matches!(error, SendError::OverPlan { .. }) => Word::Standing,
            Next::AwaitOperator { after } | Next::AwaitBudget { after } => {
                Word::Later { after, why: error.to_string() }
            }
        }
    }

    /// Sends it, if the policy lets it go there now.
    async fn send(
        &self,
        asked: &Unpacked,
        destination: &Destination,
        (turn, within): (Turn, Duration),
    ) -> Result<Result<Answer, SendError>, Denied> {
        let (policy, escalator) = (&self.drain.policy, &self.drain.escalator);
        match asked {
            Unpacked::Task(request) => {
                let cleared = policy.clear(request, destination)?;
                Ok(escalator.send_in(turn, cleared, within).await)
            }
            Unpacked::Conversation(inquiry, _) => {
                let cleared = policy.clear(&**inquiry, destination)?;
                let (began, within) = (Instant::now(), within.min(inquiry.terms.within));
                let told = escalator.converse_in(turn, cleared, within).await;
                let by = (destination.name.clone(), destination.zone);
                Ok(told.map(|Told { answer, cost_micros }| {
                    Answer::said(answer, by, began.elapsed(), cost_micros)
                }))
            }
        }
    }

    /// Whether the request, the destination or the link is to blame.
    async fn failed(
        &self,
        asked: &Unpacked,
        index: usize,
        begun: std::time::Instant,
        error: &SendError,
    ) -> Word {
        let id = asked.id();
        let Some(destination) = self.drain.destinations.get(index) else { return Word::Never };
        // What is no answer may come from a captive portal.
        let is_silent = matches!(
            error,
            SendError::TimedOut { .. }
                | SendError::Interrupted { .. }
                | SendError::Unusable { fault: Fault::Foreign { .. }, .. }
        );
        if is_silent && !self.drain.escalator.check(&destination.name).await {
            return Word::Standing;
        }
        let why = error.to_string();
        let failure = self.memory.failed(id, index, self.lanes.answers(index));
        self.lanes.note(index, Event::Failed { begun });
        let is_ailing = self.drain.escalator.is_failing(&destination.name, &asked.subject());
        // A destination that answers others between two failures on a request is not to blame.
        if is_ailing && !failure.has_answered {
            let after = wait_after(failure.in_a_row.saturating_add(SPARED), jitter());
            return Word::Later { after, why };
        }
        Word::Failed(why)
    }

    fn later(
        &self,
        id: RequestId,
        index: usize,
        begun: std::time::Instant,
        error: &SendError,
        after: Duration,
    ) -> Word {
        match error {
            SendError::Throttled { .. } => {
                self.lanes.note(index, Event::Throttled { begun });
                Word::Standing
            }
            // Its standing says when.
            SendError::CircuitOpen { .. } => Word::Standing,
            SendError::Pending { .. } => {
                self.lanes.note(index, Event::Answered);
                let after = after.max(link::backoff(self.memory.pending(id), jitter()));
                Word::Later { after, why: error.to_string() }
            }
            _ => Word::Later { after, why: error.to_string() },
        }
    }
}

/// Reads the request back, or says what becomes of a record that does not read back.
async fn unpack(lease: &Lease, envelope: &Envelope) -> Result<Unpacked, Becomes> {
    let body = lease.body().await.map_err(|error| match error {
        QueueError::Damaged { .. } => Becomes::Fail(error.to_string()),
        // It came to its end meanwhile.
        QueueError::Unknown { .. } => Becomes::GiveBack,
        error => Becomes::PutOff { after: DISK_WAIT, why: error.to_string() },
    })?;
    if body.len() < LARGE {
        return envelope.unpacked(lease.id(), body).map_err(unread);
    }
    let (envelope, id) = (envelope.clone(), lease.id());
    let unpacked = tokio::task::spawn_blocking(move || envelope.unpacked(id, body)).await;
    // The runtime stops.
    unpacked.map_err(|_| Becomes::GiveBack)?.map_err(unread)
}

/// The wait after a counted attempt, of which there were `attempts` before.
fn wait_after(attempts: u32, jitter: f64) -> Duration {
    let doubled = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(attempts.min(16)));
    doubled.min(LONGEST_WAIT).mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
}

/// Whether it is this device's own disk that keeps everything back, and no pause of the destination.
fn is_of_this_disk(error: &SendError) -> bool {
    matches!(error, SendError::Unnoted { .. } | SendError::Unrecorded { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_between_attempts_double_up_to_a_quarter_of_an_hour() {
        for (attempts, want_s) in [(0, 1), (1, 2), (9, 512), (10, 900), (u32::MAX, 900)] {
            assert_eq!(wait_after(attempts, 1.0), Duration::from_secs(want_s), "{attempts}");
            assert_eq!(wait_after(attempts, 0.0), Duration::from_secs(want_s) / 2, "{attempts}");
        }
    }
}
