//! Answers piece by piece, as each provider documents its stream.
//!
//! **Invariant:** the pieces of an answer say together what the answer in one piece says.

use axum::body::Bytes;
use serde_json::{Value, json};

use super::{MODEL, Says, TOKENS, Vendor};

/// The content type of a vendor's stream.
pub(super) fn content_type(vendor: Vendor) -> &'static str {
    match vendor {
        Vendor::Bedrock => "application/vnd.amazon.eventstream",
        _ => "text/event-stream; charset=utf-8",
    }
}

/// What is sent for `says`, one after the other; `tells_usage` where that has to be asked for.
pub(super) fn pieces(vendor: Vendor, says: &Says, tells_usage: bool) -> Vec<Bytes> {
    match vendor {
        Vendor::OpenAi | Vendor::AzureOpenAi | Vendor::Mistral => openai(vendor, says, tells_usage),
        Vendor::Anthropic => anthropic(says),
        Vendor::Gemini | Vendor::Vertex => gemini(says),
        Vendor::Bedrock => bedrock(says),
    }
}

/// A text in pieces: words, each with the blank behind it.
fn words(text: &str) -> Vec<String> {
    text.split_inclusive(' ').map(str::to_owned).collect()
}

/// A JSON text in two pieces.
fn halves(value: &Value) -> [String; 2] {
    let text = value.to_string();
    let (left, right) = text.split_at(text.len() / 2);
    [left.to_owned(), right.to_owned()]
}

fn data(value: &Value) -> Bytes {
    format!("data: {value}\n\n").into()
}

fn openai(vendor: Vendor, says: &Says, tells_usage: bool) -> Vec<Bytes> {
    let is_mistral = vendor == Vendor::Mistral;
    let chunk = |choices: Value, usage: Value| {
        let mut chunk = json!({ "id": "chatcmpl-1", "object": "chat.completion.chunk",
            "created": 1_790_000_000, "model": MODEL, "choices": choices });
        if !is_mistral {
            chunk["service_tier"] = json!("default");
            chunk["system_fingerprint"] = json!("fp_1");
        }
        if tells_usage || !usage.is_null() {
            chunk["usage"] = usage;
        }
        data(&chunk)
    };
    let delta = |delta: Value, finish: Value| {
        let mut choice = json!({ "index": 0, "delta": delta, "finish_reason": finish });
        if !is_mistral {
            choice["logprobs"] = Value::Null;
        }
        json!([choice])
    };
    let mut out = Vec::new();
    if vendor == Vendor::AzureOpenAi {
        let mut first = json!({ "id": "", "object": "", "created": 0, "model": "", "choices": [] });
        first["prompt_filter_results"] =
            json!([{ "prompt_index": 0, "content_filter_results": {} }]);
        out.push(data(&first));
    }
    let opening = json!({ "role": "assistant", "content": "" });
    out.push(chunk(delta(opening, Value::Null), Value::Null));
    let finish = match says {
        Says::Text(text) | Says::Cut(text) => {
            for word in words(text) {
                out.push(chunk(delta(json!({ "content": word }), Value::Null), Value::Null));
            }
            if matches!(says, Says::Cut(_)) { "length" } else { "stop" }
        }
        Says::Filtered => "content_filter",
        Says::Call(name, arguments) => {
            let id = if is_mistral { super::openai::CALL_OF_MISTRAL } else { "call_123456" };
            let call = |arguments: &str| {
                json!({ "index": 0, "id": id, "type": "function",
                    "function": { "name": name, "arguments": arguments } })
            };
            let more = |text: &str| json!({ "index": 0, "function": { "arguments": text } });
            let calls = match is_mistral {
                true => vec![call(&arguments.to_string())],
                false => {
                    let [left, right] = halves(arguments);
                    vec![call(""), more(&left), more(&right)]
                }
            };
            for call in calls {
                out.push(chunk(delta(json!({ "tool_calls": [call] }), Value::Null), Value::Null));
            }
            "tool_calls"
        }
    };
    let (input, cached, output) = TOKENS;
    let mut usage = json!({ "prompt_tokens": input, "completion_tokens": output,
        "total_tokens": input + output });
    if is_mistral {
        out.push(chunk(delta(json!({ "content": "" }), json!(finish)), usage));
    } else {
        out.push(chunk(delta(json!({}), json!(finish)), Value::Null));
        if tells_usage {
            usage["prompt_tokens_details"] = json!({ "cached_tokens": cached, "audio_tokens": 0 });
            usage["completion_tokens_details"] = json!({ "reasoning_tokens": 4 });
            out.push(chunk(json!([]), usage));
        }
    }
    out.push(Bytes::from_static(b"data: [DONE]\n\n"));
    out
}

fn anthropic(says: &Says) -> Vec<Bytes> {
    let event = |value: Value| -> Bytes {
        let kind = value["type"].as_str().unwrap_or_default();
        format!("event: {kind}\ndata: {value}\n\n").into()
    };
    let (input, cached, output) = TOKENS;
    let mut out = vec![event(json!({ "type": "message_start", "message": { "id": "msg_1",
        "type": "message", "role": "assistant", "model": MODEL, "content": [], "stop_reason": null,
        "stop_sequence": null, "usage": { "input_tokens": input - cached,
            "cache_creation_input_tokens": 0, "cache_read_input_tokens": cached,
            "output_tokens": 1 } } }))];
    let mut block = |opening: Value, deltas: Vec<Value>| {
        out.push(event(
            json!({ "type": "content_block_start", "index": 0, "content_block": opening }),
        ));
        out.push(event(json!({ "type": "ping" })));
        for delta in deltas {
            out.push(event(json!({ "type": "content_block_delta", "index": 0, "delta": delta })));
        }
        out.push(event(json!({ "type": "content_block_stop", "index": 0 })));
    };
    let stop = match says {
        Says::Text(text) | Says::Cut(text) => {
            let delta = |text: String| json!({ "type": "text_delta", "text": text });
            let deltas = words(text).into_iter().map(delta).collect();
            block(json!({ "type": "text", "text": "" }), deltas);
            if matches!(says, Says::Cut(_)) { "max_tokens" } else { "end_turn" }
        }
        Says::Filtered => "refusal",
        Says::Call(name, arguments) => {
            let delta = |text| json!({ "type": "input_json_delta", "partial_json": text });
            let deltas = halves(arguments).into_iter().map(delta).collect();
            let opening = json!({ "type": "tool_use", "id": "toolu_1", "name": name, "input": {} });
            block(opening, deltas);
            "tool_use"
        }
    };
    out.push(event(json!({ "type": "message_delta",
        "delta": { "stop_reason": stop, "stop_sequence": null },
        "usage": { "output_tokens": output } })));
    out.push(event(json!({ "type": "message_stop" })));
    out
}

fn gemini(says: &Says) -> Vec<Bytes> {
    let whole = super::gemini::answer(says);
    let (Says::Text(text) | Says::Cut(text)) = says else {
        return vec![format!("data: {whole}\r\n\r\n").into()];
    };
    let mut words = words(text);
    let last = words.pop().unwrap_or_default();
    let mut out: Vec<Bytes> = words
        .iter()
        .map(|word| {
            let content = json!({ "role": "model", "parts": [{ "text": word }] });
            let (input, ..) = TOKENS;
            let chunk = json!({ "candidates": [{ "content": content, "index": 0 }],
                "usageMetadata": { "promptTokenCount": input, "totalTokenCount": input },
                "modelVersion": MODEL, "responseId": "r-1" });
            format!("data: {chunk}\r\n\r\n").into()
        })
        .collect();
    let mut end = whole;
    end["candidates"][0]["content"]["parts"] = json!([{ "text": last }]);
    out.push(format!("data: {end}\r\n\r\n").into());
    out
}

fn bedrock(says: &Says) -> Vec<Bytes> {
    let whole = super::bedrock::answer(says);
    let mut out = vec![frame("messageStart", &json!({ "role": "assistant" }))];
    let mut delta = |delta: Value| {
        out.push(frame("contentBlockDelta", &json!({ "contentBlockIndex": 0, "delta": delta })));
    };
    let has_block = match says {
        Says::Text(text) | Says::Cut(text) => {
            words(text).into_iter().for_each(|word| delta(json!({ "text": word })));
            true
        }
        Says::Filtered => false,
        Says::Call(name, arguments) => {
            let halves = halves(arguments);
            let start = json!({ "toolUse": { "toolUseId": "tooluse_1", "name": name } });
            let start = json!({ "contentBlockIndex": 0, "start": start });
            out.push(frame("contentBlockStart", &start));
            for half in halves {
                let delta = json!({ "toolUse": { "input": half } });
                let delta = json!({ "contentBlockIndex": 0, "delta": delta });
                out.push(frame("contentBlockDelta", &delta));
            }
            true
        }
    };
    if has_block {
        out.push(frame("contentBlockStop", &json!({ "contentBlockIndex": 0 })));
    }
    out.push(frame("messageStop", &json!({ "stopReason": whole["stopReason"] })));
    let metadata = json!({ "usage": whole["usage"], "metrics": whole["metrics"] });
    out.push(frame("metadata", &metadata));
    out
}

/// One message of Amazon's event stream: lengths, headers and payload, with two checksums.
fn frame(event: &str, payload: &Value) -> Bytes {
    let mut headers = Vec::new();
    for (name, value) in
        [(":event-type", event), (":content-type", "application/json"), (":message-type", "event")]
    {
        headers.push(u8::try_from(name.len()).unwrap_or_default());
        headers.extend(name.as_bytes());
        // A text.
        headers.push(7);
        headers.extend(u16::try_from(value.len()).unwrap_or_default().to_be_bytes());
        headers.extend(value.as_bytes());
    }
    let payload = payload.to_string();
    let length = |length: usize| u32::try_from(length).unwrap_or_default().to_be_bytes();
    let mut out = Vec::new();
    out.extend(length(16 + headers.len() + payload.len()));
    out.extend(length(headers.len()));
    out.extend(checksum(&out));
    out.extend(headers);
    out.extend(payload.as_bytes());
    out.extend(checksum(&out));
    out.into()
}

fn checksum(bytes: &[u8]) -> [u8; 4] {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum().to_be_bytes()
}
