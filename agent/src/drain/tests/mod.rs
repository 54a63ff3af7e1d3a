//! A real queue on disk, a real client, and a site whose every word the test gives.

mod conversations;
mod killed;
mod metered;
mod month;
mod pressing;
mod world;

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::post;
use bytes::Bytes;
use holdfast_models::Media;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::*;
use crate::answer::{Answer, Class};
use crate::audit::Audit;
use crate::destination::{Limits, Protocol, Transport, Zone};
use crate::envelope::Final;
use crate::escalate::{Hints, Purse};
use crate::queue::{NewEntry, QueueConfig, RequestId, State as Place};
use crate::request::{DataClass, Escalate, Priority, Request, TaskName};

const PLENTY: Duration = Duration::from_secs(20);

/// One request at the site, waiting for its reply.
struct Asked {
    id: String,
    ttl_ms: u64,
    reply: oneshot::Sender<(u16, Value)>,
}

struct Site {
    url: String,
    asked: mpsc::UnboundedReceiver<Asked>,
    task: JoinHandle<()>,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn take(
    State(asked): State<mpsc::UnboundedSender<Asked>>,
    headers: HeaderMap,
) -> axum::response::Response {
    let text = |name: &str| headers.get(name).unwrap().to_str().unwrap().to_owned();
    let (reply, answer) = oneshot::channel();
    let ttl_ms = text("holdfast-ttl-ms").parse().unwrap();
    asked.send(Asked { id: text("idempotency-key"), ttl_ms, reply }).unwrap();
    match answer.await {
        Ok((status, body)) => {
            (StatusCode::from_u16(status).unwrap(), axum::Json(body)).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

impl Site {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener)
    }

    fn on(listener: TcpListener) -> Self {
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, asked) = mpsc::unbounded_channel();
        let router = Router::new().route("/v1/tasks/{task}", post(take)).with_state(sender);
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, asked, task }
    }

    async fn next(&mut self) -> Asked {
        tokio::time::timeout(PLENTY, self.asked.recv()).await.unwrap().unwrap()
    }

    async fn says(&mut self, status: u16, body: Value) -> String {
        let asked = self.next().await;
        asked.reply.send((status, body)).unwrap();
        asked.id
    }

    fn is_untouched(&mut self) -> bool {
        self.asked.try_recv().is_err()
    }
}

fn stop() -> Value {
    json!({ "id": RequestId::new().to_string(), "task": "voice-commands", "state": "answered",
        "class": "internal", "reasons": [], "answer": { "label": "stop", "confidence": 0.97,
        "classes": [{ "label": "stop", "confidence": 0.97 }], "zone": "device", "place": "device",
        "model": "voice-commands-large@1.0.0", "took_ms": 2.0, "provisional": false } })
}

fn problem(text: &str) -> Value {
    json!({ "title": text })
}

fn destination(name: &str, url: &str) -> Destination {
    Destination {
        name: name.to_owned(),
        zone: Zone::Site,
        protocol: Protocol::Holdfast,
        url: url.to_owned(),
        credential: None,
        tasks: Vec::new(),
        transport: Transport::default(),
        connect_timeout: Duration::from_secs(5),
        timeout: PLENTY,
        concurrency: 1,
        limits: Limits::default(),
    }
}

/// A queue with a drain that can be started and stopped.
struct Bench {
    _dir: tempfile::TempDir,
    queue: Queue,
    escalator: Arc<Escalator>,
    destinations: Arc<[Destination]>,
    policy: Policy,
    clock: Clock,
    cancel: CancellationToken,
}

impl Bench {
    fn new(destinations: Vec<Destination>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config =
            QueueConfig { segment_bytes: 1024 * 1024, headroom_bytes: 0, ..QueueConfig::default() };
        let (queue, _) = Queue::open(dir.path(), config).unwrap();
        let clock = Clock::resume(dir.path());
        let purse = Purse::open(dir.path(), clock.clone(), &destinations);
        let escalator = Arc::new(
            Escalator::new(&destinations, Hints::default(), purse, Audit::default()).unwrap(),
        );
        Self {
            _dir: dir,
            queue,
            escalator,
            destinations: destinations.into(),
            policy: Policy::default(),
            clock,
            cancel: CancellationToken::new(),
        }
    }

    fn start(&self) -> JoinHandle<()> {
        let (queue, escalator) = (self.queue.clone(), self.escalator.clone());
        let policy = Arc::new(self.policy.clone());
        let (destinations, clock) = (self.destinations.clone(), self.clock.clone());
        let drain = Drain {
            queue,
            escalator,
            destinations,
            balancing: Arc::default(),
            routes: Vec::new().into(),
            policy,
            clock,
            max_attempts: 3,
        };
        tokio::spawn(drain.run(self.cancel.clone()))
    }

    async fn hold(&self, class: DataClass, priority: u8, provisional: bool) -> RequestId {
        let provisional = provisional.then(|| Answer {
            label: "go".to_owned(),
            confidence: Some(0.4),
            classes: vec![Class { label: "go".to_owned(), confidence: 0.4 }],
            outcome: None,
            recorded: None,
            zone: Zone::Device,
            place: "device".to_owned(),
            model: "voice-commands@1.0.0 int8 tract".to_owned(),
            took_ms: 1.0,
            provisional: true,
            cost_micros: None,
        });
        let request = Request {
            id: RequestId::new(),
            task: TaskName::parse("voice-commands").unwrap(),
            media: Media::trusted(holdfast_models::MediaType::Wav, Bytes::from_static(b"RIFF")),
            class,
            priority: Priority::new(priority).unwrap(),
            escalate: Escalate::Auto,
            deadline_ms: 100,
            ttl_ms: 600_000,
            not_before_ms: 0,
            key: None,
            hops: 0,
        };
        let envelope = Envelope::of(&request, provisional, vec![Reason::Held]).to_bytes();
        self.put(request.id, priority, envelope, request.ttl_ms).await;
        request.id
    }

    async fn put(&self, id: RequestId, priority: u8, envelope: Vec<u8>, ttl_ms: u64) {
        let now_ms = self.clock.now_ms();
        let entry = NewEntry {
            id,
            idempotency: None,
            priority,
            accepted_at_ms: now_ms,
            not_before_ms: 0,
            expires_at_ms: Some(now_ms + ttl_ms),
            envelope: envelope.into(),
            body: Bytes::from_static(b"RIFF"),
        };
        self.queue.accept(entry).await.unwrap();
    }

    /// The final state of `id`, with its answer or the last reason.
    async fn end(&self, id: RequestId) -> (Place, Option<Final>, Option<String>) {
        let wait = async {
            let mut changes = self.queue.changes();
            loop {
                let record = self.queue.get(id).await.unwrap().unwrap();
                if record.summary.state.is_final() {
                    let answer = record.answer.map(|bytes| Final::from_bytes(&bytes).unwrap());
                    return (record.summary.state, answer, record.summary.last_reason);
                }
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PLENTY, wait).await.expect("it came to its end")
    }

    async fn answer(&self, id: RequestId) -> Final {
        let (state, answer, why) = self.end(id).await;
        assert_eq!(state, Place::Answered, "{why:?}");
        answer.unwrap()
    }
}

#[tokio::test]
async fn what_is_held_is_sent_and_the_provisional_answer_replaced() {
    let mut site = Site::new().await;
    let bench = Bench::new(vec![destination("site", &site.url)]);
    let id = bench.hold(DataClass::Internal, 4, true).await;
    bench.start();
    let asked = site.next().await;
    assert_eq!(asked.id, id.to_string());
    assert!(asked.ttl_ms > 0 && asked.ttl_ms <= 600_000, "{}", asked.ttl_ms);
    asked.reply.send((200, stop())).unwrap();
    let stored = bench.answer(id).await;
    assert_eq!((stored.answer.label.as_str(), stored.answer.provisional), ("stop", false));
    let (destination, zone) = ("site".to_owned(), Zone::Site);
    assert_eq!(stored.reasons, [Reason::Held, Reason::Escalated { destination, zone }]);
    assert!(site.is_untouched());
}

#[tokio::test]
async fn the_most_urgent_goes_first_and_then_the_oldest() {
    let mut site = Site::new().await;
    let bench = Bench::new(vec![destination("site", &site.url)]);
    let mut held = Vec::new();
    for priority in [1, 9, 5, 9] {
        held.push(bench.hold(DataClass::Internal, priority, false).await.to_string());
    }
    bench.start();
    let mut order = Vec::new();
    for _ in &held {
        order.push(site.says(200, stop()).await);
    }
    assert_eq!(order, [&held[1], &held[3], &held[2], &held[0]].map(String::clone));
}

#[tokio::test]
async fn the_first_answer_wins() {
    let mut site = Site::new().await;
    let bench = Bench::new(vec![destination("site", &site.url)]);
    let id = bench.hold(DataClass::Internal, 4, true).await;
    let next = bench.hold(DataClass::Internal, 1, false).await;
    bench.start();
    let asked = site.next().await;
    bench.queue.cancel(id, bench.clock.now_ms()).await.unwrap();
    asked.reply.send((200, stop())).unwrap();
    site.says(200, stop()).await;
    bench.answer(next).await;
    let (state, answer, _) = bench.end(id).await;
    assert_eq!((state, answer), (Place::Cancelled, None), "the answer came too late");
}

#[tokio::test]
async fn what_the_policy_now_forbids_is_not_sent() {
    // Nobody takes connections here: one that was ever opened still waits to be taken.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    for (case, class, tighten) in [
        ("tightened since", DataClass::Internal, Some(Zone::Device)),
        ("restricted", DataClass::Restricted, None),
    ] {
        let mut bench = Bench::new(vec![destination("site", &url)]);
        let with = bench.hold(class, 4, true).await;
        let without = bench.hold(class, 4, false).await;
        if let Some(zone) = tighten {
            bench.policy.tighten(class, zone).unwrap();
        }
        bench.start();
        let stored = bench.answer(with).await;
        assert_eq!(
            (stored.answer.label.as_str(), stored.answer.provisional),
            ("go", false),
            "{case}"
        );
        let (destination, zone) = ("site".to_owned(), Zone::Site);
        let forbidden = Reason::ClassForbids { class, destination, zone };
        assert_eq!(stored.reasons, [Reason::Held, forbidden, Reason::LocalStands], "{case}");
        let (state, _, why) = bench.end(without).await;
        assert_eq!(state, Place::Failed, "{case}");
        let why = why.unwrap();
        assert!(why.contains(&format!("{class} data may not go to site")), "{case}: {why}");
        let nobody = listener.accept().expect_err(case);
        assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock, "{case}");
        bench.cancel.cancel();
    }
}

#[tokio::test]
async fn a_failure_that_passes_is_tried_again() {
    let mut site = Site::new().await;
    let bench = Bench::new(vec![destination("site", &site.url)]);
    let id = bench.hold(DataClass::Internal, 4, false).await;
    bench.start();
    site.says(500, problem("broken for now")).await;
    let asked = site.next().await;
    let record = bench.queue.get(id).await.unwrap().unwrap();
    assert_eq!(record.summary.attempts, 1);
    assert!(record.summary.last_reason.unwrap().contains("broken for now"));
    assert_eq!(asked.id, id.to_string(), "the same id, so that nothing is doubled");
    asked.reply.send((200, stop())).unwrap();
    assert_eq!(bench.answer(id).await.answer.label, "stop");
}

#[tokio::test]
async fn what_everybody_refuses_ends_with_what_the_device_knows() {
    let (mut near, mut far) = (Site::new().await, Site::new().await);
    let destinations = vec![destination("near", &near.url), destination("far", &far.url)];
    let bench = Bench::new(destinations);
    let id = bench.hold(DataClass::Internal, 4, true).await;
    bench.start();
    near.says(422, problem("not a sound")).await;
    far.says(404, problem("unknown task")).await;
    let stored = bench.answer(id).await;
    assert_eq!(stored.answer.label, "go");
    assert_eq!(stored.reasons.last(), Some(&Reason::LocalStands));
    let told = stored.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    assert!(told.contains("not a sound") && told.contains("unknown task"), "{told}");

    let id = bench.hold(DataClass::Internal, 4, false).await;
    near.says(422, problem("not a sound")).await;
    far.says(404, problem("unknown task")).await;
    let (state, _, why) = bench.end(id).await;
    assert_eq!(state, Place::Failed);
    assert!(why.unwrap().contains("unknown task"));
    assert!(near.is_untouched() && far.is_untouched(), "each was asked once");
}

#[tokio::test]
async fn who_refused_is_not_asked_again_while_another_is_tried() {
    let (mut near, mut far) = (Site::new().await, Site::new().await);
    let destinations = vec![destination("near", &near.url), destination("far", &far.url)];
    let bench = Bench::new(destinations);
    let id = bench.hold(DataClass::Internal, 4, false).await;
    bench.start();
    near.says(422, problem("not a sound")).await;
    far.says(500, problem("broken for now")).await;
    far.says(200, stop()).await;
    let stored = bench.answer(id).await;
    assert!(near.is_untouched());
    assert_eq!(stored.answer.place, "far");
    let told = stored.reasons.iter().map(Reason::code).collect::<Vec<_>>();
    assert_eq!(told, ["held", "send_failed", "escalated"]);
}

#[tokio::test]
async fn a_record_that_does_not_decode_fails_and_blocks_nothing() {
    let mut site = Site::new().await;
    let bench = Bench::new(vec![destination("site", &site.url)]);
    let poisoned = [&b""[..], b"\x01garbage"];
    let mut bad = Vec::new();
    for envelope in poisoned {
        let id = RequestId::new();
        bench.put(id, 9, envelope.to_vec(), 60_000).await;
        bad.push(id);
    }
    let newer = RequestId::new();
    bench.put(newer, 9, b"\xfefrom the future".to_vec(), 60_000).await;
    let good = bench.hold(DataClass::Internal, 0, false).await;
    bench.start();
    site.says(200, stop()).await;
    bench.answer(good).await;
    let mut changes = bench.queue.changes();
    let waits = async {
        loop {
            let summary = bench.queue.get(newer).await.unwrap().unwrap().summary;
            if let Some(why) = summary.last_reason {
                return (summary.state, why);
            }
            changes.changed().await.unwrap();
        }
    };
    let (state, why) = tokio::time::timeout(PLENTY, waits).await.unwrap();
    assert_eq!(state, Place::Held, "the agent that wrote it may come back");
    assert!(why.starts_with("stored record has version"), "{why}");
    for id in bad {
        let (state, _, why) = bench.end(id).await;
        assert_eq!(state, Place::Failed);
        assert!(why.unwrap().starts_with("stored record"));
    }
}

#[tokio::test]
async fn what_is_past_its_time_expires_unsent() {
    let mut site = Site::new().await;
    let bench = Bench::new(vec![destination("site", &site.url)]);
    let other = bench.hold(DataClass::Internal, 4, true).await;
    let record = bench.queue.get(other).await.unwrap().unwrap();
    let late = RequestId::new();
    bench.put(late, 9, record.envelope.to_vec(), 0).await;
    bench.start();
    assert_eq!(site.says(200, stop()).await, other.to_string());
    let (state, answer, _) = bench.end(late).await;
    assert_eq!((state, answer), (Place::Expired, None));
    let record = bench.queue.get(late).await.unwrap().unwrap();
    let envelope = Envelope::from_bytes(&record.envelope).unwrap();
    let Held::Task(held) = envelope.held else { panic!("{envelope:?}") };
    assert_eq!(held.provisional.unwrap().label, "go", "the local answer stays readable");
    assert!(site.is_untouched());
}

#[tokio::test]
async fn an_outage_costs_no_attempt_and_ends_by_itself() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let bench = Bench::new(vec![destination("site", &format!("http://{address}"))]);
    let id = bench.hold(DataClass::Internal, 4, true).await;
    bench.start();
    tokio::spawn(bench.escalator.clone().probe_task(bench.cancel.clone()));
    let mut links = bench.escalator.links();
    links.wait_for(|states| states.get("site").is_down()).await.unwrap();
    let more = bench.hold(DataClass::Internal, 4, true).await;
    let mut site = Site::on(TcpListener::bind(address).await.unwrap());
    for _ in 0..2 {
        site.says(200, stop()).await;
    }
    for id in [id, more] {
        assert_eq!(bench.answer(id).await.answer.label, "stop");
        assert_eq!(bench.queue.get(id).await.unwrap().unwrap().summary.attempts, 0);
    }
    bench.cancel.cancel();
}

#[tokio::test]
async fn stopping_gives_back_what_is_under_way() {
    let mut site = Site::new().await;
    let bench = Bench::new(vec![destination("site", &site.url)]);
    let id = bench.hold(DataClass::Internal, 4, true).await;
    let drain = bench.start();
    let _asked = site.next().await;
    bench.cancel.cancel();
    tokio::time::timeout(Duration::from_secs(5), drain).await.expect("it stops in time").unwrap();
    let record = bench.queue.get(id).await.unwrap().unwrap();
    assert_eq!((record.summary.state, record.summary.attempts), (Place::Held, 0));
    let lease = bench.queue.lease_next(bench.clock.now_ms()).await.unwrap().unwrap();
    assert_eq!(lease.id(), id);
}

#[tokio::test]
async fn a_lost_configuration_does_not_cost_what_is_held() {
    let mut site = Site::new().await;
    let mut elsewhere = destination("site", &site.url);
    elsewhere.tasks = vec![TaskName::parse("part-inspection").unwrap()];
    for destinations in [vec![], vec![elsewhere]] {
        let count = destinations.len();
        let bench = Bench::new(destinations);
        let id = bench.hold(DataClass::Internal, 4, true).await;
        let mut changes = bench.queue.changes();
        bench.start();
        if count > 0 {
            // It is looked at, and put back for later.
            let noted = async {
                while bench.queue.get(id).await.unwrap().unwrap().summary.last_reason.is_none() {
                    changes.changed().await.unwrap();
                }
            };
            tokio::time::timeout(PLENTY, noted).await.unwrap();
        }
        bench.cancel.cancel();
        let record = bench.queue.get(id).await.unwrap().unwrap();
        assert_eq!(record.summary.state, Place::Held);
    }
    assert!(site.is_untouched());
}
