//! Brings a recording to the bundle's rate.
//!
//! **Invariant:** `n` samples at rate `a` become exactly `ceil(n * b / a)` at rate `b`, aligned
//! with the first, and independent of earlier recordings.

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler as _};

use super::wav::{AudioError, Recording};

/// Output samples of one block of the resampler; long enough for a steep filter.
const BLOCK: usize = 512;

/// Resamples to one rate; keeps the plan for the rate that came last, which seldom changes.
pub(super) struct Resampler {
    rate: u32,
    plan: Option<(u32, Fft<f32>)>,
    out: Vec<f32>,
}

impl Resampler {
    pub(super) fn new(rate: u32) -> Self {
        Self { rate, plan: None, out: Vec::new() }
    }

    /// The recording's samples at this resampler's rate.
    pub(super) fn run<'a>(&'a mut self, recording: &'a Recording) -> Result<&'a [f32], AudioError> {
        let (from, to) = (recording.rate, self.rate);
        if from == to {
            return Ok(&recording.samples);
        }
        let fail = |why: String| AudioError::Resample { rate: from, why };
        if self.plan.as_ref().is_none_or(|(rate, _)| *rate != from) {
            let (from, to) = (from as usize, to as usize);
            let block = (BLOCK * from).div_ceil(to).max(BLOCK);
            let plan = Fft::new_custom(
                from,
                to,
                block,
                1,
                1,
                rubato::WindowFunction::BlackmanHarris2,
                FixedSync::Both,
            );
            self.plan = Some((recording.rate, plan.map_err(|e| fail(e.to_string()))?));
        }
        let Some((_, plan)) = self.plan.as_mut() else { return Err(fail("no plan".to_owned())) };
        plan.reset();
        let len = recording.samples.len();
        self.out.clear();
        self.out.resize(plan.process_all_needed_output_len(len), 0.0);
        let room = self.out.len();
        let input = InterleavedSlice::new(&recording.samples, 1, len);
        let output = InterleavedSlice::new_mut(&mut self.out, 1, room);
        let (input, mut output) =
            (input.map_err(|e| fail(e.to_string()))?, output.map_err(|e| fail(e.to_string()))?);
        plan.process_all_into_buffer(&input, &mut output, len, None)
            .map_err(|e| fail(e.to_string()))?;
        let want = (len as u64 * u64::from(to)).div_ceil(u64::from(from));
        let want = usize::try_from(want).map_err(|e| fail(e.to_string()))?;
        self.out.resize(want, 0.0);
        Ok(&self.out)
    }
}
