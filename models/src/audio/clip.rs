//! Takes the bundle's clip from a recording: which part, at what level, padded to its length.
//!
//! **Invariant:** the clip has exactly `clip_samples` samples, all finite.

use crate::bundle::{AudioFront, Fit, Normalise};

/// Writes the clip of `samples`, which are at the bundle's rate, to `clip`.
pub(super) fn fit(samples: &[f32], front: &AudioFront, clip: &mut Vec<f32>) {
    let want = front.clip_samples;
    let start = match front.fit {
        Fit::Loudest if samples.len() > want => loudest(samples, want),
        Fit::Start | Fit::Loudest => 0,
    };
    let taken = &samples[start..samples.len().min(start + want)];
    clip.clear();
    match level(taken, front.normalise) {
        Some(by) => clip.extend(taken.iter().map(|x| x / by)),
        None => clip.resize(taken.len(), 0.0),
    }
    clip.resize(want, 0.0);
}

/// What the samples are divided by; nothing when the clip counts as silent.
fn level(samples: &[f32], normalise: Normalise) -> Option<f32> {
    let by = match normalise {
        Normalise::None => return Some(1.0),
        Normalise::Max => samples.iter().copied().fold(0.0, f32::max),
        Normalise::Peak => samples.iter().fold(0.0, |max, x| x.abs().max(max)),
    };
    // Below the smallest normal number a quotient could overflow.
    (by >= f32::MIN_POSITIVE * MAX_GAIN).then_some(by)
}

/// Keeps the quotient of two samples of one clip finite.
const MAX_GAIN: f32 = 65_536.0;

/// Where the window of `want` samples with the most energy starts, the first of equal ones.
fn loudest(samples: &[f32], want: usize) -> usize {
    let square = |x: &f32| f64::from(*x) * f64::from(*x);
    let mut energy: f64 = samples[..want].iter().map(square).sum();
    let (mut best, mut start) = (energy, 0);
    for (i, (out, entering)) in samples.iter().zip(&samples[want..]).enumerate() {
        energy += square(entering) - square(out);
        // A relative margin, so that rounding in the running sum does not move the window.
        if energy > best * (1.0 + 1e-9) {
            (best, start) = (energy, i + 1);
        }
    }
    start
}
