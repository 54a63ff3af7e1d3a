//! What every protocol makes of one conversation, and what it cannot ask.

use bytes::Bytes;
use holdfast_chat::{
    Audio, Conversation, Detail, Dialect, Image, Output, Part, Said, Sampling, Tool, ToolCall,
    ToolChoice, ToolResult, Turn, What,
};
use serde_json::{Value, json};

use crate::{call, dialects};

fn body(dialect: &Dialect, conversation: &Conversation) -> Value {
    let call = dialect.call("m", conversation).expect("it fits");
    serde_json::from_slice(&call.body).expect("a body is JSON")
}

fn asking(part: Part) -> Conversation {
    Conversation { turns: vec![Turn::User(vec![part])], ..Conversation::default() }
}

fn hello() -> Conversation {
    asking(Part::Text("hello".to_owned()))
}

/// A conversation with everything in it: a picture, thoughts, a call and its result.
fn long() -> Conversation {
    let thoughts = Said::Reasoning { text: "hm".to_owned(), signature: Some("sealed".to_owned()) };
    let result = ToolResult {
        id: "call00001".to_owned(),
        name: "weather".to_owned(),
        content: "no such city".to_owned(),
        is_error: true,
    };
    Conversation {
        system: Some("be brief".to_owned()),
        turns: vec![
            Turn::User(vec![
                Part::Text("here".to_owned()),
                Part::Image(Image::Png, Bytes::from_static(b"abc"), Detail::Auto),
            ]),
            Turn::Model(vec![thoughts, Said::Text("I look".to_owned()), Said::Call(call())]),
            Turn::Results(vec![result]),
            Turn::User(vec![Part::Text("and?".to_owned())]),
        ],
        tools: vec![Tool {
            name: "weather".to_owned(),
            description: "of a city".to_owned(),
            parameters: json!({ "type": "object", "properties": { "city": { "type": "string" } } }),
            strict: false,
        }],
        tool_choice: ToolChoice::Named("weather".to_owned()),
        output: Output::Json {
            name: "part".to_owned(),
            schema: json!({ "type": "object", "properties":
                { "sure": { "type": "number", "maximum": 1 } }, "required": ["sure"] }),
        },
        sampling: Sampling { temperature: Some(0.5), top_p: Some(0.75), ..Sampling::default() },
        max_tokens: Some(50),
        stop: vec!["END".to_owned()],
        ..Conversation::default()
    }
}

#[test]
fn chat_completions_have_it_all_in_messages() {
    let parameters = json!({ "type": "object", "properties": { "city": { "type": "string" } } });
    let schema = json!({ "type": "object", "properties":
        { "sure": { "type": "number", "maximum": 1 } }, "required": ["sure"] });
    let function = json!({ "name": "weather", "arguments": "{\"city\":\"Bonn\"}" });
    let mut want = json!({
        "model": "m",
        "messages": [
            { "role": "system", "content": "be brief" },
            { "role": "user", "content": [
                { "type": "text", "text": "here" },
                { "type": "image_url", "image_url": { "url": "data:image/png;base64,YWJj" } },
            ] },
            { "role": "assistant", "content": "I look", "tool_calls":
                [{ "id": "call00001", "type": "function", "function": function }] },
            { "role": "tool", "tool_call_id": "call00001", "content": "Error: no such city" },
            { "role": "user", "content": "and?" },
        ],
        "tools": [{ "type": "function", "function":
            { "name": "weather", "description": "of a city", "parameters": parameters } }],
        "tool_choice": { "type": "function", "function": { "name": "weather" } },
        // An object that is open goes without strict mode.
        "response_format": { "type": "json_schema", "json_schema":
            { "name": "part", "strict": false, "schema": schema } },
        "max_completion_tokens": 50, "temperature": 0.5, "top_p": 0.75, "stop": ["END"],
    });
    let [openai, azure, mistral, ..] = dialects();
    assert_eq!(body(&openai, &long()), want);
    let map = want.as_object_mut().unwrap();
    let most = map.remove("max_completion_tokens").unwrap();
    let mut of_mistral = map.clone();
    of_mistral.insert("max_tokens".to_owned(), most.clone());
    assert_eq!(body(&mistral, &long()), Value::Object(of_mistral));
    map.insert("max_completion_tokens".to_owned(), most);
    map.remove("model");
    assert_eq!(body(&azure, &long()), want, "the deployment is in the address");
}

#[test]
fn anthropic_has_it_in_blocks_of_alternating_roles() {
    let want = json!({
        "model": "m", "max_tokens": 50, "system": "be brief",
        "messages": [
            { "role": "user", "content": [
                { "type": "text", "text": "here" },
                { "type": "image", "source":
                    { "type": "base64", "media_type": "image/png", "data": "YWJj" } },
            ] },
            { "role": "assistant", "content": [
                { "type": "thinking", "thinking": "hm", "signature": "sealed" },
                { "type": "text", "text": "I look" },
                { "type": "tool_use", "id": "call00001", "name": "weather", "input": { "city": "Bonn" } },
            ] },
            { "role": "user", "content": [
                { "type": "tool_result", "tool_use_id": "call00001", "content": "no such city",
                    "is_error": true },
                { "type": "text", "text": "and?" },
            ] },
        ],
        "tools": [{ "name": "weather", "description": "of a city", "input_schema":
            { "type": "object", "properties": { "city": { "type": "string" } } } }],
        "tool_choice": { "type": "tool", "name": "weather" },
        "output_config": { "format": { "type": "json_schema", "schema": {
            "type": "object", "properties": { "sure": { "type": "number" } },
            "required": ["sure"], "additionalProperties": false } } },
        "temperature": 0.5, "top_p": 0.75, "stop_sequences": ["END"],
    });
    assert_eq!(body(&Dialect::Anthropic, &long()), want);
    let call = Dialect::Anthropic.call("m", &hello()).unwrap();
    assert_eq!(call.headers, [("anthropic-version", "2026-10-21".to_owned())]);
    let call = Dialect::Anthropic.call("m", &long()).unwrap();
    let before = [("anthropic-version", "2023-06-01".to_owned())];
    assert_eq!(call.headers, before, "the last version that has a temperature");
    assert_eq!(body(&Dialect::Anthropic, &hello())["max_tokens"], 4096, "it wants a limit");
}

#[test]
fn google_has_it_in_parts_of_alternating_roles() {
    let schema = json!({ "type": "object", "properties":
        { "sure": { "type": "number", "maximum": 1 } }, "required": ["sure"] });
    let want = json!({
        "contents": [
            { "role": "user", "parts": [
                { "text": "here" },
                { "inlineData": { "mimeType": "image/png", "data": "YWJj" } },
            ] },
            { "role": "model", "parts": [
                { "text": "I look" },
                { "functionCall": { "id": "call00001", "name": "weather", "args": { "city": "Bonn" } },
                    "thoughtSignature": "seal" },
            ] },
            { "role": "user", "parts": [
                { "functionResponse": { "id": "call00001", "name": "weather",
                    "response": { "error": "no such city" } } },
                { "text": "and?" },
            ] },
        ],
        "systemInstruction": { "parts": [{ "text": "be brief" }] },
        "tools": [{ "functionDeclarations": [{ "name": "weather", "description": "of a city",
            "parametersJsonSchema":
                { "type": "object", "properties": { "city": { "type": "string" } } } }] }],
        "toolConfig": { "functionCallingConfig":
            { "mode": "ANY", "allowedFunctionNames": ["weather"] } },
        "generationConfig": { "maxOutputTokens": 50, "temperature": 0.5, "topP": 0.75,
            "stopSequences": ["END"], "responseMimeType": "application/json",
            "responseJsonSchema": schema },
    });
    let [.., gemini, vertex, _] = dialects();
    assert_eq!(body(&gemini, &long()), want);
    assert_eq!(body(&vertex, &long()), want);
}

#[test]
fn bedrock_has_it_in_blocks_that_name_their_kind() {
    let schema = json!({ "type": "object", "properties": { "sure": { "type": "number" } },
        "required": ["sure"], "additionalProperties": false });
    let want = json!({
        "messages": [
            { "role": "user", "content": [
                { "text": "here" },
                { "image": { "format": "png", "source": { "bytes": "YWJj" } } },
            ] },
            { "role": "assistant", "content": [
                { "reasoningContent": { "reasoningText": { "text": "hm", "signature": "sealed" } } },
                { "text": "I look" },
                { "toolUse": { "toolUseId": "call00001", "name": "weather",
                    "input": { "city": "Bonn" } } },
            ] },
            { "role": "user", "content": [
                { "toolResult": { "toolUseId": "call00001", "status": "error",
                    "content": [{ "text": "no such city" }] } },
                { "text": "and?" },
            ] },
        ],
        "system": [{ "text": "be brief" }],
        "toolConfig": { "tools": [{ "toolSpec": { "name": "weather", "description": "of a city",
            "inputSchema": { "json":
                { "type": "object", "properties": { "city": { "type": "string" } } } } } }],
            "toolChoice": { "tool": { "name": "weather" } } },
        "outputConfig": { "textFormat": { "type": "json_schema", "structure":
            { "jsonSchema": { "name": "part", "schema": schema.to_string() } } } },
        "inferenceConfig": { "maxTokens": 50, "temperature": 0.5, "topP": 0.75,
            "stopSequences": ["END"] },
    });
    let [.., bedrock] = dialects();
    assert_eq!(body(&bedrock, &long()), want);
}

#[test]
fn a_turn_of_thoughts_alone_leaves_no_gap() {
    let thoughts = Said::Reasoning { text: "hm".to_owned(), signature: None };
    let user = |text: &str| Turn::User(vec![Part::Text(text.to_owned())]);
    let turns = vec![user("a"), Turn::Model(vec![thoughts]), user("b")];
    let conversation = Conversation { turns, ..Conversation::default() };
    let [_, _, _, anthropic, gemini, _, bedrock] = dialects();
    let text = |text: &str| json!({ "type": "text", "text": text });
    let want = json!([{ "role": "user", "content": [text("a"), text("b")] }]);
    assert_eq!(body(&anthropic, &conversation)["messages"], want);
    let parts = json!([{ "text": "a" }, { "text": "b" }]);
    let want = json!([{ "role": "user", "parts": parts }]);
    assert_eq!(body(&gemini, &conversation)["contents"], want);
    let want = json!([{ "role": "user", "content": parts }]);
    assert_eq!(body(&bedrock, &conversation)["messages"], want);
}

#[test]
fn addresses_have_model_deployment_project_and_region() {
    let address = |dialect: &Dialect, base: &str| {
        let call = dialect.call("a/b:0", &hello()).unwrap();
        Dialect::address(base, &call.path)
    };
    let [openai, azure, _, anthropic, gemini, vertex, bedrock] = dialects();
    for (dialect, base, want) in [
        (&openai, "http://h", "http://h/v1/chat/completions"),
        (&openai, "http://h/v1", "http://h/v1/chat/completions"),
        (&openai, "http://h/gpt-v1", "http://h/gpt-v1/v1/chat/completions"),
        (&openai, "http://v1", "http://v1/v1/chat/completions"),
        (&openai, "http://v1/v1", "http://v1/v1/chat/completions"),
        (
            &azure,
            "http://h",
            "http://h/openai/deployments/gpt/chat/completions?api-version=2024-10-21",
        ),
        (&anthropic, "http://h", "http://h/v1/messages"),
        (&gemini, "http://h/v1", "http://h/v1/models/a%2Fb%3A0:generateContent"),
        (
            &vertex,
            "http://h",
            "http://h/v1/projects/p/locations/r/publishers/google/models/a%2Fb%3A0:generateContent",
        ),
        (&bedrock, "http://h/x", "http://h/x/model/a%2Fb%3A0/converse"),
    ] {
        assert_eq!(address(dialect, base), want);
    }
}

#[test]
fn what_a_protocol_does_not_have_is_never_a_call() {
    let sampled = |sampling: Sampling| Conversation { sampling, ..hello() };
    let audio = |kind| asking(Part::Audio(kind, Bytes::from_static(b"x")));
    let gif = asking(Part::Image(Image::Gif, Bytes::from_static(b"x"), Detail::Auto));
    let none = Sampling::default();
    let stops = |count| Conversation { stop: vec!["x".to_owned(); count], ..hello() };
    for (case, conversation, refusing) in [
        ("nothing odd", hello(), &[][..]),
        ("a recording", audio(Audio::Wav), &["anthropic"]),
        ("flac", audio(Audio::Flac), &["openai", "azure-openai", "mistral", "anthropic"]),
        ("a gif", gif, &["gemini", "vertex"]),
        (
            "top_k",
            sampled(Sampling { top_k: Some(4), ..none }),
            &["openai", "azure-openai", "bedrock"],
        ),
        ("a seed", sampled(Sampling { seed: Some(4), ..none }), &["anthropic", "bedrock"]),
        (
            "a penalty",
            sampled(Sampling { presence_penalty: Some(1.0), ..none }),
            &["anthropic", "bedrock"],
        ),
        (
            "a high temperature",
            sampled(Sampling { temperature: Some(1.5), ..none }),
            &["anthropic", "bedrock"],
        ),
        ("five stops", stops(5), &["openai", "azure-openai"]),
        ("six stops", stops(6), &["openai", "azure-openai", "gemini", "vertex"]),
    ] {
        for dialect in dialects() {
            let result = dialect.call("m", &conversation);
            let name = dialect.name();
            assert_eq!(result.is_err(), refusing.contains(&name), "{case} {name}: {result:?}");
            if let Err(unfit) = result {
                assert_eq!(unfit.protocol, name);
                assert!(unfit.to_string().starts_with(&format!("{name} cannot be asked that: ")));
            }
        }
    }
}

#[test]
fn what_is_no_conversation_is_one_nowhere() {
    let turns = |turns: &[Turn]| Conversation { turns: turns.to_vec(), ..Conversation::default() };
    let user = || Turn::User(vec![Part::Text("x".to_owned())]);
    let calls = || Turn::Model(vec![Said::Call(call())]);
    let told = |id: &str| {
        let (name, content) = ("weather".to_owned(), String::new());
        Turn::Results(vec![ToolResult { id: id.to_owned(), name, content, is_error: false }])
    };
    let says = || Turn::Model(vec![Said::Text("x".to_owned())]);
    let tool = |name: &str, parameters: Value| {
        let (name, description) = (name.to_owned(), String::new());
        Conversation {
            tools: vec![Tool { name, description, parameters, strict: false }],
            ..hello()
        }
    };
    for (case, conversation) in [
        ("nothing", turns(&[])),
        ("an empty turn", turns(&[Turn::User(vec![])])),
        ("an empty text", turns(&[Turn::User(vec![Part::Text(String::new())])])),
        ("the model first", turns(&[says(), user()])),
        ("the model last", turns(&[user(), says()])),
        ("a call without its result", turns(&[user(), calls(), user()])),
        ("a result of another call", turns(&[user(), calls(), told("call00002")])),
        ("a result of no call", turns(&[user(), told("call00001")])),
        ("no name", tool("", json!({ "type": "object" }))),
        ("an odd name", tool("a b", json!({ "type": "object" }))),
        ("no object", tool("a", json!({ "type": "string" }))),
    ] {
        for dialect in dialects() {
            assert!(dialect.call("m", &conversation).is_err(), "{case} {}", dialect.name());
        }
    }
    let mut odd = long();
    let said = Said::Call(ToolCall { arguments: json!("no JSON"), ..call() });
    odd.turns[1] = Turn::Model(vec![said]);
    for dialect in dialects() {
        let is_text = ["openai", "azure-openai", "mistral"].contains(&dialect.name());
        match dialect.call("m", &odd) {
            Ok(_) => assert!(is_text, "{}", dialect.name()),
            Err(unfit) => assert_eq!(unfit.what, What::Arguments("weather".to_owned())),
        }
    }
}
