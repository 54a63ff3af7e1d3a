//! Owns responses that are made in the background: held in the queue, and told later.
//!
//! ```text
//! POST   /v1/responses                with background: the response, queued
//! GET    /v1/responses/{id}           as it stands
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
use holdfast_chat::served::responses::{self, Standing};
use holdfast_chat::served::{Asked, Named, Refusal};
use serde_json::json;

use super::complaint::Complaint;
use super::{Call, told};
use crate::access::Caller;
use crate::api::{Api, Problem, Route, terms};
use crate::ask_error::AskError;
use crate::envelope::{Envelope, EnvelopeError, Final, Frame, Held, HeldConversation};
use crate::gateway::Answered;
use crate::gateway::held::Unheld;
use crate::inquiry::{Inquiry, Terms};
use crate::listing::note_of;
use crate::operator::drop_request;
use crate::outcome::Outcome;
use crate::queue::{QueueError, Record, RequestId, State as Stage};

/// What a response's id begins with.
pub(super) const PREFIX: &str = "resp_";
/// What may be included: it is there in any case.
const INCLUDED: &str = "reasoning.encrypted_content";

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
    let matter = std::mem::take(&mut asked.conversation);
    let inquiry = Inquiry { id: call.id, terms, matter };
    let frame = Frame {
        created_s: crate::clock::date_ms() / 1000,
        metadata: asked.metadata,
        user: asked.user,
        ..Frame::default()
    };
    let held = api.gateway.hold(&asked.model, inquiry, times, frame).await;
    let id = held.map_err(|error| of_unheld(api, error))?;
    let found = find(api, id).await?;
    let (mut record, held) = found.ok_or_else(|| unknown(&format!("{PREFIX}{id}")))?;
    if id == call.id {
        // It may be on its way by now; what was promised is that it is on disk.
        record.summary.state = Stage::Held;
    }
    told_as(record, *held)
}

/// What stands against a response in the background.
fn check(asked: &Asked) -> Result<(), Refusal> {
    let given = [
        (
            "store",
            asked.store == Some(false),
            "what is made in the background is kept: leave it out",
        ),
        (
            "stream",
            asked.stream.is_some(),
            "what is made in the background is not streamed here: leave it out, and retrieve the response",
        ),
    ];
    match given.into_iter().find(|(_, is_given, _)| *is_given) {
        None => Ok(()),
        Some((param, _, why)) => Err(Refusal {
            param: Some(param.to_owned()),
            code: "unsupported_value",
            message: format!("{param}: {why}"),
        }),
    }
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
        check_query(query.as_deref().unwrap_or_default())?;
        let (record, held) = own(&api, &caller, &id).await?;
        told_as(record, *held)
    };
    Call::begin().end(shown.await)
}

async fn cancel(State(api): State<Api>, caller: Caller, Path(id): Path<String>) -> Response {
    let cancelled = async {
        let (record, _) = own(&api, &caller, &id).await?;
        let (queue, now_ms) = (api.service.queue.open()?, api.service.clock.now_ms());
        // One that has its end keeps it, and is told as it is.
        let id_of = record.summary.id;
        queue.cancel(id_of, now_ms).await.map_err(|error| gone(error, &id))?;
        let (record, held) = find(&api, id_of).await?.ok_or_else(|| unknown(&id))?;
        told_as(record, *held)
    };
    Call::begin().end(cancelled.await)
}

async fn remove(State(api): State<Api>, caller: Caller, Path(id): Path<String>) -> Response {
    let removed = async {
        let (record, _) = own(&api, &caller, &id).await?;
        let (queue, now_ms) = (api.service.queue.open()?, api.service.clock.now_ms());
        let dropped = drop_request(queue, record.summary.id, now_ms).await;
        dropped.map_err(|error| gone(error, &id))?;
        let body = json!({ "id": id, "object": "response", "deleted": true });
        Ok(json_body(body.to_string()))
    };
    Call::begin().end(removed.await)
}

/// Refuses what a response cannot be asked for.
fn check_query(query: &str) -> Result<(), Refusal> {
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = name.trim_end_matches("[]").trim_end_matches("%5B%5D");
        let is_known = match name {
            "include" => value == INCLUDED,
            "stream" => value == "false",
            _ => false,
        };
        if !is_known {
            let name: String = name.chars().take(64).collect();
            let message =
                format!("{name}: this cannot be honoured of a response that is kept: leave it out");
            return Err(Refusal { param: Some(name), code: "unsupported_parameter", message });
        }
    }
    Ok(())
}

/// The caller's own response of this id.
async fn own(
    api: &Api,
    caller: &Caller,
    id: &str,
) -> Result<(Record, Box<HeldConversation>), Complaint> {
    let parsed = id.strip_prefix(PREFIX).and_then(|id| RequestId::parse(id).ok());
    let found = find(api, parsed.ok_or_else(|| unknown(id))?).await?;
    let (record, held) = found.ok_or_else(|| unknown(id))?;
    // Others hear of it as of none.
    caller.may_ask(&held.model).map_err(|_| unknown(id))?;
    Ok((record, held))
}

async fn find(
    api: &Api,
    id: RequestId,
) -> Result<Option<(Record, Box<HeldConversation>)>, Complaint> {
    let record = api.service.queue.open()?.get(id).await.map_err(of_queue)?;
    let Some(record) = record else { return Ok(None) };
    let envelope =
        Envelope::from_bytes(&record.envelope).map_err(|error| of_stored(error.into()))?;
    Ok(match envelope.held {
        Held::Conversation(held) => Some((record, held)),
        Held::Task(_) => None,
    })
}

fn of_queue(error: QueueError) -> Complaint {
    of_stored(error.into())
}

fn of_stored(error: AskError) -> Complaint {
    Problem::from(error).into()
}

impl From<AskError> for Complaint {
    fn from(error: AskError) -> Self {
        of_stored(error)
    }
}

fn gone(error: QueueError, id: &str) -> Complaint {
    match error {
        QueueError::Unknown { .. } => unknown(id),
        error => of_queue(error),
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

/// The response as its caller knows it.
fn told_as(record: Record, held: HeldConversation) -> Result<Response, Complaint> {
    let HeldConversation { model, frame, .. } = held;
    let Frame { created_s, metadata, user, settings } = frame;
    let id = format!("{PREFIX}{}", record.summary.id);
    let named = Named { id, created: created_s, model: model.clone(), metadata: metadata.clone() };
    let asked = Asked {
        model,
        conversation: settings,
        stream: None,
        metadata,
        store: Some(true),
        background: true,
        user,
    };
    let standing = match record.summary.state {
        Stage::Answered => return answered(record, &named, &asked),
        Stage::Held | Stage::WaitingForBudget | Stage::SetAside => Standing::Queued,
        Stage::InFlight => Standing::InProgress,
        Stage::Cancelled => Standing::Cancelled,
        Stage::Failed | Stage::Expired => {
            let why = note_of(&record.summary);
            let message = why.unwrap_or_else(|| "nobody answered it".to_owned());
            // Of OpenAI's words there is no better one.
            Standing::Failed { code: "server_error".to_owned(), message }
        }
    };
    Ok(json_body(responses::standing(&named, &asked, &standing)))
}

fn answered(record: Record, named: &Named, asked: &Asked) -> Result<Response, Complaint> {
    let bytes = record.answer.unwrap_or_default();
    let stored = Final::from_bytes(&bytes).map_err(|error| of_stored(error.into()))?;
    let answer = stored.answer;
    let Some(Outcome::Message(message)) = answer.outcome else {
        return Err(of_stored(EnvelopeError::Damaged.into()));
    };
    let by = Answered {
        answer: message.answer(&answer.model),
        place: answer.place,
        zone: answer.zone,
        cost_micros: answer.cost_micros,
    };
    let body = responses::answer(named, asked, &by.answer);
    Ok(told(&by, "application/json", body))
}

fn json_body(body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_asked_for_as_it_is() {
        for (query, is_fine) in [
            ("", true),
            ("stream=false", true),
            ("include%5B%5D=reasoning.encrypted_content&stream=false", true),
            ("include[]=reasoning.encrypted_content", true),
            ("stream=true", false),
            ("include[]=message.output_text.logprobs", false),
            ("starting_after=3", false),
        ] {
            assert_eq!(check_query(query).is_ok(), is_fine, "{query}");
        }
    }

    #[test]
    fn what_is_kept_is_not_streamed() {
        let asked = |store, stream| Asked { store, stream, ..Asked::default() };
        for (asked, refused) in [
            (asked(None, None), None),
            (asked(Some(true), None), None),
            (asked(Some(false), None), Some("store")),
            (asked(None, Some(Default::default())), Some("stream")),
        ] {
            let param = check(&asked).err().and_then(|refusal| refusal.param);
            assert_eq!(param.as_deref(), refused);
        }
    }
}
