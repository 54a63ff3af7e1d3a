//! Owns the agent's configuration: TOML, overridden by the environment, with a default for
//! everything.
//!
//! Each table has a module that reads it, from the text with the environment over it.
//!
//! **Invariant:** a [`Config`] that exists is valid as a whole; all faults of an invalid one are
//! reported together.

mod api;
mod audit;
mod cache;
mod destinations;
mod environment;
mod fleet;
mod models;
mod network;
mod policy;
mod protocol;
mod queue;
mod reader;
mod results;
mod routes;
mod transport;

use std::fmt;
use std::path::{Path, PathBuf};

use holdfast_wire::id::DeviceId;
use thiserror::Error;
use toml::Table;

pub use self::api::{ApiConfig, TlsConfig};
use self::destinations::read_destinations;
use self::environment::override_key;
pub use self::fleet::FleetConfig;
pub use self::models::{BUNDLE_PLACES, ModelsConfig, VersionsConfig};
pub use self::reader::Fault;
use self::reader::{Faults, Section};
pub use self::results::ResultsConfig;
use crate::audit::AuditConfig;
use crate::balance::Balancing;
use crate::cache::CacheConfig;
use crate::destination::Destination;
use crate::gateway::{Route, plan};
use crate::network::NetworkConfig;
use crate::policy::Policy;
use crate::queue::QueueConfig;

/// The whole configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The device's name in its fleet; the host's name when `None`.
    pub device: Option<DeviceId>,
    /// Where keys, queue and other state are kept.
    pub state_dir: PathBuf,
    /// The local API.
    pub api: ApiConfig,
    /// Which models run here.
    pub models: ModelsConfig,
    /// Where data may go.
    pub policy: Policy,
    /// The terms of requests that state none.
    pub requests: RequestDefaults,
    /// The queue on disk.
    pub queue: QueueConfig,
    /// Milliseconds that an answer can be fetched after it was made.
    pub keep_answers_ms: u64,
    /// A held request that was tried so often is set aside.
    pub max_attempts: u32,
    /// Bigger models, in the order in which they are asked.
    pub destinations: Vec<Destination>,
    /// Which of several destinations of a task comes first.
    pub balancing: Balancing,
    /// Names for several of them.
    pub routes: Vec<Route>,
    /// The fleet's controller; `None` for a device on its own.
    pub fleet: Option<FleetConfig>,
    /// Which answers are kept for who asks the same again.
    pub cache: CacheConfig,
    /// Who takes results.
    pub results: ResultsConfig,
    /// The record of what leaves the device.
    pub audit: AuditConfig,
    /// Which links are metered, and what they may carry.
    pub network: NetworkConfig,
}

/// The terms of requests that state none.
#[derive(Debug, Clone, Copy)]
pub struct RequestDefaults {
    /// Milliseconds that a caller waits.
    pub deadline_ms: u64,
    /// Milliseconds that an answer is wanted.
    pub ttl_ms: u64,
}

/// Where state is kept when the configuration does not say.
pub const STATE_DIR: &str = "/var/lib/holdfast";

/// A configuration that cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read configuration {}; give an existing file with --config", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("configuration {origin} is not valid TOML:\n{message}")]
    Syntax {
        /// Where the text came from.
        origin: String,
        /// Line, column and what is wrong there.
        message: String,
    },
    /// Some values cannot be used.
    #[error("configuration {origin} has {} fault(s):{}", faults.len(), Lines(faults))]
    Faults {
        /// Where the text came from.
        origin: String,
        /// All of them.
        faults: Vec<Fault>,
    },
}

struct Lines<'a>(&'a [Fault]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl Config {
    /// Reads `path`, or only defaults when there is none, and applies the environment.
    ///
    /// # Errors
    /// All faults at once.
    pub fn load(
        path: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let (origin, text) = match path {
            None => ("(defaults)".to_owned(), String::new()),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
                (path.display().to_string(), text)
            }
        };
        Self::parse(&origin, &text, environment)
    }

    /// Checks `text`, which came from `origin`, with `environment` over it.
    ///
    /// # Errors
    /// All faults at once.
    pub fn parse(
        origin: &str,
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut table: Table = text.parse().map_err(|error: toml::de::Error| {
            ConfigError::Syntax { origin: origin.to_owned(), message: error.to_string() }
        })?;
        let faults = Faults::default();
        for (name, value) in environment {
            if !override_key(&mut table, &name, &value) {
                let what = "overrides nothing; a key is HOLDFAST_<TABLE>__<KEY>, such as \
                            HOLDFAST_API__LISTEN";
                faults.add(name, what.to_owned());
            }
        }
        let config = read(Section::root(table, &faults));
        let faults = faults.into_vec();
        if faults.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::Faults { origin: origin.to_owned(), faults })
        }
    }
}

fn read(mut root: Section<'_>) -> Config {
    let mut device = root.section("device");
    let id = device.parsed("id", "1 to 64 of a-z, 0-9 and -", |text| DeviceId::parse(text).ok());
    let folder = |text: &str| (!text.trim().is_empty()).then(|| PathBuf::from(text));
    let state_dir = device.parsed("state_dir", "a folder such as /var/lib/holdfast", folder);
    let state_dir = state_dir.unwrap_or_else(|| STATE_DIR.into());
    device.finish();

    let api = api::read(root.section("api"));
    let models = models::read(root.section("models"));
    let policy = policy::read(root.section("policy"));

    let mut section = root.section("requests");
    let requests = RequestDefaults {
        deadline_ms: section.integer("deadline_ms", 1..=600_000, 5_000),
        ttl_ms: section.integer("ttl_s", 1..=31_536_000, 7 * 86_400) * 1000,
    };

    let (queue, keep_answers_ms, max_attempts) = queue::read(root.section("queue"));
    let destinations = read_destinations(root.sections("destination"));
    let names: Vec<String> = destinations.iter().map(|each| each.name.clone()).collect();
    let balancing = routes::read_balancing(&mut section, &names);
    section.finish();
    let routes = routes::read(root.sections("routes"), &destinations);
    let asked = plan::names(&destinations, &routes).into_iter().map(|entry| entry.id);
    let cache = cache::read(root.section("cache"), &asked.collect::<Vec<_>>());
    let fleet = root.optional_section("fleet").and_then(fleet::read);
    let webhooks = results::read_webhooks(root.sections("webhook"));
    let results = results::read(root.section("results"), webhooks);
    let audit = audit::read(root.section("audit"));
    let network = network::read(root.section("network"), &reached(names, &results));
    root.finish();
    Config {
        device: id,
        state_dir,
        api,
        models,
        policy,
        requests,
        queue,
        keep_answers_ms,
        max_attempts,
        destinations,
        balancing,
        routes,
        fleet,
        cache,
        results,
        audit,
        network,
    }
}

/// Everybody who is sent something, by name.
fn reached(destinations: Vec<String>, results: &ResultsConfig) -> Vec<String> {
    let webhooks = results.webhooks.iter().map(|webhook| webhook.name.to_string());
    destinations.into_iter().chain(webhooks).chain(["controller".to_owned()]).collect()
}

#[cfg(test)]
mod tests;
