//! Owns local inference: one thread with a bounded queue for each bundle.
//!
//! **Invariant:** inference never runs on the async reactor, and a model that fails or panics
//! takes down its own request only.

mod lane;
mod latency;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_models::{Bundle, Media};
use thiserror::Error;

pub use self::lane::{Lane, LocalAnswer};
pub use self::latency::Quantiles;
use crate::config::ModelsConfig;
use crate::request::TaskName;

/// All local models of this device, by task.
#[derive(Debug)]
pub struct Engine {
    lanes: BTreeMap<TaskName, Lane>,
    refused: Vec<RefusedBundle>,
}

/// A bundle that is not in service.
#[derive(Debug, Clone)]
pub struct RefusedBundle {
    /// Its folder.
    pub path: PathBuf,
    /// What is wrong with it, and what to do.
    pub why: String,
    /// Whether it is intact, and another bundle does its task already.
    pub is_spare: bool,
}

/// Why there is no local answer.
#[derive(Debug, Error)]
pub enum EngineError {
    /// No bundle does this task.
    #[error("no local model does task {0}")]
    NoModel(TaskName),
    /// As many requests as allowed wait already.
    #[error("{waiting} requests wait for {task} already; try again shortly")]
    Busy {
        /// The task.
        task: TaskName,
        /// The limit that was reached.
        waiting: usize,
    },
    /// The caller's deadline ended first.
    #[error("no local answer for {task} within {} ms", waited.as_millis())]
    Late {
        /// The task.
        task: TaskName,
        /// The time that was given.
        waited: Duration,
    },
    /// The input cannot be used; nobody above could use it either.
    #[error("{0}")]
    Input(String),
    /// The model failed on an input that is fine.
    #[error("{0}")]
    Model(String),
}

impl Engine {
    /// Loads every bundle, each on its own thread, and waits for all of them.
    ///
    /// A bundle that cannot be used is refused and reported in [`Engine::refused`]; the others
    /// serve. Where two bundles do one task, the first in the configured order serves.
    pub async fn start(config: &ModelsConfig) -> Self {
        let mut starting = Vec::new();
        let mut refused = Vec::new();
        for path in bundle_folders(&config.bundles) {
            let (variant, waiting) = (config.variant.clone(), config.max_waiting);
            let folder = path.clone();
            let start =
                tokio::task::spawn_blocking(move || open(&folder, variant.as_deref(), waiting));
            starting.push((path, start));
        }
        let mut lanes = BTreeMap::new();
        for (path, start) in starting {
            let lane = match start.await {
                Ok(Ok(lane)) => lane,
                Ok(Err(why)) => {
                    tracing::warn!(bundle = %path.display(), %why, "bundle refused");
                    refused.push(RefusedBundle { path, why, is_spare: false });
                    continue;
                }
                Err(panic) => {
                    let why = format!("loading panicked: {panic}; report this as a bug");
                    refused.push(RefusedBundle { path, why, is_spare: false });
                    continue;
                }
            };
            if let Some(first) = lanes.get(lane.task()).map(Lane::model) {
                let why = format!("{first} does task {} already", lane.task());
                tracing::info!(bundle = %path.display(), %why, "bundle not needed");
                refused.push(RefusedBundle { path, why, is_spare: true });
            } else {
                lanes.insert(lane.task().clone(), lane);
            }
        }
        Self { lanes, refused }
    }

    /// The models in service, by task.
    pub fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.values()
    }

    /// The model that does `task`, if there is one.
    pub fn lane(&self, task: &TaskName) -> Option<&Lane> {
        self.lanes.get(task)
    }

    /// Bundles that were found and cannot be used.
    pub fn refused(&self) -> &[RefusedBundle] {
        &self.refused
    }

    /// Runs the local model of `task`, waiting at most `within`.
    ///
    /// # Errors
    /// When there is no model, too many wait, time is over, the input is bad or the model failed.
    pub async fn infer(
        &self,
        task: &TaskName,
        media: &Media,
        within: Duration,
    ) -> Result<LocalAnswer, EngineError> {
        let lane = self.lane(task).ok_or_else(|| EngineError::NoModel(task.clone()))?;
        lane.infer(media.clone(), within).await
    }
}

fn open(folder: &Path, variant: Option<&str>, waiting: usize) -> Result<Lane, String> {
    let bundle = Bundle::open(folder).map_err(|error| crate::error_chain(&error))?;
    let variant = variant.filter(|name| bundle.variants().iter().any(|v| v.name() == *name));
    Lane::start(bundle, variant, waiting)
}

/// The bundle folders among `places` and directly inside of them, each place sorted by name.
pub fn bundle_folders(places: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for place in places {
        if place.join("bundle.toml").is_file() {
            found.push(place.clone());
            continue;
        }
        let Ok(entries) = std::fs::read_dir(place) else { continue };
        let mut inside: Vec<_> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.join("bundle.toml").is_file())
            .collect();
        inside.sort();
        found.extend(inside);
    }
    found
}
