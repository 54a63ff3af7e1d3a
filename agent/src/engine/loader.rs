//! How a bundle is brought into service: the way that was measured to be the best, or a safe one.
//!
//! **Invariant:** what is in service reproduced its bundle's goldens in this process.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use holdfast_models::{Bundle, Goldens, Loading, Model, Runtime};

use super::memory::{Memory, NoRoom, Room};
use super::panicked;
use crate::config::ModelsConfig;
use crate::tune::candidates::{Pins, TRACT, candidates};
use crate::tune::choice::Choice;
use crate::tune::library::runtime;
use crate::tune::{Tuning, cores, estimated_kib};

/// A model that is ready, and how it runs.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) ready: Ready,
    pub(super) way: Way,
}

/// A model that is ready, in the memory that it takes.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) model: Model,
    _room: Room,
}

/// How a model runs, so that it can be loaded once more.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) choice: Choice,
    runtime: Arc<dyn Runtime>,
    memory: Memory,
    kib: u64,
}

impl std::fmt::Debug for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.choice)
    }
}

impl Way {
    /// A way that takes so much memory.
    pub(super) fn new(choice: Choice, runtime: Arc<dyn Runtime>, memory: Memory, kib: u64) -> Self {
        Self { choice, runtime, memory, kib }
    }

    /// Loads a bundle in this way. Blocks.
    ///
    /// # Errors
    /// There is no room for it, or it does not load, whatever it did to the thread; as a sentence.
    pub(super) fn load(&self, bundle: &Bundle) -> Result<Ready, String> {
        let _room = self.memory.take(self.kib).map_err(|error| error.to_string())?;
        let Choice { variant, threads, .. } = &self.choice;
        let (variant, threads, goldens) = (Some(variant.as_str()), *threads, Goldens::Quick);
        let loading = Loading { variant, threads, goldens };
        let load = || Model::load_as(bundle, &*self.runtime, loading);
        match catch_unwind(AssertUnwindSafe(load)) {
            Ok(Ok(model)) => Ok(Ready { model, _room }),
            Ok(Err(error)) => Err(crate::error_chain(&error)),
            Err(_) => Err("loading panicked; report this as a bug".to_owned()),
        }
    }
}

/// What loading goes by.
#[derive(Debug, Clone)]
pub(super) struct Loader {
    pub(super) config: ModelsConfig,
    pub(super) tuning: Arc<Tuning>,
    memory: Memory,
}

impl Loader {
    /// What loads the models of one device.
    pub(super) fn new(config: &ModelsConfig, tuning: &Arc<Tuning>) -> Self {
        let memory = Memory::new(config.limits.memory_kib);
        Self { config: config.clone(), tuning: tuning.clone(), memory }
    }

    /// Loads a bundle in the best way that is known, or in one that needs nothing but this program.
    pub(super) async fn load(&self, bundle: &Bundle) -> Result<Loaded, String> {
        let stored = self.apart(bundle, |loader, bundle| {
            let stored = loader.tuning.stored(bundle, &loader.config);
            // What does not fit now is no worse a choice for that.
            let room = stored.as_ref().map(|choice| loader.room_for(bundle, choice)).transpose();
            room.map(|_room| stored).map_err(|error| error.to_string())
        });
        if let Some(choice) = stored.await? {
            match self.load_as(bundle, choice.clone()).await {
                Ok(loaded) => return Ok(loaded),
                Err(why) => {
                    tracing::warn!(bundle = bundle.name(), %choice, %why, "what was measured to be the best does not load; another way serves until it is measured again");
                    let forgotten = |loader: &Self, bundle: &Bundle| {
                        loader.tuning.forget(bundle);
                        Ok(())
                    };
                    self.apart(bundle, forgotten).await?;
                }
            }
        }
        let pins = Pins { variant: self.config.pins.variant.clone(), ..Pins::default() };
        let mut refused = Vec::new();
        for choice in candidates(bundle.variants(), &[], cores(), &pins) {
            match self.load_as(bundle, choice).await {
                Ok(loaded) => return Ok(loaded),
                Err(why) => refused.push(why),
            }
        }
        Err(refused.join("; "))
    }

    /// Loads a bundle as it was chosen; what was never loaded here, in a process of its own first.
    pub(super) async fn load_as(&self, bundle: &Bundle, choice: Choice) -> Result<Loaded, String> {
        self.tuning.try_first(bundle, &choice).await?;
        self.apart(bundle, move |loader, bundle| {
            // tract was tried; a library can still end the process.
            let _loading = (choice.runtime != TRACT).then(|| loader.tuning.loading(bundle));
            let runtime = runtime(&choice.runtime, &loader.config.onnxruntime)?.into();
            let kib = loader.memory_of(bundle, &choice);
            let way = Way::new(choice, runtime, loader.memory.clone(), kib);
            Ok(Loaded { ready: way.load(bundle)?, way })
        })
        .await
    }

    /// Whether there is room for a bundle now, in the way that it would run.
    pub(super) async fn fits(&self, bundle: &Bundle) -> bool {
        let fits = self.apart(bundle, |loader, bundle| {
            let stored = loader.tuning.stored(bundle, &loader.config);
            let first =
                || candidates(bundle.variants(), &[], cores(), &Pins::default()).into_iter().next();
            let choice = stored.or_else(first);
            Ok(choice.is_some_and(|choice| loader.room_for(bundle, &choice).is_ok()))
        });
        fits.await.unwrap_or(false)
    }

    /// Does what blocks, off the reactor.
    async fn apart<T: Send + 'static>(
        &self,
        bundle: &Bundle,
        work: impl FnOnce(&Self, &Bundle) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let (this, bundle) = (self.clone(), bundle.clone());
        let done = tokio::task::spawn_blocking(move || work(&this, &bundle)).await;
        done.unwrap_or_else(|panic| Err(panicked(&panic)))
    }

    fn room_for(&self, bundle: &Bundle, choice: &Choice) -> Result<Room, NoRoom> {
        self.memory.take(self.memory_of(bundle, choice))
    }

    /// What a bundle was measured to take, or else the estimate.
    fn memory_of(&self, bundle: &Bundle, choice: &Choice) -> u64 {
        if self.config.limits.memory_kib.is_none() {
            return 0;
        }
        let measured = self.tuning.peak_kib(bundle, &self.config, choice);
        measured.unwrap_or_else(|| estimated_kib(bundle, &choice.variant))
    }
}
