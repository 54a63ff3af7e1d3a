//! Owns turning the messages of a chat into turns.
//!
//! **Invariant:** every call has its result right behind it, and every result its call.

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, SeqAccess, Visitor};

use crate::conversation::{Part, Said, ToolCall, ToolResult, Turn};
use crate::gathering::arguments;
use crate::served::Refusal;
use crate::served::fault::{invalid, missing, unsupported, unsupported_value};
use crate::served::fields::{Given, Object, Word, text};
use crate::served::parts::{Extra, InputAudio, detail, picture, recording, seal, speaker, words};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Message<'a> {
    #[serde(borrow)]
    role: Option<Word<'a>>,
    #[serde(borrow, default)]
    content: Content<'a>,
    name: Option<String>,
    #[serde(borrow)]
    tool_calls: Option<Vec<Object<Called<'a>>>>,
    tool_call_id: Option<String>,
    refusal: Option<String>,
    reasoning_content: Option<String>,
    #[serde(borrow)]
    thinking_blocks: Option<Vec<Object<Thinking<'a>>>>,
    #[serde(default)]
    audio: Given,
    #[serde(default)]
    function_call: Given,
    /// What an answer had; it says nothing to the model.
    #[serde(rename = "annotations")]
    _annotations: Option<IgnoredAny>,
}

#[derive(Default)]
enum Content<'a> {
    #[default]
    None,
    Text(String),
    Pieces(Vec<Object<Piece<'a>>>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Piece<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Word<'a>>,
    text: Option<String>,
    refusal: Option<String>,
    #[serde(borrow)]
    image_url: Option<Object<ImageUrl<'a>>>,
    #[serde(borrow)]
    input_audio: Option<Object<InputAudio<'a>>>,
    #[serde(default)]
    file: Given,
    #[serde(default)]
    prompt_cache_breakpoint: Given,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ImageUrl<'a> {
    #[serde(borrow)]
    url: Option<Word<'a>>,
    #[serde(borrow)]
    detail: Option<Word<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Called<'a> {
    id: Option<String>,
    #[serde(borrow, rename = "type")]
    kind: Option<Word<'a>>,
    function: Option<Object<Function>>,
    extra_content: Option<Object<Extra>>,
    #[serde(default)]
    custom: Given,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Function {
    name: Option<String>,
    arguments: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Thinking<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Word<'a>>,
    thinking: Option<String>,
    signature: Option<String>,
    data: Option<String>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Content<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct In;
        impl<'de> Visitor<'de> for In {
            type Value = Content<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text or a list of parts")
            }
            fn visit_unit<E: Error>(self) -> Result<Content<'de>, E> {
                Ok(Content::None)
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Content<'de>, E> {
                Ok(Content::Text(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Content<'de>, A::Error> {
                let mut pieces = Vec::new();
                while let Some(piece) = list.next_element()? {
                    pieces.push(piece);
                }
                Ok(Content::Pieces(pieces))
            }
        }
        deserializer.deserialize_any(In)
    }
}

/// What was read so far.
#[derive(Default)]
struct Reading {
    system: Vec<String>,
    turns: Vec<Turn>,
    /// Calls that have no result yet: id and name.
    open: Vec<(String, String)>,
}

/// The system prompt and the turns.
pub(super) fn turns(
    messages: Vec<Object<Message<'_>>>,
) -> Result<(Option<String>, Vec<Turn>), Refusal> {
    let mut reading = Reading::default();
    for (at, Object(message)) in messages.into_iter().enumerate() {
        reading.take(&format!("messages[{at}]"), message)?;
    }
    let unanswered = !reading.open.is_empty();
    match reading.turns.last() {
        None => Err(invalid("messages", "messages: nothing is asked")),
        Some(Turn::Model(_)) if !unanswered => {
            Err(unsupported_value("messages", "messages: the last one must not be the assistant's"))
        }
        Some(_) if unanswered => Err(invalid("messages", "messages: a call has no result")),
        Some(_) => {
            let system = (!reading.system.is_empty()).then(|| reading.system.join("\n\n"));
            Ok((system, reading.turns))
        }
    }
}

impl Reading {
    fn take(&mut self, param: &str, message: Message<'_>) -> Result<(), Refusal> {
        let role = message.role.as_ref().ok_or_else(|| missing(format!("{param}.role")))?;
        let role = role.0.clone().into_owned();
        let is_model = role == "assistant";
        for (field, is_there) in [
            ("name", message.name.is_some() && (role == "system" || role == "developer")),
            ("audio", message.audio.0),
            ("function_call", message.function_call.0),
            ("tool_calls", !is_model && message.tool_calls.is_some()),
            ("refusal", !is_model && message.refusal.is_some()),
            ("reasoning_content", !is_model && message.reasoning_content.is_some()),
            ("thinking_blocks", !is_model && message.thinking_blocks.is_some()),
            ("tool_call_id", role != "tool" && message.tool_call_id.is_some()),
        ] {
            if is_there {
                return Err(unsupported(format!("{param}.{field}")));
            }
        }
        if role != "tool" && !self.open.is_empty() {
            let message = format!("{param}: a call before it has no result");
            return Err(invalid(param, message));
        }
        match role.as_str() {
            "system" | "developer" if self.turns.is_empty() => {
                self.system.extend(texts(param, message.content)?);
            }
            "system" | "developer" => {
                let param = format!("{param}.role");
                let message = format!("{param}: {role} messages come before all others here");
                return Err(unsupported_value(param, message));
            }
            "user" => self.user(param, message)?,
            "assistant" => self.model(param, message)?,
            "tool" => self.result(param, message)?,
            "function" => {
                let param = format!("{param}.role");
                let message = format!("{param}: functions are called tools here");
                return Err(unsupported_value(param, message));
            }
            _ => {
                let param = format!("{param}.role");
                let message =
                    format!("{param}: must be system, developer, user, assistant or tool");
                return Err(invalid(param, message));
            }
        }
        Ok(())
    }

    fn user(&mut self, param: &str, message: Message<'_>) -> Result<(), Refusal> {
        let name = message.name.map(|name| speaker(&format!("{param}.name"), name)).transpose()?;
        let parts = parts(param, message.content)?;
        self.turns.push(Turn::User(name.into_iter().chain(parts).collect()));
        Ok(())
    }

    fn model(&mut self, param: &str, message: Message<'_>) -> Result<(), Refusal> {
        let mut said = thoughts(param, message.thinking_blocks, message.reasoning_content)?;
        let words = texts(param, message.content)?.concat() + &message.refusal.unwrap_or_default();
        if !words.is_empty() {
            said.push(Said::Text(words));
        }
        for (at, Object(call)) in message.tool_calls.into_iter().flatten().enumerate() {
            let call = tool_call(&format!("{param}.tool_calls[{at}]"), call)?;
            self.open.push((call.id.clone(), call.name.clone()));
            said.push(Said::Call(call));
        }
        if !said.is_empty() {
            self.turns.push(Turn::Model(said));
        }
        Ok(())
    }

    fn result(&mut self, param: &str, message: Message<'_>) -> Result<(), Refusal> {
        let at = format!("{param}.tool_call_id");
        let id = message.tool_call_id.ok_or_else(|| missing(at.clone()))?;
        let Some(place) = self.open.iter().position(|(open, _)| *open == id) else {
            let message = format!("{at}: no call right before it has this id");
            return Err(invalid(at, message));
        };
        let (id, name) = self.open.remove(place);
        let content = texts(param, message.content)?.concat();
        let result = ToolResult { id, name, content, is_error: false };
        match self.turns.last_mut() {
            Some(Turn::Results(results)) => results.push(result),
            _ => self.turns.push(Turn::Results(vec![result])),
        }
        Ok(())
    }
}

/// What a message says in words alone.
fn texts(param: &str, content: Content<'_>) -> Result<Vec<String>, Refusal> {
    let pieces = match content {
        Content::None => return Ok(Vec::new()),
        Content::Text(text) => return Ok(vec![text]),
        Content::Pieces(pieces) => pieces,
    };
    let each = pieces.into_iter().enumerate().map(|(at, Object(piece))| {
        let param = format!("{param}.content[{at}]");
        match (kind(&param, &piece)?, piece.text, piece.refusal) {
            ("text", Some(text), None) | ("refusal", None, Some(text)) => Ok(text),
            ("text", None, _) => Err(missing(format!("{param}.text"))),
            _ => Err(unsupported_value(param.clone(), format!("{param}: must be a text here"))),
        }
    });
    each.collect()
}

/// What a user's message says.
fn parts(param: &str, content: Content<'_>) -> Result<Vec<Part>, Refusal> {
    let pieces = match content {
        Content::None => return Err(missing(format!("{param}.content"))),
        Content::Text(text) => return Ok(vec![words(&format!("{param}.content"), text)?]),
        Content::Pieces(pieces) => pieces,
    };
    if pieces.is_empty() {
        let param = format!("{param}.content");
        return Err(invalid(param.clone(), format!("{param}: must not be empty")));
    }
    let each = pieces.into_iter().enumerate().map(|(at, Object(piece))| {
        let param = format!("{param}.content[{at}]");
        part(&param, piece)
    });
    each.collect()
}

/// The kind of a part, which has nothing that cannot be honoured.
fn kind(param: &str, piece: &Piece<'_>) -> Result<&'static str, Refusal> {
    if piece.file.0 {
        return Err(unsupported(format!("{param}.file")));
    }
    if piece.prompt_cache_breakpoint.0 {
        return Err(unsupported(format!("{param}.prompt_cache_breakpoint")));
    }
    let kind = piece.kind.as_ref().ok_or_else(|| missing(format!("{param}.type")))?;
    Ok(match &*kind.0 {
        "text" => "text",
        "refusal" => "refusal",
        "image_url" => "image_url",
        "input_audio" => "input_audio",
        _ => {
            let param = format!("{param}.type");
            let message = format!("{param}: must be text, image_url or input_audio");
            return Err(invalid(param, message));
        }
    })
}

fn part(param: &str, piece: Piece<'_>) -> Result<Part, Refusal> {
    match (kind(param, &piece)?, piece.text, piece.image_url, piece.input_audio) {
        ("text", Some(text), None, None) => words(&format!("{param}.text"), text),
        ("image_url", None, Some(Object(image)), None) => {
            let detail = detail(&format!("{param}.image_url.detail"), text(&image.detail))?;
            let param = format!("{param}.image_url.url");
            picture(&param, &image.url.ok_or_else(|| missing(param.clone()))?.0, detail)
        }
        ("input_audio", None, None, Some(Object(audio))) => {
            recording(&format!("{param}.input_audio"), &audio)
        }
        (kind, ..) => {
            let message = format!("{param}: must have {kind} and nothing else beside its type");
            Err(invalid(param, message))
        }
    }
}

fn thoughts(
    param: &str,
    blocks: Option<Vec<Object<Thinking<'_>>>>,
    bare: Option<String>,
) -> Result<Vec<Said>, Refusal> {
    let Some(blocks) = blocks else {
        let text = bare.filter(|text| !text.is_empty());
        return Ok(text
            .map(|text| Said::Reasoning { text, signature: None })
            .into_iter()
            .collect());
    };
    let each = blocks.into_iter().enumerate().map(|(at, Object(block))| {
        let kind = block.kind.as_ref().map_or("", |kind| &*kind.0);
        match (kind, block.thinking, block.data) {
            ("thinking", Some(text), None) => {
                Ok(Said::Reasoning { text, signature: block.signature })
            }
            ("redacted_thinking", None, Some(data)) => Ok(Said::Redacted(data)),
            _ => {
                let param = format!("{param}.thinking_blocks[{at}]");
                let message = "must be thinking with its signature, or redacted_thinking with data";
                Err(invalid(param.clone(), format!("{param}: {message}")))
            }
        }
    });
    each.collect()
}

fn tool_call(param: &str, call: Called<'_>) -> Result<ToolCall, Refusal> {
    let at = |field: &str| format!("{param}.{field}");
    if call.custom.0 || call.kind.is_some_and(|kind| kind.0 != "function") {
        let message = format!("{param}.type: can only be function here");
        return Err(unsupported_value(at("type"), message));
    }
    let Object(function) = call.function.ok_or_else(|| missing(at("function")))?;
    let text = function.arguments.ok_or_else(|| missing(at("function.arguments")))?;
    Ok(ToolCall {
        id: call.id.ok_or_else(|| missing(at("id")))?,
        name: function.name.ok_or_else(|| missing(at("function.name")))?,
        arguments: arguments(text),
        signature: seal(call.extra_content),
    })
}
