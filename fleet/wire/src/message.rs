//! What devices and controller say to each other.
//!
//! A message is one version byte and then postcard, which does not describe itself. Therefore: a released struct
//! never changes (a `HealthV2` would follow as a new variant), enums grow only at their end, and `golden` in
//! the tests holds the bytes of every variant for every version.
//!
//! **Invariant:** a message that was decoded is within [`MAX_MESSAGE`], [`MAX_TEXT`] and [`MAX_LIST`], and its
//! texts hold no control characters.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::id::DeviceId;
use crate::topic::Kind;
use crate::unit::{Bytes, Celsius, Micros, Millis};

/// The version that this code writes, and the newest that it reads.
pub const VERSION: u8 = 1;
/// Largest encoded message, in bytes; it leaves room for the envelope in a packet of 16 KiB.
pub const MAX_MESSAGE: usize = 15 * 1024;
/// Longest text in a message, in bytes.
pub const MAX_TEXT: usize = 128;
/// Longest list in a message.
pub const MAX_LIST: usize = 64;
/// States of the queue in which nothing is waited for any more.
const FINAL: [&str; 4] = ["answered", "failed", "expired", "cancelled"];
/// How often a device may be told to report: the range of [`Hello::health_interval`].
pub const HEALTH_INTERVAL: std::ops::RangeInclusive<Millis> = Millis(100)..=Millis::secs(3600);

/// From a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Up {
    /// Sent after every connect, and when the controller announces itself.
    Hello(Hello),
    /// Sent every [`Hello::health_interval`].
    Health(Health),
    /// The agent stops, as it was asked to.
    Bye,
    /// The last will: the broker sends it when the connection breaks. Its sequence is [`Hello::last_will`].
    Lost,
    /// What requests came to, in order; acknowledged by [`Down::Ack`] when all of them are on record,
    /// and sent again until then.
    Results(Vec<ResultReport>),
}

/// From the controller.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Down {
    /// The hello is on record.
    HelloAck(HelloAck),
    /// What carried this sequence is on record.
    Ack {
        /// Of the message that is acknowledged.
        sequence: u64,
    },
    /// The controller is here; every device says hello.
    Announce {
        /// When the controller started, in ms since 1970-01-01 UTC.
        started: Millis,
    },
}

/// Who a device is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// Its name; the same as in the topic.
    pub device: DeviceId,
    /// Version of the agent.
    pub agent_version: String,
    /// The board, by its profile's name.
    pub board: String,
    /// Address of its HTTP API, where it is reachable from elsewhere.
    pub api: Option<String>,
    /// When the agent started, in ms since 1970-01-01 UTC by the device's clock.
    pub started: Millis,
    /// How often it reports its health.
    pub health_interval: Millis,
    /// The sequence that this connection's last will carries.
    pub last_will: u64,
    /// The models in service.
    pub models: Vec<ModelState>,
}

/// One model in service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelState {
    /// Name of the bundle.
    pub name: String,
    /// Version of the bundle.
    pub version: String,
    /// The task that it answers.
    pub task: String,
    /// The variant in use.
    pub variant: String,
    /// The runtime in use.
    pub runtime: String,
}

/// How a device is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Since the agent started.
    pub uptime: Millis,
    /// Memory of the agent's process.
    pub memory_rss: Bytes,
    /// Memory of the board.
    pub memory_total: Bytes,
    /// Memory that is free for use on the board.
    pub memory_available: Bytes,
    /// Free space where the queue lies.
    pub disk_free: Bytes,
    /// Size of the file system where the queue lies.
    pub disk_total: Bytes,
    /// The hottest sensor, if the board has one.
    pub temperature: Option<Celsius>,
    /// Load average of one minute, in thousandths.
    pub load_milli: u32,
    /// How many requests the queue holds, by state.
    pub queue: Vec<QueueDepth>,
    /// Inference, by task.
    pub tasks: Vec<TaskHealth>,
    /// What went up.
    pub escalations: Escalations,
    /// The links to destinations.
    pub links: Vec<LinkHealth>,
}

/// Requests in one state of the queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueueDepth {
    /// Name of the state.
    pub state: String,
    /// How many.
    pub requests: u64,
}

/// Inference of one task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskHealth {
    /// Name of the task.
    pub task: String,
    /// Answered since the agent started.
    pub inferences: u64,
    /// Failed since the agent started.
    pub failures: u64,
    /// Half of the recent ones took at most this.
    pub p50: Micros,
    /// 95 % of the recent ones took at most this.
    pub p95: Micros,
    /// 99 % of the recent ones took at most this.
    pub p99: Micros,
}

/// Escalations since the agent started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Escalations {
    /// Sent to a destination.
    pub sent: u64,
    /// Answered by a destination.
    pub answered: u64,
    /// Given up for good.
    pub failed: u64,
}

/// One link of a device to a destination.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkHealth {
    /// Name of the destination.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// What is known of it.
    pub state: LinkState,
    /// For how long it has been so.
    pub since: Millis,
}

/// What a device knows of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    /// Not tried yet.
    Unknown,
    /// The last attempt succeeded.
    Up,
    /// The last attempt failed.
    Down,
}

/// What one request came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultReport {
    /// Its place in the order of the device's results.
    pub number: u64,
    /// The request's id, by which one that comes twice is known.
    pub request: String,
    /// The task.
    pub task: String,
    /// The data class of the request.
    pub class: String,
    /// Name of the final state.
    pub state: String,
    /// The answer, if there is one.
    pub answer: Option<AnswerReport>,
}

/// An answer, as far as the controller is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerReport {
    /// The best class.
    pub label: String,
    /// Its calibrated probability, in thousandths.
    pub confidence_milli: u16,
    /// The zone where it was made.
    pub zone: String,
    /// Who made it.
    pub place: String,
    /// What made it.
    pub model: String,
    /// How long it took.
    pub took: Micros,
    /// A better one was wanted, and did not come.
    pub provisional: bool,
}

/// The controller has a device's hello on record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloAck {
    /// The sequence of the hello.
    pub sequence: u64,
    /// The controller's time, in ms since 1970-01-01 UTC.
    pub time: Millis,
}

/// Why bytes are not a message, or a message cannot become bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Nothing arrived.
    #[error("the message is empty")]
    Empty,
    /// A version that this code does not know.
    #[error("message version {0} is unknown, the newest known is {VERSION}: update this side")]
    Version(u8),
    /// Over [`MAX_MESSAGE`].
    #[error("a message of {0} bytes is over the limit of {MAX_MESSAGE}")]
    TooLarge(usize),
    /// Not postcard of the expected type.
    #[error("the message is damaged or of another kind")]
    Malformed,
    /// Bytes are left over behind the message.
    #[error("{0} bytes too many behind the message")]
    Trailing(usize),
    /// A text or list is over its limit or holds control characters.
    #[error("{field} is over its limit or holds control characters")]
    Field {
        /// Which.
        field: &'static str,
    },
}

impl Up {
    /// The kind of topic that this travels on.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Hello(_) => Kind::Hello,
            Self::Health(_) => Kind::Health,
            Self::Bye | Self::Lost => Kind::Status,
            Self::Results(_) => Kind::Result,
        }
    }

    /// To bytes.
    ///
    /// # Errors
    /// [`MessageError`] if a field or the whole is over its limit.
    pub fn encode(&self) -> Result<Vec<u8>, MessageError> {
        self.check()?;
        encode(self)
    }

    /// From bytes, which may be anything.
    ///
    /// # Errors
    /// [`MessageError`] says what is wrong with them.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let message: Self = decode(bytes)?;
        message.check()?;
        Ok(message)
    }

    fn check(&self) -> Result<(), MessageError> {
        match self {
            Self::Hello(hello) => hello.check(),
            Self::Health(health) => health.check(),
            Self::Bye | Self::Lost => Ok(()),
            Self::Results(results) => {
                list("results", results)?;
                results.iter().try_for_each(ResultReport::check)
            }
        }
    }
}

impl Down {
    /// To bytes.
    ///
    /// # Errors
    /// [`MessageError`] if the whole is over its limit.
    pub fn encode(&self) -> Result<Vec<u8>, MessageError> {
        encode(self)
    }

    /// From bytes, which may be anything.
    ///
    /// # Errors
    /// [`MessageError`] says what is wrong with them.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        decode(bytes)
    }
}

impl Hello {
    fn check(&self) -> Result<(), MessageError> {
        text("agent_version", &self.agent_version)?;
        text("board", &self.board)?;
        text("api", self.api.as_deref().unwrap_or_default())?;
        if !HEALTH_INTERVAL.contains(&self.health_interval) {
            return Err(MessageError::Field { field: "health_interval" });
        }
        list("models", &self.models)?;
        for model in &self.models {
            for value in [&model.name, &model.version, &model.task, &model.variant, &model.runtime]
            {
                text("models", value)?;
            }
        }
        Ok(())
    }
}

impl ResultReport {
    fn check(&self) -> Result<(), MessageError> {
        for value in [&self.request, &self.task, &self.class, &self.state] {
            text("results", value)?;
        }
        let Some(answer) = &self.answer else { return Ok(()) };
        for value in [&answer.label, &answer.zone, &answer.place, &answer.model] {
            text("results", value)?;
        }
        Ok(())
    }
}

impl Health {
    /// Requests that still wait for an answer.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        let waiting = self.queue.iter().filter(|depth| !FINAL.contains(&depth.state.as_str()));
        waiting.fold(0, |sum, depth| sum.saturating_add(depth.requests))
    }

    fn check(&self) -> Result<(), MessageError> {
        list("queue", &self.queue)?;
        list("tasks", &self.tasks)?;
        list("links", &self.links)?;
        self.queue.iter().try_for_each(|depth| text("queue", &depth.state))?;
        self.tasks.iter().try_for_each(|task| text("tasks", &task.task))?;
        self.links
            .iter()
            .try_for_each(|link| text("links", &link.name).and(text("links", &link.zone)))
    }
}

fn text(field: &'static str, value: &str) -> Result<(), MessageError> {
    if value.len() > MAX_TEXT || value.chars().any(char::is_control) {
        return Err(MessageError::Field { field });
    }
    Ok(())
}

fn list<T>(field: &'static str, values: &[T]) -> Result<(), MessageError> {
    if values.len() > MAX_LIST { Err(MessageError::Field { field }) } else { Ok(()) }
}

fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, MessageError> {
    let bytes = postcard::to_extend(message, vec![VERSION]).map_err(|_| MessageError::Malformed)?;
    if bytes.len() > MAX_MESSAGE { Err(MessageError::TooLarge(bytes.len())) } else { Ok(bytes) }
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, MessageError> {
    if bytes.len() > MAX_MESSAGE {
        return Err(MessageError::TooLarge(bytes.len()));
    }
    let (version, body) = bytes.split_first().ok_or(MessageError::Empty)?;
    if *version != VERSION {
        return Err(MessageError::Version(*version));
    }
    let (message, rest) = postcard::take_from_bytes(body).map_err(|_| MessageError::Malformed)?;
    if rest.is_empty() { Ok(message) } else { Err(MessageError::Trailing(rest.len())) }
}
