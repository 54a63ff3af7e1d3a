//! What a graph is probably for, from the shapes, types, names and last operators that it has.
//!
//! **Invariant:** pure; every shape of a draft is pinned, and what was guessed or is not known has a
//! note.

mod inputs;
mod states;

use std::collections::BTreeMap;

use self::inputs::input;
use self::states::pairs;
use super::labels::labels;
use super::whole::Table;
use super::{Dim, Inspected, Port, PortType, shape};
use crate::bundle::{Layout, MediaKind};
use crate::outputs::Meaning;
use crate::tensor::Dtype;

/// What is known besides the file.
#[derive(Debug, Clone, Default)]
pub struct Hints {
    /// The labels of the first output, in its order.
    pub labels: Option<Vec<String>>,
    /// What kind of file the sample is.
    pub sample: Option<MediaKind>,
    /// Shapes that somebody gave, by the name of the input or output, batch included.
    pub shapes: BTreeMap<String, Vec<usize>>,
}

/// A first description of a bundle.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// What answers are.
    pub kind: Kind,
    /// What a caller sends, and constants.
    pub inputs: Vec<DraftInput>,
    /// What is given, the one that the answer is made of first.
    pub outputs: Vec<DraftOutput>,
    /// Inputs that become outputs of the run before: their names, type and shape.
    pub states: Vec<(String, String, Dtype, Vec<usize>)>,
    /// The labels, where the kind has them.
    pub labels: Vec<String>,
    /// The kind's own table, where it has one.
    pub table: Option<Table>,
    /// What was guessed, and what is not known.
    pub notes: Vec<Note>,
}

/// Something that a person must look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The key of `bundle.toml`.
    pub key: String,
    /// Whether nobody but the model's maker can know it, rather than that it was guessed.
    pub is_missing: bool,
    /// What to look at.
    pub what: String,
}

/// What answers are, as far as a file shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the kinds' own names")]
pub enum Kind {
    Classification(Meaning),
    MultiLabel(Meaning),
    Regression,
    Embedding,
    Reconstruction,
    Detection,
    Segmentation,
    Ctc,
    Tensor,
}

impl Kind {
    /// The name in `bundle.toml`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Classification(_) => "classification",
            Self::MultiLabel(_) => "multi-label",
            Self::Regression => "regression",
            Self::Embedding => "embedding",
            Self::Reconstruction => "reconstruction",
            Self::Detection => "detection",
            Self::Segmentation => "segmentation",
            Self::Ctc => "ctc",
            Self::Tensor => "tensor",
        }
    }
}

/// An input of a draft.
#[derive(Debug, Clone, PartialEq)]
pub struct DraftInput {
    /// Name, type and shape.
    pub tensor: DraftOutput,
    /// How it is made.
    pub source: Source,
}

/// An output of a draft.
#[derive(Debug, Clone, PartialEq)]
pub struct DraftOutput {
    /// The name in the graph.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// The shape, batch 1 first where the batch is free.
    pub shape: Vec<usize>,
    /// Whether the graph takes any batch.
    pub free_batch: bool,
    /// What its integers stand for.
    pub scale: Option<(f32, i32)>,
}

/// How an input is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Source {
    /// From a picture.
    Image {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// Whether it has one channel, not three.
        is_gray: bool,
        /// The order of the dimensions.
        layout: Layout,
    },
    /// From the samples of a recording.
    Wave {
        /// The rate, in Hz.
        sample_rate_hz: u32,
        /// Samples of a window.
        window: usize,
    },
    /// From numbers that a caller sends.
    Numbers,
    /// Always this.
    Constant(i64),
}

/// Why a file, with what was said of it, makes no draft.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DraftError {
    /// Shapes that the file leaves open and nobody gave.
    #[error("the file leaves shapes open: {0}; give each with --shape NAME=1,2,3")]
    OpenShapes(String),
    /// There are not as many labels as there is to name.
    #[error(
        "{got} labels were given, and output {output} has {want} to name: give one for each, in its \
         order, or none"
    )]
    Labels {
        /// How many were given.
        got: usize,
        /// The output.
        output: String,
        /// How many there must be.
        want: String,
    },
    /// The answers have no labels.
    #[error(
        "{got} labels were given, and output {output} has no place for as many (kind = \"{kind}\"): \
         look whether the list is whole, or leave it out"
    )]
    NoLabels {
        /// How many were given.
        got: usize,
        /// The output.
        output: String,
        /// What the answers look like.
        kind: &'static str,
    },
}

impl Draft {
    /// Infers what can be inferred.
    ///
    /// # Errors
    /// A shape is left open in the file and in the hints; there are not as many labels as values.
    pub fn of(file: &Inspected, hints: &Hints) -> Result<Self, DraftError> {
        let mut notes = of_every_bundle();
        let (inputs, outputs, states) = tensors(file, hints)?;
        let inputs: Vec<DraftInput> = inputs
            .into_iter()
            .map(|tensor| input(tensor, !states.is_empty(), hints, &mut notes))
            .collect();
        let whole = Self::whole(&inputs, &outputs, hints, &mut notes);
        let (mut kind, table) = match whole {
            Some((kind, table)) => (kind, Some(table)),
            None => (kind(&inputs, &outputs, hints, &mut notes), None),
        };
        let mut outputs: Vec<DraftOutput> = outputs.into_iter().map(|(output, _)| output).collect();
        if let Some(first) = outputs.first_mut() {
            kind = as_numbers(kind, first, &mut notes);
        }
        let labels = labels(kind, table.as_ref(), outputs.first(), hints, &mut notes)?;
        notes.extend(of_kind(kind));
        for (input, output, ..) in &states {
            notes.push(guessed("state", format!("{output} becomes {input} of the next window")));
        }
        Ok(Self { kind, inputs, outputs, states, labels, table, notes })
    }
}

/// Tensors that become each other from window to window: names of both sides, type and shape.
type States = Vec<(String, String, Dtype, Vec<usize>)>;

/// The inputs, outputs and states with every shape pinned.
#[allow(clippy::type_complexity, reason = "the three parts of one list")]
fn tensors<'a>(
    file: &'a Inspected,
    hints: &Hints,
) -> Result<(Vec<DraftOutput>, Vec<(DraftOutput, &'a Port)>, States), DraftError> {
    let pairs = pairs(file);
    let is_state = |port: &Port| pairs.iter().any(|(i, o)| *i == port.name || *o == port.name);
    let is_free = |port: &Port| matches!(port.dims.as_deref(), Some([Dim::Free(_), ..]));
    let sent = || file.inputs.iter().filter(|port| rank(port) != Some(0));
    let mut all = sent().chain(&file.outputs);
    let given_pinned =
        |port: &Port| hints.shapes.get(&port.name).is_some_and(|s| s.first() != Some(&1));
    let free_batch = pairs.is_empty() && all.all(|port| is_free(port) && !given_pinned(port));

    let mut open = Vec::new();
    let mut tensor = |port: &Port| {
        let pinned = pinned(port, hints);
        if pinned.is_none() {
            open.push(port.to_string());
        }
        DraftOutput {
            name: port.name.clone(),
            dtype: dtype(port),
            shape: pinned.unwrap_or_default(),
            free_batch: free_batch && rank(port) != Some(0),
            scale: port.scale,
        }
    };
    let inputs: Vec<DraftOutput> =
        file.inputs.iter().filter(|port| !is_state(port)).map(&mut tensor).collect();
    let outputs: Vec<(DraftOutput, &Port)> = file
        .outputs
        .iter()
        .filter(|port| !is_state(port))
        .map(|port| (tensor(port), port))
        .collect();
    let mut states = Vec::new();
    for (input, output) in &pairs {
        if let Some(port) = file.inputs.iter().find(|port| port.name == *input) {
            let state = tensor(port);
            states.push((input.clone(), output.clone(), state.dtype, state.shape));
        }
    }
    match open.is_empty() {
        true => Ok((inputs, outputs, states)),
        false => Err(DraftError::OpenShapes(open.join(", "))),
    }
}

/// What no file tells of itself.
fn of_every_bundle() -> Vec<Note> {
    vec![
        missing("licence", "whose the model is, and what may be done with it"),
        missing("provenance", "what trained it, on which data under which licence, when"),
        missing(
            "variant",
            "the accuracy on a test set, and how far outputs may be off for it (tolerance)",
        ),
    ]
}

/// What only the use of the answers tells.
fn of_kind(kind: Kind) -> Option<Note> {
    match kind {
        Kind::Classification(_) | Kind::MultiLabel(_) => {
            Some(missing("threshold", "from which confidence on an answer is good enough"))
        }
        Kind::Reconstruction => {
            Some(missing("threshold", "from which mean error on an input is unusual"))
        }
        Kind::Regression => {
            Some(missing("scale", "mean and std, if the numbers were scaled in training"))
        }
        Kind::Embedding | Kind::Detection | Kind::Segmentation | Kind::Ctc | Kind::Tensor => None,
    }
}

pub(super) fn guessed(key: impl Into<String>, what: impl Into<String>) -> Note {
    Note { key: key.into(), is_missing: false, what: what.into() }
}

pub(super) fn missing(key: impl Into<String>, what: impl Into<String>) -> Note {
    Note { key: key.into(), is_missing: true, what: what.into() }
}

fn rank(port: &Port) -> Option<usize> {
    port.dims.as_ref().map(Vec::len)
}

/// The type; files with any other were refused.
fn dtype(port: &Port) -> Dtype {
    match port.kind {
        PortType::Tensor(dtype) => dtype,
        _ => Dtype::F32,
    }
}

/// The shape that was given, or the file's with a free first dimension as 1.
fn pinned(port: &Port, hints: &Hints) -> Option<Vec<usize>> {
    if let Some(given) = hints.shapes.get(&port.name) {
        return Some(given.clone());
    }
    let pin = |(at, dim): (usize, &Dim)| match dim {
        Dim::Fixed(size) => Some(*size),
        Dim::Free(name) if at == 0 || is_batch(name) => Some(1),
        Dim::Free(_) => None,
    };
    port.dims.as_ref()?.iter().enumerate().map(pin).collect()
}

fn is_batch(name: &str) -> bool {
    matches!(&*name.to_ascii_lowercase(), "batch" | "batch_size" | "n" | "unk__batch")
}

/// Whether all but one dimension are 1.
fn is_vector(dims: &[usize]) -> bool {
    dims.iter().filter(|dim| **dim != 1).count() <= 1
}

fn kind(
    inputs: &[DraftInput],
    outputs: &[(DraftOutput, &Port)],
    hints: &Hints,
    notes: &mut Vec<Note>,
) -> Kind {
    let Some((first, port)) = outputs.first() else { return Kind::Tensor };
    let size: usize = first.shape.iter().product();
    let last = port.made_by.last().map_or("", String::as_str);
    let of_labels = hints.labels.as_ref().is_some_and(|labels| labels.len() == size);
    if outputs.len() == 1 && is_vector(&first.shape) {
        let told = |kind, what: &str| (kind, guessed("kind", what.to_owned()));
        let same = inputs.iter().any(|input| {
            input.tensor.shape == first.shape && !matches!(input.source, Source::Constant(_))
        });
        let (kind, note) = match last {
            "Softmax" if size > 1 => told(
                Kind::Classification(Meaning::Probabilities),
                "the graph ends in a Softmax, so that one class is right",
            ),
            "LogSoftmax" if size > 1 => told(
                Kind::Classification(Meaning::Logits),
                "the graph ends in a LogSoftmax, so that one class is right",
            ),
            "Sigmoid" => told(
                Kind::MultiLabel(Meaning::Probabilities),
                "the graph ends in a Sigmoid, so that each label holds or not",
            ),
            _ if same && !of_labels => told(
                Kind::Reconstruction,
                "the output has the input's shape, so that their difference tells what is unusual",
            ),
            _ if size == 1 => told(
                Kind::Regression,
                "the output is one number; if it is a probability, write kind = \"multi-label\"",
            ),
            _ if !of_labels && size.is_multiple_of(64) => told(
                Kind::Embedding,
                "a vector without a Softmax; if these are classes, write kind = \"classification\"",
            ),
            _ => told(
                Kind::Classification(Meaning::Logits),
                "a number a class; if they are no classes, write kind = \"regression\"",
            ),
        };
        notes.push(note);
        return kind;
    }
    let what = "answers are the tensors as they are; say what they mean, if another kind fits";
    notes.push(missing("kind", what));
    Kind::Tensor
}

/// A kind reads its output as numbers: integers need a scale, and other types are left as they are.
fn as_numbers(kind: Kind, output: &mut DraftOutput, notes: &mut Vec<Note>) -> Kind {
    if kind == Kind::Tensor {
        return kind;
    }
    match output.dtype {
        Dtype::F16 | Dtype::F32 => {}
        Dtype::I8 | Dtype::U8 if output.scale.is_some() => {}
        Dtype::I8 | Dtype::U8 => {
            let zero = if output.dtype == Dtype::I8 { -128 } else { 0 };
            output.scale = Some((1.0 / 256.0, zero));
            let what = "what the integers stand for: (integer - zero_point) * scale";
            notes.push(missing(format!("output {}: scale", output.name), what));
        }
        other => {
            let what = format!("the output is of type {other}, so that answers are tensors");
            notes.push(guessed("kind", what));
            return Kind::Tensor;
        }
    }
    kind
}

/// A shape as the messages of this module show it.
impl std::fmt::Display for DraftOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dim = |(at, size): (usize, &usize)| match self.free_batch && at == 0 {
            true => Dim::Free("batch".to_owned()),
            false => Dim::Fixed(*size),
        };
        let dims: Vec<Dim> = self.shape.iter().enumerate().map(dim).collect();
        write!(f, "{} {} {}", self.name, self.dtype, shape(&dims))
    }
}
