//! What OpenAI's clients say to and hear from `/v1/responses`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use bytes::Bytes;
use holdfast_chat::served::responses::{self, Retelling, Standing, Writer};
use holdfast_chat::served::{Asked, Named, Refusal};
use holdfast_chat::{
    Answer, Detail, Effort, Event, Gathering, Image, Output, Part, Said, Stop, Thinking, ToolCall,
    ToolChoice, ToolResult, Turn, Usage, Verbosity,
};
use serde_json::{Value, json};

fn read(more: Value) -> Result<Asked, Refusal> {
    let mut body = json!({ "model": "m", "input": "hello" });
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    responses::read(body.to_string().as_bytes())
}

fn named() -> Named {
    let (id, model) = ("resp_1".to_owned(), "m".to_owned());
    let metadata = [("place".to_owned(), "here".to_owned())].into();
    Named { id, created: 1_790_000_000, model, metadata }
}

#[test]
fn a_request_with_everything_in_it_is_read() {
    let asked = read(json!({
        "instructions": "be brief",
        "input": [
            { "role": "developer", "content": "and kind" },
            { "type": "message", "role": "user", "content": [
                { "type": "input_text", "text": "here" },
                { "type": "input_image", "image_url": "data:image/png;base64,YWJj", "detail": "high" }] },
            { "type": "reasoning", "id": "rs_1", "summary": [{ "type": "summary_text", "text": "hm" }],
                "encrypted_content": "seal", "status": "completed" },
            { "type": "reasoning", "id": "rs_2", "summary": [],
                "encrypted_content": "redacted_thinking:x" },
            { "type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content":
                [{ "type": "output_text", "text": "I look", "annotations": [], "logprobs": [] }] },
            { "type": "function_call", "id": "fc_1", "call_id": "c1", "name": "weather",
                "arguments": "{\"city\":\"Bonn\"}", "status": "completed",
                "extra_content": { "google": { "thought_signature": "t" } } },
            { "type": "function_call_output", "call_id": "c1", "output": "rain" },
            { "role": "assistant", "content": "it rains" },
            { "role": "user", "content": "and?" },
        ],
        "tools": [{ "type": "function", "name": "weather", "description": "of a city", "strict": true,
            "parameters": { "type": "object", "properties": {}, "additionalProperties": false } }],
        "tool_choice": { "type": "function", "name": "weather" },
        "text": { "format": { "type": "json_schema", "name": "part",
            "schema": { "type": "object", "properties": {} } }, "verbosity": "low" },
        "temperature": 0.7, "top_p": 0.9, "max_output_tokens": 50, "background": true, "store": true,
        "stream": true, "metadata": { "class": "public" }, "user": "u", "truncation": "disabled",
        "include": ["reasoning.encrypted_content"], "reasoning": { "effort": "max",
            "summary": "detailed", "context": "auto", "mode": "standard" },
        "parallel_tool_calls": false, "service_tier": "default", "top_logprobs": 0,
        "prompt_cache_key": "k", "safety_identifier": "s", "previous_response_id": null,
    }))
    .unwrap();
    let text = |text: &str| text.to_owned();
    let call = ToolCall {
        id: text("c1"),
        name: text("weather"),
        arguments: json!({ "city": "Bonn" }),
        signature: Some(text("t")),
    };
    let (name, content) = (text("weather"), text("rain"));
    let result = ToolResult { id: text("c1"), name, content, is_error: false };
    let conversation = asked.conversation;
    assert_eq!(conversation.system.as_deref(), Some("be brief\n\nand kind"));
    assert_eq!(
        conversation.turns,
        [
            Turn::User(vec![
                Part::Text(text("here")),
                Part::Image(Image::Png, Bytes::from_static(b"abc"), Detail::High)
            ]),
            Turn::Model(vec![
                Said::Reasoning { text: text("hm"), signature: Some(text("seal")) },
                Said::Redacted(text("x")),
                Said::Text(text("I look")),
                Said::Call(call),
            ]),
            Turn::Results(vec![result]),
            Turn::Model(vec![Said::Text(text("it rains"))]),
            Turn::User(vec![Part::Text(text("and?"))]),
        ]
    );
    assert_eq!(conversation.tool_choice, ToolChoice::Named(text("weather")));
    let schema = json!({ "type": "object", "properties": {} });
    assert_eq!(conversation.output, Output::Json { name: text("part"), schema });
    assert_eq!((conversation.max_tokens, conversation.tools[0].strict), (Some(50), true));
    let thinking = Thinking { effort: Some(Effort::Max), is_told: true };
    assert_eq!((conversation.thinking, conversation.parallel_tool_calls), (thinking, Some(false)));
    assert_eq!(conversation.verbosity, Some(Verbosity::Low));
    assert_eq!((asked.background, asked.store, asked.stream.is_some()), (true, Some(true), true));
    assert_eq!(
        read(json!({})).unwrap().conversation.turns,
        [Turn::User(vec![Part::Text(text("hello"))])]
    );
}

#[test]
fn what_cannot_be_honoured_is_refused_by_its_path() {
    let (unknown, no, value, kind, odd, gone) = (
        "unknown_parameter",
        "unsupported_parameter",
        "unsupported_value",
        "invalid_type",
        "invalid_value",
        "missing_required_parameter",
    );
    let input = |item: Value| json!({ "input": [item] });
    let content = |part: Value| json!({ "input": [{ "role": "user", "content": [part] }] });
    let call = json!({ "type": "function_call", "call_id": "a", "name": "f", "arguments": "{}" });
    let ask = json!({ "role": "user", "content": "x" });
    for (more, param, code) in [
        (json!({ "foo": 1 }), "foo", unknown),
        (input(json!({ "role": "user", "content": "x", "foo": 1 })), "input[0].foo", unknown),
        (json!({ "reasoning": { "foo": 1 } }), "reasoning.foo", unknown),
        (json!({ "input": null }), "input", gone),
        (json!({ "input": "" }), "input", odd),
        (json!({ "input": [] }), "input", odd),
        (json!({ "input": 7 }), "input", kind),
        (json!({ "input": [["user"]] }), "input[0]", kind),
        (input(json!({ "type": "item_reference", "id": "x" })), "input[0].type", value),
        (input(json!({ "content": "x" })), "input[0].type", gone),
        (input(json!({ "role": "user" })), "input[0].content", gone),
        (input(json!({ "role": "robot", "content": "x" })), "input[0].role", odd),
        (input(json!({ "role": "user", "content": "x", "call_id": "a" })), "input[0].call_id", no),
        (json!({ "input": [ask, { "role": "system", "content": "x" }] }), "input[1].role", value),
        (json!({ "input": [ask, call] }), "input", odd),
        (json!({ "input": [ask, call, ask] }), "input[2]", odd),
        (
            json!({ "input": [ask, call, { "type": "function_call_output", "call_id": "b", "output": "" }] }),
            "input[2].call_id",
            odd,
        ),
        (json!({ "input": [ask, { "role": "assistant", "content": "x" }] }), "input", value),
        (
            content(json!({ "type": "input_image", "image_url": "https://host/a.png" })),
            "input[0].content[0].image_url",
            value,
        ),
        (
            content(json!({ "type": "input_image", "file_id": "f" })),
            "input[0].content[0].file_id",
            no,
        ),
        (
            content(json!({ "type": "input_file", "file_url": "x" })),
            "input[0].content[0].file_url",
            no,
        ),
        (content(json!({ "type": "input_video" })), "input[0].content[0].type", value),
        (json!({ "tools": [{ "type": "web_search" }] }), "tools[0].type", value),
        (json!({ "previous_response_id": "resp_0" }), "previous_response_id", no),
        (json!({ "conversation": "c" }), "conversation", no),
        (json!({ "reasoning": { "effort": "huge" } }), "reasoning.effort", odd),
        (json!({ "reasoning": { "summary": "long" } }), "reasoning.summary", odd),
        (json!({ "reasoning": { "context": "all_turns" } }), "reasoning.context", no),
        (json!({ "reasoning": { "mode": "pro" } }), "reasoning.mode", no),
        (json!({ "include": ["message.output_text.logprobs"] }), "include", no),
        (json!({ "truncation": "auto" }), "truncation", no),
        (json!({ "text": { "verbosity": "short" } }), "text.verbosity", odd),
        (json!({ "text": { "format": { "type": "grammar" } } }), "text.format", odd),
        (json!({ "text": { "format": { "type": "json_schema" } } }), "text.format.name", gone),
        (json!({ "max_output_tokens": 0 }), "max_output_tokens", odd),
        (json!({ "max_tool_calls": 1 }), "max_tool_calls", no),
        (json!({ "temperature": 3 }), "temperature", odd),
    ] {
        let refusal = read(more.clone()).expect_err(&more.to_string());
        assert_eq!(
            (refusal.param.as_deref(), refusal.code),
            (Some(param), code),
            "{more}: {refusal}"
        );
        assert!(refusal.message.contains(param), "{more}: {refusal} names no {param}");
    }
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn events() -> Vec<Event> {
    vec![
        Event::Model(text("m-1")),
        Event::Reasoning(text("h")),
        Event::Reasoning(text("m")),
        Event::Sealed(text("seal")),
        Event::Redacted(text("x")),
        Event::Text(text("I ")),
        Event::Text(text("lo\"ok\n")),
        Event::Call { index: 0, id: text("c1"), name: text("weather"), signature: None },
        Event::Call { index: 1, id: text("c2"), name: text("time"), signature: Some(text("t")) },
        Event::Arguments { index: 0, text: text("{\"city\":") },
        Event::Arguments { index: 0, text: text("\"Bonn\"}") },
        Event::Usage(Usage { input: 12, cached: 4, output: 7, reasoning: 3 }),
        Event::Stop(Stop::Calls),
    ]
}

fn gathered(events: &[Event]) -> Answer {
    let mut gathering = Gathering::default();
    events.iter().for_each(|event| gathering.take(event));
    gathering.answer().unwrap()
}

/// The data of a stream, whose events are named and numbered as they should be.
fn streamed(asked: &Asked, events: &[Event]) -> Vec<Value> {
    let mut writer = Writer::new(&named(), asked);
    let mut out = Vec::new();
    events.iter().for_each(|event| writer.write(event, &mut out));
    writer.finish(&mut out);
    let all = told(&out);
    for (at, data) in all.iter().enumerate() {
        assert_eq!(data["sequence_number"], at);
    }
    all
}

fn told(out: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(out).unwrap();
    let mut all = Vec::new();
    for event in text.split_terminator("\n\n") {
        let (kind, data) = event.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(kind.strip_prefix("event: "), data["type"].as_str());
        all.push(data);
    }
    all
}

#[test]
fn every_item_is_told_when_it_begins_and_when_it_is_done() {
    let all = streamed(&read(json!({})).unwrap(), &events());
    let kinds: Vec<&str> = all.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let want = [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ];
    assert_eq!(kinds, want.map(|kind| format!("response.{kind}")));
    let delta = &all[13];
    assert_eq!(
        *delta,
        json!({ "type": "response.output_text.delta", "sequence_number": 13, "item_id": "msg_1_2",
            "output_index": 2, "content_index": 0, "delta": "I ", "logprobs": [] })
    );
    // What is told of an item when it is done is what the response has at the end.
    let done: Vec<&Value> = all
        .iter()
        .filter(|event| event["type"] == "response.output_item.done")
        .map(|event| &event["item"])
        .collect();
    let output = all.last().unwrap()["response"]["output"].as_array().unwrap();
    assert_eq!(done, output.iter().collect::<Vec<_>>());
    assert_eq!(
        *output,
        [
            json!({ "type": "reasoning", "id": "rs_1_0", "status": "completed",
                "summary": [{ "type": "summary_text", "text": "hm" }], "encrypted_content": "seal" }),
            json!({ "type": "reasoning", "id": "rs_1_1", "status": "completed", "summary": [],
                "encrypted_content": "redacted_thinking:x" }),
            json!({ "type": "message", "id": "msg_1_2", "status": "completed", "role": "assistant",
                "content": [{ "type": "output_text", "text": "I lo\"ok\n", "annotations": [],
                    "logprobs": [] }] }),
            json!({ "type": "function_call", "id": "fc_1_3", "status": "completed", "call_id": "c1",
                "name": "weather", "arguments": "{\"city\":\"Bonn\"}" }),
            json!({ "type": "function_call", "id": "fc_1_4", "status": "completed", "call_id": "c2",
                "name": "time", "arguments": "{}",
                "extra_content": { "google": { "thought_signature": "t" } } }),
        ]
    );
}

#[test]
fn one_piece_is_what_the_end_of_a_stream_tells() {
    let words = || Event::Text(text("I"));
    for (events, status, reason) in [
        (events(), "completed", Value::Null),
        (vec![words(), Event::Stop(Stop::End)], "completed", Value::Null),
        (vec![words(), Event::Stop(Stop::Length)], "incomplete", json!("max_output_tokens")),
        (vec![words(), Event::Stop(Stop::Filtered)], "incomplete", json!("content_filter")),
        (vec![Event::Stop(Stop::Declined(String::new()))], "incomplete", json!("content_filter")),
        (vec![words(), Event::Stop(Stop::Declined(text("no")))], "completed", Value::Null),
        (vec![words(), Event::Stop(Stop::Other(text("odd")))], "completed", Value::Null),
    ] {
        let asked = read(json!({ "tools": [{ "type": "function", "name": "weather" }] })).unwrap();
        let all = streamed(&asked, &events);
        let last = all.last().unwrap();
        assert_eq!(last["type"], format!("response.{status}"), "{events:?}");
        let answer = responses::answer(&named(), &asked, &gathered(&events));
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(last["response"], answer, "{events:?}");
        assert_eq!(
            (&answer["status"], &answer["incomplete_details"]["reason"]),
            (&json!(status), &reason)
        );
        assert_eq!(answer["metadata"], json!({ "place": "here" }));
    }
    let declined = gathered(&[Event::Stop(Stop::Declined(text("no")))]);
    let answer = responses::answer(&named(), &read(json!({})).unwrap(), &declined);
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    let refusal = json!([{ "type": "refusal", "refusal": "no" }]);
    assert_eq!(answer["output"][0]["content"], refusal);
}

#[test]
fn a_response_without_an_answer_says_where_it_stands() {
    let asked = read(json!({ "background": true })).unwrap();
    for (standing, status, error) in [
        (Standing::Queued, "queued", Value::Null),
        (Standing::InProgress, "in_progress", Value::Null),
        (Standing::Cancelled, "cancelled", Value::Null),
        (
            Standing::Failed { code: text("server_error"), message: text("no") },
            "failed",
            json!({ "code": "server_error", "message": "no" }),
        ),
    ] {
        let body = responses::standing(&named(), &asked, &standing);
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&body["status"], &body["error"]), (&json!(status), &error));
        assert_eq!((&body["background"], &body["output"]), (&json!(true), &json!([])));
    }
}

#[test]
fn a_stream_that_breaks_off_has_failed() {
    let asked = read(json!({})).unwrap();
    for at in 0..events().len() - 1 {
        let mut writer = Writer::new(&named(), &asked);
        let mut out = Vec::new();
        events().iter().take(at).for_each(|event| writer.write(event, &mut out));
        writer.fail("rate_limit_exceeded", "wait", &mut out);
        let all = told(&out);
        let last = all.last().unwrap();
        assert_eq!(last["type"], "response.failed");
        assert_eq!(
            last["response"]["error"],
            json!({ "code": "rate_limit_exceeded", "message": "wait" })
        );
        let mut writer = Writer::new(&named(), &asked);
        let mut out = Vec::new();
        events().iter().take(at).for_each(|event| writer.write(event, &mut out));
        writer.finish(&mut out);
        assert_eq!(told(&out).last().unwrap()["type"], "response.failed", "no end is no answer");
    }
}

/// The number and the type of each event, and the last one's response.
fn numbered(out: &[u8]) -> (Vec<(u64, String)>, Value) {
    let events = told(out);
    let each = events.iter().map(|event| {
        let kind = event["type"].as_str().unwrap().to_owned();
        (event["sequence_number"].as_u64().unwrap(), kind)
    });
    (each.collect(), events.last().map_or(Value::Null, |last| last["response"].clone()))
}

#[test]
fn what_is_kept_is_told_with_the_same_numbers_whenever_and_from_wherever() {
    let asked = read(json!({ "background": true, "instructions": "be brief" })).unwrap();
    let answer = gathered(&events());
    let whole = |after, standings: &[Standing]| {
        let (mut out, mut retelling) = (Vec::new(), Retelling::new(&named(), &asked, after));
        standings.iter().for_each(|standing| retelling.stand(standing, &mut out));
        retelling.answer(&answer, &mut out);
        numbered(&out)
    };
    let (all, last) = whole(None, &[]);
    let kinds: Vec<&str> = all.iter().take(3).map(|(_, kind)| kind.as_str()).collect();
    assert_eq!(kinds, ["response.created", "response.queued", "response.in_progress"]);
    let numbers: Vec<u64> = all.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (0..all.len() as u64).collect::<Vec<_>>());
    assert_eq!(all.last().unwrap().1, "response.completed");
    let in_one_piece: Value =
        serde_json::from_slice(&responses::answer(&named(), &asked, &answer)).unwrap();
    assert_eq!(last, in_one_piece);
    let waits = [Standing::Queued, Standing::InProgress, Standing::Queued, Standing::InProgress];
    assert_eq!(whole(None, &waits), (all.clone(), last.clone()), "as it came along");
    for after in 0..all.len() {
        let (rest, _) = whole(Some(after as u64), &[]);
        assert_eq!(rest, all[after + 1..], "from {after} on");
    }
    let failed = Standing::Failed { code: "server_error".to_owned(), message: "no".to_owned() };
    for (standing, kind, status) in [
        (Standing::Cancelled, "response.cancelled", "cancelled"),
        (failed, "response.failed", "failed"),
    ] {
        for (case, before, after, count) in [
            ("never sent", &waits[..1], None, 3),
            ("sent", &waits[..2], None, 4),
            ("gone on with", &[], Some(2), 1),
        ] {
            let mut out = Vec::new();
            let mut retelling = Retelling::new(&named(), &asked, after);
            before.iter().for_each(|each| retelling.stand(each, &mut out));
            retelling.stand(&standing, &mut out);
            let (told, response) = numbered(&out);
            assert_eq!(told.last(), Some(&(3, kind.to_owned())), "{case}");
            assert_eq!((told.len(), &response["status"]), (count, &json!(status)), "{case}");
        }
    }
}

#[test]
fn an_error_of_a_stream_takes_no_number_from_what_comes_when_it_is_gone_on_with() {
    let asked = read(json!({ "background": true })).unwrap();
    for (case, after, standings, before, number) in [
        ("from the beginning", None, &[][..], 2, 1),
        ("queued", None, &[Standing::Queued], 2, 1),
        ("in progress", None, &[Standing::Queued, Standing::InProgress], 3, 2),
        ("gone on with", Some(1), &[], 0, 1),
        ("gone on with in its answer", Some(7), &[Standing::InProgress], 0, 7),
    ] {
        let (mut out, mut retelling) = (Vec::new(), Retelling::new(&named(), &asked, after));
        standings.iter().for_each(|standing| retelling.stand(standing, &mut out));
        retelling.break_off("storage_failed", "the \"disk\"", &mut out);
        let events = told(&out);
        let want = json!({ "type": "error", "sequence_number": number, "code": "storage_failed",
            "message": "the \"disk\"", "param": null });
        assert_eq!((events.len(), events.last()), (before + 1, Some(&want)), "{case}");
    }
}
