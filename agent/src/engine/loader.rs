//! How a bundle is brought into service: the way that was measured to be the best, or a safe one.
//!
//! **Invariant:** what is in service reproduced its bundle's goldens in this process.

use std::sync::Arc;

use holdfast_models::{Bundle, Model, Runtime};

use crate::config::ModelsConfig;
use crate::tune::candidates::{Pins, TRACT, candidates};
use crate::tune::choice::Choice;
use crate::tune::library::runtime;
use crate::tune::{Tuning, cores};

/// A model in service, and how it runs.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) model: Model,
    pub(super) way: Way,
}

/// How a model runs, so that it can be loaded once more.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) choice: Choice,
    runtime: Arc<dyn Runtime>,
}

impl std::fmt::Debug for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.choice)
    }
}

impl Way {
    /// Loads a bundle in this way.
    pub(super) fn load(&self, bundle: &Bundle) -> Result<Model, String> {
        let Choice { variant, threads, .. } = &self.choice;
        Model::load_on(bundle, Some(variant), &*self.runtime, *threads)
            .map_err(|error| crate::error_chain(&error))
    }
}

/// What loading goes by.
#[derive(Debug)]
pub(super) struct Loader {
    pub(super) config: ModelsConfig,
    pub(super) tuning: Arc<Tuning>,
}

impl Loader {
    /// Loads a bundle in the best way that is known, or in one that needs nothing but this program.
    /// Blocks.
    pub(super) fn load(&self, bundle: &Bundle) -> Result<Loaded, String> {
        if let Some(choice) = self.tuning.stored(bundle, &self.config) {
            match self.load_as(bundle, choice.clone()) {
                Ok(loaded) => return Ok(loaded),
                Err(why) => {
                    tracing::warn!(bundle = bundle.name(), %choice, %why, "what was measured to be the best does not load; another way serves until it is measured again");
                    self.tuning.forget(bundle.name());
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
        let way = Way { choice, runtime };
        Ok(Loaded { model: way.load(bundle)?, way })
    }
}
