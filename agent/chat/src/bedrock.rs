//! Owns Bedrock's Converse.
//!
//! Stated conversions:
//! - turns of one role that follow each other are one message;
//! - no tool may be called: the tools are left out;
//! - thoughts of earlier turns go back only with their signature;
//! - limits on numbers, lengths and counts are taken out of a schema, and its objects are closed;
//! - tokens written to and read from a cache count as tokens in.
//!
//! **Invariant:** the first message is the user's, and the roles alternate.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::conversation::{
    Answer, Conversation, Output, Part, Said, Stop, ToolCall, ToolChoice, Turn, Usage,
};
use crate::dialect::Malformed;
use crate::failure::{Failure, Kind, says, words};
use crate::schema::plain;
use crate::unfit::{What, has_none_of, takes_at_most_one};
use crate::wait::{Told, of_headers};

/// The body of a call.
pub(crate) fn body(conversation: &Conversation) -> Result<Value, What> {
    let sampling = &conversation.sampling;
    has_none_of([
        ("top_k", sampling.top_k.is_some()),
        ("seed", sampling.seed.is_some()),
        ("presence_penalty", sampling.presence_penalty.is_some()),
        ("frequency_penalty", sampling.frequency_penalty.is_some()),
    ])?;
    takes_at_most_one(sampling.temperature)?;
    let mut body = Map::new();
    body.insert("messages".to_owned(), messages(&conversation.turns)?.into());
    if let Some(system) = &conversation.system {
        body.insert("system".to_owned(), json!([{ "text": system }]));
    }
    let stop = (!conversation.stop.is_empty()).then(|| json!(conversation.stop));
    let config: Map<String, Value> = [
        ("maxTokens", conversation.max_tokens.map(Value::from)),
        ("temperature", sampling.temperature.map(Value::from)),
        ("topP", sampling.top_p.map(Value::from)),
        ("stopSequences", stop),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key.to_owned(), value?)))
    .collect();
    if !config.is_empty() {
        body.insert("inferenceConfig".to_owned(), config.into());
    }
    if let Output::Json { name, schema } = &conversation.output {
        let schema = json!({ "name": name, "schema": plain(schema).to_string() });
        let format = json!({ "type": "json_schema", "structure": { "jsonSchema": schema } });
        body.insert("outputConfig".to_owned(), json!({ "textFormat": format }));
    }
    tools(conversation, &mut body);
    Ok(body.into())
}

fn tools(conversation: &Conversation, body: &mut Map<String, Value>) {
    let choice = match &conversation.tool_choice {
        ToolChoice::Never => return,
        ToolChoice::Auto => json!({ "auto": {} }),
        ToolChoice::Any => json!({ "any": {} }),
        ToolChoice::Named(name) => json!({ "tool": { "name": name } }),
    };
    if conversation.tools.is_empty() {
        return;
    }
    let tools = conversation.tools.iter().map(|tool| {
        json!({ "toolSpec": { "name": tool.name, "description": tool.description,
            "inputSchema": { "json": tool.parameters } } })
    });
    let tools: Value = tools.collect();
    body.insert("toolConfig".to_owned(), json!({ "tools": tools, "toolChoice": choice }));
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
        Part::Image(kind, bytes) => {
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
        Said::Reasoning { signature: None, .. } | Said::Redacted(_) => None,
        Said::Call(call) if !call.arguments.is_object() => {
            Some(Err(What::Arguments(call.name.clone())))
        }
        Said::Call(call) => Some(Ok(json!({ "toolUse": { "toolUseId": call.id,
            "name": call.name, "input": call.arguments } }))),
    }
}

/// A response as it comes.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Response {
    output: Produced,
    stop_reason: String,
    usage: Tokens,
}

#[derive(Debug, Deserialize)]
struct Produced {
    message: Message,
}

#[derive(Debug, Deserialize)]
struct Message {
    content: Vec<Block>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Block {
    text: Option<String>,
    tool_use: Option<ToolUse>,
    reasoning_content: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToolUse {
    tool_use_id: String,
    name: String,
    input: Value,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tokens {
    input_tokens: u64,
    output_tokens: u64,
    cache_read_input_tokens: Option<u64>,
    cache_write_input_tokens: Option<u64>,
}

/// The answer in a response, which does not name the model.
#[allow(clippy::unnecessary_wraps, reason = "every protocol's answer may be malformed")]
pub(crate) fn answer(response: Response) -> Result<Answer, Malformed> {
    let said = response.output.message.content.into_iter().filter_map(|block| {
        let reasoning = |content: Value| {
            let told = &content["reasoningText"];
            let signature = told["signature"].as_str().map(str::to_owned);
            Some(Said::Reasoning { text: told["text"].as_str()?.to_owned(), signature })
        };
        let call = |call: ToolUse| {
            let (id, name, arguments) = (call.tool_use_id, call.name, call.input);
            Said::Call(ToolCall { id, name, arguments, signature: None })
        };
        let said = block.text.map(Said::Text).or_else(|| block.tool_use.map(call));
        said.or_else(|| block.reasoning_content.and_then(reasoning))
    });
    let said = said.collect();
    let stop = match response.stop_reason.as_str() {
        "end_turn" | "stop_sequence" => Stop::End,
        "max_tokens" | "model_context_window_exceeded" => Stop::Length,
        "tool_use" => Stop::Calls,
        "guardrail_intervened" | "content_filtered" => Stop::Filtered,
        other => Stop::Other(other.to_owned()),
    };
    let tokens = response.usage;
    let cached = tokens.cache_read_input_tokens.unwrap_or_default();
    let written = tokens.cache_write_input_tokens.unwrap_or_default();
    let usage = Usage {
        input: tokens.input_tokens.saturating_add(cached).saturating_add(written),
        cached,
        output: tokens.output_tokens,
        reasoning: 0,
    };
    Ok(Answer { model: String::new(), said, stop, usage: Some(usage) })
}

/// The error's name is in the header `x-amzn-errortype`, up to a colon; the body has `message`.
pub(crate) fn failure(status: u16, told: Told<'_>, body: &Value) -> Failure {
    let wait = of_headers(told);
    let named = told("x-amzn-errortype").or_else(|| body["__type"].as_str().map(str::to_owned));
    let named = named.unwrap_or_default();
    let name = named.split(':').next().unwrap_or_default();
    let name = name.rsplit('#').next().unwrap_or_default();
    let detail = words(body);
    let kind = match name {
        _ if says(detail.as_deref(), &["invalid_payment_instrument"]) => Kind::OutOfCredit,
        "ThrottlingException" | "ServiceQuotaExceededException" | "ModelNotReadyException" => {
            Kind::Throttled
        }
        "ServiceUnavailableException" if wait.is_some() => Kind::Throttled,
        "ServiceUnavailableException"
        | "InternalServerException"
        | "ModelTimeoutException"
        | "ModelErrorException" => Kind::Transient,
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
    Failure { kind, wait, detail }
}
