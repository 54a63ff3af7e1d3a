//! What calls have in common: how streams are asked for, models named, numbers written, hidden thoughts
//! given back, and tools and schemas declared.

use holdfast_chat::{Conversation, Dialect, Output, Part, Said, Sampling, Tool, Turn};
use serde_json::{Value, json};

fn dialects() -> [Dialect; 7] {
    [
        Dialect::OpenAi,
        Dialect::AzureOpenAi { deployment: "gpt".into(), api_version: "2024-10-21".into() },
        Dialect::Mistral,
        Dialect::Anthropic,
        Dialect::Gemini,
        Dialect::Vertex { project: "p".into(), region: "r".into() },
        Dialect::Bedrock { region: "r".into() },
    ]
}

fn body(dialect: &Dialect, conversation: &Conversation) -> Value {
    let call = dialect.call("m", conversation).expect("it fits");
    serde_json::from_slice(&call.body).expect("a body is JSON")
}

fn hello() -> Conversation {
    let turns = vec![Turn::User(vec![Part::Text("hello".to_owned())])];
    Conversation { turns, ..Conversation::default() }
}

#[test]
fn a_stream_is_asked_for_in_the_body_or_in_the_address() {
    let [openai, azure, mistral, anthropic, gemini, vertex, bedrock] = dialects();
    let usage = json!({ "include_usage": true });
    for (dialect, path, stream, options) in [
        (&openai, "/v1/chat/completions", json!(true), usage.clone()),
        (
            &azure,
            "/openai/deployments/gpt/chat/completions?api-version=2024-10-21",
            json!(true),
            usage,
        ),
        (&mistral, "/v1/chat/completions", json!(true), Value::Null),
        (&anthropic, "/v1/messages", json!(true), Value::Null),
        (&gemini, "/v1/models/m:streamGenerateContent?alt=sse", Value::Null, Value::Null),
        (
            &vertex,
            "/v1/projects/p/locations/r/publishers/google/models/m:streamGenerateContent?alt=sse",
            Value::Null,
            Value::Null,
        ),
        (&bedrock, "/model/m/converse-stream", Value::Null, Value::Null),
    ] {
        let call = dialect.call_streamed("m", &hello()).unwrap();
        let mut body: Value = serde_json::from_slice(&call.body).unwrap();
        let name = dialect.name();
        assert_eq!((call.path.as_str(), &body["stream"]), (path, &stream), "{name}");
        assert_eq!(body["stream_options"], options, "{name}");
        let map = body.as_object_mut().unwrap();
        map.retain(|key, _| !key.starts_with("stream"));
        assert_eq!(body, self::body(dialect, &hello()), "{name}: nothing else is different");
    }
    let kinds: Vec<&str> = dialects().iter().map(Dialect::stream_type).collect();
    assert_eq!(kinds[..6], ["text/event-stream"; 6]);
    assert_eq!(kinds[6], "application/vnd.amazon.eventstream");
}

#[test]
fn a_model_is_called_as_googles_own_lists_call_it() {
    let [.., gemini, vertex, _] = dialects();
    for dialect in [gemini, vertex] {
        let path = dialect.call("models/gemini-x", &hello()).unwrap().path;
        assert_eq!(path, dialect.call("gemini-x", &hello()).unwrap().path);
        assert!(path.ends_with("/models/gemini-x:generateContent"), "{path}");
    }
}

#[test]
fn hidden_thoughts_go_back_as_they_came() {
    let turns = vec![
        Turn::User(vec![Part::Text("a".to_owned())]),
        Turn::Model(vec![Said::Redacted("c2VjcmV0".to_owned()), Said::Text("b".to_owned())]),
        Turn::User(vec![Part::Text("c".to_owned())]),
    ];
    let conversation = Conversation { turns, ..Conversation::default() };
    let [openai, _, _, anthropic, gemini, _, bedrock] = dialects();
    let block = json!({ "type": "redacted_thinking", "data": "c2VjcmV0" });
    assert_eq!(body(&anthropic, &conversation)["messages"][1]["content"][0], block);
    let block = json!({ "reasoningContent": { "redactedContent": "c2VjcmV0" } });
    assert_eq!(body(&bedrock, &conversation)["messages"][1]["content"][0], block);
    for dialect in [openai, gemini] {
        assert!(!body(&dialect, &conversation).to_string().contains("c2VjcmV0"));
    }
}

#[test]
fn numbers_go_out_as_they_were_written() {
    let sampling = Sampling { temperature: Some(0.7), top_p: Some(0.1), ..Sampling::default() };
    let conversation = Conversation { sampling, ..hello() };
    for dialect in dialects() {
        let body = body(&dialect, &conversation).to_string();
        assert!(body.contains(":0.7") && body.contains(":0.1"), "{body}");
    }
}

#[test]
fn any_object_is_asked_for_where_there_is_a_word_for_it() {
    let schema = json!({ "type": "object" });
    let output = Output::Json { name: "object".to_owned(), schema: schema.clone() };
    let conversation = Conversation { output, ..hello() };
    let [openai, azure, mistral, anthropic, gemini, _, bedrock] = dialects();
    for dialect in [openai, azure, mistral] {
        let format = &body(&dialect, &conversation)["response_format"];
        assert_eq!(*format, json!({ "type": "json_object" }), "{}", dialect.name());
    }
    let config = &body(&gemini, &conversation)["generationConfig"];
    assert_eq!(
        (&config["responseMimeType"], &config["responseJsonSchema"]),
        (&json!("application/json"), &schema)
    );
    for dialect in [anthropic, bedrock] {
        dialect.call("m", &conversation).expect_err("closed, it could only be empty");
    }
}

#[test]
fn a_strict_tool_is_one_where_there_is_a_mark_for_it() {
    let parameters = json!({ "type": "object", "properties":
        { "city": { "type": "string", "maxLength": 9 } }, "required": ["city"],
        "additionalProperties": false });
    let (name, description) = ("weather".to_owned(), "of a city".to_owned());
    let tool = Tool { name, description, parameters, strict: true };
    let conversation = Conversation { tools: vec![tool.clone()], ..hello() };
    let [openai, _, mistral, anthropic, gemini, _, bedrock] = dialects();
    for dialect in [openai, mistral] {
        assert_eq!(body(&dialect, &conversation)["tools"][0]["function"]["strict"], true);
    }
    let tools = &body(&anthropic, &conversation)["tools"][0];
    let plain = json!({ "type": "string" });
    assert_eq!(
        (&tools["strict"], &tools["input_schema"]["properties"]["city"]),
        (&json!(true), &plain)
    );
    let spec = &body(&bedrock, &conversation)["toolConfig"]["tools"][0]["toolSpec"];
    assert_eq!(
        (&spec["strict"], &spec["inputSchema"]["json"]["properties"]["city"]),
        (&json!(true), &plain)
    );
    let declared = &body(&gemini, &conversation)["tools"][0]["functionDeclarations"][0];
    assert_eq!(declared["parametersJsonSchema"], tool.parameters);
    let loose = Conversation { tools: vec![Tool { strict: false, ..tool }], ..hello() };
    for dialect in dialects() {
        assert!(!body(&dialect, &loose).to_string().contains("strict"), "{}", dialect.name());
    }
}
