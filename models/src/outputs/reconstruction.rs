//! How far what a graph gives back is from what it was given: a score of how unusual that is.
//!
//! **Invariant:** a score is finite and not negative, and an anomaly if and only if it is above the
//! threshold.

use super::OutputError;

/// How the difference becomes a score.
#[derive(Debug, Clone, PartialEq)]
pub struct Reconstruction {
    /// The name of the input that the output is compared with.
    pub input: String,
    /// How differences are put together.
    pub error: Difference,
    /// A score above this is an anomaly.
    pub threshold: f32,
}

/// How differences are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// The mean of their squares.
    Squared,
    /// The mean of their magnitudes.
    Absolute,
}

/// A score, and what it is held against.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Anomaly {
    /// The mean difference, 0 or more.
    pub score: f32,
    /// What the bundle says is still usual.
    pub threshold: f32,
}

impl Anomaly {
    /// Whether the score is above the threshold.
    pub fn is_anomaly(&self) -> bool {
        self.score > self.threshold
    }
}

impl Reconstruction {
    /// The score of what the graph gave back for what it was given.
    ///
    /// # Errors
    /// They are not equally many, or the score is not finite.
    pub fn score(&self, given: &[f32], back: &[f32]) -> Result<f32, OutputError> {
        if given.len() != back.len() || given.is_empty() {
            return Err(OutputError::Count { want: given.len(), got: back.len() });
        }
        let one = |(a, b): (&f32, &f32)| {
            let off = f64::from(*a) - f64::from(*b);
            match self.error {
                Difference::Squared => off * off,
                Difference::Absolute => off.abs(),
            }
        };
        let sum: f64 = given.iter().zip(back).map(one).sum();
        #[allow(clippy::cast_possible_truncation, reason = "a score needs no more than an f32")]
        #[allow(clippy::cast_precision_loss, reason = "a number of elements")]
        let score = (sum / given.len() as f64) as f32;
        if !score.is_finite() {
            let (label, value) = ("the score".to_owned(), score.to_string());
            return Err(OutputError::NotFinite { label, value });
        }
        Ok(score)
    }
}
