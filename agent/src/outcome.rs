//! Owns what an answer says that is not classes: labels, quantities, vectors, scores, tensors, and
//! when in a recording.
//!
//! **Invariant:** these are stored, so they grow at the end only, and what is in them never changes; an
//! answer's label is 1 to 120 bytes whatever it is an answer to.

use holdfast_models::outputs::{Found, Pixels, Span as ModelSpan, Things};
use holdfast_models::{Inference, Outcome as Inferred, Recorded as InferredRecord};
use serde::{Deserialize, Serialize};

use crate::answer::{Class, MAX_CLASSES};
use crate::message::Message;

/// Longest label of an answer that is put together, in bytes.
const MAX_LABEL: usize = 120;
/// Longest text that another agent may tell, in bytes.
const MAX_TEXT: usize = 1 << 20;
/// Most spans of a recording that an answer tells.
const MAX_SPANS: usize = 1000;

/// An answer of another kind than classes. Its JSON has one key, which tells the kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Labels that hold or do not, each for itself, in the bundle's order.
    Labels(Vec<Label>),
    /// Quantities, in the bundle's order.
    Values(Vec<Value>),
    /// A vector.
    Embedding(Vec<f32>),
    /// How unusual the input is.
    Anomaly(Anomaly),
    /// The graph's outputs as they are.
    Tensors(Vec<NamedTensor>),
    /// What was found in a picture.
    Detections(Detections),
    /// What each pixel of a picture is.
    Mask(Mask),
    /// A text.
    Text(String),
    /// What a model said in a conversation.
    Message(Message),
}

/// A label and whether it holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Label {
    /// Its name.
    pub label: String,
    /// How likely it holds, `0.0..=1.0`.
    pub probability: f32,
    /// Whether that is enough.
    pub is_set: bool,
}

/// A quantity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// Its name.
    pub label: String,
    /// How much, in the unit that the bundle means.
    pub value: f32,
}

/// How unusual an input is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Anomaly {
    /// How far what the model gave back is from the input, 0 or more.
    pub score: f32,
    /// What the bundle says is still usual.
    pub threshold: f32,
    /// Whether the score is above it.
    pub is_anomaly: bool,
}

/// An output of a graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NamedTensor {
    /// Its name in the graph.
    pub name: String,
    /// The type of its elements, as `bundle.toml` spells it.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Its elements in C order.
    pub data: Vec<f32>,
}

/// What was found in a picture, the surest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Detections {
    /// Width of the picture in pixels.
    pub width: u32,
    /// Height of the picture in pixels.
    pub height: u32,
    /// What was found.
    pub boxes: Vec<Thing>,
}

/// A thing and where it is, in the picture's pixels from the upper left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the sides' own names")]
pub struct Thing {
    /// The label.
    pub label: String,
    /// How sure that is, `0.0..=1.0`.
    pub confidence: f32,
    pub left: f32,
    pub top: f32,
    pub right: f32,
    pub bottom: f32,
}

/// What each pixel of a picture is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mask {
    /// Width of the picture in pixels.
    pub width: u32,
    /// Height of the picture in pixels.
    pub height: u32,
    /// The labels, and the pixels that each has.
    pub labels: Vec<Area>,
    /// The pixels row by row from the upper left: the place of a label, or none where the model did not
    /// see the picture, and how many pixels follow each other that have it.
    pub runs: Vec<(Option<u16>, u32)>,
}

/// A label and how many pixels have it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Area {
    /// The label.
    pub label: String,
    /// Number of pixels.
    pub pixels: u64,
}

/// What was in the windows of a recording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// Number of windows.
    pub windows: u64,
    /// Milliseconds from one window to the next, where that is known.
    pub step_ms: Option<f64>,
    /// When each label was the answer; the first 1000.
    pub spans: Vec<Span>,
    /// Of scores and quantities those of each window; of several quantities one window after the other.
    pub values: Vec<f32>,
}

/// Windows that follow each other in which a label was the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// The label.
    pub label: String,
    /// The first window, from 0.
    pub first_window: u64,
    /// The window behind the last.
    pub end_window: u64,
    /// The highest confidence in it, `0.0..=1.0`.
    pub confidence: f32,
}

/// What a model said, as an answer tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// The best class, or the answer in a few words.
    pub label: String,
    /// How sure it is, for kinds that tell.
    pub confidence: Option<f32>,
    /// The likeliest classes, likeliest first; none for other kinds.
    pub classes: Vec<Class>,
    /// The answer of another kind.
    pub outcome: Option<Outcome>,
    /// When, in a recording of several windows.
    pub recorded: Option<Recorded>,
}

impl Said {
    /// What an inference says.
    pub fn of(inference: Inference) -> Self {
        let confidence = inference.outcome.confidence();
        let keeps_values =
            matches!(inference.outcome, Inferred::Quantities(_) | Inferred::Anomaly(_));
        let recorded = inference.recorded.map(|recorded| recorded_of(recorded, keeps_values));
        let (label, classes, outcome) = match inference.outcome {
            Inferred::Classes(classes) => {
                let classes = classes.into_iter().take(MAX_CLASSES);
                let classes: Vec<Class> = classes
                    .map(|class| Class { label: class.label, confidence: class.confidence })
                    .collect();
                (classes.first().map(|best| best.label.clone()), classes, None)
            }
            other => {
                let outcome = outcome_of(other);
                (outcome.as_ref().map(label_of), Vec::new(), outcome)
            }
        };
        let label = label.unwrap_or_else(|| "nothing".to_owned());
        Self { label, confidence, classes, outcome, recorded }
    }
}

fn outcome_of(outcome: Inferred) -> Option<Outcome> {
    Some(match outcome {
        Inferred::Classes(_) => return None,
        Inferred::Things(things) => Outcome::Detections(detections(things)),
        Inferred::Pixels(pixels) => Outcome::Mask(mask(pixels)),
        Inferred::Text(text) => Outcome::Text(text.text),
        Inferred::Labels(labels, _) => Outcome::Labels(
            labels
                .into_iter()
                .map(|label| Label {
                    label: label.label,
                    probability: label.probability,
                    is_set: label.is_set,
                })
                .collect(),
        ),
        Inferred::Quantities(values) => Outcome::Values(
            values.into_iter().map(|it| Value { label: it.label, value: it.value }).collect(),
        ),
        Inferred::Embedding(vector) => Outcome::Embedding(vector),
        Inferred::Anomaly(anomaly) => Outcome::Anomaly(Anomaly {
            score: anomaly.score,
            threshold: anomaly.threshold,
            is_anomaly: anomaly.is_anomaly(),
        }),
        Inferred::Tensors(tensors) => Outcome::Tensors(
            tensors
                .into_iter()
                .map(|(name, tensor)| NamedTensor {
                    name,
                    dtype: tensor.dtype().name().to_owned(),
                    shape: tensor.shape().iter().map(|dim| *dim as u64).collect(),
                    data: tensor.to_f32(),
                })
                .collect(),
        ),
    })
}

fn detections(things: Things) -> Detections {
    let named = |found: Found| Thing {
        label: found.label,
        confidence: found.confidence,
        left: found.region.left,
        top: found.region.top,
        right: found.region.right,
        bottom: found.region.bottom,
    };
    let boxes = things.found.into_iter().map(named).collect();
    Detections { width: things.width, height: things.height, boxes }
}

fn mask(pixels: Pixels) -> Mask {
    let Pixels { labels, mask } = pixels;
    let areas = labels.into_iter().zip(mask.areas());
    Mask {
        width: mask.width(),
        height: mask.height(),
        labels: areas.map(|(label, pixels)| Area { label, pixels: *pixels }).collect(),
        runs: mask.runs().iter().map(|run| (run.class, run.length)).collect(),
    }
}

fn recorded_of(recorded: InferredRecord, keeps_values: bool) -> Recorded {
    let span = |span: ModelSpan| Span {
        label: span.label,
        first_window: span.first as u64,
        end_window: span.end as u64,
        confidence: span.confidence,
    };
    Recorded {
        windows: recorded.windows as u64,
        step_ms: recorded.step_ms,
        spans: recorded.spans.into_iter().take(MAX_SPANS).map(span).collect(),
        values: if keeps_values { recorded.rows } else { Vec::new() },
    }
}

/// The answer in a few words.
fn label_of(outcome: &Outcome) -> String {
    let text = match outcome {
        Outcome::Labels(labels) => {
            let set = labels.iter().filter(|label| label.is_set);
            let set: Vec<&str> = set.map(|label| label.label.as_str()).collect();
            if set.is_empty() { "none".to_owned() } else { set.join(", ") }
        }
        Outcome::Values(values) => {
            let told: Vec<String> =
                values.iter().map(|it| format!("{} {}", it.label, it.value)).collect();
            told.join(", ")
        }
        Outcome::Embedding(vector) => format!("a vector of {}", vector.len()),
        Outcome::Anomaly(Anomaly { is_anomaly: true, .. }) => "anomaly".to_owned(),
        Outcome::Anomaly(_) => "normal".to_owned(),
        Outcome::Detections(detections) => counted(&detections.boxes),
        Outcome::Mask(mask) => {
            let seen = mask.labels.iter().filter(|area| area.pixels > 0);
            let seen: Vec<&str> = seen.map(|area| area.label.as_str()).collect();
            if seen.is_empty() { "nothing".to_owned() } else { seen.join(", ") }
        }
        Outcome::Text(text) if text.is_empty() => "no text".to_owned(),
        Outcome::Text(text) => text.clone(),
        Outcome::Message(message) => message.label(),
        Outcome::Tensors(tensors) if tensors.len() == 1 => "1 tensor".to_owned(),
        Outcome::Tensors(tensors) => format!("{} tensors", tensors.len()),
    };
    shortened(text)
}

/// How many there are of each label, in the order of the surest of each.
fn counted(boxes: &[Thing]) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for found in boxes {
        match counts.iter_mut().find(|(label, _)| *label == found.label) {
            Some((_, count)) => *count += 1,
            None => counts.push((&found.label, 1)),
        }
    }
    let told: Vec<String> =
        counts.iter().map(|(label, count)| format!("{count} {label}")).collect();
    if told.is_empty() { "nothing".to_owned() } else { told.join(", ") }
}

/// A text of at most [`MAX_LABEL`] bytes, without control characters.
pub(crate) fn shortened(text: String) -> String {
    if text.len() <= MAX_LABEL && !text.chars().any(char::is_control) {
        return text;
    }
    let mut short = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if short.len() + c.len_utf8() > MAX_LABEL - "...".len() {
            short.push_str("...");
            break;
        }
        short.push(c);
    }
    short
}

impl Outcome {
    /// The answer in a few words.
    pub(crate) fn label(&self) -> String {
        label_of(self)
    }

    /// Whether another agent's outcome can be believed: names that are names, shares within 0 and 1,
    /// tensors with as many elements as their shapes say.
    pub fn is_sound(&self, is_name: impl Fn(&str) -> bool) -> bool {
        let share = |x: f32| (0.0..=1.0).contains(&x);
        match self {
            Self::Labels(labels) => {
                labels.iter().all(|label| is_name(&label.label) && share(label.probability))
            }
            Self::Values(values) => {
                values.iter().all(|value| is_name(&value.label) && value.value.is_finite())
            }
            Self::Embedding(vector) => vector.iter().all(|x| x.is_finite()),
            Self::Anomaly(anomaly) => anomaly.score.is_finite() && anomaly.score >= 0.0,
            Self::Detections(detections) => detections.boxes.iter().all(|found| {
                let sides = [found.left, found.top, found.right, found.bottom];
                is_name(&found.label)
                    && share(found.confidence)
                    && sides.iter().all(|side| side.is_finite())
            }),
            Self::Mask(mask) => {
                let pixels: u64 = mask.runs.iter().map(|(_, length)| u64::from(*length)).sum();
                let is_known = |class: Option<u16>| {
                    class.is_none_or(|class| usize::from(class) < mask.labels.len())
                };
                pixels == u64::from(mask.width) * u64::from(mask.height)
                    && mask.labels.iter().all(|area| is_name(&area.label))
                    && mask.runs.iter().all(|(class, _)| is_known(*class))
            }
            Self::Text(text) => text.len() <= MAX_TEXT,
            // No task is answered with one.
            Self::Message(_) => false,
            Self::Tensors(tensors) => tensors.iter().all(|tensor| {
                let count = tensor.shape.iter().try_fold(1u64, |n, dim| n.checked_mul(*dim));
                is_name(&tensor.name) && count == Some(tensor.data.len() as u64)
            }),
        }
    }
}

impl Recorded {
    /// Whether another agent's account of a recording can be believed.
    pub fn is_sound(&self, is_name: impl Fn(&str) -> bool) -> bool {
        let is_span = |span: &Span| {
            is_name(&span.label)
                && span.first_window < span.end_window
                && span.end_window <= self.windows
                && (0.0..=1.0).contains(&span.confidence)
        };
        self.spans.len() <= MAX_SPANS && self.spans.iter().all(is_span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_short_whatever_it_is_of() {
        let label = |name: &str| Label { label: name.repeat(9), probability: 0.9, is_set: true };
        let names = ["rain", "wind\n", "gr\u{fc}n"];
        let many = Outcome::Labels((0..9).flat_map(|_| names.map(label)).collect());
        let short = label_of(&many);
        assert!(short.len() <= MAX_LABEL && short.ends_with("..."), "{short}");
        assert!(!short.contains('\n'), "{short}");
        for (outcome, want) in [
            (Outcome::Labels(Vec::new()), "none"),
            (Outcome::Embedding(vec![0.0; 3]), "a vector of 3"),
            (Outcome::Values(vec![Value { label: "bar".to_owned(), value: 1.5 }]), "bar 1.5"),
            (Outcome::Anomaly(Anomaly { score: 2.0, threshold: 1.0, is_anomaly: true }), "anomaly"),
        ] {
            assert_eq!(label_of(&outcome), want);
        }
    }

    #[test]
    fn what_another_agent_tells_is_looked_at() {
        let is_name = |name: &str| !name.is_empty();
        let tensor = |count: usize| {
            Outcome::Tensors(vec![NamedTensor {
                name: "y".to_owned(),
                dtype: "f32".to_owned(),
                shape: vec![2, 2],
                data: vec![0.0; count],
            }])
        };
        let label = |probability| {
            Outcome::Labels(vec![Label { label: "a".to_owned(), probability, is_set: true }])
        };
        for (outcome, is_sound) in
            [(tensor(4), true), (tensor(5), false), (label(1.0), true), (label(1.1), false)]
        {
            assert_eq!(outcome.is_sound(is_name), is_sound, "{outcome:?}");
        }
    }
}
