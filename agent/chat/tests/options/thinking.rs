//! Efforts and thoughts, in each provider's words.

use holdfast_chat::Conversation;
use holdfast_chat::served::responses;
use serde_json::{Value, json};

use crate::table::Made::{At, Unfit};
use crate::table::{at, body, check, dialect, table, tools};

#[test]
fn an_effort_is_said_in_each_providers_words() {
    let level = |word: &'static str| {
        At(vec![("/generationConfig/thinkingConfig", json!({ "thinkingLevel": word }))])
    };
    let budget = |tokens: u32| {
        At(vec![("/generationConfig/thinkingConfig", json!({ "thinkingBudget": tokens }))])
    };
    let said = |word: &'static str| At(vec![("/reasoning_effort", json!(word))]);
    let claude = |word: &'static str, most: u32| {
        At(vec![
            ("/thinking", json!({ "type": "adaptive" })),
            ("/output_config", json!({ "effort": word })),
            ("/max_tokens", json!(most)),
        ])
    };
    let older = |budget: u32, most: u32| {
        At(vec![
            ("/thinking", json!({ "type": "enabled", "budget_tokens": budget })),
            ("/max_tokens", json!(most)),
        ])
    };
    let converse = |word: &'static str| At(vec![("/outputConfig", json!({ "effort": word }))]);
    let thinking = |word: &'static str| {
        At(vec![
            ("/outputConfig", json!({ "effort": word })),
            ("/additionalModelRequestFields", json!({ "thinking": { "type": "adaptive" } })),
        ])
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
        let fields = vec![("/additionalModelRequestFields", fields)];
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
        ("anthropic", opus, At(vec![("/thinking", off.clone())])),
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
    // An older one does not go on from a call of its own without the thoughts that came before it.
    let call =
        json!({ "id": "c", "type": "function", "function": { "name": "f", "arguments": "{}" } });
    let seal = json!([{ "type": "thinking", "thinking": "hm", "signature": "s" }]);
    let going_on = |blocks: &Value| {
        json!({ "tools": tools(), "messages": [{ "role": "user", "content": "x" },
            { "role": "assistant", "tool_calls": [call], "thinking_blocks": blocks },
            { "role": "tool", "tool_call_id": "c", "content": "y" }] })
    };
    let older = "claude-haiku-4-5";
    check("anthropic", "claude-opus-4-6", &going_on(&Value::Null), &option, &thinking());
    let want =
        at!["/thinking": { "type": "enabled", "budget_tokens": 24_576 }, "/max_tokens": 28_672];
    check("anthropic", older, &going_on(&seal), &option, &want);
    check("anthropic", older, &going_on(&Value::Null), &option, &at!["/max_tokens": 28_672]);
    // Thoughts and answer have what was asked for together.
    for (most, budget) in [(1025, 1024), (4000, 2000), (100_000, 24_576)] {
        let base = json!({ "max_tokens": most });
        let want = json!({ "type": "enabled", "budget_tokens": budget });
        let want = At(vec![("/thinking", want)]);
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
