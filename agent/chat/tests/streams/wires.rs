//! The answers of an example: in one piece, and as the stream that its provider documents.
//!
//! **Invariant:** both ways of an answer say the same.

use holdfast_chat::Dialect;
use proptest::prelude::*;
use serde_json::{Value, json};

/// Server-sent events with these data, named as Anthropic does where they have a type.
pub(crate) fn sse(data: &[Value], done: bool) -> Vec<u8> {
    let named = |value: &Value| match value["type"].as_str() {
        Some(kind) => format!("event: {kind}\ndata: {value}\n\n"),
        None => format!("data: {value}\n\n"),
    };
    let mut text: String = data.iter().map(named).collect();
    if done {
        text += "data: [DONE]\n\n";
    }
    text.into_bytes()
}

pub(crate) fn frame(kind: (&str, &str), payload: &Value) -> Vec<u8> {
    let mut headers = Vec::new();
    let message = if kind.0 == ":exception-type" { "exception" } else { "event" };
    for (name, value) in [(":message-type", message), kind, (":content-type", "application/json")] {
        headers.push(u8::try_from(name.len()).unwrap());
        headers.extend(name.as_bytes());
        headers.push(7);
        headers.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        headers.extend(value.as_bytes());
    }
    let payload = payload.to_string();
    let total = u32::try_from(16 + headers.len() + payload.len()).unwrap();
    let mut out = total.to_be_bytes().to_vec();
    out.extend(u32::try_from(headers.len()).unwrap().to_be_bytes());
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out.extend(headers);
    out.extend(payload.as_bytes());
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out
}

fn frames(events: &[(&str, Value)]) -> Vec<u8> {
    events.iter().flat_map(|(kind, payload)| frame((":event-type", kind), payload)).collect()
}

/// What is said in an example: thoughts, words and calls, each in pieces.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    thoughts: Vec<String>,
    words: Vec<String>,
    /// The name, and the pieces of the arguments' text.
    calls: Vec<(String, Vec<String>)>,
    stop: Ending,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Ending {
    End,
    Length,
}

fn ids(script: &Script) -> impl Iterator<Item = (usize, String, &str, &[String])> {
    script
        .calls
        .iter()
        .enumerate()
        .map(|(at, (name, pieces))| (at, format!("id-{at}"), name.as_str(), pieces.as_slice()))
}

fn object(pieces: &[String]) -> Value {
    serde_json::from_str(&pieces.concat()).unwrap()
}

/// The body in one piece, and the stream, as the provider documents them.
fn openai(script: &Script) -> (Value, Vec<u8>) {
    let calls: Vec<Value> = ids(script)
        .map(|(_, id, name, pieces)| {
            json!({ "id": id, "type": "function",
            "function": { "name": name, "arguments": pieces.concat() } })
        })
        .collect();
    let finish = match script.stop {
        Ending::Length => "length",
        Ending::End if calls.is_empty() => "stop",
        Ending::End => "tool_calls",
    };
    let usage = json!({ "prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 19,
        "prompt_tokens_details": { "cached_tokens": 4 },
        "completion_tokens_details": { "reasoning_tokens": 3 } });
    let body = json!({ "id": "c", "object": "chat.completion", "model": "m-1", "choices": [{
        "index": 0, "finish_reason": finish, "message": { "role": "assistant",
            "reasoning_content": script.thoughts.concat(), "content": script.words.concat(),
            "tool_calls": calls } }], "usage": usage });
    let chunk = |delta: Value, finish: Value| {
        json!({ "id": "c", "object": "chat.completion.chunk", "model": "m-1", "usage": null,
            "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }] })
    };
    let mut data = vec![chunk(json!({ "role": "assistant", "content": "" }), Value::Null)];
    let more = |key: &str, piece: &String| chunk(json!({ key: piece }), Value::Null);
    data.extend(script.thoughts.iter().map(|piece| more("reasoning_content", piece)));
    data.extend(script.words.iter().map(|piece| more("content", piece)));
    for (at, id, name, pieces) in ids(script) {
        let call = json!({ "index": at, "id": id, "type": "function",
            "function": { "name": name, "arguments": "" } });
        data.push(chunk(json!({ "tool_calls": [call] }), Value::Null));
        for piece in pieces {
            let call = json!({ "index": at, "function": { "arguments": piece } });
            data.push(chunk(json!({ "tool_calls": [call] }), Value::Null));
        }
    }
    data.push(chunk(json!({}), json!(finish)));
    data.push(json!({ "id": "c", "model": "m-1", "choices": [], "usage": usage }));
    (body, sse(&data, true))
}

fn anthropic(script: &Script) -> (Value, Vec<u8>) {
    let mut content = Vec::new();
    let mut data = vec![
        json!({ "type": "message_start", "message": { "id": "x", "type": "message", "model": "m-1",
            "role": "assistant", "content": [], "stop_reason": null, "stop_sequence": null,
            "usage": { "input_tokens": 6, "cache_creation_input_tokens": 2,
                "cache_read_input_tokens": 4, "output_tokens": 1 } } }),
        json!({ "type": "ping" }),
    ];
    let mut block = |whole: Value, start: Value, deltas: Vec<Value>| {
        let at = content.len();
        content.push(whole);
        data.push(json!({ "type": "content_block_start", "index": at, "content_block": start }));
        data.extend(
            deltas
                .into_iter()
                .map(|delta| json!({ "type": "content_block_delta", "index": at, "delta": delta })),
        );
        data.push(json!({ "type": "content_block_stop", "index": at }));
    };
    if !script.thoughts.is_empty() {
        let mut deltas: Vec<Value> = script
            .thoughts
            .iter()
            .map(|piece| json!({ "type": "thinking_delta", "thinking": piece }))
            .collect();
        deltas.push(json!({ "type": "signature_delta", "signature": "seal" }));
        block(
            json!({ "type": "thinking", "thinking": script.thoughts.concat(), "signature": "seal" }),
            json!({ "type": "thinking", "thinking": "", "signature": "" }),
            deltas,
        );
        let hidden = json!({ "type": "redacted_thinking", "data": "c2VjcmV0" });
        block(hidden.clone(), hidden, vec![]);
    }
    if !script.words.is_empty() {
        let deltas =
            script.words.iter().map(|piece| json!({ "type": "text_delta", "text": piece }));
        block(
            json!({ "type": "text", "text": script.words.concat(), "citations": null }),
            json!({ "type": "text", "text": "" }),
            deltas.collect(),
        );
    }
    for (_, id, name, pieces) in ids(script) {
        let call =
            |input: Value| json!({ "type": "tool_use", "id": id, "name": name, "input": input });
        let delta = |piece| json!({ "type": "input_json_delta", "partial_json": piece });
        block(call(object(pieces)), call(json!({})), pieces.iter().map(delta).collect());
    }
    let stop = match script.stop {
        Ending::Length => "max_tokens",
        Ending::End if script.calls.is_empty() => "end_turn",
        Ending::End => "tool_use",
    };
    data.push(
        json!({ "type": "message_delta", "delta": { "stop_reason": stop, "stop_sequence": null },
        "usage": { "output_tokens": 7, "output_tokens_details": { "thinking_tokens": 3 } } }),
    );
    data.push(json!({ "type": "message_stop" }));
    let body = json!({ "id": "x", "type": "message", "model": "m-1", "role": "assistant",
        "content": content, "stop_reason": stop, "stop_sequence": null,
        "usage": { "input_tokens": 6, "cache_creation_input_tokens": 2, "cache_read_input_tokens": 4,
            "output_tokens": 7, "output_tokens_details": { "thinking_tokens": 3 } } });
    (body, sse(&data, false))
}

fn gemini(script: &Script) -> (Value, Vec<u8>) {
    let calls = ids(script).map(|(_, _, name, pieces)| {
        json!({ "functionCall": { "name": name, "args": object(pieces) },
            "thoughtSignature": "c2VhbA==" })
    });
    let calls: Vec<Value> = calls.collect();
    let finish = if script.stop == Ending::Length { "MAX_TOKENS" } else { "STOP" };
    let usage = json!({ "promptTokenCount": 12, "cachedContentTokenCount": 4,
        "candidatesTokenCount": 4, "thoughtsTokenCount": 3, "totalTokenCount": 19 });
    let response = |parts: Vec<Value>, finish: Value, usage: Value| {
        let mut candidate = json!({ "content": { "role": "model", "parts": parts }, "index": 0 });
        if !finish.is_null() {
            candidate["finishReason"] = finish;
        }
        json!({ "candidates": [candidate], "usageMetadata": usage, "modelVersion": "m-1",
            "responseId": "r/1" })
    };
    let thought = |piece: &String| json!({ "text": piece, "thought": true });
    let pieces: Vec<Value> = script
        .thoughts
        .iter()
        .map(thought)
        .chain(script.words.iter().map(|piece| json!({ "text": piece })))
        .chain(calls)
        .collect();
    let early = json!({ "promptTokenCount": 12 });
    let mut data: Vec<Value> = pieces
        .iter()
        .map(|part| response(vec![part.clone()], Value::Null, early.clone()))
        .collect();
    data.push(response(vec![json!({ "text": "" })], json!(finish), usage.clone()));
    (response(pieces, json!(finish), usage), sse(&data, false))
}

fn bedrock(script: &Script) -> (Value, Vec<u8>) {
    let mut content = Vec::new();
    let mut events = vec![("messageStart", json!({ "role": "assistant" }))];
    let mut block = |whole: Value, start: Option<Value>, deltas: Vec<Value>| {
        let at = content.len();
        content.push(whole);
        if let Some(start) = start {
            events.push(("contentBlockStart", json!({ "start": start, "contentBlockIndex": at })));
        }
        events.extend(deltas.into_iter().map(|delta| {
            ("contentBlockDelta", json!({ "delta": delta, "contentBlockIndex": at, "p": "abc" }))
        }));
        events.push(("contentBlockStop", json!({ "contentBlockIndex": at })));
    };
    if !script.thoughts.is_empty() {
        let text = script.thoughts.concat();
        let told = json!({ "reasoningText": { "text": text, "signature": "seal" } });
        let more = |piece: &String| json!({ "reasoningContent": { "text": piece } });
        let mut deltas: Vec<Value> = script.thoughts.iter().map(more).collect();
        deltas.push(json!({ "reasoningContent": { "signature": "seal" } }));
        block(json!({ "reasoningContent": told }), None, deltas);
        let hidden = json!({ "reasoningContent": { "redactedContent": "c2VjcmV0" } });
        let halves =
            ["c2Vj", "cmV0"].map(|half| json!({ "reasoningContent": { "redactedContent": half } }));
        block(hidden, None, halves.to_vec());
    }
    if !script.words.is_empty() {
        let deltas = script.words.iter().map(|piece| json!({ "text": piece }));
        block(json!({ "text": script.words.concat() }), None, deltas.collect());
    }
    for (_, id, name, pieces) in ids(script) {
        let call = json!({ "toolUseId": id, "name": name, "input": object(pieces) });
        let start = json!({ "toolUse": { "toolUseId": id, "name": name } });
        let deltas = pieces.iter().map(|piece| json!({ "toolUse": { "input": piece } }));
        block(json!({ "toolUse": call }), Some(start), deltas.collect());
    }
    let stop = match script.stop {
        Ending::Length => "max_tokens",
        Ending::End if script.calls.is_empty() => "end_turn",
        Ending::End => "tool_use",
    };
    let usage = json!({ "inputTokens": 6, "outputTokens": 7, "totalTokens": 19,
        "cacheReadInputTokens": 4, "cacheWriteInputTokens": 2 });
    events.push(("messageStop", json!({ "stopReason": stop })));
    events.push(("metadata", json!({ "usage": usage, "metrics": { "latencyMs": 12 } })));
    let body = json!({ "output": { "message": { "role": "assistant", "content": content } },
        "stopReason": stop, "usage": usage, "metrics": { "latencyMs": 12 } });
    (body, frames(&events))
}

pub(crate) fn both(dialect: &Dialect, script: &Script) -> (Value, Vec<u8>) {
    match dialect.name() {
        "openai" => openai(script),
        "anthropic" => anthropic(script),
        "gemini" => gemini(script),
        _ => bedrock(script),
    }
}

pub(crate) fn example() -> Script {
    let owned = |pieces: &[&str]| pieces.iter().map(|piece| (*piece).to_owned()).collect();
    Script {
        thoughts: owned(&["h", "m…"]),
        words: owned(&["I ", "lo", "ök \"there\"\n", "😀"]),
        calls: vec![
            ("weather".to_owned(), owned(&["{\"ci", "ty\":\"Bö", "nn\"}"])),
            ("time".to_owned(), owned(&["{", "}"])),
        ],
        stop: Ending::End,
    }
}

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z \"\\\\\n\r\t\u{0}-\u{1f}]{0,6}",
        "[äß€😀\u{2028}\u{2029}]{0,3}",
        "data: \\[DONE\\]"
    ]
}

pub(crate) fn script() -> impl Strategy<Value = Script> {
    let pieces = || prop::collection::vec(piece(), 0..4);
    let object = prop::collection::btree_map("[a-z]{1,3}", piece(), 0..3);
    let arguments = (object, 1_usize..4).prop_map(|(object, count)| {
        let letters: Vec<char> = json!(object).to_string().chars().collect();
        let length = letters.len().div_ceil(count);
        letters.chunks(length).map(|piece| piece.iter().collect()).collect()
    });
    let calls = prop::collection::vec(("[a-z]{1,5}", arguments), 0..3);
    let stop = prop_oneof![Just(Ending::End), Just(Ending::Length)];
    (pieces(), pieces(), calls, stop).prop_map(|(thoughts, words, calls, stop)| {
        // A block that says nothing at all is one that no provider sends.
        let said = |pieces: Vec<String>| if pieces.concat().is_empty() { vec![] } else { pieces };
        Script { thoughts: said(thoughts), words: said(words), calls, stop }
    })
}
