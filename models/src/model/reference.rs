//! What a graph gives for a sample before anybody knows whether that is right: the golden outputs of a
//! bundle that is being made.
//!
//! **Invariant:** what is told holds finite numbers only, and no [`Model`] comes of it.

use std::num::NonZeroUsize;

use super::{InferError, Inference, LoadError, Model};
use crate::bundle::{Golden, Unproven};
use crate::media::Media;
use crate::outputs::OutputError;
use crate::runtime::Runtime;

/// What a graph gives for one sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    /// The golden output that it is.
    pub golden: Golden,
    /// The answer that it is.
    pub inference: Inference,
}

impl Model {
    /// Runs a variant on each of the bundle's samples once.
    ///
    /// # Errors
    /// The runtime refuses the graph, a sample is refused, or the model gives something that is no
    /// number.
    pub fn references(
        bundle: &Unproven,
        variant: &str,
        runtime: &dyn Runtime,
    ) -> Result<Vec<Reference>, LoadError> {
        let mut model = Self::prepare(bundle.bundle(), Some(variant), runtime, NonZeroUsize::MIN)?;
        bundle.samples().iter().map(|sample| model.reference(&sample.file)).collect()
    }

    fn reference(&mut self, sample: &str) -> Result<Reference, LoadError> {
        let own = &self.frame.bundle;
        let bundle = own.name().to_owned();
        let failed = |source: InferError| {
            let (bundle, sample) = (bundle.clone(), sample.to_owned());
            LoadError::Sample { bundle, sample, source: Box::new(source) }
        };
        let bytes = own.read(sample)?;
        let media = Media::detect_for(bytes, None, Some(own.expects()));
        let inference = media.map_err(InferError::from).and_then(|media| self.infer(&media));
        let inference = inference.map_err(failed)?;
        let mut all: Vec<(String, Vec<f32>)> = Vec::new();
        for (output, tensor) in self.frame.bundle.results().iter().zip(&self.frame.outputs) {
            let mut numbers = Vec::new();
            output.form.numbers(tensor, &mut numbers);
            if let Some(value) = numbers.iter().find(|value| !value.is_finite()) {
                let (label, value) = (output.name.clone(), value.to_string());
                return Err(failed(OutputError::NotFinite { label, value }.into()));
            }
            all.push((output.name.clone(), numbers));
        }
        let mut all = all.into_iter();
        let output = all.next().map(|(_, numbers)| numbers).unwrap_or_default();
        let (sample, variant) = (sample.to_owned(), self.variant.name.clone());
        let golden = Golden { sample, variant, output, others: all.collect() };
        Ok(Reference { golden, inference })
    }
}
