//! Owns the tensors of several requests while the graph is run once for all of them.
//!
//! **Invariant:** rows stand in the order of who asked, so each gets those that were made of its own; one
//! batch after the other is in the same memory.

use std::ops::Range;

use crate::bundle::Bundle;
use crate::runtime::{RuntimeError, Session, TensorSpec};
use crate::tensor::Tensor;

/// What a graph takes and gives for all who are in a batch.
pub(super) struct Batch {
    runtime: &'static str,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
}

impl Batch {
    /// Room for batches of a bundle, which `runtime` runs; it holds no memory before the first.
    pub(super) fn new(bundle: &Bundle, runtime: &'static str) -> Self {
        let empty = |specs: &[TensorSpec]| -> Vec<Tensor> {
            specs.iter().map(|spec| Tensor::zeros(&[0], spec.dtype)).collect()
        };
        Self { runtime, inputs: empty(bundle.inputs()), outputs: empty(bundle.outputs()) }
    }

    /// Runs the graph once for all of `asks`, each of which has the bundle's inputs in their order.
    ///
    /// # Errors
    /// Their inputs do not go together, or the runtime fails.
    pub(super) fn run<'a>(
        &mut self,
        session: &mut dyn Session,
        asks: impl Iterator<Item = &'a [Tensor]> + Clone,
    ) -> Result<(), RuntimeError> {
        for (at, stacked) in self.inputs.iter_mut().enumerate() {
            let parts: Option<Vec<&Tensor>> =
                asks.clone().map(|inputs: &[Tensor]| inputs.get(at)).collect();
            let is_stacked = parts.is_some_and(|parts| stacked.stack(&parts).is_ok());
            if !is_stacked {
                return Err(self.failed("its inputs do not go together"));
            }
        }
        session.run(&self.inputs, &mut self.outputs)
    }

    /// Some rows of all outputs, as tensors of their own.
    ///
    /// # Errors
    /// An output does not have them.
    pub(super) fn rows(&self, rows: &Range<usize>) -> Result<Vec<Tensor>, RuntimeError> {
        let outputs = self.outputs.iter().map(|output| output.rows(rows.clone()));
        outputs.collect::<Option<_>>().ok_or_else(|| self.too_few())
    }

    /// The same in the memory of `outputs`.
    ///
    /// # Errors
    /// As there.
    pub(super) fn rows_into(
        &self,
        rows: &Range<usize>,
        outputs: &mut [Tensor],
    ) -> Result<(), RuntimeError> {
        let mut pairs = self.outputs.iter().zip(outputs);
        let given = pairs.try_for_each(|(all, own)| all.rows_into(rows.clone(), own));
        given.ok_or_else(|| self.too_few())
    }

    fn too_few(&self) -> RuntimeError {
        self.failed("it gave too few rows")
    }

    fn failed(&self, why: &str) -> RuntimeError {
        RuntimeError::Failed { runtime: self.runtime, why: why.to_owned() }
    }
}
