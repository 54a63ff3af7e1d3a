//! What OpenAI's clients send and hear.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use bytes::Bytes;
use holdfast_chat::served::{self, Asked, Named, Refusal, StreamOptions, completion, legacy};
use holdfast_chat::{
    Answer, Audio, Detail, Effort, Event, Image, Output, Part, Said, Stop, Thinking, ToolCall,
    ToolChoice, ToolResult, Turn, Usage, Verbosity,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn body(more: Value) -> Value {
    let mut body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hello" }] });
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

fn read(body: &Value) -> Result<Asked, Refusal> {
    completion::read(body.to_string().as_bytes())
}

fn user(text: &str) -> Turn {
    Turn::User(vec![Part::Text(text.to_owned())])
}

fn named() -> Named {
    Named {
        id: "chatcmpl-1".to_owned(),
        created: 1_790_000_000,
        model: "the \"model\"".to_owned(),
        metadata: std::collections::BTreeMap::new(),
    }
}

#[test]
fn a_chat_with_everything_in_it_is_read() {
    let function = json!({ "name": "weather", "arguments": "{\"city\":\"Bonn\"}" });
    let asked = read(&json!({
        "model": "m",
        "messages": [
            { "role": "system", "content": "be brief" },
            { "role": "developer", "content": [{ "type": "text", "text": "and" },
                { "type": "text", "text": "kind" }] },
            { "role": "user", "content": [
                { "type": "text", "text": "here" },
                { "type": "image_url", "image_url":
                    { "url": "data:image/png;base64,YWJj", "detail": "low" } },
                { "type": "input_audio", "input_audio": { "data": "YWJj", "format": "mp3" } },
            ] },
            { "role": "assistant", "content": null, "refusal": null, "annotations": [],
                "thinking_blocks": [
                    { "type": "thinking", "thinking": "hm", "signature": "seal" },
                    { "type": "redacted_thinking", "data": "x" }],
                "tool_calls": [{ "id": "c1", "type": "function", "function": function,
                    "extra_content": { "google": { "thought_signature": "t" } } }] },
            { "role": "tool", "tool_call_id": "c1", "content": [{ "type": "text", "text": "rain" }] },
            { "role": "assistant", "content": "it rains" },
            { "role": "assistant", "content": "" },
            { "role": "user", "name": "Bob", "content": "and?" },
        ],
        "tools": [{ "type": "function", "function": { "name": "weather", "description": "of a city",
            "strict": true, "parameters": { "type": "object", "properties":
                { "city": { "type": "string" } }, "required": ["city"],
                "additionalProperties": false } } },
            { "type": "function", "function": { "name": "time" } }],
        "tool_choice": { "type": "function", "function": { "name": "weather" } },
        "response_format": { "type": "json_schema", "json_schema": { "name": "part",
            "description": "a part", "schema": { "type": "object", "properties": {} } } },
        "temperature": 0.7, "top_p": 0.9, "seed": 7, "presence_penalty": -1, "frequency_penalty": 1.5,
        "max_completion_tokens": 50, "stop": ["END", "\n"], "stream": true,
        "stream_options": { "include_usage": true }, "metadata": { "class": "public" },
        "user": "u", "store": false, "n": 1, "logprobs": false, "parallel_tool_calls": true,
        "service_tier": "auto", "verbosity": "medium", "modalities": ["text"], "logit_bias": {},
        "safety_identifier": "s", "prompt_cache_key": "k", "reasoning_effort": "low",
    }))
    .unwrap();
    let conversation = &asked.conversation;
    assert_eq!(conversation.system.as_deref(), Some("be brief\n\nand\n\nkind"));
    let abc = Bytes::from_static(b"abc");
    let thoughts = Said::Reasoning { text: "hm".to_owned(), signature: Some("seal".to_owned()) };
    let call = ToolCall {
        id: "c1".to_owned(),
        name: "weather".to_owned(),
        arguments: json!({ "city": "Bonn" }),
        signature: Some("t".to_owned()),
    };
    let result = ToolResult {
        id: "c1".to_owned(),
        name: "weather".to_owned(),
        content: "rain".to_owned(),
        is_error: false,
    };
    let want = [
        Turn::User(vec![
            Part::Text("here".to_owned()),
            Part::Image(Image::Png, abc.clone(), Detail::Low),
            Part::Audio(Audio::Mp3, abc),
        ]),
        Turn::Model(vec![thoughts, Said::Redacted("x".to_owned()), Said::Call(call)]),
        Turn::Results(vec![result]),
        Turn::Model(vec![Said::Text("it rains".to_owned())]),
        Turn::User(vec![Part::Speaker("Bob".to_owned()), Part::Text("and?".to_owned())]),
    ];
    assert_eq!(conversation.turns, want);
    let thinking = Thinking { effort: Some(Effort::Low), is_told: false };
    assert_eq!((conversation.thinking, conversation.parallel_tool_calls), (thinking, Some(true)));
    assert_eq!(conversation.verbosity, Some(Verbosity::Medium));
    assert_eq!(conversation.tools.len(), 2);
    assert!(conversation.tools[0].strict);
    assert_eq!(conversation.tools[1].parameters, json!({ "type": "object", "properties": {} }));
    assert_eq!(conversation.tool_choice, ToolChoice::Named("weather".to_owned()));
    let schema = json!({ "type": "object", "properties": {}, "description": "a part" });
    assert_eq!(conversation.output, Output::Json { name: "part".to_owned(), schema });
    let sampling = &conversation.sampling;
    assert_eq!(
        (sampling.temperature, sampling.top_p, sampling.seed),
        (Some(0.7), Some(0.9), Some(7))
    );
    assert_eq!((sampling.presence_penalty, sampling.frequency_penalty), (Some(-1.0), Some(1.5)));
    assert_eq!((conversation.max_tokens, conversation.stop.len()), (Some(50), 2));
    assert_eq!(asked.stream, Some(StreamOptions { include_usage: true }));
    assert_eq!((asked.metadata["class"].as_str(), asked.user.as_deref()), ("public", Some("u")));
    assert_eq!((asked.store, asked.background), (Some(false), false));
}

#[test]
fn what_cannot_be_honoured_is_refused_by_its_path() {
    let message = |message: Value| json!({ "messages": [message] });
    let said = |more: Value| {
        let mut said = json!({ "role": "user", "content": "x" });
        for (key, value) in more.as_object().unwrap() {
            said[key] = value.clone();
        }
        json!({ "messages": [said] })
    };
    let content = |part: Value| message(json!({ "role": "user", "content": [part] }));
    let image = |url: &str| content(json!({ "type": "image_url", "image_url": { "url": url } }));
    let tool = |function: Value| json!({ "tools": [{ "type": "function", "function": function }] });
    let call =
        json!({ "id": "a", "type": "function", "function": { "name": "f", "arguments": "{}" } });
    let called = || json!({ "role": "assistant", "tool_calls": [call] });
    let ask = || json!({ "role": "user", "content": "x" });
    let (unknown, no, value, kind, odd, gone) = (
        "unknown_parameter",
        "unsupported_parameter",
        "unsupported_value",
        "invalid_type",
        "invalid_value",
        "missing_required_parameter",
    );
    for (more, param, code) in [
        (json!({ "foo": 1 }), "foo", unknown),
        (json!({ "n\"}": 1 }), "n\\\"}", unknown),
        (said(json!({ "foo": 1 })), "messages[0].foo", unknown),
        (
            content(json!({ "type": "text", "text": "x", "foo": 1 })),
            "messages[0].content[0].foo",
            unknown,
        ),
        (tool(json!({ "name": "a", "foo": [] })), "tools[0].function.foo", unknown),
        (json!({ "stream": true, "stream_options": { "foo": 1 } }), "stream_options.foo", unknown),
        (
            json!({ "response_format": { "type": "text", "foo": 1 } }),
            "response_format.foo",
            unknown,
        ),
        (json!({ "tool_choice": { "type": "function", "foo": 1 } }), "tool_choice.foo", unknown),
        (json!({ "model": null }), "model", gone),
        (json!({ "model": "" }), "model", odd),
        (json!({ "model": 7 }), "model", kind),
        (json!({ "messages": null }), "messages", gone),
        (json!({ "messages": [] }), "messages", odd),
        (json!({ "messages": {} }), "messages", kind),
        (json!({ "messages": [7] }), "messages[0]", kind),
        (json!({ "messages": [["user", "x"]] }), "messages[0]", kind),
        (message(json!({ "content": "x" })), "messages[0].role", gone),
        (message(json!({ "role": "robot", "content": "x" })), "messages[0].role", odd),
        (message(json!({ "role": "function", "content": "x" })), "messages[0].role", value),
        (message(json!({ "role": "user" })), "messages[0].content", gone),
        (message(json!({ "role": "user", "content": "" })), "messages[0].content", odd),
        (message(json!({ "role": "user", "content": [] })), "messages[0].content", odd),
        (message(json!({ "role": "user", "content": 7 })), "messages[0].content", kind),
        (said(json!({ "name": "two words" })), "messages[0].name", odd),
        (said(json!({ "name": "" })), "messages[0].name", odd),
        (said(json!({ "role": "system", "name": "example_user" })), "messages[0].name", no),
        (said(json!({ "tool_calls": [] })), "messages[0].tool_calls", no),
        (said(json!({ "tool_call_id": "a" })), "messages[0].tool_call_id", no),
        (
            json!({ "messages": [ask(), { "role": "system", "content": "x" }] }),
            "messages[1].role",
            value,
        ),
        (
            json!({ "messages": [ask(), { "role": "assistant", "content": "x" }] }),
            "messages",
            value,
        ),
        (json!({ "messages": [ask(), called()] }), "messages", odd),
        (json!({ "messages": [ask(), called(), ask()] }), "messages[2]", odd),
        (
            json!({ "messages": [ask(), called(), { "role": "tool", "tool_call_id": "b", "content": "" }] }),
            "messages[2].tool_call_id",
            odd,
        ),
        (
            json!({ "messages": [{ "role": "tool", "content": "" }] }),
            "messages[0].tool_call_id",
            gone,
        ),
        (
            json!({ "messages": [ask(), { "role": "assistant", "audio": { "id": "a" } }] }),
            "messages[1].audio",
            no,
        ),
        (image("https://host/a.png"), "messages[0].content[0].image_url.url", value),
        (image("file:///etc/passwd"), "messages[0].content[0].image_url.url", value),
        (image("data:image/svg+xml;base64,YWJj"), "messages[0].content[0].image_url.url", value),
        (image("data:image/png,abc"), "messages[0].content[0].image_url.url", value),
        (image("data:image/png;base64,***"), "messages[0].content[0].image_url.url", odd),
        (image("data:image/png;base64,"), "messages[0].content[0].image_url.url", odd),
        (
            content(json!({ "type": "image_url", "image_url": { "url": "x", "detail": "fine" } })),
            "messages[0].content[0].image_url.detail",
            odd,
        ),
        (
            content(
                json!({ "type": "input_audio", "input_audio": { "data": "YWJj", "format": "flac" } }),
            ),
            "messages[0].content[0].input_audio.format",
            odd,
        ),
        (content(json!({ "type": "file", "file": {} })), "messages[0].content[0].file", no),
        (content(json!({ "type": "text" })), "messages[0].content[0]", odd),
        (content(json!({ "type": "video", "text": "x" })), "messages[0].content[0].type", odd),
        (json!({ "temperature": 2.1 }), "temperature", odd),
        (json!({ "temperature": "hot" }), "temperature", kind),
        (json!({ "top_p": -0.1 }), "top_p", odd),
        (json!({ "presence_penalty": 3 }), "presence_penalty", odd),
        (json!({ "max_tokens": 0 }), "max_tokens", odd),
        (json!({ "max_tokens": 1.5 }), "max_tokens", kind),
        (json!({ "max_tokens": 5, "max_completion_tokens": 6 }), "max_tokens", odd),
        (json!({ "seed": -1 }), "seed", value),
        (json!({ "stop": ["a", "b", "c", "d", "e"] }), "stop", odd),
        (json!({ "stop": [""] }), "stop", odd),
        (json!({ "stop": [7] }), "stop[0]", kind),
        (json!({ "n": 2 }), "n", no),
        (json!({ "store": true }), "store", no),
        (json!({ "logprobs": true }), "logprobs", no),
        (json!({ "top_logprobs": 3 }), "top_logprobs", no),
        (json!({ "parallel_tool_calls": "no" }), "parallel_tool_calls", kind),
        (json!({ "service_tier": "priority" }), "service_tier", no),
        (json!({ "verbosity": "short" }), "verbosity", odd),
        (json!({ "modalities": ["text", "audio"] }), "modalities", no),
        (json!({ "logit_bias": { "1": 2 } }), "logit_bias", no),
        (json!({ "functions": [] }), "functions", no),
        (json!({ "audio": {} }), "audio", no),
        (json!({ "reasoning_effort": "huge" }), "reasoning_effort", odd),
        (json!({ "web_search_options": {} }), "web_search_options", no),
        (json!({ "stream_options": {} }), "stream_options", odd),
        (json!({ "metadata": { "a": 1 } }), "metadata.a", kind),
        (json!({ "metadata": { "a": "x".repeat(513) } }), "metadata.a", odd),
        (tool(json!({})), "tools[0].function.name", gone),
        (tool(json!({ "name": "a b" })), "tools[0].function.name", odd),
        (
            tool(json!({ "name": "a", "parameters": { "type": "string" } })),
            "tools[0].function.parameters",
            odd,
        ),
        (
            tool(
                json!({ "name": "a", "strict": true, "parameters": { "type": "object", "properties": {} } }),
            ),
            "tools[0].function.parameters",
            odd,
        ),
        (json!({ "tools": [{ "type": "custom", "custom": {} }] }), "tools[0].type", value),
        (json!({ "tool_choice": "maybe" }), "tool_choice", odd),
        (json!({ "tool_choice": "required" }), "tool_choice", odd),
        (json!({ "tool_choice": { "type": "allowed_tools" } }), "tool_choice.type", value),
        (
            json!({ "tool_choice": { "type": "function", "function": { "name": "a" } } }),
            "tool_choice",
            odd,
        ),
        (json!({ "response_format": { "type": "xml" } }), "response_format.json_schema", odd),
        (
            json!({ "response_format": { "type": "json_schema" } }),
            "response_format.json_schema",
            gone,
        ),
        (
            json!({ "response_format": { "type": "json_schema", "json_schema":
                { "name": "a", "schema": { "type": "array" } } } }),
            "response_format.json_schema.schema",
            odd,
        ),
    ] {
        let refusal = read(&body(more.clone())).expect_err(&more.to_string());
        assert_eq!(
            (refusal.param.as_deref(), refusal.code),
            (Some(param), code),
            "{more}: {refusal}"
        );
        assert!(refusal.message.contains(param), "{more}: {refusal} names no {param}");
    }
    let deep = "[".repeat(200);
    let deep = format!("{{\"tools\":[{{\"function\":{{\"parameters\":{{\"a\":{deep}");
    for text in ["", "{", "hello", "{\"model\":}", "\u{0}", &deep] {
        let refusal = completion::read(text.as_bytes()).expect_err(text);
        assert_eq!((refusal.param, refusal.code), (None, "invalid_json"), "{text}");
    }
    assert_eq!(completion::read(b"[]").unwrap_err().code, "invalid_type");
}

/// The pieces of an answer with everything in it.
fn events() -> Vec<Event> {
    let text = |text: &str| text.to_owned();
    vec![
        Event::Model(text("m-1")),
        Event::Reasoning(text("h")),
        Event::Reasoning(text("m")),
        Event::Sealed(text("seal")),
        Event::Redacted(text("x")),
        Event::Text(text("say \"ü\"\n\u{1}\\")),
        Event::Text(text(" there")),
        Event::Call { index: 0, id: text("c1"), name: text("weather"), signature: Some(text("t")) },
        Event::Arguments { index: 0, text: text("{\"city\":") },
        Event::Arguments { index: 0, text: text("\"Bonn\"}") },
        Event::Usage(Usage { input: 12, cached: 4, output: 7, reasoning: 3 }),
        Event::Stop(Stop::Calls),
    ]
}

fn answered(events: &[Event]) -> Answer {
    let mut gathering = holdfast_chat::Gathering::default();
    events.iter().for_each(|event| gathering.take(event));
    gathering.answer().unwrap()
}

/// The data of server-sent events.
fn data(bytes: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(bytes).unwrap();
    assert!(text.ends_with("\n\n"));
    let events = text.split_terminator("\n\n").map(|event| event.rsplit_once("data: ").unwrap().1);
    events.map(|data| serde_json::from_str(data).unwrap_or_else(|_| json!(data))).collect()
}

#[test]
fn an_answer_in_one_piece_has_openais_form() {
    let got: Value =
        serde_json::from_slice(&completion::answer(&named(), &answered(&events()))).unwrap();
    assert_eq!(
        got,
        json!({ "id": "chatcmpl-1", "object": "chat.completion", "created": 1_790_000_000,
            "model": "the \"model\"", "choices": [{ "index": 0, "logprobs": null,
                "finish_reason": "tool_calls", "message": { "role": "assistant",
                    "content": "say \"ü\"\n\u{1}\\ there", "refusal": null, "annotations": [],
                    "reasoning_content": "hm", "thinking_blocks": [
                        { "type": "thinking", "thinking": "hm", "signature": "seal" },
                        { "type": "redacted_thinking", "data": "x" }],
                    "tool_calls": [{ "id": "c1", "type": "function",
                        "extra_content": { "google": { "thought_signature": "t" } },
                        "function": { "name": "weather", "arguments": "{\"city\":\"Bonn\"}" } }] } }],
            "usage": { "prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 19,
                "prompt_tokens_details": { "cached_tokens": 4 },
                "completion_tokens_details": { "reasoning_tokens": 3 } } })
    );
}

#[test]
fn each_event_is_a_chunk_of_its_own() {
    for include_usage in [false, true] {
        let mut writer = completion::Writer::new(&named(), StreamOptions { include_usage });
        let mut all = Vec::new();
        for event in events() {
            let before = all.len();
            writer.write(&event, &mut all);
            let chunks = data(&all).len();
            let silent = matches!(event, Event::Usage(_));
            assert_eq!(all.len() == before, silent, "{event:?} of {chunks}");
        }
        writer.finish(&mut all);
        let mut chunks = data(&all);
        assert_eq!(chunks.pop(), Some(json!("[DONE]")));
        if include_usage {
            let last = chunks.pop().unwrap();
            assert_eq!(
                (&last["choices"], &last["usage"]["total_tokens"]),
                (&json!([]), &json!(19))
            );
            assert!(chunks.iter().all(|chunk| chunk.get("usage") == Some(&Value::Null)));
        } else {
            assert!(chunks.iter().all(|chunk| chunk.get("usage").is_none()));
        }
        for chunk in &chunks {
            assert_eq!(chunk["object"], "chat.completion.chunk");
            assert_eq!(
                (&chunk["id"], &chunk["model"]),
                (&json!("chatcmpl-1"), &json!("the \"model\""))
            );
        }
        let deltas: Vec<&Value> =
            chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]).collect();
        let want = [
            json!({ "role": "assistant", "content": "", "refusal": null }),
            json!({ "reasoning_content": "h" }),
            json!({ "reasoning_content": "m" }),
            json!({ "thinking_blocks": [{ "type": "thinking", "thinking": "hm", "signature": "seal" }] }),
            json!({ "thinking_blocks": [{ "type": "redacted_thinking", "data": "x" }] }),
            json!({ "content": "say \"ü\"\n\u{1}\\" }),
            json!({ "content": " there" }),
            json!({ "tool_calls": [{ "index": 0, "id": "c1", "type": "function",
                "extra_content": { "google": { "thought_signature": "t" } },
                "function": { "name": "weather", "arguments": "" } }] }),
            json!({ "tool_calls": [{ "index": 0, "function": { "arguments": "{\"city\":" } }] }),
            json!({ "tool_calls": [{ "index": 0, "function": { "arguments": "\"Bonn\"}" } }] }),
            json!({}),
        ];
        assert_eq!(deltas, want.iter().collect::<Vec<_>>());
        let reasons = chunks.iter().map(|chunk| &chunk["choices"][0]["finish_reason"]);
        assert_eq!(reasons.filter(|reason| !reason.is_null()).collect::<Vec<_>>(), ["tool_calls"]);
    }
}

#[test]
fn every_stop_is_one_that_openai_has() {
    for (stop, reason, refusal) in [
        (Stop::End, "stop", Value::Null),
        (Stop::Length, "length", Value::Null),
        (Stop::Calls, "tool_calls", Value::Null),
        (Stop::Filtered, "content_filter", Value::Null),
        (Stop::Declined("no".to_owned()), "stop", json!("no")),
        (Stop::Declined(String::new()), "content_filter", Value::Null),
        (Stop::Other("pause_turn".to_owned()), "stop", Value::Null),
    ] {
        let events = [Event::Stop(stop.clone())];
        let answer = completion::answer(&named(), &answered(&events));
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        let choice = &answer["choices"][0];
        assert_eq!(
            (&choice["finish_reason"], &choice["message"]["refusal"]),
            (&json!(reason), &refusal)
        );
        assert_eq!(choice["message"]["content"], Value::Null);
        let mut out = Vec::new();
        let mut writer = completion::Writer::new(&named(), StreamOptions::default());
        writer.write(&events[0], &mut out);
        let chunks = data(&out);
        assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], reason, "{stop:?}");
        let told = chunks.iter().find_map(|chunk| chunk["choices"][0]["delta"]["refusal"].as_str());
        assert_eq!(told, refusal.as_str(), "{stop:?}");
    }
}

#[test]
fn an_old_completion_is_one_turn() {
    let read = |more: Value| {
        let mut body = json!({ "model": "m", "prompt": "hello" });
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        legacy::read(body.to_string().as_bytes())
    };
    let asked = read(json!({ "prompt": ["hello"], "echo": false, "best_of": 1 })).unwrap();
    assert_eq!(asked.conversation.turns, [user("hello")]);
    assert_eq!(asked.conversation.max_tokens, Some(16), "as OpenAI has it");
    for (more, param, code) in [
        (json!({ "prompt": ["a", "b"] }), "prompt", "unsupported_value"),
        (json!({ "prompt": [1, 2] }), "prompt", "unsupported_value"),
        (json!({ "prompt": [[1, 2]] }), "prompt", "unsupported_value"),
        (json!({ "prompt": null }), "prompt", "missing_required_parameter"),
        (json!({ "prompt": "" }), "prompt", "invalid_value"),
        (json!({ "echo": true }), "echo", "unsupported_parameter"),
        (json!({ "n": 2 }), "n", "unsupported_parameter"),
        (json!({ "best_of": 2 }), "best_of", "unsupported_parameter"),
        (json!({ "suffix": "x" }), "suffix", "unsupported_parameter"),
        (json!({ "logprobs": 1 }), "logprobs", "unsupported_parameter"),
        (json!({ "messages": [] }), "messages", "unknown_parameter"),
    ] {
        let refusal = read(more.clone()).expect_err(&more.to_string());
        assert_eq!((refusal.param.as_deref(), refusal.code), (Some(param), code), "{more}");
    }
    let events = events();
    let answer: Value =
        serde_json::from_slice(&legacy::answer(&named(), &answered(&events))).unwrap();
    let text = json!([{ "text": "say \"ü\"\n\u{1}\\ there", "index": 0, "logprobs": null,
        "finish_reason": "stop" }]);
    assert_eq!((&answer["object"], &answer["choices"]), (&json!("text_completion"), &text));
    let mut writer = legacy::Writer::new(&named(), StreamOptions { include_usage: true });
    let mut out = Vec::new();
    events.iter().for_each(|event| writer.write(event, &mut out));
    writer.finish(&mut out);
    let chunks = data(&out);
    let texts: Vec<_> = chunks.iter().map(|chunk| chunk["choices"][0]["text"].as_str()).collect();
    let want = [Some("say \"ü\"\n\u{1}\\"), Some(" there"), Some(""), None, None];
    assert_eq!(texts, want, "{chunks:?}");
    assert_eq!(chunks[3]["usage"]["total_tokens"], 19);
}

#[test]
fn errors_have_openais_form() {
    let want = json!({ "error": { "message": "no \"x\"", "type": "invalid_request_error",
        "param": "x", "code": null } });
    let error = served::error("invalid_request_error", None, Some("x"), "no \"x\"");
    assert_eq!(serde_json::from_slice::<Value>(&error).unwrap(), want);
    let event = served::error_event("invalid_request_error", None, Some("x"), "no \"x\"");
    assert_eq!(data(&event), [want]);
}

proptest! {
    #[test]
    fn no_body_at_all_is_a_panic(at: usize, bytes: Vec<u8>, cut: usize) {
        let whole = body(json!({
            "messages": [{ "role": "user", "content": [{ "type": "text", "text": "a\\\"ü" }] },
                { "role": "assistant", "tool_calls": [{ "id": "a", "type": "function",
                    "function": { "name": "f", "arguments": "{}" } }] },
                { "role": "tool", "tool_call_id": "a", "content": "x" }],
            "tools": [{ "type": "function", "function": { "name": "f" } }],
            "response_format": { "type": "json_object" }, "metadata": { "a": "b" },
        }));
        let mut text = whole.to_string().into_bytes();
        prop_assert!(completion::read(&text).is_ok());
        let at = at % text.len();
        text.splice(at..text.len().min(at + cut % 9), bytes);
        for refusal in [completion::read(&text).err(), legacy::read(&text).err(),
            served::responses::read(&text).err(), served::embeddings::read(&text).map(drop).err()]
        {
            prop_assert!(refusal.is_none_or(|refusal| !refusal.message.is_empty()));
        }
    }
}
