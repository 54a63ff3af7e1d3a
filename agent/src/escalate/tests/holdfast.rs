//! The task API of another Holdfast agent.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::fakes::{Fake, Scripted};
use super::super::{Next, SendError};
use super::{PLENTY, credential, destination, escalator, request, send};
use crate::answer::Answer;
use crate::destination::Protocol;
use crate::destination::Zone;
use crate::policy::Policy;
use crate::request::{DataClass, MAX_HOPS};

const ID: &str = "0199d0a0-0000-7000-8000-000000000001";

fn told(state: &str, answer: Value) -> Value {
    json!({ "id": ID, "task": "voice-commands", "state": state, "class": "internal",
        "answer": answer, "reasons": [{ "code": "x", "text": "because of the test" }],
        "added_by_a_newer_agent": 1 })
}

fn stop() -> Value {
    json!({ "label": "stop", "confidence": 0.98, "zone": "device", "place": "device",
        "model": "voice-commands-large@1.0.0 int8 tract", "took_ms": 3.1, "provisional": false,
        "classes": [{ "label": "no", "confidence": 0.01 }, { "label": "stop", "confidence": 0.98 }] })
}

fn with(key: &str, value: Value) -> Value {
    let mut answer = stop();
    answer[key] = value;
    answer
}

fn ok(body: Value) -> Scripted {
    (200, vec![], body)
}

async fn ask(script: Vec<Scripted>) -> (Result<Answer, SendError>, Fake) {
    let fake = Fake::holdfast(script, None).await;
    let destination = destination(Protocol::Holdfast, fake.url.clone());
    let request = request(DataClass::Internal);
    (send(&escalator(&destination), &destination, &request).await, fake)
}

#[tokio::test]
async fn an_answer_at_once_is_taken_as_the_sites() {
    let (answer, fake) = ask(vec![ok(told("answered", stop()))]).await;
    let answer = answer.unwrap();
    assert_eq!((answer.label.as_str(), answer.confidence), ("stop", Some(0.98)));
    assert_eq!((answer.zone, answer.place.as_str()), (Zone::Site, "site"));
    assert_eq!(answer.classes.first().unwrap().label, "stop", "likeliest first");
    assert!(!answer.provisional);
    let seen = fake.seen();
    assert_eq!(seen.len(), 1);
    let headers = &seen[0].headers;
    assert_eq!(headers["holdfast-class"], "internal");
    assert_eq!(headers["holdfast-priority"], "7");
    assert_eq!(headers["holdfast-hops"], "1");
    assert_eq!(seen[0].body, super::wav());
}

#[tokio::test]
async fn an_answer_from_beyond_the_site_says_so() {
    let mut answer = with("zone", json!("public"));
    answer["place"] = json!("cloud");
    let (answer, _fake) = ask(vec![ok(told("answered", answer))]).await;
    let answer = answer.unwrap();
    assert_eq!((answer.zone, answer.place.as_str()), (Zone::Public, "site/cloud"));
}

#[tokio::test]
async fn a_request_that_the_site_holds_is_awaited() {
    let held = (202, vec![("location", format!("/v1/requests/{ID}"))], told("held", Value::Null));
    let script = vec![held, ok(told("in_flight", Value::Null)), ok(told("answered", stop()))];
    let (answer, fake) = ask(script).await;
    assert_eq!(answer.unwrap().label, "stop");
    let what: Vec<String> = fake.seen().into_iter().map(|seen| seen.what).collect();
    let poll = format!("GET /v1/requests/{ID}");
    assert_eq!(what, ["POST /v1/tasks/voice-commands", poll.as_str(), poll.as_str()]);
}

#[tokio::test]
async fn a_request_that_stays_held_is_asked_for_again_under_the_same_key() {
    let held = || (202, vec![], told("held", with("provisional", json!(true))));
    let fake = Fake::holdfast(vec![held(), held(), ok(told("answered", stop()))], None).await;
    let destination = destination(Protocol::Holdfast, fake.url.clone());
    let escalator = escalator(&destination);
    let request = request(DataClass::Internal);
    let policy = Policy::default();
    let short = Duration::from_millis(150);
    let cleared = policy.clear(&request, &destination).unwrap();
    for _ in 0..2 {
        let error = escalator.send(cleared, short).await.unwrap_err();
        assert!(matches!(error, SendError::Pending { .. }), "{error}");
        assert_eq!(error.next(), Next::Later { after: Duration::from_secs(1) });
    }
    assert!(escalator.send(cleared, PLENTY).await.is_ok());
    let keys: Vec<_> = fake.seen().iter().map(|s| s.headers["idempotency-key"].clone()).collect();
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|key| *key == request.id.to_string()), "{keys:?}");
}

#[tokio::test]
async fn a_site_that_forgot_what_it_held_is_asked_anew() {
    let held = (202, vec![], told("held", Value::Null));
    let gone = (404, vec![], json!({ "detail": "no such request" }));
    let (result, _fake) = ask(vec![held, gone]).await;
    let error = result.unwrap_err();
    assert_eq!((error.code(), error.next()), ("interrupted", Next::Retry), "{error}");
}

#[tokio::test]
async fn what_is_no_answer_is_refused_with_its_reason() {
    let gone = |state| ok(told(state, Value::Null));
    let answered = |answer| ok(told("answered", answer));
    let mut other = told("answered", stop());
    other["task"] = json!("part-inspection");
    let mut traversal = told("held", Value::Null);
    traversal["id"] = json!("../../admin");
    let retry = Next::Retry;
    for (case, reply, next) in [
        ("failed there", gone("failed"), Next::NotHere),
        ("expired there", gone("expired"), Next::NotHere),
        ("cancelled there", gone("cancelled"), Next::NotHere),
        ("unknown state", gone("dreaming"), retry),
        ("answered without an answer", gone("answered"), retry),
        ("another task", ok(other), retry),
        ("an id that is a path", (202, vec![], traversal), retry),
        ("a provisional final answer", answered(with("provisional", json!(true))), retry),
        ("confidence over 1", answered(with("confidence", json!(1.5))), retry),
        ("confidence below 0", answered(with("confidence", json!(-0.1))), retry),
        ("confidence as text", answered(with("confidence", json!("0.9"))), retry),
        ("no label", answered(with("label", json!(""))), retry),
        ("a line break in the label", answered(with("label", json!("a\nb"))), retry),
        ("an endless label", answered(with("label", json!("a".repeat(500)))), retry),
        ("unknown zone", answered(with("zone", json!("moon"))), retry),
        ("negative time", answered(with("took_ms", json!(-1.0))), retry),
        ("a class without confidence", answered(with("classes", json!([{ "label": "a" }]))), retry),
    ] {
        let (result, _fake) = ask(vec![reply]).await;
        assert_eq!(result.expect_err(case).next(), next, "{case}");
    }
}

#[tokio::test]
async fn the_credential_goes_with_every_call() {
    let held = (202, vec![], told("held", Value::Null));
    let script = vec![held, ok(told("answered", stop()))];
    let fake = Fake::holdfast(script, Some("hf-1")).await;
    let (_dir, key) = credential("hf-1");
    let mut destination = destination(Protocol::Holdfast, fake.url.clone());
    destination.credential = Some(key);
    let request = request(DataClass::Internal);
    let answer = send(&escalator(&destination), &destination, &request).await;
    assert_eq!(answer.unwrap().label, "stop");
}

#[tokio::test]
async fn a_request_that_came_through_too_many_agents_goes_no_further() {
    let fake = Fake::holdfast(vec![ok(told("answered", stop()))], None).await;
    let destination = destination(Protocol::Holdfast, fake.url.clone());
    let mut request = request(DataClass::Internal);
    request.hops = MAX_HOPS;
    let error = send(&escalator(&destination), &destination, &request).await.unwrap_err();
    assert!(matches!(error, SendError::TooManyHops { .. }), "{error}");
    assert_eq!(error.next(), Next::NotHere);
    assert!(fake.seen().is_empty());
}
