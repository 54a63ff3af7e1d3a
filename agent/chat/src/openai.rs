//! Owns chat completions: OpenAI's, Azure OpenAI's, Mistral's, and those of every compatible server.
//!
//! Stated conversions:
//! - the system prompt is the first message; thoughts of earlier turns are left out;
//! - a result that is an error begins with `Error: `, since there is no mark for it;
//! - a schema that strict mode does not take goes without it, that of any object is `json_object`;
//! - how many words a model makes is told where it is not the usual (`verbosity`), and how closely a
//!   picture is to be looked at where it is not `auto`; whether thoughts are told is not asked;
//! - ids of calls that are longer than OpenAI takes them are others;
//! - who asks, what to cache and what to expect is told as it came (`user`, `safety_identifier`,
//!   `prompt_cache_key`, `prediction`); Mistral has the last two alone, and goes without the others;
//! - Mistral: `max_tokens`, `random_seed` and `any` are its words; a recording goes in bare base64; who
//!   speaks is said before the words, as in `Bob:`; a picture in its own size is one of `high` detail; ids
//!   of calls that are not 9 letters and digits are others.
//!
//! **Invariant:** one answer is asked for, and the first choice is it.

mod answer;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

pub(crate) use self::answer::{Stream, answer};
use crate::conversation::{
    Conversation, Detail, Effort, Output, Part, Said, ToolChoice, Turn, Verbosity, word,
};
use crate::dialect::exact;
use crate::failure::{Failure, Kind, plain_code, words};
use crate::media::Audio;
use crate::schema::is_strict;
use crate::unfit::What;
use crate::wait::{Told, of_headers};

/// Whose chat completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavour {
    OpenAi,
    Mistral,
}

/// OpenAI takes so many stop sequences.
const MOST_STOPS: usize = 4;

/// The body of a call.
pub(crate) fn body(
    flavour: Flavour,
    model: Option<&str>,
    conversation: &Conversation,
) -> Result<Value, What> {
    let mut body = Map::new();
    if let Some(model) = model {
        body.insert("model".to_owned(), json!(model));
    }
    let mut messages = Vec::new();
    if let Some(system) = &conversation.system {
        messages.push(json!({ "role": "system", "content": system }));
    }
    for turn in &conversation.turns {
        messages.extend(turn_messages(flavour, turn)?);
    }
    body.insert("messages".to_owned(), messages.into());
    tools(flavour, conversation, &mut body);
    if let Output::Json { name, schema } = &conversation.output {
        let format = if *schema == json!({ "type": "object" }) {
            json!({ "type": "json_object" })
        } else {
            let schema = json!({ "name": name, "strict": is_strict(schema), "schema": schema });
            json!({ "type": "json_schema", "json_schema": schema })
        };
        body.insert("response_format".to_owned(), format);
    }
    parameters(flavour, conversation, &mut body)?;
    Ok(body.into())
}

fn parameters(
    flavour: Flavour,
    conversation: &Conversation,
    body: &mut Map<String, Value>,
) -> Result<(), What> {
    let sampling = &conversation.sampling;
    if flavour == Flavour::OpenAi && sampling.top_k.is_some() {
        return Err(What::Parameter("top_k"));
    }
    if flavour == Flavour::OpenAi && conversation.stop.len() > MOST_STOPS {
        return Err(What::TooMuch("number of stop sequences", 4));
    }
    let (most, seed) = match flavour {
        Flavour::OpenAi => ("max_completion_tokens", "seed"),
        Flavour::Mistral => ("max_tokens", "random_seed"),
    };
    let verbosity = conversation.verbosity.filter(|verbosity| *verbosity != Verbosity::Medium);
    if flavour == Flavour::Mistral && verbosity.is_some() {
        return Err(What::Parameter("verbosity"));
    }
    let verbosity = verbosity.map(|verbosity| json!(word(&Verbosity::NAMED, verbosity)));
    let effort = conversation.thinking.effort.map(|effort| json!(word(&Effort::NAMED, effort)));
    let stop = (!conversation.stop.is_empty()).then(|| json!(conversation.stop));
    let hints = &conversation.hints;
    let told = |hint: &Option<String>| hint.as_ref().map(|hint| json!(hint));
    let told_openai = |hint: &Option<String>| told(hint).filter(|_| flavour == Flavour::OpenAi);
    let foreseen = |text: &String| json!({ "type": "content", "content": text });
    for (key, value) in [
        (most, conversation.max_tokens.map(Value::from)),
        ("temperature", sampling.temperature.map(exact)),
        ("top_p", sampling.top_p.map(exact)),
        ("top_k", sampling.top_k.map(Value::from)),
        (seed, sampling.seed.map(Value::from)),
        ("presence_penalty", sampling.presence_penalty.map(exact)),
        ("frequency_penalty", sampling.frequency_penalty.map(exact)),
        ("stop", stop),
        ("reasoning_effort", effort),
        ("verbosity", verbosity),
        ("user", told_openai(&hints.user)),
        ("safety_identifier", told_openai(&hints.safety_identifier)),
        ("prompt_cache_key", told(&hints.prompt_cache_key)),
        ("prediction", hints.prediction.as_ref().map(foreseen)),
    ] {
        if let Some(value) = value {
            body.insert(key.to_owned(), value);
        }
    }
    Ok(())
}

fn tools(flavour: Flavour, conversation: &Conversation, body: &mut Map<String, Value>) {
    if conversation.tools.is_empty() {
        return;
    }
    let tools = conversation.tools.iter().map(|tool| {
        let mut function = json!({ "name": tool.name, "description": tool.description,
            "parameters": tool.parameters });
        if tool.strict {
            function["strict"] = is_strict(&tool.parameters).into();
        }
        json!({ "type": "function", "function": function })
    });
    body.insert("tools".to_owned(), tools.collect());
    if let Some(is_parallel) = conversation.parallel_tool_calls {
        body.insert("parallel_tool_calls".to_owned(), is_parallel.into());
    }
    let choice = match (&conversation.tool_choice, flavour) {
        (ToolChoice::Auto, _) => return,
        (ToolChoice::Never, _) => json!("none"),
        (ToolChoice::Any, Flavour::OpenAi) => json!("required"),
        (ToolChoice::Any, Flavour::Mistral) => json!("any"),
        (ToolChoice::Named(name), _) => {
            json!({ "type": "function", "function": { "name": name } })
        }
    };
    body.insert("tool_choice".to_owned(), choice);
}

fn turn_messages(flavour: Flavour, turn: &Turn) -> Result<Vec<Value>, What> {
    match turn {
        Turn::User(parts) => Ok(vec![user_message(flavour, parts)?]),
        Turn::Model(said) => Ok(vec![model_message(said)]),
        Turn::Results(results) => Ok(results
            .iter()
            .map(|result| {
                let content = if result.is_error {
                    format!("Error: {}", result.content)
                } else {
                    result.content.clone()
                };
                json!({ "role": "tool", "tool_call_id": result.id, "content": content })
            })
            .collect()),
    }
}

fn user_message(flavour: Flavour, parts: &[Part]) -> Result<Value, What> {
    let (name, parts) = match (flavour, parts) {
        (Flavour::OpenAi, [Part::Speaker(name), parts @ ..]) => (Some(name), parts),
        (_, parts) => (None, parts),
    };
    let content = match parts {
        [Part::Text(text)] => json!(text),
        parts => {
            let parts: Result<Vec<_>, _> =
                parts.iter().map(|part| part_value(flavour, part)).collect();
            parts?.into()
        }
    };
    let mut message = json!({ "role": "user", "content": content });
    if let Some(name) = name {
        message["name"] = json!(name);
    }
    Ok(message)
}

fn model_message(said: &[Said]) -> Value {
    let mut text = String::new();
    let mut calls = Vec::new();
    for said in said {
        match said {
            Said::Text(words) => text.push_str(words),
            Said::Reasoning { .. } | Said::Redacted(_) => {}
            Said::Call(call) => {
                // What was no JSON goes back as it came.
                let arguments = match &call.arguments {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                calls.push(json!({ "id": call.id, "type": "function",
                    "function": { "name": call.name, "arguments": arguments } }));
            }
        }
    }
    let content = if text.is_empty() && !calls.is_empty() { Value::Null } else { json!(text) };
    let mut message = json!({ "role": "assistant", "content": content });
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    message
}

fn part_value(flavour: Flavour, part: &Part) -> Result<Value, What> {
    match part {
        Part::Text(text) => Ok(json!({ "type": "text", "text": text })),
        Part::Speaker(name) => Ok(json!({ "type": "text", "text": format!("{name}:") })),
        Part::Image(kind, bytes, detail) => {
            let url = format!("data:{};base64,{}", kind.mime(), STANDARD.encode(bytes));
            let mut image = json!({ "url": url });
            match (detail, flavour) {
                (Detail::Auto, _) => {}
                (Detail::Original, Flavour::Mistral) => image["detail"] = "high".into(),
                (detail, _) => image["detail"] = word(&Detail::NAMED, *detail).into(),
            }
            Ok(json!({ "type": "image_url", "image_url": image }))
        }
        Part::Audio(kind @ (Audio::Wav | Audio::Mp3), bytes) => {
            let data = STANDARD.encode(bytes);
            let audio = match flavour {
                Flavour::OpenAi => json!({ "data": data, "format": kind.name() }),
                Flavour::Mistral => json!(data),
            };
            Ok(json!({ "type": "input_audio", "input_audio": audio }))
        }
        Part::Audio(kind, _) => Err(What::Audio(*kind)),
    }
}

/// OpenAI: `{"error": {"message", "type", "param", "code"}}`; Azure the same, with an
/// `innererror`; Mistral: `{"object": "error", "message", "type", "code"}` or `{"detail"}`.
pub(crate) fn failure(status: u16, told: Told<'_>, body: &Value) -> Failure {
    let wait = of_headers(told);
    let error = if body["error"].is_object() { &body["error"] } else { body };
    let inner = &error["innererror"]["code"];
    let names = [&error["code"], &error["type"], inner];
    let is = |wanted: &[&str]| names.iter().filter_map(|v| v.as_str()).any(|v| wanted.contains(&v));
    let kind = if is(&["insufficient_quota", "billing_hard_limit_reached", "billing_not_active"]) {
        Kind::OutOfCredit
    } else if is(&["content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation"]) {
        Kind::Safety
    } else {
        Kind::of_status(status, wait.is_some())
    };
    Failure { kind, wait, detail: words(body), code: plain_code(&error["code"]) }
}

/// What a chunk tells of a failure, whose status, if any, is the error's code.
pub(crate) fn failure_amid(body: &Value) -> Failure {
    let error = if body["error"].is_object() { &body["error"] } else { body };
    let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
    let status = [&error["code"], &error["status"]].into_iter().find_map(number);
    let status = status.and_then(|status| u16::try_from(status).ok());
    failure(status.filter(|status| (400..600).contains(status)).unwrap_or(500), &|_| None, body)
}
