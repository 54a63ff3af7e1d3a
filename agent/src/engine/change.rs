//! Bundles that come and go while the agent runs.
//!
//! **Invariant:** behind the start one bundle is loaded at a time, and one is measured at a time; neither
//! keeps one from being unloaded. What serves goes on until what takes its place is loaded and right;
//! where that does not come about, it goes on, and the error says so. Who was taken by a bundle that goes
//! is answered by it. What was being loaded when the operator took it out changes nothing any more.

use std::path::PathBuf;
use std::sync::{Arc, RwLockWriteGuard};
use std::time::Duration;

use holdfast_models::Bundle;
use holdfast_models::bundle::Claim;
use tokio::time::Instant;

use super::catalog::{Catalog, Damaged, Found, Standing, Target, Unusable, load_command};
use super::loader::Loaded;
use super::loads::{Joined, Turn, Wanted};
use super::{Engine, EngineError, Lane, bundle_folders};
use crate::heap;
use crate::tune::choice::Choice;

/// The workers of a bundle that is unloaded end within this time, or are waited for no longer.
const GONE_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(1);

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
        let wanted = Wanted { name: model.to_owned(), version: None };
        let begin = |turn: Turn| {
            let (engine, model) = (self.clone(), model.to_owned());
            async move { engine.bring_in(&model, &turn).await }
        };
        let Joined { load, turn, is_others } = self.loads.join(&wanted, begin);
        let ended = load.await;
        if !is_others || turn.is_given_up() {
            return ended;
        }
        // What lies in the folders may be otherwise since the first one looked, whatever came of that.
        self.loads.join(&wanted, begin).load.await
    }

    async fn bring_in(&self, model: &str, turn: &Turn) -> Result<(), EngineError> {
        let (found, faults) = self.look_again().await;
        let target = self.change(turn, model)?.look_again(found, faults, model);
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
            self.put_in_service(model, target, turn).await?;
        }
        damaged.map_or(Ok(()), |damaged| Err(self.instead(model, damaged)))
    }

    async fn put_in_service(
        &self,
        model: &str,
        target: Target,
        turn: &Turn,
    ) -> Result<(), EngineError> {
        let Target { path, bundle, serves } = target;
        if !serves {
            // Who asks for it by name wants it tried again, whatever it did before.
            self.loader.tuning.try_again(&bundle).await;
            let _begun = Begun::new(self, &bundle, turn);
            match self.load_or_measure(&bundle).await {
                Ok(lane) => return self.come_in(path, lane, turn),
                // Somebody who asked it may have had it loaded meanwhile.
                Err(_) if self.catalog().lane_of(&bundle).is_some() => {}
                Err(why) => {
                    self.change(turn, &named(&bundle))?.refuse(&bundle, &why);
                    let why = self.still(model, why);
                    return Err(EngineError::NotReady { model: named(&bundle), why });
                }
            }
        }
        self.change(turn, &named(&bundle))?.retire(model, bundle.version());
        Ok(())
    }

    /// Puts what was loaded in service, and lets go what it takes the place of.
    fn come_in(&self, path: PathBuf, lane: Lane, turn: &Turn) -> Result<(), EngineError> {
        let (told, bundle) = (lane.model().to_owned(), lane.bundle().clone());
        let mut catalog = self.change(turn, &named(&bundle))?;
        if !catalog.put(path, lane) {
            let why = format!("its files changed meanwhile; {}", load_command(bundle.name()));
            return Err(EngineError::NotReady { model: named(&bundle), why });
        }
        catalog.retire(bundle.name(), bundle.version());
        drop(catalog);
        tracing::info!(model = told, "in service");
        self.came.notify_one();
        Ok(())
    }

    /// The catalog, for a load that was not given up: whoever gives one up does so before changing it.
    fn change(
        &self,
        turn: &Turn,
        model: &str,
    ) -> Result<RwLockWriteGuard<'_, Catalog>, EngineError> {
        let catalog = self.write();
        if turn.is_given_up() {
            let name = model.split('@').next().unwrap_or_default();
            let why = format!("it was taken out of service meanwhile; {}", load_command(name));
            return Err(EngineError::NotReady { model: model.to_owned(), why });
        }
        Ok(catalog)
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
        let (begun, late) = (Instant::now(), named(&bundle));
        let loading = async {
            let mut bundle = bundle;
            loop {
                // On a task of its own: who is late has it loaded all the same, for whoever comes next.
                let wanted = Wanted::of(&bundle);
                let load = self.loads.join(&wanted, |turn| {
                    let (engine, wanted) = (self.clone(), wanted.clone());
                    async move { engine.wake(&wanted, &turn).await }
                });
                let woken = load.load.await;
                match (self.answering(model, version).await?, woken) {
                    (Answering::Lane(lane), _) => return Ok(lane),
                    (Answering::Spare(next), Err(error)) if next.digest() == bundle.digest() => {
                        return Err(error);
                    }
                    // Another one has taken its place meanwhile.
                    (Answering::Spare(next), _) => bundle = next,
                }
            }
        };
        tokio::time::timeout_at(give_up_at, loading)
            .await
            .unwrap_or_else(|_| Err(EngineError::Late { model: late, waited: give_up_at - begun }))
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

    /// Loads a version in the way that is known for it, as it lies there when it is its turn.
    async fn wake(&self, wanted: &Wanted, turn: &Turn) -> Result<(), EngineError> {
        let waking = async {
            // Meanwhile it may have been loaded, taken out, or replaced by another one.
            let bundle = self.catalog().spare(wanted);
            let Some(bundle) = bundle else { return Ok(()) };
            let Err(error) = self.bring(&bundle, turn).await else {
                self.came.notify_one();
                return Ok(());
            };
            // Where there is only no room for it, the next who names it may have more luck.
            let standing = match self.loader.fits(&bundle).await {
                true => Standing::Refused(reason(&error)),
                false => Standing::Spare,
            };
            self.change(turn, &named(&bundle))?.set_if(&bundle, Standing::is_awaited, standing);
            Err(error)
        };
        self.alone(waking).await
    }

    /// Loads a bundle in the way that is known for it, and puts it in service.
    pub(super) async fn bring(&self, bundle: &Bundle, turn: &Turn) -> Result<(), EngineError> {
        let model = named(bundle);
        self.change(turn, &model)?.begin(bundle);
        let loaded = self.loader.load(bundle).await;
        let lane = loaded
            .and_then(|loaded| Lane::start(bundle.clone(), loaded, &self.loader.config, None))
            .map_err(|why| EngineError::NotReady { model: model.clone(), why })?;
        let told = lane.model().to_owned();
        let serving = Standing::serving(lane);
        if self.change(turn, &model)?.set_if(bundle, Standing::is_awaited, serving) {
            tracing::info!(model = told, "in service");
        }
        Ok(())
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
        self.alone(self.loader.load(bundle)).await
    }

    /// Loads a bundle in a way that was measured.
    pub(super) async fn load_as(&self, bundle: &Bundle, choice: Choice) -> Result<Loaded, String> {
        self.alone(self.loader.load_as(bundle, choice)).await
    }

    /// Loads with nothing else being loaded behind the start, and gives back what that took beside the
    /// model.
    async fn alone<T>(&self, loading: impl Future<Output = T>) -> T {
        let _one = self.loading.lock().await;
        let loaded = loading.await;
        tokio::task::spawn_blocking(heap::give_back).await.ok();
        loaded
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
    engine: &'a Engine,
    bundle: &'a Bundle,
    turn: &'a Turn,
}

impl<'a> Begun<'a> {
    fn new(engine: &'a Engine, bundle: &'a Bundle, turn: &'a Turn) -> Self {
        let this = Self { engine, bundle, turn };
        this.change(Catalog::begin);
        this
    }

    /// Nothing where it was given up: what it says by then is not its own.
    fn change(&self, change: impl FnOnce(&mut Catalog, &Bundle)) {
        if let Ok(mut catalog) = self.engine.change(self.turn, self.bundle.name()) {
            change(&mut catalog, self.bundle);
        }
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.change(Catalog::end);
    }
}

/// Why a load did not come about, without the name.
pub(super) fn reason(error: &EngineError) -> String {
    match error {
        EngineError::NotReady { why, .. } => why.clone(),
        error => error.to_string(),
    }
}

fn named(bundle: &Bundle) -> String {
    format!("{}@{}", bundle.name(), bundle.version())
}
