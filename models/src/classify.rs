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
pub(crate) fn classify(values: &[f32], output: &Output) -> Result<Vec<Class>, ClassifyError> {
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
            // An int8 graph gives steps of 1/256, so the sum is not exact.
            if (sum - 1.0).abs() > 0.05 || values.iter().any(|p| *p < -0.01) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Dtype;
    use proptest::prelude::*;

    fn output(count: usize, meaning: Meaning, temperature: f32) -> Output {
        Output {
            name: "y".to_owned(),
            dtype: Dtype::F32,
            shape: vec![1, count],
            meaning,
            labels: (0..count).map(|i| format!("l{i}")).collect(),
            temperature,
            threshold: 0.5,
        }
    }

    #[test]
    fn temperature_softens() {
        let values = [2.0, 0.0, 1.0];
        let top = |t| classify(&values, &output(3, Meaning::Logits, t)).unwrap()[0].clone();
        assert_eq!(top(1.0).label, "l0");
        assert!((top(1.0).confidence - 0.665_240_97).abs() < 1e-6);
        assert!((top(2.0).confidence - 0.506_480_4).abs() < 1e-6);
    }

    #[test]
    fn probabilities_stay_as_they_are_at_temperature_one() {
        let classes =
            classify(&[0.1, 0.0, 0.9], &output(3, Meaning::Probabilities, 1.0)).unwrap();
        let got: Vec<_> = classes.iter().map(|c| (&*c.label, c.confidence)).collect();
        assert_eq!(got.iter().map(|g| g.0).collect::<Vec<_>>(), ["l2", "l0", "l1"]);
        assert!((got[0].1 - 0.9).abs() < 1e-6 && (got[1].1 - 0.1).abs() < 1e-6 && got[2].1 < 1e-6);
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let not_finite = |v: f32| {
            let got = classify(&[0.0, v], &output(2, Meaning::Logits, 1.0));
            matches!(got, Err(ClassifyError::NotFinite { label, .. }) if label == "l1")
        };
        assert!(not_finite(f32::NAN) && not_finite(f32::INFINITY) && not_finite(-f32::INFINITY));
        let probabilities = output(2, Meaning::Probabilities, 1.0);
        assert_eq!(classify(&[3.0, 1.0], &probabilities), Err(ClassifyError::NotProbabilities(4.0)));
        let count = ClassifyError::Count { want: 2, got: 1 };
        assert_eq!(classify(&[1.0], &probabilities), Err(count));
    }

    proptest! {
        #[test]
        fn confidences_sum_to_one_and_are_sorted(
            values in prop::collection::vec(-1e30f32..1e30, 1..40), temperature in 0.01f32..100.0,
        ) {
            let classes =
                classify(&values, &output(values.len(), Meaning::Logits, temperature)).unwrap();
            let sum: f32 = classes.iter().map(|c| c.confidence).sum();
            prop_assert!((sum - 1.0).abs() < 1e-4);
            prop_assert!(classes.windows(2).all(|w| w[0].confidence >= w[1].confidence));
        }
    }
}
