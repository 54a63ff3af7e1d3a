//! How a bundle is brought into service: the way that was measured to be the best, or a safe one.
//!
//! **Invariant:** what is in service reproduced its bundle's goldens in this process.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use holdfast_models::{Bundle, Goldens, Loading, Model, Runtime};

use super::memory::{Memory, Room};
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
    /// Blocks.
    pub(super) fn load(&self, bundle: &Bundle) -> Result<Loaded, String> {
        if let Some(choice) = self.tuning.stored(bundle, &self.config) {
            // What does not fit now is no worse a choice for that.
            let room = self.memory.take(self.memory_of(bundle, &choice));
            drop(room.map_err(|error| error.to_string())?);
            match self.load_as(bundle, choice.clone()) {
                Ok(loaded) => return Ok(loaded),
                Err(why) => {
                    tracing::warn!(bundle = bundle.name(), %choice, %why, "what was measured to be the best does not load; another way serves until it is measured again");
                    self.tuning.forget(bundle);
                }
            }
        }
        let pins = Pins { variant: self.config.pins.variant.clone(), ..Pins::default() };
        let mut refused = Vec::new();
        for choice in candidates(bundle.variants(), &[], cores(), &pins) {
            match self.load_as(bundle, choice) {
                Ok(loaded) => return Ok(loaded),
                Err(why) => refused.push(why),
            }
        }
        Err(refused.join("; "))
    }

    /// Loads a bundle as it was chosen. Blocks.
    pub(super) fn load_as(&self, bundle: &Bundle, choice: Choice) -> Result<Loaded, String> {
        // tract panics at worst, which is caught; a library can end the process.
        let _loading = (choice.runtime != TRACT).then(|| self.tuning.loading(bundle));
        let runtime = runtime(&choice.runtime, &self.config.onnxruntime)?.into();
        let kib = self.memory_of(bundle, &choice);
        let way = Way { choice, runtime, memory: self.memory.clone(), kib };
        Ok(Loaded { ready: way.load(bundle)?, way })
    }

    /// Whether there is room for a bundle now, in the way that it would run. Blocks.
    pub(super) fn fits(&self, bundle: &Bundle) -> bool {
        let stored = self.tuning.stored(bundle, &self.config);
        let first =
            || candidates(bundle.variants(), &[], cores(), &Pins::default()).into_iter().next();
        let choice = stored.or_else(first);
        choice.is_some_and(|choice| self.memory.take(self.memory_of(bundle, &choice)).is_ok())
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
