//! Owns Anthropic's messages.
//!
//! Stated conversions:
//! - without a limit an answer ends at 4096 tokens, since the protocol wants one, and where it thinks at
//!   so many more as it may think;
//! - an effort is thinking as the model likes, of that effort, of which `minimal` is `low`; models up to
//!   4.5 think for a number of tokens instead, and not at all where they go on from a call whose thoughts
//!   did not come back with it; where a tool has to be called, or a temperature, a `top_p` below 0.95 or a
//!   `top_k` is set, newer models are told the effort alone; thoughts are told where that is asked together
//!   with an effort;
//! - how closely a picture is to be looked at is left out; who speaks is said before the words, as in
//!   `Bob:`; ids of calls that it does not take, or that are there twice, are others;
//! - turns of one role that follow each other are one message, results of tools first;
//! - thoughts of earlier turns go back only with their signature;
//! - temperature, `top_p` and `top_k` go in the version of 2023, the last that has them, unless they
//!   are 1, which is what holds without them; penalties of 0 are none;
//! - a schema that the model is held to is made plain: limits are taken out, objects are closed;
//! - the end user is `metadata.user_id`: the `safety_identifier`, else the `user`; what to cache and what to
//!   expect is left out;
//! - tokens written to and read from a cache count as tokens in.
//!
//! **Invariant:** the first message is the user's, and the roles alternate.

mod answer;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

pub(crate) use self::answer::{Stream, answer};
use crate::conversation::{
    Conversation, Output, Part, Said, Sampling, ToolChoice, Turn, Verbosity,
};
use crate::dialect::exact;
use crate::failure::{Failure, Kind, code_of_words, says, words};
use crate::schema::plain;
use crate::thinking::{OfClaude, of_claude};
use crate::unfit::{What, has_none_of, plain as plain_sampling};
use crate::wait::{Told, of_headers};

/// An answer is no longer than this where nobody says otherwise.
const MAX_TOKENS: u32 = 4096;

/// The version of the API that a call is in.
pub(crate) fn version(sampling: &Sampling) -> &'static str {
    let Sampling { temperature, top_p, top_k, .. } = kept(sampling);
    let is_sampled = temperature.is_some() || top_p.is_some() || top_k.is_some();
    if is_sampled { "2023-06-01" } else { "2026-10-21" }
}

/// What is set in another way than it is anyway.
fn kept(sampling: &Sampling) -> Sampling {
    let is_set = |value: &f32| *value != 1.0;
    let (temperature, top_p) = (sampling.temperature.filter(is_set), sampling.top_p.filter(is_set));
    Sampling { temperature, top_p, ..*sampling }
}

/// The body of a call.
pub(crate) fn body(model: &str, conversation: &Conversation) -> Result<Value, What> {
    let sampling = kept(&plain_sampling(&conversation.sampling)?);
    let is_odd = |verbosity: Verbosity| verbosity != Verbosity::Medium;
    has_none_of([("verbosity", conversation.verbosity.is_some_and(is_odd))])?;
    let OfClaude { thinking, effort, room } = of_claude(model, conversation)?;
    let mut body = Map::new();
    body.insert("model".to_owned(), json!(model));
    let most = conversation.max_tokens.unwrap_or(MAX_TOKENS.saturating_add(room));
    body.insert("max_tokens".to_owned(), json!(most));
    body.insert("messages".to_owned(), messages(&conversation.turns)?.into());
    let mut config = Map::new();
    if let Output::Json { name, schema } = &conversation.output {
        let format = json!({ "type": "json_schema", "schema": plain(name, schema)? });
        config.insert("format".to_owned(), format);
    }
    if let Some(effort) = effort {
        config.insert("effort".to_owned(), effort.into());
    }
    let stop = (!conversation.stop.is_empty()).then(|| json!(conversation.stop));
    let hints = &conversation.hints;
    let user = hints.safety_identifier.as_ref().or(hints.user.as_ref());
    for (key, value) in [
        ("metadata", user.map(|user| json!({ "user_id": user }))),
        ("system", conversation.system.as_ref().map(|system| json!(system))),
        ("thinking", thinking),
        ("output_config", (!config.is_empty()).then(|| config.into())),
        ("temperature", sampling.temperature.map(exact)),
        ("top_p", sampling.top_p.map(exact)),
        ("top_k", sampling.top_k.map(Value::from)),
        ("stop_sequences", stop),
    ] {
        if let Some(value) = value {
            body.insert(key.to_owned(), value);
        }
    }
    tools(conversation, &mut body)?;
    Ok(body.into())
}

fn tools(conversation: &Conversation, body: &mut Map<String, Value>) -> Result<(), What> {
    if conversation.tools.is_empty() {
        return Ok(());
    }
    let tools = conversation.tools.iter().map(|tool| {
        let schema = match tool.strict {
            true => plain(&tool.name, &tool.parameters)?,
            false => tool.parameters.clone(),
        };
        let mut value = json!({ "name": tool.name, "description": tool.description,
            "input_schema": schema });
        if tool.strict {
            value["strict"] = true.into();
        }
        Ok(value)
    });
    let tools: Value = tools.collect::<Result<Vec<_>, What>>()?.into();
    body.insert("tools".to_owned(), tools);
    let is_single = conversation.takes_one_call();
    let mut choice = match &conversation.tool_choice {
        ToolChoice::Auto if !is_single => return Ok(()),
        ToolChoice::Auto => json!({ "type": "auto" }),
        ToolChoice::Never => json!({ "type": "none" }),
        ToolChoice::Any => json!({ "type": "any" }),
        ToolChoice::Named(name) => json!({ "type": "tool", "name": name }),
    };
    if is_single {
        choice["disable_parallel_tool_use"] = true.into();
    }
    body.insert("tool_choice".to_owned(), choice);
    Ok(())
}

fn messages(turns: &[Turn]) -> Result<Vec<Value>, What> {
    let mut messages: Vec<(&str, Vec<Value>)> = Vec::new();
    for turn in turns {
        let (role, content) = match turn {
            Turn::User(parts) => ("user", parts.iter().map(part_block).collect::<Result<_, _>>()?),
            Turn::Model(said) => {
                let blocks: Result<Vec<_>, _> = said.iter().filter_map(said_block).collect();
                ("assistant", blocks?)
            }
            Turn::Results(results) => {
                let blocks = results.iter().map(|result| {
                    json!({ "type": "tool_result", "tool_use_id": result.id,
                        "content": result.content, "is_error": result.is_error })
                });
                ("user", blocks.collect())
            }
        };
        match messages.last_mut() {
            Some((last, blocks)) if *last == role => blocks.extend(content),
            // Of a turn of thoughts alone nothing may be left.
            _ if content.is_empty() => {}
            _ => messages.push((role, content)),
        }
    }
    let value = |(role, content)| json!({ "role": role, "content": Value::Array(content) });
    Ok(messages.into_iter().map(value).collect())
}

fn part_block(part: &Part) -> Result<Value, What> {
    match part {
        Part::Text(text) => Ok(json!({ "type": "text", "text": text })),
        Part::Speaker(name) => Ok(json!({ "type": "text", "text": format!("{name}:") })),
        Part::Image(kind, bytes, _) => Ok(json!({ "type": "image", "source": { "type": "base64",
            "media_type": kind.mime(), "data": STANDARD.encode(bytes) } })),
        Part::Audio(kind, _) => Err(What::Audio(*kind)),
    }
}

fn said_block(said: &Said) -> Option<Result<Value, What>> {
    match said {
        Said::Text(text) => Some(Ok(json!({ "type": "text", "text": text }))),
        Said::Reasoning { text, signature: Some(signature) } => {
            Some(Ok(json!({ "type": "thinking", "thinking": text, "signature": signature })))
        }
        Said::Reasoning { signature: None, .. } => None,
        Said::Redacted(data) => Some(Ok(json!({ "type": "redacted_thinking", "data": data }))),
        Said::Call(call) if !call.arguments.is_object() => {
            Some(Err(What::Arguments(call.name.clone())))
        }
        Said::Call(call) => Some(Ok(json!({ "type": "tool_use", "id": call.id, "name": call.name,
            "input": call.arguments }))),
    }
}

/// `{"type": "error", "error": {"type", "message"}, "request_id"}`.
pub(crate) fn failure(status: u16, told: Told<'_>, body: &Value) -> Failure {
    let wait = of_headers(told);
    let message = body["error"]["message"].as_str();
    let code = body["error"]["details"]["error_code"].as_str();
    let kind = match body["error"]["type"].as_str() {
        // An empty account is a bad request here.
        Some("billing_error") => Kind::OutOfCredit,
        _ if says(message, &["credit balance is too low"]) => Kind::OutOfCredit,
        _ if says(code, &["spend_limit_reached"]) => Kind::OutOfCredit,
        Some("invalid_request_error") if says(message, &["content filtering policy"]) => {
            Kind::Safety
        }
        Some("authentication_error" | "permission_error") => Kind::Authentication,
        Some("rate_limit_error") => Kind::Throttled,
        Some("overloaded_error") if wait.is_some() => Kind::Throttled,
        Some("overloaded_error" | "api_error" | "timeout_error") => Kind::Transient,
        _ => Kind::of_status(status, wait.is_some()),
    };
    Failure { kind, wait, detail: words(body), code: code_of_words(message) }
}

/// What a stream tells of a failure.
pub(crate) fn failure_amid(body: &Value) -> Failure {
    failure(500, &|_| None, body)
}
