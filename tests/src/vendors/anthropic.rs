//! Messages as Anthropic documents them.
//!
//! **Invariant:** roles alternate, the user speaks first and last, and every call has its result in the
//! next message, before anything else in it.

use serde_json::{Value, json};

use super::shape::{self, Checked, list, number, object, text, word};
use super::{Asked, Call, KEY, MODEL, Refused, Reply, Says, TOKENS, Trouble, WAIT_S};

const KNOWN: [&str; 11] = [
    "system",
    "temperature",
    "top_p",
    "top_k",
    "stop_sequences",
    "tools",
    "tool_choice",
    "output_config",
    "metadata",
    "thinking",
    "stream",
];
/// What the newer version has no longer.
const SAMPLING: [&str; 3] = ["temperature", "top_p", "top_k"];
/// What structured outputs do not know.
const UNKNOWN_IN_SCHEMAS: [&str; 5] =
    ["minimum", "maximum", "multipleOf", "minLength", "maxLength"];

pub(super) fn check(call: &Call<'_>) -> Result<Asked, Refused> {
    // Both ways of showing the key are documented; the SDK has changed from one to the other.
    match call.header("x-api-key") {
        Some(_) => call.shows("x-api-key", KEY)?,
        None => call.shows("authorization", &format!("Bearer {KEY}"))?,
    }
    let Some(version @ ("2023-06-01" | "2026-10-21")) = call.header("anthropic-version") else {
        return Err(Refused::Request("anthropic-version: header is required".to_owned()));
    };
    let body = call.posts_json("/v1/messages")?;
    object(&body, "body", &["model", "max_tokens", "messages"], &KNOWN)?;
    if body["model"] != MODEL {
        return Err(Refused::Request(format!("model: {}", body["model"])));
    }
    let is_old = version == "2023-06-01";
    if let Some(key) = SAMPLING.iter().find(|key| !is_old && !body[**key].is_null()) {
        return Err(Refused::Request(format!("{key}: is not in version {version}")));
    }
    number(&body["max_tokens"], "max_tokens", 1.0..=128_000.0)?;
    number(&body["temperature"], "temperature", 0.0..=1.0)?;
    if !body["system"].is_null() && !body["system"].is_array() {
        text(&body["system"], "system")?;
    }
    if !body["thinking"].is_null() {
        word(&body["thinking"]["type"], "thinking.type", &["adaptive", "enabled", "disabled"])?;
    }
    let schema = format(&body["output_config"])?;
    let stream = (body["stream"] == true).then_some(true);
    let metadata = &body["metadata"];
    if !metadata.is_null() {
        object(metadata, "metadata", &[], &["user_id"])?;
        text(&metadata["user_id"], "metadata.user_id")?;
    }
    let hints = metadata.clone();
    let mut asked = Asked { schema, stream, hints, ..Asked::default() };
    let is_answered = messages(list(&body["messages"], "messages")?, &mut asked)?;
    if !body["tools"].is_null() {
        let mut first = None;
        for tool in list(&body["tools"], "tools")? {
            object(tool, "tools", &["name", "input_schema"], &["description", "type", "strict"])?;
            shape::schema(&tool["input_schema"], "input_schema")?;
            first.get_or_insert(text(&tool["name"], "name")?.to_owned());
        }
        let is_free = !is_answered && body["tool_choice"]["type"] != "none";
        asked.tool = first.filter(|_| is_free);
    }
    Ok(asked)
}

fn format(config: &Value) -> Checked<Option<Value>> {
    if config.is_null() {
        return Ok(None);
    }
    object(config, "output_config", &[], &["format", "effort"])?;
    let format = &config["format"];
    if format.is_null() {
        return Ok(None);
    }
    object(format, "format", &["type", "schema"], &[])?;
    word(&format["type"], "format.type", &["json_schema"])?;
    let schema = &format["schema"];
    shape::schema(schema, "format.schema")?;
    if schema["additionalProperties"] != json!(false) {
        return Err("format.schema: additionalProperties must be false".to_owned());
    }
    for property in schema["properties"].as_object().into_iter().flat_map(|map| map.values()) {
        if let Some(key) = UNKNOWN_IN_SCHEMAS.iter().find(|key| !property[**key].is_null()) {
            return Err(format!("format.schema: property '{key}' is not supported"));
        }
    }
    Ok(Some(schema.clone()))
}

fn messages(messages: &[Value], asked: &mut Asked) -> Checked<bool> {
    let mut open: Vec<String> = Vec::new();
    let mut is_answered = false;
    for (at, message) in messages.iter().enumerate() {
        object(message, "message", &["role", "content"], &[])?;
        let want = if at % 2 == 0 { "user" } else { "assistant" };
        word(&message["role"], &format!("messages[{at}].role"), &[want])?;
        is_answered = !open.is_empty();
        if message["content"].is_string() {
            let words = text(&message["content"], "content")?;
            if want == "user" {
                words.clone_into(&mut asked.text);
            }
        } else {
            for block in list(&message["content"], "content")? {
                self::block(want, block, asked, &mut open)?;
            }
        }
        if want == "user" && !open.is_empty() {
            return Err(format!("messages[{at}]: tool_use ids without tool_result: {open:?}"));
        }
    }
    match messages.len() % 2 {
        1 => Ok(is_answered),
        _ => Err("messages: the last one must be the user's".to_owned()),
    }
}

fn block(role: &str, block: &Value, asked: &mut Asked, open: &mut Vec<String>) -> Checked<()> {
    let kinds: &[&str] = match role {
        "user" => &["text", "image", "tool_result"],
        _ => &["text", "tool_use", "thinking"],
    };
    let kind = word(&block["type"], "content.type", kinds)?;
    if role == "user" && kind != "tool_result" && !open.is_empty() {
        return Err("content: tool_result blocks come first".to_owned());
    }
    match kind {
        "text" => {
            object(block, "text", &["type", "text"], &["cache_control"])?;
            let words = text(&block["text"], "text")?;
            if role == "user" {
                words.clone_into(&mut asked.text);
            }
        }
        "image" => {
            object(block, "image", &["type", "source"], &["cache_control"])?;
            let source = &block["source"];
            object(source, "source", &["type", "media_type", "data"], &[])?;
            word(&source["type"], "source.type", &["base64"])?;
            let bytes = shape::bytes(&source["data"], "source.data")?;
            shape::picture(text(&source["media_type"], "media_type")?, &bytes, "source.data")?;
            asked.files.push(bytes);
        }
        "tool_use" => {
            object(block, "tool_use", &["type", "id", "name", "input"], &["caller"])?;
            object(&block["input"], "input", &[], &["city"])?;
            let id = text(&block["id"], "id")?;
            let is_known = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
            if !id.bytes().all(is_known) {
                return Err(format!("tool_use.id: {id} does not match ^[a-zA-Z0-9_-]+$"));
            }
            open.push(id.to_owned());
        }
        "tool_result" => {
            object(block, "tool_result", &["type", "tool_use_id"], &["content", "is_error"])?;
            let id = text(&block["tool_use_id"], "tool_use_id")?;
            let place = open.iter().position(|each| each == id);
            open.remove(place.ok_or_else(|| format!("unexpected tool_use_id {id}"))?);
        }
        _ => {
            object(block, "thinking", &["type", "thinking", "signature"], &[])?;
        }
    }
    Ok(())
}

pub(super) fn answer(says: &Says) -> Value {
    let words = |text: &str| json!([{ "type": "text", "text": text, "citations": null }]);
    let (content, stop) = match says {
        Says::Text(text) => (words(text), "end_turn"),
        Says::Cut(text) => (words(text), "max_tokens"),
        Says::Filtered => (json!([]), "refusal"),
        Says::Call(name, input) => (
            json!([{ "type": "tool_use", "id": "toolu_1", "name": name, "input": input }]),
            "tool_use",
        ),
    };
    let (input, cached, output) = TOKENS;
    json!({ "id": "msg_1", "type": "message", "role": "assistant", "model": MODEL,
        "content": content, "stop_reason": stop, "stop_sequence": null,
        // What came out of the cache is not in input_tokens.
        "usage": { "input_tokens": input - cached, "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached, "output_tokens": output,
            "service_tier": "standard" } })
}

pub(super) fn trouble(trouble: Trouble, what: &str) -> Reply {
    let (status, kind, message) = match trouble {
        Trouble::Transient => (529, "overloaded_error", "Overloaded"),
        Trouble::Throttled => (429, "rate_limit_error", what),
        Trouble::OutOfCredit => (
            400,
            "invalid_request_error",
            "Your credit balance is too low to access the Anthropic API. Please go to Plans & \
             Billing to upgrade or purchase credits.",
        ),
        Trouble::BadRequest => (400, "invalid_request_error", what),
        Trouble::Authentication => (401, "authentication_error", what),
        Trouble::Safety => {
            (400, "invalid_request_error", "Output blocked by content filtering policy")
        }
    };
    let mut headers = vec![("request-id", "req_1".to_owned())];
    if trouble == Trouble::Throttled {
        headers.push(("retry-after", WAIT_S.to_string()));
        headers.push(("anthropic-ratelimit-requests-remaining", "0".to_owned()));
    }
    let body = json!({ "type": "error", "error": { "type": kind, "message": message },
        "request_id": "req_1" });
    Reply::json(status, headers, &body)
}
