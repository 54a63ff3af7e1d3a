//! What an answer is: the bundle's kind, and what the first output needs for it.
//!
//! **Invariant:** a decoder exists only when the outputs have what it reads.

use super::input::{Front, Input, per};
use super::output::Output;
use super::section::Section;
use super::series::number_or;
use super::{detection, whole};
use crate::outputs::{
    Classification, Decoder, Difference, Meaning, MultiLabel, Pool, Reconstruction, Regression,
};

/// The kinds, by their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Classification,
    MultiLabel,
    Regression,
    Embedding,
    Reconstruction,
    Tensor,
    Detection,
    Segmentation,
    Ctc,
}

impl Kind {
    /// By the names in `bundle.toml`.
    pub(super) const ALL: [(&'static str, Self); 9] = [
        ("classification", Self::Classification),
        ("multi-label", Self::MultiLabel),
        ("regression", Self::Regression),
        ("embedding", Self::Embedding),
        ("reconstruction", Self::Reconstruction),
        ("tensor", Self::Tensor),
        ("detection", Self::Detection),
        ("segmentation", Self::Segmentation),
        ("ctc", Self::Ctc),
    ];

    /// The table that has the keys of a kind that is made of whole tensors.
    pub(super) fn table(self) -> Option<&'static str> {
        match self {
            Self::Detection => Some("detection"),
            Self::Segmentation => Some("segmentation"),
            Self::Ctc => Some("ctc"),
            _ => None,
        }
    }
}

/// How the windows of one recording become one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// What becomes of the numbers.
    pub pool: Pool,
}

/// Reads the kind's keys in the section of the first output. The labels are given even when something
/// else in it is wrong, so that the samples can be checked against them.
pub(super) fn read(
    kind: Kind,
    section: &Section<'_>,
    output: Option<&Output>,
) -> (Option<Decoder>, Option<Vec<String>>) {
    let size = output.map(Output::size);
    match kind {
        Kind::Classification => {
            let (meaning, labels, temperature) = named(section, size);
            let threshold = section.number("threshold", 0.0..=1.0);
            let step = output.and_then(|output| output.form.scale).map_or(0.0, |s| s.scale);
            let decoder = labels.clone().and_then(|labels| {
                let (meaning, temperature) = (meaning?, temperature?);
                let threshold = threshold?;
                Some(Classification { meaning, labels, temperature, threshold, step })
            });
            (decoder.map(Decoder::Classification), labels)
        }
        Kind::MultiLabel => {
            let (meaning, labels, temperature) = named(section, size);
            let threshold = section.number("threshold", 0.0..=1.0);
            let set_from = number_or(section, "set_from", 0.5, 0.01..=0.99);
            let release = number_or(section, "release", set_from.unwrap_or(0.5), 0.0..=0.99);
            if let (Some(release), Some(set_from)) = (release, set_from)
                && release > set_from
            {
                section.invalid::<()>("release", release, "at most set_from");
            }
            let decoder = labels.clone().and_then(|labels| {
                let (meaning, temperature, set_from) = (meaning?, temperature?, set_from?);
                let (release, threshold) = (release?, threshold?);
                Some(MultiLabel { meaning, labels, temperature, set_from, release, threshold })
            });
            (decoder.map(Decoder::MultiLabel), labels)
        }
        Kind::Regression => {
            let labels = labels(section, size);
            let mean = per(section, "mean", size, "label", 0.0, f32::MIN..=f32::MAX);
            let std = per(section, "std", size, "label", 1.0, f32::MIN..=f32::MAX);
            let decoder = labels.clone().and_then(|labels| {
                Some(Decoder::Regression(Regression { labels, mean: mean?, std: std? }))
            });
            (decoder, labels)
        }
        Kind::Embedding => {
            let forms = [("none", false), ("l2", true)];
            let normalise = section.choice("normalise", &forms);
            (normalise.map(|normalise| Decoder::Embedding { normalise }), None)
        }
        Kind::Reconstruction => {
            let input = section.text("of", 200);
            let errors = [("squared", Difference::Squared), ("absolute", Difference::Absolute)];
            let error = section.choice("error", &errors);
            let threshold = section.number("threshold", 0.0..=f32::MAX);
            let labels = vec!["normal".to_owned(), "anomaly".to_owned()];
            let decoder = || {
                let (input, error, threshold) = (input?, error?, threshold?);
                Some(Decoder::Reconstruction(Reconstruction { input, error, threshold }))
            };
            (decoder(), Some(labels))
        }
        Kind::Tensor => (Some(Decoder::Tensors), None),
        Kind::Detection | Kind::Segmentation | Kind::Ctc => (None, None),
    }
}

/// Reads the table of a kind that is made of whole tensors.
pub(super) fn read_whole(
    kind: Kind,
    table: Section<'_>,
    inputs: &[Input],
    outputs: &[Output],
) -> (Option<Decoder>, Option<Vec<String>>) {
    let mut sent = inputs.iter().filter(|input| !input.is_constant());
    let is_picture = matches!(sent.next().map(|input| &input.front), Some(Front::Image(_)));
    if kind != Kind::Ctc && !(is_picture && sent.next().is_none()) {
        table.missing_input("one [[input]] with [input.image], beside constants");
    }
    match kind {
        Kind::Detection => {
            let (detector, labels) = detection::read(table, inputs, outputs);
            (detector.map(Decoder::Detection), labels)
        }
        Kind::Segmentation => {
            let (segmenter, labels) = whole::segmentation(table);
            (segmenter.map(Decoder::Segmentation), labels)
        }
        _ => (whole::ctc(table).map(Decoder::Ctc), None),
    }
}

/// The meaning, the labels and the temperature of values that are probabilities or become them.
fn named(
    section: &Section<'_>,
    size: Option<usize>,
) -> (Option<Meaning>, Option<Vec<String>>, Option<f32>) {
    let meaning = section.choice(
        "meaning",
        &[("logits", Meaning::Logits), ("probabilities", Meaning::Probabilities)],
    );
    let labels = labels(section, size);
    (meaning, labels, number_or(section, "temperature", 1.0, 0.01..=100.0))
}

/// Labels that differ, one for each of `size` values.
fn labels(section: &Section<'_>, size: Option<usize>) -> Option<Vec<String>> {
    let labels = section.texts("labels", 100_000)?;
    if let Some(size) = size.filter(|size| *size != labels.len()) {
        let want = format!("one label for each of the {size} values of the shape");
        section.invalid::<()>("labels", format!("{} labels", labels.len()), &want);
    }
    let mut seen = std::collections::BTreeSet::new();
    for label in labels.iter().filter(|label| !seen.insert(label.as_str())) {
        section.invalid::<()>("labels", format!("\"{label}\" twice"), "labels that differ");
    }
    Some(labels)
}

/// Reads `[windows]`; without it answers are pooled as suits the kind.
pub(super) fn windows(section: Option<Section<'_>>, kind: Option<Kind>) -> Option<Windows> {
    let Some(section) = section else {
        let pool = if kind == Some(Kind::MultiLabel) { Pool::Max } else { Pool::Mean };
        return Some(Windows { pool });
    };
    let pools = [("mean", Pool::Mean), ("max", Pool::Max), ("last", Pool::Last)];
    let pool = section.choice("pool", &pools);
    section.finish();
    Some(Windows { pool: pool? })
}

/// What a decoder needs of the inputs.
pub(super) fn check_inputs(
    decoder: &Decoder,
    section: &str,
    inputs: &[Input],
    size: usize,
    faults: &super::section::Faults,
) {
    let Decoder::Reconstruction(reconstruction) = decoder else { return };
    let input = inputs.iter().find(|input| input.name == reconstruction.input);
    let is_right = input
        .is_some_and(|input| input.size() == size && !matches!(input.front, Front::Constant(_)));
    if !is_right {
        let want =
            format!("the name of an [[input]] of {size} elements, as many as the output has");
        faults.invalid(format!("{section}.of"), format!("\"{}\"", reconstruction.input), &want);
    }
}
