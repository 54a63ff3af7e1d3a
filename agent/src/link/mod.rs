//! Owns the device's link to its controller, over any MQTT 3.1.1 broker. Only this module names
//! rumqttc.
//!
//! Every connection is a new client, so that nothing of a broken one can be stuck. On every
//! connection the device says hello until the controller acknowledges it, then reports its health.
//! The broker is not trusted: both sides sign, and the first controller that acknowledges a hello
//! is the only one trusted from then on (`trust`). One half polls (`poll`), the other decides what is said.
//!
//! **Invariant:** the loop that polls does nothing else, nothing in here is waited for by the rest
//! of the agent, and a broker that is not there costs one attempt every half minute.

mod poll;
mod size;
mod state;
#[cfg(test)]
mod tests;
mod trust;

use std::time::Duration;

use holdfast_wire::message::{Health, Hello, ModelState, Up};
use holdfast_wire::sign::{LastSequence, MAX_ENVELOPE, PublicKey};
use holdfast_wire::topic::{Kind, filters_down};
use holdfast_wire::unit::Millis;
use rumqttc::{AsyncClient, EventLoop, LastWill, MqttOptions, QoS};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use self::poll::{Heard, poll};
pub use self::state::{Event, State};
use self::trust::Word;
use crate::identity::{Identity, IdentityError};
use crate::network::{Network, Purpose, SLOWED, Tap};
use crate::results::fleet::Batch;

/// Messages that may wait in the client; one that finds no room is made anew later.
const OUTBOX: usize = 32;
/// Messages that may wait to be looked at; a controller that sends more is not heard.
const INBOX: usize = 32;
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// The same where every byte is paid for.
const KEEP_ALIVE_METERED: Duration = Duration::from_secs(60);
/// What the controller and its broker are called in the count of bytes.
const CONTROLLER: &str = "controller";
const CONNECT_WITHIN_S: u64 = 5;
/// From the first packet to the confirmed subscription.
const SUBSCRIBED_WITHIN: Duration = Duration::from_secs(15);
/// A hello that is not acknowledged is said again after this time, and after three the connection
/// is made anew.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(3);
const HELLOS: u32 = 3;
/// A hello is said again after this time, to see whether the controller is still there.
const RENEWED_AFTER: Duration = Duration::from_secs(300);
/// A goodbye is waited for at most so long.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);

/// What the link needs to know.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// The broker's host.
    pub host: String,
    /// The broker's port.
    pub port: u16,
    /// Time between health reports.
    pub interval: Duration,
    /// The board, by its profile's name.
    pub board: String,
    /// Version of the agent.
    pub agent_version: String,
    /// The models in service; each hello says which they are then.
    pub models: watch::Receiver<Vec<ModelState>>,
    /// When the agent started, in milliseconds since 1970-01-01 UTC.
    pub started_ms: u64,
    /// What counts its bytes, and says when to be slow.
    pub network: Network,
}

/// Why a connection ended.
#[derive(Debug, Error)]
enum Broken {
    #[error("{0}")]
    Connection(String),
    #[error("the broker does not confirm the subscription")]
    NotSubscribed,
    #[error("the controller does not acknowledge")]
    NoAnswer,
    #[error("the client takes no more messages")]
    Stuck,
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Keeps the link until `cancel`, then says goodbye. `results` are sent while the link is up, one batch
/// at a time; `status` shows what it is doing.
pub async fn run(
    config: LinkConfig,
    identity: Identity,
    health: impl Fn() -> Health + Send,
    results: Option<mpsc::Receiver<Batch>>,
    status: watch::Sender<State>,
    cancel: CancellationToken,
) {
    let heard = LastSequence::default();
    let tap = config.network.tap(Purpose::Mqtt, CONTROLLER);
    let (foreign, is_slow) = (None, config.network.may(CONTROLLER, false).is_err());
    let mut link = Link { config, identity, health, results, status, heard, foreign, tap, is_slow };
    let mut state = State::Waiting { attempt: 0 };
    let mut warned = false;
    while !cancel.is_cancelled() {
        state = link.enter(state.step(Event::Due));
        match link.connection(&mut state, &cancel).await {
            Ok(()) => return,
            Err(error) => {
                let was_up = state == State::Up;
                state = link.enter(state.step(Event::Broken));
                let broker = format!("{}:{}", link.config.host, link.config.port);
                // An outage is worth one line, not one an attempt.
                if was_up || !warned {
                    tracing::warn!(%broker, %error, "no link to the controller; the device goes on alone");
                } else {
                    tracing::debug!(%broker, %error, "still no link to the controller");
                }
                warned = true;
            }
        }
        let wait = state.wait(crate::escalate::jitter());
        if timeout(wait, cancel.cancelled()).await.is_ok() {
            return;
        }
    }
}

struct Link<H> {
    config: LinkConfig,
    identity: Identity,
    health: H,
    /// Results that wait to be sent.
    results: Option<mpsc::Receiver<Batch>>,
    status: watch::Sender<State>,
    /// The newest sequence heard from the trusted controller.
    heard: LastSequence,
    /// The foreign controller that was warned of last; it is worth one line.
    foreign: Option<PublicKey>,
    /// What counts the bytes.
    tap: Tap,
    /// Health goes out less often, since the budget of a metered link is used up.
    is_slow: bool,
}

impl<H: Fn() -> Health + Send> Link<H> {
    /// Enters a state, for all to see.
    fn enter(&self, state: State) -> State {
        match state {
            State::Up => self.config.network.note_controller(true),
            // A hello is said now and then, and the controller is there until it does not answer.
            State::Greeting { .. } => {}
            _ => self.config.network.note_controller(false),
        }
        self.status.send_replace(state);
        state
    }

    /// One connection, from its first packet to its end; `Ok` after a goodbye.
    async fn connection(
        &mut self,
        state: &mut State,
        cancel: &CancellationToken,
    ) -> Result<(), Broken> {
        let last_will = self.identity.next_sequence()?;
        let (client, events, connect) = self.client(last_will)?;
        let (tell, heard) = mpsc::channel(INBOX);
        let filters = filters_down(self.identity.device());
        let polling = poll(client.clone(), events, filters, tell, (self.tap.clone(), connect));
        tokio::select! {
            broken = polling => Err(Broken::Connection(broken)),
            result = self.talk(state, &client, heard, last_will, cancel) => result,
        }
    }

    /// A new client, and how many bytes its first packet has.
    fn client(&self, last_will: u64) -> Result<(AsyncClient, EventLoop, u64), Broken> {
        let device = self.identity.device();
        let name = format!("holdfast-{device}");
        let mut options = MqttOptions::new(&name, &self.config.host, self.config.port);
        let (topic, envelope) = self.identity.seal(&Up::Lost, last_will)?;
        let topic = topic.to_string();
        let connect = size::connect(&name, &topic, &envelope);
        let is_metered = self.config.network.is_metered_to(CONTROLLER);
        let keep_alive = if is_metered { KEEP_ALIVE_METERED } else { KEEP_ALIVE };
        options
            .set_clean_session(true)
            .set_keep_alive(keep_alive)
            .set_max_packet_size(MAX_ENVELOPE + 256, MAX_ENVELOPE + 256)
            .set_inflight(10)
            .set_last_will(LastWill::new(topic, envelope, QoS::AtLeastOnce, false));
        let (client, mut events) = AsyncClient::new(options, OUTBOX);
        events.network_options.set_connection_timeout(CONNECT_WITHIN_S);
        Ok((client, events, connect))
    }

    /// The half that decides what is said.
    async fn talk(
        &mut self,
        state: &mut State,
        client: &AsyncClient,
        mut heard: mpsc::Receiver<Heard>,
        last_will: u64,
        cancel: &CancellationToken,
    ) -> Result<(), Broken> {
        let mut health = self.ticks();
        // Until the first hello there is no sequence to acknowledge: none is ever 0.
        let mut greeting = Greeting::of(0);
        let subscribed_by = Instant::now() + SUBSCRIBED_WITHIN;
        let mut sent = None::<SentBatch>;
        loop {
            let again_at = sent.as_ref().map_or(subscribed_by, |sent| sent.until);
            let is_connecting = matches!(state, State::Connecting { .. });
            let is_greeting = matches!(state, State::Greeting { .. });
            tokio::select! {
                () = cancel.cancelled() => match state {
                    State::Greeting { .. } | State::Up => return self.say_goodbye(client, &mut heard).await,
                    State::Waiting { .. } | State::Connecting { .. } => return Ok(()),
                },
                next = heard.recv() => match next {
                    // Then the polling half has ended too, and says why.
                    None => std::future::pending::<()>().await,
                    Some(Heard::Subscribed) => {
                        greeting = self.greet_after(Event::Subscribed, state, client, last_will)?;
                    }
                    Some(Heard::Message(publish)) => match self.take(&publish, greeting.sequence) {
                        Some(Word::Ack(sequence)) => {
                            sent = sent.take().and_then(|batch| batch.acknowledged(sequence));
                        }
                        Some(Word::Event(Event::Acknowledged)) => {
                            *state = self.enter(state.step(Event::Acknowledged));
                            tracing::info!(device = %self.identity.device(), "link to the controller is up");
                            health.reset_immediately();
                        }
                        Some(Word::Event(Event::Announced)) if *state == State::Up => {
                            greeting = self.greet_after(Event::Announced, state, client, last_will)?;
                        }
                        Some(Word::Event(_)) | None => {}
                    },
                    // Only a goodbye disconnects.
                    Some(Heard::Disconnected) => {}
                },
                batch = next_batch(&mut self.results), if *state == State::Up && sent.is_none() && !self.is_used_up() => {
                    let sequence = self.say(client, &Up::Results(batch.reports))?;
                    let until = Instant::now() + ACKNOWLEDGED_WITHIN;
                    sent = Some(SentBatch { sequence, until, acknowledged: batch.acknowledged });
                }
                // Who made the batch sends it again.
                () = tokio::time::sleep_until(again_at), if sent.is_some() => sent = None,
                () = tokio::time::sleep_until(subscribed_by), if is_connecting => {
                    return Err(Broken::NotSubscribed);
                }
                () = tokio::time::sleep_until(greeting.again_at), if is_greeting => {
                    if greeting.said >= HELLOS {
                        return Err(Broken::NoAnswer);
                    }
                    let sequence = self.greet(client, last_will)?;
                    greeting = Greeting { said: greeting.said + 1, ..Greeting::of(sequence) };
                }
                // Health is not acknowledged: a hello now and then shows that it still arrives.
                () = tokio::time::sleep_until(greeting.renew_at), if *state == State::Up => {
                    greeting = self.greet_after(Event::Announced, state, client, last_will)?;
                }
                _ = health.tick(), if *state == State::Up => {
                    if self.is_slow == self.is_used_up() {
                        self.say(client, &Up::Health((self.health)()))?;
                        continue;
                    }
                    // The next hello tells the controller how often it hears from here.
                    self.is_slow = !self.is_slow;
                    health = self.ticks();
                    greeting = self.greet_after(Event::Announced, state, client, last_will)?;
                }
            }
        }
    }

    fn is_used_up(&self) -> bool {
        self.config.network.may(CONTROLLER, false).is_err()
    }

    /// Time between health reports now.
    fn interval(&self) -> Duration {
        self.config.interval * if self.is_slow { SLOWED } else { 1 }
    }

    /// When health is due, from now on.
    fn ticks(&self) -> Interval {
        let mut ticks = interval(self.interval());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    }

    /// Says hello for the first time since `event`.
    fn greet_after(
        &mut self,
        event: Event,
        state: &mut State,
        client: &AsyncClient,
        last_will: u64,
    ) -> Result<Greeting, Broken> {
        *state = self.enter(state.step(event));
        Ok(Greeting::of(self.greet(client, last_will)?))
    }

    /// Says hello; returns its sequence.
    fn greet(&mut self, client: &AsyncClient, last_will: u64) -> Result<u64, Broken> {
        let interval = u64::try_from(self.interval().as_millis()).unwrap_or(u64::MAX);
        let hello = Hello {
            device: self.identity.device().clone(),
            agent_version: self.config.agent_version.clone(),
            board: self.config.board.clone(),
            api: None,
            started: Millis(self.config.started_ms),
            health_interval: Millis(interval),
            last_will,
            models: self.config.models.borrow().clone(),
        };
        self.say(client, &Up::Hello(hello))
    }

    /// Sends one message, now or not at all; returns its sequence.
    fn say(&mut self, client: &AsyncClient, message: &Up) -> Result<u64, Broken> {
        let sequence = self.identity.next_sequence()?;
        let (topic, envelope) = self.identity.seal(message, sequence)?;
        // Health that is late is worthless: the next report is as good.
        let quality = match message.kind() {
            Kind::Health => QoS::AtMostOnce,
            Kind::Hello | Kind::Status | Kind::Down | Kind::Result => QoS::AtLeastOnce,
        };
        let topic = topic.to_string();
        let bytes = size::publish(&topic, quality != QoS::AtMostOnce, envelope.len());
        let sent = client.try_publish(topic, quality, false, envelope);
        if sent.is_ok() {
            self.tap.sent(bytes);
        }
        sent.map(|()| sequence).map_err(|_| Broken::Stuck)
    }

    /// Says goodbye and waits a moment for the controller to have it.
    async fn say_goodbye(
        &mut self,
        client: &AsyncClient,
        heard: &mut mpsc::Receiver<Heard>,
    ) -> Result<(), Broken> {
        let sequence = self.say(client, &Up::Bye)?;
        let acknowledged = async {
            while let Some(next) = heard.recv().await {
                if let Heard::Message(publish) = next
                    && self.acknowledges(&publish, sequence)
                {
                    return;
                }
            }
            std::future::pending::<()>().await;
        };
        let was_heard = timeout(GOODBYE_WITHIN, acknowledged).await.is_ok();
        tracing::debug!(was_heard, "said goodbye to the controller");
        // Without this the broker would send the last will, which the goodbye has made needless.
        if client.try_disconnect().is_ok() {
            let left =
                async { while !matches!(heard.recv().await, None | Some(Heard::Disconnected)) {} };
            drop(timeout(GOODBYE_WITHIN, left).await);
        }
        Ok(())
    }
}

/// Results that wait for their acknowledgement.
struct SentBatch {
    sequence: u64,
    until: Instant,
    acknowledged: oneshot::Sender<()>,
}

impl SentBatch {
    /// What is left to wait for, after `sequence` was acknowledged.
    fn acknowledged(self, sequence: u64) -> Option<Self> {
        if self.sequence != sequence {
            return Some(self);
        }
        if self.acknowledged.send(()).is_err() {
            tracing::debug!("results were acknowledged to nobody: their sender has stopped");
        }
        None
    }
}

/// The next results to send; waits for ever where none are sent.
async fn next_batch(results: &mut Option<mpsc::Receiver<Batch>>) -> Batch {
    let next = match results {
        Some(results) => results.recv().await,
        None => None,
    };
    match next {
        Some(batch) => batch,
        None => std::future::pending().await,
    }
}

/// A hello that waits for its acknowledgement.
#[derive(Debug, Clone, Copy)]
struct Greeting {
    sequence: u64,
    said: u32,
    again_at: Instant,
    renew_at: Instant,
}

impl Greeting {
    fn of(sequence: u64) -> Self {
        let now = Instant::now();
        Self {
            sequence,
            said: 1,
            again_at: now + ACKNOWLEDGED_WITHIN,
            renew_at: now + RENEWED_AFTER,
        }
    }
}
