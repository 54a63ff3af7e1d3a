//! The link against a real broker, with a controller made of a bare client and the wire contract.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use holdfast_wire::id::DeviceId;
use holdfast_wire::message::{Down, HelloAck, ResultReport};
use holdfast_wire::sign::{self, Signer};
use holdfast_wire::topic::{Topic, filter_up};
use holdfast_wire::unit::Bytes;
use rumqttc::{AsyncClient, EventLoop, MqttOptions, Packet, QoS, SubscribeFilter};
use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::*;
use crate::clock::Clock;
use crate::network::{Metered, NetworkConfig, Plan};

const PATIENCE: Duration = Duration::from_secs(60);

/// A broker on a free port; it ends with the test.
async fn broker() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = listener.local_addr().unwrap();
    drop(listener);
    let connections = ConnectionSettings {
        connection_timeout_ms: 5000,
        max_payload_size: 20_000,
        max_inflight_count: 100,
        auth: None,
        external_auth: None,
        dynamic_filters: true,
    };
    let name = "v4".to_owned();
    let server = ServerSettings {
        name: name.clone(),
        listen,
        tls: None,
        next_connection_delay_ms: 0,
        connections,
    };
    let router = RouterConfig {
        max_connections: 20,
        max_outgoing_packet_count: 100,
        max_segment_size: 100_000,
        max_segment_count: 2,
        ..RouterConfig::default()
    };
    let config = Config { router, v4: Some(HashMap::from([(name, server)])), ..Config::default() };
    std::thread::spawn(move || Broker::new(config).start().unwrap());
    while TcpStream::connect(listen).await.is_err() {
        sleep(Duration::from_millis(5)).await;
    }
    listen
}

/// The way to the broker, which a test can cut.
struct Way {
    address: SocketAddr,
    open: Arc<watch::Sender<bool>>,
    _task: JoinHandle<()>,
}

impl Way {
    async fn to(broker: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let open = Arc::new(watch::Sender::new(true));
        let state = open.clone();
        let task = tokio::spawn(async move {
            loop {
                let (mut from, _) = listener.accept().await.unwrap();
                let mut state = state.subscribe();
                if !*state.borrow() {
                    continue;
                }
                tokio::spawn(async move {
                    let mut to = TcpStream::connect(broker).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut from, &mut to) => {}
                        _ = state.wait_for(|open| !open) => {}
                    }
                });
            }
        });
        Self { address, open, _task: task }
    }
}

/// A controller that does what a test says.
struct Controller {
    signer: Signer,
    sequence: u64,
    client: AsyncClient,
    events: EventLoop,
}

impl Controller {
    async fn connect(broker: SocketAddr, secret: u8) -> Self {
        let options = MqttOptions::new(
            format!("controller-{secret}"),
            broker.ip().to_string(),
            broker.port(),
        );
        let (client, events) = AsyncClient::new(options, 16);
        let filters =
            Kind::UP.map(|kind| SubscribeFilter::new(filter_up(None, kind), QoS::AtLeastOnce));
        client.try_subscribe_many(filters).unwrap();
        let signer = Signer::from_secret(&[secret; 32]);
        let mut controller = Self { signer, sequence: 1, client, events };
        controller.wait(|packet| matches!(packet, Packet::SubAck(_)).then_some(())).await;
        controller
    }

    async fn wait<T>(&mut self, mut look: impl FnMut(&Packet) -> Option<T>) -> T {
        let waiting = async {
            loop {
                if let rumqttc::Event::Incoming(packet) = self.events.poll().await.unwrap()
                    && let Some(found) = look(&packet)
                {
                    return found;
                }
            }
        };
        timeout(PATIENCE, waiting).await.expect("the device said nothing of the kind")
    }

    /// The next message that fits: its key, its sequence, and what it says.
    async fn hear(&mut self, fits: impl Fn(&Up) -> bool) -> (PublicKey, u64, Up) {
        self.wait(|packet| {
            let Packet::Publish(publish) = packet else { return None };
            let topic = Topic::parse(&publish.topic).unwrap();
            let opened = sign::open(&topic, &publish.payload).unwrap();
            let message = Up::decode(opened.payload).unwrap();
            assert_eq!(Topic::Device(device(), message.kind()), topic);
            fits(&message).then_some((opened.key, opened.sequence, message))
        })
        .await
    }

    async fn hear_hello(&mut self) -> (u64, Hello) {
        let (_, sequence, message) = self.hear(|message| matches!(message, Up::Hello(_))).await;
        let Up::Hello(hello) = message else { unreachable!() };
        (sequence, hello)
    }

    async fn say(&mut self, topic: &Topic, down: &Down) {
        let bytes = self.signer.seal(topic, self.sequence, &down.encode().unwrap());
        self.sequence += 1;
        self.client.try_publish(topic.to_string(), QoS::AtLeastOnce, false, bytes).unwrap();
        self.wait(|packet| matches!(packet, Packet::PubAck(_)).then_some(())).await;
    }

    async fn acknowledge(&mut self, sequence: u64) {
        let ack = Down::HelloAck(HelloAck { sequence, time: Millis(0) });
        self.say(&Topic::Device(device(), Kind::Down), &ack).await;
    }
}

fn device() -> DeviceId {
    DeviceId::parse("cam-7").unwrap()
}

/// A device's link that runs.
struct Running {
    status: watch::Receiver<State>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    fn start(state: &Path, broker: SocketAddr) -> Self {
        Self::start_with(state, broker, None)
    }

    fn start_with(
        state: &Path,
        broker: SocketAddr,
        results: Option<mpsc::Receiver<Batch>>,
    ) -> Self {
        Self::start_over(Network::default(), state, broker, results)
    }

    fn start_over(
        network: Network,
        state: &Path,
        broker: SocketAddr,
        results: Option<mpsc::Receiver<Batch>>,
    ) -> Self {
        let config = LinkConfig {
            host: broker.ip().to_string(),
            port: broker.port(),
            interval: Duration::from_millis(200),
            board: "test-board".into(),
            agent_version: "0.1.0".into(),
            models: watch::channel(Vec::new()).1,
            started_ms: 5,
            network,
        };
        let identity = Identity::load(state, Some(device())).unwrap();
        let cancel = CancellationToken::new();
        let (tell, status) = watch::channel(State::Waiting { attempt: 0 });
        let health = || Health { memory_rss: Bytes(7), ..Health::default() };
        let task = tokio::spawn(run(config, identity, health, results, tell, cancel.clone()));
        Self { status, cancel, task }
    }

    async fn becomes(&mut self, what: &str, fits: impl FnMut(&State) -> bool) {
        timeout(PATIENCE, self.status.wait_for(fits)).await.expect(what).unwrap();
    }
}

#[tokio::test]
async fn a_device_says_hello_then_health_then_goodbye() {
    let state = tempfile::tempdir().unwrap();
    let broker = broker().await;
    let mut controller = Controller::connect(broker, 1).await;
    let mut link = Running::start(state.path(), broker);
    let (sequence, hello) = controller.hear_hello().await;
    assert_eq!(
        (hello.device, hello.health_interval, hello.started),
        (device(), Millis(200), Millis(5))
    );
    assert!(hello.last_will < sequence);
    controller.acknowledge(sequence).await;
    let (_, first, health) = controller.hear(|message| matches!(message, Up::Health(_))).await;
    assert!(matches!(health, Up::Health(health) if health.memory_rss == Bytes(7)));
    let (_, second, _) = controller.hear(|message| matches!(message, Up::Health(_))).await;
    assert!(sequence < first && first < second);
    link.becomes("online", |state| *state == State::Up).await;

    link.cancel.cancel();
    let (_, sequence, _) = controller.hear(|message| *message == Up::Bye).await;
    controller.say(&Topic::Device(device(), Kind::Down), &Down::Ack { sequence }).await;
    timeout(Duration::from_secs(2), link.task).await.expect("it stops in time").unwrap();
    // The device does not come back at once: this broker fires the last will of a new connection when
    // it gets to the end of the one before.
    let more = timeout(Duration::from_millis(300), controller.hear(|_| true)).await;
    assert!(more.is_err(), "a last will follows a goodbye: {more:?}");
}

#[tokio::test]
async fn a_budget_that_is_used_up_slows_the_reports_and_never_ends_them() {
    let state = tempfile::tempdir().unwrap();
    let broker = broker().await;
    let mut controller = Controller::connect(broker, 1).await;
    let plan = Plan { per_day: Some(1 << 20), ..Plan::default() };
    let config = NetworkConfig { metered: Metered::Always, plan, ..NetworkConfig::default() };
    let network = Network::open(state.path(), Clock::resume(state.path()), config);
    let (batches, results) = mpsc::channel(1);
    let link = Running::start_over(network.clone(), state.path(), broker, Some(results));
    let (sequence, hello) = controller.hear_hello().await;
    assert_eq!(hello.health_interval, Millis(200));
    controller.acknowledge(sequence).await;
    controller.hear(|message| matches!(message, Up::Health(_))).await;

    network.tap(Purpose::Escalation, "cloud").sent(1 << 20);
    let (sequence, hello) = controller.hear_hello().await;
    assert_eq!(hello.health_interval, Millis(200 * u64::from(SLOWED)), "the controller is told");
    controller.acknowledge(sequence).await;
    // Results wait as all that is not urgent does.
    let (acknowledged, _answer) = oneshot::channel();
    batches.try_send(Batch { reports: Vec::new(), acknowledged }).unwrap();
    let begun = Instant::now();
    let both = |message: &Up| matches!(message, Up::Health(_) | Up::Results(_));
    for _ in 0..2 {
        let (_, _, message) = controller.hear(both).await;
        assert!(matches!(message, Up::Health(_)), "{message:?}");
    }
    assert!(begun.elapsed() >= Duration::from_millis(1500), "{:?}", begun.elapsed());
    assert!(network.count().day["mqtt"].sent > 0);
    link.cancel.cancel();
}

#[tokio::test]
async fn a_cut_way_is_told_by_the_last_will_and_tried_again() {
    let state = tempfile::tempdir().unwrap();
    let broker = broker().await;
    let way = Way::to(broker).await;
    let mut controller = Controller::connect(broker, 1).await;
    let mut link = Running::start(state.path(), way.address);
    let (first, hello) = controller.hear_hello().await;
    controller.acknowledge(first).await;
    link.becomes("online", |state| *state == State::Up).await;
    way.open.send_replace(false);
    link.becomes("down", |state| matches!(state, State::Waiting { .. })).await;
    let (_, will, _) = controller.hear(|message| *message == Up::Lost).await;
    assert_eq!(will, hello.last_will);
    way.open.send_replace(true);
    let (second, again) = controller.hear_hello().await;
    assert!(second > first);
    assert!(again.last_will > first, "a new connection has a new last will");
    controller.acknowledge(second).await;
    link.becomes("online", |state| *state == State::Up).await;
}

#[tokio::test]
async fn a_broker_that_comes_late_is_found() {
    let state = tempfile::tempdir().unwrap();
    let broker = broker().await;
    let way = Way::to(broker).await;
    way.open.send_replace(false);
    let mut link = Running::start(state.path(), way.address);
    link.becomes("down", |state| matches!(state, State::Waiting { .. })).await;
    let mut controller = Controller::connect(broker, 1).await;
    way.open.send_replace(true);
    let (sequence, _) = controller.hear_hello().await;
    controller.acknowledge(sequence).await;
    link.becomes("online", |state| *state == State::Up).await;
    // Stopping does not wait for a broker that is gone.
    way.open.send_replace(false);
    link.becomes("down", |state| matches!(state, State::Waiting { .. })).await;
    link.cancel.cancel();
    timeout(Duration::from_secs(2), link.task).await.expect("it stops in time").unwrap();
}

#[tokio::test]
async fn the_first_controller_that_answers_is_the_only_one() {
    let state = tempfile::tempdir().unwrap();
    let broker = broker().await;
    let mut controller = Controller::connect(broker, 1).await;
    let mut other = Controller::connect(broker, 2).await;
    let mut link = Running::start(state.path(), broker);
    let (sequence, _) = controller.hear_hello().await;
    // An answer to a hello that was never said makes nobody a controller.
    other.acknowledge(sequence + 1).await;
    controller.acknowledge(sequence).await;
    link.becomes("online", |state| *state == State::Up).await;
    let announce = Topic::Announce(device().shard());
    // The other one's announcement is not heard, our controller's is.
    other.say(&announce, &Down::Announce { started: Millis(0) }).await;
    controller.say(&announce, &Down::Announce { started: Millis(0) }).await;
    let (second, _) = controller.hear_hello().await;
    other.acknowledge(second).await;
    link.becomes("connected", |state| matches!(state, State::Greeting { .. })).await;
    controller.acknowledge(second).await;
    link.becomes("online", |state| *state == State::Up).await;
    link.task.abort();

    // After a restart it is still so; and an answer from before does not count again.
    let mut link = Running::start(state.path(), broker);
    let (third, _) = controller.hear_hello().await;
    assert!(third > second, "no sequence comes twice, even after a kill");
    other.acknowledge(third).await;
    controller.acknowledge(second).await;
    // Messages are taken in their order: had the old answer counted, a hello would not follow.
    controller.hear_hello().await;
    assert!(matches!(*link.status.borrow(), State::Greeting { .. }));
    let (fourth, _) = controller.hear_hello().await;
    controller.acknowledge(fourth).await;
    link.becomes("online", |state| *state == State::Up).await;
}

#[tokio::test]
async fn results_count_as_delivered_when_the_own_controller_acknowledges_them() {
    let state = tempfile::tempdir().unwrap();
    let broker = broker().await;
    let mut controller = Controller::connect(broker, 1).await;
    let mut other = Controller::connect(broker, 2).await;
    let (batches, results) = mpsc::channel(1);
    let _link = Running::start_with(state.path(), broker, Some(results));
    let (sequence, _) = controller.hear_hello().await;
    controller.acknowledge(sequence).await;
    let report = ResultReport {
        number: 7,
        request: "r".into(),
        task: "t".into(),
        class: "public".into(),
        state: "failed".into(),
        answer: None,
    };
    let down = Topic::Device(device(), Kind::Down);
    let is_results = |message: &Up| matches!(message, Up::Results(_));
    let mut last = 0;
    for is_acknowledged in [false, true] {
        let (acknowledged, answer) = oneshot::channel();
        let batch = Batch { reports: vec![report.clone()], acknowledged };
        batches.send(batch).await.unwrap();
        let (_, sequence, message) = controller.hear(is_results).await;
        assert_eq!(message, Up::Results(vec![report.clone()]));
        assert!(sequence > last, "what is sent again has a number of its own");
        last = sequence;
        // Neither another sequence nor another controller's word counts.
        controller.say(&down, &Down::Ack { sequence: sequence + 1 }).await;
        other.say(&down, &Down::Ack { sequence }).await;
        if is_acknowledged {
            controller.say(&down, &Down::Ack { sequence }).await;
        }
        let told = timeout(PATIENCE, answer).await.expect("it is told in time");
        assert_eq!(told.is_ok(), is_acknowledged);
    }
}

/// Speaks just enough to be subscribed to, and never confirms it. Says when it was asked to.
fn deaf_broker() -> (SocketAddr, std::sync::mpsc::Receiver<()>) {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, asked) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut bytes = [0; 1024];
        // CONNECT, answered by CONNACK; then SUBSCRIBE.
        assert_eq!(socket.read(&mut bytes).map(|_| bytes[0]).unwrap(), 0x10);
        socket.write_all(&[0x20, 2, 0, 0]).unwrap();
        assert_eq!(socket.read(&mut bytes).map(|_| bytes[0]).unwrap(), 0x82);
        tell.send(()).unwrap();
        while socket.read(&mut bytes).is_ok_and(|read| read > 0) {}
    });
    (address, asked)
}

#[tokio::test]
async fn a_broker_that_never_confirms_the_subscription_is_left() {
    let state = tempfile::tempdir().unwrap();
    let (broker, asked) = deaf_broker();
    let mut link = Running::start(state.path(), broker);
    tokio::task::spawn_blocking(move || asked.recv_timeout(PATIENCE).unwrap()).await.unwrap();
    let begun = Instant::now();
    tokio::time::pause();
    link.becomes("left", |state| matches!(state, State::Waiting { attempt: 1.. })).await;
    // Before the keep-alive would notice, which an answering broker satisfies for ever.
    assert!(begun.elapsed() < KEEP_ALIVE * 2, "{:?}", begun.elapsed());
}
