//! Owns reading what a chat completion answers, in one piece or in many.
//!
//! **Invariant:** the first choice is the answer; both ways of answering come to the same.

use std::borrow::Cow;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::conversation::{Answer, Said, Stop, ToolCall, Usage};
use crate::dialect::Malformed;
use crate::event::StreamError;
use crate::gathering::{add, arguments};
use crate::reader::Pen;
use crate::sse::MOST_BYTES;

/// What ids begin with that were made here, since the server gave none.
const NUMBERED: &str = "holdfast-call-";

/// A completion or a chunk of one.
#[derive(Debug, Deserialize)]
pub(crate) struct Body<'a> {
    #[serde(borrow, default)]
    object: Option<Word<'a>>,
    #[serde(borrow, default)]
    model: Option<Word<'a>>,
    #[serde(borrow, default)]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(default)]
    usage: Option<Tokens>,
    #[serde(default)]
    error: Option<IgnoredAny>,
}

/// A text that is read and not kept.
#[derive(Debug, Deserialize)]
struct Word<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Debug, Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    index: u64,
    #[serde(borrow, default, alias = "delta")]
    message: Option<Message<'a>>,
    #[serde(borrow, default)]
    finish_reason: Option<Word<'a>>,
}

#[derive(Debug, Deserialize)]
struct Message<'a> {
    #[serde(default)]
    reasoning_content: Option<String>,
    #[serde(default)]
    reasoning: Option<String>,
    #[serde(default)]
    content: Content,
    #[serde(default)]
    refusal: Option<String>,
    #[serde(borrow, default)]
    tool_calls: Option<Vec<Called<'a>>>,
}

#[derive(Debug, Deserialize)]
struct Called<'a> {
    #[serde(default)]
    index: Option<u64>,
    #[serde(borrow, default)]
    id: Option<Word<'a>>,
    #[serde(default)]
    function: Function,
}

#[derive(Debug, Default, Deserialize)]
struct Function {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    arguments: Arguments,
}

/// Words, or the list of chunks in which Mistral's reasoning models answer.
#[derive(Debug, Default)]
enum Content {
    #[default]
    None,
    Words(String),
    Chunks(Vec<Chunk>),
}

#[derive(Debug, Deserialize)]
struct Chunk {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    thinking: Vec<Thought>,
}

#[derive(Debug, Deserialize)]
struct Thought {
    #[serde(default)]
    text: String,
}

/// JSON in a text, as OpenAI has it, or as it is.
#[derive(Debug, Default)]
enum Arguments {
    #[default]
    None,
    Text(String),
    Object(Map<String, Value>),
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct In;
        impl<'de> Visitor<'de> for In {
            type Value = Content;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("words or chunks")
            }
            fn visit_unit<E: Error>(self) -> Result<Content, E> {
                Ok(Content::None)
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Content, E> {
                Ok(Content::Words(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Content, A::Error> {
                let mut chunks = Vec::new();
                while let Some(chunk) = list.next_element()? {
                    chunks.push(chunk);
                }
                Ok(Content::Chunks(chunks))
            }
        }
        deserializer.deserialize_any(In)
    }
}

impl<'de> Deserialize<'de> for Arguments {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct In;
        impl<'de> Visitor<'de> for In {
            type Value = Arguments;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("arguments")
            }
            fn visit_unit<E: Error>(self) -> Result<Arguments, E> {
                Ok(Arguments::None)
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Arguments, E> {
                Ok(Arguments::Text(text.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Arguments, A::Error> {
                Map::deserialize(MapAccessDeserializer::new(map)).map(Arguments::Object)
            }
        }
        deserializer.deserialize_any(In)
    }
}

impl Arguments {
    fn text(self) -> String {
        match self {
            Self::None => String::new(),
            Self::Text(text) => text,
            Self::Object(map) => Value::Object(map).to_string(),
        }
    }
}

/// What is not counted is left out or null.
#[derive(Debug, Deserialize)]
struct Tokens {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    completion_tokens: Option<u64>,
    #[serde(default)]
    prompt_tokens_details: Option<OfPrompt>,
    #[serde(default)]
    completion_tokens_details: Option<OfCompletion>,
}

#[derive(Debug, Deserialize)]
struct OfPrompt {
    #[serde(default)]
    cached_tokens: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct OfCompletion {
    #[serde(default)]
    reasoning_tokens: Option<u64>,
}

impl Tokens {
    fn counted(&self) -> Usage {
        let cached = self.prompt_tokens_details.as_ref().and_then(|of| of.cached_tokens);
        let reasoning = self.completion_tokens_details.as_ref().and_then(|of| of.reasoning_tokens);
        Usage {
            input: self.prompt_tokens.unwrap_or_default(),
            cached: cached.unwrap_or_default(),
            output: self.completion_tokens.unwrap_or_default(),
            reasoning: reasoning.unwrap_or_default(),
        }
    }
}

fn missing(what: &str) -> Malformed {
    Malformed(format!("no {what} in it"))
}

fn stop(refusal: String, finish: &str) -> Stop {
    match finish {
        _ if !refusal.is_empty() => Stop::Declined(refusal),
        "stop" => Stop::End,
        "length" | "model_length" => Stop::Length,
        "tool_calls" | "function_call" => Stop::Calls,
        "content_filter" => Stop::Filtered,
        other => Stop::Other(other.to_owned()),
    }
}

/// The thoughts and words of a message, in the order in which they were said.
fn words(message: &mut Message<'_>, mut say: impl FnMut(Said)) {
    let mut think = |text: String| {
        if !text.is_empty() {
            say(Said::Reasoning { text, signature: None });
        }
    };
    // A server has the one or the other.
    let thoughts = message.reasoning_content.take().filter(|text| !text.is_empty());
    think(thoughts.or_else(|| message.reasoning.take()).unwrap_or_default());
    match std::mem::take(&mut message.content) {
        Content::None => {}
        Content::Words(text) if text.is_empty() => {}
        Content::Words(text) => say(Said::Text(text)),
        Content::Chunks(chunks) => {
            for chunk in chunks {
                match (chunk.kind.as_str(), chunk.text) {
                    ("text", Some(text)) if !text.is_empty() => say(Said::Text(text)),
                    ("thinking", _) => {
                        let thoughts = chunk.thinking.into_iter().map(|thought| thought.text);
                        let text: String = thoughts.collect();
                        if !text.is_empty() {
                            say(Said::Reasoning { text, signature: None });
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}

/// The id of a call, or one that is made of its number.
fn id(given: Option<&str>, number: usize) -> String {
    match given {
        Some(id) if !id.is_empty() => id.to_owned(),
        _ => format!("{NUMBERED}{number}"),
    }
}

/// The answer of a completion.
pub(crate) fn answer(body: Body<'_>) -> Result<Answer, Malformed> {
    let choice = body.choices.and_then(|choices| choices.into_iter().next());
    let choice = choice.ok_or_else(|| missing("choice"))?;
    let mut message = choice.message.ok_or_else(|| missing("message"))?;
    let finish = choice.finish_reason.ok_or_else(|| missing("finish_reason"))?;
    let mut said = Vec::new();
    words(&mut message, |next| add(&mut said, next));
    for (number, call) in message.tool_calls.into_iter().flatten().enumerate() {
        said.push(Said::Call(ToolCall {
            id: id(call.id.as_ref().map(|id| &*id.0), number),
            name: call.function.name.ok_or_else(|| missing("name of a tool"))?,
            arguments: arguments(call.function.arguments.text()),
            signature: None,
        }));
    }
    let model = body.model.map(|model| model.0.into_owned()).unwrap_or_default();
    let stop = stop(message.refusal.unwrap_or_default(), &finish.0);
    Ok(Answer { model, said, stop, usage: body.usage.map(|tokens| tokens.counted()) })
}

/// The state between two chunks.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    /// Each call's place in the server's list, and the id that it gave.
    calls: Vec<(u64, String)>,
    refusal: String,
}

impl Stream {
    /// The next chunk.
    pub(crate) fn take(&mut self, data: &[u8], pen: &mut Pen<'_>) -> Result<(), StreamError> {
        if data == b"[DONE]" {
            return Ok(());
        }
        let body: Body<'_> = crate::dialect::json(data)?;
        if body.error.is_some() || body.object.is_some_and(|object| object.0 == "error") {
            return Err(StreamError::Failed(super::failure_amid(&crate::dialect::json(data)?)));
        }
        if let Some(model) = &body.model {
            pen.model(&model.0);
        }
        if let Some(tokens) = &body.usage {
            pen.usage(tokens.counted());
        }
        let choices = body.choices.unwrap_or_default();
        let Some(choice) = choices.into_iter().find(|choice| choice.index == 0) else {
            return Ok(());
        };
        if let Some(message) = choice.message {
            self.message(message, pen)?;
        }
        match choice.finish_reason {
            Some(reason) if !reason.0.is_empty() && !pen.has_stopped() => {
                pen.stop(stop(std::mem::take(&mut self.refusal), &reason.0));
            }
            _ => {}
        }
        Ok(())
    }

    fn message(&mut self, mut message: Message<'_>, pen: &mut Pen<'_>) -> Result<(), Malformed> {
        words(&mut message, |said| match said {
            Said::Text(text) => pen.text(text),
            Said::Reasoning { text, .. } => pen.reasoning(text),
            Said::Redacted(_) | Said::Call(_) => {}
        });
        if let Some(refusal) = message.refusal {
            self.refusal.push_str(&refusal);
            if self.refusal.len() > MOST_BYTES {
                return Err(Malformed(format!("a refusal of more than {MOST_BYTES} bytes")));
            }
        }
        for (place, call) in message.tool_calls.into_iter().flatten().enumerate() {
            self.call(place, call, pen)?;
        }
        Ok(())
    }

    /// The beginning of a call, more of its arguments, or both.
    fn call(&mut self, place: usize, call: Called<'_>, pen: &mut Pen<'_>) -> Result<(), Malformed> {
        let place = call.index.unwrap_or(u64::try_from(place).unwrap_or_default());
        let given = call.id.as_ref().map_or("", |id| &*id.0);
        let known = self.calls.iter().rposition(|(known, id)| {
            // Some servers have all calls in one place and tell them by their ids.
            *known == place && (given.is_empty() || *id == given)
        });
        let number = match known {
            Some(number) => number,
            None => {
                let name = call.function.name.filter(|name| !name.is_empty());
                let name = name.ok_or_else(|| missing("name of a tool"))?;
                let number = pen.call(id(Some(given), pen.calls()), name, None)?;
                self.calls.push((place, given.to_owned()));
                number
            }
        };
        pen.arguments(number, call.function.arguments.text());
        Ok(())
    }
}
