//! Owns asking a destination what a recording says: OpenAI's `POST /v1/audio/transcriptions`, a form with
//! the file in it, which Mistral and other servers have too.
//!
//! **Invariant:** the form has the file as it came, and nothing of the caller's in its frame that could
//! be taken for a part of it.

use std::time::Duration;

use bytes::Bytes;
use holdfast_chat::{Dialect, Unfit, Usage, What};
use serde::Deserialize;

use super::chat::count;
use super::error::SendError;
use super::exchange::Exchange;
use super::hedge::Attempt;
use super::http::{Call, Method};
use super::passage::Errand;
use super::talk::{Told, key, passed_on, plain, talked_to};
use super::{Escalator, proof};
use crate::destination::Chat;
use crate::inquiry::{Inquiry, Recording, length};
use crate::policy::Cleared;
use crate::price::{Content, wav_ms};

/// Bytes of a millisecond of a recording whose length nobody sees: 64 kbit/s.
const BYTES_OF_MS: u64 = 8;

/// What comes back.
#[derive(Debug, Deserialize)]
struct Heard {
    text: String,
    usage: Option<Counted>,
}

/// Tokens, of models that count them.
#[derive(Debug, Deserialize)]
struct Counted {
    #[serde(default)]
    input_tokens: u64,
    #[serde(default)]
    output_tokens: u64,
}

impl Escalator {
    /// Asks what a recording says, as one attempt of several.
    ///
    /// # Errors
    /// [`SendError`], whose [`next`](SendError::next) says what to do.
    pub(crate) async fn transcribe(
        &self,
        cleared: Cleared<'_, Inquiry<Recording>>,
        within: Duration,
        attempt: &Attempt,
    ) -> Result<Told<String>, SendError> {
        let destination = cleared.destination();
        let attempt = Some(attempt);
        let sending = async {
            let Inquiry { id, terms, matter } = cleared.request();
            let chat = talked_to(destination)?;
            if !matches!(chat.dialect, Dialect::OpenAi | Dialect::Mistral) {
                let (protocol, what) = (chat.dialect.name(), What::Parameter("transcriptions"));
                let source = Unfit { protocol, what };
                return Err(SendError::Unfit { destination: destination.name.clone(), source });
            }
            let mark = id.to_string();
            let body = form(&mark, &chat.model, matter);
            let audio_ms = match matter.bytes.starts_with(b"RIFF") {
                true => wav_ms(&matter.bytes),
                false => length(&matter.bytes) / BYTES_OF_MS,
            };
            let errand = Errand {
                bytes: length(&body),
                content: Content { audio_ms, ..Content::default() },
                attempt,
                ..plain(destination, (*id, terms), within)
            };
            let passage = self.enter(&errand, None).await?;
            let mut headers = passed_on(destination, terms);
            headers.push(("idempotency-key", key(terms, &mark)));
            let exchange = passage.exchange();
            let mut usage = None;
            let result = ask(&exchange, chat, (&mark, headers), body, &mut usage).await;
            passage.settle(result, usage.as_ref()).await
        };
        let (answer, cost_micros) = self.counted(&destination.name, sending).await?;
        Ok(Told { answer, cost_micros })
    }
}

async fn ask(
    exchange: &Exchange<'_>,
    chat: &Chat,
    (mark, mut headers): (&str, Vec<(&'static str, String)>),
    body: Bytes,
    usage: &mut Option<Usage>,
) -> Result<String, SendError> {
    let url = Dialect::address(&exchange.destination().url, "/v1/audio/transcriptions");
    headers.push(("content-type", format!("multipart/form-data; boundary={mark}")));
    let proof = proof::of(exchange, &chat.dialect, &url, &body);
    let reply = exchange.call(Call { method: Method::Post, url, headers, proof, body }).await?;
    let heard: Heard = exchange.json(&reply)?;
    *usage = heard.usage.map(|counted| Usage {
        input: counted.input_tokens,
        output: counted.output_tokens,
        ..Usage::default()
    });
    if let Some(usage) = usage {
        count(&exchange.destination().name, usage);
    }
    Ok(heard.text)
}

/// The form, its parts divided by `mark`, which nobody could foresee.
fn form(mark: &str, model: &str, recording: &Recording) -> Bytes {
    let mut form = Vec::with_capacity(recording.bytes.len() + 1024);
    let temperature = recording.temperature.map(|temperature| temperature.to_string());
    let fields = [
        ("model", Some(model)),
        ("response_format", Some("json")),
        ("language", recording.language.as_deref()),
        ("prompt", recording.prompt.as_deref()),
        ("temperature", temperature.as_deref()),
    ];
    for (name, value) in fields {
        let Some(value) = value else { continue };
        let head = format!("--{mark}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n");
        form.extend_from_slice(head.as_bytes());
        form.extend_from_slice(value.as_bytes());
        form.extend_from_slice(b"\r\n");
    }
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || ['.', '-', '_', ' '].contains(c);
    let name: String = recording.name.chars().filter(is_plain).take(100).collect();
    let head = format!(
        "--{mark}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
         content-type: application/octet-stream\r\n\r\n"
    );
    form.extend_from_slice(head.as_bytes());
    form.extend_from_slice(&recording.bytes);
    form.extend_from_slice(format!("\r\n--{mark}--\r\n").as_bytes());
    form.into()
}
