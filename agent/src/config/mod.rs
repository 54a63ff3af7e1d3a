//! Owns the agent's configuration: TOML, overridden by the environment, with a default for
//! everything.
//!
//! An environment variable `HOLDFAST_<TABLE>__<KEY>` overrides the key: `HOLDFAST_API__LISTEN`
//! is `api.listen`.
//!
//! **Invariant:** a [`Config`] that exists is valid as a whole; all faults of an invalid one are
//! reported together.

mod api;
mod audit;
mod cache;
mod destinations;
mod network;
mod protocol;
mod reader;
mod results;
mod routes;
mod transport;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_models::runtime::onnx_runtime::Provider;
use holdfast_wire::id::DeviceId;
use thiserror::Error;
use toml::{Table, Value};

pub use self::api::{ApiConfig, TlsConfig};
use self::destinations::read_destinations;
pub use self::reader::Fault;
use self::reader::{Faults, Section};
pub use self::results::ResultsConfig;
use crate::audit::AuditConfig;
use crate::balance::Balancing;
use crate::cache::CacheConfig;
use crate::destination::{Destination, Zone};
use crate::gateway::{Route, plan};
use crate::network::NetworkConfig;
use crate::policy::{Policy, ceiling};
use crate::queue::{QueueConfig, WhenFull};
use crate::request::DataClass;
use crate::tune::candidates::{Limits, Pins, TRACT};
use crate::tune::library::OnnxRuntimeConfig;

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

/// Which models run here.
#[derive(Debug, Clone)]
pub struct ModelsConfig {
    /// Bundle folders, or folders of bundle folders.
    pub bundles: Vec<PathBuf>,
    /// What the operator has decided of the way to run them.
    pub pins: Pins,
    /// What the way to run one must not exceed.
    pub limits: Limits,
    /// Whether the best way to run each is measured.
    pub tune: bool,
    /// Where ONNX Runtime is looked for.
    pub onnxruntime: OnnxRuntimeConfig,
    /// Requests that may wait for one model; more go up as if the model had failed.
    pub max_waiting: usize,
    /// Workers of each model at most; `None`: as many as there are cores for the threads of one.
    pub workers: Option<usize>,
    /// A model that nobody asks for so long gives its memory back; `None`: never.
    pub idle_unload: Option<Duration>,
    /// Which versions of a bundle are meant by what, by the bundle's name.
    pub versions: BTreeMap<String, VersionsConfig>,
}

/// Which versions of a bundle are meant by what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VersionsConfig {
    /// The version, or the label of one, for those who name none; `None`: the newest.
    pub default: Option<String>,
    /// Versions by their labels.
    pub labels: BTreeMap<String, String>,
}

/// The terms of requests that state none.
#[derive(Debug, Clone, Copy)]
pub struct RequestDefaults {
    /// Milliseconds that a caller waits.
    pub deadline_ms: u64,
    /// Milliseconds that an answer is wanted.
    pub ttl_ms: u64,
}

/// The fleet's controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetConfig {
    /// The broker's host.
    pub host: String,
    /// The broker's port.
    pub port: u16,
    /// Time between health reports.
    pub interval: Duration,
    /// Where the controller lies.
    pub zone: Zone,
    /// Results are sent to the controller, as far as their class lets them into its zone.
    pub results: bool,
}

/// Where bundles are looked for when the configuration names none.
pub const BUNDLE_PLACES: [&str; 3] =
    ["models/bundles", "/var/lib/holdfast/bundles", "/usr/share/holdfast/bundles"];

/// Accuracy that may be given up for speed when the configuration does not say.
const ACCURACY_LOSS: f32 = 0.01;

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

/// Tables whose keys can be overridden: `HOLDFAST_API_LISTEN` misses an underscore, and is noticed.
const TABLES: [&str; 10] = [
    "API_",
    "AUDIT_",
    "CACHE_",
    "DEVICE_",
    "MODELS_",
    "NETWORK_",
    "POLICY_",
    "QUEUE_",
    "REQUESTS_",
    "RESULTS_",
];

/// Applies one environment variable; false when it looks like a key of ours and is none.
fn override_key(table: &mut Table, name: &str, value: &str) -> bool {
    let Some(path) = name.strip_prefix("HOLDFAST_") else { return true };
    // The controller's.
    if path.starts_with("FLEET_") && !path.starts_with("FLEET__") {
        return true;
    }
    if !path.contains("__") {
        return !TABLES.iter().any(|table| path.starts_with(table));
    }
    let lower = path.to_ascii_lowercase();
    let mut keys: Vec<&str> = lower.split("__").collect();
    let Some(last) = keys.pop() else { return false };
    let mut place = table;
    for key in keys {
        let entry = place.entry(key).or_insert_with(|| Value::Table(Table::new()));
        match entry {
            Value::Table(inner) => place = inner,
            _ => return false,
        }
    }
    // A value that reads as TOML (a number, a list, true) is that; everything else is a text.
    let parsed = format!("v = {value}").parse::<Table>().ok().and_then(|mut t| t.remove("v"));
    let parsed = parsed.filter(|value| !matches!(value, Value::Table(_) | Value::Datetime(_)));
    place.insert(last.to_owned(), parsed.unwrap_or_else(|| Value::String(value.to_owned())));
    true
}

fn read(mut root: Section<'_>) -> Config {
    let mut device = root.section("device");
    let id = device.parsed("id", "1 to 64 of a-z, 0-9 and -", |text| DeviceId::parse(text).ok());
    let folder = |text: &str| (!text.trim().is_empty()).then(|| PathBuf::from(text));
    let state_dir = device.parsed("state_dir", "a folder such as /var/lib/holdfast", folder);
    let state_dir = state_dir.unwrap_or_else(|| STATE_DIR.into());
    device.finish();

    let api = api::read(root.section("api"));
    let models = read_models(root.section("models"));
    let policy = read_policy(root.section("policy"));

    let mut section = root.section("requests");
    let requests = RequestDefaults {
        deadline_ms: section.integer("deadline_ms", 1..=600_000, 5_000),
        ttl_ms: section.integer("ttl_s", 1..=31_536_000, 7 * 86_400) * 1000,
    };

    let (queue, keep_answers_ms, max_attempts) = read_queue(root.section("queue"));
    let destinations = read_destinations(root.sections("destination"));
    let names: Vec<String> = destinations.iter().map(|each| each.name.clone()).collect();
    let balancing = routes::read_balancing(&mut section, &names);
    section.finish();
    let routes = routes::read(root.sections("routes"), &destinations);
    let asked = plan::names(&destinations, &routes).into_iter().map(|entry| entry.id);
    let cache = cache::read(root.section("cache"), &asked.collect::<Vec<_>>());
    let fleet = root.optional_section("fleet").and_then(read_fleet);
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

fn read_models(mut section: Section<'_>) -> ModelsConfig {
    let bundles =
        section.texts("bundles").unwrap_or_else(|| BUNDLE_PLACES.map(String::from).to_vec());
    let count = |threads: u64| std::num::NonZeroUsize::new(bytes(threads));
    let runtime = section.text("runtime").filter(|name| name != "auto");
    let known = [TRACT].into_iter().chain(Provider::ALL.map(Provider::engine));
    if let Some(name) = &runtime
        && !known.clone().any(|known| known == name)
    {
        let known: Vec<_> = known.collect();
        section
            .fault("runtime", format!("is \"{name}\", must be one of auto, {}", known.join(", ")));
    }
    let loss =
        section.parsed("accuracy_loss", "a number 0..=1 in quotes, such as \"0.01\"", |text| {
            text.parse().ok().filter(|loss| (0.0..=1.0).contains(loss))
        });
    let models = ModelsConfig {
        bundles: bundles.into_iter().map(PathBuf::from).collect(),
        pins: Pins {
            variant: section.text("variant"),
            runtime,
            threads: section.optional_integer("threads", 1..=256).and_then(count),
        },
        limits: Limits {
            accuracy_loss: loss.unwrap_or(ACCURACY_LOSS),
            memory_kib: section
                .optional_integer("max_memory_mib", 1..=1_048_576)
                .map(|mib| mib << 10),
        },
        tune: section.boolean("tune", true),
        onnxruntime: section
            .text("onnxruntime")
            .map_or(OnnxRuntimeConfig::Auto, |text| OnnxRuntimeConfig::parse(&text)),
        max_waiting: bytes(section.integer("max_waiting", 1..=4096, 32)),
        workers: section.optional_integer("workers", 1..=64).map(bytes),
        idle_unload: match section.integer("idle_unload_s", 0..=31_536_000, 0) {
            0 => None,
            seconds => Some(Duration::from_secs(seconds)),
        },
        versions: section.tables("versions").into_iter().map(read_versions).collect(),
    };
    section.finish();
    models
}

fn read_versions((name, mut section): (String, Section<'_>)) -> (String, VersionsConfig) {
    let versions =
        VersionsConfig { default: section.text("default"), labels: section.text_table("labels") };
    section.finish();
    (name, versions)
}

fn read_policy(mut section: Section<'_>) -> Policy {
    let mut policy = Policy::default();
    let classes = "one of public, internal, confidential, restricted";
    if let Some(class) = section.parsed("default_class", classes, |text| text.parse().ok()) {
        policy.default_class = class;
    }
    let mut farthest = section.section("farthest_zone");
    for class in DataClass::ALL {
        let zones = "one of device, site, private, public";
        let zone: Option<Zone> = farthest.parsed(class.as_str(), zones, |text| text.parse().ok());
        if let Some(zone) = zone
            && policy.tighten(class, zone).is_err()
        {
            let ceiling = ceiling(class);
            farthest.fault(
                class.as_str(),
                format!(
                    "is \"{zone}\", must be \"{ceiling}\" or nearer: a policy can only be tightened"
                ),
            );
        }
    }
    farthest.finish();
    section.finish();
    policy
}

fn read_queue(mut section: Section<'_>) -> (QueueConfig, u64, u32) {
    let defaults = QueueConfig::default();
    let max_mib = section.integer("max_mib", 1..=1_048_576, defaults.max_bytes >> 20);
    let segment_mib = (max_mib / 4).clamp(1, defaults.segment_bytes >> 20);
    let segment_mib = section.integer("segment_mib", 1..=1024, segment_mib);
    if segment_mib > max_mib {
        let what = format!("is {segment_mib}, more than queue.max_mib ({max_mib}) lets in");
        section.fault("segment_mib", what);
    }
    let queue = QueueConfig {
        max_requests: section.integer("max_requests", 1..=10_000_000, defaults.max_requests),
        max_bytes: max_mib << 20,
        when_full: match section.text("when_full").as_deref() {
            None | Some("refuse") => WhenFull::Refuse,
            Some("drop-oldest") => WhenFull::DropOldest,
            Some(other) => {
                section.fault(
                    "when_full",
                    format!("is \"{other}\", must be one of refuse, drop-oldest"),
                );
                WhenFull::Refuse
            }
        },
        max_age_ms: section.integer("max_age_s", 1..=31_536_000, defaults.max_age_ms / 1000) * 1000,
        commit_delay: Duration::from_millis(section.integer("commit_delay_ms", 0..=10_000, 0)),
        wear_per_day: Some(section.integer("wear_mib_per_day", 0..=1_048_576, 0) << 20)
            .filter(|bytes| *bytes > 0),
        max_finals: section.integer("max_answers", 1..=10_000_000, defaults.max_finals),
        ageing_ms: section.integer("ageing_s", 1..=31_536_000, defaults.ageing_ms / 1000) * 1000,
        headroom_inodes: section.integer(
            "headroom_inodes",
            0..=1_000_000_000,
            defaults.headroom_inodes,
        ),
        segment_bytes: segment_mib << 20,
        headroom_bytes: section.integer(
            "headroom_mib",
            0..=1_048_576,
            defaults.headroom_bytes >> 20,
        ) << 20,
        ..defaults
    };
    let keep_answers_s = section.integer("keep_answers_s", 1..=31_536_000, 86_400);
    let max_attempts = section.integer("max_attempts", 1..=1000, 20);
    section.finish();
    (queue, keep_answers_s * 1000, u32::try_from(max_attempts).unwrap_or(u32::MAX))
}

fn read_fleet(mut section: Section<'_>) -> Option<FleetConfig> {
    let broker = section.required_text("broker", "mqtt://127.0.0.1:1883");
    let interval = Duration::from_millis(section.integer("interval_ms", 100..=3_600_000, 5_000));
    let results = section.boolean("results", false);
    let zones = "one of site, private, public";
    let far = |text: &str| text.parse().ok().filter(|zone| *zone != Zone::Device);
    let zone = section.parsed("zone", zones, far).unwrap_or(Zone::Site);
    let broker = broker.and_then(|text| {
        let parsed = parse_broker(&text);
        if parsed.is_none() {
            section
                .fault("broker", format!("is \"{text}\", must be such as mqtt://127.0.0.1:1883"));
        }
        parsed
    });
    section.finish();
    broker.map(|(host, port)| FleetConfig { host, port, interval, zone, results })
}

fn parse_broker(text: &str) -> Option<(String, u16)> {
    let rest = text.strip_prefix("mqtt://")?;
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (rest, 1883),
    };
    let fits = !host.is_empty() && !host.contains(['/', '@', ' ']);
    fits.then(|| (host.to_owned(), port))
}

/// A checked size that fits the machine's word.
fn bytes(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
