use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use holdfast_chat::served::transcriptions::Form;
use holdfast_chat::{
    Detail, Effort, Image, Output, Said, Thinking, Tool, ToolCall, ToolChoice, ToolResult,
    Verbosity,
};
use serde_json::json;

use super::*;
use crate::queue::RequestId;
use crate::request::{DataClass, IdempotencyKey, Priority};

fn terms() -> Terms {
    Terms {
        class: DataClass::Internal,
        priority: Priority::default(),
        within: Duration::from_secs(9),
        cost_limit_micros: None,
        key: None,
        hops: 0,
    }
}

fn asked<M>(matter: M) -> Inquiry<M> {
    Inquiry { id: RequestId::new(), terms: terms(), matter }
}

fn conversation() -> Conversation {
    Conversation { turns: vec![user(&["hello"])], ..Conversation::default() }
}

fn user(texts: &[&str]) -> Turn {
    Turn::User(texts.iter().map(|text| Part::Text((*text).to_owned())).collect())
}

/// One change each.
fn changed() -> Vec<(&'static str, Conversation)> {
    let tool = |description: &str, strict| Tool {
        name: "f".to_owned(),
        description: description.to_owned(),
        parameters: json!({ "type": "object" }),
        strict,
    };
    let call = |arguments| {
        let (id, name) = ("1".to_owned(), "f".to_owned());
        Said::Call(ToolCall { id, name, arguments, signature: None })
    };
    let result = |content: &str, is_error| {
        let (id, name, content) = ("1".to_owned(), "f".to_owned(), content.to_owned());
        Turn::Results(vec![ToolResult { id, name, content, is_error }])
    };
    let image =
        |detail| Turn::User(vec![Part::Image(Image::Png, Bytes::from_static(b"png"), detail)]);
    type Change = fn(&mut Conversation);
    let simple: [(&str, Change); 21] = [
        ("an end user", |c| c.hints.user = Some("me".to_owned())),
        ("one by the other name", |c| c.hints.safety_identifier = Some("me".to_owned())),
        ("as it is", |_| {}),
        ("system", |c| c.system = Some("be brief".to_owned())),
        ("an empty system", |c| c.system = Some(String::new())),
        ("words", |c| c.turns = vec![user(&["hello "])]),
        ("words in two parts", |c| c.turns = vec![user(&["hel", "lo"])]),
        ("a turn before", |c| c.turns.insert(0, Turn::Model(vec![Said::Text("hi".to_owned())]))),
        ("tool choice", |c| c.tool_choice = ToolChoice::Any),
        ("parallel calls", |c| c.parallel_tool_calls = Some(false)),
        ("effort", |c| c.thinking = Thinking { effort: Some(Effort::Low), is_told: false }),
        ("thoughts", |c| c.thinking.is_told = true),
        ("verbosity", |c| c.verbosity = Some(Verbosity::Low)),
        ("temperature", |c| c.sampling.temperature = Some(0.0)),
        ("another temperature", |c| c.sampling.temperature = Some(0.1)),
        ("top p", |c| c.sampling.top_p = Some(0.0)),
        ("top k", |c| c.sampling.top_k = Some(1)),
        ("seed", |c| c.sampling.seed = Some(1)),
        ("penalties", |c| c.sampling.presence_penalty = Some(0.0)),
        ("length", |c| c.max_tokens = Some(9)),
        ("stop", |c| c.stop = vec!["x".to_owned()]),
    ];
    let mut all = Vec::new();
    let mut add = |case, change: &dyn Fn(&mut Conversation)| {
        let mut conversation = conversation();
        change(&mut conversation);
        all.push((case, conversation));
    };
    for (case, change) in simple {
        add(case, &change);
    }
    add("another penalty", &|c| c.sampling.frequency_penalty = Some(0.0));
    add("two stops", &|c| c.stop = vec![String::new(), "x".to_owned()]);
    add("a tool", &|c| c.tools = vec![tool("a", true)]);
    add("another tool", &|c| c.tools = vec![tool("b", true)]);
    add("a tool that is not strict", &|c| c.tools = vec![tool("a", false)]);
    add("a schema", &|c| {
        c.output = Output::Json { name: "o".to_owned(), schema: json!({ "type": "object" }) };
    });
    add("a picture", &|c| c.turns = vec![image(Detail::Auto)]);
    add("the same from near", &|c| c.turns = vec![image(Detail::High)]);
    add("a call", &|c| c.turns.push(Turn::Model(vec![call(json!({ "a": 1 }))])));
    add("another call", &|c| c.turns.push(Turn::Model(vec![call(json!({ "a": "1" }))])));
    add("a result", &|c| c.turns.push(result("1", false)));
    add("a failure", &|c| c.turns.push(result("1", true)));
    all
}

#[test]
fn whatever_can_change_an_answer_changes_the_digest() {
    let mut seen = HashSet::new();
    for (case, conversation) in changed() {
        let inquiry = asked(conversation);
        assert!(seen.insert(Digest::of("line-7", "any", &inquiry)), "{case}");
    }
    let plain = asked(conversation());
    for (case, caller, model, class) in [
        ("another caller", "line-8", "any", DataClass::Internal),
        ("nobody", "-", "any", DataClass::Internal),
        ("another model", "line-7", "near", DataClass::Internal),
        ("a border that moved", "line-7a", "ny", DataClass::Internal),
        ("another class", "line-7", "any", DataClass::Public),
    ] {
        let mut inquiry = plain.clone();
        inquiry.terms.class = class;
        assert!(seen.insert(Digest::of(caller, model, &inquiry)), "{case}");
    }
    let texts = |inputs: &[&str], dimensions| Texts {
        inputs: Inputs::Texts(inputs.iter().map(|text| (*text).to_owned()).collect()),
        dimensions,
        user: None,
    };
    let tokens = |tokens: &[&[u32]]| Texts {
        inputs: Inputs::Tokens(tokens.iter().map(|list| list.to_vec()).collect()),
        ..texts(&[], None)
    };
    for matter in [
        texts(&["a", "b"], None),
        texts(&["ab"], None),
        texts(&["b", "a"], None),
        texts(&["a", "b"], Some(8)),
        texts(&["a", "b"], Some(9)),
        texts(&["a", "b", ""], None),
        Texts { user: Some("me".to_owned()), ..texts(&["a", "b"], None) },
        tokens(&[&[97], &[98]]),
        tokens(&[&[97, 98]]),
        tokens(&[]),
        texts(&[], None),
    ] {
        let case = format!("{matter:?}");
        assert!(seen.insert(Digest::of("line-7", "any", &asked(matter))), "{case}");
    }
    let recording = Recording {
        bytes: Bytes::from_static(b"RIFF"),
        name: "a.wav".to_owned(),
        language: None,
        prompt: None,
        temperature: None,
        chunking: None,
        wanted: Wanted::default(),
    };
    let of = |form| Wanted { form, ..Wanted::default() };
    let vad = |threshold| Some(Chunking::Vad(Vad { threshold, ..Vad::default() }));
    let timed = Wanted { words: true, ..of(Form::VerboseJson) };
    let (de, zero) = (Some("de".to_owned()), Some(0.0));
    for matter in [
        recording.clone(),
        Recording { bytes: Bytes::from_static(b"RIFX"), ..recording.clone() },
        Recording { name: "a.mp3".to_owned(), ..recording.clone() },
        Recording { language: de.clone(), ..recording.clone() },
        Recording { prompt: de, ..recording.clone() },
        Recording { temperature: zero, ..recording.clone() },
        Recording { chunking: Some(Chunking::Auto), ..recording.clone() },
        Recording { chunking: vad(None), ..recording.clone() },
        Recording { chunking: vad(Some(0.0)), ..recording.clone() },
        Recording { wanted: of(Form::Srt), ..recording.clone() },
        Recording { wanted: of(Form::VerboseJson), ..recording.clone() },
        Recording { wanted: timed, ..recording.clone() },
        Recording { wanted: Wanted { logprobs: true, ..of(Form::Json) }, ..recording.clone() },
    ] {
        let case = format!("{matter:?}");
        assert!(seen.insert(Digest::of("line-7", "any", &asked(matter))), "{case}");
    }
    let text = Recording { wanted: of(Form::Text), ..recording };
    assert!(!seen.insert(Digest::of("line-7", "any", &asked(text))), "the words are the same");
}

#[test]
fn how_somebody_waits_for_it_does_not_change_what_is_asked() {
    let plain = asked(conversation());
    let digest = Digest::of("line-7", "any", &plain);
    let mut sends = HashSet::from([digest.send(&plain.terms)]);
    for (terms, is_another_send) in [
        (Terms { within: Duration::from_secs(1), ..terms() }, false),
        (Terms { key: IdempotencyKey::parse("k"), ..terms() }, false),
        (Terms { cost_limit_micros: Some(0), ..terms() }, true),
        (Terms { cost_limit_micros: Some(1), ..terms() }, true),
        (Terms { priority: Priority::new(9).unwrap(), ..terms() }, true),
        (Terms { hops: 1, ..terms() }, true),
    ] {
        let case = format!("{terms:?}");
        let inquiry = Inquiry { id: RequestId::new(), terms, matter: conversation() };
        assert_eq!(Digest::of("line-7", "any", &inquiry), digest, "{case}");
        assert_eq!(sends.insert(digest.send(&inquiry.terms)), is_another_send, "{case}");
    }
}

#[test]
fn what_changes_the_price_alone_does_not_change_what_is_asked() {
    let digest = |conversation| Digest::of("line-7", "any", &asked(conversation));
    let mut hinted = conversation();
    hinted.hints.prompt_cache_key = Some("k".to_owned());
    hinted.hints.prediction = Some("p".to_owned());
    assert_eq!(digest(hinted), digest(conversation()));
}

#[test]
fn whatever_is_long_is_large() {
    let long = || "x".repeat(1000);
    let call = |arguments| {
        Said::Call(ToolCall {
            id: "1".to_owned(),
            name: "f".to_owned(),
            arguments,
            signature: None,
        })
    };
    type Change = Box<dyn Fn(&mut Conversation)>;
    let changes: [(&str, Change); 8] = [
        ("system", Box::new(move |c| c.system = Some(long()))),
        ("words", Box::new(move |c| c.turns = vec![user(&[&long()])])),
        ("said", Box::new(move |c| c.turns = vec![Turn::Model(vec![Said::Text(long())])])),
        ("redacted", Box::new(move |c| c.turns = vec![Turn::Model(vec![Said::Redacted(long())])])),
        (
            "a call",
            Box::new(move |c| {
                c.turns = vec![Turn::Model(vec![call(json!({ "a": [long()] }))])];
            }),
        ),
        (
            "a result",
            Box::new(move |c| {
                let (id, name) = (String::new(), String::new());
                c.turns = vec![Turn::Results(vec![ToolResult {
                    id,
                    name,
                    content: long(),
                    is_error: false,
                }])];
            }),
        ),
        (
            "a tool",
            Box::new(move |c| {
                let parameters = json!({ "description": long() });
                let (name, description) = ("f".to_owned(), String::new());
                c.tools = vec![Tool { name, description, parameters, strict: true }];
            }),
        ),
        (
            "a schema",
            Box::new(move |c| {
                c.output =
                    Output::Json { name: "o".to_owned(), schema: json!({ "description": long() }) };
            }),
        ),
    ];
    for (case, change) in changes {
        let mut asked = conversation();
        change(&mut asked);
        assert!((1000..1200).contains(&asked.size()), "{case}: {}", asked.size());
    }
}
