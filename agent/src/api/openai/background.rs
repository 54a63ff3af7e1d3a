//! Owns responses that are made in the background: held in the queue, and told later.
//!
//! ```text
//! POST   /v1/responses                with background: the response, queued; with stream as its events
//! GET    /v1/responses/{id}           as it stands; with stream=true its events, and those to come
//! POST   /v1/responses/{id}/cancel    takes it back
//! DELETE /v1/responses/{id}           removes it, with its answer
//! ```
//!
//! A response's id is its request's, behind `resp_`: under `/v1/requests` it is the same one.
//!
//! **Invariant:** a response that is told is on disk; who may not ask its model hears of it as of none.

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::{get, post};
use bytes::Bytes;
use holdfast_chat::served::responses::{self, Standing};
use holdfast_chat::served::{Asked, Named, Refusal};
use serde_json::json;

use super::complaint::Complaint;
use super::following::Following;
use super::{Call, told};
use crate::access::Caller;
use crate::api::{Api, Problem, Route, terms};
use crate::ask_error::AskError;
use crate::envelope::{Envelope, EnvelopeError, Final, Frame, Held, HeldConversation};
use crate::gateway::Answered;
use crate::gateway::held::{Taken, Unheld};
use crate::inquiry::{Inquiry, Terms};
use crate::listing::note_of;
use crate::operator::drop_request;
use crate::outcome::Outcome;
use crate::queue::{QueueError, Record, Recorded, RequestId, State as Stage};
use crate::request::DataClass;

/// What a response's id begins with.
pub(super) const PREFIX: &str = "resp_";
/// What may be included: it is there in any case.
pub(super) const INCLUDED: &str = "reasoning.encrypted_content";
/// No event has a higher number: more is not exact in every client.
const MOST_EVENTS: u64 = 9_007_199_254_740_991;
/// Of OpenAI's words for why there is no answer there is no better one.
const FAILED: &str = "server_error";

/// A conversation that is kept.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) id: RequestId,
    state: Stage,
    note: Option<String>,
    answer: Option<Bytes>,
    class: DataClass,
    held: Box<HeldConversation>,
}

pub(super) fn routes() -> [Route; 2] {
    [("/v1/responses/{id}", get(show).delete(remove)), ("/v1/responses/{id}/cancel", post(cancel))]
}

/// Holds what is asked, and tells the response that it will be.
pub(super) async fn begin(
    api: &Api,
    call: Call,
    headers: &HeaderMap,
    mut asked: Asked,
    terms: Terms,
) -> Result<Response, Complaint> {
    check(&asked)?;
    let times = terms::held_times(headers, &asked.metadata, api.defaults.ttl_ms)?;
    // Behind the promise nothing is refused any more.
    let place = asked.stream.map(|_| api.waiting_place()).transpose()?;
    let matter = std::mem::take(&mut asked.conversation);
    let inquiry = Inquiry { id: call.id, terms, matter };
    let frame = frame(crate::clock::date_ms() / 1000, &asked);
    let held = api.gateway.hold(&asked.model, inquiry, times, frame).await;
    let kept = match held.map_err(|error| of_unheld(api, error))? {
        Taken::New(envelope) => Kept::new(call.id, envelope),
        Taken::Known(id) => find(api, id).await?,
    };
    let kept = kept.ok_or_else(|| unknown(&format!("{PREFIX}{}", call.id)))?;
    match place {
        None => told_as(&kept),
        Some(place) => Ok(Following::of(api, &kept, None, place)?.response()),
    }
}

/// What the caller of what was asked then is told beside the answer, but for the conversation's own.
pub(super) fn frame(created_s: u64, asked: &Asked) -> Frame {
    let (metadata, user) = (asked.metadata.clone(), asked.user.clone());
    Frame { created_s, metadata, user, ..Frame::default() }
}

/// What stands against a response in the background.
fn check(asked: &Asked) -> Result<(), Refusal> {
    if asked.store != Some(false) {
        return Ok(());
    }
    Err(Refusal {
        param: Some("store".to_owned()),
        code: "unsupported_value",
        message: "store: what is made in the background is kept: leave it out".to_owned(),
    })
}

/// Why it is not held, with the queue's pace where that is the reason.
pub(super) fn of_unheld(api: &Api, error: Unheld) -> Complaint {
    match error {
        Unheld::Refused(refused) => refused.into(),
        Unheld::Queue(error) => {
            let (waiting, rate) = (api.service.waiting(), api.service.pressure.queue());
            Problem::of_queue(error, waiting, rate).into()
        }
    }
}

async fn show(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let shown = async {
        let view = View::of(query.as_deref().unwrap_or_default())?;
        let kept = own(&api, &caller, &id).await?;
        match view {
            View::Whole => told_as(&kept),
            View::Events { after } => {
                let place = api.waiting_place()?;
                Ok(Following::of(&api, &kept, after, place)?.response())
            }
        }
    };
    Call::begin().end(shown.await)
}

async fn cancel(State(api): State<Api>, caller: Caller, Path(id): Path<String>) -> Response {
    let cancelled = async {
        let own = own_or_damaged(&api, &caller, &id).await?;
        let (queue, now_ms) = (api.service.queue.open()?, api.service.clock.now_ms());
        // One that has its end keeps it, and is told as it is.
        let id_of = known_id(&id)?;
        let recorded = queue.cancel(id_of, now_ms).await.map_err(|error| gone(error, &id))?;
        match own {
            Some(_) => told_as(&find(&api, id_of).await?.ok_or_else(|| unknown(&id))?),
            None => Ok(damaged(&id, id_of, recorded)),
        }
    };
    Call::begin().end(cancelled.await)
}

async fn remove(State(api): State<Api>, caller: Caller, Path(id): Path<String>) -> Response {
    let removed = async {
        own_or_damaged(&api, &caller, &id).await?;
        let (queue, now_ms) = (api.service.queue.open()?, api.service.clock.now_ms());
        let dropped = drop_request(queue, known_id(&id)?, now_ms).await;
        dropped.map_err(|error| gone(error, &id))?;
        let body = json!({ "id": id, "object": "response", "deleted": true });
        Ok(json_body(body.to_string()))
    };
    Call::begin().end(removed.await)
}

/// How a response is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum View {
    /// As it stands.
    Whole,
    /// As its events, from the one behind `after` on.
    Events { after: Option<u64> },
}

impl View {
    /// Reads a query; what a response cannot be asked for is refused.
    fn of(query: &str) -> Result<Self, Refusal> {
        let (mut is_streamed, mut after) = (false, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = name.trim_end_matches("[]").trim_end_matches("%5B%5D");
            match (name, value) {
                ("include", INCLUDED) | ("include_obfuscation", "false") => {}
                ("stream", "true" | "false") => is_streamed = value == "true",
                ("starting_after", number) => {
                    let number = number.parse().ok().filter(|number| *number <= MOST_EVENTS);
                    let why = "must be the number of an event";
                    after = Some(number.ok_or_else(|| refusal(name, "invalid_value", why))?);
                }
                _ => {
                    let why = "this cannot be honoured of a response that is kept: leave it out";
                    return Err(refusal(name, "unsupported_parameter", why));
                }
            }
        }
        match (is_streamed, after) {
            (true, after) => Ok(Self::Events { after }),
            (false, None) => Ok(Self::Whole),
            (false, Some(_)) => {
                let why = "only events have numbers: ask with stream=true";
                Err(refusal("starting_after", "unsupported_parameter", why))
            }
        }
    }
}

pub(super) fn refusal(param: &str, code: &'static str, why: &str) -> Refusal {
    let param: String = param.chars().take(64).collect();
    Refusal { message: format!("{param}: {why}"), param: Some(param), code }
}

fn known_id(id: &str) -> Result<RequestId, Complaint> {
    let parsed = id.strip_prefix(PREFIX).and_then(|id| RequestId::parse(id).ok());
    parsed.ok_or_else(|| unknown(id))
}

/// The caller's own response of this id.
pub(super) async fn own(api: &Api, caller: &Caller, id: &str) -> Result<Kept, Complaint> {
    own_of(caller, id, find(api, known_id(id)?).await?)
}

fn own_of(caller: &Caller, id: &str, found: Option<Kept>) -> Result<Kept, Complaint> {
    let kept = found.ok_or_else(|| unknown(id))?;
    // Others hear of it as of none.
    let is_own = caller.may_hear(&kept.held.model, kept.class);
    if is_own { Ok(kept) } else { Err(unknown(id)) }
}

/// The same; `None`: what is kept of it cannot be read. Who may not ask everything hears of that as of none.
async fn own_or_damaged(api: &Api, caller: &Caller, id: &str) -> Result<Option<Kept>, Complaint> {
    match find(api, known_id(id)?).await {
        Err(AskError::Stored(_) | AskError::Queue(QueueError::Damaged { .. })) => {
            if caller.is_bounded() { Err(unknown(id)) } else { Ok(None) }
        }
        found => own_of(caller, id, found?).map(Some),
    }
}

async fn find(api: &Api, id: RequestId) -> Result<Option<Kept>, AskError> {
    match api.service.queue.open()?.get(id).await? {
        Some(record) => Ok(Kept::of(record)?),
        None => Ok(None),
    }
}

fn gone(error: QueueError, id: &str) -> Complaint {
    match error {
        QueueError::Unknown { .. } => unknown(id),
        error => error.into(),
    }
}

fn unknown(id: &str) -> Complaint {
    let shown: String = id.chars().take(64).collect();
    let message = format!(
        "no response {shown} here; those made with background: true are kept, for \
         queue.keep_answers_s after their end"
    );
    let status = StatusCode::NOT_FOUND;
    Complaint::new(status, "invalid_request_error", "unknown_response", message)
}

impl Kept {
    /// What was put on disk just now; `None`: it is no conversation. It may be on its way already; what was
    /// promised is that it is there.
    fn new(id: RequestId, envelope: Envelope) -> Option<Self> {
        let Held::Conversation(held) = envelope.held else { return None };
        let class = envelope.class;
        Some(Self { id, state: Stage::Held, note: None, answer: None, class, held })
    }

    /// A record, read; `None`: it is no conversation.
    pub(super) fn of(record: Record) -> Result<Option<Self>, EnvelopeError> {
        let (state, note) = (record.summary.state, note_of(&record.summary));
        let kept = Self::new(record.summary.id, Envelope::from_bytes(&record.envelope)?);
        Ok(kept.map(|kept| Self { state, note, answer: record.answer, ..kept }))
    }

    /// Seconds of Unix time at which it was asked.
    pub(super) fn created_s(&self) -> u64 {
        self.held.frame.created_s
    }

    /// The response's frame, as its caller knows it.
    pub(super) fn frame(&self) -> (Named, Asked) {
        let HeldConversation { model, frame, .. } = &*self.held;
        let Frame { created_s, metadata, user, settings } = frame.clone();
        let id = format!("{PREFIX}{}", self.id);
        let named =
            Named { id, created: created_s, model: model.clone(), metadata: metadata.clone() };
        let asked = Asked {
            model: model.clone(),
            conversation: settings,
            stream: None,
            metadata,
            store: Some(true),
            background: true,
            user,
        };
        (named, asked)
    }

    /// How it stands; `None`: it is answered.
    pub(super) fn standing(&self) -> Option<Standing> {
        Some(match self.state {
            Stage::Answered => return None,
            Stage::Held | Stage::WaitingForBudget => Standing::Queued,
            Stage::InFlight => Standing::InProgress,
            Stage::Cancelled => Standing::Cancelled,
            // Nothing more happens to it by itself.
            Stage::SetAside => failed(format!(
                "it is set aside until its operator lets it go again: {}",
                self.note.as_deref().unwrap_or("it was tried too often")
            )),
            Stage::Failed | Stage::Expired => {
                failed(self.note.clone().unwrap_or_else(|| "nobody answered it".to_owned()))
            }
        })
    }

    /// Whether it waits for its operator.
    pub(super) fn is_set_aside(&self) -> bool {
        self.state == Stage::SetAside
    }

    /// Its answer.
    pub(super) fn answered(&self) -> Result<Answered<holdfast_chat::Answer>, EnvelopeError> {
        let stored = Final::from_bytes(self.answer.as_deref().unwrap_or_default())?;
        let answer = stored.answer;
        let Some(Outcome::Message(message)) = answer.outcome else {
            return Err(EnvelopeError::Damaged);
        };
        Ok(Answered {
            answer: message.answer(&answer.model),
            place: answer.place,
            zone: answer.zone,
            cost_micros: answer.cost_micros,
        })
    }
}

/// There is no answer, and none will come.
pub(super) fn failed(message: String) -> Standing {
    Standing::Failed { code: FAILED.to_owned(), message }
}

/// The response as its caller knows it.
fn told_as(kept: &Kept) -> Result<Response, Complaint> {
    let (named, asked) = kept.frame();
    match kept.standing() {
        Some(standing) => Ok(json_body(responses::standing(&named, &asked, &standing))),
        None => {
            let by = kept.answered()?;
            let body = responses::answer(&named, &asked, &by.answer);
            Ok(told(&by, "application/json", body))
        }
    }
}

/// A response of which only its end is known.
fn damaged(shown: &str, id: RequestId, recorded: Recorded) -> Response {
    let created = id.uuid().get_timestamp().map_or(0, |made| made.to_unix().0);
    let (id, model) = (shown.to_owned(), "?".to_owned());
    let named = Named { id, created, model, ..Named::default() };
    let asked = Asked { store: Some(true), background: true, ..Asked::default() };
    let standing = match recorded {
        Recorded::Stored | Recorded::AlreadyFinal(Stage::Cancelled) => Standing::Cancelled,
        Recorded::AlreadyFinal(_) => failed("what is kept of it is damaged".to_owned()),
    };
    json_body(responses::standing(&named, &asked, &standing))
}

pub(super) fn json_body(body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use holdfast_chat::Conversation;

    use super::*;
    use crate::queue::Summary;
    use crate::request::Priority;

    #[test]
    fn a_response_is_asked_for_as_it_stands_or_as_its_events() {
        let events = |after| Some(View::Events { after });
        for (query, want) in [
            ("", Some(View::Whole)),
            ("stream=false", Some(View::Whole)),
            ("include%5B%5D=reasoning.encrypted_content&stream=false", Some(View::Whole)),
            ("include[]=reasoning.encrypted_content", Some(View::Whole)),
            ("stream=true", events(None)),
            ("starting_after=0&stream=true", events(Some(0))),
            ("stream=true&starting_after=9007199254740991", events(Some(MOST_EVENTS))),
            ("stream=true&starting_after=9007199254740992", None),
            ("stream=true&include_obfuscation=false", events(None)),
            ("stream=true&include_obfuscation=true", None),
            ("stream=yes", None),
            ("stream=true&starting_after=-1", None),
            ("starting_after=3", None),
            ("include[]=message.output_text.logprobs", None),
        ] {
            assert_eq!(View::of(query).ok(), want, "{query}");
        }
    }

    #[test]
    fn what_is_told_at_once_is_what_is_kept() {
        let settings = Conversation { system: Some("be brief".to_owned()), ..Default::default() };
        let metadata = [("mine".to_owned(), "1".to_owned())].into();
        let held = HeldConversation {
            model: "any".to_owned(),
            within_ms: 9,
            cost_limit_micros: None,
            frame: Frame { created_s: 7, metadata, user: Some("me".to_owned()), settings },
        };
        let envelope = Envelope {
            held: Held::Conversation(Box::new(held)),
            class: DataClass::Internal,
            priority: Priority::default(),
            ttl_ms: 9,
            key: None,
            hops: 0,
            reasons: Vec::new(),
        };
        let summary = Summary {
            id: RequestId::new(),
            state: Stage::Held,
            priority: 4,
            attempts: 0,
            last_reason: None,
            accepted_at_ms: 1,
            not_before_ms: 0,
            expires_at_ms: None,
            finished_at_ms: None,
            key: None,
            bytes: 1,
        };
        let (id, envelope_bytes) = (summary.id, envelope.to_bytes().into());
        let record = |state| {
            let summary = Summary { state, ..summary.clone() };
            Record { summary, envelope: Bytes::clone(&envelope_bytes), answer: None }
        };
        let at_once = Kept::new(id, envelope).unwrap();
        for (state, want) in [
            (Stage::Held, "queued"),
            (Stage::WaitingForBudget, "queued"),
            (Stage::InFlight, "in_progress"),
            (Stage::SetAside, "failed"),
            (Stage::Failed, "failed"),
            (Stage::Expired, "failed"),
            (Stage::Cancelled, "cancelled"),
        ] {
            let kept = Kept::of(record(state)).unwrap().unwrap();
            let (named, asked) = kept.frame();
            assert_eq!((named.clone(), asked.clone()), at_once.frame());
            let body = responses::standing(&named, &asked, &kept.standing().unwrap());
            let told: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(
                (&told["status"], &told["created_at"]),
                (&json!(want), &json!(7)),
                "{state}"
            );
        }
        assert_eq!(at_once.standing(), Some(Standing::Queued));
        let answered = Kept::of(record(Stage::Answered)).unwrap().unwrap();
        assert!(answered.standing().is_none() && answered.answered().is_err(), "without its bytes");
    }

    #[test]
    fn what_is_made_in_the_background_is_kept() {
        for (store, is_fine) in [(None, true), (Some(true), true), (Some(false), false)] {
            assert_eq!(check(&Asked { store, ..Asked::default() }).is_ok(), is_fine, "{store:?}");
        }
    }
}
