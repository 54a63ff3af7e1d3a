//! What is said to those who send something else than a server of OpenAI's protocol takes: where, what is
//! wanted, what was found, and nothing of how it was read.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use holdfast_chat::served::{Refusal, completion, embeddings, legacy, responses};
use proptest::prelude::*;

fn chat(text: &str) -> Refusal {
    completion::read(text.as_bytes()).expect_err(text)
}

fn response(text: &str) -> Refusal {
    responses::read(text.as_bytes()).expect_err(text)
}

fn vectors(text: &str) -> Refusal {
    embeddings::read(text.as_bytes()).expect_err(text)
}

fn prompt(text: &str) -> Refusal {
    legacy::read(text.as_bytes()).expect_err(text)
}

#[test]
fn a_mistake_is_named_with_its_place_and_what_is_wanted() {
    type Read = fn(&str) -> Refusal;
    for (read, text, message) in [
        (chat as Read, "[]", "the body: must be an object, and is a list"),
        (chat, "\"hello\"", "the body: must be an object, and is a text"),
        (chat, "null", "the body: must be an object, and is null"),
        (chat, "", "the body is no JSON that can be read: it ends too early"),
        (chat, "{\"model\": \"m\"", "the body is no JSON that can be read: it ends too early"),
        (
            chat,
            "{'model': 'm'}",
            "the body is no JSON that can be read: something else is expected at line 1, column 2",
        ),
        (
            chat,
            "{\"model\": \"m\",}",
            "the body is no JSON that can be read: a comma has nothing behind it at line 1, column 15",
        ),
        (
            chat,
            "{\"model\": \"m\"} {}",
            "the body is no JSON that can be read: something follows its end at line 1, column 16",
        ),
        (
            chat,
            "{\"model\":\n \"a\nb\"}",
            "the body is no JSON that can be read: a text has a control character that is not escaped \
             at line 3, column 0",
        ),
        (
            chat,
            "{\"model\": \"\\x\"}",
            "the body is no JSON that can be read: a text has an escape that is none at line 1, column 13",
        ),
        (
            chat,
            "{\"temperature\": 1e999}",
            "the body is no JSON that can be read: a number is too large at line 1, column 21",
        ),
        (chat, r#"{"model": 7}"#, "model: must be a text, and is 7"),
        (chat, r#"{"model": {"name": "m"}}"#, "model: must be a text, and is an object"),
        (chat, r#"{"model": "m", "model": "n"}"#, "model: is there twice"),
        (chat, r#"{"messages": "hello"}"#, "messages: must be a list, and is a text"),
        (chat, r#"{"messages": {"role": "user"}}"#, "messages: must be a list, and is an object"),
        (chat, r#"{"messages": ["hello"]}"#, "messages[0]: must be an object, and is a text"),
        (chat, r#"{"messages": [null]}"#, "messages[0]: must be an object, and is null"),
        (
            chat,
            r#"{"messages": [{"role": "user", "content": {"text": "x"}}]}"#,
            "messages[0].content: must be a text or a list of parts, and is an object",
        ),
        (
            chat,
            r#"{"messages": [{"role": "user", "content": ["x"]}]}"#,
            "messages[0].content[0]: must be an object, and is a text",
        ),
        (
            chat,
            r#"{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "data:"}]}]}"#,
            "messages[0].content[0].image_url: must be an object, and is a text",
        ),
        (
            chat,
            r#"{"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": {}}}]}]}"#,
            "messages[0].tool_calls[0].function.arguments: must be a text, and is an object",
        ),
        (chat, r#"{"temperature": "0.7"}"#, "temperature: must be a number, and is a text"),
        (chat, r#"{"temperature": true}"#, "temperature: must be a number, and is true"),
        (chat, r#"{"stream": "true"}"#, "stream: must be true or false, and is a text"),
        (chat, r#"{"stream": 1}"#, "stream: must be true or false, and is 1"),
        (
            chat,
            r#"{"max_tokens": 12.5}"#,
            "max_tokens: must be a whole number, 0 or more, and is 12.5",
        ),
        (chat, r#"{"max_tokens": -1}"#, "max_tokens: must be a whole number, 0 or more, and is -1"),
        (
            chat,
            r#"{"max_tokens": "5"}"#,
            "max_tokens: must be a whole number, 0 or more, and is a text",
        ),
        (
            chat,
            r#"{"seed": 18446744073709551615}"#,
            "seed: must be a whole number, and is 18446744073709551615",
        ),
        (chat, r#"{"stop": 7}"#, "stop: must be a text or a list, and is 7"),
        (chat, r#"{"stop": ["a", null]}"#, "stop[1]: must be a text, and is null"),
        (chat, r#"{"metadata": ["a"]}"#, "metadata: must be an object, and is a list"),
        (chat, r#"{"metadata": {"n": 1}}"#, "metadata.n: must be a text, and is 1"),
        (chat, r#"{"logit_bias": "x"}"#, "logit_bias: must be an object, and is a text"),
        (chat, r#"{"tools": {"type": "function"}}"#, "tools: must be a list, and is an object"),
        (
            chat,
            r#"{"tools": [{"function": {"parameters": "{}"}}]}"#,
            "tools[0].function.parameters: must be an object, and is a text",
        ),
        (
            chat,
            r#"{"tool_choice": ["f"]}"#,
            "tool_choice: must be a text or an object, and is a list",
        ),
        (
            chat,
            r#"{"response_format": "json"}"#,
            "response_format: must be an object, and is a text",
        ),
        (chat, r#"{"stream_options": true}"#, "stream_options: must be an object, and is true"),
        (chat, r#"{"reasoning_effort": 3}"#, "reasoning_effort: must be a text, and is 3"),
        (chat, r#"{"temprature": 1}"#, "unknown parameter: temprature"),
        (
            response,
            r#"{"input": {"role": "user"}}"#,
            "input: must be a text or a list, and is an object",
        ),
        (response, r#"{"input": ["x"]}"#, "input[0]: must be an object, and is a text"),
        (
            response,
            r#"{"input": [{"type": "reasoning", "summary": "x"}]}"#,
            "input[0].summary: must be a list, and is a text",
        ),
        (
            response,
            r#"{"model": "m", "input": [{"type": "reasoning", "summary": [{"type": "summary_text"}]}]}"#,
            "missing required parameter: input[0].summary[0].text",
        ),
        (response, r#"{"reasoning": "high"}"#, "reasoning: must be an object, and is a text"),
        (
            response,
            r#"{"text": {"format": "json"}}"#,
            "text.format: must be an object, and is a text",
        ),
        (response, r#"{"include": "x"}"#, "include: must be a list, and is a text"),
        (vectors, r#"{"input": 7}"#, "input: must be a text or a list, and is 7"),
        (
            vectors,
            r#"{"dimensions": "8"}"#,
            "dimensions: must be a whole number, 0 or more, and is a text",
        ),
        (prompt, r#"{"prompt": true}"#, "prompt: must be a text or a list, and is true"),
        (prompt, r#"{"echo": "no"}"#, "echo: must be true or false, and is a text"),
    ] {
        assert_eq!(read(text).message, message, "{text}");
    }
    let deep = format!("{{\"tools\":[{{\"function\":{{\"parameters\":{{\"a\":{}", "[".repeat(200));
    let refusal = chat(&deep);
    assert!(refusal.message.contains("it is nested too deep at line 1, column "), "{refusal}");
    let refusal = completion::read(b"{\"model\": \"\xff\"}").unwrap_err();
    assert!(refusal.message.contains("a text is not UTF-8"), "{refusal}");
}

#[test]
fn a_name_without_end_is_shown_in_part() {
    let long = "x".repeat(1_000_000);
    for text in [
        format!(r#"{{"{long}": 1}}"#),
        format!(r#"{{"metadata": {{"{long}": 1}}}}"#),
        format!(
            r#"{{"model": "m", "messages": [{{"role": "user", "content": "x"}}], "metadata": {{"{long}": ""}}}}"#
        ),
    ] {
        let refusal = chat(&text);
        assert!(refusal.message.len() < 300, "{} bytes", refusal.message.len());
        assert!(refusal.param.is_some_and(|param| param.len() < 300));
    }
}

#[test]
fn a_word_that_is_none_of_those_known_is_told_them() {
    let hello = r#""messages": [{"role": "user", "content": "x"}]"#;
    for (field, message) in [
        (
            r#""reasoning_effort": "huge""#,
            "reasoning_effort: must be none, minimal, low, medium, high, xhigh or max",
        ),
        (r#""verbosity": "chatty""#, "verbosity: must be low, medium or high"),
        (r#""tool_choice": "maybe""#, "tool_choice: must be none, auto, required or a function"),
        (
            r#""service_tier": "priority""#,
            "unsupported parameter: service_tier can only be auto or default here",
        ),
        (
            r#""logit_bias": {"50256": -100}"#,
            "unsupported parameter: logit_bias can only be empty here",
        ),
        (r#""n": 2"#, "unsupported parameter: n can only be 1 here"),
        (r#""top_logprobs": 2"#, "unsupported parameter: top_logprobs can only be 0 here"),
        (r#""web_search_options": {}"#, "unsupported parameter: web_search_options"),
    ] {
        assert_eq!(chat(&format!(r#"{{"model": "m", {hello}, {field}}}"#)).message, message);
    }
    for (field, message) in [
        (
            r#""reasoning": {"effort": "huge"}"#,
            "reasoning.effort: must be none, minimal, low, medium, high, xhigh or max",
        ),
        (
            r#""reasoning": {"summary": "long"}"#,
            "reasoning.summary: must be auto, concise or detailed",
        ),
        (
            r#""reasoning": {"mode": "pro"}"#,
            "unsupported parameter: reasoning.mode can only be standard here",
        ),
        (r#""text": {"verbosity": "chatty"}"#, "text.verbosity: must be low, medium or high"),
    ] {
        let text = format!(r#"{{"model": "m", "input": "x", {field}}}"#);
        assert_eq!(response(&text).message, message);
    }
}

/// A value of JSON of any kind.
fn value() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::{Value, json};
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z, `]{0,30}".prop_map(Value::from),
        Just(json!([])),
        Just(json!([["a"], 1])),
        Just(json!({})),
        Just(json!({ "type": 1 })),
    ]
}

const FIELDS: [&str; 24] = [
    "model",
    "messages",
    "tools",
    "tool_choice",
    "response_format",
    "stream",
    "stream_options",
    "temperature",
    "top_k",
    "seed",
    "max_tokens",
    "stop",
    "metadata",
    "user",
    "store",
    "n",
    "logit_bias",
    "modalities",
    "input",
    "include",
    "reasoning",
    "text",
    "prompt",
    "dimensions",
];

proptest! {
    #[test]
    fn nobody_hears_how_a_body_was_read(at in 0..FIELDS.len(), value in value()) {
        let mut body = serde_json::json!({});
        body[FIELDS[at]] = value;
        let text = body.to_string().into_bytes();
        for refusal in [completion::read(&text).err(), legacy::read(&text).err(),
            responses::read(&text).err(), embeddings::read(&text).map(drop).err()]
        {
            let message = refusal.unwrap().message;
            for word in ["invalid type", "invalid value", "expected", "struct", "variant", "sequence",
                "a map", "u64", "f32", "i64", "at line", "another form"]
            {
                prop_assert!(!message.contains(word), "{message}");
            }
        }
    }
}
