//! The values of an output tensor as classes with calibrated confidence.
//!
//! **Invariant:** confidences are finite, lie in 0..=1, sum to 1 and come highest first.

use super::probability::Softmax;
use super::{OutputError, finite};

/// How values become classes of which one is right.
#[derive(Debug, Clone, PartialEq)]
pub struct Classification {
    /// What the values are.
    pub meaning: Meaning,
    /// The label of each value.
    pub labels: Vec<String>,
    /// Divides the logits before the softmax, so that confidence means what it says.
    pub temperature: f32,
    /// A top confidence below this is not good enough.
    pub threshold: f32,
    /// The difference between two neighbouring values of a quantised tensor, else 0.
    pub step: f32,
}

/// What the values of an output are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Unnormalised; a softmax, or a sigmoid for each label, makes them probabilities.
    Logits,
    /// Already normalised.
    Probabilities,
}

/// One class and how sure the model is of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Class {
    /// The label.
    pub label: String,
    /// 0..=1, after the bundle's temperature.
    pub confidence: f32,
}

impl Classification {
    /// The confidence of each label, in the bundle's order; `out` is replaced.
    ///
    /// # Errors
    /// The values are not finite, not as many as the labels, or not what the bundle says they are.
    pub fn confidences(&self, values: &[f32], out: &mut Vec<f32>) -> Result<(), OutputError> {
        finite(values, &self.labels)?;
        out.clear();
        match self.meaning {
            Meaning::Logits => out.extend_from_slice(values),
            Meaning::Probabilities => {
                let sum: f32 = values.iter().sum();
                // A quantised graph gives whole steps, so the sum is not exact: by half a step for
                // each.
                #[allow(clippy::cast_precision_loss, reason = "a number of labels")]
                let slack = (self.step * values.len() as f32 / 2.0).clamp(0.05, 0.5);
                if (sum - 1.0).abs() > slack || values.iter().any(|p| *p < -0.01) {
                    return Err(OutputError::NotProbabilities(sum));
                }
                let positive = values.iter().map(|p| p.max(f32::MIN_POSITIVE));
                // At this temperature the softmax of their logarithms is what they are, shared out anew.
                if self.temperature == 1.0 {
                    let sum: f32 = positive.clone().sum();
                    out.extend(positive.map(|p| p / sum));
                    return Ok(());
                }
                out.extend(positive.map(f32::ln));
            }
        }
        let softmax = Softmax::of(out, self.temperature);
        out.iter_mut().for_each(|value| *value = softmax.share(*value));
        Ok(())
    }

    /// The classes of these confidences, highest first; equal ones keep the bundle's order.
    pub fn classes(&self, confidences: &[f32]) -> Vec<Class> {
        let pairs = self.labels.iter().zip(confidences);
        let mut classes: Vec<Class> = pairs
            .map(|(label, confidence)| Class { label: label.clone(), confidence: *confidence })
            .collect();
        classes.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
        classes
    }
}
