//! What every protocol makes of the options that OpenAI's clients set, from the body that they send to the
//! body that is sent on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod table;
mod thinking;

use holdfast_chat::Conversation;
use serde_json::{Value, json};

use crate::table::Made::{At, Same, Unfit};
use crate::table::{Made, at, body, chat, check, dialect, table, tools};

#[test]
fn how_many_words_is_said_to_those_who_know_it() {
    for word in ["low", "high"] {
        let said = || At(vec![("/verbosity", json!(word))]);
        let no = || Unfit("verbosity");
        table(
            &json!({}),
            &json!({ "verbosity": word }),
            &[
                ("openai", "m", said()),
                ("azure-openai", "m", said()),
                ("mistral", "m", no()),
                ("anthropic", "m", no()),
                ("gemini", "m", no()),
                ("vertex", "m", no()),
                ("bedrock", "m", no()),
            ],
        );
    }
    table(&json!({}), &json!({ "verbosity": "medium" }), &[]);
}

#[test]
fn tools_are_called_one_at_a_time_where_that_can_be_asked() {
    let alone = json!({ "parallel_tool_calls": false });
    let no = || Unfit("way to have tools called one at a time");
    let rows = |choice: Made| {
        [
            ("openai", "m", at!["/parallel_tool_calls": false]),
            ("azure-openai", "m", at!["/parallel_tool_calls": false]),
            ("mistral", "m", at!["/parallel_tool_calls": false]),
            ("anthropic", "m", choice),
            ("gemini", "m", no()),
            ("vertex", "m", no()),
            ("bedrock", "m", no()),
        ]
    };
    let free = at!["/tool_choice": { "type": "auto", "disable_parallel_tool_use": true }];
    table(&json!({ "tools": tools() }), &alone, &rows(free));
    let forced = at!["/tool_choice": { "type": "any", "disable_parallel_tool_use": true }];
    table(&json!({ "tools": tools(), "tool_choice": "required" }), &alone, &rows(forced));
    let named = at!["/tool_choice":
        { "type": "tool", "name": "f", "disable_parallel_tool_use": true }];
    let choice = json!({ "type": "function", "function": { "name": "f" } });
    table(&json!({ "tools": tools(), "tool_choice": choice }), &alone, &rows(named));
    // Where none is called, none is called beside another.
    let said = || at!["/parallel_tool_calls": false];
    let rows = [("openai", "m", said()), ("azure-openai", "m", said()), ("mistral", "m", said())];
    table(&json!({ "tools": tools(), "tool_choice": "none" }), &alone, &rows);
    // OpenAI refuses it where there are no tools.
    table(&json!({}), &alone, &[]);
    let said = || at!["/parallel_tool_calls": true];
    let rows = [("openai", "m", said()), ("azure-openai", "m", said()), ("mistral", "m", said())];
    table(&json!({ "tools": tools() }), &json!({ "parallel_tool_calls": true }), &rows);
}

#[test]
fn what_is_so_anyway_or_changes_no_answer_is_taken_and_not_sent() {
    for option in [
        json!({ "store": false }),
        json!({ "n": 1 }),
        json!({ "service_tier": "auto" }),
        json!({ "service_tier": "default" }),
        json!({ "logprobs": false, "top_logprobs": 0 }),
        json!({ "logit_bias": {} }),
        json!({ "modalities": ["text"] }),
        json!({ "metadata": { "a": "b" } }),
        json!({ "stream": true, "stream_options": { "include_usage": true } }),
        json!({ "response_format": { "type": "text" } }),
        json!({ "tools": [], "tool_choice": "auto" }),
        json!({ "stop": null, "tools": null, "tool_choice": null, "response_format": null,
            "stream_options": null, "logit_bias": null, "seed": null, "max_tokens": null,
            "reasoning_effort": null, "parallel_tool_calls": null, "web_search_options": null }),
        json!({ "messages": [{ "role": "user", "content": [{ "type": "text", "text": "hello" }] }] }),
        json!({ "messages": [{ "role": "user", "content": "hello", "name": null }] }),
    ] {
        table(&json!({}), &option, &[]);
    }
    // Penalties of 0 are none, and all words are all of them, also where there are no such words.
    for protocol in ["anthropic", "bedrock"] {
        let none = json!({ "presence_penalty": 0, "frequency_penalty": 0.0, "top_p": 1 });
        check(protocol, "m", &json!({}), &none, &Same);
    }
    check("anthropic", "m", &json!({}), &json!({ "temperature": 1 }), &Same);
    let call = dialect("anthropic").call("m", &chat(&json!({ "temperature": 1, "top_p": 1 })));
    assert_eq!(call.unwrap().headers, [("anthropic-version", "2026-10-21".to_owned())]);
}

#[test]
fn who_asks_and_what_to_expect_is_told_to_whoever_has_a_field_for_it() {
    let both =
        |said: &dyn Fn() -> Made| vec![("openai", "m", said()), ("azure-openai", "m", said())];
    let mut rows = both(&|| at!["/user": "u"]);
    rows.push(("anthropic", "m", at!["/metadata/user_id": "u"]));
    table(&json!({}), &json!({ "user": "u" }), &rows);
    let mut rows = both(&|| at!["/safety_identifier": "s"]);
    rows.push(("anthropic", "m", at!["/metadata/user_id": "s"]));
    table(&json!({}), &json!({ "safety_identifier": "s" }), &rows);
    // Of two names the one that is made for it.
    table(&json!({ "user": "u" }), &json!({ "safety_identifier": "s" }), &rows);
    let mut rows = both(&|| at!["/prompt_cache_key": "k"]);
    rows.push(("mistral", "m", at!["/prompt_cache_key": "k"]));
    table(&json!({}), &json!({ "prompt_cache_key": "k" }), &rows);
    let pieces = json!([{ "type": "text", "text": "x" }, { "type": "text", "text": "y" }]);
    for content in [json!("xy"), pieces] {
        let said = || at!["/prediction": { "type": "content", "content": "xy" }];
        let mut rows = both(&said);
        rows.push(("mistral", "m", said()));
        let option = json!({ "prediction": { "type": "content", "content": content } });
        table(&json!({}), &option, &rows);
    }
}

#[test]
fn a_limit_has_one_name_each() {
    let rows = || {
        [
            ("openai", "m", at!["/max_completion_tokens": 5]),
            ("azure-openai", "m", at!["/max_completion_tokens": 5]),
            ("mistral", "m", at!["/max_tokens": 5]),
            ("anthropic", "m", at!["/max_tokens": 5]),
            ("gemini", "m", at!["/generationConfig/maxOutputTokens": 5]),
            ("vertex", "m", at!["/generationConfig/maxOutputTokens": 5]),
            ("bedrock", "m", at!["/inferenceConfig/maxTokens": 5]),
        ]
    };
    for option in [
        json!({ "max_tokens": 5 }),
        json!({ "max_completion_tokens": 5 }),
        json!({ "max_tokens": 5, "max_completion_tokens": 5 }),
    ] {
        table(&json!({}), &option, &rows());
    }
}

fn picture(detail: &str) -> Value {
    json!({ "type": "image_url", "image_url":
        { "url": "data:image/png;base64,YWJj", "detail": detail } })
}

fn saying(content: Value) -> Value {
    json!({ "messages": [{ "role": "user", "content": content }] })
}

#[test]
fn a_pictures_detail_goes_where_there_is_one() {
    let base = saying(json!([picture("auto")]));
    for (detail, of_mistral, resolution) in [
        ("low", "low", "MEDIA_RESOLUTION_LOW"),
        ("high", "high", "MEDIA_RESOLUTION_HIGH"),
        ("original", "high", "MEDIA_RESOLUTION_HIGH"),
    ] {
        let said = |word: &'static str| {
            let place = "/messages/0/content/0/image_url/detail";
            At(vec![(place, json!(word))])
        };
        let all = || At(vec![("/generationConfig/mediaResolution", json!(resolution))]);
        let rows = [
            ("openai", "m", said(detail)),
            ("azure-openai", "m", said(detail)),
            ("mistral", "m", said(of_mistral)),
            ("gemini", "m", all()),
            ("vertex", "m", all()),
        ];
        table(&base, &saying(json!([picture(detail)])), &rows);
    }
    for (details, want) in [
        (["low", "low"], json!("MEDIA_RESOLUTION_LOW")),
        (["low", "auto"], Value::Null),
        (["low", "high"], json!("MEDIA_RESOLUTION_HIGH")),
        (["auto", "original"], json!("MEDIA_RESOLUTION_HIGH")),
    ] {
        let asked = chat(&saying(details.into_iter().map(picture).collect()));
        let body = body(&dialect("gemini"), "m", &asked).unwrap();
        assert_eq!(body["generationConfig"]["mediaResolution"], want, "{details:?}");
    }
}

#[test]
fn who_speaks_is_a_name_or_said_before_the_words() {
    let named = json!({ "messages": [
        { "role": "user", "name": "Bob", "content": "hi" },
        { "role": "assistant", "name": "Eve", "content": "yes?" },
        { "role": "user", "name": "Al", "content": [{ "type": "text", "text": "ho" }] }] });
    let conversation = chat(&named);
    let told = |protocol: &str| body(&dialect(protocol), "m", &conversation).unwrap();
    let text = |text: &str| json!({ "type": "text", "text": text });
    for protocol in ["openai", "azure-openai"] {
        let want = json!([{ "role": "user", "content": "hi", "name": "Bob" },
            { "role": "assistant", "content": "yes?" },
            { "role": "user", "content": "ho", "name": "Al" }]);
        assert_eq!(told(protocol)["messages"], want, "{protocol}");
    }
    for (protocol, at) in [("mistral", 0), ("anthropic", 0)] {
        let want = json!([text("Bob:"), text("hi")]);
        assert_eq!(told(protocol)["messages"][at]["content"], want, "{protocol}");
    }
    let want = json!([{ "text": "Bob:" }, { "text": "hi" }]);
    assert_eq!(told("gemini")["contents"][0]["parts"], want);
    assert_eq!(told("vertex")["contents"][0]["parts"], want);
    assert_eq!(told("bedrock")["messages"][0]["content"], want);
}

#[test]
fn ids_of_calls_are_ones_that_the_provider_takes() {
    let long = "x".repeat(65);
    let mut messages = vec![json!({ "role": "user", "content": "hello" })];
    // Of OpenAI, of Anthropic, of Mistral, of another server, one too long, and two the same again.
    let ids = [
        "call_abcdefghijklmnopqrstuvwx",
        "toolu_01A09q90qw90lq917835lq9",
        "abcDEF123",
        "functions.f:0",
        long.as_str(),
        "call-0",
        "call-0",
    ];
    for id in ids {
        let function = json!({ "name": "f", "arguments": "{}" });
        let call = json!({ "id": id, "type": "function", "function": function });
        messages.push(json!({ "role": "assistant", "content": null, "tool_calls": [call] }));
        messages.push(json!({ "role": "tool", "tool_call_id": id, "content": "x" }));
    }
    let conversation = chat(&json!({ "messages": messages, "tools": tools() }));
    for (protocol, called, told, is_taken, stay) in [
        (
            "mistral",
            "/messages/{}/tool_calls/0/id",
            "/messages/{}/tool_call_id",
            (|id: &str| id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()))
                as fn(&str) -> bool,
            &[2][..],
        ),
        (
            "anthropic",
            "/messages/{}/content/0/id",
            "/messages/{}/content/0/tool_use_id",
            |id| is_plain(id),
            &[0, 1, 2, 5],
        ),
        (
            "bedrock",
            "/messages/{}/content/0/toolUse/toolUseId",
            "/messages/{}/content/0/toolResult/toolUseId",
            |id| is_plain(id),
            &[0, 1, 2, 5],
        ),
        (
            "openai",
            "/messages/{}/tool_calls/0/id",
            "/messages/{}/tool_call_id",
            |id| id.len() <= 40,
            &[0, 1, 2, 3, 5, 6],
        ),
        (
            "gemini",
            "/contents/{}/parts/0/functionCall/id",
            "/contents/{}/parts/0/functionResponse/id",
            |_| true,
            &[0, 1, 2, 3, 4, 5, 6],
        ),
    ] {
        let body = body(&dialect(protocol), "m", &conversation).unwrap();
        assert_eq!(body, self::body(&dialect(protocol), "m", &conversation).unwrap(), "{protocol}");
        let mut all = Vec::new();
        for (at, id) in ids.into_iter().enumerate() {
            let place = |form: &str, index: usize| form.replace("{}", &index.to_string());
            let sent = body.pointer(&place(called, 2 * at + 1)).unwrap().as_str().unwrap();
            let back = body.pointer(&place(told, 2 * at + 2)).unwrap().as_str().unwrap();
            assert_eq!(sent, back, "{protocol} {id}");
            assert!(is_taken(sent), "{protocol} {id}: {sent}");
            assert_eq!(sent == id, stay.contains(&at), "{protocol} {id}: {sent}");
            all.push(sent);
        }
        all.sort_unstable();
        all.dedup();
        let is_apart = protocol != "openai" && protocol != "gemini";
        assert_eq!(all.len() == ids.len(), is_apart, "{protocol}: {all:?}");
    }
}

fn is_plain(id: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=64).contains(&id.len()) && id.bytes().all(is_plain)
}

/// Rows for all, in the order of the names: OpenAI and Azure, Mistral, Anthropic, Gemini and Vertex, Bedrock.
fn rows(of: [fn() -> Made; 5]) -> [(&'static str, &'static str, Made); 7] {
    let [openai, mistral, anthropic, google, bedrock] = of;
    [
        ("openai", "m", openai()),
        ("azure-openai", "m", openai()),
        ("mistral", "m", mistral()),
        ("anthropic", "m", anthropic()),
        ("gemini", "m", google()),
        ("vertex", "m", google()),
        ("bedrock", "m", bedrock()),
    ]
}

#[test]
fn how_words_are_chosen_is_said_in_each_providers_words() {
    for (option, of) in [
        (
            json!({ "seed": 7 }),
            rows([
                || at!["/seed": 7],
                || at!["/random_seed": 7],
                || Unfit("seed"),
                || at!["/generationConfig/seed": 7],
                || Unfit("seed"),
            ]),
        ),
        (
            json!({ "presence_penalty": 0.5 }),
            rows([
                || at!["/presence_penalty": 0.5],
                || at!["/presence_penalty": 0.5],
                || Unfit("presence_penalty"),
                || at!["/generationConfig/presencePenalty": 0.5],
                || Unfit("presence_penalty"),
            ]),
        ),
        (
            json!({ "frequency_penalty": -0.5 }),
            rows([
                || at!["/frequency_penalty": (-0.5)],
                || at!["/frequency_penalty": (-0.5)],
                || Unfit("frequency_penalty"),
                || at!["/generationConfig/frequencyPenalty": (-0.5)],
                || Unfit("frequency_penalty"),
            ]),
        ),
        (
            json!({ "stop": "END" }),
            rows([
                || at!["/stop": ["END"]],
                || at!["/stop": ["END"]],
                || at!["/stop_sequences": ["END"]],
                || at!["/generationConfig/stopSequences": ["END"]],
                || at!["/inferenceConfig/stopSequences": ["END"]],
            ]),
        ),
        (
            json!({ "temperature": 0.3, "top_p": 0.9 }),
            rows([
                || at!["/temperature": 0.3, "/top_p": 0.9],
                || at!["/temperature": 0.3, "/top_p": 0.9],
                || at!["/temperature": 0.3, "/top_p": 0.9],
                || at!["/generationConfig": { "temperature": 0.3, "topP": 0.9 }],
                || at!["/inferenceConfig": { "temperature": 0.3, "topP": 0.9 }],
            ]),
        ),
        (
            json!({ "top_k": 5 }),
            rows([
                || Unfit("top_k"),
                || at!["/top_k": 5],
                || at!["/top_k": 5],
                || at!["/generationConfig/topK": 5],
                || Unfit("top_k"),
            ]),
        ),
    ] {
        table(&json!({}), &option, &of);
    }
}

#[test]
fn a_form_of_the_answer_is_asked_of_all_who_know_it() {
    let schema = || {
        json!({ "type": "object", "properties": { "a": { "type": "string" } }, "required": ["a"],
            "additionalProperties": false })
    };
    let given = json!({ "name": "part", "schema": schema(), "strict": true });
    let option = json!({ "response_format": { "type": "json_schema", "json_schema": given } });
    let leak = |places: Vec<(&'static str, Value)>| At(places);
    let chat = || {
        leak(vec![(
            "/response_format",
            json!({ "type": "json_schema",
                "json_schema": { "name": "part", "schema": schema(), "strict": true } }),
        )])
    };
    let google = || {
        leak(vec![(
            "/generationConfig",
            json!({ "responseMimeType": "application/json", "responseJsonSchema": schema() }),
        )])
    };
    let format = json!({ "type": "json_schema", "schema": schema() });
    let named = json!({ "name": "part", "schema": schema().to_string() });
    let text = json!({ "type": "json_schema", "structure": { "jsonSchema": named } });
    let of = [
        ("openai", "m", chat()),
        ("azure-openai", "m", chat()),
        ("mistral", "m", chat()),
        ("anthropic", "m", leak(vec![("/output_config", json!({ "format": format }))])),
        ("gemini", "m", google()),
        ("vertex", "m", google()),
        ("bedrock", "m", leak(vec![("/outputConfig", json!({ "textFormat": text }))])),
    ];
    table(&json!({}), &option, &of);
    // Beside an effort, which is in the same place.
    let base = json!({ "reasoning_effort": "low" });
    let want = leak(vec![("/output_config/format", format)]);
    check("anthropic", "claude-opus-5", &base, &option, &want);
    let want = leak(vec![("/outputConfig/textFormat", text)]);
    check("bedrock", "anthropic.claude-opus-5", &base, &option, &want);
}

#[test]
fn messages_in_every_form_that_clients_send_are_the_same_conversation() {
    let call = json!({ "id": "abcDEF123", "type": "function",
        "function": { "name": "f", "arguments": "{}" } });
    let plain = chat(&json!({ "tools": tools(), "messages": [
        { "role": "system", "content": "be brief" },
        { "role": "user", "content": "hi" },
        { "role": "assistant", "content": "no" },
        { "role": "user", "content": "ask" },
        { "role": "assistant", "content": null, "tool_calls": [call] },
        { "role": "tool", "tool_call_id": "abcDEF123", "content": "rain" }] }));
    let text = |text: &str| json!([{ "type": "text", "text": text }]);
    let other = chat(&json!({ "tools": tools(), "messages": [
        { "role": "developer", "content": text("be brief") },
        { "role": "user", "content": text("hi") },
        { "role": "assistant", "content": [{ "type": "refusal", "refusal": "no" }], "refusal": null,
            "name": "Eve", "audio": null, "function_call": null, "annotations": [] },
        { "role": "user", "content": text("ask") },
        { "role": "assistant", "content": "", "refusal": "", "tool_calls": [call] },
        { "role": "tool", "tool_call_id": "abcDEF123", "name": "f", "content": text("rain") }] }));
    assert_eq!(other, plain);
    let refused = chat(&json!({ "messages": [
        { "role": "user", "content": "hi" },
        { "role": "assistant", "content": null, "refusal": "no" },
        { "role": "user", "content": "ask" }] }));
    assert_eq!(refused.turns, plain.turns[..3]);
    for protocol in
        ["openai", "azure-openai", "mistral", "anthropic", "gemini", "vertex", "bedrock"]
    {
        let told =
            |conversation: &Conversation| body(&dialect(protocol), "m", conversation).unwrap();
        assert_eq!(told(&other), told(&plain), "{protocol}");
    }
}
