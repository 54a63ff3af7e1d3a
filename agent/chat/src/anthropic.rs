//! Owns Anthropic's messages.
//!
//! Stated conversions:
//! - without a limit an answer ends at 4096 tokens, since the protocol wants one;
//! - turns of one role that follow each other are one message, results of tools first;
//! - thoughts of earlier turns go back only with their signature;
//! - temperature, `top_p` and `top_k` go in the version of 2023, the last that has them;
//! - a schema that the model is held to is made plain: limits are taken out, objects are closed;
//! - tokens written to and read from a cache count as tokens in.
//!
//! **Invariant:** the first message is the user's, and the roles alternate.

mod answer;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

pub(crate) use self::answer::{Stream, answer};
use crate::conversation::{Conversation, Output, Part, Said, Sampling, ToolChoice, Turn};
use crate::dialect::exact;
use crate::failure::{Failure, Kind, says, words};
use crate::schema::plain;
use crate::unfit::{What, has_none_of, takes_at_most_one};
use crate::wait::{Told, of_headers};

/// An answer is no longer than this where nobody says otherwise.
const MAX_TOKENS: u32 = 4096;

/// The version of the API that a call is in.
pub(crate) fn version(conversation: &Conversation) -> &'static str {
    let Sampling { temperature, top_p, top_k, .. } = conversation.sampling;
    let is_sampled = temperature.is_some() || top_p.is_some() || top_k.is_some();
    if is_sampled { "2023-06-01" } else { "2026-10-21" }
}

/// The body of a call.
pub(crate) fn body(model: &str, conversation: &Conversation) -> Result<Value, What> {
    let sampling = &conversation.sampling;
    has_none_of([
        ("seed", sampling.seed.is_some()),
        ("presence_penalty", sampling.presence_penalty.is_some()),
        ("frequency_penalty", sampling.frequency_penalty.is_some()),
    ])?;
    takes_at_most_one(sampling.temperature)?;
    let mut body = Map::new();
    body.insert("model".to_owned(), json!(model));
    let most = conversation.max_tokens.unwrap_or(MAX_TOKENS);
    body.insert("max_tokens".to_owned(), json!(most));
    body.insert("messages".to_owned(), messages(&conversation.turns)?.into());
    let format = match &conversation.output {
        Output::Text => None,
        Output::Json { name, schema } => {
            let schema = plain(name, schema)?;
            Some(json!({ "format": { "type": "json_schema", "schema": schema } }))
        }
    };
    let stop = (!conversation.stop.is_empty()).then(|| json!(conversation.stop));
    for (key, value) in [
        ("system", conversation.system.as_ref().map(|system| json!(system))),
        ("output_config", format),
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
    let choice = match &conversation.tool_choice {
        ToolChoice::Auto => return Ok(()),
        ToolChoice::Never => json!({ "type": "none" }),
        ToolChoice::Any => json!({ "type": "any" }),
        ToolChoice::Named(name) => json!({ "type": "tool", "name": name }),
    };
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
        Part::Image(kind, bytes) => Ok(json!({ "type": "image", "source": { "type": "base64",
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
    Failure { kind, wait, detail: words(body) }
}

/// What a stream tells of a failure.
pub(crate) fn failure_amid(body: &Value) -> Failure {
    failure(500, &|_| None, body)
}
