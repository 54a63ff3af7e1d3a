//! OpenAI chat completions.

use bytes::Bytes;
use holdfast_chat::Dialect;
use holdfast_models::Media;
use serde_json::{Value, json};

use super::super::fakes::{Fake, Scripted};
use super::super::{Escalator, Fault, Hints, Next, Pause, SendError};
use super::{PLENTY, credential, destination, escalator, hints, purse, request, send};
use crate::answer::Answer;
use crate::audit::Audit;
use crate::destination::{Chat, Destination, Protocol, Zone};
use crate::policy::Policy;
use crate::request::DataClass;

const KEY: &str = "sk-test-0123456789abcdef";

fn openai(url: &str) -> Destination {
    let mut destination =
        destination(Protocol::Chat(Chat::new(Dialect::OpenAi, "gpt-test")), format!("{url}/v1"));
    destination.zone = Zone::Public;
    destination.name = "cloud".to_owned();
    destination
}

fn completion(content: Value, refusal: Value, finish_reason: Value) -> Scripted {
    let message = json!({ "role": "assistant", "content": content, "refusal": refusal,
        "annotations": [] });
    let body = json!({ "id": "chatcmpl-1", "object": "chat.completion", "created": 1_790_000_000,
        "model": "gpt-test-2026-01-01", "service_tier": "default", "system_fingerprint": "fp_1",
        "choices": [{ "index": 0, "message": message, "logprobs": null,
            "finish_reason": finish_reason }],
        "usage": { "prompt_tokens": 120, "completion_tokens": 9, "total_tokens": 129,
            "prompt_tokens_details": { "cached_tokens": 0, "audio_tokens": 40 } } });
    (200, vec![], body)
}

fn said(content: &str) -> Scripted {
    completion(json!(content), Value::Null, json!("stop"))
}

async fn ask(reply: Scripted) -> Result<Answer, SendError> {
    let fake = Fake::openai(vec![reply], None).await;
    let destination = openai(&fake.url);
    send(&escalator(&destination), &destination, &request(DataClass::Public)).await
}

#[tokio::test]
async fn a_recording_becomes_a_label() {
    let answer = ask(said(r#"{"label":"stop","confidence":0.9}"#)).await.unwrap();
    assert_eq!((answer.label.as_str(), answer.confidence), ("stop", Some(0.9)));
    assert_eq!((answer.zone, answer.place.as_str()), (Zone::Public, "cloud"));
    assert_eq!(answer.model, "gpt-test-2026-01-01");
    assert_eq!(answer.classes.len(), 1);
    assert!(!answer.provisional && answer.took_ms > 0.0);
}

#[tokio::test]
async fn a_picture_goes_as_a_data_url() {
    let fake = Fake::openai(vec![said(r#"{"label":"no","confidence":1}"#)], None).await;
    let destination = openai(&fake.url);
    let mut request = request(DataClass::Public);
    // A whole picture: one grey pixel.
    let png = hex::decode(concat!(
        "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55",
        "0000000a49444154789c63680000008200817dd0fb1a0000000049454e44ae426082"
    ));
    request.media = Media::detect(Bytes::from(png.unwrap()), Some("image/png")).unwrap();
    let answer = send(&escalator(&destination), &destination, &request).await.unwrap();
    assert_eq!(answer.label, "no");
    let body: Value = serde_json::from_slice(&fake.seen()[0].body).unwrap();
    assert_eq!(body["model"], "gpt-test");
    assert_eq!(
        body["response_format"]["json_schema"]["schema"]["properties"]["label"]["enum"],
        json!(["yes", "no", "stop"])
    );
    let system = body["messages"][0]["content"].as_str().unwrap();
    assert!(system.contains("voice-commands") && system.contains("yes, no, stop"), "{system}");
}

#[tokio::test]
async fn what_is_no_answer_is_a_fault_with_a_name() {
    let stop = || json!("stop");
    let null = || Value::Null;
    let partial = json!("{\"label\":\"st");
    for (case, reply, want, next) in [
        ("refusal", completion(null(), json!("I can't help"), stop()), "declined", Next::NotHere),
        ("length", completion(partial, null(), json!("length")), "length limit", Next::NotHere),
        ("filter", completion(null(), null(), json!("content_filter")), "filter", Next::NotHere),
        ("prose", said("It says stop."), "not the JSON", Next::NotHere),
        ("other label", said(r#"{"label":"fire","confidence":1}"#), "fire", Next::NotHere),
        ("sure beyond 1", said(r#"{"label":"no","confidence":7}"#), "of 7", Next::NotHere),
        ("one field more", said(r#"{"label":"no","confidence":1,"x":1}"#), "JSON", Next::NotHere),
        ("tools", completion(null(), null(), json!("tool_calls")), "calls tools", Next::Retry),
        ("no content", completion(null(), null(), stop()), "no content", Next::Retry),
        ("no choices", (200, vec![], json!({ "choices": [] })), "no choice", Next::Retry),
        ("another API", (200, vec![], json!({ "hello": 1 })), "no choice", Next::Retry),
    ] {
        let error = ask(reply).await.expect_err(case);
        assert!(matches!(error, SendError::Unusable { .. }), "{case}: {error}");
        assert!(error.to_string().contains(want), "{case}: {error}");
        assert_eq!(error.next(), next, "{case}");
    }
}

#[tokio::test]
async fn a_task_without_labels_is_not_sent() {
    let fake = Fake::openai(vec![said("{}")], None).await;
    let destination = openai(&fake.url);
    let escalator = Escalator::new(
        std::slice::from_ref(&destination),
        Hints::default(),
        purse(),
        Audit::default(),
    )
    .unwrap();
    let error = send(&escalator, &destination, &request(DataClass::Public)).await.unwrap_err();
    assert!(matches!(error, SendError::NoLabels { .. }), "{error}");
    assert_eq!(error.next(), Next::NotHere);
    assert!(fake.seen().is_empty());
}

#[tokio::test]
async fn a_refused_credential_is_not_shown_and_not_tried_again_until_it_is_renewed() {
    let reply = said(r#"{"label":"yes","confidence":0.8}"#);
    let fake = Fake::openai(vec![reply], Some("sk-renewed")).await;
    let (dir, key) = credential(KEY);
    let mut destination = openai(&fake.url);
    destination.credential = Some(key);
    let escalator =
        Escalator::new(std::slice::from_ref(&destination), hints(), purse(), Audit::default())
            .unwrap();
    let request = request(DataClass::Public);
    let policy = Policy::default();
    let cleared = policy.clear(&request, &destination).unwrap();
    for _ in 0..3 {
        let error = escalator.send(cleared, PLENTY).await.unwrap_err();
        assert!(matches!(error, SendError::Unauthorised { status: 401, .. }), "{error}");
        assert!(matches!(error.next(), Next::AwaitOperator { .. }));
        let shown = format!("{error} {error:?} {escalator:?} {destination:?}");
        assert!(!shown.contains("0123456789"), "{shown}");
    }
    assert_eq!(fake.seen().len(), 1, "a refused credential is tried once a minute at most");
    assert!(escalator.pause("cloud").is_some());
    std::fs::write(dir.path().join("key"), "sk-renewed\n").unwrap();
    assert_eq!(escalator.send(cleared, PLENTY).await.unwrap().label, "yes");
}

#[tokio::test]
async fn a_destination_that_repeats_the_credential_cannot_make_us_show_it() {
    let message = format!("model not allowed for {KEY}\n\u{7}bye");
    let reply = (404, vec![], json!({ "error": { "message": message } }));
    let fake = Fake::openai(vec![reply], Some(KEY)).await;
    let (_dir, key) = credential(KEY);
    let mut destination = openai(&fake.url);
    destination.credential = Some(key);
    let request = request(DataClass::Public);
    let error = send(&escalator(&destination), &destination, &request).await.unwrap_err();
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains(KEY) && shown.contains("[credential]"), "{shown}");
    assert!(!error.to_string().chars().any(char::is_control), "{error}");
}

#[tokio::test]
async fn a_missing_credential_keeps_the_request_until_it_is_there() {
    let fake = Fake::openai(vec![said(r#"{"label":"yes","confidence":0.8}"#)], Some(KEY)).await;
    let (dir, key) = credential(KEY);
    let mut destination = openai(&fake.url);
    destination.credential = Some(key);
    std::fs::remove_file(dir.path().join("key")).unwrap();
    let escalator = escalator(&destination);
    let request = request(DataClass::Public);
    let error = send(&escalator, &destination, &request).await.unwrap_err();
    assert!(matches!(error, SendError::Credential { .. }), "{error}");
    assert!(matches!(error.next(), Next::AwaitOperator { .. }));
    assert!(matches!(escalator.pause("cloud"), Some(Pause::NoCredential { .. })));
    assert!(fake.seen().is_empty());
    std::fs::write(dir.path().join("key"), KEY).unwrap();
    assert_eq!(send(&escalator, &destination, &request).await.unwrap().label, "yes");
}

#[test]
fn faults_of_the_model_are_final_and_faults_of_the_wire_are_not() {
    for (fault, is_final) in [
        (Fault::Filtered, true),
        (Fault::CutShort, true),
        (Fault::Declined { text: String::new() }, true),
        (Fault::BesideTheQuestion { what: String::new() }, true),
        (Fault::Foreign { what: String::new() }, false),
        (Fault::TooLong { limit: 1 }, true),
    ] {
        let error = SendError::Unusable { destination: "x".to_owned(), fault };
        assert_eq!(error.next() == Next::NotHere, is_final, "{error}");
    }
}
