//! Chat completions as OpenAI, Azure OpenAI and Mistral document them.
//!
//! **Invariant:** results of tools follow the call that they are of.

use serde_json::{Value, json};

use super::shape::{self, Checked, list, number, object, text, word};
use super::{
    API_VERSION, Asked, Call, KEY, MODEL, Refused, Reply, Says, TOKENS, Trouble, Vendor, WAIT_S,
};

const KNOWN: [&str; 15] = [
    "messages",
    "response_format",
    "temperature",
    "top_p",
    "max_tokens",
    "n",
    "stream",
    "stop",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "presence_penalty",
    "frequency_penalty",
    "metadata",
    "reasoning_effort",
];
/// What Mistral calls its calls: exactly 9 of letters and digits.
pub(super) const CALL_OF_MISTRAL: &str = "a1B2c3D4e";
const OF_OPENAI: [&str; 11] = [
    "verbosity",
    "safety_identifier",
    "prompt_cache_key",
    "prediction",
    "max_completion_tokens",
    "seed",
    "store",
    "user",
    "logprobs",
    "service_tier",
    "stream_options",
];
const OF_MISTRAL: [&str; 6] =
    ["random_seed", "safe_prompt", "prompt_mode", "top_k", "prediction", "prompt_cache_key"];
/// What tells who asks, what to cache and what to expect.
const HINTS: [&str; 4] = ["user", "safety_identifier", "prompt_cache_key", "prediction"];

pub(super) fn check(vendor: Vendor, call: &Call<'_>) -> Result<Asked, Refused> {
    let model = crate::vendors::bedrock::encoded(MODEL);
    let (path, header, shown) = match vendor {
        Vendor::AzureOpenAi => {
            (format!("/openai/deployments/{model}/chat/completions"), "api-key", KEY.to_owned())
        }
        _ => ("/v1/chat/completions".to_owned(), "authorization", format!("Bearer {KEY}")),
    };
    call.shows(header, &shown)?;
    // Azure's own SDK does not encode the colon of a deployment.
    let plain = Call { path: &call.path.replace(MODEL, &model), ..*call };
    let body = plain.posts_json(&path)?;
    if vendor == Vendor::AzureOpenAi && call.query != format!("api-version={API_VERSION}") {
        return Err(Refused::Request(format!("api-version: there is {API_VERSION}")));
    }
    let own: &[&str] = if vendor == Vendor::Mistral { &OF_MISTRAL } else { &OF_OPENAI };
    let known: Vec<&str> = KNOWN.iter().chain(own).copied().chain(["model"]).collect();
    let needed: &[&str] =
        if vendor == Vendor::AzureOpenAi { &["messages"] } else { &["model", "messages"] };
    object(&body, "body", needed, &known)?;
    if !body["model"].is_null() && body["model"] != MODEL {
        return Err(Refused::Request(format!("the model {} does not exist", body["model"])));
    }
    number(&body["temperature"], "temperature", 0.0..=2.0)?;
    number(&body["top_p"], "top_p", 0.0..=1.0)?;
    let stream = stream(vendor, &body)?;
    if body["stop"].as_array().is_some_and(|stops| stops.len() > 4) {
        return Err(Refused::Request("stop: at most 4".to_owned()));
    }
    let schema = format(&body["response_format"])?;
    let mut asked = Asked { schema, stream, hints: hints(&body)?, ..Asked::default() };
    let is_answered = messages(vendor, list(&body["messages"], "messages")?, &mut asked)?;
    if body["tools"].is_null() && !body["parallel_tool_calls"].is_null() {
        return Err(Refused::Request("parallel_tool_calls: only allowed with tools".to_owned()));
    }
    if !body["tools"].is_null() {
        let name = tools(&body["tools"])?;
        asked.tool = (!is_answered && body["tool_choice"] != "none").then_some(name);
    }
    Ok(asked)
}

fn hints(body: &Value) -> Checked<Value> {
    let told = HINTS.iter().filter(|key| !body[**key].is_null());
    let told = told.map(|key| {
        let value = &body[*key];
        match *key {
            "prediction" => {
                object(value, "prediction", &["type", "content"], &[])?;
                word(&value["type"], "prediction.type", &["content"])?;
                text(&value["content"], "prediction.content")?;
            }
            _ => drop(text(value, key)?),
        }
        Ok(((*key).to_owned(), value.clone()))
    });
    told.collect::<Checked<serde_json::Map<_, _>>>().map(Value::Object)
}

/// Whether the answer is streamed, and whether its tokens are told: by Mistral always.
fn stream(vendor: Vendor, body: &Value) -> Checked<Option<bool>> {
    let options = &body["stream_options"];
    if body["stream"] != true {
        return match options.is_null() {
            true => Ok(None),
            false => Err("stream_options: only allowed when stream is true".to_owned()),
        };
    }
    if !options.is_null() {
        object(options, "stream_options", &[], &["include_usage", "include_obfuscation"])?;
    }
    Ok(Some(vendor == Vendor::Mistral || options["include_usage"] == true))
}

fn format(format: &Value) -> Checked<Option<Value>> {
    if format.is_null() {
        return Ok(None);
    }
    let kind = word(&format["type"], "response_format.type", &["text", "json_schema"])?;
    if kind == "text" {
        return Ok(None);
    }
    object(format, "response_format", &["type", "json_schema"], &[])?;
    let asked = &format["json_schema"];
    object(asked, "json_schema", &["name", "schema"], &["strict", "description"])?;
    let schema = &asked["schema"];
    shape::schema(schema, "json_schema.schema")?;
    // Strict mode: every property is required, and no other is allowed.
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let properties = schema["properties"].as_object().cloned().unwrap_or_default();
    let is_whole = properties.keys().all(|key| required.contains(&json!(key)));
    let is_closed = schema["additionalProperties"] == json!(false);
    if asked["strict"] == true && !(is_whole && is_closed) {
        return Err("json_schema.schema: is not strict".to_owned());
    }
    Ok(Some(schema.clone()))
}

fn tools(tools: &Value) -> Checked<String> {
    let mut first = None;
    for tool in list(tools, "tools")? {
        object(tool, "tools", &["type", "function"], &[])?;
        word(&tool["type"], "tools.type", &["function"])?;
        let function = &tool["function"];
        object(function, "function", &["name"], &["description", "parameters", "strict"])?;
        shape::schema(&function["parameters"], "function.parameters")?;
        first.get_or_insert(text(&function["name"], "function.name")?.to_owned());
    }
    Ok(first.unwrap_or_default())
}

/// Whether the last message is the result of a tool.
fn messages(vendor: Vendor, messages: &[Value], asked: &mut Asked) -> Checked<bool> {
    let mut open: Vec<String> = Vec::new();
    let mut last = "";
    for (at, message) in messages.iter().enumerate() {
        let role = &message["role"];
        last = word(role, "role", &["system", "developer", "user", "assistant", "tool"])?;
        if last != "tool" && !open.is_empty() {
            return Err(format!("messages[{at}]: the calls {open:?} have no result"));
        }
        match last {
            "system" | "developer" if at > 0 => return Err("a system message comes first".into()),
            "system" | "developer" => {
                object(message, "message", &["role", "content"], &[])?;
                text(&message["content"], "content")?;
            }
            "user" => {
                object(message, "message", &["role", "content"], &["name"])?;
                user(vendor, &message["content"], asked)?;
            }
            "assistant" => {
                object(
                    message,
                    "message",
                    &["role"],
                    &["content", "tool_calls", "refusal", "prefix"],
                )?;
                for call in message["tool_calls"].as_array().into_iter().flatten() {
                    text(&call["function"]["arguments"], "arguments")?;
                    let id = text(&call["id"], "tool_calls.id")?;
                    call_id(vendor, id)?;
                    open.push(id.to_owned());
                }
            }
            _ => {
                object(message, "message", &["role", "content", "tool_call_id"], &["name"])?;
                let id = text(&message["tool_call_id"], "tool_call_id")?;
                let place = open.iter().position(|each| each == id);
                open.remove(place.ok_or_else(|| format!("no call has the id {id}"))?);
            }
        }
    }
    match last {
        "user" | "tool" if open.is_empty() => Ok(last == "tool"),
        _ => Err("the last message is the user's or a tool's".to_owned()),
    }
}

/// What these two say about the id of a call, though neither documents it.
fn call_id(vendor: Vendor, id: &str) -> Checked<()> {
    let is_nine = id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    match vendor {
        Vendor::Mistral if !is_nine => {
            Err(format!("Tool call id was {id} but must be a-z, A-Z, 0-9, with a length of 9."))
        }
        _ if id.len() > 40 => Err("tool_calls.id: string too long, maximum length 40".to_owned()),
        _ => Ok(()),
    }
}

fn user(vendor: Vendor, content: &Value, asked: &mut Asked) -> Checked<()> {
    if content.is_string() {
        text(content, "content")?.clone_into(&mut asked.text);
        return Ok(());
    }
    for part in list(content, "content")? {
        let kind = word(&part["type"], "type", &["text", "image_url", "input_audio"])?;
        object(part, "part", &["type", kind], &[])?;
        match kind {
            "text" => text(&part["text"], "text")?.clone_into(&mut asked.text),
            "image_url" => {
                let image = &part["image_url"];
                if !image["detail"].is_null() {
                    let known: &[&str] = match vendor {
                        Vendor::Mistral => &["low", "auto", "high"],
                        _ => &["low", "auto", "high", "original"],
                    };
                    word(&image["detail"], "image_url.detail", known)?;
                }
                let url = if image.is_string() { image } else { &image["url"] };
                let url = text(url, "image_url.url")?;
                let (kind, data) = url
                    .strip_prefix("data:")
                    .and_then(|rest| rest.split_once(";base64,"))
                    .ok_or("image_url.url: must be a data URL")?;
                let bytes = shape::bytes(&json!(data), "image_url.url")?;
                shape::picture(kind, &bytes, "image_url.url")?;
                asked.files.push(bytes);
            }
            _ => {
                let audio = &part["input_audio"];
                let data = match vendor {
                    Vendor::Mistral => audio,
                    _ => {
                        object(audio, "input_audio", &["data", "format"], &[])?;
                        word(&audio["format"], "input_audio.format", &["wav", "mp3"])?;
                        &audio["data"]
                    }
                };
                asked.files.push(shape::bytes(data, "input_audio")?);
            }
        }
    }
    Ok(())
}

pub(super) fn answer(vendor: Vendor, says: &Says) -> Value {
    let (content, calls, finish) = match says {
        Says::Text(text) => (json!(text), Value::Null, "stop"),
        Says::Cut(text) => (json!(text), Value::Null, "length"),
        Says::Filtered => (Value::Null, Value::Null, "content_filter"),
        Says::Call(name, arguments) => {
            let function = json!({ "name": name, "arguments": arguments.to_string() });
            let id = if vendor == Vendor::Mistral { CALL_OF_MISTRAL } else { "call_123456" };
            let call = json!([{ "id": id, "type": "function", "function": function }]);
            (Value::Null, call, "tool_calls")
        }
    };
    let (input, cached, output) = TOKENS;
    let mut message = json!({ "role": "assistant", "content": content });
    if !calls.is_null() {
        message["tool_calls"] = calls;
    }
    let mut usage = json!({ "prompt_tokens": input, "completion_tokens": output,
        "total_tokens": input + output });
    let mut choice = json!({ "index": 0, "message": message, "finish_reason": finish });
    if vendor == Vendor::Mistral {
        choice["message"]["prefix"] = json!(false);
    } else {
        choice["message"]["refusal"] = Value::Null;
        choice["message"]["annotations"] = json!([]);
        choice["logprobs"] = Value::Null;
        usage["prompt_tokens_details"] = json!({ "cached_tokens": cached, "audio_tokens": 0 });
        usage["completion_tokens_details"] = json!({ "reasoning_tokens": 4, "audio_tokens": 0,
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0 });
    }
    if vendor == Vendor::AzureOpenAi {
        choice["content_filter_results"] = json!({ "hate": { "filtered": false } });
    }
    json!({ "id": "chatcmpl-1", "object": "chat.completion", "created": 1_790_000_000,
        "model": MODEL, "choices": [choice], "usage": usage })
}

pub(super) fn trouble(vendor: Vendor, trouble: Trouble, what: &str) -> Reply {
    let azure = vendor == Vendor::AzureOpenAi;
    let (status, kind, code) = match trouble {
        Trouble::Transient => (500, "server_error", Value::Null),
        Trouble::Throttled if azure => (429, "", json!("429")),
        Trouble::Throttled => (429, "requests", json!("rate_limit_exceeded")),
        Trouble::OutOfCredit => (429, "insufficient_quota", json!("insufficient_quota")),
        Trouble::BadRequest => (400, "invalid_request_error", Value::Null),
        Trouble::Authentication if azure => (401, "", json!("401")),
        Trouble::Authentication => (401, "invalid_request_error", json!("invalid_api_key")),
        Trouble::Safety if azure => (400, "", json!("content_filter")),
        Trouble::Safety => (400, "invalid_request_error", json!("content_policy_violation")),
    };
    let mut error = json!({ "message": what, "type": kind, "param": null, "code": code });
    if azure && trouble == Trouble::Safety {
        error["status"] = json!(400);
        error["innererror"] = json!({ "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": { "violence": { "filtered": true, "severity": "high" } } });
    }
    let headers = match (trouble, azure) {
        (Trouble::Throttled, true) => vec![
            ("retry-after", WAIT_S.to_string()),
            ("retry-after-ms", (WAIT_S * 1000).to_string()),
        ],
        (Trouble::Throttled, false) => vec![
            ("x-ratelimit-limit-requests", "60".to_owned()),
            ("x-ratelimit-remaining-requests", "0".to_owned()),
            ("x-ratelimit-reset-requests", format!("{WAIT_S}s")),
            ("x-ratelimit-remaining-tokens", "149984".to_owned()),
            ("x-ratelimit-reset-tokens", "6m0s".to_owned()),
        ],
        _ => vec![],
    };
    Reply::json(status, headers, &json!({ "error": error }))
}

pub(super) fn trouble_of_mistral(trouble: Trouble, what: &str) -> Reply {
    let (status, kind, code) = match trouble {
        Trouble::Transient => (503, "internal_server_error", "3505"),
        Trouble::Throttled => (429, "rate_limited", "1300"),
        Trouble::OutOfCredit => (402, "payment_required", "1910"),
        Trouble::Authentication => {
            return Reply::json(401, vec![], &json!({ "detail": "Unauthorized" }));
        }
        Trouble::BadRequest => {
            let detail = json!([{ "type": "value_error", "loc": ["body"], "msg": what }]);
            return Reply::json(422, vec![], &json!({ "detail": detail }));
        }
        Trouble::Safety => (403, "content_policy_violation", "1902"),
    };
    let headers = match trouble {
        Trouble::Throttled => vec![("retry-after", WAIT_S.to_string())],
        _ => vec![],
    };
    let body =
        json!({ "object": "error", "message": what, "type": kind, "param": null, "code": code });
    Reply::json(status, headers, &body)
}
