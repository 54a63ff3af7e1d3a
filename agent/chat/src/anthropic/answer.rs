//! Owns reading what Anthropic's messages answer, in one piece or as events.
//!
//! Events are documented as `message_start`, then for each block `content_block_start`, `_delta` and
//! `_stop`, then `message_delta` and `message_stop`; `ping` and kinds to come are passed over.
//!
//! **Invariant:** a seal follows the thoughts of its own block.

use std::borrow::Cow;
use std::mem;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::conversation::{Answer, Said, Stop, ToolCall, Usage};
use crate::dialect::{Malformed, json};
use crate::event::StreamError;
use crate::gathering::add;
use crate::reader::Pen;

/// A message as it is answered.
#[derive(Debug, Deserialize)]
pub(crate) struct Message {
    model: String,
    content: Vec<Block>,
    stop_reason: String,
    #[serde(default)]
    stop_details: Option<Details>,
    usage: Tokens,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block {
    Text {
        text: String,
    },
    Thinking {
        thinking: String,
        signature: Option<String>,
    },
    RedactedThinking {
        data: String,
    },
    ToolUse {
        id: String,
        name: String,
        #[serde(default)]
        input: Map<String, Value>,
    },
    /// What only tools of the provider bring.
    #[serde(other)]
    Other,
}

/// What a later event does not tell again holds on.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
struct Tokens {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    output_tokens_details: Option<OfOutput>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
struct OfOutput {
    #[serde(default)]
    thinking_tokens: Option<u64>,
}

impl Tokens {
    fn then(self, later: Self) -> Self {
        Self {
            input_tokens: later.input_tokens.or(self.input_tokens),
            output_tokens: later.output_tokens.or(self.output_tokens),
            cache_creation_input_tokens: later
                .cache_creation_input_tokens
                .or(self.cache_creation_input_tokens),
            cache_read_input_tokens: later.cache_read_input_tokens.or(self.cache_read_input_tokens),
            output_tokens_details: later.output_tokens_details.or(self.output_tokens_details),
        }
    }

    fn counted(self) -> Usage {
        let cached = self.cache_read_input_tokens.unwrap_or_default();
        let written = self.cache_creation_input_tokens.unwrap_or_default();
        let input = self.input_tokens.unwrap_or_default();
        let of_output = self.output_tokens_details.and_then(|of| of.thinking_tokens);
        Usage {
            input: input.saturating_add(cached).saturating_add(written),
            cached,
            output: self.output_tokens.unwrap_or_default(),
            reasoning: of_output.unwrap_or_default(),
        }
    }
}

fn stop(reason: &str, details: Option<Details>) -> Stop {
    match reason {
        "end_turn" | "stop_sequence" => Stop::End,
        "max_tokens" | "model_context_window_exceeded" => Stop::Length,
        "tool_use" => Stop::Calls,
        "refusal" => {
            Stop::Declined(details.and_then(|details| details.explanation).unwrap_or_default())
        }
        other => Stop::Other(other.to_owned()),
    }
}

/// The answer in a message.
#[allow(clippy::unnecessary_wraps, reason = "every protocol's answer may be malformed")]
pub(crate) fn answer(message: Message) -> Result<Answer, Malformed> {
    let said = message.content.into_iter().filter_map(|block| match block {
        Block::Text { text } => (!text.is_empty()).then_some(Said::Text(text)),
        Block::Thinking { thinking, signature } => {
            let signature = signature.filter(|seal| !seal.is_empty());
            Some(Said::Reasoning { text: thinking, signature })
        }
        Block::RedactedThinking { data } => Some(Said::Redacted(data)),
        Block::ToolUse { id, name, input } => {
            Some(Said::Call(ToolCall { id, name, arguments: input.into(), signature: None }))
        }
        Block::Other => None,
    });
    let mut joined = Vec::new();
    said.for_each(|next| add(&mut joined, next));
    let stop = stop(&message.stop_reason, message.stop_details);
    let usage = Some(message.usage.counted());
    Ok(Answer { model: message.model, said: joined, stop, usage })
}

/// Why the model would not answer.
#[derive(Debug, Deserialize)]
struct Details {
    #[serde(default)]
    explanation: Option<String>,
}

/// An event of any kind; those that matter have some of these.
#[derive(Debug, Deserialize)]
struct Told<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(default)]
    index: u64,
    #[serde(borrow, default)]
    message: Option<Begun<'a>>,
    #[serde(default)]
    content_block: Option<Block>,
    #[serde(borrow, default)]
    delta: Option<Delta<'a>>,
    #[serde(default)]
    usage: Option<Tokens>,
}

#[derive(Debug, Deserialize)]
struct Begun<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
    #[serde(default)]
    usage: Option<Tokens>,
}

#[derive(Debug, Deserialize)]
struct Delta<'a> {
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    partial_json: Option<String>,
    #[serde(default)]
    thinking: Option<String>,
    #[serde(default)]
    signature: Option<String>,
    #[serde(borrow, default)]
    stop_reason: Option<Reason<'a>>,
    #[serde(default)]
    stop_details: Option<Details>,
}

#[derive(Debug, Deserialize)]
struct Reason<'a>(#[serde(borrow)] Cow<'a, str>);

/// The state between two events.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    tokens: Tokens,
    /// The block of each call.
    calls: Vec<u64>,
    seal: String,
}

impl Stream {
    /// The data of the next event.
    pub(crate) fn take(&mut self, data: &[u8], pen: &mut Pen<'_>) -> Result<(), StreamError> {
        let told: Told<'_> = json(data)?;
        match (&*told.kind, told.message, told.content_block, told.delta) {
            ("error", ..) => {
                return Err(StreamError::Failed(super::failure_amid(&json(data)?)));
            }
            ("message_start", Some(begun), ..) => {
                pen.model(&begun.model);
                self.count(begun.usage, pen);
            }
            ("content_block_start", _, Some(block), _) => self.begin(told.index, block, pen)?,
            ("content_block_delta", _, _, Some(delta)) => self.add(told.index, delta, pen)?,
            ("content_block_stop", ..) => pen.sealed(mem::take(&mut self.seal)),
            ("message_delta", _, _, Some(delta)) => {
                self.count(told.usage, pen);
                if let Some(reason) = delta.stop_reason {
                    pen.stop(stop(&reason.0, delta.stop_details));
                }
            }
            ("message_start" | "content_block_start" | "content_block_delta", ..) => {
                return Err(Malformed(format!("no content in an event {}", told.kind)).into());
            }
            _ => {}
        }
        Ok(())
    }

    fn count(&mut self, tokens: Option<Tokens>, pen: &mut Pen<'_>) {
        if let Some(tokens) = tokens {
            self.tokens = self.tokens.then(tokens);
            pen.usage(self.tokens.counted());
        }
    }

    fn begin(&mut self, index: u64, block: Block, pen: &mut Pen<'_>) -> Result<(), Malformed> {
        match block {
            Block::Text { text } => pen.text(text),
            Block::Thinking { thinking, signature } => {
                pen.reasoning(thinking);
                self.seal = signature.unwrap_or_default();
            }
            Block::RedactedThinking { data } => pen.redacted(data),
            Block::ToolUse { id, name, input } => {
                let number = pen.call(id, name, None)?;
                self.calls.push(index);
                if !input.is_empty() {
                    pen.arguments(number, Value::Object(input).to_string());
                }
            }
            Block::Other => {}
        }
        Ok(())
    }

    fn add(&mut self, index: u64, delta: Delta<'_>, pen: &mut Pen<'_>) -> Result<(), Malformed> {
        pen.text(delta.text.unwrap_or_default());
        pen.reasoning(delta.thinking.unwrap_or_default());
        self.seal.push_str(&delta.signature.unwrap_or_default());
        if let Some(text) = delta.partial_json {
            // That of a provider's own tool belongs to no call.
            if let Some(number) = self.calls.iter().rposition(|block| *block == index) {
                pen.arguments(number, text);
            }
        }
        Ok(())
    }
}
