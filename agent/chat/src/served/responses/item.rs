//! Owns turning the items of a response's input into turns.
//!
//! **Invariant:** every call has its result behind it before anything else is said, and every result its
//! call.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::REDACTED;
use crate::conversation::{Part, Said, ToolCall, ToolResult, Turn};
use crate::gathering::arguments;
use crate::served::Refusal;
use crate::served::fault::{invalid, missing, unsupported, unsupported_value};
use crate::served::fields::{Given, Object, OneOrMany, Word, text};
use crate::served::parts::{Extra, InputAudio, detail, picture, recording, seal, words};

/// An item of any type; each has some of these.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Item<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Word<'a>>,
    #[serde(borrow)]
    role: Option<Word<'a>>,
    #[serde(borrow)]
    content: Option<OneOrMany<Object<Piece<'a>>>>,
    name: Option<String>,
    arguments: Option<String>,
    call_id: Option<String>,
    #[serde(borrow)]
    output: Option<OneOrMany<Object<Piece<'a>>>>,
    summary: Option<Vec<Object<Summary>>>,
    encrypted_content: Option<String>,
    extra_content: Option<Object<Extra>>,
    // What an answer had; it says nothing to the model.
    #[serde(rename = "id")]
    _id: Option<IgnoredAny>,
    #[serde(rename = "status")]
    _status: Option<IgnoredAny>,
    #[serde(rename = "phase")]
    _phase: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Piece<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Word<'a>>,
    text: Option<String>,
    refusal: Option<String>,
    #[serde(borrow)]
    image_url: Option<Word<'a>>,
    #[serde(borrow)]
    detail: Option<Word<'a>>,
    #[serde(borrow)]
    input_audio: Option<Object<InputAudio<'a>>>,
    #[serde(default)]
    file_id: Given,
    #[serde(default)]
    file_data: Given,
    #[serde(default)]
    file_url: Given,
    #[serde(default)]
    filename: Given,
    #[serde(default)]
    prompt_cache_breakpoint: Given,
    // What an answer had; it says nothing to the model.
    #[serde(rename = "annotations")]
    _annotations: Option<IgnoredAny>,
    #[serde(rename = "logprobs")]
    _logprobs: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Summary {
    #[serde(rename = "type")]
    _kind: Option<String>,
    text: Option<String>,
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
    instructions: Option<String>,
    input: OneOrMany<Object<Item<'_>>>,
) -> Result<(Option<String>, Vec<Turn>), Refusal> {
    let mut reading = Reading::default();
    reading.system.extend(instructions.filter(|text| !text.is_empty()));
    match input {
        OneOrMany::One(text) => reading.turns.push(Turn::User(vec![words("input", text)?])),
        OneOrMany::Many(items) => {
            for (at, Object(item)) in items.into_iter().enumerate() {
                reading.take(&format!("input[{at}]"), item)?;
            }
        }
    }
    let is_open = !reading.open.is_empty();
    match reading.turns.last() {
        None => Err(invalid("input", "input: nothing is asked")),
        Some(_) if is_open => Err(invalid("input", "input: a call has no output")),
        Some(Turn::Model(_)) => {
            Err(unsupported_value("input", "input: the last item must not be the model's"))
        }
        Some(_) => {
            let system = (!reading.system.is_empty()).then(|| reading.system.join("\n\n"));
            Ok((system, reading.turns))
        }
    }
}

impl Reading {
    fn take(&mut self, param: &str, item: Item<'_>) -> Result<(), Refusal> {
        let kind = match (&item.kind, &item.role) {
            (Some(kind), _) => kind.0.clone().into_owned(),
            (None, Some(_)) => "message".to_owned(),
            (None, None) => return Err(missing(format!("{param}.type"))),
        };
        let (message, call) = (kind == "message", kind == "function_call");
        let (result, reasoning) = (kind == "function_call_output", kind == "reasoning");
        for (field, is_there) in [
            ("role", item.role.is_some() && !message),
            ("content", item.content.is_some() && !message && !reasoning),
            ("name", item.name.is_some() && !call),
            ("arguments", item.arguments.is_some() && !call),
            ("call_id", item.call_id.is_some() && !call && !result),
            ("output", item.output.is_some() && !result),
            ("summary", item.summary.is_some() && !reasoning),
            ("encrypted_content", item.encrypted_content.is_some() && !reasoning),
            ("extra_content", item.extra_content.is_some() && !call),
        ] {
            if is_there {
                return Err(unsupported(format!("{param}.{field}")));
            }
        }
        match kind.as_str() {
            "message" => self.message(param, item),
            "function_call" => self.call(param, item),
            "function_call_output" => self.result(param, item),
            "reasoning" => {
                let thought = thought(param, item)?;
                self.say(param, thought)
            }
            _ => {
                let param = format!("{param}.type");
                let message =
                    "must be message, function_call, function_call_output or reasoning here";
                Err(unsupported_value(param.clone(), format!("{param}: {message}")))
            }
        }
    }

    fn message(&mut self, param: &str, item: Item<'_>) -> Result<(), Refusal> {
        let at = format!("{param}.role");
        let role = item.role.ok_or_else(|| missing(at.clone()))?;
        let content = item.content.ok_or_else(|| missing(format!("{param}.content")))?;
        match &*role.0 {
            "system" | "developer" if self.turns.is_empty() => {
                self.system.extend(texts(&format!("{param}.content"), content)?);
            }
            "system" | "developer" => {
                let message = format!("{at}: {} messages come before all others here", role.0);
                return Err(unsupported_value(at, message));
            }
            "user" => {
                self.closed(param)?;
                self.turns.push(Turn::User(parts(&format!("{param}.content"), content)?));
            }
            "assistant" => {
                let text = texts(&format!("{param}.content"), content)?.concat();
                if !text.is_empty() {
                    self.say(param, Said::Text(text))?;
                }
            }
            _ => {
                let message = format!("{at}: must be system, developer, user or assistant");
                return Err(invalid(at, message));
            }
        }
        Ok(())
    }

    fn call(&mut self, param: &str, item: Item<'_>) -> Result<(), Refusal> {
        let at = |field: &str| format!("{param}.{field}");
        let call = ToolCall {
            id: item.call_id.ok_or_else(|| missing(at("call_id")))?,
            name: item.name.ok_or_else(|| missing(at("name")))?,
            arguments: arguments(item.arguments.ok_or_else(|| missing(at("arguments")))?),
            signature: seal(item.extra_content),
        };
        let open = (call.id.clone(), call.name.clone());
        // Calls of one turn follow each other, and have no result in between.
        match self.turns.last_mut() {
            Some(Turn::Model(said)) => said.push(Said::Call(call)),
            _ => {
                self.closed(param)?;
                self.turns.push(Turn::Model(vec![Said::Call(call)]));
            }
        }
        self.open.push(open);
        Ok(())
    }

    fn result(&mut self, param: &str, item: Item<'_>) -> Result<(), Refusal> {
        let at = format!("{param}.call_id");
        let id = item.call_id.ok_or_else(|| missing(at.clone()))?;
        let Some(place) = self.open.iter().position(|(open, _)| *open == id) else {
            let message = format!("{at}: no call right before it has this id");
            return Err(invalid(at, message));
        };
        let (id, name) = self.open.remove(place);
        let output = item.output.ok_or_else(|| missing(format!("{param}.output")))?;
        let content = texts(&format!("{param}.output"), output)?.concat();
        let result = ToolResult { id, name, content, is_error: false };
        match self.turns.last_mut() {
            Some(Turn::Results(results)) => results.push(result),
            _ => self.turns.push(Turn::Results(vec![result])),
        }
        Ok(())
    }

    /// More of what the model said in its turn.
    fn say(&mut self, param: &str, said: Said) -> Result<(), Refusal> {
        match self.turns.last_mut() {
            Some(Turn::Model(all)) => all.push(said),
            _ => {
                self.closed(param)?;
                self.turns.push(Turn::Model(vec![said]));
            }
        }
        Ok(())
    }

    /// Refuses what follows a call that has no result.
    fn closed(&self, param: &str) -> Result<(), Refusal> {
        match self.open.is_empty() {
            true => Ok(()),
            false => Err(invalid(param, format!("{param}: a call before it has no output"))),
        }
    }
}

fn thought(param: &str, item: Item<'_>) -> Result<Said, Refusal> {
    let seal = item.encrypted_content.filter(|seal| !seal.is_empty());
    if let Some(data) = seal.as_deref().and_then(|seal| seal.strip_prefix(REDACTED)) {
        return Ok(Said::Redacted(data.to_owned()));
    }
    let each = item.summary.into_iter().flatten().enumerate().map(|(at, Object(summary))| {
        summary.text.ok_or_else(|| missing(format!("{param}.summary[{at}].text")))
    });
    let text = each.collect::<Result<String, Refusal>>()?;
    Ok(Said::Reasoning { text, signature: seal })
}

/// What is said in words alone.
fn texts(param: &str, content: OneOrMany<Object<Piece<'_>>>) -> Result<Vec<String>, Refusal> {
    let pieces = match content {
        OneOrMany::One(text) => return Ok(vec![text]),
        OneOrMany::Many(pieces) => pieces,
    };
    let each = pieces.into_iter().enumerate().map(|(at, Object(piece))| {
        let kind = piece.kind.as_ref().map_or("", |kind| &*kind.0);
        match (kind, piece.text, piece.refusal) {
            ("input_text" | "output_text", Some(text), None) | ("refusal", None, Some(text)) => {
                Ok(text)
            }
            _ => {
                let param = format!("{param}[{at}]");
                Err(unsupported_value(param.clone(), format!("{param}: must be a text here")))
            }
        }
    });
    each.collect()
}

/// What a user's message says.
fn parts(param: &str, content: OneOrMany<Object<Piece<'_>>>) -> Result<Vec<Part>, Refusal> {
    let pieces = match content {
        OneOrMany::One(text) => return Ok(vec![words(param, text)?]),
        OneOrMany::Many(pieces) if pieces.is_empty() => {
            return Err(invalid(param, format!("{param}: must not be empty")));
        }
        OneOrMany::Many(pieces) => pieces,
    };
    let each = pieces.into_iter().enumerate();
    each.map(|(at, Object(piece))| part(&format!("{param}[{at}]"), piece)).collect()
}

fn part(param: &str, piece: Piece<'_>) -> Result<Part, Refusal> {
    for (field, is_there) in [
        ("file_id", piece.file_id.0),
        ("file_data", piece.file_data.0),
        ("file_url", piece.file_url.0),
        ("filename", piece.filename.0),
        ("prompt_cache_breakpoint", piece.prompt_cache_breakpoint.0),
    ] {
        if is_there {
            return Err(unsupported(format!("{param}.{field}")));
        }
    }
    let kind = piece.kind.ok_or_else(|| missing(format!("{param}.type")))?;
    match (&*kind.0, piece.text, piece.image_url, piece.input_audio) {
        ("input_text", Some(text), None, None) => words(&format!("{param}.text"), text),
        ("input_image", None, Some(url), None) => {
            let detail = detail(&format!("{param}.detail"), text(&piece.detail))?;
            picture(&format!("{param}.image_url"), &url.0, detail)
        }
        ("input_audio", None, None, Some(Object(audio))) => {
            recording(&format!("{param}.input_audio"), &audio)
        }
        ("input_text" | "input_image" | "input_audio", ..) => {
            let message = format!("{param}: must have what its type says and nothing else");
            Err(invalid(param, message))
        }
        _ => {
            let param = format!("{param}.type");
            let message = format!("{param}: must be input_text, input_image or input_audio here");
            Err(unsupported_value(param, message))
        }
    }
}
