//! Owns the way of a request: engine, judgement, escalation, queue.
//!
//! **Invariant:** a reply is given only when the answer is there or the request is safely on disk;
//! whatever leaves the device goes through [`Policy::clear`].

mod ending;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::answer::{Answer, Reason};
use crate::ask_error::AskError;
use crate::asked::Asked;
use crate::balance::Balancing;
use crate::cache::Cache;
use crate::clock::Clock;
use crate::destination::Destination;
use crate::engine::{Engine, EngineError, Terms};
use crate::envelope::{Envelope, EnvelopeError};
use crate::escalate::{Attempt, Escalator, Next as SendNext, SendError, in_turn};
use crate::idempotency;
use crate::policy::{Cleared, Policy};
use crate::pressure::Pressure;
use crate::queue::{Idempotency, Queue, QueueError, RequestId};
use crate::reply::{Reply, reply_of};
use crate::request::{Request, TaskName};
use crate::route::{self, Above, Local, Next, Question, Start};
use crate::slot::Slot;
use crate::together::Together;

/// Who waits for a request looks at it at most this often.
const GATHER: Duration = Duration::from_millis(5);
/// Who joined a call under way waits so much longer than its own deadline, for what is put on disk then.
const JOINED_GRACE: Duration = Duration::from_secs(1);
/// Answers requests; shared by everything that takes them in.
#[derive(Debug, Clone)]
pub struct Service {
    /// The local models.
    pub engine: Arc<Engine>,
    /// What is held, and answers that can be fetched.
    pub queue: Slot,
    /// The clients of the destinations.
    pub escalator: Arc<Escalator>,
    /// The destinations, in the order in which they are asked.
    pub destinations: Arc<[Destination]>,
    /// Which of several destinations of a task comes first.
    pub balancing: Arc<Balancing>,
    /// The policy in force.
    pub policy: Arc<Policy>,
    /// What stored times are in.
    pub clock: Clock,
    /// How fast things get done.
    pub pressure: Pressure,
    /// The calls under way that have a key.
    pub together: Together,
    /// Answers that were given before; `None` where no rule keeps or shares any.
    pub cache: Option<Cache>,
    /// When the agent stops, nobody waits for a destination or a result any more.
    pub stop: CancellationToken,
}

/// What is known of a request while it is on its way.
struct Journey<'a> {
    request: &'a Request,
    begun: Instant,
    /// The caller's name for it, with the digest of what is asked.
    name: Option<Idempotency>,
    local: Option<Answer>,
    /// How long the local model would take, where that was too long.
    expected: Option<Duration>,
    reasons: Vec<Reason>,
}

impl Journey<'_> {
    /// There is no answer.
    fn nobody(self) -> AskError {
        let reasons = self.reasons;
        match self.expected {
            Some(expected) => AskError::Busy { reasons, expected },
            None => AskError::Nobody(reasons),
        }
    }

    fn time_left(&self) -> Duration {
        Duration::from_millis(self.request.deadline_ms).saturating_sub(self.begun.elapsed())
    }
}

impl Service {
    /// Answers `request`, or puts it safely on disk.
    ///
    /// # Errors
    /// When the request is not taken; then nothing has changed.
    pub async fn ask(&self, request: Request) -> Result<Reply, AskError> {
        let begun = Instant::now();
        let Some(name) = idempotency::of_any_size(&request).await else {
            return self.answer(request, None, begun).await;
        };
        let asked = Asked::of(&request);
        match self.ask_once(request, (name, &asked), begun).await {
            Err(AskError::Queue(QueueError::KeyConflict { key, id })) => {
                Err(self.conflict(&asked, key, id).await)
            }
            outcome => outcome,
        }
    }

    /// Joins the call under this name, or is the first.
    async fn ask_once(
        &self,
        request: Request,
        (name, asked): (Idempotency, &Asked),
        begun: Instant,
    ) -> Result<Reply, AskError> {
        let (id, deadline) = (request.id, Duration::from_millis(request.deadline_ms));
        let (service, known) = (self.clone(), name.clone());
        let begin =
            move || async move { service.answer(request, Some(known), begun).await }.boxed();
        let (call, is_joined) = self.together.join(&name, (id, asked), begin)?;
        if !is_joined {
            return call.await;
        }
        // Who joins is late: what is under way has less time left than it was given itself.
        let within = deadline.saturating_add(JOINED_GRACE);
        timeout(within, call).await.unwrap_or(Err(AskError::UnderWay))
    }

    /// In what a request differs from the one that has its key, as far as that one can be read.
    async fn conflict(&self, asked: &Asked, key: String, id: RequestId) -> AskError {
        let record = match self.queue.get() {
            Some(queue) => queue.get(id).await.ok().flatten(),
            None => None,
        };
        let stored = record.and_then(|record| Envelope::from_bytes(&record.envelope).ok());
        let before = stored.and_then(|envelope| Asked::of_stored(&envelope));
        let before = before.or_else(|| self.together.asked(&key));
        let differs = before.map(|before| asked.difference(&before));
        AskError::Conflict { key, id, differs }
    }

    /// The way of one request.
    async fn answer(
        &self,
        request: Request,
        name: Option<Idempotency>,
        begun: Instant,
    ) -> Result<Reply, AskError> {
        if let Some(reply) = self.known(name.as_ref()).await? {
            return Ok(reply);
        }
        let mut journey = Journey {
            request: &request,
            begun,
            name,
            local: None,
            expected: None,
            reasons: Vec::new(),
        };
        let threshold = self.local_turn(&mut journey).await?;
        let above = self.above(&request.task);
        let question = self.question(&request, &above);
        let local = journey.local.as_ref().zip(threshold);
        let local =
            local.map(|(answer, threshold)| Local { confidence: answer.confidence, threshold });
        let verdict = route::judge(&question, local);
        journey.reasons.extend(verdict.reasons);
        match verdict.next {
            Next::Answer => self.finish_local(journey).await,
            Next::Refuse => Err(journey.nobody()),
            Next::Hold => self.hold(journey).await,
            Next::Send(names) => self.send(journey, &names).await,
        }
    }

    /// The reply to a request that was made before under the same key.
    async fn known(&self, name: Option<&Idempotency>) -> Result<Option<Reply>, AskError> {
        let Some(name) = name else { return Ok(None) };
        match self.queue.find_key(name).await {
            Ok(Some(id)) => self.reply(id).await.map(Some),
            Ok(None) => Ok(None),
            Err(error @ QueueError::KeyConflict { .. }) => Err(error.into()),
            // A disk that cannot be read does not stop the answer.
            Err(error) => {
                tracing::warn!(%error, "earlier requests cannot be looked up");
                Ok(None)
            }
        }
    }

    /// Lets the local model answer into the journey; returns the threshold that it is held to.
    async fn local_turn(&self, journey: &mut Journey<'_>) -> Result<Option<f32>, AskError> {
        let request = journey.request;
        let above = self.above(&request.task);
        match route::decide(&self.question(request, &above)) {
            Start::Refuse(reasons) => return Err(AskError::Nobody(reasons)),
            Start::Up => return Ok(None),
            Start::Local => {}
        }
        let terms = Terms { priority: request.priority, within: journey.time_left() };
        match self.engine.infer(&request.task, &request.media, terms).await {
            Ok(local) => {
                journey.local = Some(local.answer);
                Ok(Some(local.threshold))
            }
            Err(EngineError::Input(why)) => Err(AskError::Input(why)),
            Err(error) => {
                journey.expected = error.retry_after();
                journey.reasons.push(Reason::LocalFailed { error: error.to_string() });
                Ok(None)
            }
        }
    }

    fn above(&self, task: &TaskName) -> Vec<Above<'_>> {
        let serving = self.destinations.iter().filter(|destination| destination.serves(task));
        serving
            .map(|destination| Above {
                name: &destination.name,
                zone: destination.zone,
                reachable: self.escalator.is_reachable(&destination.name),
            })
            .collect()
    }

    fn question<'a>(&'a self, request: &Request, above: &'a [Above<'a>]) -> Question<'a> {
        Question {
            class: request.class,
            escalate: request.escalate,
            hops: request.hops,
            has_local: self.engine.lane(&request.task).is_some(),
            not_before_ms: request.not_before_ms,
            above,
            policy: &self.policy,
        }
    }

    async fn send(&self, mut journey: Journey<'_>, names: &[String]) -> Result<Reply, AskError> {
        let (request, begun) = (journey.request, journey.begun);
        let named = self.destinations.iter().filter(|each| names.contains(&each.name)).collect();
        let mut allowed = Vec::new();
        for destination in self.escalator.for_task(&self.balancing, request, named) {
            match self.policy.clear(request, destination) {
                Ok(cleared) => allowed.push(cleared),
                Err(denied) => journey.reasons.push(denied.into()),
            }
        }
        let send = |cleared, _, attempt| {
            let left = Duration::from_millis(request.deadline_ms).saturating_sub(begun.elapsed());
            Some(self.send_until_stop(cleared, left, attempt).boxed())
        };
        let mut may_work_later = false;
        let failed = |cleared: Cleared<'_>, error: SendError| {
            may_work_later |= !matches!(error.next(), SendNext::NotHere);
            let (destination, error) = (cleared.destination().name.clone(), error.to_string());
            journey.reasons.push(Reason::SendFailed { destination, error });
        };
        let sent = in_turn(allowed, self.balancing.hedge_after, send, failed).await;
        if let Some((cleared, mut answer)) = sent {
            answer.took_ms = crate::answer::millis(journey.begun.elapsed());
            let Destination { name, zone, .. } = cleared.destination();
            let (destination, zone) = (name.clone(), *zone);
            journey.reasons.push(Reason::Escalated { destination, zone });
            return self.finish(journey, answer, "escalated").await;
        }
        match (may_work_later, &journey.local) {
            (true, _) => self.hold(journey).await,
            (false, Some(_)) => self.finish_local(journey).await,
            (false, None) => Err(journey.nobody()),
        }
    }

    /// Its caller is told at once that it is held when the agent stops; it is asked again under its name.
    async fn send_until_stop(
        &self,
        cleared: Cleared<'_>,
        within: Duration,
        attempt: Attempt,
    ) -> Result<Answer, SendError> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {
                let destination = cleared.destination().name.clone();
                let (cause, waited) = ("the agent stops".to_owned(), Some(Duration::ZERO));
                Err(SendError::Interrupted { destination, cause, waited })
            }
            sent = self.escalator.send_among(cleared, within, &attempt) => sent,
        }
    }

    /// Requests in the queue that have no end yet; `None` when there is no queue.
    pub fn waiting(&self) -> Option<u64> {
        self.queue.get().map(Queue::waiting)
    }

    async fn reply(&self, id: RequestId) -> Result<Reply, AskError> {
        let record = self.queue.record(id).await?;
        reply_of(record.ok_or(EnvelopeError::Damaged)?).map_err(AskError::from)
    }

    /// Where the request `id` stands, waiting at most `wait` for its final answer.
    ///
    /// # Errors
    /// When its record cannot be read.
    pub async fn look_up(&self, id: RequestId, wait: Duration) -> Result<Option<Reply>, AskError> {
        let until = Instant::now() + wait;
        let mut changes = self.queue.open()?.changes();
        loop {
            let Some(record) = self.queue.open()?.get(id).await? else { return Ok(None) };
            let changed = async {
                let changed = changes.changed().await;
                // The queue may be busy with other requests: not every change is worth a look.
                tokio::time::sleep(GATHER).await;
                changed
            };
            let is_over = record.summary.state.is_final()
                || tokio::select! {
                    changed = timeout_at(until, changed) => changed.is_err(),
                    () = self.stop.cancelled() => true,
                };
            if is_over {
                return Ok(Some(reply_of(record)?));
            }
        }
    }
}
