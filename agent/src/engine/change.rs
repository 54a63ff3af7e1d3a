//! Bundles that come and go while the agent runs.
//!
//! **Invariant:** behind the start one bundle is loaded at a time, and one is measured at a time; neither
//! keeps one from being unloaded. What serves goes on until what takes its place is loaded and right;
//! where that does not come about, it goes on, and the error says so. Who was taken by a bundle that goes
//! is answered by it.

use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use holdfast_models::Bundle;
use holdfast_models::bundle::Claim;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use super::catalog::{Catalog, Damaged, Found, Standing, Target, Unusable, load_command};
use super::heap;
use super::loader::{Loaded, Loader};
use super::{Engine, EngineError, Lane, bundle_folders, panicked};
use crate::tune::choice::Choice;

/// The workers of a bundle that is unloaded end within this time, or are waited for no longer.
const GONE_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// What was being brought in when the operator took it out.
const TAKEN_OUT: &str = "it was taken out of service meanwhile";

impl Engine {
    /// Looks at the bundle folders again and brings the version of a bundle into service that they
    /// make its default, also one whose files changed. The one before goes when the new one answers,
    /// unless a label names it. It goes on when its caller does not wait for it; who asks for the same
    /// meanwhile waits for the same.
    ///
    /// # Errors
    /// There is no such bundle, or it does not load; what served goes on. A newer version lies there and
    /// is damaged; what is intact was brought in.
    pub async fn load(&self, model: &str) -> Result<(), EngineError> {
        let begin = || {
            let (engine, model) = (self.clone(), model.to_owned());
            async move { engine.bring_in(&model).await }
        };
        let (load, is_joined) = self.loads.join(model, begin);
        load.await?;
        if is_joined {
            // What lies in the folders may be otherwise since the first one looked.
            return self.loads.join(model, begin).0.await;
        }
        Ok(())
    }

    async fn bring_in(&self, model: &str) -> Result<(), EngineError> {
        let (found, faults) = self.look_again().await;
        let target = self.write().look_again(found, faults, model);
        let version = target.as_ref().map(|target| target.bundle.version());
        let damaged = self.catalog().damaged(model, version);
        let Some(target) = target else {
            if let Some(damaged) = damaged {
                return Err(self.instead(model, damaged));
            }
            if !self.catalog().names().contains(&model) {
                return Err(self.unknown(model).await);
            }
            let why = self.still(model, "no folder has it any more".to_owned());
            return Err(EngineError::NotReady { model: model.to_owned(), why });
        };
        // What serves although its files are damaged by now is not given up for an older one.
        let is_worse = |damaged: &Damaged| self.catalog().is_default_of(model, &damaged.path);
        if !damaged.as_ref().is_some_and(is_worse) {
            self.put_in_service(model, target).await?;
        }
        damaged.map_or(Ok(()), |damaged| Err(self.instead(model, damaged)))
    }

    async fn put_in_service(&self, model: &str, target: Target) -> Result<(), EngineError> {
        let Target { path, bundle, serves } = target;
        let not_ready = |why| EngineError::NotReady { model: named(&bundle), why };
        if !serves {
            let _begun = Begun::new(&self.catalog, &bundle);
            let loaded = self.load_or_measure(&bundle).await;
            // Somebody who asked it may have had it loaded meanwhile.
            let is_there = || self.catalog().lane_of(&bundle).is_some();
            match loaded {
                Ok(lane) => {
                    let told = lane.model().to_owned();
                    if !self.write().put(path, lane) {
                        return Err(not_ready(format!("{TAKEN_OUT}; {}", load_command(model))));
                    }
                    tracing::info!(model = told, "in service");
                    self.came.notify_one();
                }
                Err(_) if is_there() => {}
                Err(why) => {
                    self.write().refuse(&bundle, &why);
                    return Err(not_ready(self.still(model, why)));
                }
            }
        }
        self.write().retire(model, bundle.version());
        Ok(())
    }

    /// What a load says that found a version which cannot be used.
    fn instead(&self, model: &str, damaged: Damaged) -> EngineError {
        let Damaged { version, why, .. } = damaged;
        let model = match version.as_str() {
            "" => model.to_owned(),
            version => format!("{model}@{version}"),
        };
        let name = model.split('@').next().unwrap_or_default().to_owned();
        EngineError::NotReady { why: self.still(&name, why), model }
    }

    /// A reason, with what goes on in spite of it.
    fn still(&self, model: &str, why: String) -> String {
        match self.catalog().default_lane(model) {
            Some(lane) => format!("{why}; {} goes on", lane.model()),
            None => why,
        }
    }

    /// Takes every version of a bundle out of service, until it is loaded again. Those that it was
    /// asked before are answered; their memory is free then, at the latest after 10 s. What is being
    /// loaded or measured of it does not come in.
    ///
    /// # Errors
    /// There is no such bundle.
    pub async fn unload(&self, model: &str) -> Result<(), EngineError> {
        self.loads.give_up(model);
        let served = self.write().unload(model);
        let Some(served) = served else { return Err(self.unknown(model).await) };
        tracing::info!(bundle = model, "unloaded");
        let left: Vec<_> = served.into_iter().map(|lane| lane.held()).collect();
        let gone = async {
            while left.iter().any(|held| held.strong_count() > 0) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        // Who is slow keeps the memory a while longer.
        tokio::time::timeout(GONE_WITHIN, gone).await.ok();
        tokio::task::spawn_blocking(heap::give_back).await.ok();
        Ok(())
    }

    /// What answers for a bundle; a version that nobody needed yet is loaded first.
    pub(super) async fn awake(
        &self,
        model: &str,
        version: Option<&str>,
        give_up_at: Instant,
    ) -> Result<Arc<Lane>, EngineError> {
        let bundle = match self.answering(model, version).await? {
            Answering::Lane(lane) => return Ok(lane),
            Answering::Spare(bundle) => bundle,
        };
        let begun = Instant::now();
        let loading = async {
            let one = self.loading.clone().lock_owned().await;
            // Meanwhile it may have been loaded, taken out, or replaced by another one.
            match self.answering(model, version).await? {
                Answering::Lane(lane) => Ok(lane),
                Answering::Spare(bundle) => self.load_behind(*bundle, one).await,
            }
        };
        // Who is late has it loaded all the same, for whoever comes next.
        tokio::time::timeout_at(give_up_at, loading).await.unwrap_or_else(|_| {
            Err(EngineError::Late { model: named(&bundle), waited: give_up_at - begun })
        })
    }

    pub(super) async fn answering(
        &self,
        model: &str,
        version: Option<&str>,
    ) -> Result<Answering, EngineError> {
        let found = self.catalog().find(model, version);
        match found {
            Found::Lane(lane) => Ok(Answering::Lane(lane)),
            Found::Spare(bundle) => Ok(Answering::Spare(bundle)),
            Found::NotReady(why) => Err(EngineError::NotReady { model: model.to_owned(), why }),
            Found::NoVersion { version, have } => {
                Err(EngineError::NoVersion { model: model.to_owned(), version, have })
            }
            Found::Nothing => Err(self.unknown(model).await),
        }
    }

    /// Loads a bundle in the way that is known for it, also when nobody waits for it any more.
    async fn load_behind(
        &self,
        bundle: Bundle,
        one: OwnedMutexGuard<()>,
    ) -> Result<Arc<Lane>, EngineError> {
        let (engine, model) = (self.clone(), named(&bundle));
        let loading = tokio::task::spawn_blocking(move || {
            let _one = one;
            engine.wake(&bundle)
        });
        let woken = loading.await.unwrap_or_else(|panic| Err(panicked(&panic)));
        woken.map_err(|why| EngineError::NotReady { model, why })
    }

    /// Blocks.
    fn wake(&self, bundle: &Bundle) -> Result<Arc<Lane>, String> {
        self.write().begin(bundle);
        let loader = &self.loader;
        let lane = loader
            .load(bundle)
            .and_then(|loaded| Lane::start(bundle.clone(), loaded, &loader.config, None));
        let is_awaited =
            |standing: &Standing| matches!(standing, Standing::Loading | Standing::Spare);
        match lane {
            Ok(lane) => {
                let lane = Arc::new(lane);
                let serving = Standing::Serving(Arc::clone(&lane));
                if !self.write().set_if(bundle, is_awaited, serving) {
                    return Err(TAKEN_OUT.to_owned());
                }
                tracing::info!(model = lane.model(), "in service");
                self.came.notify_one();
                Ok(lane)
            }
            Err(why) => {
                // Where there is only no room for it, the next who names it may have more luck.
                let standing = match loader.fits(bundle) {
                    true => Standing::Refused(why.clone()),
                    false => Standing::Spare,
                };
                self.write().set_if(bundle, is_awaited, standing);
                Err(why)
            }
        }
    }

    /// Loads a bundle in the way that is known for it, or else in the best of all that are tried.
    async fn load_or_measure(&self, bundle: &Bundle) -> Result<Lane, String> {
        // Where memory counts, what it takes is measured before it comes in.
        let is_measured_first =
            self.loader.config.limits.memory_kib.is_some() && self.stored(bundle).await.is_none();
        let known = match is_measured_first {
            true => Err(String::new()),
            false => self.load_known(bundle).await,
        };
        let loaded = match known {
            Ok(loaded) => loaded,
            Err(why) => {
                // It was measured, and that was not forgotten: there is no room for it now.
                if !is_measured_first && self.stored(bundle).await.is_some() {
                    return Err(why);
                }
                let found = self.measured(bundle).await;
                match found.choice {
                    Some(choice) => self.load_as(bundle, choice).await?,
                    None if !found.refused.is_empty() => return Err(found.refused.join("; ")),
                    // Nothing could be tried.
                    None if is_measured_first => self.load_known(bundle).await?,
                    None => return Err(why),
                }
            }
        };
        let before = self.catalog().default_lane(bundle.name()).cloned();
        Lane::start(bundle.clone(), loaded, &self.loader.config, before.as_deref())
    }

    /// Loads a bundle in the way that is known for it, or in one that tract runs.
    async fn load_known(&self, bundle: &Bundle) -> Result<Loaded, String> {
        let bundle = bundle.clone();
        self.load_alone(move |loader| loader.load(&bundle)).await
    }

    /// Loads a bundle in a way that was measured.
    pub(super) async fn load_as(&self, bundle: &Bundle, choice: Choice) -> Result<Loaded, String> {
        let bundle = bundle.clone();
        self.load_alone(move |loader| loader.load_as(&bundle, choice)).await
    }

    async fn load_alone(
        &self,
        load: impl FnOnce(&Loader) -> Result<Loaded, String> + Send + 'static,
    ) -> Result<Loaded, String> {
        let one = self.loading.clone().lock_owned().await;
        let loader = self.loader.clone();
        let loading = tokio::task::spawn_blocking(move || {
            let _one = one;
            let loaded = load(&loader);
            heap::give_back();
            loaded
        });
        loading.await.unwrap_or_else(|panic| Err(panicked(&panic)))
    }

    /// The bundles that lie in the folders now, and what cannot be used of them.
    pub(super) async fn look_again(&self) -> (Vec<(PathBuf, Bundle)>, Vec<Unusable>) {
        let places = self.loader.config.bundles.clone();
        let looking = tokio::task::spawn_blocking(move || {
            let (mut found, mut faults) = (Vec::new(), Vec::new());
            for path in bundle_folders(&places) {
                match Bundle::open(&path) {
                    Ok(bundle) => found.push((path, bundle)),
                    Err(error) => faults.push(Unusable::new(path, crate::error_chain(&error))),
                }
            }
            (found, faults)
        });
        looking.await.unwrap_or_default()
    }

    /// What lies in the folders and was never looked at, as it says of itself.
    async fn new_on_disk(&self) -> Vec<(PathBuf, Claim)> {
        let (places, catalog) = (self.loader.config.bundles.clone(), Arc::clone(&self.catalog));
        let looking = tokio::task::spawn_blocking(move || {
            let mut folders = bundle_folders(&places);
            let knows = |folder: &PathBuf| super::read(&catalog).knows(folder);
            folders.retain(|folder| !knows(folder));
            folders.into_iter().map(|folder| (Claim::of(&folder), folder)).collect::<Vec<_>>()
        });
        let found = looking.await.unwrap_or_default();
        found.into_iter().map(|(claim, folder)| (folder, claim)).collect()
    }

    /// Why nothing does a task that a bundle on this device is for, and what to do; `None` where there
    /// is no such bundle.
    pub async fn absence(&self, task: &str) -> Option<String> {
        let known = self.catalog().absence(task);
        if known.is_some() {
            return known;
        }
        let new = self.new_on_disk().await;
        let (folder, claim) = new.into_iter().find(|(_, claim)| claim.task == task)?;
        let (folder, load) = (folder.display(), load_command(&claim.name));
        Some(format!("bundle {} is on disk in {folder}, not loaded: {load}", claim.name))
    }

    /// Why a name leads to nothing.
    pub(super) async fn unknown(&self, model: &str) -> EngineError {
        let new = self.new_on_disk().await;
        if let Some((folder, claim)) = new.iter().find(|(_, claim)| claim.name == model) {
            let (folder, load) = (folder.display(), load_command(&claim.name));
            let why = format!("it is on disk in {folder}, not loaded: {load}");
            return EngineError::NotReady { model: model.to_owned(), why };
        }
        let damaged = self.catalog().damaged(model, None);
        if let Some(damaged) = damaged {
            return self.instead(model, damaged);
        }
        let have = self.catalog().names().join(", ");
        let have = if have.is_empty() { "none".to_owned() } else { have };
        EngineError::NoBundle { model: model.chars().take(64).collect(), have }
    }
}

/// What a name leads to that can answer, at once or soon.
pub(super) enum Answering {
    Lane(Arc<Lane>),
    Spare(Box<Bundle>),
}

/// A bundle is being loaded, until this is dropped.
struct Begun<'a> {
    catalog: &'a RwLock<Catalog>,
    bundle: &'a Bundle,
}

impl<'a> Begun<'a> {
    fn new(catalog: &'a RwLock<Catalog>, bundle: &'a Bundle) -> Self {
        super::write(catalog).begin(bundle);
        Self { catalog, bundle }
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        super::write(self.catalog).end(self.bundle);
    }
}

fn named(bundle: &Bundle) -> String {
    format!("{}@{}", bundle.name(), bundle.version())
}
