//! Owns conversations over HTTP, in the three forms in which OpenAI's clients have them.
//!
//! **Invariant:** the forms differ in how they are read and written, and in nothing else.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use axum::routing::{MethodRouter, post};
use futures_util::stream;
use holdfast_chat::served::{Asked, Named, Refusal, StreamOptions, completion, legacy, responses};
use holdfast_chat::{Answer, Event};
use tokio::sync::OwnedSemaphorePermit;

use super::caching::{asker, marked};
use super::complaint::Complaint;
use super::pouring::Pouring;
use super::{Call, Taken, allowed, apart, background, holding, take_json, told};
use crate::access::Caller;
use crate::api::access_log::{Ending, Logged};
use crate::api::{Api, Route, terms};
use crate::gateway::{Answered, Begun};
use crate::inquiry::Inquiry;
use crate::queue::RequestId;

/// A form of conversations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Completion,
    Legacy,
    Response,
}

/// Writes an answer piece by piece, in its form.
#[derive(Debug)]
pub(super) enum Writer {
    Completion(completion::Writer),
    Legacy(legacy::Writer),
    Response(responses::Writer),
}

pub(super) fn routes() -> [Route; 3] {
    [
        ("/v1/chat/completions", of(Form::Completion)),
        ("/v1/completions", of(Form::Legacy)),
        ("/v1/responses", of(Form::Response)),
    ]
}

fn of(form: Form) -> MethodRouter<Api> {
    post(async move |State(api): State<Api>, caller: Caller, headers: HeaderMap, body: Body| {
        let call = Call::begin();
        call.end_logged(answer(&api, &caller, (form, call), &headers, body).await)
    })
}

async fn answer(
    api: &Api,
    caller: &Caller,
    (form, call): (Form, Call),
    headers: &HeaderMap,
    body: Body,
) -> Result<(Response, Logged), Complaint> {
    let Taken { bytes, place, room: _room } = take_json(api, headers, body).await?;
    let mut asked = apart(bytes, move |bytes| form.read(bytes)).await?;
    let default = api.service.policy.default_class;
    if asked.background {
        let terms = terms::of_held(headers, &asked.metadata, default)?;
        let (terms, logged) = allowed(caller, &asked.model, terms)?;
        return Ok((background::begin(api, call, headers, asked, terms).await?, logged));
    }
    check_kept(&asked)?;
    // Nothing is, whatever OpenAI does where nobody says so.
    asked.store = Some(false);
    let (holds, terms) = match form {
        Form::Completion | Form::Legacy => terms::of_holdable(headers, &asked.metadata, default)?,
        Form::Response => (false, terms::of_inquiry(headers, &asked.metadata, default)?),
    };
    let (terms, logged) = allowed(caller, &asked.model, terms)?;
    let asker = asker(api, caller, headers);
    if holds {
        let by = (asker, headers);
        return Ok((holding::answer(api, (form, call), by, asked, terms).await?, logged));
    }
    let matter = std::mem::take(&mut asked.conversation);
    let inquiry = Inquiry { id: call.id, terms, matter };
    let named = form.named(call.id, crate::clock::date_ms() / 1000, &asked);
    let Some(options) = asked.stream else {
        let answered = api.gateway.converse_as(asker, &asked.model, &inquiry).await?;
        let (answered, found) = answered;
        asked.conversation = inquiry.matter;
        let body = form.answer(&named, &asked, &answered.answer);
        return Ok((marked(told(&answered, "application/json", body), found), logged));
    };
    let begun = api.gateway.converse_in_pieces_as(asker, &asked.model, &inquiry).await?;
    let (begun, found) = begun;
    asked.conversation = inquiry.matter;
    let writer = form.writer(&named, &asked, options);
    Ok((marked(pour(api, writer, begun, place), found), logged))
}

/// What is answered in the call is not kept.
fn check_kept(asked: &Asked) -> Result<(), Refusal> {
    if asked.store != Some(true) {
        return Ok(());
    }
    Err(Refusal {
        param: Some("store".to_owned()),
        code: "unsupported_value",
        message:
            "store: only responses that are made in the background are kept here: leave it out, \
                  or say false"
                .to_owned(),
    })
}

/// The answer as a stream, which begins with the pieces that are there.
fn pour(
    api: &Api,
    writer: Writer,
    begun: Answered<Begun>,
    place: OwnedSemaphorePermit,
) -> Response {
    let Answered { answer: Begun { events, rest }, place: by, zone, cost_micros } = begun;
    let by = Answered { answer: (), place: by, zone, cost_micros };
    let ending = Ending::default();
    let pouring = Pouring::new(writer, events, rest, &api.stop, (place, ending.clone()));
    let body = Body::from_stream(stream::unfold(pouring, Pouring::next));
    let mut response = told(&by, "text/event-stream", body);
    let no_cache = HeaderValue::from_static("no-cache");
    response.headers_mut().insert(header::CACHE_CONTROL, no_cache);
    response.extensions_mut().insert(ending);
    response
}

impl Form {
    fn read(self, body: &[u8]) -> Result<Asked, Refusal> {
        match self {
            Self::Completion => completion::read(body),
            Self::Legacy => legacy::read(body),
            Self::Response => responses::read(body),
        }
    }

    pub(super) fn named(self, id: RequestId, created: u64, asked: &Asked) -> Named {
        let prefix = match self {
            Self::Completion => "chatcmpl-",
            Self::Legacy => "cmpl-",
            Self::Response => background::PREFIX,
        };
        Named {
            id: format!("{prefix}{id}"),
            created,
            model: asked.model.clone(),
            metadata: asked.metadata.clone(),
        }
    }

    pub(super) fn answer(self, named: &Named, asked: &Asked, answer: &Answer) -> Vec<u8> {
        match self {
            Self::Completion => completion::answer(named, answer),
            Self::Legacy => legacy::answer(named, answer),
            Self::Response => responses::answer(named, asked, answer),
        }
    }

    fn writer(self, named: &Named, asked: &Asked, options: StreamOptions) -> Writer {
        match self {
            Self::Completion => Writer::Completion(completion::Writer::new(named, options)),
            Self::Legacy => Writer::Legacy(legacy::Writer::new(named, options)),
            Self::Response => Writer::Response(responses::Writer::new(named, asked)),
        }
    }
}

impl Writer {
    /// Appends what `event` becomes.
    pub(super) fn write(&mut self, event: &Event, out: &mut Vec<u8>) {
        match self {
            Self::Completion(writer) => writer.write(event, out),
            Self::Legacy(writer) => writer.write(event, out),
            Self::Response(writer) => writer.write(event, out),
        }
    }

    /// Appends the end of a whole answer.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::Completion(writer) => writer.finish(out),
            Self::Legacy(writer) => writer.finish(out),
            Self::Response(writer) => writer.finish(out),
        }
    }

    /// Appends the end of an answer that broke off.
    pub(super) fn fail(&mut self, complaint: &Complaint, out: &mut Vec<u8>) {
        match self {
            Self::Response(writer) => writer.fail(complaint.code(), complaint.message(), out),
            Self::Completion(_) | Self::Legacy(_) => out.extend(complaint.event()),
        }
    }
}
