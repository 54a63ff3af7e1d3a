//! A bundle's front end and decoder around a graph that somebody else runs.
//!
//! **Invariant:** what is taken for an answer are the bundle's own outputs, each of its type and shape.

use super::frame::Frame;
use super::{InferError, Inference, Timings};
use crate::bundle::Bundle;
use crate::clock;
use crate::media::Media;
use crate::runtime::check_tensors;
use crate::tensor::Tensor;

/// One request on its way through a graph that runs elsewhere, window by window.
pub struct Relay {
    frame: Frame,
    windows: usize,
    /// The window whose inputs are there.
    at: usize,
    timings: Timings,
}

impl Relay {
    /// Makes the first window's inputs of a body.
    ///
    /// # Errors
    /// The body is refused ([`InferError::Media`]).
    pub fn begin(bundle: &Bundle, media: &Media) -> Result<Self, InferError> {
        let began = clock::now();
        let mut frame = Frame::new(bundle);
        let (decoded, windows) = frame.take(media)?;
        frame.window(0)?;
        let (decode, features) = (decoded - began, clock::now() - decoded);
        let timings = Timings { decode, features, ..Timings::default() };
        Ok(Self { frame, windows, at: 0, timings })
    }

    /// The bundle that it is of.
    pub fn bundle(&self) -> &Bundle {
        &self.frame.bundle
    }

    /// How many times the graph is run for it.
    pub fn windows(&self) -> usize {
        self.windows
    }

    /// What the graph is to be run with next, in the order of [`Bundle::inputs`].
    pub fn inputs(&self) -> &[Tensor] {
        &self.frame.inputs
    }

    /// Takes what the graph gave for the inputs, in the order of [`Bundle::outputs`]; whether the inputs
    /// of a further window are there now.
    ///
    /// # Errors
    /// An output is not of its type and shape ([`InferError::Runtime`]), or no answer.
    pub fn take(&mut self, outputs: Vec<Tensor>) -> Result<bool, InferError> {
        check_tensors(self.frame.bundle.outputs(), &outputs)?;
        let began = clock::now();
        self.frame.outputs = outputs;
        self.frame.given();
        self.frame.decode_window()?;
        self.timings.infer += clock::now() - began;
        self.at += 1;
        let is_next = self.at < self.windows;
        if is_next {
            self.frame.window(self.at)?;
        }
        Ok(is_next)
    }

    /// The answer of the windows that were taken.
    ///
    /// # Errors
    /// What was given is no answer.
    pub fn finish(mut self) -> Result<Inference, InferError> {
        let (outcome, recorded) = self.frame.answer(self.at)?;
        Ok(Inference { outcome, recorded, timings: self.timings })
    }
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay")
            .field("bundle", &self.frame.bundle.name())
            .field("windows", &self.windows)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}
