//! Values of an output tensor as classes.

use holdfast_models::OutputError;
use holdfast_models::outputs::{Class, Classification, Meaning};
use proptest::prelude::*;

fn output(count: usize, meaning: Meaning, temperature: f32) -> Classification {
    Classification {
        meaning,
        labels: (0..count).map(|i| format!("l{i}")).collect(),
        temperature,
        threshold: 0.5,
        step: 0.0,
    }
}

fn classify(values: &[f32], output: &Classification) -> Result<Vec<Class>, OutputError> {
    let mut confidences = vec![7.0];
    output.confidences(values, &mut confidences)?;
    Ok(output.classes(&confidences))
}

#[test]
fn temperature_softens() {
    let values = [2.0, 0.0, 1.0];
    let top = |t| classify(&values, &output(3, Meaning::Logits, t)).unwrap()[0].clone();
    assert_eq!(top(1.0).label, "l0");
    assert!((top(1.0).confidence - 0.665_241).abs() < 1e-6);
    assert!((top(2.0).confidence - 0.506_480).abs() < 1e-6);
}

#[test]
fn probabilities_stay_as_they_are_at_temperature_one() {
    let classes = classify(&[0.1, 0.0, 0.9], &output(3, Meaning::Probabilities, 1.0)).unwrap();
    let labels: Vec<&str> = classes.iter().map(|c| c.label.as_str()).collect();
    assert_eq!(labels, ["l2", "l0", "l1"]);
    for (class, want) in classes.iter().zip([0.9, 0.1, 0.0]) {
        assert!((class.confidence - want).abs() < 1e-6);
    }
}

#[test]
fn equal_classes_keep_the_bundles_order() {
    let classes = classify(&[1.0; 4], &output(4, Meaning::Logits, 1.0)).unwrap();
    let labels: Vec<&str> = classes.iter().map(|c| c.label.as_str()).collect();
    assert_eq!(labels, ["l0", "l1", "l2", "l3"]);
}

#[test]
fn what_is_no_answer_is_refused() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let got = classify(&[0.0, value], &output(2, Meaning::Logits, 1.0));
        let is_named = matches!(&got, Err(OutputError::NotFinite { label, .. }) if label == "l1");
        assert!(is_named, "{got:?}");
    }
    let probabilities = output(2, Meaning::Probabilities, 1.0);
    for (values, want) in [
        (&[3.0, 1.0][..], OutputError::NotProbabilities(4.0)),
        (&[1.5, -0.5], OutputError::NotProbabilities(1.0)),
        (&[1.0], OutputError::Count { want: 2, got: 1 }),
    ] {
        assert_eq!(classify(values, &probabilities), Err(want));
    }
}

proptest! {
    #[test]
    fn confidences_sum_to_one_and_are_sorted(
        values in prop::collection::vec(-1e30f32..1e30, 1..40), temperature in 0.01f32..100.0,
    ) {
        let output = output(values.len(), Meaning::Logits, temperature);
        let classes = classify(&values, &output).unwrap();
        let sum: f32 = classes.iter().map(|c| c.confidence).sum();
        prop_assert!((sum - 1.0).abs() < 1e-4);
        prop_assert!(classes.windows(2).all(|w| w[0].confidence >= w[1].confidence));
    }
}
