//! Embeddings and transcripts: what is asked, and what is answered.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use holdfast_chat::served::embeddings::{self, Encoding};
use holdfast_chat::served::models::{self, ModelEntry};
use holdfast_chat::served::transcriptions::{self, Chunking, Form, Vad, Wanted};
use holdfast_chat::{Dialect, Inputs, Usage, Vectors, What};
use serde_json::{Value, json};

fn dialects() -> [Dialect; 7] {
    [
        Dialect::OpenAi,
        Dialect::AzureOpenAi { deployment: "e".into(), api_version: "2024-10-21".into() },
        Dialect::Mistral,
        Dialect::Anthropic,
        Dialect::Gemini,
        Dialect::Vertex { project: "p".into(), region: "r".into() },
        Dialect::Bedrock { region: "r".into() },
    ]
}

fn inputs(count: usize) -> Inputs {
    Inputs::Texts(["one", "two"].iter().take(count).map(|text| (*text).to_owned()).collect())
}

#[test]
fn every_provider_is_asked_in_its_own_form() {
    let [openai, azure, mistral, anthropic, gemini, vertex, bedrock] = dialects();
    let part = |text: &str| json!({ "parts": [{ "text": text }] });
    for (dialect, model, path, want) in [
        (
            &openai,
            "e",
            "/v1/embeddings",
            json!({ "model": "e", "input": ["one", "two"],
            "encoding_format": "float", "dimensions": 8 }),
        ),
        (
            &azure,
            "e",
            "/openai/deployments/e/embeddings?api-version=2024-10-21",
            json!({ "input": ["one", "two"], "encoding_format": "float", "dimensions": 8 }),
        ),
        (
            &mistral,
            "e",
            "/v1/embeddings",
            json!({ "model": "e", "input": ["one", "two"],
            "output_dimension": 8 }),
        ),
        (
            &gemini,
            "models/e",
            "/v1/models/e:batchEmbedContents",
            json!({ "requests": [
            { "model": "models/e", "content": part("one"), "outputDimensionality": 8 },
            { "model": "models/e", "content": part("two"), "outputDimensionality": 8 }] }),
        ),
        (
            &vertex,
            "e",
            "/v1/projects/p/locations/r/publishers/google/models/e:predict",
            json!({ "instances": [{ "content": "one" }, { "content": "two" }],
                "parameters": { "outputDimensionality": 8 } }),
        ),
        (
            &bedrock,
            "cohere.embed-v4:0",
            "/model/cohere.embed-v4%3A0/invoke",
            json!({ "texts": ["one", "two"], "input_type": "search_document",
                "embedding_types": ["float"], "output_dimension": 8 }),
        ),
    ] {
        let call = dialect.embed(model, &inputs(2), Some(8), None).unwrap();
        let body: Value = serde_json::from_slice(&call.body).unwrap();
        assert_eq!((call.path.as_str(), &body), (path, &want), "{}", dialect.name());
    }
    let call = bedrock.embed("amazon.titan-embed-text-v2:0", &inputs(1), None, Some("u")).unwrap();
    assert_eq!(call.body, b"{\"inputText\":\"one\"}", "it has no users");
    let tokens = Inputs::Tokens(vec![vec![1, 2], vec![3]]);
    for dialect in dialects() {
        let made = dialect.embed("cohere.embed-v4:0", &tokens, None, Some("u"));
        match dialect.name() {
            "openai" | "azure-openai" => {
                let body: Value = serde_json::from_slice(&made.unwrap().body).unwrap();
                assert_eq!((&body["input"], &body["user"]), (&json!([[1, 2], [3]]), &json!("u")));
            }
            "anthropic" => assert_eq!(made.unwrap_err().what, What::Parameter("embeddings")),
            _ => assert_eq!(made.unwrap_err().what, What::Parameter("input of tokens")),
        }
    }
    for (dialect, model, count, dimensions) in [
        (&anthropic, "e", 1, None),
        (&openai, "e", 0, None),
        (&vertex, "gemini-embedding-001", 2, None),
        (&bedrock, "amazon.titan-embed-text-v2:0", 2, None),
        (&bedrock, "amazon.titan-embed-text-v1", 1, Some(8)),
        (&bedrock, "cohere.embed-english-v3", 1, Some(8)),
        (&bedrock, "another.model", 1, None),
    ] {
        let unfit = dialect.embed(model, &inputs(count), dimensions, None).unwrap_err();
        assert_ne!(unfit.what, What::Schema(String::new()), "{model}");
        assert_eq!(unfit.protocol, dialect.name());
    }
}

#[test]
fn every_provider_is_understood() {
    let [openai, _, _, _, gemini, vertex, bedrock] = dialects();
    let vectors = || vec![vec![1.0, -0.5], vec![0.25, 2.0]];
    for (dialect, body, model, vectors, tokens) in [
        (
            &openai,
            json!({ "object": "list", "model": "e-1", "data": [
            { "object": "embedding", "index": 1, "embedding": [0.25, 2] },
            { "object": "embedding", "index": 0, "embedding": [1, -0.5] }],
            "usage": { "prompt_tokens": 3, "total_tokens": 3 } }),
            "e-1",
            vectors(),
            Some(3),
        ),
        (
            &gemini,
            json!({ "embeddings": [{ "values": [1, -0.5] }, { "values": [0.25, 2] }] }),
            "",
            vectors(),
            None,
        ),
        (
            &vertex,
            json!({ "predictions": [
            { "embeddings": { "values": [1, -0.5], "statistics": { "token_count": 1.0 } } },
            { "embeddings": { "values": [0.25, 2], "statistics": { "token_count": 2 } } }] }),
            "",
            vectors(),
            Some(3),
        ),
        (
            &bedrock,
            json!({ "embedding": [1, -0.5], "inputTextTokenCount": 3 }),
            "",
            vec![vec![1.0, -0.5]],
            Some(3),
        ),
        (&bedrock, json!({ "embeddings": [[1, -0.5], [0.25, 2]], "id": "x" }), "", vectors(), None),
        (
            &bedrock,
            json!({ "embeddings": { "float": [[1, -0.5], [0.25, 2]] } }),
            "",
            vectors(),
            None,
        ),
    ] {
        let usage = tokens.map(|input| Usage { input, ..Usage::default() });
        let want = Vectors { model: model.to_owned(), vectors, usage };
        assert_eq!(dialect.vectors(body.to_string().as_bytes()), Ok(want), "{body}");
    }
    for body in [
        "",
        "[]",
        "{}",
        "{\"data\":[]}",
        "{\"data\":[{\"embedding\":[]}]}",
        "{\"embeddings\":7}",
        "{\"data\":[{\"index\":1,\"embedding\":[1]}]}",
        "{\"embeddings\":[{\"secret\":[1]}]}",
        "{\"data\":[{\"index\":0,\"embedding\":[1]},{\"index\":0,\"embedding\":[1]}]}",
    ] {
        for dialect in dialects() {
            let error = dialect.vectors(body.as_bytes()).expect_err(body);
            assert!(!error.to_string().contains("secret"));
        }
    }
}

#[test]
fn vectors_are_asked_and_answered_as_openai_does() {
    let read = |more: Value| {
        let mut body = json!({ "model": "m", "input": "one" });
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        embeddings::read(body.to_string().as_bytes())
    };
    let asked =
        read(json!({ "input": ["one", "two"], "dimensions": 8, "encoding_format": "base64" }));
    let asked = asked.unwrap();
    assert_eq!(
        (asked.inputs, asked.dimensions, asked.encoding),
        (inputs(2), Some(8), Encoding::Base64)
    );
    for (more, param, code) in [
        (json!({ "input": [] }), "input", "invalid_value"),
        (json!({ "input": null }), "input", "missing_required_parameter"),
        (json!({ "input": "" }), "input[0]", "invalid_value"),
        (json!({ "input": ["one", ""] }), "input[1]", "invalid_value"),
        (json!({ "input": [[1], []] }), "input[1]", "invalid_value"),
        (json!({ "input": [1, "one"] }), "input[1]", "invalid_value"),
        (json!({ "input": ["one", [1]] }), "input[1]", "invalid_value"),
        (json!({ "input": [-1] }), "input[0]", "invalid_type"),
        (json!({ "input": [4_294_967_296_u64] }), "input[0]", "invalid_type"),
        (json!({ "input": [true] }), "input[0]", "invalid_type"),
        (json!({ "input": 1 }), "input", "invalid_type"),
        (json!({ "input": vec!["x"; 2049] }), "input", "invalid_value"),
        (json!({ "dimensions": 0 }), "dimensions", "invalid_value"),
        (json!({ "encoding_format": "hex" }), "encoding_format", "invalid_value"),
        (json!({ "foo": 1 }), "foo", "unknown_parameter"),
    ] {
        let refusal = read(more.clone()).expect_err(&more.to_string());
        assert_eq!((refusal.param.as_deref(), refusal.code), (Some(param), code), "{more}");
    }
    for (input, want) in [
        (json!([1, 2]), vec![vec![1, 2]]),
        (json!([[1, 2]]), vec![vec![1, 2]]),
        (json!([[1, 2], [3]]), vec![vec![1, 2], vec![3]]),
    ] {
        let asked = read(json!({ "input": input, "user": "u" })).unwrap();
        assert_eq!((asked.inputs, asked.user.as_deref()), (Inputs::Tokens(want), Some("u")));
    }
    let usage = Some(Usage { input: 3, ..Usage::default() });
    let vectors = vec![vec![1.0, -0.1], vec![f32::NAN]];
    let vectors = Vectors { model: String::new(), vectors, usage };
    let body = embeddings::answer("m", &vectors, Encoding::Float);
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        body,
        json!({ "object": "list", "model": "m", "data": [
            { "object": "embedding", "index": 0, "embedding": [1, -0.1] },
            { "object": "embedding", "index": 1, "embedding": [0] }],
            "usage": { "prompt_tokens": 3, "total_tokens": 3 } })
    );
    let body = embeddings::answer("m", &vectors, Encoding::Base64);
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["data"][0]["embedding"], "AACAP83MzL0=");
}

#[test]
fn models_are_told_in_openais_form() {
    let model = ModelEntry { id: "a".into(), owned_by: "holdfast".into(), created: 7 };
    let want = json!({ "id": "a", "object": "model", "created": 7, "owned_by": "holdfast" });
    assert_eq!(serde_json::from_slice::<Value>(&models::one(&model)).unwrap(), want);
    let list: Value = serde_json::from_slice(&models::list(&[model])).unwrap();
    assert_eq!(list, json!({ "object": "list", "data": [want] }));
}

#[test]
fn a_transcript_has_the_form_that_is_asked_for_or_is_refused() {
    let asked = transcriptions::read(&[
        ("model", "m"),
        ("language", "de"),
        ("prompt", ""),
        ("temperature", "0.2"),
        ("response_format", "verbose_json"),
        ("stream", "false"),
    ]);
    let asked = asked.unwrap();
    assert_eq!((asked.model.as_str(), asked.wanted.form), ("m", Form::VerboseJson));
    assert_eq!((asked.wanted.is_plain(), asked.chunking), (false, None));
    assert_eq!(
        (asked.language.as_deref(), asked.prompt, asked.temperature),
        (Some("de"), None, Some(0.2))
    );
    for (fields, param, code) in [
        (&[("language", "de")][..], "model", "missing_required_parameter"),
        (&[("model", "m"), ("model", "n")], "model", "invalid_value"),
        (&[("model", "m"), ("foo", "1")], "foo", "unknown_parameter"),
        (&[("model", "m"), ("stream", "true")], "stream", "unsupported_value"),
        (&[("model", "m"), ("temperature", "hot")], "temperature", "invalid_value"),
        (&[("model", "m"), ("temperature", "2")], "temperature", "invalid_value"),
        (&[("model", "m"), ("response_format", "xml")], "response_format", "invalid_value"),
        (&[("model", "m"), (WHEN, "word")], "timestamp_granularities", "invalid_value"),
        (&[("model", "m"), (WHEN, "letter")], WHEN, "invalid_value"),
        (&[("model", "m"), (WHEN, "word"), (WHEN, "word")], WHEN, "invalid_value"),
        (&[("model", "m"), ("include[]", "speakers")], "include[]", "unsupported_parameter"),
        (
            &[("model", "m"), ("include[]", "logprobs"), ("response_format", "text")],
            "include",
            "invalid_value",
        ),
        (&[("model", "m"), (CUT, "never")], CUT, "invalid_value"),
        (&[("model", "m"), (CUT, r#"{"type":"server_vad","x":1}"#)], CUT, "invalid_value"),
        (&[("model", "m"), (CUT, r#"{"threshold":0.5}"#)], CUT, "invalid_value"),
        (&[("model", "m"), ("chunking_strategy[threshold]", "0.5")], CUT, "invalid_value"),
        (&[("model", "m"), ("chunking_strategy[x]", "1")], "chunking_strategy[x]", "invalid_value"),
        (
            &[("model", "m"), (CUT, "auto"), ("chunking_strategy[type]", "server_vad")],
            CUT,
            "invalid_value",
        ),
        (
            &[("model", "m"), (CUT, r#"{"type":"server_vad","threshold":2}"#)],
            "chunking_strategy.threshold",
            "invalid_value",
        ),
        (&[("model", "m"), ("keywords[]", "x")], "keywords[]", "unsupported_parameter"),
    ] {
        let refusal = transcriptions::read(fields).unwrap_err();
        assert_eq!((refusal.param.as_deref(), refusal.code), (Some(param), code), "{fields:?}");
    }
    let vad = Vad { threshold: Some(0.5), prefix_padding_ms: Some(300), silence_duration_ms: None };
    let whole = r#"{"type":"server_vad","threshold":0.5,"prefix_padding_ms":300}"#;
    for (fields, want) in [
        (&[(CUT, "auto")][..], Chunking::Auto),
        (&[(CUT, whole)], Chunking::Vad(vad)),
        (
            &[
                ("chunking_strategy[type]", "server_vad"),
                ("chunking_strategy[threshold]", "0.5"),
                ("chunking_strategy[prefix_padding_ms]", "300"),
            ],
            Chunking::Vad(vad),
        ),
    ] {
        let fields = [&[("model", "m")], fields].concat();
        assert_eq!(transcriptions::read(&fields).unwrap().chunking, Some(want), "{fields:?}");
    }
}

/// When words are spoken, and how a recording is cut.
const WHEN: &str = "timestamp_granularities[]";
const CUT: &str = "chunking_strategy";

#[test]
fn words_are_put_into_a_form_and_anything_else_goes_on_as_it_came() {
    let of = |form| Wanted { form, ..Wanted::default() };
    let answer = |form, said, seconds| {
        let written = transcriptions::answer(of(form), said, seconds);
        (written.content_type, String::from_utf8(written.body).unwrap())
    };
    let (json, text) = ("application/json", "text/plain; charset=utf-8");
    let usage = r#""usage":{"type":"duration","seconds":1.5}"#;
    for (form, said, seconds, want) in [
        (Form::Json, "say \"so\"", None, (json, r#"{"text":"say \"so\""}"#.to_owned())),
        (Form::Json, "so", Some(1.5), (json, format!(r#"{{"text":"so",{usage}}}"#))),
        (Form::Text, "say \"so\"", None, (text, "say \"so\"\n".to_owned())),
        (Form::VerboseJson, "{\"a\": 1}", Some(1.5), (json, "{\"a\": 1}".to_owned())),
        (Form::Srt, "1\n", None, (text, "1\n".to_owned())),
        (Form::Vtt, "WEBVTT\n", None, (text, "WEBVTT\n".to_owned())),
    ] {
        assert_eq!(answer(form, said, seconds), want, "{form:?}");
    }
    let timed = Wanted { words: true, segments: true, ..of(Form::VerboseJson) };
    let sure = Wanted { logprobs: true, ..Wanted::default() };
    assert!(!sure.is_plain() && Wanted::default().is_plain() && of(Form::Text).is_plain());
    for (wanted, body, fits) in [
        (of(Form::VerboseJson), r#"{"text":"a"}"#, true),
        (of(Form::VerboseJson), "a", false),
        (of(Form::VerboseJson), r#"{"words":[]}"#, false),
        (timed, r#"{"text":"a","words":[],"segments":[]}"#, true),
        (timed, r#"{"text":"a","segments":[]}"#, false),
        (of(Form::DiarizedJson), r#"{"text":"a"}"#, false),
        (sure, r#"{"text":"a","logprobs":[]}"#, true),
        (sure, r#"{"text":"a"}"#, false),
        (of(Form::Srt), "1\n00:00:00,000 --> 00:00:01,000\na\n", true),
        (of(Form::Srt), "\n", true),
        (of(Form::Srt), r#"{"text":"a"}"#, false),
        (of(Form::Srt), "<html>", false),
        (of(Form::Vtt), "\u{feff}WEBVTT\n", true),
        (of(Form::Vtt), "a", false),
    ] {
        assert_eq!(wanted.fits(body), fits, "{wanted:?} {body}");
    }
}
