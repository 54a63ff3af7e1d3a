//! Owns completions that are held where nobody answers them now: `Holdfast-Hold: true`.
//!
//! **Invariant:** who gets a 202 has its conversation on disk, and under a key there is one of it.

use std::borrow::Borrow;

use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use holdfast_chat::served::{Asked, Refusal};

use super::background::{Kept, frame, of_unheld};
use super::caching::marked;
use super::complaint::Complaint;
use super::talk::Form;
use super::{Call, told};
use crate::api::ask::told_later;
use crate::api::{Api, terms};
use crate::envelope::{Envelope, EnvelopeError};
use crate::gateway::holdable::Came;
use crate::gateway::{Answered, Asker};
use crate::inquiry::{Inquiry, Terms};
use crate::listing::note_of;
use crate::queue::{RequestId, State};
use crate::reply::{Reply, reply_of};

/// The answer, or where it will be.
pub(super) async fn answer(
    api: &Api,
    (form, call): (Form, Call),
    (asker, headers): (Asker, &HeaderMap),
    mut asked: Asked,
    terms: Terms,
) -> Result<Response, Complaint> {
    check(&asked)?;
    let times = terms::held_times(headers, &asked.metadata, api.defaults.ttl_ms)?;
    let (id, created) = (call.id, crate::clock::date_ms() / 1000);
    let matter = std::mem::take(&mut asked.conversation);
    let inquiry = Inquiry { id, terms, matter };
    let frame = frame(created, &asked);
    let came = api.gateway.converse_or_hold(asker, &asked.model, inquiry, (times, frame)).await;
    match came.map_err(|error| of_unheld(api, error))? {
        Came::Answered(answered, found) => {
            Ok(marked(completed(form, id, created, &asked, &answered), found))
        }
        Came::Held(envelope) => {
            let reply = held(id, envelope);
            Ok(told_later(api, &reply, times.not_before_ms))
        }
        Came::Known(id) => standing(api, form, id, &asked).await,
    }
}

/// What may be held is not streamed, also where it could be now: its caller has to know before it matters.
fn check(asked: &Asked) -> Result<(), Refusal> {
    if asked.stream.is_none() {
        return Ok(());
    }
    Err(Refusal {
        param: Some("stream".to_owned()),
        code: "unsupported_value",
        message: "stream: what may be held is not streamed: leave stream out, or Holdfast-Hold"
            .to_owned(),
    })
}

fn completed(
    form: Form,
    id: RequestId,
    created: u64,
    asked: &Asked,
    by: &Answered<impl Borrow<holdfast_chat::Answer>>,
) -> Response {
    let named = form.named(id, created, asked);
    told(by, "application/json", form.answer(&named, asked, by.answer.borrow()))
}

/// The request that was put on disk just now. It may be on its way already; what was promised is that it is
/// there.
fn held(id: RequestId, envelope: Envelope) -> Reply {
    let (subject, class, reasons) = (envelope.subject(), envelope.class, envelope.reasons);
    let (state, answer) = (State::Held, None);
    Reply { id, subject, class, state, answer, reasons, note: None, kept: None }
}

/// What is told of one that was asked before: its answer, where it has one.
async fn standing(
    api: &Api,
    form: Form,
    id: RequestId,
    asked: &Asked,
) -> Result<Response, Complaint> {
    let record = api.service.queue.record(id).await?;
    let record = record.ok_or_else(|| over("it was removed just now", "failed"))?;
    let summary = &record.summary;
    match summary.state {
        State::Answered => {
            // Under a key of a task's there is a conflict before.
            let kept = Kept::of(record)?.ok_or(EnvelopeError::Damaged)?;
            Ok(completed(form, id, kept.created_s(), asked, &kept.answered()?))
        }
        // Its operator may let go what is set aside: under another key it could be asked twice.
        State::Held | State::InFlight | State::WaitingForBudget | State::SetAside => {
            Ok(told_later(api, &reply_of(record)?, 0))
        }
        State::Failed | State::Expired | State::Cancelled => {
            let note = note_of(summary).unwrap_or_else(|| "nobody answered it".to_owned());
            Err(over(&note, summary.state.name()))
        }
    }
}

/// No answer will come of itself to what was asked under this key.
fn over(why: &str, code: &'static str) -> Complaint {
    let message = format!(
        "what was held under this key is over without an answer: {why}; ask again under a new key"
    );
    Complaint::new(StatusCode::GONE, "invalid_request_error", code, message)
}
