//! Destinations that fail on everybody, as those who ask them see it.

use std::time::Duration;

use serde_json::json;

use super::super::fakes::{Fake, Scripted};
use super::super::{Share, Standing};
use super::{PLENTY, destination, escalator, request, send};
use crate::destination::Protocol;
use crate::escalate::SendError;
use crate::request::{DataClass, Request, TaskName};

fn broken() -> Scripted {
    (500, vec![], json!({ "title": "broken" }))
}

/// What another agent says when it has the answer.
fn answer(task: &str) -> Scripted {
    let class = json!({ "label": "stop", "confidence": 0.9 });
    let answer = json!({ "label": "stop", "confidence": 0.9, "classes": [class], "zone": "device",
        "place": "device", "model": "large@1", "took_ms": 2.0, "provisional": false });
    let told = json!({ "id": uuid::Uuid::now_v7(), "task": task, "state": "answered",
        "class": "internal", "reasons": [], "answer": answer });
    (200, vec![], told)
}

fn retry_after(error: SendError) -> Duration {
    let SendError::CircuitOpen { retry_after, .. } = error else { panic!("{error}") };
    retry_after
}

#[tokio::test]
async fn a_destination_that_fails_is_left_alone_until_one_that_tries_it_is_answered() {
    let mut script = vec![broken(); 5];
    script.extend([answer("voice-commands"), answer("voice-commands")]);
    let fake = Fake::holdfast(script, None).await;
    let destination = destination(Protocol::Holdfast, fake.url.clone());
    let escalator = escalator(&destination);
    let task = TaskName::parse("voice-commands").unwrap();
    let ask = async || send(&escalator, &destination, &request(DataClass::Internal)).await;
    for _ in 0..4 {
        assert_eq!(ask().await.unwrap_err().code(), "failed");
    }
    assert!(escalator.is_failing("site", task.as_str()));
    let rest = retry_after(ask().await.unwrap_err());
    assert!(rest <= Duration::from_secs(2), "{rest:?}");
    assert_eq!(fake.seen().len(), 4, "nothing was sent");
    for task in [None, Some(task.as_str())] {
        let standing = escalator.standing("site", task, Share::First);
        assert!(matches!(standing, Standing::Paused(_)), "{standing:?}");
    }
    // The time that it names is the time after which one goes: that fails, and the rest doubles.
    tokio::time::sleep(rest).await;
    assert_eq!(ask().await.unwrap_err().code(), "failed");
    let longer = retry_after(ask().await.unwrap_err());
    assert!(longer > Duration::from_secs(1), "{longer:?}");
    assert_eq!(fake.seen().len(), 5);
    tokio::time::sleep(longer).await;
    for _ in 0..2 {
        assert_eq!(ask().await.unwrap().label, "stop");
    }
    assert!(!escalator.is_failing("site", task.as_str()));
    assert_eq!(fake.seen().len(), 7);
    let counts = escalator.counts();
    assert_eq!((counts.answered, counts.failed), (2, 5), "what was not sent is not counted");
}

#[tokio::test]
async fn while_one_tries_the_others_are_told_at_once() {
    let mut script = vec![broken(); 4];
    // The fifth is never answered.
    script.push((0, vec![], json!({})));
    script.push(answer("voice-commands"));
    let fake = Fake::holdfast(script, None).await;
    let destination = destination(Protocol::Holdfast, fake.url.clone());
    let escalator = escalator(&destination);
    let (first, second) = (request(DataClass::Internal), request(DataClass::Internal));
    for _ in 0..4 {
        send(&escalator, &destination, &request(DataClass::Internal)).await.unwrap_err();
    }
    let rest = retry_after(send(&escalator, &destination, &first).await.unwrap_err());
    tokio::time::sleep(rest).await;
    let mut trial = Box::pin(send(&escalator, &destination, &first));
    tokio::select! {
        told = &mut trial => panic!("{told:?}"),
        () = async { while fake.seen().len() < 5 { tokio::task::yield_now().await } } => {}
    }
    let wait = retry_after(send(&escalator, &destination, &second).await.unwrap_err());
    assert_eq!((wait, fake.seen().len()), (Duration::from_secs(1), 5));
    drop(trial);
    let rest = retry_after(send(&escalator, &destination, &second).await.unwrap_err());
    assert!(rest <= Duration::from_secs(2), "it was tried, and rests as long again: {rest:?}");
    tokio::time::sleep(rest).await;
    let told = send(&escalator, &destination, &second).await;
    assert_eq!(told.unwrap().label, "stop", "who leaves leaves the try to the next");
}

#[tokio::test]
async fn a_task_that_another_agent_fails_on_stops_no_other_task() {
    let mut script = vec![broken(); 4];
    script.push(answer("part-inspection"));
    let fake = Fake::holdfast(script, None).await;
    let destination = destination(Protocol::Holdfast, fake.url.clone());
    let escalator = escalator(&destination);
    for _ in 0..4 {
        send(&escalator, &destination, &request(DataClass::Internal)).await.unwrap_err();
    }
    let task = TaskName::parse("part-inspection").unwrap();
    let other = Request { task: task.clone(), ..request(DataClass::Internal) };
    assert_eq!(escalator.standing("site", Some(task.as_str()), Share::First), Standing::Open);
    assert_eq!(send(&escalator, &destination, &other).await.unwrap().label, "stop");
    let error = send(&escalator, &destination, &request(DataClass::Internal)).await.unwrap_err();
    assert_eq!(error.code(), "circuit_open");
    assert_eq!(
        escalator.standing("site", None, Share::First),
        Standing::Open,
        "some of what is held may go"
    );
}

#[tokio::test]
async fn one_request_that_fails_again_and_again_keeps_nobody_else_away() {
    let mut script = vec![broken(); 6];
    script.push(answer("voice-commands"));
    let fake = Fake::holdfast(script, None).await;
    let destination = destination(Protocol::Holdfast, fake.url.clone());
    let escalator = escalator(&destination);
    let poison = request(DataClass::Internal);
    for _ in 0..6 {
        let error = send(&escalator, &destination, &poison).await.unwrap_err();
        assert_eq!(error.code(), "failed");
    }
    let other = request(DataClass::Internal);
    assert_eq!(send(&escalator, &destination, &other).await.unwrap().label, "stop");
}

#[tokio::test]
async fn what_is_refused_or_throttled_opens_no_circuit() {
    for status in [400, 401, 402, 404, 429] {
        let fake = Fake::holdfast(vec![(status, vec![], json!({})); 9], None).await;
        let destination = destination(Protocol::Holdfast, fake.url.clone());
        let escalator = escalator(&destination);
        let task = TaskName::parse("voice-commands").unwrap();
        for _ in 0..9 {
            let asked = request(DataClass::Internal);
            let sent = send(&escalator, &destination, &asked);
            let error = tokio::time::timeout(PLENTY, sent).await.unwrap().unwrap_err();
            assert_ne!(error.code(), "circuit_open", "{status}");
        }
        assert!(!escalator.is_failing("site", task.as_str()), "{status}");
    }
}
