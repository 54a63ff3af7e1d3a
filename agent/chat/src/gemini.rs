//! Owns Google's `generateContent`, of Gemini and of Vertex.
//!
//! Stated conversions:
//! - turns of one role that follow each other are one;
//! - a result of a tool is an object with `result` or `error`;
//! - calls that the model gives no id are numbered here, and go back without one;
//! - thoughts of earlier turns are left out, but the seal on a call goes back with it.
//!
//! **Invariant:** the first content is the user's, and the roles alternate.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::conversation::{
    Answer, Conversation, Output, Part, Said, Stop, ToolCall, ToolChoice, Turn, Usage,
};
use crate::dialect::Malformed;
use crate::failure::{Failure, Kind, says, words};
use crate::media::Image;
use crate::unfit::What;
use crate::wait::{Told, of_headers, span};

/// It takes so many stop sequences.
const MOST_STOPS: usize = 5;
/// What ids that were made here begin with.
const NUMBERED: &str = "holdfast-call-";

/// The body of a call.
pub(crate) fn body(conversation: &Conversation) -> Result<Value, What> {
    if conversation.stop.len() > MOST_STOPS {
        return Err(What::TooMuch("number of stop sequences", 5));
    }
    let mut body = Map::new();
    body.insert("contents".to_owned(), contents(&conversation.turns)?.into());
    if let Some(system) = &conversation.system {
        let system = json!({ "parts": [{ "text": system }] });
        body.insert("systemInstruction".to_owned(), system);
    }
    tools(conversation, &mut body);
    let config = config(conversation);
    if !config.is_empty() {
        body.insert("generationConfig".to_owned(), config.into());
    }
    Ok(body.into())
}

fn config(conversation: &Conversation) -> Map<String, Value> {
    let sampling = &conversation.sampling;
    let (mime, schema) = match &conversation.output {
        Output::Text => (None, None),
        Output::Json { schema, .. } => (Some(json!("application/json")), Some(schema.clone())),
    };
    let stop = (!conversation.stop.is_empty()).then(|| json!(conversation.stop));
    let settings = [
        ("maxOutputTokens", conversation.max_tokens.map(Value::from)),
        ("temperature", sampling.temperature.map(Value::from)),
        ("topP", sampling.top_p.map(Value::from)),
        ("topK", sampling.top_k.map(Value::from)),
        ("seed", sampling.seed.map(Value::from)),
        ("presencePenalty", sampling.presence_penalty.map(Value::from)),
        ("frequencyPenalty", sampling.frequency_penalty.map(Value::from)),
        ("stopSequences", stop),
        ("responseMimeType", mime),
        ("responseJsonSchema", schema),
    ];
    let set = settings.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    set.collect()
}

fn tools(conversation: &Conversation, body: &mut Map<String, Value>) {
    if conversation.tools.is_empty() {
        return;
    }
    let declared = conversation.tools.iter().map(|tool| {
        json!({ "name": tool.name, "description": tool.description,
            "parametersJsonSchema": tool.parameters })
    });
    let declared: Value = declared.collect();
    body.insert("tools".to_owned(), json!([{ "functionDeclarations": declared }]));
    let calling = match &conversation.tool_choice {
        ToolChoice::Auto => return,
        ToolChoice::Never => json!({ "mode": "NONE" }),
        ToolChoice::Any => json!({ "mode": "ANY" }),
        ToolChoice::Named(name) => json!({ "mode": "ANY", "allowedFunctionNames": [name] }),
    };
    body.insert("toolConfig".to_owned(), json!({ "functionCallingConfig": calling }));
}

fn contents(turns: &[Turn]) -> Result<Vec<Value>, What> {
    let mut contents: Vec<(&str, Vec<Value>)> = Vec::new();
    for turn in turns {
        let (role, parts) = match turn {
            Turn::User(parts) => ("user", parts.iter().map(part_value).collect::<Result<_, _>>()?),
            Turn::Model(said) => {
                let parts: Result<Vec<_>, _> = said.iter().filter_map(said_value).collect();
                ("model", parts?)
            }
            Turn::Results(results) => {
                let parts = results.iter().map(|result| {
                    let key = if result.is_error { "error" } else { "result" };
                    let mut response = json!({ "name": result.name,
                        "response": { key: result.content } });
                    name_call(&mut response, &result.id);
                    json!({ "functionResponse": response })
                });
                ("user", parts.collect())
            }
        };
        match contents.last_mut() {
            Some((last, all)) if *last == role => all.extend(parts),
            // Of a turn of thoughts alone nothing is left.
            _ if parts.is_empty() => {}
            _ => contents.push((role, parts)),
        }
    }
    let value = |(role, parts)| json!({ "role": role, "parts": Value::Array(parts) });
    Ok(contents.into_iter().map(value).collect())
}

fn name_call(call: &mut Value, id: &str) {
    if !id.starts_with(NUMBERED) {
        call["id"] = json!(id);
    }
}

fn part_value(part: &Part) -> Result<Value, What> {
    let inline = |mime: &str, bytes: &[u8]| json!({ "inlineData": { "mimeType": mime, "data": STANDARD.encode(bytes) } });
    match part {
        Part::Text(text) => Ok(json!({ "text": text })),
        Part::Image(Image::Gif, _) => Err(What::Image(Image::Gif)),
        Part::Image(kind, bytes) => Ok(inline(kind.mime(), bytes)),
        Part::Audio(kind, bytes) => Ok(inline(kind.mime(), bytes)),
    }
}

fn said_value(said: &Said) -> Option<Result<Value, What>> {
    match said {
        Said::Text(text) => Some(Ok(json!({ "text": text }))),
        Said::Reasoning { .. } | Said::Redacted(_) => None,
        Said::Call(call) if !call.arguments.is_object() => {
            Some(Err(What::Arguments(call.name.clone())))
        }
        Said::Call(call) => {
            let mut value = json!({ "name": call.name, "args": call.arguments });
            name_call(&mut value, &call.id);
            let mut part = json!({ "functionCall": value });
            if let Some(signature) = &call.signature {
                part["thoughtSignature"] = json!(signature);
            }
            Some(Ok(part))
        }
    }
}

/// A response as it comes.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Response {
    #[serde(default)]
    candidates: Vec<Candidate>,
    #[serde(default)]
    prompt_feedback: Value,
    usage_metadata: Option<Tokens>,
    model_version: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate {
    content: Option<Content>,
    finish_reason: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Content {
    #[serde(default)]
    parts: Vec<Piece>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Piece {
    text: Option<String>,
    #[serde(default)]
    thought: bool,
    function_call: Option<FunctionCall>,
    thought_signature: Option<String>,
}

#[derive(Debug, Deserialize)]
struct FunctionCall {
    id: Option<String>,
    name: String,
    #[serde(default)]
    args: Map<String, Value>,
}

/// What is zero is left out.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Tokens {
    prompt_token_count: u64,
    tool_use_prompt_token_count: u64,
    cached_content_token_count: u64,
    candidates_token_count: u64,
    thoughts_token_count: u64,
}

/// The answer in a response.
pub(crate) fn answer(response: Response) -> Result<Answer, Malformed> {
    let model = response.model_version.unwrap_or_default();
    let usage = response.usage_metadata.map(|tokens| Usage {
        input: tokens.prompt_token_count.saturating_add(tokens.tool_use_prompt_token_count),
        cached: tokens.cached_content_token_count,
        output: tokens.candidates_token_count.saturating_add(tokens.thoughts_token_count),
        reasoning: tokens.thoughts_token_count,
    });
    let Some(candidate) = response.candidates.into_iter().next() else {
        return if response.prompt_feedback["blockReason"].is_string() {
            Ok(Answer { model, said: Vec::new(), stop: Stop::Filtered, usage })
        } else {
            Err(Malformed("no candidate in it".to_owned()))
        };
    };
    let finish = candidate.finish_reason.ok_or(Malformed("no finishReason in it".to_owned()))?;
    let mut said = Vec::new();
    let parts = candidate.content.into_iter().flat_map(|content| content.parts);
    for (at, part) in parts.enumerate() {
        if let Some(call) = part.function_call {
            said.push(Said::Call(ToolCall {
                id: call.id.unwrap_or_else(|| format!("{NUMBERED}{at}")),
                name: call.name,
                arguments: call.args.into(),
                signature: part.thought_signature,
            }));
        } else if let Some(text) = part.text.filter(|text| !text.is_empty()) {
            said.push(if part.thought {
                Said::Reasoning { text, signature: part.thought_signature }
            } else {
                Said::Text(text)
            });
        }
    }
    let has_calls = said.iter().any(|said| matches!(said, Said::Call(_)));
    let stop = match finish.as_str() {
        "STOP" if has_calls => Stop::Calls,
        "STOP" => Stop::End,
        "MAX_TOKENS" => Stop::Length,
        "SAFETY"
        | "RECITATION"
        | "BLOCKLIST"
        | "PROHIBITED_CONTENT"
        | "SPII"
        | "MODEL_ARMOR"
        | "IMAGE_SAFETY"
        | "IMAGE_PROHIBITED_CONTENT"
        | "IMAGE_RECITATION" => Stop::Filtered,
        _ => Stop::Other(finish),
    };
    Ok(Answer { model, said, stop, usage })
}

/// `{"error": {"code", "message", "status", "details": [{"@type", ...}]}}`; how long to wait is in a
/// detail of the type `google.rpc.RetryInfo`.
pub(crate) fn failure(status: u16, told: Told<'_>, body: &Value) -> Failure {
    // Vertex and streams wrap it into a list.
    let body = body.get(0).unwrap_or(body);
    let details = || body["error"]["details"].as_array().into_iter().flatten();
    let delay = details().find_map(|detail| detail["retryDelay"].as_str().and_then(span));
    let wait = delay.or_else(|| of_headers(told));
    let reason = details().find_map(|detail| detail["reason"].as_str()).unwrap_or_default();
    let message = body["error"]["message"].as_str();
    let kind = match (reason, body["error"]["status"].as_str()) {
        ("BILLING_DISABLED", _) => Kind::OutOfCredit,
        _ if says(message, &["credits are depleted", "enable billing"]) => Kind::OutOfCredit,
        // A wrong key is an invalid argument here.
        ("API_KEY_INVALID", _) => Kind::Authentication,
        _ if status == 400 && says(message, &["api key"]) => Kind::Authentication,
        (_, Some("UNAUTHENTICATED" | "PERMISSION_DENIED")) => Kind::Authentication,
        (_, Some("RESOURCE_EXHAUSTED")) => Kind::Throttled,
        _ => Kind::of_status(status, wait.is_some()),
    };
    Failure { kind, wait, detail: words(body) }
}
