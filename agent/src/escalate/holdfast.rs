//! Owns the protocol of another Holdfast agent: its task API, and the wait for what it holds.
//!
//! **Invariant:** every send of a request carries the same idempotency key, so that asking again
//! never doubles it.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::error::{Fault, SendError, clean};
use super::exchange::Exchange;
use super::http::{Call, Method, Reply};
use super::proof;
use crate::answer::{Answer, Class, MAX_CLASSES};
use crate::destination::Zone;
use crate::outcome::{Outcome, Recorded};
use crate::request::Request;

/// Two polls are at least this far apart, also when the site does not wait as it is asked to.
const POLL_EVERY: Duration = Duration::from_millis(200);
/// The site is asked to wait no longer than this in one poll.
const LONGEST_POLL: Duration = Duration::from_secs(20);
/// A longer label, place or model name is none.
const LONGEST_NAME: usize = 200;

/// Sends `request` and waits for the final answer.
pub(super) async fn ask(exchange: &Exchange<'_>, request: &Request) -> Result<Answer, SendError> {
    let base = &exchange.destination().url;
    let url = format!("{base}/v1/tasks/{}", request.task);
    let headers = headers(exchange, request);
    let proof = || proof::bearer(exchange.secret());
    let body = request.media.bytes().clone();
    let call = Call { method: Method::Post, url, headers, proof: proof(), body };
    let reply = exchange.call(call).await?;
    let mut told = read(exchange, request, &reply)?;
    let id = told.id;
    loop {
        if let Some(answer) = settle(exchange, told)? {
            return Ok(answer);
        }
        let next_poll = Instant::now() + POLL_EVERY;
        let wait = site_wait(exchange.left()).min(LONGEST_POLL);
        if wait < POLL_EVERY {
            return Err(SendError::Pending { destination: exchange.name() });
        }
        let url = format!("{base}/v1/requests/{id}?wait_ms={}", wait.as_millis());
        let (headers, body) = (Vec::new(), Bytes::new());
        let call = Call { method: Method::Get, url, headers, proof: proof(), body };
        let reply = exchange.call(call).await.map_err(forgotten)?;
        told = read(exchange, request, &reply)?;
        if told.state.is_open() {
            sleep_until(next_poll).await;
        }
    }
}

/// What the site may use of the time that is left: some is kept for the way back.
fn site_wait(left: Duration) -> Duration {
    left.saturating_sub((left / 10).clamp(Duration::from_millis(50), Duration::from_secs(1)))
}

fn headers(exchange: &Exchange<'_>, request: &Request) -> Vec<(&'static str, String)> {
    let wait = site_wait(exchange.left());
    vec![
        ("content-type", request.media.media_type().mime().to_owned()),
        ("holdfast-class", request.class.to_string()),
        ("holdfast-priority", request.priority.get().to_string()),
        ("holdfast-deadline-ms", wait.as_millis().max(1).to_string()),
        ("holdfast-ttl-ms", request.ttl_ms.to_string()),
        ("holdfast-escalate", "auto".to_owned()),
        ("holdfast-hops", request.hops.saturating_add(1).to_string()),
        ("idempotency-key", request.id.to_string()),
    ]
}

/// A site that no longer knows what it held is asked anew; its refusal is not about the request.
fn forgotten(error: SendError) -> SendError {
    match error {
        SendError::Refused { destination, status, detail, .. } => {
            let cause = format!("it no longer tells of the request (status {status}: {detail})");
            SendError::Interrupted { destination, cause, waited: None }
        }
        other => other,
    }
}

/// A request as the task API tells of it.
#[derive(Debug, Deserialize)]
struct Told {
    id: Uuid,
    task: String,
    state: State,
    answer: Option<ToldAnswer>,
    #[serde(default)]
    reasons: Vec<ToldReason>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Held,
    InFlight,
    WaitingForBudget,
    SetAside,
    Answered,
    Failed,
    Expired,
    Cancelled,
}

impl State {
    fn is_open(self) -> bool {
        matches!(self, State::Held | State::InFlight | State::WaitingForBudget | State::SetAside)
    }
}

#[derive(Debug, Deserialize)]
struct ToldAnswer {
    label: String,
    confidence: Option<f32>,
    #[serde(default)]
    classes: Vec<ToldClass>,
    #[serde(flatten)]
    outcome: Option<Outcome>,
    recorded: Option<Recorded>,
    zone: Zone,
    place: String,
    model: String,
    took_ms: f64,
    provisional: bool,
}

#[derive(Debug, Deserialize)]
struct ToldClass {
    label: String,
    confidence: f32,
}

#[derive(Debug, Deserialize)]
struct ToldReason {
    text: String,
}

fn read(exchange: &Exchange<'_>, request: &Request, reply: &Reply) -> Result<Told, SendError> {
    let told: Told = exchange.json(reply)?;
    if told.task == request.task.as_str() {
        Ok(told)
    } else {
        Err(foreign(exchange, "it tells of another task"))
    }
}

/// The final answer, or `None` while the site has none.
fn settle(exchange: &Exchange<'_>, told: Told) -> Result<Option<Answer>, SendError> {
    let gave_up = |what: &str| {
        let why = told.reasons.last().map_or(what, |reason| reason.text.as_str());
        Err(SendError::GaveUp { destination: exchange.name(), detail: clean(why) })
    };
    match told.state {
        State::Held | State::InFlight | State::WaitingForBudget | State::SetAside => Ok(None),
        State::Failed => gave_up("it failed there"),
        State::Expired => gave_up("its time to live ended there"),
        State::Cancelled => gave_up("it was cancelled there"),
        State::Answered => match told.answer {
            Some(answer) => check(exchange, answer).map(Some),
            None => Err(foreign(exchange, "it is answered without an answer")),
        },
    }
}

fn check(exchange: &Exchange<'_>, told: ToldAnswer) -> Result<Answer, SendError> {
    let names = [&told.label, &told.place, &told.model];
    let labels = told.classes.iter().map(|class| &class.label);
    let is_name = |name: &str| {
        !name.is_empty() && name.len() <= LONGEST_NAME && !name.chars().any(char::is_control)
    };
    let is_named = names.into_iter().chain(labels).all(|name| is_name(name));
    let confidences = told.classes.iter().map(|class| class.confidence);
    let is_sure = confidences.chain(told.confidence).all(|c| (0.0..=1.0).contains(&c));
    let is_timed = told.took_ms.is_finite() && told.took_ms >= 0.0;
    // Classes have a confidence; what has none must be an answer of another kind.
    let is_told = match &told.outcome {
        Some(outcome) => outcome.is_sound(is_name),
        None => told.confidence.is_some() && !told.classes.is_empty(),
    };
    let is_told = is_told && told.recorded.as_ref().is_none_or(|it| it.is_sound(is_name));
    if !(is_named && is_sure && is_timed && is_told) {
        return Err(foreign(exchange, "a name, confidence or time of its answer is out of range"));
    }
    if told.provisional {
        return Err(foreign(exchange, "its final answer is provisional"));
    }
    let mut classes: Vec<Class> = told
        .classes
        .into_iter()
        .map(|class| Class { label: class.label, confidence: class.confidence })
        .collect();
    classes.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    classes.truncate(MAX_CLASSES);
    let destination = exchange.destination();
    // The site speaks of itself as `device`, and may have asked somebody farther away.
    let place = match told.place.as_str() {
        "device" => destination.name.clone(),
        farther => format!("{}/{farther}", destination.name),
    };
    Ok(Answer {
        label: told.label,
        confidence: told.confidence,
        classes,
        outcome: told.outcome,
        recorded: told.recorded,
        zone: told.zone.max(destination.zone),
        place,
        model: told.model,
        took_ms: told.took_ms,
        provisional: false,
        cost_micros: None,
    })
}

fn foreign(exchange: &Exchange<'_>, what: &str) -> SendError {
    let fault = Fault::Foreign { what: what.to_owned() };
    SendError::Unusable { destination: exchange.name(), fault }
}
