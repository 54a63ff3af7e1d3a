//! Owns `POST /v1/completions`.
//!
//! Stated conversions: the prompt is one turn of the user; without a limit an answer ends at 16 tokens,
//! as OpenAI documents it; thoughts are left out.
//!
//! **Invariant:** one prompt has one choice.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::fault::{asks_no_more, has_none_of, invalid, missing, parsed, unsupported_value};
use super::fields::{self, Given, Object, OneOrMany, Streaming};
use super::json::{DONE, begin, end, reason, text, usage};
use super::{Asked, Named, Refusal, StreamOptions};
use crate::conversation::{Answer, Conversation, Hints, Part, Sampling, Stop, Turn, Usage};
use crate::event::Event;

/// The limit where nobody says otherwise.
const MAX_TOKENS: u32 = 16;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    model: Option<String>,
    prompt: Option<OneOrMany<Value>>,
    stream: Option<bool>,
    stream_options: Option<Object<Streaming>>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    seed: Option<i64>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    max_tokens: Option<u64>,
    stop: Option<OneOrMany<String>>,
    user: Option<String>,
    // These may say what holds anyway.
    best_of: Option<u64>,
    n: Option<u64>,
    echo: Option<bool>,
    logit_bias: Option<Map<String, Value>>,
    // These cannot be honoured.
    #[serde(default)]
    logprobs: Given,
    #[serde(default)]
    suffix: Given,
}

/// What the body of a request asks.
///
/// # Errors
/// The first field that cannot be honoured, by its path.
pub fn read(body: &[u8]) -> Result<Asked, Refusal> {
    let request: Request = parsed(body)?;
    has_none_of([("logprobs", request.logprobs.0), ("suffix", request.suffix.0)])?;
    let is_biased = request.logit_bias.as_ref().is_some_and(|bias| !bias.is_empty());
    asks_no_more([
        ("best_of", request.best_of.is_some_and(|n| n != 1), "1"),
        ("n", request.n.is_some_and(|n| n != 1), "1"),
        ("echo", request.echo == Some(true), "false"),
        ("logit_bias", is_biased, "empty"),
    ])?;
    let prompt = match request.prompt.ok_or_else(|| missing("prompt"))? {
        OneOrMany::One(prompt) => prompt,
        OneOrMany::Many(mut many) => match (many.pop(), many.as_slice()) {
            (Some(Value::String(prompt)), []) => prompt,
            _ => {
                let message = "prompt: must be one text here, no list of several and no tokens: ask \
                               once for each";
                return Err(unsupported_value("prompt", message));
            }
        },
    };
    if prompt.is_empty() {
        return Err(invalid("prompt", "prompt: must not be empty"));
    }
    let penalty = |param: &str, value| fields::within(param, value, -2.0..=2.0);
    let conversation = Conversation {
        turns: vec![Turn::User(vec![Part::Text(prompt)])],
        sampling: Sampling {
            temperature: fields::within("temperature", request.temperature, 0.0..=2.0)?,
            top_p: fields::within("top_p", request.top_p, 0.0..=1.0)?,
            top_k: None,
            seed: fields::seed(request.seed)?,
            presence_penalty: penalty("presence_penalty", request.presence_penalty)?,
            frequency_penalty: penalty("frequency_penalty", request.frequency_penalty)?,
        },
        max_tokens: Some(
            fields::at_least_one("max_tokens", request.max_tokens)?.unwrap_or(MAX_TOKENS),
        ),
        stop: fields::stops(request.stop)?,
        hints: Hints { user: request.user.clone(), ..Hints::default() },
        ..Conversation::default()
    };
    Ok(Asked {
        model: fields::model(request.model)?,
        conversation,
        stream: fields::stream(request.stream, request.stream_options.as_ref())?,
        user: request.user,
        ..Asked::default()
    })
}

/// The reason for the end; there are no tools here.
fn reason_here(stop: &Stop) -> &'static [u8] {
    match stop {
        Stop::Calls => b"\"stop\"",
        other => reason(other),
    }
}

fn choice(out: &mut Vec<u8>, words: &str, reason: &[u8]) {
    out.extend_from_slice(b"{\"text\":");
    text(out, words);
    out.extend_from_slice(b",\"index\":0,\"logprobs\":null,\"finish_reason\":");
    out.extend_from_slice(reason);
    out.push(b'}');
}

/// The body of the response.
pub fn answer(named: &Named, answer: &Answer) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    begin(&mut out, "text_completion", named);
    let words = answer.text().unwrap_or_else(|| declined(&answer.stop).to_owned());
    choice(&mut out, &words, reason_here(&answer.stop));
    end(&mut out, named, answer.usage.as_ref());
    out
}

/// The words of a model that would not answer.
fn declined(stop: &Stop) -> &str {
    match stop {
        Stop::Declined(words) => words,
        _ => "",
    }
}

/// Writes an answer piece by piece, as server-sent events.
#[derive(Debug)]
pub struct Writer {
    /// What every event begins with, up to its choice.
    head: Vec<u8>,
    options: StreamOptions,
    has_words: bool,
    usage: Option<Usage>,
}

impl Writer {
    /// A writer of one answer.
    pub fn new(named: &Named, options: StreamOptions) -> Self {
        let mut head = b"data: ".to_vec();
        begin(&mut head, "text_completion", named);
        Self { head, options, has_words: false, usage: None }
    }

    /// Appends what `event` becomes to `out`.
    pub fn write(&mut self, event: &Event, out: &mut Vec<u8>) {
        match event {
            Event::Text(words) => {
                self.has_words = true;
                self.chunk(out, words, b"null");
            }
            Event::Usage(usage) => self.usage = Some(*usage),
            Event::Stop(stop) => {
                let words = if self.has_words { "" } else { declined(stop) };
                self.chunk(out, words, reason_here(stop));
            }
            Event::Model(_)
            | Event::Reasoning(_)
            | Event::Sealed(_)
            | Event::Redacted(_)
            | Event::Call { .. }
            | Event::Arguments { .. } => {}
        }
    }

    /// The answer is over: appends its usage, if it is asked for and was counted, and `[DONE]`.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if let (true, Some(counted)) = (self.options.include_usage, &self.usage) {
            out.extend_from_slice(&self.head);
            out.extend_from_slice(b"],\"usage\":");
            usage(out, counted);
            out.extend_from_slice(b"}\n\n");
        }
        out.extend_from_slice(DONE);
    }

    fn chunk(&self, out: &mut Vec<u8>, words: &str, reason: &[u8]) {
        out.extend_from_slice(&self.head);
        choice(out, words, reason);
        let tail: &[u8] =
            if self.options.include_usage { b"],\"usage\":null}\n\n" } else { b"]}\n\n" };
        out.extend_from_slice(tail);
    }
}
