//! The controller's own connection to the broker, embedded or external. Only this module names rumqttc.
//!
//! Every connection is a new client, so that nothing of a broken one can be stuck. The loop that polls does nothing
//! else: what arrives goes to intake if there is room, and is dropped and counted if not (devices repeat what is
//! not acknowledged).
//!
//! **Invariant:** nothing in here waits for the rest of the controller.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_wire::sign::{MAX_ENVELOPE, PublicKey};
use holdfast_wire::topic::{Kind, Topic, filter_up};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS, SubscribeFilter};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Messages that may wait for intake.
const INBOX: usize = 8192;
/// Messages that may wait to be sent; a hello that finds no room is answered when it comes again.
const OUTBOX: usize = 4096;
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const CONNECT_WITHIN_S: u64 = 5;
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(10);
/// A connection that lasted this long was a good one: the next retry is quick again.
const GOOD_CONNECTION: Duration = Duration::from_secs(30);
/// An external broker may let anything through; a larger packet would break the connection.
const MAX_PACKET: usize = 1024 * 1024;

/// Host and port of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What comes from the broker.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// Connected and subscribed, for the first time or again.
    Subscribed,
    /// A message.
    Message { topic: String, payload: Vec<u8> },
}

/// The way to the broker, for who sends.
#[derive(Clone)]
pub(crate) struct Link {
    client: Arc<Mutex<Option<AsyncClient>>>,
    is_up: watch::Receiver<bool>,
    dropped: Arc<AtomicU64>,
}

/// There is no connection, or too much waits to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the broker cannot take a message now")]
pub(crate) struct NotNow;

impl Link {
    /// Sends one message, now or not at all.
    pub(crate) fn send(&self, topic: &Topic, payload: Vec<u8>) -> Result<(), NotNow> {
        let client =
            self.client.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(NotNow)?;
        client.try_publish(topic.to_string(), QoS::AtLeastOnce, false, payload).map_err(|_| NotNow)
    }

    /// Whether the controller is connected and subscribed.
    pub(crate) fn is_up(&self) -> bool {
        *self.is_up.borrow()
    }

    /// Waits until it is.
    pub(crate) async fn wait_until_up(&mut self) {
        if self.is_up.wait_for(|up| *up).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Messages that arrived and found no room.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// The task behind a [`Link`].
pub(crate) struct LinkTask {
    address: Address,
    client_id: String,
    client: Arc<Mutex<Option<AsyncClient>>>,
    is_up: watch::Sender<bool>,
    dropped: Arc<AtomicU64>,
    inbox: mpsc::Sender<Incoming>,
}

/// A link to the broker; nothing happens before [`LinkTask::run`].
pub(crate) fn new(address: Address, key: PublicKey) -> (Link, mpsc::Receiver<Incoming>, LinkTask) {
    let (inbox, messages) = mpsc::channel(INBOX);
    let (up, is_up) = watch::channel(false);
    let client = Arc::new(Mutex::new(None));
    let dropped = Arc::new(AtomicU64::new(0));
    let client_id = format!("holdfast-fleet-{:.16}", key.to_string());
    let link = Link { client: client.clone(), is_up, dropped: dropped.clone() };
    (link, messages, LinkTask { address, client_id, client, is_up: up, dropped, inbox })
}

impl LinkTask {
    /// Keeps the connection until it is cancelled.
    pub(crate) async fn run(self, cancel: CancellationToken) {
        let mut retry = FIRST_RETRY;
        loop {
            let begun = Instant::now();
            let (client, events) = self.connect();
            let stopped = tokio::select! {
                broken = self.poll(client.clone(), events) => {
                    let lasted = begun.elapsed();
                    if *self.is_up.borrow() {
                        tracing::warn!(broker = %self.address, error = broken, "broker lost, devices cannot be heard");
                    } else {
                        tracing::warn!(broker = %self.address, error = broken, "broker not reached");
                    }
                    if lasted > GOOD_CONNECTION {
                        retry = FIRST_RETRY;
                    }
                    false
                }
                () = cancel.cancelled() => true,
            };
            self.is_up.send_replace(false);
            *self.client.lock().unwrap_or_else(PoisonError::into_inner) = None;
            if stopped {
                return;
            }
            if timeout(jittered(retry), cancel.cancelled()).await.is_ok() {
                return;
            }
            retry = (retry * 2).min(LONGEST_RETRY);
        }
    }

    fn connect(&self) -> (AsyncClient, EventLoop) {
        let mut options = MqttOptions::new(&self.client_id, &self.address.host, self.address.port);
        options
            .set_clean_session(true)
            .set_keep_alive(KEEP_ALIVE)
            .set_max_packet_size(MAX_PACKET, MAX_ENVELOPE + 256)
            .set_inflight(100);
        let (client, mut events) = AsyncClient::new(options, OUTBOX);
        events.network_options.set_connection_timeout(CONNECT_WITHIN_S);
        (client, events)
    }

    /// Polls one connection to its end, and says why it ended.
    async fn poll(&self, client: AsyncClient, mut events: EventLoop) -> String {
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    let filters = Kind::UP
                        .map(|kind| SubscribeFilter::new(filter_up(None, kind), QoS::AtLeastOnce));
                    if client.try_subscribe_many(filters).is_err() {
                        return "no room for the subscription".into();
                    }
                }
                Ok(Event::Incoming(Packet::SubAck(_))) => {
                    tracing::info!(broker = %self.address, "broker connected");
                    *self.client.lock().unwrap_or_else(PoisonError::into_inner) =
                        Some(client.clone());
                    self.is_up.send_replace(true);
                    self.hand_on(Incoming::Subscribed);
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    let payload = publish.payload.to_vec();
                    self.hand_on(Incoming::Message { topic: publish.topic, payload });
                }
                Ok(_) => {}
                Err(error) => return error.to_string(),
            }
        }
    }

    fn hand_on(&self, incoming: Incoming) {
        if self.inbox.try_send(incoming).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Between half of a span and all of it, so that not everybody comes back at once.
fn jittered(span: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    span.mul_f64(0.5 + f64::from(random) / f64::from(u32::MAX) / 2.0)
}

/// Waits a moment so that what was handed to the client can leave; used once, when the controller stops.
pub(crate) async fn let_leave() {
    sleep(Duration::from_millis(50)).await;
}
