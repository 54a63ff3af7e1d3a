//! Destinations that fail on everybody, as those who ask them see it.

use std::time::Duration;

use holdfast_chat::{Conversation, Dialect, Part, Turn as Turned};
use serde_json::json;

use super::super::fakes::{Fake, Scripted};
use super::super::{Attempt, Share, Standing, Turn};
use super::{PLENTY, destination, escalator, request, send};
use crate::destination::{Chat, Protocol};
use crate::escalate::SendError;
use crate::inquiry::{Inquiry, Terms};
use crate::policy::Policy;
use crate::queue::RequestId;
use crate::request::{DataClass, Priority, Request, TaskName};
use crate::subject::Subject;

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
    let task = Subject::Task(TaskName::parse("voice-commands").unwrap());
    let ask = async || send(&escalator, &destination, &request(DataClass::Internal)).await;
    for _ in 0..4 {
        assert_eq!(ask().await.unwrap_err().code(), "failed");
    }
    assert!(escalator.is_failing("site", &task));
    let rest = retry_after(ask().await.unwrap_err());
    assert!(rest <= Duration::from_secs(2), "{rest:?}");
    assert_eq!(fake.seen().len(), 4, "nothing was sent");
    for task in [None, Some(&task)] {
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
    assert!(!escalator.is_failing("site", &task));
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
    let task = Subject::Task(task);
    assert_eq!(escalator.standing("site", Some(&task), Share::First), Standing::Open);
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
        assert!(!escalator.is_failing("site", &Subject::Task(task)), "{status}");
    }
}

#[tokio::test]
async fn a_model_of_another_agent_has_one_circuit_whatever_name_it_is_asked_by() {
    let chat = Chat::new(Dialect::OpenAi, "helper");
    let fake = Fake::plain(vec![broken(); 9]).await;
    let destination = destination(Protocol::HoldfastModel(chat), fake.url.clone());
    let escalator = escalator(&destination);
    let asked = |name: &str| Subject::Model(name.to_owned());
    let ask = |turn: Option<Turn>| {
        let (escalator, destination) = (&escalator, &destination);
        async move {
            let terms = Terms {
                class: DataClass::Internal,
                priority: Priority::default(),
                within: PLENTY,
                cost_limit_micros: None,
                key: None,
                hops: 0,
            };
            let turns = vec![Turned::User(vec![Part::Text("hello".to_owned())])];
            let matter = Conversation { turns, ..Conversation::default() };
            let inquiry = Inquiry { id: RequestId::new(), terms, matter };
            let cleared = Policy::default().clear(&inquiry, destination).unwrap();
            let told = match turn {
                Some(turn) => escalator.converse_in(turn, cleared, PLENTY).await,
                None => escalator.converse(cleared, PLENTY, &Attempt::default()).await,
            };
            told.unwrap_err().code()
        }
    };
    // Two that were held under the name of a route, and two that their callers wait for.
    for _ in 0..2 {
        let turn = escalator.try_turn("site", &asked("any"), Share::Backlog, 1).unwrap();
        assert_eq!(ask(Some(turn)).await, "failed");
        assert_eq!(ask(None).await, "failed");
    }
    assert_eq!(ask(None).await, "circuit_open");
    for name in ["any", "site", "helper"] {
        assert!(escalator.is_failing("site", &asked(name)), "{name}");
        let standing = escalator.standing("site", Some(&asked(name)), Share::First);
        assert!(matches!(standing, Standing::Paused(_)), "{name}: {standing:?}");
    }
    let task = Subject::Task(TaskName::parse("helper-task").unwrap());
    assert!(!escalator.is_failing("site", &task), "its tasks are another matter");
}
