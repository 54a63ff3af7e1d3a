//! Owns local inference: one thread with a bounded queue for each bundle.
//!
//! **Invariant:** inference never runs on the async reactor, and a model that fails or panics
//! takes down its own request only.

mod lane;
mod latency;
mod loader;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holdfast_models::{Bundle, Media};
use thiserror::Error;

pub use self::lane::{Lane, LocalAnswer};
pub use self::latency::Quantiles;
use self::loader::{Loaded, Loader};
use crate::config::ModelsConfig;
use crate::request::TaskName;
use crate::tune::Tuning;

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
    /// Checks every bundle and loads one for each task, side by side; waits for all of them. Each runs
    /// in the way that was measured to be the best, or else in the first that tract can run.
    ///
    /// A bundle that cannot be used is refused and reported in [`Engine::refused`]; the others
    /// serve. Where several bundles do one task, the first in the configured order that loads
    /// serves, and the ones behind it are not loaded.
    pub async fn start(config: &ModelsConfig, tuning: &Arc<Tuning>) -> Self {
        let folders = bundle_folders(&config.bundles);
        let opening = folders.into_iter().map(|path| {
            let folder = path.clone();
            (path, tokio::task::spawn_blocking(move || Bundle::open(&folder)))
        });
        let mut engine = Self { lanes: BTreeMap::new(), refused: Vec::new() };
        let mut candidates: BTreeMap<String, Vec<(PathBuf, Bundle)>> = BTreeMap::new();
        for (path, opening) in opening.collect::<Vec<_>>() {
            match opening.await {
                Ok(Ok(bundle)) => {
                    candidates.entry(bundle.task().to_owned()).or_default().push((path, bundle));
                }
                Ok(Err(error)) => engine.refuse(path, crate::error_chain(&error)),
                Err(panic) => engine.refuse(path, panicked(&panic)),
            }
        }
        let loading = candidates.into_values().map(|bundles| {
            let loader = Loader { config: config.clone(), tuning: tuning.clone() };
            tokio::task::spawn_blocking(move || load_first(bundles, &loader))
        });
        for loading in loading.collect::<Vec<_>>() {
            match loading.await {
                Ok((lane, refused)) => {
                    engine.lanes.extend(lane.map(|lane| (lane.task().clone(), lane)));
                    for RefusedBundle { path, why, is_spare } in refused {
                        if is_spare {
                            tracing::info!(bundle = %path.display(), %why, "bundle not needed");
                            engine.refused.push(RefusedBundle { path, why, is_spare });
                        } else {
                            engine.refuse(path, why);
                        }
                    }
                }
                // load_first catches what a bundle can do.
                Err(panic) => tracing::error!(why = panicked(&panic), "bundles were not loaded"),
            }
        }
        engine
    }

    fn refuse(&mut self, path: PathBuf, why: String) {
        tracing::warn!(bundle = %path.display(), %why, "bundle refused");
        self.refused.push(RefusedBundle { path, why, is_spare: false });
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

/// Measures the bundles in service of which it is not known yet how they run best, one after the
/// other, and puts what is best in service.
pub async fn tune(engine: &Engine, config: &ModelsConfig, tuning: &Tuning) {
    if !config.tune {
        return;
    }
    for lane in engine.lanes() {
        if tuning.stored(lane.bundle(), config).is_some() {
            continue;
        }
        let Some(choice) = tuning.tune(lane.bundle(), config).await else { continue };
        if choice == lane.choice() {
            continue;
        }
        let (bundle, onnxruntime, wanted) =
            (lane.bundle().clone(), config.onnxruntime.clone(), choice.clone());
        let loading =
            tokio::task::spawn_blocking(move || Loaded::load(&bundle, wanted, &onnxruntime));
        match loading.await {
            Ok(Ok(loaded)) => lane.swap(loaded).await,
            Ok(Err(why)) => {
                tracing::warn!(bundle = lane.name(), %choice, %why, "does not load; what ran before goes on");
            }
            Err(panic) => {
                tracing::error!(bundle = lane.name(), why = panicked(&panic), "not swapped")
            }
        }
    }
}

fn panicked(panic: &tokio::task::JoinError) -> String {
    format!("loading panicked: {panic}; report this as a bug")
}

/// Loads the first of `bundles`, which all do one task, that can be loaded; says of the others why
/// they are not in service.
fn load_first(
    bundles: Vec<(PathBuf, Bundle)>,
    loader: &Loader,
) -> (Option<Lane>, Vec<RefusedBundle>) {
    let mut first: Option<Lane> = None;
    let mut refused = Vec::new();
    for (path, bundle) in bundles {
        if let Some(first) = &first {
            let why = format!("{} does task {} already", first.model(), first.task());
            refused.push(RefusedBundle { path, why, is_spare: true });
            continue;
        }
        let loaded = catch_unwind(AssertUnwindSafe(|| {
            let loaded = loader.load(&bundle)?;
            Lane::start(bundle, loaded, loader.config.max_waiting)
        }));
        let why = match loaded {
            Ok(Ok(lane)) => {
                first = Some(lane);
                continue;
            }
            Ok(Err(why)) => why,
            Err(_) => "loading panicked; report this as a bug".to_owned(),
        };
        refused.push(RefusedBundle { path, why, is_spare: false });
    }
    (first, refused)
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
