//! Owns Bedrock's Converse.
//!
//! Stated conversions:
//! - turns of one role that follow each other are one message;
//! - no tool may be called: the tools are left out;
//! - thoughts of earlier turns go back only with their signature;
//! - an effort is that of the output, of which `minimal` is `low`; a Claude thinks as Anthropic's module
//!   says, in the model's own fields; thoughts are told where that is asked together with an effort;
//! - how closely a picture is to be looked at is left out; who speaks is said before the words, as in
//!   `Bob:`; ids of calls that it does not take, or that are there twice, are others;
//! - who asks, what to cache and what to expect is left out;
//! - a `top_p` of 1 and penalties of 0 are none;
//! - a schema that the model is held to is made plain: limits are taken out, objects are closed;
//! - tokens written to and read from a cache count as tokens in.
//!
//! **Invariant:** the first message is the user's, and the roles alternate.

mod answer;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

pub(crate) use self::answer::{Stream, answer};
use crate::conversation::{Conversation, Effort, Output, Part, Said, ToolChoice, Turn, Verbosity};
use crate::dialect::exact;
use crate::failure::{Failure, Kind, code_of_words, says, words};
use crate::schema::plain;
use crate::thinking::{OfClaude, of_claude};
use crate::unfit::{ONE_CALL, What, has_none_of, plain as plain_sampling};
use crate::wait::{Told, of_headers};

/// The body of a call.
pub(crate) fn body(model: &str, conversation: &Conversation) -> Result<Value, What> {
    let sampling = plain_sampling(&conversation.sampling)?;
    let is_odd = |verbosity: Verbosity| verbosity != Verbosity::Medium;
    has_none_of([
        ("top_k", sampling.top_k.is_some()),
        ("verbosity", conversation.verbosity.is_some_and(is_odd)),
        (ONE_CALL, conversation.takes_one_call()),
    ])?;
    let OfClaude { thinking, effort, .. } = thinking(model, conversation)?;
    let mut body = Map::new();
    body.insert("messages".to_owned(), messages(&conversation.turns)?.into());
    if let Some(system) = &conversation.system {
        body.insert("system".to_owned(), json!([{ "text": system }]));
    }
    let stop = (!conversation.stop.is_empty()).then(|| json!(conversation.stop));
    let config: Map<String, Value> = [
        ("maxTokens", conversation.max_tokens.map(Value::from)),
        ("temperature", sampling.temperature.map(exact)),
        ("topP", sampling.top_p.map(exact)),
        ("stopSequences", stop),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key.to_owned(), value?)))
    .collect();
    if !config.is_empty() {
        body.insert("inferenceConfig".to_owned(), config.into());
    }
    let mut output = Map::new();
    if let Output::Json { name, schema } = &conversation.output {
        let schema = json!({ "name": name, "schema": plain(name, schema)?.to_string() });
        let format = json!({ "type": "json_schema", "structure": { "jsonSchema": schema } });
        output.insert("textFormat".to_owned(), format);
    }
    if let Some(effort) = effort {
        output.insert("effort".to_owned(), effort.into());
    }
    if !output.is_empty() {
        body.insert("outputConfig".to_owned(), output.into());
    }
    if let Some(thinking) = thinking {
        let fields = json!({ "thinking": thinking });
        body.insert("additionalModelRequestFields".to_owned(), fields);
    }
    tools(conversation, &mut body)?;
    Ok(body.into())
}

/// What the model is told of how much to think.
fn thinking(model: &str, conversation: &Conversation) -> Result<OfClaude, What> {
    let told = of_claude(model, conversation)?;
    match (model.contains("claude"), conversation.thinking.effort) {
        (true, _) => Ok(told),
        (false, Some(Effort::None)) => Err(What::Parameter("way not to think")),
        (false, _) => Ok(OfClaude { thinking: None, ..told }),
    }
}

fn tools(conversation: &Conversation, body: &mut Map<String, Value>) -> Result<(), What> {
    let choice = match &conversation.tool_choice {
        ToolChoice::Never => return Ok(()),
        ToolChoice::Auto => json!({ "auto": {} }),
        ToolChoice::Any => json!({ "any": {} }),
        ToolChoice::Named(name) => json!({ "tool": { "name": name } }),
    };
    if conversation.tools.is_empty() {
        return Ok(());
    }
    let tools = conversation.tools.iter().map(|tool| {
        let schema = match tool.strict {
            true => plain(&tool.name, &tool.parameters)?,
            false => tool.parameters.clone(),
        };
        let mut spec = json!({ "name": tool.name, "inputSchema": { "json": schema } });
        // An empty one is refused.
        if !tool.description.is_empty() {
            spec["description"] = tool.description.as_str().into();
        }
        if tool.strict {
            spec["strict"] = true.into();
        }
        Ok(json!({ "toolSpec": spec }))
    });
    let tools: Value = tools.collect::<Result<Vec<_>, What>>()?.into();
    body.insert("toolConfig".to_owned(), json!({ "tools": tools, "toolChoice": choice }));
    Ok(())
}

fn messages(turns: &[Turn]) -> Result<Vec<Value>, What> {
    let mut messages: Vec<(&str, Vec<Value>)> = Vec::new();
    for turn in turns {
        let (role, content) = match turn {
            Turn::User(parts) => ("user", parts.iter().map(part_block).collect()),
            Turn::Model(said) => {
                let blocks: Result<Vec<_>, _> = said.iter().filter_map(said_block).collect();
                ("assistant", blocks?)
            }
            Turn::Results(results) => {
                let blocks = results.iter().map(|result| {
                    let status = if result.is_error { "error" } else { "success" };
                    json!({ "toolResult": { "toolUseId": result.id, "status": status,
                        "content": [{ "text": result.content }] } })
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

fn part_block(part: &Part) -> Value {
    let source = |bytes: &[u8]| json!({ "bytes": STANDARD.encode(bytes) });
    match part {
        Part::Text(text) => json!({ "text": text }),
        Part::Speaker(name) => json!({ "text": format!("{name}:") }),
        Part::Image(kind, bytes, _) => {
            json!({ "image": { "format": kind.name(), "source": source(bytes) } })
        }
        Part::Audio(kind, bytes) => {
            json!({ "audio": { "format": kind.name(), "source": source(bytes) } })
        }
    }
}

fn said_block(said: &Said) -> Option<Result<Value, What>> {
    match said {
        Said::Text(text) => Some(Ok(json!({ "text": text }))),
        Said::Reasoning { text, signature: Some(signature) } => {
            Some(Ok(json!({ "reasoningContent": { "reasoningText":
                { "text": text, "signature": signature } } })))
        }
        Said::Reasoning { signature: None, .. } => None,
        Said::Redacted(data) => {
            Some(Ok(json!({ "reasoningContent": { "redactedContent": data } })))
        }
        Said::Call(call) if !call.arguments.is_object() => {
            Some(Err(What::Arguments(call.name.clone())))
        }
        Said::Call(call) => Some(Ok(json!({ "toolUse": { "toolUseId": call.id,
            "name": call.name, "input": call.arguments } }))),
    }
}

/// The error's name is in the header `x-amzn-errortype`, up to a colon; the body has `message`.
pub(crate) fn failure(status: u16, told: Told<'_>, body: &Value) -> Failure {
    let wait = of_headers(told);
    let named = told("x-amzn-errortype").or_else(|| body["__type"].as_str().map(str::to_owned));
    sorted(status, wait, &named.unwrap_or_default(), words(body))
}

/// What a stream tells of a failure: the kind of an exception begins with a small letter there.
pub(crate) fn failure_amid(kind: &str, message: Option<String>) -> Failure {
    let mut letters = kind.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    let kind: String = first.into_iter().chain(letters).collect();
    sorted(500, None, &kind, message)
}

fn sorted(status: u16, wait: Option<Duration>, named: &str, detail: Option<String>) -> Failure {
    let name = named.split(':').next().unwrap_or_default();
    let name = name.rsplit('#').next().unwrap_or_default();
    let kind = match name {
        _ if says(detail.as_deref(), &["invalid_payment_instrument"]) => Kind::OutOfCredit,
        "ThrottlingException" | "ServiceQuotaExceededException" | "ModelNotReadyException" => {
            Kind::Throttled
        }
        "ServiceUnavailableException" if wait.is_some() => Kind::Throttled,
        "ServiceUnavailableException"
        | "InternalServerException"
        | "ModelTimeoutException"
        | "ModelErrorException"
        | "ModelStreamErrorException" => Kind::Transient,
        "AccessDeniedException"
        | "UnrecognizedClientException"
        | "ExpiredTokenException"
        | "InvalidSignatureException" => Kind::Authentication,
        "ValidationException" if says(detail.as_deref(), &["content filter", "blocked by"]) => {
            Kind::Safety
        }
        "ValidationException" | "ResourceNotFoundException" => Kind::BadRequest,
        _ => Kind::of_status(status, wait.is_some()),
    };
    let code = code_of_words(detail.as_deref());
    Failure { kind, wait, detail, code }
}
