//! A recording's samples in windows, each with some of those before it.
//!
//! **Invariant:** every sample of the recording lies in a window; what is outside of it counts as 0.

use super::resample::Resampler;
use super::wav::{AudioError, Recording};
use crate::bundle::WaveFront;

/// The front end of a bundle that takes samples as they are, with its buffers.
pub struct WavePipeline {
    front: WaveFront,
    resampler: Resampler,
    samples: Vec<f32>,
}

impl WavePipeline {
    /// Makes the plans for a bundle's numbers.
    pub fn new(front: &WaveFront) -> Self {
        let resampler = Resampler::new(front.sample_rate_hz);
        Self { front: front.clone(), resampler, samples: Vec::new() }
    }

    /// Takes a recording, and tells how many windows it has: one at least.
    ///
    /// # Errors
    /// The recording cannot be resampled.
    pub fn take(&mut self, recording: &Recording) -> Result<usize, AudioError> {
        let samples = self.resampler.run(recording)?;
        self.samples.clear();
        self.samples.extend_from_slice(samples);
        let more = self.samples.len().saturating_sub(self.front.window_samples);
        Ok(1 + more.div_ceil(self.front.step_samples))
    }

    /// The samples of a window, those of its context first.
    pub fn window(&self, at: usize, out: &mut [f32]) {
        let (before, start) = (self.front.context_samples, at * self.front.step_samples);
        // Where the first that is wanted would stand if zeros lay before the recording.
        for (place, sample) in out.iter_mut().enumerate() {
            let wanted = (start + place).checked_sub(before);
            *sample = wanted.and_then(|at| self.samples.get(at)).copied().unwrap_or(0.0);
        }
    }
}
