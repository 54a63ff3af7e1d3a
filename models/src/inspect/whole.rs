//! What outputs that are no vector probably are: things in a picture, its pixels, a text.
//!
//! **Invariant:** pure; a table has every key that its kind needs, and each that was guessed has a note.

use super::Port;
use super::guess::{Draft, DraftInput, DraftOutput, Hints, Kind, Note, Source, guessed, missing};
use crate::tensor::Dtype;

/// The table of a kind that has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Keys and their values as TOML, without the labels.
    pub lines: Vec<(&'static str, String)>,
    /// How many labels it has.
    pub labels: usize,
    /// The name of the first, where that has a meaning of its own.
    pub first: Option<&'static str>,
}

/// The label of what is no thing.
const BACKGROUND: &str = "background";

impl Draft {
    /// The kind and the table of outputs that are no vector, if they look like one.
    pub(super) fn whole(
        inputs: &[DraftInput],
        outputs: &[(DraftOutput, &Port)],
        hints: &Hints,
        notes: &mut Vec<Note>,
    ) -> Option<(Kind, Table)> {
        let is_float =
            |(out, _): &(DraftOutput, &Port)| matches!(out.dtype, Dtype::F16 | Dtype::F32);
        if !outputs.iter().all(is_float) {
            return None;
        }
        let mut sent = inputs.iter().filter(|i| !matches!(i.source, Source::Constant(_)));
        let is_picture = matches!(sent.next().map(|i| i.source), Some(Source::Image { .. }))
            && sent.next().is_none();
        match outputs {
            [one, other] if is_picture => boxes_and_scores(one, other, hints, notes),
            [(only, port)] => {
                let last = port.made_by.last().map_or("", String::as_str);
                match *only.shape.as_slice() {
                    [1, a, b] if is_picture => list((a, b), &only.name, hints, notes),
                    [1, steps, symbols] if steps > 1 => text(symbols, last, hints, notes),
                    [1, a, b, c] if is_picture => pixels([a, b, c], last, notes),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

/// Places with four numbers each, and as many places with scores.
fn boxes_and_scores(
    one: &(DraftOutput, &Port),
    other: &(DraftOutput, &Port),
    hints: &Hints,
    notes: &mut Vec<Note>,
) -> Option<(Kind, Table)> {
    let places = |output: &DraftOutput, wanted: Option<usize>| match *output.shape.as_slice() {
        [1, places, numbers] if wanted.is_none_or(|wanted| wanted == numbers) => Some(places),
        _ => None,
    };
    let is_pair = |boxes: &DraftOutput, scores: &DraftOutput| {
        places(boxes, Some(4)).is_some_and(|count| count > 8 && Some(count) == places(scores, None))
    };
    let named = |output: &DraftOutput| {
        let name = output.name.to_ascii_lowercase();
        name.contains("box") || name.contains("loc")
    };
    let (boxes, scores) = match (is_pair(&one.0, &other.0), is_pair(&other.0, &one.0)) {
        (true, true) if named(&other.0) => (other, one),
        (true, _) => (one, other),
        (false, true) => (other, one),
        (false, false) => return None,
    };
    let classes = *scores.0.shape.last()?;
    let last = scores.1.made_by.last().map_or("", String::as_str);
    let (way, has_background) = match last {
        "Sigmoid" => ("plain", false),
        "Softmax" => ("plain", classes > 1),
        _ if classes > 1 => ("softmax", true),
        _ => ("sigmoid", false),
    };
    notes.push(guessed("kind", "two outputs that are boxes and their scores: a detector"));
    let mut what =
        "whether boxes are corners or a centre, fractions or pixels, or offsets from priors \
                    (form, unit, priors), and which scores are a thing (score, overlap)"
            .to_owned();
    if has_background {
        what += "; that the first class means nothing (background)";
    }
    notes.push(missing("detection", what));
    let mut lines = vec![
        ("decoder", quoted("ssd")),
        ("outputs", format!("[{}, {}]", name(&boxes.0), name(&scores.0))),
        ("score", "0.5".to_owned()),
        ("overlap", "0.45".to_owned()),
        ("form", quoted("corners")),
        ("unit", quoted("fraction")),
        ("scores", quoted(way)),
    ];
    // Labels may have been given without the background.
    let given = hints.labels.as_ref().map(Vec::len);
    let first = (has_background && given != Some(classes)).then_some(BACKGROUND);
    if has_background {
        let label = match (&hints.labels, first) {
            (Some(labels), None) => labels.first().map_or(BACKGROUND, String::as_str),
            _ => BACKGROUND,
        };
        lines.push(("background", toml::Value::String(label.to_owned()).to_string()));
    }
    Some((Kind::Detection, Table { lines, labels: classes, first }))
}

/// Places with the numbers of a box and its scores, in one tensor.
fn list(
    (a, b): (usize, usize),
    output: &str,
    hints: &Hints,
    notes: &mut Vec<Note>,
) -> Option<(Kind, Table)> {
    let (numbers, is_transposed) = if a < b { (a, true) } else { (b, false) };
    if a.max(b) < 100 || numbers < 5 {
        return None;
    }
    let given = hints.labels.as_ref().map(Vec::len);
    let has_objectness = match given {
        Some(count) if numbers == count + 4 => false,
        Some(count) if numbers == count + 5 => true,
        // As YOLOv5 and YOLOv8 are exported.
        _ => !is_transposed && numbers > 5,
    };
    notes.push(guessed("kind", "a list of boxes with their scores: a detector"));
    let what = "whether boxes are a centre or corners, pixels or fractions (form, unit), whether a \
                number stands before the classes that says if there is anything (objectness), and \
                which scores are a thing (score, overlap)";
    notes.push(missing("detection", what));
    let lines = vec![
        ("decoder", quoted("list")),
        ("outputs", format!("[{}]", toml::Value::String(output.to_owned()))),
        ("score", "0.25".to_owned()),
        ("overlap", "0.45".to_owned()),
        ("form", quoted("centre")),
        ("unit", quoted("pixel")),
        ("transposed", is_transposed.to_string()),
        ("objectness", has_objectness.to_string()),
        ("activation", quoted("none")),
    ];
    let labels = numbers - 4 - usize::from(has_objectness);
    Some((Kind::Detection, Table { lines, labels, first: None }))
}

/// A score for each class of each pixel, or one score a pixel.
fn pixels(dims: [usize; 3], last: &str, notes: &mut Vec<Note>) -> Option<(Kind, Table)> {
    let is_side = |side: usize| side >= 8;
    let (classes, layout) = match dims {
        [classes, rows, columns] if classes < rows && is_side(rows) && is_side(columns) => {
            (classes, "nchw")
        }
        [rows, columns, classes] if classes < rows && is_side(rows) && is_side(columns) => {
            (classes, "nhwc")
        }
        _ => return None,
    };
    let (lines, labels) = if classes == 1 {
        let activation = if last == "Sigmoid" { "none" } else { "sigmoid" };
        notes.push(guessed("kind", "one score a pixel: a segmentation of two classes"));
        let lines = vec![
            ("decoder", quoted("threshold")),
            ("activation", quoted(activation)),
            ("set_from", "0.5".to_owned()),
        ];
        (lines, 2)
    } else {
        notes.push(guessed("kind", "a score for each class of each pixel: a segmentation"));
        (vec![("decoder", quoted("scores")), ("layout", quoted(layout))], classes)
    };
    Some((Kind::Segmentation, Table { lines, labels, first: Some(BACKGROUND) }))
}

/// A score for each symbol at each step; nothing tells it but that there is a name for each.
fn text(symbols: usize, last: &str, hints: &Hints, notes: &mut Vec<Note>) -> Option<(Kind, Table)> {
    let labels = hints.labels.as_ref().filter(|labels| labels.len() == symbols && symbols > 1)?;
    let meaning = match last {
        "Softmax" => "probabilities",
        "LogSoftmax" => "log-probabilities",
        _ => "logits",
    };
    notes.push(guessed("kind", "a score for each symbol at each step: a text"));
    notes.push(missing("ctc", "which symbol stands for nothing (blank)"));
    let symbols: Vec<String> =
        labels.iter().map(|label| toml::Value::String(label.clone()).to_string()).collect();
    let lines = vec![
        ("symbols", format!("[{}]", symbols.join(", "))),
        ("blank", "0".to_owned()),
        ("meaning", quoted(meaning)),
    ];
    Some((Kind::Ctc, Table { lines, labels: 0, first: None }))
}

fn name(output: &DraftOutput) -> String {
    toml::Value::String(output.name.clone()).to_string()
}

/// A word as TOML.
fn quoted(word: &str) -> String {
    format!("\"{word}\"")
}
