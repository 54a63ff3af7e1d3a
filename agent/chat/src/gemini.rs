//! Owns Google's `generateContent`, of Gemini and of Vertex.
//!
//! Stated conversions:
//! - turns of one role that follow each other are one;
//! - a result of a tool is an object with `result` or `error`;
//! - a strict tool is declared as every other, since there is no mark for it;
//! - calls that the model gives no id are numbered here, and go back without one;
//! - thoughts of earlier turns are left out, but the seal on a call goes back with it;
//! - an effort is a level of thinking, of which `max` is `XHIGH`; models up to 2.5 think for a number of
//!   tokens instead, the one that Google documents for OpenAI's words;
//! - pictures are looked at as closely as the one that is to be looked at most closely, in its own size
//!   no more closely than `high`; who speaks is said before the words, as in `Bob:`;
//! - who asks, what to cache and what to expect is left out.
//!
//! **Invariant:** the first content is the user's, and the roles alternate.

mod answer;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

pub(crate) use self::answer::{Stream, answer};
use crate::conversation::{Conversation, Detail, Output, Part, Said, ToolChoice, Turn, Verbosity};
use crate::dialect::exact;
use crate::failure::{Failure, Kind, code_of_words, says, words};
use crate::media::Image;
use crate::thinking::of_gemini;
use crate::unfit::{ONE_CALL, What, has_none_of};
use crate::wait::{Told, of_headers, span};

/// It takes so many stop sequences.
const MOST_STOPS: usize = 5;
/// What ids that were made here begin with.
const NUMBERED: &str = "holdfast-call-";

/// The body of a call.
pub(crate) fn body(model: &str, conversation: &Conversation) -> Result<Value, What> {
    let is_odd = |verbosity: Verbosity| verbosity != Verbosity::Medium;
    has_none_of([
        ("verbosity", conversation.verbosity.is_some_and(is_odd)),
        (ONE_CALL, conversation.takes_one_call()),
    ])?;
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
    let config = config(model, conversation)?;
    if !config.is_empty() {
        body.insert("generationConfig".to_owned(), config.into());
    }
    Ok(body.into())
}

fn config(model: &str, conversation: &Conversation) -> Result<Map<String, Value>, What> {
    let sampling = &conversation.sampling;
    let (mime, schema) = match &conversation.output {
        Output::Text => (None, None),
        Output::Json { schema, .. } => (Some(json!("application/json")), Some(schema.clone())),
    };
    let stop = (!conversation.stop.is_empty()).then(|| json!(conversation.stop));
    let settings = [
        ("maxOutputTokens", conversation.max_tokens.map(Value::from)),
        ("temperature", sampling.temperature.map(exact)),
        ("topP", sampling.top_p.map(exact)),
        ("topK", sampling.top_k.map(Value::from)),
        ("seed", sampling.seed.map(Value::from)),
        ("presencePenalty", sampling.presence_penalty.map(exact)),
        ("frequencyPenalty", sampling.frequency_penalty.map(exact)),
        ("stopSequences", stop),
        ("responseMimeType", mime),
        ("responseJsonSchema", schema),
        ("thinkingConfig", of_gemini(model, conversation.thinking)?),
        ("mediaResolution", resolution(&conversation.turns)),
    ];
    let set = settings.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Ok(set.collect())
}

/// How closely all the pictures are looked at, if it is not for the model to say.
fn resolution(turns: &[Turn]) -> Option<Value> {
    let parts = turns.iter().flat_map(|turn| match turn {
        Turn::User(parts) => parts.as_slice(),
        Turn::Model(_) | Turn::Results(_) => &[],
    });
    let details = parts.filter_map(|part| match part {
        Part::Image(_, _, detail) => Some(*detail),
        Part::Speaker(_) | Part::Text(_) | Part::Audio(..) => None,
    });
    match details.max()? {
        Detail::Low => Some("MEDIA_RESOLUTION_LOW".into()),
        Detail::Auto => None,
        Detail::High | Detail::Original => Some("MEDIA_RESOLUTION_HIGH".into()),
    }
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
        Part::Speaker(name) => Ok(json!({ "text": format!("{name}:") })),
        Part::Image(Image::Gif, ..) => Err(What::Image(Image::Gif)),
        Part::Image(kind, bytes, _) => Ok(inline(kind.mime(), bytes)),
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
    Failure { kind, wait, detail: words(body), code: code_of_words(message) }
}

/// What a stream tells of a failure, whose status is the error's code.
pub(crate) fn failure_amid(body: &Value) -> Failure {
    let code = body["error"]["code"].as_u64().and_then(|code| u16::try_from(code).ok());
    failure(code.filter(|code| (400..600).contains(code)).unwrap_or(500), &|_| None, body)
}
