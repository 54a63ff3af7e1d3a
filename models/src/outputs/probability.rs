//! Scores as probabilities: the one place of the functions that make them.
//!
//! **Invariant:** pure; of finite scores come finite numbers, of a softmax such that are 1 together.

use super::view::DecodeError;

/// A probability; rounding in a quantised graph may carry it a little beyond 0..=1.
pub(super) fn probability(score: f32, what: &'static str) -> Result<f32, DecodeError> {
    if !score.is_finite() {
        return Err(DecodeError::NotFinite { what, value: score.to_string() });
    }
    if !(-0.05..=1.05).contains(&score) {
        let allowed = "0..=1, or scores with an activation";
        return Err(DecodeError::OutOfRange { what, value: score.to_string(), allowed });
    }
    Ok(score.clamp(0.0, 1.0))
}

/// 1 / (1 + exp(-x)).
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// exp(x / temperature) / sum(exp(x / temperature)): the highest of the scores, and the sum of the powers
/// below it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Softmax {
    highest: f32,
    temperature: f32,
    sum: f64,
}

impl Softmax {
    pub(super) fn of(scores: &[f32], temperature: f32) -> Self {
        let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let this = Self { highest, temperature, sum: 1.0 };
        Self { sum: scores.iter().map(|x| this.power(*x)).sum(), ..this }
    }

    /// What one of the scores is of all.
    pub(super) fn share(&self, x: f32) -> f32 {
        #[allow(clippy::cast_possible_truncation, reason = "a confidence needs no more than f32")]
        let share = (self.power(x) / self.sum) as f32;
        share
    }

    fn power(&self, x: f32) -> f64 {
        ((f64::from(x) - f64::from(self.highest)) / f64::from(self.temperature)).exp()
    }
}

/// The mean place of a distribution over `count` places, which a softmax makes of their scores.
pub(super) fn mean_place(count: usize, score: impl Fn(usize) -> f32) -> f32 {
    let highest = (0..count).map(&score).fold(f32::NEG_INFINITY, f32::max);
    let (mut sum, mut mean) = (0.0, 0.0);
    for place in 0..count {
        let power = (score(place) - highest).exp();
        sum += power;
        #[allow(clippy::cast_precision_loss, reason = "a few places")]
        let place = place as f32;
        mean += power * place;
    }
    mean / sum
}
