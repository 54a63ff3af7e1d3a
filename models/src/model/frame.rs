//! What is around a bundle's graph: its front ends before it, its decoder behind it, and the tensors
//! between, whoever runs the graph.
//!
//! **Invariant:** the tensors are those of the bundle, in its order; what is carried from window to window
//! begins with zeros.

use std::time::Instant;

use super::{InferError, InputError, Recorded};
use crate::bundle::Bundle;
use crate::front::Fronts;
use crate::media::Media;
use crate::outputs::pool::spans;
use crate::outputs::{Decoder, Outcome, OutputError, View};
use crate::runtime::TensorSpec;
use crate::tensor::{Elements, Tensor};

/// A bundle's front ends and decoder, with the room that they need.
pub(super) struct Frame {
    pub(super) bundle: Bundle,
    fronts: Fronts,
    pub(super) inputs: Vec<Tensor>,
    pub(super) outputs: Vec<Tensor>,
    /// What the first output stands for, and what it is compared with.
    pub(super) numbers: Vec<f32>,
    compared: Vec<f32>,
    /// The answer's numbers of one window, and of all.
    row: Vec<f32>,
    rows: Vec<f32>,
    /// What every output stands for, where the answer is made of all of them.
    all: Vec<Vec<f32>>,
}

impl Frame {
    pub(super) fn new(bundle: &Bundle) -> Self {
        let room = |specs: &[TensorSpec]| -> Vec<Tensor> {
            specs.iter().map(|spec| Tensor::zeros(&spec.shape, spec.dtype)).collect()
        };
        let (mut inputs, outputs) = (room(bundle.inputs()), room(bundle.outputs()));
        let fronts = Fronts::new(bundle, &mut inputs);
        Self {
            bundle: bundle.clone(),
            fronts,
            numbers: Vec::with_capacity(outputs.first().map_or(0, Tensor::len)),
            inputs,
            outputs,
            compared: Vec::new(),
            row: Vec::new(),
            rows: Vec::new(),
            all: Vec::new(),
        }
    }

    /// Takes a body; tells when it was decoded, and how many windows it has.
    pub(super) fn take(&mut self, media: &Media) -> Result<(Instant, usize), InferError> {
        let (want, got) = (self.bundle.expects(), media.media_type());
        if !want.takes(got) {
            return Err(InputError::Kind { want, got: got.kind() }.into());
        }
        let (decoded, windows) = self.fronts.take(media, &mut self.inputs)?;
        let sources = self.inputs.len() - self.bundle.states().len();
        for (state, spec) in self.inputs.iter_mut().zip(self.bundle.inputs()).skip(sources) {
            *state = Tensor::zeros(&spec.shape, spec.dtype);
        }
        self.rows.clear();
        Ok((decoded, windows))
    }

    /// Fills the inputs with a window.
    pub(super) fn window(&mut self, at: usize) -> Result<(), InputError> {
        self.fronts.window(at, &mut self.inputs)
    }

    /// Takes in that the outputs are there: what is carried goes over to the inputs.
    pub(super) fn given(&mut self) {
        let states = self.bundle.states().len();
        let (sources, results) = (self.inputs.len() - states, self.outputs.len() - states);
        let carried = self.inputs.iter_mut().skip(sources);
        for (carried, given) in carried.zip(self.outputs.iter_mut().skip(results)) {
            std::mem::swap(carried, given);
        }
        if let (Some(output), Some(tensor)) = (self.bundle.results().first(), self.outputs.first())
        {
            output.form.numbers(tensor, &mut self.numbers);
        }
    }

    /// Makes the answer's numbers of the window whose outputs came last.
    pub(super) fn decode_window(&mut self) -> Result<(), InferError> {
        let decoder = self.bundle.decoder();
        let compared = match decoder {
            Decoder::Reconstruction(reconstruction) => {
                self.fronts.numbers(&reconstruction.input, &self.inputs, &mut self.compared)
            }
            _ => &[],
        };
        decoder.row(&self.numbers, compared, &mut self.row)?;
        self.rows.extend_from_slice(&self.row);
        Ok(())
    }

    /// The answer of so many windows.
    pub(super) fn answer(
        &mut self,
        windows: usize,
    ) -> Result<(Outcome, Option<Recorded>), InferError> {
        let outcome = match self.bundle.decoder() {
            Decoder::Tensors => self.tensors()?,
            decoder if !decoder.is_pooled() => self.whole()?,
            decoder if windows > 1 => {
                decoder.outcome(&self.bundle.windows().pool.pool(&self.rows, self.row.len()))
            }
            decoder => decoder.outcome(&self.row),
        };
        let step_ms = self.fronts.window_ms();
        let recorded = (windows > 1 || step_ms.is_some()).then(|| Recorded {
            windows,
            step_ms,
            spans: spans(self.bundle.decoder(), &self.rows, self.row.len()),
            rows: self.rows.clone(),
            width: self.row.len(),
        });
        Ok((outcome, recorded))
    }

    /// The answer that is made of all outputs at once.
    fn whole(&mut self) -> Result<Outcome, InferError> {
        let results = self.bundle.results();
        self.all.resize_with(results.len(), Vec::new);
        for ((output, tensor), numbers) in results.iter().zip(&self.outputs).zip(&mut self.all) {
            output.form.numbers(tensor, numbers);
        }
        let views = results.iter().zip(&self.all);
        let views: Vec<View<'_>> =
            views.map(|(output, values)| View { values, shape: &output.shape }).collect();
        let placement = self.fronts.placement();
        let outcome = self.bundle.decoder().whole(&views, placement.as_ref())?;
        Ok(outcome.unwrap_or(Outcome::Tensors(Vec::new())))
    }

    fn tensors(&self) -> Result<Outcome, InferError> {
        let outputs = self.bundle.results().iter().zip(&self.outputs);
        let named = outputs.map(|(out, tensor)| match not_finite(tensor) {
            Some(value) => {
                let (label, value) = (out.name.clone(), value.to_string());
                Err(OutputError::NotFinite { label, value }.into())
            }
            None => Ok((out.name.clone(), tensor.clone())),
        });
        Ok(Outcome::Tensors(named.collect::<Result<_, InferError>>()?))
    }
}

/// The first element that is infinite or not a number.
fn not_finite(tensor: &Tensor) -> Option<f64> {
    match tensor.elements() {
        Elements::F16(values) => values.iter().map(|x| x.to_f64()).find(|x| !x.is_finite()),
        Elements::F32(values) => values.iter().map(|x| f64::from(*x)).find(|x| !x.is_finite()),
        Elements::F64(values) => values.iter().copied().find(|x| !x.is_finite()),
        _ => None,
    }
}
