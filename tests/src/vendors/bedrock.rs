//! Converse as Amazon Bedrock documents it, with Signature Version 4 calculated here anew.
//!
//! **Invariant:** roles alternate, the user speaks first and last, and every call of a tool has its
//! result in the next message.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::shape::{self, Checked, list, number, object, text, word};
use super::{
    ACCESS_KEY_ID, Asked, Call, KEY, MODEL, REGION, Refused, Reply, Says, TOKENS, Trouble,
};

const KNOWN: [&str; 9] = [
    "system",
    "inferenceConfig",
    "toolConfig",
    "outputConfig",
    "guardrailConfig",
    "additionalModelRequestFields",
    "additionalModelResponseFieldPaths",
    "requestMetadata",
    "performanceConfig",
];

/// A segment of a path, encoded as RFC 3986 has it.
pub(super) fn encoded(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    let one = |b: u8| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") };
    text.bytes().map(one).collect()
}

pub(super) fn check(call: &Call<'_>) -> Result<Asked, Refused> {
    signature(call).map_err(Refused::Credential)?;
    let is_streamed = call.path.ends_with("/converse-stream");
    let method = if is_streamed { "converse-stream" } else { "converse" };
    let body = call.posts_json(&format!("/model/{}/{method}", encoded(MODEL)))?;
    object(&body, "body", &["messages"], &KNOWN)?;
    for block in body["system"].as_array().into_iter().flatten() {
        object(block, "system", &["text"], &[])?;
        text(&block["text"], "system.text")?;
    }
    if !body["inferenceConfig"].is_null() {
        let config = &body["inferenceConfig"];
        object(
            config,
            "inferenceConfig",
            &[],
            &["maxTokens", "temperature", "topP", "stopSequences"],
        )?;
        number(&config["temperature"], "temperature", 0.0..=1.0)?;
    }
    let schema = format(&body["outputConfig"])?;
    let stream = is_streamed.then_some(true);
    let mut asked = Asked { schema, stream, ..Asked::default() };
    let is_answered = messages(list(&body["messages"], "messages")?, &mut asked)?;
    if !body["toolConfig"].is_null() {
        object(&body["toolConfig"], "toolConfig", &["tools"], &["toolChoice"])?;
        let mut first = None;
        for tool in list(&body["toolConfig"]["tools"], "tools")? {
            object(tool, "tools", &["toolSpec"], &[])?;
            let spec = &tool["toolSpec"];
            object(spec, "toolSpec", &["name", "inputSchema"], &["description", "strict"])?;
            shape::schema(&spec["inputSchema"]["json"], "inputSchema.json")?;
            first.get_or_insert(text(&spec["name"], "name")?.to_owned());
        }
        asked.tool = first.filter(|_| !is_answered);
    }
    Ok(asked)
}

fn format(config: &Value) -> Checked<Option<Value>> {
    if config.is_null() {
        return Ok(None);
    }
    object(config, "outputConfig", &[], &["textFormat", "effort"])?;
    let format = &config["textFormat"];
    if format.is_null() {
        return Ok(None);
    }
    object(format, "textFormat", &["type", "structure"], &[])?;
    word(&format["type"], "textFormat.type", &["json_schema"])?;
    let asked = &format["structure"]["jsonSchema"];
    object(asked, "jsonSchema", &["schema"], &["name", "description"])?;
    let schema = text(&asked["schema"], "jsonSchema.schema")?;
    let schema = serde_json::from_str(schema).map_err(|_| "jsonSchema.schema: must be JSON")?;
    shape::schema(&schema, "jsonSchema.schema")?;
    Ok(Some(schema))
}

fn messages(messages: &[Value], asked: &mut Asked) -> Checked<bool> {
    let mut open: Vec<String> = Vec::new();
    let mut is_answered = false;
    for (at, message) in messages.iter().enumerate() {
        object(message, "messages", &["role", "content"], &[])?;
        let want = if at % 2 == 0 { "user" } else { "assistant" };
        word(&message["role"], &format!("messages[{at}].role"), &[want])?;
        is_answered = !open.is_empty();
        for block in list(&message["content"], "content")? {
            self::block(want, block, asked, &mut open)?;
        }
        if want == "user" && !open.is_empty() {
            return Err(format!("messages[{at}]: toolUse without toolResult: {open:?}"));
        }
    }
    match messages.len() % 2 {
        1 => Ok(is_answered),
        _ => Err("A conversation must end with a user message.".to_owned()),
    }
}

fn block(role: &str, block: &Value, asked: &mut Asked, open: &mut Vec<String>) -> Checked<()> {
    let kinds: &[&str] = match role {
        "user" => &["text", "image", "audio", "toolResult"],
        _ => &["text", "toolUse", "reasoningContent"],
    };
    let is_there = |kind: &&&str| block.get(**kind).is_some();
    let kind = kinds.iter().find(is_there).ok_or_else(|| format!("content: one of {kinds:?}"))?;
    object(block, "content", &[kind], &[])?;
    let inner = &block[kind];
    match *kind {
        "text" => {
            let words = text(inner, "text")?;
            if role == "user" {
                words.clone_into(&mut asked.text);
            }
        }
        "image" | "audio" => {
            object(inner, kind, &["format", "source"], &[])?;
            let known: &[&str] = match *kind {
                "image" => &["png", "jpeg", "gif", "webp"],
                _ => &["mp3", "opus", "wav", "aac", "flac", "mp4", "ogg"],
            };
            let format = word(&inner["format"], "format", known)?;
            object(&inner["source"], "source", &["bytes"], &[])?;
            let bytes = shape::bytes(&inner["source"]["bytes"], "source.bytes")?;
            if *kind == "image" {
                shape::picture(format, &bytes, "source.bytes")?;
            }
            asked.files.push(bytes);
        }
        "toolUse" => {
            object(inner, "toolUse", &["toolUseId", "name", "input"], &[])?;
            let id = text(&inner["toolUseId"], "toolUseId")?;
            let is_known = |b: u8| b.is_ascii_alphanumeric() || b"_.:-".contains(&b);
            if id.len() > 64 || !id.bytes().all(is_known) {
                return Err("toolUseId: must be 1 to 64 of [a-zA-Z0-9_.:-]".to_owned());
            }
            open.push(id.to_owned());
        }
        "toolResult" => {
            object(inner, "toolResult", &["toolUseId", "content"], &["status"])?;
            let id = text(&inner["toolUseId"], "toolUseId")?;
            let place = open.iter().position(|each| each == id);
            open.remove(place.ok_or_else(|| format!("no toolUse has the id {id}"))?);
        }
        _ => {
            object(&inner["reasoningText"], "reasoningText", &["text", "signature"], &[])?;
        }
    }
    Ok(())
}

/// Verifies the signature over what arrived, as the reference of Signature Version 4 says.
fn signature(call: &Call<'_>) -> Checked<()> {
    let header = call.header("authorization").ok_or("Missing Authentication Token")?;
    let fields = header.strip_prefix("AWS4-HMAC-SHA256 ").ok_or("not AWS4-HMAC-SHA256")?;
    let field = |name: &str| {
        let found = fields.split(", ").find_map(|field| field.strip_prefix(name));
        found.and_then(|rest| rest.strip_prefix('=')).ok_or_else(|| format!("{name} is missing"))
    };
    let date = call.header("x-amz-date").ok_or("x-amz-date is missing")?;
    let day = date.get(..8).filter(|_| date.len() == 16).ok_or("x-amz-date is no date")?;
    let scope = format!("{day}/{REGION}/bedrock/aws4_request");
    let credential = field("Credential")?;
    if credential != format!("{ACCESS_KEY_ID}/{scope}") {
        return Err("The security token included in the request is invalid.".to_owned());
    }
    let names: Vec<&str> = field("SignedHeaders")?.split(';').collect();
    if !names.is_sorted() || !["host", "x-amz-date"].iter().all(|name| names.contains(name)) {
        return Err("SignedHeaders must be sorted, with host and x-amz-date".to_owned());
    }
    let mut canonical = String::from("POST\n");
    let path: Vec<String> = call.path.split('/').map(encoded).collect();
    canonical += &format!("{}\n{}\n", path.join("/"), call.query);
    for name in &names {
        let value = call.header(name).ok_or_else(|| format!("{name} is signed and missing"))?;
        canonical += &format!("{name}:{}\n", value.trim());
    }
    let body = hex::encode(Sha256::digest(call.body));
    canonical += &format!("\n{}\n{body}", names.join(";"));
    let digest = hex::encode(Sha256::digest(canonical));
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{digest}");
    let mut key = format!("AWS4{KEY}").into_bytes();
    for part in scope.split('/') {
        key = mac(&key, part)?;
    }
    match hex::encode(mac(&key, &to_sign)?) == field("Signature")? {
        true => Ok(()),
        false => Err("The request signature we calculated does not match the signature you \
                      provided."
            .to_owned()),
    }
}

fn mac(key: &[u8], text: &str) -> Checked<Vec<u8>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|error| error.to_string())?;
    mac.update(text.as_bytes());
    Ok(mac.finalize().into_bytes().to_vec())
}

pub(super) fn answer(says: &Says) -> Value {
    let (content, stop) = match says {
        Says::Text(text) => (json!([{ "text": text }]), "end_turn"),
        Says::Cut(text) => (json!([{ "text": text }]), "max_tokens"),
        Says::Filtered => (json!([]), "content_filtered"),
        Says::Call(name, input) => {
            let call = json!({ "toolUseId": "tooluse_1", "name": name, "input": input });
            (json!([{ "toolUse": call }]), "tool_use")
        }
    };
    let (input, cached, output) = TOKENS;
    json!({ "output": { "message": { "role": "assistant", "content": content } },
        "stopReason": stop, "metrics": { "latencyMs": 12 },
        // What came out of the cache is not in inputTokens.
        "usage": { "inputTokens": input - cached, "outputTokens": output,
            "totalTokens": input + output, "cacheReadInputTokens": cached,
            "cacheWriteInputTokens": 0 } })
}

pub(super) fn trouble(trouble: Trouble, what: &str) -> Reply {
    let (status, name, message) = match trouble {
        Trouble::Transient => (503, "ServiceUnavailableException", "try again"),
        Trouble::Throttled => (429, "ThrottlingException", "Too many requests, please wait"),
        Trouble::OutOfCredit => (
            403,
            "AccessDeniedException",
            "Model access is denied due to INVALID_PAYMENT_INSTRUMENT: A valid payment instrument \
             must be provided.",
        ),
        Trouble::BadRequest => (400, "ValidationException", what),
        Trouble::Authentication => (403, "InvalidSignatureException", what),
        // It refuses in an answer.
        Trouble::Safety => return Reply::json(200, vec![], &answer(&Says::Filtered)),
    };
    let header = ("x-amzn-errortype", format!("{name}:http://internal.amazon.com/coral/"));
    Reply::json(status, vec![header], &json!({ "message": message }))
}
