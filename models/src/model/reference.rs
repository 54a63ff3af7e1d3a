//! What a graph gives for a body before anybody knows whether that is right: the golden outputs of a
//! bundle that is being made.
//!
//! **Invariant:** what is told holds finite numbers only, and no [`Model`] comes of it.

use std::num::NonZeroUsize;

use super::{InferError, Inference, LoadError, Model};
use crate::bundle::Bundle;
use crate::media::Media;
use crate::outputs::OutputError;
use crate::runtime::Runtime;

/// What a graph gives for one body.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    /// The numbers of the first output.
    pub output: Vec<f32>,
    /// Those of the others, by their names.
    pub others: Vec<(String, Vec<f32>)>,
    /// The answer that they are.
    pub inference: Inference,
}

impl Model {
    /// Runs the default variant once, whatever its goldens say.
    ///
    /// # Errors
    /// The runtime refuses the graph, the body is refused, or the model gives something that is no
    /// number.
    pub fn reference(
        bundle: &Bundle,
        runtime: &dyn Runtime,
        media: &Media,
    ) -> Result<Reference, LoadError> {
        let mut model = Self::prepare(bundle, None, runtime, NonZeroUsize::MIN)?;
        let failed = |source: InferError| LoadError::Sample {
            bundle: bundle.name().to_owned(),
            sample: media.media_type().to_string(),
            source: Box::new(source),
        };
        let inference = model.infer(media).map_err(failed)?;
        let given = bundle.results().iter().zip(&model.outputs);
        let mut all = given.map(|(output, tensor)| {
            let mut numbers = Vec::new();
            output.form.numbers(tensor, &mut numbers);
            (output.name.clone(), numbers)
        });
        let first = all.next();
        let others: Vec<(String, Vec<f32>)> = all.collect();
        for (name, numbers) in first.iter().chain(&others) {
            if let Some(value) = numbers.iter().find(|value| !value.is_finite()) {
                let (label, value) = (name.clone(), value.to_string());
                return Err(failed(OutputError::NotFinite { label, value }.into()));
            }
        }
        let output = first.map(|(_, numbers)| numbers).unwrap_or_default();
        Ok(Reference { output, others, inference })
    }
}
