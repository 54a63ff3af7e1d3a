//! Streams of every provider: they come to the same as the answer in one piece, wherever their bytes
//! are split, and what is damaged is an error.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod wires;

use holdfast_chat::{
    Answer, Dialect, Event, Gathering, Kind, Said, Stop, StreamError, ToolCall, Usage,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use wires::{both, example, frame, script, sse};

fn dialects() -> [Dialect; 4] {
    [
        Dialect::OpenAi,
        Dialect::Anthropic,
        Dialect::Gemini,
        Dialect::Bedrock { region: "r".to_owned() },
    ]
}

fn read(dialect: &Dialect, pieces: &[&[u8]]) -> (Vec<Event>, Result<(), StreamError>) {
    let mut reader = dialect.reader();
    let mut events = Vec::new();
    for piece in pieces {
        if let Err(error) = reader.push(piece, &mut events) {
            return (events, Err(error));
        }
    }
    let end = reader.finish(&mut events);
    (events, end)
}

fn whole(dialect: &Dialect, stream: &[u8]) -> Vec<Event> {
    let (events, end) = read(dialect, &[stream]);
    end.unwrap_or_else(|error| panic!("{}: {error} after {events:?}", dialect.name()));
    events
}

fn gathered(events: &[Event]) -> Option<Answer> {
    let mut gathering = Gathering::default();
    events.iter().for_each(|event| gathering.take(event));
    gathering.answer()
}

#[test]
fn an_example_of_every_stream_has_everything_in_order() {
    for dialect in dialects() {
        let name = dialect.name();
        let (_, stream) = both(&dialect, &example());
        let answer = gathered(&whole(&dialect, &stream)).unwrap();
        let numbered = |at: usize| match name {
            "gemini" => format!("holdfast-call-r1-{at}"),
            _ => format!("id-{at}"),
        };
        let seal = (name == "gemini").then(|| "c2VhbA==".to_owned());
        let call = |at: usize, name: &str, arguments: Value| {
            let (id, name) = (numbered(at), name.to_owned());
            Said::Call(ToolCall { id, name, arguments, signature: seal.clone() })
        };
        let is_sealed = ["anthropic", "bedrock"].contains(&name);
        let signature = is_sealed.then(|| "seal".to_owned());
        let mut want = vec![Said::Reasoning { text: "hm…".to_owned(), signature }];
        if is_sealed {
            want.push(Said::Redacted("c2VjcmV0".to_owned()));
        }
        want.push(Said::Text("I loök \"there\"\n😀".to_owned()));
        want.push(call(0, "weather", json!({ "city": "Bönn" })));
        want.push(call(1, "time", json!({})));
        assert_eq!((answer.said, answer.stop), (want, Stop::Calls), "{name}");
        let reasoning = if name == "bedrock" { 0 } else { 3 };
        assert_eq!(
            answer.usage,
            Some(Usage { input: 12, cached: 4, output: 7, reasoning }),
            "{name}"
        );
        assert_eq!(answer.model, if name == "bedrock" { "" } else { "m-1" }, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_stream_comes_to_what_one_piece_does(script in script()) {
        for dialect in dialects() {
            let (body, stream) = both(&dialect, &script);
            let answer = dialect.answer(body.to_string().as_bytes()).unwrap();
            prop_assert_eq!(gathered(&whole(&dialect, &stream)), Some(answer), "{}", dialect.name());
        }
    }

    #[test]
    fn a_stream_that_is_split_anywhere_gives_the_same_events(script in script(), at: usize) {
        for dialect in dialects() {
            let (_, stream) = both(&dialect, &script);
            let events = whole(&dialect, &stream);
            let (one, two) = stream.split_at(at % stream.len());
            prop_assert_eq!(&read(&dialect, &[one, two]).0, &events, "{}", dialect.name());
            let single: Vec<&[u8]> = stream.chunks(1).collect();
            prop_assert_eq!(&read(&dialect, &single).0, &events, "{}", dialect.name());
        }
    }

    #[test]
    fn no_bytes_at_all_are_a_panic(bytes: Vec<u8>, at: usize, script in script()) {
        for dialect in dialects() {
            let (_, mut stream) = both(&dialect, &script);
            read(&dialect, &[&bytes]).1.unwrap_err();
            let at = at % stream.len();
            stream.splice(at..at, bytes.iter().copied());
            let (events, _) = read(&dialect, &[&stream]);
            let stops = events.iter().filter(|event| matches!(event, Event::Stop(_))).count();
            prop_assert!(stops <= 1);
        }
    }
}

#[test]
fn every_split_of_the_example_gives_the_same_events() {
    for dialect in dialects() {
        let (_, stream) = both(&dialect, &example());
        let events = whole(&dialect, &stream);
        for at in 0..=stream.len() {
            let (one, two) = stream.split_at(at);
            assert_eq!(
                read(&dialect, &[one, two]),
                (events.clone(), Ok(())),
                "{} at {at}",
                dialect.name()
            );
        }
    }
}

#[test]
fn a_stream_that_is_cut_before_its_end_is_cut() {
    for dialect in dialects() {
        let (_, stream) = both(&dialect, &example());
        let events = whole(&dialect, &stream);
        for at in 0..stream.len() {
            let (seen, end) = read(&dialect, &[stream.get(..at).unwrap()]);
            assert!(events.starts_with(&seen), "{} at {at}", dialect.name());
            let has_stopped = seen.iter().any(|event| matches!(event, Event::Stop(_)));
            if !has_stopped {
                assert_eq!(end, Err(StreamError::Cut), "{} at {at}", dialect.name());
                assert_eq!(gathered(&seen), None);
            }
        }
    }
}

#[test]
fn what_is_no_stream_is_malformed_and_quotes_nothing() {
    let [openai, anthropic, gemini, bedrock] = dialects();
    let chat =
        |choice: &str| format!("data: {{\"choices\":[{{\"delta\":{choice}}}]}}\n\n").into_bytes();
    let turned = {
        let (_, mut stream) = both(&bedrock, &example());
        let at = stream.len() / 2;
        stream[at] ^= 1;
        stream
    };
    for (case, dialect, stream) in [
        ("no JSON", &openai, b"data: secret\n\n".to_vec()),
        (
            "half of it",
            &openai,
            b"data: {\"choices\":[{\"delta\":{\"content\":\"secret\n\n".to_vec(),
        ),
        (
            "no UTF-8",
            &openai,
            b"data: {\"choices\":[{\"delta\":{\"content\":\"\xff\"}}]}\n\n".to_vec(),
        ),
        ("a list", &openai, b"data: []\n\n".to_vec()),
        ("words that are none", &openai, chat("{\"content\":7}")),
        ("a call without a name", &openai, chat("{\"tool_calls\":[{\"index\":0,\"id\":\"a\"}]}")),
        ("no type", &anthropic, b"data: {\"secret\":1}\n\n".to_vec()),
        (
            "no block",
            &anthropic,
            b"data: {\"type\":\"content_block_start\",\"index\":0}\n\n".to_vec(),
        ),
        ("no JSON", &anthropic, b"event: ping\ndata: {\n\n".to_vec()),
        ("no JSON", &gemini, b"data: {\"candidates\":[\n\n".to_vec()),
        ("another form", &gemini, b"data: {\"candidates\":{}}\n\n".to_vec()),
        ("text", &bedrock, b"HTTP/1.1 200 OK\r\n\r\n{}".to_vec()),
        ("a turned bit", &bedrock, turned),
        ("no payload", &bedrock, frame((":event-type", "contentBlockDelta"), &Value::Null)),
        ("no input", &bedrock, frame((":event-type", "contentBlockDelta"), &json!({}))),
        (
            "a call that has not begun",
            &bedrock,
            frame(
                (":event-type", "contentBlockDelta"),
                &json!({ "contentBlockIndex": 3, "delta": { "toolUse": { "input": "{}" } } }),
            ),
        ),
    ] {
        let (_, end) = read(dialect, &[&stream]);
        let Err(StreamError::Malformed(error)) = end else {
            panic!("{} {case}: {end:?}", dialect.name())
        };
        assert!(!error.to_string().contains("secret"), "{case}: {error}");
    }
}

#[test]
fn a_failure_in_mid_stream_is_sorted() {
    let [openai, anthropic, gemini, bedrock] = dialects();
    let of = |error: Value| sse(&[json!({ "error": error })], false);
    let typed = |kind: &str| {
        sse(&[json!({ "type": "error", "error": { "type": kind, "message": "x" } })], false)
    };
    let exception = |kind: &str| frame((":exception-type", kind), &json!({ "message": "x" }));
    for (dialect, stream, want) in [
        (&openai, of(json!({ "message": "x", "type": "server_error" })), Kind::Transient),
        (&openai, of(json!({ "message": "x", "code": 429 })), Kind::Throttled),
        (&openai, of(json!({ "message": "x", "code": "400" })), Kind::BadRequest),
        (&openai, of(json!({ "message": "x", "code": "insufficient_quota" })), Kind::OutOfCredit),
        (
            &openai,
            sse(&[json!({ "object": "error", "message": "x", "code": 401 })], false),
            Kind::Authentication,
        ),
        (&anthropic, typed("overloaded_error"), Kind::Transient),
        (&anthropic, typed("rate_limit_error"), Kind::Throttled),
        (&anthropic, typed("kind_to_come"), Kind::Transient),
        (
            &gemini,
            of(json!({ "code": 503, "status": "UNAVAILABLE", "message": "x" })),
            Kind::Transient,
        ),
        (
            &gemini,
            of(json!({ "code": 429, "status": "RESOURCE_EXHAUSTED", "message": "x" })),
            Kind::Throttled,
        ),
        (&bedrock, exception("throttlingException"), Kind::Throttled),
        (&bedrock, exception("modelStreamErrorException"), Kind::Transient),
        (&bedrock, exception("validationException"), Kind::BadRequest),
        (&bedrock, exception("internalServerException"), Kind::Transient),
    ] {
        let (_, end) = read(dialect, &[&stream]);
        let Err(StreamError::Failed(failure)) = end else { panic!("{}: {end:?}", dialect.name()) };
        assert_eq!(
            (failure.kind, failure.detail.as_deref()),
            (want, Some("x")),
            "{}",
            dialect.name()
        );
    }
}

#[test]
fn servers_that_only_resemble_openai_are_understood() {
    let chunk = |delta: Value, finish: Value| json!({ "choices": [{ "delta": delta, "finish_reason": finish }] });
    let call = |at: Value, id: Value, name: Value, arguments: Value| {
        let function = json!({ "name": name, "arguments": arguments });
        chunk(
            json!({ "tool_calls": [{ "index": at, "id": id, "function": function }] }),
            Value::Null,
        )
    };
    let end = |reason: &str| chunk(json!({}), json!(reason));
    let begun = |index: usize, id: &str| Event::Call {
        index,
        id: id.to_owned(),
        name: "f".to_owned(),
        signature: None,
    };
    let arguments = |index: usize, text: &str| Event::Arguments { index, text: text.to_owned() };
    let text = |text: &str| Event::Text(text.to_owned());
    let stop = Event::Stop(Stop::Calls);
    for (case, data, want) in [
        (
            "azure: an empty first chunk, and filters",
            vec![
                json!({ "choices": [], "model": "", "prompt_filter_results": [{}] }),
                chunk(json!({ "content": "a" }), Value::Null),
                json!({ "choices": [{ "index": 0, "finish_reason": "stop", "delta": {},
                    "content_filter_results": {} }] }),
            ],
            vec![text("a"), Event::Stop(Stop::End)],
        ),
        (
            "mistral: chunks of thoughts and words, and calls in one piece",
            vec![
                chunk(
                    json!({ "content": [{ "type": "thinking", "thinking":
                    [{ "type": "text", "text": "hm" }] }, { "type": "text", "text": "a" }] }),
                    Value::Null,
                ),
                chunk(
                    json!({ "content": "", "tool_calls": [
                    { "id": "A", "function": { "name": "f", "arguments": { "x": 1 } } },
                    { "id": "B", "function": { "name": "f", "arguments": "{}" } }] }),
                    json!("tool_calls"),
                ),
            ],
            vec![
                Event::Reasoning("hm".to_owned()),
                text("a"),
                begun(0, "A"),
                arguments(0, "{\"x\":1}"),
                begun(1, "B"),
                arguments(1, "{}"),
                stop.clone(),
            ],
        ),
        (
            "all calls in one place",
            vec![
                call(json!(0), json!("A"), json!("f"), json!("{")),
                call(json!(0), json!(""), json!(null), json!("}")),
                call(json!(0), json!("B"), json!("f"), json!("{}")),
                end("tool_calls"),
            ],
            vec![
                begun(0, "A"),
                arguments(0, "{"),
                arguments(0, "}"),
                begun(1, "B"),
                arguments(1, "{}"),
                stop.clone(),
            ],
        ),
        (
            "calls by turns, and the id repeated",
            vec![
                call(json!(0), json!("A"), json!("f"), json!("{")),
                call(json!(1), json!("B"), json!("f"), json!("{")),
                call(json!(0), json!("A"), json!("f"), json!("}")),
                call(json!(1), json!(null), json!(null), json!("}")),
                end("tool_calls"),
            ],
            vec![
                begun(0, "A"),
                arguments(0, "{"),
                begun(1, "B"),
                arguments(1, "{"),
                arguments(0, "}"),
                arguments(1, "}"),
                stop.clone(),
            ],
        ),
        (
            "no id",
            vec![call(json!(0), json!(null), json!("f"), json!("{}")), end("tool_calls")],
            vec![begun(0, "holdfast-call-0"), arguments(0, "{}"), stop],
        ),
        (
            "another way of thinking, an empty reason, an end that is told twice",
            vec![
                chunk(json!({ "reasoning": "hm" }), json!("")),
                end("stop"),
                chunk(json!({ "content": "late" }), json!("length")),
                json!({ "choices": [], "usage": { "prompt_tokens": 1, "completion_tokens": null } }),
            ],
            vec![
                Event::Reasoning("hm".to_owned()),
                Event::Stop(Stop::End),
                Event::Usage(Usage { input: 1, ..Usage::default() }),
            ],
        ),
        (
            "a refusal in pieces",
            vec![
                chunk(json!({ "refusal": "I " }), Value::Null),
                chunk(json!({ "refusal": "will not" }), Value::Null),
                end("stop"),
            ],
            vec![Event::Stop(Stop::Declined("I will not".to_owned()))],
        ),
    ] {
        assert_eq!(whole(&Dialect::OpenAi, &sse(&data, false)), want, "{case}");
    }
    let last = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n";
    assert_eq!(whole(&Dialect::OpenAi, last.as_bytes()), [Event::Stop(Stop::End)], "no blank line");
}

#[test]
fn kinds_of_events_to_come_are_passed_over() {
    let [_, anthropic, _, bedrock] = dialects();
    let later = json!({ "type": "later", "index": 7, "delta": { "type": "later" } });
    for (dialect, bytes) in [
        (&anthropic, sse(&[later], false)),
        (&bedrock, frame((":event-type", "later"), &json!({ "delta": {} }))),
    ] {
        assert_eq!(read(dialect, &[&bytes]), (vec![], Err(StreamError::Cut)));
        let (_, stream) = both(dialect, &example());
        let events = whole(dialect, &stream);
        assert_eq!(whole(dialect, &[bytes, stream].concat()), events);
    }
}

#[test]
fn an_answer_calls_no_endless_number_of_tools() {
    let call = |at: usize| {
        json!({ "choices": [{ "delta": { "tool_calls": [{ "index": at, "id": "a",
            "function": { "name": "f", "arguments": "" } }] } }] })
    };
    let data: Vec<Value> = (0..1100).map(call).collect();
    let (events, end) = read(&Dialect::OpenAi, &[&sse(&data, false)]);
    assert_eq!(events.len(), 1024);
    assert!(matches!(end, Err(StreamError::Malformed(_))), "{end:?}");
}

#[test]
fn a_question_filtered_at_the_start_is_an_answer() {
    let data = [json!({ "promptFeedback": { "blockReason": "SAFETY" }, "modelVersion": "m" })];
    let events = whole(&Dialect::Gemini, &sse(&data, false));
    assert_eq!(gathered(&events).unwrap().stop, Stop::Filtered);
}
