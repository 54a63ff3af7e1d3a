//! What every protocol makes of the options that OpenAI's clients set, from the body that they send to the
//! body that is sent on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use holdfast_chat::served::{completion, responses};
use holdfast_chat::{Conversation, Dialect};
use serde_json::{Value, json};

/// What a protocol makes of an option.
enum Made {
    /// It puts these at these places.
    At(&'static [(&'static str, Value)]),
    /// Nothing: the body is the same as without it.
    Same,
    /// An error that says so.
    Unfit(&'static str),
}

use Made::{At, Same, Unfit};

fn dialect(name: &str) -> Dialect {
    match name {
        "openai" => Dialect::OpenAi,
        "azure-openai" => {
            Dialect::AzureOpenAi { deployment: "gpt".into(), api_version: "2024-10-21".into() }
        }
        "mistral" => Dialect::Mistral,
        "anthropic" => Dialect::Anthropic,
        "gemini" => Dialect::Gemini,
        "vertex" => Dialect::Vertex { project: "p".into(), region: "r".into() },
        _ => Dialect::Bedrock { region: "r".into() },
    }
}

fn merged(mut body: Value, more: &Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

/// The conversation of a chat completion with these fields more.
fn chat(more: &Value) -> Conversation {
    let body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hello" }] });
    let asked = completion::read(merged(body, more).to_string().as_bytes());
    asked.unwrap_or_else(|refusal| panic!("{more}: {refusal}")).conversation
}

fn tools() -> Value {
    json!([{ "type": "function", "function": { "name": "f" } }])
}

fn body(dialect: &Dialect, model: &str, conversation: &Conversation) -> Result<Value, String> {
    let call = dialect.call(model, conversation).map_err(|unfit| unfit.to_string())?;
    Ok(serde_json::from_slice(&call.body).unwrap())
}

/// Checks what `protocol` makes of `option` beside `base`, for `model`.
fn check(protocol: &str, model: &str, base: &Value, option: &Value, want: &Made) {
    let case = format!("{protocol} {model}: {option}");
    let dialect = dialect(protocol);
    let without = body(&dialect, model, &chat(base)).unwrap();
    let with = body(&dialect, model, &chat(&merged(base.clone(), option)));
    match want {
        Unfit(why) => {
            let error = with.expect_err(&case);
            assert_eq!(
                error,
                format!("{protocol} cannot be asked that: it has no {why}"),
                "{case}"
            );
        }
        Same => assert_eq!(with.expect(&case), without, "{case}"),
        At(places) => {
            let mut with = with.expect(&case);
            for (place, value) in *places {
                assert_eq!(with.pointer(place), Some(value), "{case} at {place}: {with}");
                // What the other side has there, or nothing.
                remove(&mut with, place);
            }
            let mut without = without;
            for (place, _) in *places {
                remove(&mut without, place);
            }
            assert_eq!(with, without, "{case}: nothing else is different");
        }
    }
}

/// Takes out what is at a place, and what is empty then.
fn remove(body: &mut Value, place: &str) {
    let Some((above, key)) = place.rsplit_once('/') else { return };
    if let Some(map) = body.pointer_mut(above).and_then(Value::as_object_mut) {
        map.remove(key);
        if map.is_empty() && !above.is_empty() {
            remove(body, above);
        }
    }
}

/// Everybody's table of one option: those that are not named make nothing of it.
fn table(base: &Value, option: &Value, rows: &[(&str, &str, Made)]) {
    for (protocol, model, want) in rows {
        check(protocol, model, base, option, want);
    }
    let named: Vec<&str> = rows.iter().map(|(protocol, ..)| *protocol).collect();
    let all = ["openai", "azure-openai", "mistral", "anthropic", "gemini", "vertex", "bedrock"];
    for protocol in all.into_iter().filter(|protocol| !named.contains(protocol)) {
        check(protocol, "m", base, option, &Same);
    }
}

macro_rules! at {
    ($($place:literal: $value:tt),* $(,)?) => {
        At(Box::leak(Box::new([$(($place, json!($value))),*])))
    };
}

#[test]
fn an_effort_is_said_in_each_providers_words() {
    let level = |word: &'static str| {
        At(Box::leak(Box::new([(
            "/generationConfig/thinkingConfig",
            json!({ "thinkingLevel": word }),
        )])))
    };
    let budget = |tokens: u32| {
        At(Box::leak(Box::new([(
            "/generationConfig/thinkingConfig",
            json!({ "thinkingBudget": tokens }),
        )])))
    };
    let said = |word: &'static str| At(Box::leak(Box::new([("/reasoning_effort", json!(word))])));
    let claude = |word: &'static str, most: u32| {
        At(Box::leak(Box::new([
            ("/thinking", json!({ "type": "adaptive" })),
            ("/output_config", json!({ "effort": word })),
            ("/max_tokens", json!(most)),
        ])))
    };
    let older = |budget: u32, most: u32| {
        At(Box::leak(Box::new([
            ("/thinking", json!({ "type": "enabled", "budget_tokens": budget })),
            ("/max_tokens", json!(most)),
        ])))
    };
    let converse = |word: &'static str| {
        At(Box::leak(Box::new([("/outputConfig", json!({ "effort": word }))])))
    };
    let thinking = |word: &'static str| {
        At(Box::leak(Box::new([
            ("/outputConfig", json!({ "effort": word })),
            ("/additionalModelRequestFields", json!({ "thinking": { "type": "adaptive" } })),
        ])))
    };
    let (opus, sonnet) = ("claude-opus-5", "claude-sonnet-4-5-20250929");
    let (on_bedrock, older_there) =
        ("eu.anthropic.claude-opus-4-7", "anthropic.claude-3-7-sonnet-20250219-v1:0");
    for (word, least, level_word, tokens) in [
        ("minimal", "low", "MINIMAL", 1024),
        ("low", "low", "LOW", 1024),
        ("medium", "medium", "MEDIUM", 8192),
        ("high", "high", "HIGH", 24_576),
        ("xhigh", "xhigh", "XHIGH", 24_576),
        ("max", "max", "XHIGH", 24_576),
    ] {
        let fields = json!({ "thinking": { "type": "enabled", "budget_tokens": tokens } });
        let fields = Box::leak(Box::new([("/additionalModelRequestFields", fields)]));
        let rows = [
            ("openai", "gpt-5", said(word)),
            ("azure-openai", "gpt-5", said(word)),
            ("mistral", "mistral-small", said(word)),
            ("anthropic", opus, claude(least, 4096 + tokens)),
            ("anthropic", sonnet, older(tokens, 4096 + tokens)),
            ("gemini", "gemini-3-flash", level(level_word)),
            ("gemini", "gemini-2.5-flash", budget(tokens)),
            ("vertex", "gemini-3-pro", level(level_word)),
            ("vertex", "gemini-2.5-pro", budget(tokens)),
            ("bedrock", "openai.gpt-oss-120b-1:0", converse(least)),
            ("bedrock", on_bedrock, thinking(least)),
            ("bedrock", older_there, At(fields)),
        ];
        table(&json!({}), &json!({ "reasoning_effort": word }), &rows);
    }
    let off = json!({ "type": "disabled" });
    let rows = [
        ("openai", "gpt-5", said("none")),
        ("azure-openai", "gpt-5", said("none")),
        ("mistral", "mistral-small", said("none")),
        ("anthropic", opus, At(Box::leak(Box::new([("/thinking", off.clone())])))),
        ("gemini", "gemini-3-flash", Unfit("way not to think")),
        ("gemini", "gemini-2.5-flash", budget(0)),
        ("vertex", "gemini-3-pro", Unfit("way not to think")),
        ("bedrock", "openai.gpt-oss-120b-1:0", Unfit("way not to think")),
        (
            "bedrock",
            on_bedrock,
            at!["/additionalModelRequestFields": { "thinking": { "type": "disabled" } }],
        ),
    ];
    table(&json!({}), &json!({ "reasoning_effort": "none" }), &rows);
}

#[test]
fn a_claude_that_cannot_think_beforehand_is_told_the_effort_alone() {
    let alone = || at!["/output_config": { "effort": "high" }, "/max_tokens": 28_672];
    let older = "thoughts beside a temperature, a top_p, a top_k or a tool that has to be called";
    let option = json!({ "reasoning_effort": "high" });
    for base in [
        json!({ "temperature": 0.5 }),
        json!({ "top_p": 0.9 }),
        json!({ "top_k": 5 }),
        json!({ "tools": tools(), "tool_choice": "required" }),
        json!({ "tools": tools(), "tool_choice": { "type": "function", "function": { "name": "f" } } }),
    ] {
        check("anthropic", "claude-opus-4-6", &base, &option, &alone());
        check("anthropic", "claude-sonnet-4-20250514", &base, &option, &Unfit(older));
    }
    // What is so anyway stands in no way.
    let thinking = || {
        at!["/thinking": { "type": "adaptive" }, "/output_config": { "effort": "high" },
            "/max_tokens": 28_672]
    };
    for base in [json!({ "temperature": 1, "top_p": 1 }), json!({ "tools": tools() })] {
        check("anthropic", "claude-opus-4-6", &base, &option, &thinking());
    }
    // Thoughts and answer have what was asked for together.
    for (most, budget) in [(1025, 1024), (4000, 2000), (100_000, 24_576)] {
        let base = json!({ "max_tokens": most });
        let want = json!({ "type": "enabled", "budget_tokens": budget });
        let want = At(Box::leak(Box::new([("/thinking", want)])));
        check("anthropic", "claude-opus-4-1", &base, &option, &want);
    }
    let room = Unfit("room for thoughts in an answer of up to 1024 tokens");
    check("anthropic", "claude-opus-4-1", &json!({ "max_tokens": 1024 }), &option, &room);
}

#[test]
fn thoughts_are_told_where_the_provider_leaves_the_choice() {
    let asked = |reasoning: Value| {
        let body = json!({ "model": "m", "input": "x", "reasoning": reasoning });
        responses::read(body.to_string().as_bytes()).unwrap().conversation
    };
    let summary = asked(json!({ "summary": "detailed" }));
    assert_eq!(summary, asked(json!({ "generate_summary": "concise" })));
    let both = asked(json!({ "effort": "low", "summary": "auto" }));
    let body = |protocol: &str, model: &str, conversation: &Conversation| {
        body(&dialect(protocol), model, conversation).unwrap()
    };
    let gemini = |conversation: &Conversation, model: &str| {
        body("gemini", model, conversation)["generationConfig"]["thinkingConfig"].clone()
    };
    assert_eq!(gemini(&summary, "gemini-3-pro"), json!({ "includeThoughts": true }));
    let want = json!({ "includeThoughts": true, "thinkingLevel": "LOW" });
    assert_eq!(gemini(&both, "gemini-3-pro"), want);
    let want = json!({ "includeThoughts": true, "thinkingBudget": 1024 });
    assert_eq!(gemini(&both, "gemini-2.5-pro"), want);
    let want = json!({ "type": "adaptive", "display": "summarized" });
    assert_eq!(body("anthropic", "claude-opus-5", &both)["thinking"], want);
    assert_eq!(body("anthropic", "claude-opus-5", &summary)["thinking"], Value::Null);
    let fields = &body("bedrock", "anthropic.claude-opus-5", &both)["additionalModelRequestFields"];
    assert_eq!(fields["thinking"], want);
    let bare = asked(json!({}));
    for protocol in ["openai", "mistral", "anthropic", "bedrock"] {
        assert_eq!(body(protocol, "m", &summary), body(protocol, "m", &bare), "{protocol}");
    }
}

#[test]
fn how_many_words_is_said_to_those_who_know_it() {
    for word in ["low", "high"] {
        let said = || At(Box::leak(Box::new([("/verbosity", json!(word))])));
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
        json!({ "user": "u" }),
        json!({ "safety_identifier": "s" }),
        json!({ "prompt_cache_key": "k" }),
        json!({ "prediction": { "type": "content", "content": "x" } }),
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
            At(Box::leak(Box::new([(place, json!(word))])))
        };
        let all =
            || At(Box::leak(Box::new([("/generationConfig/mediaResolution", json!(resolution))])));
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
