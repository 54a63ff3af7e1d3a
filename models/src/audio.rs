//! A recording's way to the tensor that a graph takes.
//!
//! Owns the plans (resampler, window, Fourier transform, mel matrix) of one bundle, built once.
//!
//! **Invariant:** the features depend on the recording and the bundle's numbers alone: the same
//! bytes give the same tensor, whatever was processed before.

mod clip;
mod features;
mod resample;
mod spectrum;
mod wav;
mod wave;

use crate::bundle::AudioFront;

pub use wav::{AudioError, MAX_SECONDS, Recording};
pub use wave::WavePipeline;

use features::MelPlan;
use resample::Resampler;
use spectrum::SpectrumPlan;

/// The audio front end of one bundle, with its plans and buffers.
pub struct AudioPipeline {
    front: AudioFront,
    resampler: Resampler,
    spectrum: SpectrumPlan,
    mel: MelPlan,
    clip: Vec<f32>,
    bins: Vec<f32>,
}

impl AudioPipeline {
    /// Makes the plans for a bundle's numbers.
    pub fn new(front: &AudioFront) -> Self {
        Self {
            resampler: Resampler::new(front.sample_rate_hz),
            spectrum: SpectrumPlan::new(front.frame_samples, front.fft, front.spectrum),
            mel: MelPlan::new(front),
            clip: Vec::with_capacity(front.clip_samples),
            bins: vec![0.0; front.fft / 2 + 1],
            front: front.clone(),
        }
    }

    /// Decodes a WAV file to mono at its own rate.
    ///
    /// # Errors
    /// The file is not one that this front end takes; the reason says which and what it takes.
    pub fn decode(bytes: &[u8]) -> Result<Recording, AudioError> {
        wav::decode(bytes)
    }

    /// The bundle's clip of a recording: its rate, its length, its level.
    ///
    /// # Errors
    /// The recording cannot be resampled.
    pub fn clip(&mut self, recording: &Recording) -> Result<&[f32], AudioError> {
        let samples = self.resampler.run(recording)?;
        clip::fit(samples, &self.front, &mut self.clip);
        Ok(&self.clip)
    }

    /// The features of the clip that `clip` made last, `[frames, columns]`, row by row. `out` has
    /// room for exactly those.
    pub fn features(&mut self, out: &mut [f32]) {
        let frames = self.clip.windows(self.front.frame_samples).step_by(self.front.step_samples);
        for (frame, row) in frames.zip(out.chunks_exact_mut(self.front.columns())) {
            self.spectrum.run(frame, &mut self.bins);
            self.mel.run(&self.bins, row);
        }
    }

    /// The spectrum of the clip that `clip` made last, `[frames, fft / 2 + 1]`, row by row; a step
    /// on the way to the features, for those who compare with a reference.
    pub fn spectra(&mut self) -> Vec<f32> {
        let mut all = Vec::new();
        for frame in self.clip.windows(self.front.frame_samples).step_by(self.front.step_samples) {
            self.spectrum.run(frame, &mut self.bins);
            all.extend_from_slice(&self.bins);
        }
        all
    }

    /// The weight of each bin in each band, `[fft / 2 + 1, bands]`, row by row.
    pub fn mel_matrix(&self) -> Vec<f32> {
        self.mel.matrix()
    }
}
