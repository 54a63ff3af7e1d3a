//! A process that dies while its request is under way, at fakes that hold it to the protocols.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_chat::Dialect;
use holdfast_models::{Media, MediaType};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::super::Drain;
use super::{PLENTY, destination, stop};
use crate::audit::Audit;
use crate::clock::Clock;
use crate::destination::{Chat, Destination, Protocol, Zone};
use crate::envelope::Envelope;
use crate::escalate::fakes::{Fake, Scripted};
use crate::escalate::{Escalator, Purse, TaskHints};
use crate::policy::Policy;
use crate::queue::{NewEntry, Queue, QueueConfig, QueueError, RequestId, State};
use crate::request::{DataClass, Escalate, Priority, Request, TaskName};

const NEVER: Scripted = (0, Vec::new(), Value::Null);

async fn open(dir: &Path) -> Queue {
    loop {
        let (path, limits) = (dir.join("queue"), QueueConfig::default());
        let limits = QueueConfig { headroom_bytes: 0, segment_bytes: 1 << 20, ..limits };
        match Queue::open(&path, limits) {
            Ok((queue, _)) => return queue,
            // The writer of the run before still lets go.
            Err(QueueError::InUse { .. }) => sleep(Duration::from_millis(2)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

fn drain(queue: &Queue, dir: &Path, destination: &Destination) -> Drain {
    let clock = Clock::resume(dir);
    let destinations = vec![destination.clone()];
    let purse = Purse::open(dir, clock.clone(), &destinations);
    let hints = TaskHints { labels: vec!["stop".to_owned()], description: "commands.".to_owned() };
    let hints = HashMap::from([(TaskName::parse("voice-commands").unwrap(), hints)]);
    Drain {
        queue: queue.clone(),
        escalator: Arc::new(Escalator::new(&destinations, hints, purse, Audit::default()).unwrap()),
        destinations: destinations.into(),
        balancing: Arc::default(),
        routes: Vec::new().into(),
        policy: Arc::new(Policy::default()),
        clock,
        max_attempts: 20,
    }
}

async fn hold(queue: &Queue, now_ms: u64) -> RequestId {
    let body = Bytes::from_static(b"RIFF, and some samples");
    let request = Request {
        id: RequestId::new(),
        task: TaskName::parse("voice-commands").unwrap(),
        media: Media::trusted(MediaType::Wav, body.clone()),
        class: DataClass::Public,
        priority: Priority::new(4).unwrap(),
        escalate: Escalate::Auto,
        deadline_ms: 100,
        ttl_ms: 600_000,
        not_before_ms: 0,
        key: None,
        hops: 0,
    };
    let entry = NewEntry {
        id: request.id,
        idempotency: None,
        priority: 4,
        accepted_at_ms: now_ms,
        not_before_ms: now_ms,
        expires_at_ms: Some(now_ms + request.ttl_ms),
        envelope: Envelope::of(&request, None, Vec::new()).to_bytes().into(),
        body,
    };
    queue.accept(entry).await.unwrap();
    request.id
}

async fn dies_and_comes_back(fake: &Fake, destination: Destination) {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path()).await;
    let id = hold(&queue, Clock::resume(dir.path()).now_ms()).await;
    let first = drain(&queue, dir.path(), &destination).run(CancellationToken::new());
    let first = tokio::spawn(first);
    let reached = async {
        while fake.seen().is_empty() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PLENTY, reached).await.unwrap();
    first.abort();
    assert!(first.await.is_err());
    drop(queue);

    let queue = open(dir.path()).await;
    let stop = CancellationToken::new();
    let second = tokio::spawn(drain(&queue, dir.path(), &destination).run(stop.clone()));
    let mut changes = queue.changes();
    let answered = async {
        while queue.get(id).await.unwrap().unwrap().summary.state != State::Answered {
            changes.changed().await.unwrap();
        }
    };
    timeout(PLENTY, answered).await.unwrap();
    stop.cancel();
    second.await.unwrap();
    let seen = fake.seen();
    assert_eq!(seen.len(), 2);
    for seen in &seen {
        assert_eq!(seen.headers["idempotency-key"], id.to_string());
    }
    assert_eq!(seen[0].body, seen[1].body);
}

#[tokio::test]
async fn an_agent_is_asked_again_under_the_same_key() {
    let fake = Fake::holdfast(vec![NEVER, (200, vec![], stop())], None).await;
    dies_and_comes_back(&fake, destination("site", &fake.url)).await;
}

#[tokio::test]
async fn a_cloud_is_asked_again_under_the_same_key() {
    let message = json!({ "role": "assistant", "content": r#"{"label":"stop","confidence":0.9}"# });
    let choice = json!({ "index": 0, "message": message, "finish_reason": "stop" });
    let body = json!({ "id": "1", "object": "chat.completion", "created": 1,
        "model": "gpt-test", "choices": [choice] });
    let fake = Fake::openai(vec![NEVER, (200, vec![], body)], None).await;
    let mut cloud = destination("cloud", &fake.url);
    (cloud.zone, cloud.protocol) =
        (Zone::Public, Protocol::Chat(Chat::new(Dialect::OpenAi, "gpt")));
    dies_and_comes_back(&fake, cloud).await;
}
