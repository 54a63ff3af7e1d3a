//! The values of an output tensor as classes with calibrated confidence.
//!
//! **Invariant:** confidences are finite, lie in 0..=1, sum to 1 and come highest first.

use crate::bundle::{Meaning, Output};

/// One class and how sure the model is of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Class {
    /// The label.
    pub label: String,
    /// 0..=1, after the bundle's temperature.
    pub confidence: f32,
}

/// Why values are no classes.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ClassifyError {
    /// A value is infinite or not a number.
    #[error("the model gave {value} for {label}: the answer is not usable, use another variant")]
    NotFinite {
        /// The label of the value.
        label: String,
        /// The value as text.
        value: String,
    },
    /// The values are said to be probabilities and are not.
    #[error("the model's probabilities sum to {0}: must be 1, the bundle's meaning is wrong")]
    NotProbabilities(f32),
    /// There are not as many values as labels.
    #[error("the model gave {got} values for {want} labels")]
    Count {
        /// Number of labels.
        want: usize,
        /// Number of values.
        got: usize,
    },
}

/// Sorts the classes of one output; equal ones keep the bundle's order.
///
/// # Errors
/// The values are not finite, not as many as the labels, or not what the bundle says they are.
pub fn classify(values: &[f32], output: &Output) -> Result<Vec<Class>, ClassifyError> {
    if values.len() != output.labels.len() {
        return Err(ClassifyError::Count { want: output.labels.len(), got: values.len() });
    }
    if let Some((value, label)) = values.iter().zip(&output.labels).find(|(v, _)| !v.is_finite()) {
        return Err(ClassifyError::NotFinite { label: label.clone(), value: value.to_string() });
    }
    let logits: Vec<f32> = match output.meaning {
        Meaning::Logits => values.to_vec(),
        Meaning::Probabilities => {
            let sum: f32 = values.iter().sum();
            // A quantised graph gives whole steps, so the sum is not exact: by half a step for each.
            let step = output.form.scale.map_or(0.0, |scale| scale.scale);
            #[allow(clippy::cast_precision_loss, reason = "a number of labels")]
            let slack = (step * values.len() as f32 / 2.0).clamp(0.05, 0.5);
            if (sum - 1.0).abs() > slack || values.iter().any(|p| *p < -0.01) {
                return Err(ClassifyError::NotProbabilities(sum));
            }
            values.iter().map(|p| p.max(f32::MIN_POSITIVE).ln()).collect()
        }
    };
    let confidences = softmax(&logits, output.temperature);
    let mut classes: Vec<Class> = output
        .labels
        .iter()
        .zip(confidences)
        .map(|(label, confidence)| Class { label: label.clone(), confidence })
        .collect();
    classes.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    Ok(classes)
}

fn softmax(logits: &[f32], temperature: f32) -> Vec<f32> {
    let highest = logits.iter().copied().fold(f32::MIN, f32::max);
    let scaled = |x: &f32| ((f64::from(*x) - f64::from(highest)) / f64::from(temperature)).exp();
    let powers: Vec<f64> = logits.iter().map(scaled).collect();
    let sum: f64 = powers.iter().sum();
    #[allow(clippy::cast_possible_truncation, reason = "a confidence needs no more than an f32")]
    powers.into_iter().map(|p| (p / sum) as f32).collect()
}
