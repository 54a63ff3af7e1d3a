//! Owns local inference: the bundles of this device, and the workers of those in service.
//!
//! **Invariant:** inference never runs on the async reactor, and a model that fails or panics
//! takes down its own request only.

mod bring;
mod catalog;
mod change;
mod error;
mod heap;
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

use self::catalog::{Catalog, Entry, Standing, Unusable};
pub use self::error::EngineError;
pub use self::lane::{Lane, LocalAnswer, Terms};
pub use self::latency::Quantiles;
use self::loader::Loader;
use self::loads::Loads;
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
    /// Checks every bundle and loads one for each task, side by side; waits for all of them. Each runs
    /// in the way that was measured to be the best, or else in the first that tract can run; one that
    /// tract cannot run waits for [`Engine::tune`].
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
        let pins = &config.pins;
        let unmet = catalog.unmet().into_iter().chain(pins::unmet_variants(pins, &catalog));
        unmet.for_each(|why| tracing::warn!("{why}"));
        let loader = Loader::new(config, tuning);
        let loading = catalog.by_task().into_iter().map(|bundles| {
            let loader = loader.clone();
            tokio::task::spawn_blocking(move || load_first(bundles, &loader))
        });
        for loading in loading.collect::<Vec<_>>() {
            match loading.await {
                Ok(tried) => {
                    tried.into_iter().for_each(|(bundle, standing)| catalog.set(&bundle, standing));
                }
                // The loader catches what a bundle can do.
                Err(panic) => tracing::error!(why = panicked(&panic), "bundles were not loaded"),
            }
        }
        for RefusedBundle { path, why, .. } in catalog.refused().iter().filter(|b| b.is_spare) {
            tracing::info!(bundle = %path.display(), %why, "bundle not needed");
        }
        Self {
            loader,
            catalog: Arc::new(RwLock::new(catalog)),
            loads: Loads::default(),
            loading: Arc::default(),
            measuring: Arc::default(),
            came: Arc::default(),
            no_runtime: Arc::default(),
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

    /// The bundles in service, and those that are to be tried first.
    pub fn bundles(&self) -> Vec<Bundle> {
        self.bundles_that(|entry| {
            matches!(entry.standing, Standing::Serving(_) | Standing::Untried(_))
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

/// Loads the first of `bundles`, which all do one task, that can be loaded; says what became of each
/// that was tried. Where none loads, the first is to be tried otherwise.
fn load_first(bundles: Vec<Bundle>, loader: &Loader) -> Vec<(Bundle, Standing)> {
    let mut refused: Vec<(Bundle, String)> = Vec::new();
    let mut serving = None;
    for bundle in bundles {
        let lane = loader
            .load(&bundle)
            .and_then(|loaded| Lane::start(bundle.clone(), loaded, &loader.config, None));
        match lane {
            Ok(lane) => {
                serving = Some((bundle, Standing::serving(lane)));
                break;
            }
            Err(why) => refused.push((bundle, why)),
        }
    }
    let has_none = serving.is_none();
    let refused = refused.into_iter().enumerate().map(|(at, (bundle, why))| {
        let standing = if has_none && at == 0 { Standing::Untried } else { Standing::Refused };
        (bundle, standing(why))
    });
    refused.chain(serving).collect()
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
