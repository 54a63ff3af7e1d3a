//! The values of an output tensor as labels that hold or do not, each for itself.
//!
//! **Invariant:** a label is set if and only if its probability reaches `set_from`.

use super::classification::Meaning;
use super::probability::sigmoid;
use super::{OutputError, finite};

/// How values become labels of which any number can hold.
#[derive(Debug, Clone, PartialEq)]
pub struct MultiLabel {
    /// What the values are.
    pub meaning: Meaning,
    /// The label of each value.
    pub labels: Vec<String>,
    /// Divides the logits before the sigmoid.
    pub temperature: f32,
    /// A label holds from this probability on, above 0 and below 1.
    pub set_from: f32,
    /// Over several windows: a label that holds does so until its probability is below this.
    pub release: f32,
    /// When the least sure label is less sure than this, the answer is not good enough.
    pub threshold: f32,
}

/// A label and how likely it holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Label {
    /// The label.
    pub label: String,
    /// 0..=1.
    pub probability: f32,
    /// Whether it holds.
    pub is_set: bool,
}

impl MultiLabel {
    /// The probability of each label, in the bundle's order; `out` is replaced.
    ///
    /// # Errors
    /// The values are not finite, not as many as the labels, or no probabilities where they should be.
    pub fn probabilities(&self, values: &[f32], out: &mut Vec<f32>) -> Result<(), OutputError> {
        finite(values, &self.labels)?;
        out.clear();
        for (value, label) in values.iter().zip(&self.labels) {
            out.push(match self.meaning {
                Meaning::Logits => sigmoid(value / self.temperature),
                Meaning::Probabilities if (-0.01..=1.01).contains(value) => value.clamp(0.0, 1.0),
                Meaning::Probabilities => {
                    return Err(OutputError::NotProbability {
                        label: label.clone(),
                        value: *value,
                    });
                }
            });
        }
        Ok(())
    }

    /// The labels of these probabilities, in the bundle's order.
    pub fn labels(&self, probabilities: &[f32]) -> Vec<Label> {
        let pairs = self.labels.iter().zip(probabilities);
        pairs
            .map(|(label, probability)| Label {
                label: label.clone(),
                probability: *probability,
                is_set: *probability >= self.set_from,
            })
            .collect()
    }

    /// How sure it is whether a label holds: 0.5 at `set_from`, 1 where the probability is 0 or 1.
    pub fn sureness(&self, probability: f32) -> f32 {
        let share = match probability >= self.set_from {
            true => (probability - self.set_from) / (1.0 - self.set_from),
            false => (self.set_from - probability) / self.set_from,
        };
        0.5 + share / 2.0
    }

    /// How sure the least sure label is.
    pub fn confidence(&self, probabilities: &[f32]) -> f32 {
        probabilities.iter().map(|p| self.sureness(*p)).fold(1.0, f32::min)
    }
}
