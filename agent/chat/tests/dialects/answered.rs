//! What every protocol makes of what a provider answers.

use holdfast_chat::{Answer, Dialect, Kind, Said, Stop, ToolCall, Usage};
use serde_json::{Value, json};

use crate::{call, dialects};

fn answer(dialect: &Dialect, body: &Value) -> Answer {
    dialect.answer(body.to_string().as_bytes()).expect("it is an answer")
}

/// Thoughts, words and a call, as each provider answers with them.
#[test]
fn thoughts_words_and_calls_come_back_in_order() {
    let [openai, _, mistral, anthropic, gemini, _, bedrock] = dialects();
    let function = json!({ "name": "weather", "arguments": "{\"city\":\"Bonn\"}" });
    let calls = json!([{ "id": "call00001", "type": "function", "function": function }]);
    let chat = |message: Value| {
        json!({ "model": "m-1", "choices": [{ "message": message, "finish_reason": "tool_calls" }],
            "usage": { "prompt_tokens": 12, "completion_tokens": 7,
                "prompt_tokens_details": { "cached_tokens": 4 },
                "completion_tokens_details": { "reasoning_tokens": 3 } } })
    };
    let usage = Usage { input: 12, cached: 4, output: 7, reasoning: 3 };
    let chunks = json!([{ "type": "thinking", "thinking": [{ "type": "text", "text": "hm" }] },
        { "type": "text", "text": "I look" }]);
    for (dialect, body, seals, usage) in [
        (
            &openai,
            chat(json!({ "content": "I look", "reasoning_content": "hm", "tool_calls": calls })),
            (None, None),
            usage,
        ),
        (&mistral, chat(json!({ "content": chunks, "tool_calls": calls })), (None, None), usage),
        (
            &anthropic,
            json!({ "model": "m-1", "stop_reason": "tool_use", "content": [
                { "type": "thinking", "thinking": "hm", "signature": "s" },
                { "type": "text", "text": "I look" },
                { "type": "server_tool_use", "id": "x" },
                { "type": "tool_use", "id": "call00001", "name": "weather", "input": { "city": "Bonn" } }],
                "usage": { "input_tokens": 6, "cache_creation_input_tokens": 2,
                    "cache_read_input_tokens": 4, "output_tokens": 7,
                    "output_tokens_details": { "thinking_tokens": 3 } } }),
            (Some("s"), None),
            usage,
        ),
        (
            &gemini,
            json!({ "modelVersion": "m-1", "candidates": [{ "finishReason": "STOP", "content":
                { "role": "model", "parts": [{ "text": "hm", "thought": true }, { "text": "I look" },
                    { "functionCall": { "id": "call00001", "name": "weather", "args": { "city": "Bonn" } },
                        "thoughtSignature": "t" }] } }],
                "usageMetadata": { "promptTokenCount": 12, "cachedContentTokenCount": 4,
                    "candidatesTokenCount": 4, "thoughtsTokenCount": 3 } }),
            (None, Some("t")),
            usage,
        ),
        (
            &bedrock,
            json!({ "stopReason": "tool_use", "output": { "message": { "role": "assistant",
                "content": [{ "reasoningContent":
                    { "reasoningText": { "text": "hm", "signature": "s" } } },
                    { "text": "I look" }, { "toolUse":
                        { "toolUseId": "call00001", "name": "weather", "input": { "city": "Bonn" } } }] } },
                "usage": { "inputTokens": 6, "outputTokens": 7, "totalTokens": 19,
                    "cacheReadInputTokens": 4, "cacheWriteInputTokens": 2 } }),
            (Some("s"), None),
            Usage { reasoning: 0, ..usage },
        ),
    ] {
        let name = dialect.name();
        let got = answer(dialect, &body);
        let (of_thoughts, of_call) = seals;
        let signature = of_thoughts.map(str::to_owned);
        let want = [
            Said::Reasoning { text: "hm".to_owned(), signature },
            Said::Text("I look".to_owned()),
            Said::Call(ToolCall { signature: of_call.map(str::to_owned), ..call() }),
        ];
        assert_eq!((got.said.as_slice(), &got.stop), (&want[..], &Stop::Calls), "{name}");
        assert_eq!(got.usage, Some(usage), "{name}");
        assert_eq!(got.text().as_deref(), Some("I look"), "{name}");
        assert_eq!(got.model, if name == "bedrock" { "" } else { "m-1" }, "{name}");
    }
}

#[test]
fn every_way_to_end_has_its_name() {
    let chat = |reason: &str| json!({ "choices": [{ "message": { "content": "x" }, "finish_reason": reason }] });
    let message = |reason: &str| {
        json!({ "model": "m", "content": [], "stop_reason": reason,
            "usage": { "input_tokens": 1, "output_tokens": 1 } })
    };
    let google = |reason: &str| json!({ "candidates": [{ "finishReason": reason }] });
    let converse = |reason: &str| {
        json!({ "output": { "message": { "content": [] } }, "stopReason": reason,
            "usage": { "inputTokens": 1, "outputTokens": 1 } })
    };
    let [openai, _, _, anthropic, gemini, _, bedrock] = dialects();
    let other = |text: &str| Stop::Other(text.to_owned());
    let refused = json!({ "choices": [{ "message": { "content": null, "refusal": "no" },
        "finish_reason": "stop" }] });
    let blocked = json!({ "promptFeedback": { "blockReason": "SAFETY" } });
    let mut declined = message("refusal");
    declined["stop_details"] = json!({ "type": "refusal", "explanation": "no" });
    for (dialect, body, want) in [
        (&openai, chat("stop"), Stop::End),
        (&openai, chat("length"), Stop::Length),
        (&openai, chat("content_filter"), Stop::Filtered),
        (&openai, chat("error"), other("error")),
        (&openai, refused, Stop::Declined("no".to_owned())),
        (&anthropic, message("end_turn"), Stop::End),
        (&anthropic, message("stop_sequence"), Stop::End),
        (&anthropic, message("max_tokens"), Stop::Length),
        (&anthropic, message("pause_turn"), other("pause_turn")),
        (&anthropic, declined, Stop::Declined("no".to_owned())),
        (&gemini, google("STOP"), Stop::End),
        (&gemini, google("MAX_TOKENS"), Stop::Length),
        (&gemini, google("SAFETY"), Stop::Filtered),
        (&gemini, google("MALFORMED_FUNCTION_CALL"), other("MALFORMED_FUNCTION_CALL")),
        (&gemini, blocked, Stop::Filtered),
        (&bedrock, converse("end_turn"), Stop::End),
        (&bedrock, converse("max_tokens"), Stop::Length),
        (&bedrock, converse("guardrail_intervened"), Stop::Filtered),
        (&bedrock, converse("malformed_model_output"), other("malformed_model_output")),
    ] {
        assert_eq!(answer(dialect, &body).stop, want, "{} {body}", dialect.name());
    }
}

#[test]
fn what_is_no_answer_is_malformed_and_quotes_nothing() {
    for dialect in dialects() {
        for body in ["", "{", "[]", "{}", "null", "\"secret\"", "{\"secret\": 1}"] {
            let error = dialect.answer(body.as_bytes()).expect_err(dialect.name());
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}

#[test]
fn a_plain_code_of_the_providers_is_kept_and_nothing_else() {
    let [openai, _, mistral, anthropic, gemini, _, bedrock] = dialects();
    let of = |error: Value| json!({ "error": error });
    let long = "context_length_exceeded";
    for (dialect, body, want) in [
        (&openai, of(json!({ "code": long, "message": "x" })), Some(long)),
        (
            &openai,
            of(json!({ "code": "string_above_max_length" })),
            Some("string_above_max_length"),
        ),
        (&openai, of(json!({ "code": null, "type": "invalid_request_error" })), None),
        (&openai, of(json!({ "code": 400 })), None),
        (&openai, of(json!({ "code": "Not plain: sk-1" })), None),
        (&openai, of(json!({ "code": "x".repeat(65) })), None),
        (&openai, of(json!({ "code": "400" })), None),
        (&mistral, json!({ "object": "error", "message": "x", "code": "3051" }), None),
        (
            &anthropic,
            of(json!({ "type": "invalid_request_error",
                "message": "prompt is too long: 208310 tokens > 200000 maximum" })),
            Some(long),
        ),
        (&anthropic, of(json!({ "type": "invalid_request_error", "message": "x" })), None),
        (
            &gemini,
            of(json!({ "code": 400, "status": "INVALID_ARGUMENT", "message":
                "The input token count (1200) exceeds the maximum number of tokens allowed (1000)." })),
            Some(long),
        ),
        (
            &bedrock,
            json!({ "__type": "ValidationException",
                "message": "Input is too long for requested model." }),
            Some(long),
        ),
    ] {
        let failure = dialect.failure(400, &|_| None, body.to_string().as_bytes());
        assert_eq!(failure.kind, Kind::BadRequest, "{} {body}", dialect.name());
        assert_eq!(failure.code.as_deref(), want, "{} {body}", dialect.name());
    }
}

/// Documented errors beside those that the stand-ins of the conformance suite send.
#[test]
fn documented_errors_come_to_one_sort() {
    let [openai, azure, mistral, anthropic, gemini, _, bedrock] = dialects();
    let of = |error: Value| json!({ "error": error });
    let typed = |kind: &str, message: &str| of(json!({ "type": kind, "message": message }));
    let spent = json!({ "type": "rate_limit_error", "message": "x",
        "details": { "error_code": "contract_spend_limit_reached" } });
    let listed = json!([{ "error": { "code": 429, "status": "RESOURCE_EXHAUSTED", "message": "x",
        "details": [{ "@type": "type.googleapis.com/google.rpc.RetryInfo",
            "retryDelay": "1.5s" }] } }]);
    for (dialect, status, body, want) in [
        (&openai, 429, of(json!({ "code": "insufficient_quota" })), Kind::OutOfCredit),
        (&openai, 400, of(json!({ "code": "billing_hard_limit_reached" })), Kind::OutOfCredit),
        (&openai, 403, of(json!({ "code": "unsupported_country" })), Kind::Authentication),
        (&azure, 404, of(json!({ "code": "DeploymentNotFound" })), Kind::BadRequest),
        (&mistral, 422, json!({ "detail": [{ "msg": "x" }] }), Kind::BadRequest),
        (&anthropic, 400, typed("billing_error", "x"), Kind::OutOfCredit),
        (&anthropic, 429, of(spent), Kind::OutOfCredit),
        (&anthropic, 413, typed("request_too_large", "x"), Kind::BadRequest),
        (&anthropic, 200, typed("overloaded_error", "x"), Kind::Transient),
        (&anthropic, 403, typed("permission_error", "x"), Kind::Authentication),
        (&gemini, 429, listed, Kind::Throttled),
        (&gemini, 401, of(json!({ "status": "UNAUTHENTICATED" })), Kind::Authentication),
        (&gemini, 400, of(json!({ "status": "INVALID_ARGUMENT" })), Kind::BadRequest),
        (&bedrock, 400, json!({ "__type": "com.x#ExpiredTokenException" }), Kind::Authentication),
        (&bedrock, 424, json!({ "__type": "ModelErrorException" }), Kind::Transient),
        (&bedrock, 429, json!({ "__type": "ModelNotReadyException" }), Kind::Throttled),
    ] {
        let failure = dialect.failure(status, &|_| None, body.to_string().as_bytes());
        assert_eq!(failure.kind, want, "{} {status} {body}", dialect.name());
        let waits = failure.wait.map(|wait| wait.as_millis());
        assert_eq!(waits, body.is_array().then_some(1500), "{body}");
    }
}
