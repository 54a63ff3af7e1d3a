//! Owns `[models]`: which models run here, and how.
//!
//! **Invariant:** an engine that is pinned is one that this agent knows.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use holdfast_models::runtime::onnx_runtime::Provider;

use super::reader::{Section, bytes};
use crate::tune::candidates::{Limits, Pins, TRACT};
use crate::tune::library::OnnxRuntimeConfig;

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

/// Where bundles are looked for when the configuration names none.
pub const BUNDLE_PLACES: [&str; 3] =
    ["models/bundles", "/var/lib/holdfast/bundles", "/usr/share/holdfast/bundles"];

/// Accuracy that may be given up for speed when the configuration does not say.
const ACCURACY_LOSS: f32 = 0.01;

pub(super) fn read(mut section: Section<'_>) -> ModelsConfig {
    let bundles =
        section.texts("bundles").unwrap_or_else(|| BUNDLE_PLACES.map(String::from).to_vec());
    let count = |threads: u64| NonZeroUsize::new(bytes(threads));
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
