//! Simulated time: a real queue on disk, the real drain, and destinations whose behaviour a test makes
//! up, on tokio's paused clock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use holdfast_models::Media;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::super::Drain;
use crate::answer::Reason;
use crate::audit::Audit;
use crate::balance::Balancing;
use crate::clock::Clock;
use crate::clock::simulated::Machine;
use crate::destination::{Destination, Limits, Protocol, Transport, Zone};
use crate::envelope::Envelope;
use crate::escalate::scripted::{Called, Network, Told};
use crate::escalate::{Escalator, Hints, Purse};
use crate::gateway::Route;
use crate::network::{Network as Meter, NetworkConfig};
use crate::policy::Policy;
use crate::queue::{NewEntry, Queue, QueueConfig, QueueError, RequestId, State, Summary};
use crate::request::{DataClass, Escalate, Priority, Request, TaskName};

/// Bytes of every input.
pub(super) const BODY: &[u8] = b"RIFF of no length";

/// What a destination does with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Works for so long, and answers.
    Answer(Duration),
    /// A status, and the wait that it asks for.
    Status(u16, Option<Duration>),
    /// No connection.
    Nobody,
    /// Works, and the connection breaks before the answer.
    Cut,
    /// Takes it, and says nothing.
    Silent,
}

/// A send that reached a destination.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) host: String,
    pub(super) key: String,
    pub(super) at: Instant,
    /// On the device's count.
    pub(super) at_ms: u64,
    pub(super) act: Act,
    /// Sends under way at this destination, with this one.
    pub(super) under_way: usize,
}

type Behaviour = Box<dyn FnMut(&str, &Called) -> Act + Send>;

/// The world outside of the device; clones are the same one.
#[derive(Clone)]
pub(super) struct World(Arc<Inner>);

struct Inner {
    behaviour: Mutex<Behaviour>,
    seen: Mutex<Vec<Seen>>,
    under_way: Mutex<HashMap<String, usize>>,
    clock: Mutex<Option<Clock>>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("World")
    }
}

/// Counts a send until it is over, or given up.
struct UnderWay(World, String);

impl Drop for UnderWay {
    fn drop(&mut self) {
        *self.0.0.under_way.lock().unwrap().get_mut(&self.1).unwrap() -= 1;
    }
}

impl World {
    pub(super) fn new(behaviour: impl FnMut(&str, &Called) -> Act + Send + 'static) -> Self {
        Self(Arc::new(Inner {
            behaviour: Mutex::new(Box::new(behaviour)),
            seen: Mutex::default(),
            under_way: Mutex::default(),
            clock: Mutex::default(),
        }))
    }

    pub(super) fn behave(&self, behaviour: impl FnMut(&str, &Called) -> Act + Send + 'static) {
        *self.0.behaviour.lock().unwrap() = Box::new(behaviour);
    }

    /// Every send, without the probes.
    pub(super) fn seen(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.0.seen.lock().unwrap()
    }

    /// The ids that were sent, in order.
    pub(super) fn keys(&self) -> Vec<String> {
        self.seen().iter().map(|seen| seen.key.clone()).collect()
    }

    fn begin(&self, host: &str, call: &Called, act: Act) -> UnderWay {
        let under_way = {
            let mut all = self.0.under_way.lock().unwrap();
            let count = all.entry(host.to_owned()).or_default();
            *count += 1;
            *count
        };
        let at_ms = self.0.clock.lock().unwrap().as_ref().map_or(0, Clock::now_ms);
        self.seen().push(Seen {
            host: host.to_owned(),
            key: call.header("idempotency-key").unwrap_or_default().to_owned(),
            at: Instant::now(),
            at_ms,
            act,
            under_way,
        });
        UnderWay(self.clone(), host.to_owned())
    }
}

impl Network for World {
    fn call(&self, call: Called) -> BoxFuture<'static, Told> {
        let rest = call.url.strip_prefix("http://").unwrap();
        let (host, path) = rest.split_once('/').unwrap();
        let host = host.to_owned();
        let act = (self.0.behaviour.lock().unwrap())(&host, &call);
        let under_way = (!call.is_probe).then(|| self.begin(&host, &call, act));
        let task = path.rsplit('/').next().unwrap().to_owned();
        let told = answer(&host, &task, call.header("idempotency-key").unwrap_or_default());
        async move {
            let _under_way = under_way;
            match act {
                Act::Answer(after) => {
                    sleep(after).await;
                    Told::Reply(200, None, told)
                }
                Act::Status(status, wait) => {
                    sleep(Duration::from_millis(5)).await;
                    Told::Reply(status, wait, json!({ "title": "not now" }))
                }
                Act::Nobody => Told::Nobody,
                Act::Cut => {
                    sleep(Duration::from_millis(50)).await;
                    Told::Cut
                }
                Act::Silent => std::future::pending().await,
            }
        }
        .boxed()
    }
}

/// An answer that says whom it is for.
fn answer(host: &str, task: &str, key: &str) -> serde_json::Value {
    if task == "completions" {
        let message = json!({ "role": "assistant", "content": format!("{host} says hello") });
        return json!({ "id": "1", "object": "chat.completion", "created": 1, "model": "m-1",
            "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }],
            "usage": { "prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15 } });
    }
    json!({ "id": RequestId::new().to_string(), "task": task, "state": "answered",
        "class": "internal", "reasons": [], "answer": { "label": "stop", "confidence": 0.97,
        "classes": [{ "label": "stop", "confidence": 0.97 }], "zone": "device", "place": "device",
        "model": format!("{host}#{key}"), "took_ms": 2.0, "provisional": false } })
}

pub(super) fn destination(name: &str, zone: Zone, concurrency: usize) -> Destination {
    Destination {
        name: name.to_owned(),
        zone,
        protocol: Protocol::Holdfast,
        url: format!("http://{name}"),
        credential: None,
        tasks: Vec::new(),
        transport: Transport::default(),
        connect_timeout: Duration::from_secs(5),
        timeout: Duration::from_secs(30),
        concurrency,
        limits: Limits::default(),
    }
}

/// A request as a test puts it in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) task: &'static str,
    pub(super) class: DataClass,
    pub(super) priority: u8,
    pub(super) ttl: Duration,
}

impl Held {
    /// Anybody may be asked it for a month.
    pub(super) fn of_priority(priority: u8) -> Self {
        let ttl = Duration::from_secs(30 * 86_400);
        Self { task: "voice-commands", class: DataClass::Public, priority, ttl }
    }
}

/// A device with a drain that runs.
pub(super) struct Device {
    pub(super) dir: tempfile::TempDir,
    pub(super) machine: Machine,
    pub(super) world: World,
    pub(super) destinations: Arc<[Destination]>,
    pub(super) balancing: Balancing,
    pub(super) routes: Vec<Route>,
    pub(super) policy: Policy,
    /// Which links are metered, and what they may carry.
    pub(super) network: NetworkConfig,
    agent: Option<Agent>,
}

/// One run of the agent.
struct Agent {
    queue: Queue,
    clock: Clock,
    escalator: Arc<Escalator>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

/// A date for machines whose date is right.
pub(super) const DATE_MS: u64 = 1_800_000_000_000;

impl Device {
    /// A device whose agent does not run yet.
    pub(super) fn new(world: World, destinations: Vec<Destination>) -> Self {
        // Memory, where there is such a folder: what a sync does is proved elsewhere.
        let memory = std::path::Path::new("/dev/shm");
        let dir = match memory.is_dir() {
            true => tempfile::tempdir_in(memory).unwrap(),
            false => tempfile::tempdir().unwrap(),
        };
        let machine = Machine::new(DATE_MS, true);
        let policy = Policy::default();
        let (destinations, balancing) = (destinations.into(), Balancing::default());
        let (routes, network) = (Vec::new(), NetworkConfig::default());
        let agent = None;
        Self { dir, machine, world, destinations, balancing, routes, policy, network, agent }
    }

    /// A device with a drain that runs.
    pub(super) async fn started(world: World, destinations: Vec<Destination>) -> Self {
        let mut device = Self::new(world, destinations);
        device.start().await;
        device
    }

    pub(super) fn queue(&self) -> &Queue {
        &self.agent.as_ref().unwrap().queue
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.agent.as_ref().unwrap().clock.now_ms()
    }

    pub(super) fn is_reachable(&self, name: &str) -> bool {
        self.agent.as_ref().unwrap().escalator.is_reachable(name)
    }

    /// Opens everything, without the drain.
    pub(super) async fn open(&mut self) {
        let config =
            QueueConfig { segment_bytes: 1 << 20, headroom_bytes: 0, ..QueueConfig::default() };
        let clock = Clock::simulated(self.dir.path(), self.machine.clone());
        let queue = loop {
            let (dir, config) = (self.dir.path().join("queue"), config.clone());
            match tokio::task::spawn_blocking(move || Queue::open(&dir, config)).await.unwrap() {
                Ok((queue, _)) => break queue.holding_time(),
                // The writer of a killed run still lets go.
                Err(QueueError::InUse { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        let purse = Purse::open(self.dir.path(), clock.clone(), &self.destinations);
        let meter = Meter::open(self.dir.path(), clock.clone(), self.network.clone());
        let (hints, audit) = (Hints::default(), Audit::default());
        let escalator = Escalator::over(meter, &self.destinations, hints, purse, audit).unwrap();
        let network: Arc<dyn Network> = Arc::new(self.world.clone());
        let escalator = Arc::new(escalator.into_network(&network));
        *self.world.0.clock.lock().unwrap() = Some(clock.clone());
        let stop = CancellationToken::new();
        self.agent = Some(Agent { queue, clock, escalator, stop, tasks: Vec::new() });
    }

    /// Starts the drain of what is open, opening it if it is not.
    pub(super) async fn start(&mut self) {
        if self.agent.is_none() {
            self.open().await;
        }
        let agent = self.agent.as_mut().unwrap();
        let drain = Drain {
            queue: agent.queue.clone(),
            escalator: agent.escalator.clone(),
            destinations: self.destinations.clone(),
            balancing: Arc::new(self.balancing.clone()),
            routes: self.routes.clone().into(),
            policy: Arc::new(self.policy.clone()),
            clock: agent.clock.clone(),
            max_attempts: 20,
        };
        agent.tasks = vec![
            tokio::spawn(drain.run(agent.stop.clone())),
            tokio::spawn(agent.escalator.clone().probe_task(agent.stop.clone())),
            tokio::spawn(agent.clock.clone().keep(agent.stop.clone())),
        ];
        // Nothing is metered otherwise, and a month has many looks at that.
        if self.network.plan.has_budget() {
            let network = agent.escalator.network().clone();
            agent.tasks.push(tokio::spawn(network.keep(agent.stop.clone())));
        }
    }

    /// Stops the agent in good order.
    pub(super) async fn stop(&mut self) {
        let agent = self.agent.take().unwrap();
        agent.stop.cancel();
        for task in agent.tasks {
            task.await.unwrap();
        }
        agent.queue.close().await.unwrap();
    }

    /// Ends the agent in the middle of whatever it does.
    pub(super) async fn kill(&mut self) {
        let agent = self.agent.take().unwrap();
        for task in agent.tasks {
            task.abort();
            assert!(task.await.is_err_and(|error| error.is_cancelled()));
        }
    }

    pub(super) async fn hold(&self, held: Held) -> RequestId {
        let id = RequestId::new();
        self.hold_as(id, held).await;
        id
    }

    /// The same, under an id that is known before.
    pub(super) async fn hold_as(&self, id: RequestId, held: Held) {
        let request = Request {
            id,
            task: TaskName::parse(held.task).unwrap(),
            media: Media::trusted(holdfast_models::MediaType::Wav, Bytes::from_static(BODY)),
            class: held.class,
            priority: Priority::new(held.priority).unwrap(),
            escalate: Escalate::Auto,
            deadline_ms: 100,
            ttl_ms: u64::try_from(held.ttl.as_millis()).unwrap(),
            key: None,
            not_before_ms: 0,
            hops: 0,
        };
        let envelope = Envelope::of(&request, None, vec![Reason::Held]).to_bytes();
        let now_ms = self.now_ms();
        let entry = NewEntry {
            id: request.id,
            idempotency: None,
            priority: held.priority,
            accepted_at_ms: now_ms,
            not_before_ms: now_ms,
            expires_at_ms: Some(now_ms + request.ttl_ms),
            envelope: envelope.into(),
            body: Bytes::from_static(BODY),
        };
        self.queue().accept(entry).await.unwrap();
    }

    pub(super) async fn summary(&self, id: RequestId) -> Summary {
        self.queue().get(id).await.unwrap().expect("nothing is lost").summary
    }

    /// Waits until `id` is in `state`, for at most `within`.
    pub(super) async fn until(&self, id: RequestId, state: State, within: Duration) -> Summary {
        let end = Instant::now() + within;
        let mut changes = self.queue().changes();
        loop {
            let summary = self.summary(id).await;
            if summary.state == state {
                return summary;
            }
            let changed = timeout_at(end, changes.changed()).await;
            assert!(changed.is_ok(), "not {state:?} but {summary:?}");
        }
    }
}
