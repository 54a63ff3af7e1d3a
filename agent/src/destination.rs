//! Owns what a destination is: an endpoint in a zone, with its protocol and limits.
//!
//! **Invariant:** a destination is never in zone `device`, and its URL has a scheme, a host and
//! no credentials in it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use holdfast_chat::Dialect;
use serde::{Deserialize, Serialize};

use crate::request::TaskName;
use crate::subject::Subject;

/// How far from the device a destination lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Zone {
    /// This device.
    Device,
    /// The local network: a bigger agent, Ollama, Triton.
    Site,
    /// A cloud under contract, in a pinned region.
    Private,
    /// Anybody's cloud.
    Public,
}

impl Zone {
    /// Every zone, nearest first.
    pub const ALL: [Self; 4] = [Self::Device, Self::Site, Self::Private, Self::Public];

    /// The word used in configuration and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Site => "site",
            Self::Private => "private",
            Self::Public => "public",
        }
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Zone {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|zone| zone.as_str() == text).ok_or(())
    }
}

/// A configured endpoint that requests can be escalated to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The operator's name for it, unique in the configuration.
    pub name: String,
    /// Where it lies; `site` or farther.
    pub zone: Zone,
    /// What it speaks.
    pub protocol: Protocol,
    /// Base URL without a trailing slash, such as `http://10.0.0.5:8470`.
    pub url: String,
    /// Where the API key comes from; none for an open endpoint.
    pub credential: Option<Credential>,
    /// The tasks that it is asked; empty for those of the bundles on this device.
    pub tasks: Vec<TaskName>,
    /// Limit for connecting.
    pub connect_timeout: Duration,
    /// Limit for one whole exchange.
    pub timeout: Duration,
    /// Requests under way at once.
    pub concurrency: usize,
    /// How fast and for how much money it is asked.
    pub limits: Limits,
    /// How it is reached.
    pub transport: Transport,
}

/// How a destination is reached; by default over TLS as the system believes it, and straight.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transport {
    /// Roots of its certificate, in PEM, in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// SHA-256 of public keys (subject public key info in DER, RFC 7469), of which its certificate has one;
    /// any key where there is none.
    pub pins: Vec<[u8; 32]>,
    /// The certificate, with those above it, and its private key that are shown there, in PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Through whom.
    pub proxy: Option<Proxy>,
}

/// Who passes bytes on to a destination; TLS goes through it to the destination itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proxy {
    /// Whom `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` say.
    Environment,
    /// One.
    At {
        /// Its URL, with one of [`Self::SCHEMES`].
        url: String,
        /// A file with `user:password`.
        user_file: Option<PathBuf>,
    },
}

impl Proxy {
    /// `CONNECT` over HTTP, and SOCKS 5, with the host's name resolved here or there.
    pub const SCHEMES: [&str; 3] = ["http://", "socks5://", "socks5h://"];
}

/// What the operator lets a destination cost and take; without a number there is no such limit.
/// Money is in millionths of the operator's currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Requests in a minute.
    pub requests_per_min: Option<u64>,
    /// Bytes of bodies in a second.
    pub bytes_per_s: Option<u64>,
    /// What one request costs, whatever is in it.
    pub price_micros: u64,
    /// What it costs beside that, by what is in it.
    pub prices: Prices,
    /// What may be spent in a day of the device's count.
    pub budget_micros: Option<u64>,
}

/// What a destination wants for what is in a request and its answer, in millionths of the
/// operator's currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Prices {
    /// A million tokens of what is asked.
    pub million_tokens_in: u64,
    /// A million tokens of what is answered.
    pub million_tokens_out: u64,
    /// A picture.
    pub image: u64,
    /// A second of a recording.
    pub audio_second: u64,
}

impl Limits {
    /// Whether a request costs anything.
    pub fn has_prices(&self) -> bool {
        self.price_micros > 0 || self.prices != Prices::default()
    }
}

impl Destination {
    /// The model that is asked a task: of another agent the task itself.
    pub fn model<'a>(&'a self, task: &'a str) -> &'a str {
        match &self.protocol {
            Protocol::Holdfast | Protocol::HoldfastModel(_) => task,
            Protocol::Oip(oip) => oip.model.as_deref().unwrap_or(task),
            Protocol::Chat(chat) => &chat.model,
        }
    }

    /// The model that is asked `asked`, whatever name its caller has for it.
    pub fn model_asked<'a>(&'a self, asked: &'a Subject) -> &'a str {
        match (asked, self.chat()) {
            (Subject::Task(task), _) => self.model(task.as_str()),
            (Subject::Model(_), Some(chat)) => &chat.model,
            (Subject::Model(name), None) => name,
        }
    }

    /// Tokens at which the operator has its answers cut.
    pub fn max_tokens(&self) -> Option<u32> {
        match &self.protocol {
            Protocol::Holdfast | Protocol::HoldfastModel(_) | Protocol::Oip(_) => None,
            Protocol::Chat(chat) => chat.max_tokens,
        }
    }

    /// The model that is talked to, where there is one.
    pub fn chat(&self) -> Option<&Chat> {
        match &self.protocol {
            Protocol::Chat(chat) | Protocol::HoldfastModel(chat) => Some(chat),
            Protocol::Holdfast | Protocol::Oip(_) => None,
        }
    }

    /// Whether this destination is asked `task`.
    pub fn serves(&self, task: &TaskName) -> bool {
        self.tasks.is_empty() || self.tasks.contains(task)
    }
}

/// What a destination speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocol {
    /// Another Holdfast agent's task API.
    Holdfast,
    /// The same, and a model that the other agent has a name for, talked to as OpenAI's clients do.
    HoldfastModel(Chat),
    /// A model that is talked to, in its provider's dialect.
    Chat(Chat),
    /// A server of models that takes and gives tensors, by the Open Inference Protocol.
    Oip(Oip),
}

/// A model that takes and gives a bundle's tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oip {
    /// Its name there; none for the task's.
    pub model: Option<String>,
    /// Its version there; none for the one that the server takes.
    pub version: Option<String>,
    /// Whether tensors may go in binary, where the server takes that.
    pub is_binary: bool,
}

/// A model that is talked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chat {
    /// How.
    pub dialect: Dialect,
    /// The model asked for; of Azure the deployment.
    pub model: String,
    /// Tokens at which an answer is cut; none for what the protocol's module says.
    pub max_tokens: Option<u32>,
}

impl Chat {
    /// The model under this name, its answers as long as the provider lets them be.
    pub fn new(dialect: Dialect, model: &str) -> Self {
        Self { dialect, model: model.to_owned(), max_tokens: None }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Holdfast | Self::HoldfastModel(_) => f.pad("holdfast"),
            Self::Chat(chat) => f.pad(chat.dialect.name()),
            Self::Oip(_) => f.pad("oip"),
        }
    }
}

/// Where a secret is read from; read again at each use, so that it can be renewed in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Env(String),
    /// A credential that systemd passes (`LoadCredential=`), by its name.
    Systemd(String),
}
