//! Owns local inference: the bundles of this device, and the workers of those in service.
//!
//! **Invariant:** inference never runs on the async reactor, and a model that fails or panics
//! takes down its own request only.

mod bring;
mod catalog;
mod change;
mod error;
mod lane;
mod latency;
mod line;
mod loader;
mod loads;
mod memory;
mod pace;
mod pins;
mod pool;
mod runner;
mod tensors;
mod version;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use holdfast_models::{Bundle, Media};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use self::catalog::{Catalog, Entry, Standing, Unusable};
pub use self::error::EngineError;
pub use self::lane::{Lane, LocalAnswer, Terms};
pub use self::latency::Quantiles;
use self::loader::Loader;
use self::loads::{Joined, Loads, Turn, Wanted};
pub use self::pool::Load;
pub use self::tensors::{
    ModelEntry, ModelMetadata, Readiness, TensorAnswer, TensorFault, TensorMetadata, TensorRequest,
};
use crate::config::ModelsConfig;
use crate::request::TaskName;
use crate::tune::Tuning;

/// All local models of this device, by task.
#[derive(Debug, Clone)]
pub struct Engine {
    loader: Loader,
    catalog: Arc<RwLock<Catalog>>,
    loads: Loads,
    /// Whoever loads a bundle behind the start has this.
    loading: Arc<tokio::sync::Mutex<()>>,
    /// Whoever measures one has this.
    measuring: Arc<tokio::sync::Mutex<()>>,
    /// Rings when a bundle came into service that may not be measured yet.
    came: Arc<Notify>,
    /// Why the pinned runtime is not there, once that is known.
    no_runtime: Arc<OnceLock<String>>,
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

impl Engine {
    /// Checks every bundle and loads one for each task, side by side. Each runs in the way that was
    /// measured to be the best, or else in the first that tract can run; one that tract cannot run waits
    /// for [`Engine::tune`].
    ///
    /// Waits for all of them; where what was never loaded on this machine is tried in a process of its
    /// own first, for so long as [`Tuning::patience`] says: what takes longer comes in behind the start.
    ///
    /// A bundle that cannot be used is refused and reported in [`Engine::refused`]; the others
    /// serve. Where several bundles do one task, the first in the configured order that loads
    /// serves, and the ones behind it are not loaded.
    pub async fn start(config: &ModelsConfig, tuning: &Arc<Tuning>) -> Self {
        let catalog = opened(config).await;
        let pins = &config.pins;
        let unmet = catalog.unmet().into_iter().chain(pins::unmet_variants(pins, &catalog));
        unmet.for_each(|why| tracing::warn!("{why}"));
        let tasks = catalog.by_task();
        let engine = Self {
            loader: Loader::new(config, tuning),
            catalog: Arc::new(RwLock::new(catalog)),
            loads: Loads::default(),
            loading: Arc::default(),
            measuring: Arc::default(),
            came: Arc::default(),
            no_runtime: Arc::default(),
        };
        let mut loading = JoinSet::new();
        for bundles in tasks {
            loading.spawn(engine.clone().load_first(bundles));
        }
        let all = async { while loading.join_next().await.is_some() {} };
        let is_over = match tuning.patience() {
            Some(patience) => tokio::time::timeout(patience, all).await.is_ok(),
            None => {
                all.await;
                true
            }
        };
        if !is_over {
            tracing::warn!(
                left = loading.len(),
                "what is being tried for the first time takes its time; it comes in when it is ready"
            );
            let came = Arc::clone(&engine.came);
            tokio::spawn(async move {
                while loading.join_next().await.is_some() {
                    came.notify_one();
                }
            });
        }
        for RefusedBundle { path, why, .. } in engine.refused().iter().filter(|b| b.is_spare) {
            tracing::info!(bundle = %path.display(), %why, "bundle not needed");
        }
        engine
    }

    /// Loads the first of `bundles`, which all do one task, that can be loaded. Where none loads, the
    /// first is to be tried otherwise.
    async fn load_first(self, bundles: Vec<Bundle>) {
        let mut refused: Vec<(Bundle, String)> = Vec::new();
        let mut has_none = true;
        for bundle in bundles {
            let (engine, own) = (self.clone(), bundle.clone());
            let begin = |turn: Turn| async move { engine.bring(&own, &turn).await };
            let Joined { load, turn, .. } = self.loads.join(&Wanted::of(&bundle), begin);
            match load.await {
                Ok(()) => {
                    has_none = false;
                    break;
                }
                Err(_) if turn.is_given_up() => {}
                Err(error) => refused.push((bundle, change::reason(&error))),
            }
        }
        for (at, (bundle, why)) in refused.into_iter().enumerate() {
            let standing = if has_none && at == 0 { Standing::Untried } else { Standing::Refused };
            self.write().set_if(&bundle, Standing::is_awaited, standing(why));
        }
    }

    fn catalog(&self) -> RwLockReadGuard<'_, Catalog> {
        read(&self.catalog)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Catalog> {
        write(&self.catalog)
    }

    /// The models that do a task, by task.
    pub fn lanes(&self) -> Vec<Arc<Lane>> {
        self.catalog().lanes()
    }

    /// Every version of every bundle that answers.
    pub fn all_lanes(&self) -> Vec<Arc<Lane>> {
        self.catalog().entries().iter().filter_map(Entry::lane).cloned().collect()
    }

    /// The model that does `task`, if there is one.
    pub fn lane(&self, task: &TaskName) -> Option<Arc<Lane>> {
        self.catalog().lane(task).cloned()
    }

    /// The bundle of `task`: the one that serves it, else the first that is intact, whether or not its graph
    /// can be run here.
    pub fn bundle_of(&self, task: &TaskName) -> Option<Bundle> {
        let serving = self.lane(task).map(|lane| lane.bundle().clone());
        let of_task = |bundles: Vec<Bundle>| {
            let first = bundles.into_iter().next()?;
            (first.task() == task.as_str()).then_some(first)
        };
        serving.or_else(|| self.catalog().by_task().into_iter().find_map(of_task))
    }

    /// Bundles that were found and cannot be used, or not yet.
    pub fn refused(&self) -> Vec<RefusedBundle> {
        self.catalog().refused()
    }

    /// What the configuration asks for and does not get, as sentences that say what to do.
    pub fn unmet(&self) -> Vec<String> {
        let (pins, catalog) = (&self.loader.config.pins, self.catalog());
        let why = self.no_runtime.get().map(String::as_str);
        let mut unmet = catalog.unmet();
        unmet.extend(pins::unmet_variants(pins, &catalog));
        unmet.extend(pins::unmet_runtime(pins, &catalog, why));
        unmet
    }

    fn bundles_that(&self, is_meant: impl FnMut(&&Entry) -> bool) -> Vec<Bundle> {
        let catalog = self.catalog();
        catalog.entries().iter().filter(is_meant).map(|entry| entry.bundle.clone()).collect()
    }

    /// Bundles that tract cannot run, for tasks that no other bundle does.
    fn untried(&self) -> Vec<Bundle> {
        self.bundles_that(|entry| matches!(entry.standing, Standing::Untried(_)))
    }

    /// The bundles in service, and those that are to be loaded or tried first.
    pub fn bundles(&self) -> Vec<Bundle> {
        self.bundles_that(|entry| {
            matches!(
                entry.standing,
                Standing::Serving(_) | Standing::Loading | Standing::Untried(_)
            )
        })
    }

    /// Runs the local model of `task`, on the caller's terms.
    ///
    /// # Errors
    /// When there is no model, too many wait, time is over or would be, the input is bad or the model
    /// failed.
    pub async fn infer(
        &self,
        task: &TaskName,
        media: &Media,
        terms: Terms,
    ) -> Result<LocalAnswer, EngineError> {
        let lane = self.lane(task).ok_or_else(|| EngineError::NoModel(task.clone()))?;
        lane.infer(media.clone(), terms).await
    }
}

/// Every step of the catalog leaves it whole.
fn read(catalog: &RwLock<Catalog>) -> RwLockReadGuard<'_, Catalog> {
    catalog.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(catalog: &RwLock<Catalog>) -> RwLockWriteGuard<'_, Catalog> {
    catalog.write().unwrap_or_else(PoisonError::into_inner)
}

fn panicked(panic: &tokio::task::JoinError) -> String {
    format!("loading panicked: {panic}; report this as a bug")
}

/// Every bundle that lies in the configured folders.
async fn opened(config: &ModelsConfig) -> Catalog {
    let opening = bundle_folders(&config.bundles).into_iter().map(|path| {
        let folder = path.clone();
        (path, tokio::task::spawn_blocking(move || Bundle::open(&folder)))
    });
    let mut catalog = Catalog::new(config.versions.clone());
    for (path, opening) in opening.collect::<Vec<_>>() {
        match opening.await {
            Ok(Ok(bundle)) => catalog.add(path, bundle),
            Ok(Err(error)) => {
                catalog.refuse_folder(Unusable::new(path, crate::error_chain(&error)));
            }
            Err(panic) => catalog.refuse_folder(Unusable::new(path, panicked(&panic))),
        }
    }
    catalog
}

/// The bundle folders among `places` and directly inside of them, each place sorted by name. Inside,
/// what begins with a dot is under writing.
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
            .filter(|path| !begins_with_dot(path))
            .filter(|path| path.join("bundle.toml").is_file())
            .collect();
        inside.sort();
        found.extend(inside);
    }
    found
}

fn begins_with_dot(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

#[cfg(test)]
mod tests;
