//! Bundles that come and go while the agent runs.
//!
//! **Invariant:** one bundle is loaded at a time. What serves goes on until what takes its place is
//! loaded and right; where that does not come about, it goes on, and the error says so. Who was taken
//! by a bundle that goes is answered by it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use holdfast_models::Bundle;
use tokio::time::Instant;

use super::catalog::{Catalog, Found, Standing};
use super::heap;
use super::loader::Loaded;
use super::{Engine, EngineError, Lane, bundle_folders, panicked};

/// The workers of a bundle that is unloaded end within this time, or are waited for no longer.
const GONE_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(1);

impl Engine {
    /// Looks at the bundle folders again and brings the version of a bundle into service that they
    /// make its default, also one whose files changed. The one before goes when the new one answers,
    /// unless a label names it.
    ///
    /// # Errors
    /// There is no such bundle, or it does not load; what served goes on.
    pub async fn load(&self, model: &str) -> Result<(), EngineError> {
        let _one = self.loading.clone().lock_owned().await;
        let (found, faults) = self.look_again().await;
        let target = self.write().look_again(found, faults, model);
        let Some((path, bundle, serves)) = target else {
            return Err(self.unknown(model));
        };
        if !serves {
            let _begun = Begun::new(&self.catalog, &bundle);
            let lane = self.load_or_tune(&bundle).await.map_err(|why| {
                let mut catalog = self.write();
                catalog.refuse(&bundle, &why);
                let serving = catalog.default_lane(model).map(|lane| lane.model().to_owned());
                EngineError::NotReady { model: named(&bundle), why: still(why, serving) }
            })?;
            tracing::info!(model = lane.model(), "in service");
            self.write().put(path, lane);
        }
        self.write().retire(model, bundle.version());
        Ok(())
    }

    /// Takes every version of a bundle out of service, until it is loaded again. Those that it was
    /// asked before are answered; their memory is free then, at the latest after 10 s.
    ///
    /// # Errors
    /// There is no such bundle.
    pub async fn unload(&self, model: &str) -> Result<(), EngineError> {
        let _one = self.loading.clone().lock_owned().await;
        let served = self.write().unload(model);
        let Some(served) = served else { return Err(self.unknown(model)) };
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
        let found = self.catalog().find(model, version);
        let bundle = match found {
            Found::Lane(lane) => return Ok(lane),
            Found::Spare(bundle) => bundle,
            Found::NotReady(why) => {
                return Err(EngineError::NotReady { model: model.to_owned(), why });
            }
            Found::NoVersion { version, have } => {
                return Err(EngineError::NoVersion { model: model.to_owned(), version, have });
            }
            Found::Nothing => return Err(self.unknown(model)),
        };
        let begun = Instant::now();
        let late = || EngineError::Late { model: named(&bundle), waited: give_up_at - begun };
        let loading = async {
            let one = self.loading.clone().lock_owned().await;
            // Somebody else may have loaded it meanwhile.
            match self.catalog().find(model, version) {
                Found::Lane(lane) => return Ok(lane),
                Found::NotReady(why) => return Err(why),
                Found::Spare(_) | Found::NoVersion { .. } | Found::Nothing => {}
            }
            self.load_behind((*bundle).clone(), one).await
        };
        match tokio::time::timeout_at(give_up_at, loading).await {
            Ok(loaded) => {
                loaded.map_err(|why| EngineError::NotReady { model: named(&bundle), why })
            }
            // It is loaded all the same, for whoever comes next.
            Err(_) => Err(late()),
        }
    }

    /// Loads a bundle in the way that is known for it, also when nobody waits for it any more.
    async fn load_behind(
        &self,
        bundle: Bundle,
        one: tokio::sync::OwnedMutexGuard<()>,
    ) -> Result<Arc<Lane>, String> {
        let loader = self.loader.clone();
        let catalog = Arc::clone(&self.catalog);
        let loading = tokio::task::spawn_blocking(move || {
            let _one = one;
            let set = |standing| super::write(&catalog).set(&bundle, standing);
            set(Standing::Loading);
            let lane = catch_unwind(AssertUnwindSafe(|| {
                let loaded = loader.load(&bundle)?;
                Lane::start(bundle.clone(), loaded, &loader.config, None)
            }));
            let lane =
                lane.unwrap_or_else(|_| Err("loading panicked; report this as a bug".into()));
            match lane {
                Ok(lane) => {
                    let lane = Arc::new(lane);
                    tracing::info!(model = lane.model(), "in service");
                    set(Standing::Serving(Arc::clone(&lane)));
                    Ok(lane)
                }
                Err(why) => {
                    // Where there is only no room for it, the next who names it may have more luck.
                    let fits = loader.fits(&bundle);
                    set(if fits { Standing::Refused(why.clone()) } else { Standing::Spare });
                    Err(why)
                }
            }
        });
        loading.await.unwrap_or_else(|panic| Err(panicked(&panic)))
    }

    /// Loads a bundle in the way that is known for it, or else in the best of all that are tried.
    async fn load_or_tune(&self, bundle: &Bundle) -> Result<Lane, String> {
        let (config, tuning) = (&self.loader.config, &self.loader.tuning);
        // Where memory counts, what it takes is measured before it comes in.
        let is_measured_first = config.limits.memory_kib.is_some() && !self.is_known(bundle).await;
        let known = match is_measured_first {
            true => Err(String::new()),
            false => self.load_known(bundle).await,
        };
        let loaded = match known {
            Ok(loaded) => loaded,
            Err(why) => {
                // It was measured, and that was not forgotten: there is no room for it now.
                if !is_measured_first && self.is_known(bundle).await {
                    return Err(why);
                }
                let found = tuning.tune(bundle, config).await;
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

    /// Whether it was measured how the bundle runs best.
    async fn is_known(&self, bundle: &Bundle) -> bool {
        let (loader, bundle) = (self.loader.clone(), bundle.clone());
        let stored = move || loader.tuning.stored(&bundle, &loader.config).is_some();
        tokio::task::spawn_blocking(stored).await.unwrap_or(false)
    }

    /// Loads a bundle in the way that is known for it, or in one that tract runs.
    async fn load_known(&self, bundle: &Bundle) -> Result<Loaded, String> {
        let (loader, bundle) = (self.loader.clone(), bundle.clone());
        let loading = tokio::task::spawn_blocking(move || loader.load(&bundle));
        loading.await.unwrap_or_else(|panic| Err(panicked(&panic)))
    }

    /// The bundles that lie in the folders now, and what cannot be used of them.
    async fn look_again(&self) -> (Vec<(PathBuf, Bundle)>, Vec<(PathBuf, String)>) {
        let places = self.loader.config.bundles.clone();
        let looking = tokio::task::spawn_blocking(move || {
            let (mut found, mut faults) = (Vec::new(), Vec::new());
            for path in bundle_folders(&places) {
                match Bundle::open(&path) {
                    Ok(bundle) => found.push((path, bundle)),
                    Err(error) => faults.push((path, crate::error_chain(&error))),
                }
            }
            (found, faults)
        });
        looking.await.unwrap_or_default()
    }

    fn unknown(&self, model: &str) -> EngineError {
        let have = self.catalog().names().join(", ");
        let have = if have.is_empty() { "none".to_owned() } else { have };
        EngineError::NoBundle { model: model.chars().take(64).collect(), have }
    }
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

fn still(why: String, serving: Option<String>) -> String {
    match serving {
        Some(model) => format!("{why}; {model} goes on"),
        None => why,
    }
}
