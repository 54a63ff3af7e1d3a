//! Owns texts of recordings over HTTP.
//!
//! **Invariant:** there is one file, and every other part of the form is honoured or refused by its name.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use holdfast_chat::served::Refusal;
use holdfast_chat::served::transcriptions::{AskedTranscript, answer, read};

use super::caching::{asker, marked};
use super::complaint::Complaint;
use super::form::{self, Part};
use super::{Call, Taken, allowed, aside, take, told};
use crate::access::Caller;
use crate::api::access_log::Logged;
use crate::api::{Api, Problem, terms};
use crate::inquiry::{Inquiry, Recording};
use crate::price::wav_ms;

pub(super) async fn transcribe(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let call = Call::begin();
    call.end_logged(transcript(&api, &caller, call, &headers, body).await)
}

async fn transcript(
    api: &Api,
    caller: &Caller,
    call: Call,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Response, Logged), Complaint> {
    let Taken { bytes, place: _place, room: _room } = take(api, headers, body).await?;
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.unwrap_or_default().to_owned();
    let (asked, recording) = aside(bytes.len(), move || taken_apart(&kind, &bytes)).await??;
    let default = api.service.policy.default_class;
    let terms = terms::of_inquiry(headers, &Default::default(), default)?;
    let (terms, logged) = allowed(caller, &asked.model, terms)?;
    let is_wav = recording.bytes.starts_with(b"RIFF");
    #[allow(clippy::cast_precision_loss, reason = "of milliseconds")]
    let duration_s = is_wav.then(|| wav_ms(&recording.bytes) as f64 / 1e3);
    let inquiry = Inquiry { id: call.id, terms, matter: recording };
    let asker = asker(api, caller, headers);
    let (answered, found) = api.gateway.transcribe_as(asker, &asked.model, &inquiry).await?;
    let written = answer(asked.wanted, &answered.answer, duration_s);
    let response = told(&answered, written.content_type, written.body);
    Ok((marked(response, found), logged))
}

fn taken_apart(kind: &str, body: &Bytes) -> Result<(AskedTranscript, Recording), Complaint> {
    let parts = form::read(kind, body)
        .map_err(|what| Problem::new(StatusCode::BAD_REQUEST, "bad_form", what))?;
    let (files, fields): (Vec<Part>, Vec<Part>) =
        parts.into_iter().partition(|part| part.name == "file");
    let mut texts = Vec::new();
    for part in &fields {
        let text = std::str::from_utf8(&part.bytes).map_err(|_| {
            refusal(&part.name, "invalid_value", format!("{} must be a text", part.name))
        })?;
        texts.push((part.name.as_str(), text));
    }
    let asked = read(&texts)?;
    let [file] = <[Part; 1]>::try_from(files).map_err(|files| {
        let message = format!("there must be one file, and there are {}", files.len());
        refusal("file", "missing_required_parameter", message)
    })?;
    let recording = Recording {
        bytes: file.bytes,
        name: file.file.unwrap_or_else(|| "recording.wav".to_owned()),
        language: asked.language.clone(),
        prompt: asked.prompt.clone(),
        temperature: asked.temperature,
        chunking: asked.chunking,
        wanted: asked.wanted,
    };
    Ok((asked, recording))
}

fn refusal(param: &str, code: &'static str, message: String) -> Refusal {
    Refusal { param: Some(param.to_owned()), code, message }
}
