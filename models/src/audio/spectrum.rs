//! One frame to its spectrum: periodic Hann window, zero padding, real Fourier transform.
//!
//! **Invariant:** the plan's buffers are overwritten whole for each frame.

use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};

use crate::bundle::Spectrum;

/// The transform of one frame length.
pub(super) struct SpectrumPlan {
    window: Vec<f32>,
    fft: Arc<dyn RealToComplex<f32>>,
    input: Vec<f32>,
    output: Vec<Complex<f32>>,
    scratch: Vec<Complex<f32>>,
    spectrum: Spectrum,
}

impl SpectrumPlan {
    pub(super) fn new(frame: usize, points: usize, spectrum: Spectrum) -> Self {
        let fft = RealFftPlanner::new().plan_fft_forward(points);
        Self {
            window: hann(frame),
            input: fft.make_input_vec(),
            output: fft.make_output_vec(),
            scratch: fft.make_scratch_vec(),
            fft,
            spectrum,
        }
    }

    /// Writes the spectrum of `frame` to `bins`, which has `points / 2 + 1` elements.
    pub(super) fn run(&mut self, frame: &[f32], bins: &mut [f32]) {
        let (windowed, padding) = self.input.split_at_mut(self.window.len());
        for ((x, sample), weight) in windowed.iter_mut().zip(frame).zip(&self.window) {
            *x = sample * weight;
        }
        padding.fill(0.0);
        self.fft
            .process_with_scratch(&mut self.input, &mut self.output, &mut self.scratch)
            .expect("the plan made the buffers, and the input is real");
        match self.spectrum {
            Spectrum::Magnitude => {
                for (bin, x) in bins.iter_mut().zip(&self.output) {
                    *bin = x.norm_sqr().sqrt();
                }
            }
            Spectrum::Power => {
                for (bin, x) in bins.iter_mut().zip(&self.output) {
                    *bin = x.norm_sqr();
                }
            }
        }
    }
}

/// w[n] = 0.5 - 0.5 cos(2 pi n / N)
#[allow(clippy::cast_possible_truncation, reason = "computed in f64, used as f32")]
fn hann(len: usize) -> Vec<f32> {
    let turn = std::f64::consts::TAU / len as f64;
    (0..len).map(|n| (0.5 - 0.5 * (turn * n as f64).cos()) as f32).collect()
}
