//! How a bundle is brought into service: the way that was measured to be the best, or a safe one.
//!
//! **Invariant:** what is in service reproduced its bundle's goldens in this process.

use std::sync::Arc;

use holdfast_models::{Bundle, Model, Runtime, Tract};

use crate::config::ModelsConfig;
use crate::tune::candidates::TRACT;
use crate::tune::choice::Choice;
use crate::tune::library::{OnnxRuntimeConfig, runtime};
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

impl Loaded {
    /// Loads a bundle as it was chosen.
    pub(super) fn load(
        bundle: &Bundle,
        choice: Choice,
        onnxruntime: &OnnxRuntimeConfig,
    ) -> Result<Self, String> {
        let runtime: Arc<dyn Runtime> = match &*choice.runtime {
            TRACT => Arc::new(Tract),
            name => runtime(name, onnxruntime)?.into(),
        };
        let way = Way { choice, runtime };
        Ok(Self { model: way.load(bundle)?, way })
    }
}

/// What loading goes by.
#[derive(Debug)]
pub(super) struct Loader {
    pub(super) config: ModelsConfig,
    pub(super) tuning: Arc<Tuning>,
}

impl Loader {
    /// Loads a bundle in the best way that is known. Blocks.
    pub(super) fn load(&self, bundle: &Bundle) -> Result<Loaded, String> {
        let onnxruntime = &self.config.onnxruntime;
        if let Some(choice) = self.tuning.stored(bundle, &self.config) {
            match Loaded::load(bundle, choice.clone(), onnxruntime) {
                Ok(loaded) => return Ok(loaded),
                Err(why) => {
                    tracing::warn!(bundle = bundle.name(), %choice, %why, "what was measured to be the best does not load; another way serves");
                }
            }
        }
        let mut refused = Vec::new();
        for choice in self.safe(bundle) {
            match Loaded::load(bundle, choice, onnxruntime) {
                Ok(loaded) => return Ok(loaded),
                Err(why) => refused.push(why),
            }
        }
        // No variant runs on tract. What else there is must be tried before anything is answered.
        let tuned =
            tokio::runtime::Handle::current().block_on(self.tuning.tune(bundle, &self.config));
        match tuned {
            Some(choice) => Loaded::load(bundle, choice, onnxruntime),
            None => Err(refused.join("; ")),
        }
    }

    /// The ways that need nothing but this program, in the bundle's order.
    fn safe(&self, bundle: &Bundle) -> Vec<Choice> {
        let pins = crate::tune::candidates::Pins {
            variant: self.config.pins.variant.clone(),
            ..Default::default()
        };
        crate::tune::candidates::candidates(bundle.variants(), &[], cores(), &pins)
    }
}
