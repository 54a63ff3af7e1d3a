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
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;

use holdfast_models::{Bundle, Media};
use thiserror::Error;

pub use self::lane::{Lane, LocalAnswer};
pub use self::latency::Quantiles;
use self::loader::{Loaded, Loader};
use crate::config::ModelsConfig;
use crate::request::TaskName;
use crate::tune::Tuning;
use crate::tune::choice::Choice;
use crate::tune::probe::Looked;

/// What remained unclear is tried again after this time, doubled each time up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(10 * 60);
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 60 * 60);

/// All local models of this device, by task.
#[derive(Debug)]
pub struct Engine {
    lanes: RwLock<BTreeMap<TaskName, Arc<Lane>>>,
    refused: RwLock<Vec<RefusedBundle>>,
    /// Bundles that tract cannot run, for tasks that no other bundle does.
    untried: Mutex<Vec<(PathBuf, Bundle)>>,
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
    /// in the way that was measured to be the best, or else in the first that tract can run; one that
    /// tract cannot run waits for [`tune`].
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
        let engine = Self {
            lanes: RwLock::default(),
            refused: RwLock::default(),
            untried: Mutex::default(),
        };
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
                Ok(first) => engine.take_in(first),
                // load_first catches what a bundle can do.
                Err(panic) => tracing::error!(why = panicked(&panic), "bundles were not loaded"),
            }
        }
        engine
    }

    fn take_in(&self, First { lane, refused, unloaded }: First) {
        for RefusedBundle { path, why, is_spare } in refused {
            if is_spare {
                tracing::info!(bundle = %path.display(), %why, "bundle not needed");
                self.write_refused().push(RefusedBundle { path, why, is_spare });
            } else {
                self.refuse(path, why);
            }
        }
        if lane.is_none() {
            self.untried().extend(unloaded);
        }
        if let Some(lane) = lane {
            self.put(lane);
        }
    }

    fn put(&self, lane: Lane) {
        let mut lanes = self.lanes.write().unwrap_or_else(PoisonError::into_inner);
        lanes.insert(lane.task().clone(), Arc::new(lane));
    }

    fn refuse(&self, path: PathBuf, why: String) {
        tracing::warn!(bundle = %path.display(), %why, "bundle refused");
        self.write_refused().push(RefusedBundle { path, why, is_spare: false });
    }

    fn write_refused(&self) -> RwLockWriteGuard<'_, Vec<RefusedBundle>> {
        self.refused.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn untried(&self) -> MutexGuard<'_, Vec<(PathBuf, Bundle)>> {
        self.untried.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The models in service, by task.
    pub fn lanes(&self) -> Vec<Arc<Lane>> {
        self.lanes.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The model that does `task`, if there is one.
    pub fn lane(&self, task: &TaskName) -> Option<Arc<Lane>> {
        self.lanes.read().unwrap_or_else(PoisonError::into_inner).get(task).cloned()
    }

    /// Bundles that were found and cannot be used, or not yet.
    pub fn refused(&self) -> Vec<RefusedBundle> {
        self.refused.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The bundles in service, and those that are to be tried first.
    pub fn bundles(&self) -> Vec<Bundle> {
        let served = self.lanes().into_iter().map(|lane| lane.bundle().clone());
        served.chain(self.untried().iter().map(|(_, bundle)| bundle.clone())).collect()
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

/// Finds out how each bundle runs best, one after the other, and puts that in service; what tract
/// cannot run comes first. What remains unclear is tried again later, less and less often.
pub async fn tune(engine: &Engine, config: &ModelsConfig, tuning: &Arc<Tuning>) {
    report_library(config, tuning).await;
    let mut pause = FIRST_PAUSE;
    loop {
        let mut is_settled = try_untried(engine, config, tuning).await;
        // What is pinned is tried before it is used, also where nothing else is measured.
        if config.tune || config.pins.runtime.is_some() {
            for lane in engine.lanes() {
                is_settled &= tune_lane(&lane, config, tuning).await;
            }
        }
        if is_settled {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// One clear line on the library, where there is something to say.
async fn report_library(config: &ModelsConfig, tuning: &Tuning) {
    match tuning.look(config).await {
        Ok(Looked::Found(found)) => {
            let (path, version) = (found.path.display(), found.version.as_deref());
            tracing::info!(%path, version, "ONNX Runtime is there");
        }
        Ok(Looked::Absent) => tracing::info!("models run on tract: there is no libonnxruntime"),
        Ok(Looked::Broken(why)) | Err(why) => {
            tracing::warn!(%why, "models run on tract: ONNX Runtime cannot be used");
        }
    }
}

/// Puts bundles in service that tract cannot run. False: something remained unclear.
pub async fn try_untried(engine: &Engine, config: &ModelsConfig, tuning: &Arc<Tuning>) -> bool {
    let untried = std::mem::take(&mut *engine.untried());
    let mut is_settled = true;
    for (path, bundle) in untried {
        let found = tuning.tune(&bundle, config).await;
        let loaded = match found.choice {
            Some(choice) => load(&bundle, choice, config, tuning).await,
            None => Err(found.refused.join("; ")),
        };
        let max_waiting = config.max_waiting;
        match loaded.and_then(|loaded| Lane::start(bundle.clone(), loaded, max_waiting)) {
            Ok(lane) => {
                tracing::info!(model = lane.model(), "in service");
                engine.write_refused().retain(|refused| refused.path != path);
                engine.put(lane);
            }
            Err(why) => {
                tracing::warn!(bundle = bundle.name(), %why, "no way to run it can be used");
                is_settled &= found.is_settled;
                if !found.is_settled {
                    engine.untried().push((path, bundle));
                }
            }
        }
    }
    is_settled
}

/// Measures a bundle in service, unless that was done already, and swaps the best way in. False:
/// something remained unclear.
async fn tune_lane(lane: &Lane, config: &ModelsConfig, tuning: &Arc<Tuning>) -> bool {
    let (this, bundle, models) = (tuning.clone(), lane.bundle().clone(), config.clone());
    let stored = tokio::task::spawn_blocking(move || this.stored(&bundle, &models)).await;
    if stored.ok().flatten().is_some_and(|choice| choice == lane.choice()) {
        return true;
    }
    let found = tuning.tune(lane.bundle(), config).await;
    let Some(choice) = found.choice.filter(|choice| *choice != lane.choice()) else {
        return found.is_settled;
    };
    match load(lane.bundle(), choice.clone(), config, tuning).await {
        Ok(loaded) => lane.swap(loaded),
        Err(why) => {
            tracing::warn!(bundle = lane.name(), %choice, %why, "does not load; what ran before goes on");
        }
    }
    found.is_settled
}

async fn load(
    bundle: &Bundle,
    choice: Choice,
    config: &ModelsConfig,
    tuning: &Arc<Tuning>,
) -> Result<Loaded, String> {
    let loader = Loader { config: config.clone(), tuning: tuning.clone() };
    let bundle = bundle.clone();
    let loading = tokio::task::spawn_blocking(move || loader.load_as(&bundle, choice));
    loading.await.unwrap_or_else(|panic| Err(panicked(&panic)))
}

fn panicked(panic: &tokio::task::JoinError) -> String {
    format!("loading panicked: {panic}; report this as a bug")
}

/// What came of the bundles that do one task.
#[derive(Default)]
struct First {
    lane: Option<Lane>,
    refused: Vec<RefusedBundle>,
    /// The first that is intact and that tract cannot run.
    unloaded: Option<(PathBuf, Bundle)>,
}

/// Loads the first of `bundles`, which all do one task, that can be loaded; says of the others why
/// they are not in service.
fn load_first(bundles: Vec<(PathBuf, Bundle)>, loader: &Loader) -> First {
    let mut first = First::default();
    for (path, bundle) in bundles {
        if let Some(lane) = &first.lane {
            let why = format!("{} does task {} already", lane.model(), lane.task());
            first.refused.push(RefusedBundle { path, why, is_spare: true });
            continue;
        }
        let loaded = catch_unwind(AssertUnwindSafe(|| {
            let loaded = loader.load(&bundle)?;
            Lane::start(bundle.clone(), loaded, loader.config.max_waiting)
        }));
        let why = match loaded {
            Ok(Ok(lane)) => {
                first.lane = Some(lane);
                continue;
            }
            Ok(Err(why)) => why,
            Err(_) => "loading panicked; report this as a bug".to_owned(),
        };
        if first.unloaded.is_none() {
            first.unloaded = Some((path.clone(), bundle));
        }
        first.refused.push(RefusedBundle { path, why, is_spare: false });
    }
    first
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
