//! A device made of a bare MQTT client and the wire contract: it does exactly what a test says.

use std::time::Duration;

use holdfast_wire::id::DeviceId;
use holdfast_wire::message::{
    Down, Escalations, Health, Hello, LinkHealth, LinkState, ModelState, QueueDepth, TaskHealth, Up,
};
use holdfast_wire::sign::{self, Signer};
use holdfast_wire::topic::{Kind, Topic, filters_down};
use holdfast_wire::unit::{Bytes, Celsius, Micros, Millis};
use rumqttc::{
    AsyncClient, Event, EventLoop, LastWill, MqttOptions, Packet, Publish, QoS, SubscribeFilter,
};
use tokio::time::timeout;

use crate::controller::PATIENCE;

pub(crate) struct Device {
    pub(crate) id: DeviceId,
    pub(crate) signer: Signer,
    pub(crate) sequence: u64,
    pub(crate) interval: Millis,
    last_will: u64,
    client: AsyncClient,
    events: EventLoop,
}

impl Device {
    /// Connects and subscribes; `sequence` is the first that it may use.
    pub(crate) async fn connect(id: &str, secret: u8, port: u16, sequence: u64) -> Self {
        let id = DeviceId::parse(id).unwrap();
        let signer = Signer::from_secret(&[secret; 32]);
        let status = Topic::Device(id.clone(), Kind::Status);
        let will = signer.seal(&status, sequence, &Up::Lost.encode().unwrap());
        let mut options = MqttOptions::new(format!("test-{id}-{secret}"), "127.0.0.1", port);
        options
            .set_last_will(LastWill::new(status.to_string(), will, QoS::AtLeastOnce, false))
            .set_keep_alive(Duration::from_secs(5))
            .set_max_packet_size(64 * 1024, 64 * 1024);
        let (client, events) = AsyncClient::new(options, 64);
        let mut device = Self {
            id,
            signer,
            sequence: sequence + 1,
            interval: Millis(60_000),
            last_will: sequence,
            client,
            events,
        };
        let filters =
            filters_down(&device.id).map(|filter| SubscribeFilter::new(filter, QoS::AtLeastOnce));
        device.client.try_subscribe_many(filters).unwrap();
        device
            .wait("the subscription", |packet| matches!(packet, Packet::SubAck(_)).then_some(()))
            .await;
        device
    }

    pub(crate) fn topic(&self, kind: Kind) -> Topic {
        Topic::Device(self.id.clone(), kind)
    }

    /// What hello it says on this connection.
    pub(crate) fn hello(&self) -> Hello {
        Hello {
            device: self.id.clone(),
            agent_version: "0.1.0".into(),
            board: "test-board".into(),
            api: Some("http://127.0.0.1:8470".into()),
            started: Millis(1_795_000_000_000),
            health_interval: self.interval,
            last_will: self.last_will,
            models: vec![ModelState {
                name: "voice-commands".into(),
                version: "1.0.0".into(),
                task: "voice-commands".into(),
                variant: "int8".into(),
                runtime: "tract".into(),
            }],
        }
    }

    /// Says hello and waits until the controller has it on record.
    pub(crate) async fn greet(&mut self) {
        let hello = Up::Hello(self.hello());
        let sequence = self.send(&hello).await;
        let Down::HelloAck(ack) = self.answer(|down| matches!(down, Down::HelloAck(_))).await
        else {
            unreachable!()
        };
        assert_eq!(ack.sequence, sequence);
    }

    /// Signs and sends; the sequence it went with.
    pub(crate) async fn send(&mut self, message: &Up) -> u64 {
        let sequence = self.sequence;
        self.sequence += 1;
        let topic = self.topic(message.kind());
        let envelope = self.signer.seal(&topic, sequence, &message.encode().unwrap());
        self.send_bytes(&topic.to_string(), envelope).await;
        sequence
    }

    /// Sends any bytes anywhere, and waits until the broker has them.
    pub(crate) async fn send_bytes(&mut self, topic: &str, bytes: Vec<u8>) {
        self.client.try_publish(topic, QoS::AtLeastOnce, false, bytes).unwrap();
        self.wait("the broker's acknowledgement", |packet| {
            matches!(packet, Packet::PubAck(_)).then_some(())
        })
        .await;
    }

    /// The next message of the controller that fits, whatever comes before it.
    pub(crate) async fn answer(&mut self, fits: impl Fn(&Down) -> bool) -> Down {
        self.wait("an answer of the controller", |packet| {
            let Packet::Publish(publish) = packet else { return None };
            let down = decode(publish);
            fits(&down).then_some(down)
        })
        .await
    }

    async fn wait<T>(&mut self, what: &str, mut look: impl FnMut(&Packet) -> Option<T>) -> T {
        let waiting = async {
            loop {
                if let Event::Incoming(packet) = self.events.poll().await.unwrap()
                    && let Some(found) = look(&packet)
                {
                    return found;
                }
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }
}

/// What the controller signed for this topic.
fn decode(publish: &Publish) -> Down {
    let topic = Topic::parse(&publish.topic).unwrap();
    Down::decode(sign::open(&topic, &publish.payload).unwrap().payload).unwrap()
}

pub(crate) fn health(uptime: Millis, held: u64) -> Health {
    Health {
        uptime,
        memory_rss: Bytes::mib(31),
        memory_total: Bytes::mib(3792),
        memory_available: Bytes::mib(2900),
        disk_free: Bytes::mib(20_000),
        disk_total: Bytes::mib(29_000),
        temperature: Some(Celsius::from_milli(51_500)),
        load_milli: 420,
        queue: vec![QueueDepth { state: "held".into(), requests: held }],
        tasks: vec![TaskHealth {
            task: "voice-commands".into(),
            inferences: 120,
            failures: 1,
            p50: Micros(2100),
            p95: Micros(3900),
            p99: Micros(6000),
        }],
        escalations: Escalations { sent: 9, answered: 6, failed: 1 },
        links: vec![LinkHealth {
            name: "site".into(),
            zone: "site".into(),
            state: LinkState::Up,
            since: Millis(30_000),
        }],
    }
}
