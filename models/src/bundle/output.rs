//! What a graph gives: the tensor, its labels and how sure a value must be.
//!
//! **Invariant:** the tensor has one element for each label.

use super::input::{form, shape};
use super::section::{Section, number};
use crate::quantisation::Form;

/// The output of a classifier.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// The tensor's name in the graph.
    pub name: String,
    /// Its element type, and what its integers stand for.
    pub form: Form,
    /// Its shape, batch 1 first.
    pub shape: Vec<usize>,
    /// What its values are.
    pub meaning: Meaning,
    /// The label of each value.
    pub labels: Vec<String>,
    /// Divides the logits before the softmax, so that confidence means what it says.
    pub temperature: f32,
    /// A top confidence below this is not good enough.
    pub threshold: f32,
}

/// What the values of an output are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Unnormalised; a softmax makes them probabilities.
    Logits,
    /// Already normalised.
    Probabilities,
}

/// Reads the section. The labels are given even when something else in it is wrong, so that the
/// samples can be checked against them.
pub(super) fn read(section: Section<'_>) -> (Option<Output>, Option<Vec<String>>) {
    let name = section.text("name", 200);
    let form = form(&section);
    let shape = shape(&section);
    let meaning = section.choice(
        "meaning",
        &[("logits", Meaning::Logits), ("probabilities", Meaning::Probabilities)],
    );
    let labels = section.texts("labels", 100_000);
    let in_range = "a number 0.01..=100";
    let temperature = section
        .or("temperature", 1.0, in_range, |v| number(v).filter(|t| (0.01..=100.0).contains(t)));
    let threshold = section.number("threshold", 0.0..=1.0);
    if let (Some(shape), Some(labels)) = (&shape, &labels) {
        let size: usize = shape.iter().product();
        if size != labels.len() {
            let want = format!("one label for each of the {size} values of the shape {shape:?}");
            section.invalid::<()>("labels", format!("{} labels", labels.len()), &want);
        }
    }
    if let Some(labels) = &labels {
        let mut seen = std::collections::BTreeSet::new();
        for label in labels.iter().filter(|label| !seen.insert(label.as_str())) {
            section.invalid::<()>("labels", format!("\"{label}\" twice"), "labels that differ");
        }
    }
    section.finish();
    let output = |labels| {
        Some(Output {
            name: name?,
            form: form?,
            shape: shape?,
            meaning: meaning?,
            labels,
            temperature: temperature?,
            threshold: threshold?,
        })
    };
    (labels.clone().and_then(output), labels)
}
