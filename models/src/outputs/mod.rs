//! What the numbers that a graph gives mean: classes, labels, quantities, scores, tensors, boxes,
//! masks, text.
//!
//! Owns the decoders, each a plain struct of a bundle's numbers that reads slices of f32, and what an
//! answer can be.
//!
//! **Invariant:** pure; no numbers and no shape panic, an answer holds finite numbers only, and the
//! memory that it takes is bounded by the parameters and the picture's size, not by what the graph
//! gives.

pub mod classification;
pub mod ctc;
pub mod detection;
pub mod grid;
pub mod multi_label;
pub mod pool;
pub mod priors;
mod probability;
pub mod reconstruction;
pub mod region;
pub mod regression;
pub mod segmentation;
pub mod suppression;
mod view;
pub mod whole;

use crate::image::Placement;
use crate::tensor::Tensor;

pub use classification::{Class, Classification, Meaning};
pub use multi_label::{Label, MultiLabel};
pub use pool::{Pool, Span};
pub use reconstruction::{Anomaly, Difference, Reconstruction};
pub use region::{Detection, Region};
pub use regression::{Quantity, Regression};
pub use view::{Activation, DecodeError, View};
pub use whole::{Detector, Found, Pixels, Reader, Segmenter, Text, Things};

/// How a bundle's answer is made of what its graph gives.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoder {
    /// One class is right.
    Classification(Classification),
    /// Any number of labels hold.
    MultiLabel(MultiLabel),
    /// Quantities.
    Regression(Regression),
    /// A vector that means something beside others of its kind; of length 1 where `normalise`.
    Embedding {
        /// Whether it is divided by its length.
        normalise: bool,
    },
    /// How unusual the input is.
    Reconstruction(Reconstruction),
    /// The tensors as they are.
    Tensors,
    /// Things in a picture.
    Detection(Detector),
    /// What each pixel of a picture is.
    Segmentation(Segmenter),
    /// A text.
    Ctc(Reader),
}

/// What an answer is, by the bundle's kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Every class, highest confidence first.
    Classes(Vec<Class>),
    /// Every label, in the bundle's order, and how sure the least sure of them is.
    Labels(Vec<Label>, f32),
    /// Every quantity, in the bundle's order.
    Quantities(Vec<Quantity>),
    /// The vector.
    Embedding(Vec<f32>),
    /// The score.
    Anomaly(Anomaly),
    /// Every output by its name, in the bundle's order.
    Tensors(Vec<(String, Tensor)>),
    /// What was found in a picture.
    Things(Things),
    /// What its pixels are.
    Pixels(Pixels),
    /// A text.
    Text(Text),
}

/// Why what a graph gave is no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum OutputError {
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
    /// A value is said to be a probability and is not.
    #[error("the model gave {value} for {label}: must be 0..=1, the bundle's meaning is wrong")]
    NotProbability {
        /// The label of the value.
        label: String,
        /// The value.
        value: f32,
    },
    /// There are not as many values as labels.
    #[error("the model gave {got} values for {want} labels")]
    Count {
        /// Number of labels.
        want: usize,
        /// Number of values.
        got: usize,
    },
    /// Tensors that are no boxes, pixels or text.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The answer is about a picture, and there is none.
    #[error("the answer is about a picture and the request had none: the bundle's input is wrong")]
    NoPicture,
}

impl Decoder {
    /// The kind's name in `bundle.toml`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Classification(_) => "classification",
            Self::MultiLabel(_) => "multi-label",
            Self::Regression(_) => "regression",
            Self::Embedding { .. } => "embedding",
            Self::Reconstruction(_) => "reconstruction",
            Self::Tensors => "tensor",
            Self::Detection(_) => "detection",
            Self::Segmentation(_) => "segmentation",
            Self::Ctc(_) => "ctc",
        }
    }

    /// What can be answered, in the order of the output; nothing where answers have no names.
    pub fn labels(&self) -> &[String] {
        match self {
            Self::Classification(classes) => &classes.labels,
            Self::MultiLabel(labels) => &labels.labels,
            Self::Regression(values) => &values.labels,
            Self::Detection(detector) => &detector.labels,
            Self::Segmentation(segmenter) => &segmenter.labels,
            Self::Embedding { .. } | Self::Reconstruction(_) | Self::Tensors | Self::Ctc(_) => &[],
        }
    }

    /// A confidence below this is not good enough; nothing where answers have no confidence.
    pub fn threshold(&self) -> Option<f32> {
        match self {
            Self::Classification(classes) => Some(classes.threshold),
            Self::MultiLabel(labels) => Some(labels.threshold),
            Self::Detection(detector) => Some(detector.threshold),
            Self::Ctc(reader) => Some(reader.threshold),
            Self::Regression(_)
            | Self::Embedding { .. }
            | Self::Reconstruction(_)
            | Self::Tensors
            | Self::Segmentation(_) => None,
        }
    }

    /// Whether the answers of several windows can become one.
    pub fn is_pooled(&self) -> bool {
        match self {
            Self::Classification(_)
            | Self::MultiLabel(_)
            | Self::Regression(_)
            | Self::Embedding { .. }
            | Self::Reconstruction(_) => true,
            Self::Tensors | Self::Detection(_) | Self::Segmentation(_) | Self::Ctc(_) => false,
        }
    }

    /// The answer of whole tensors, where it is made of those: of every output, in the bundle's order,
    /// and of how the picture lies in its tensor.
    ///
    /// # Errors
    /// The tensors are no answer.
    pub fn whole(
        &self,
        outputs: &[View<'_>],
        placement: Option<&Placement>,
    ) -> Result<Option<Outcome>, OutputError> {
        let first = outputs.first().copied();
        Ok(match self {
            Self::Detection(detector) => {
                let placement = placement.ok_or(OutputError::NoPicture)?;
                Some(Outcome::Things(detector.decode(outputs, placement)?))
            }
            Self::Segmentation(segmenter) => {
                let placement = placement.ok_or(OutputError::NoPicture)?;
                let Some(first) = first else { return Ok(None) };
                let mask = segmenter.segmentation.decode(first, placement)?;
                Some(Outcome::Pixels(Pixels { labels: segmenter.labels.clone(), mask }))
            }
            Self::Ctc(reader) => {
                let Some(first) = first else { return Ok(None) };
                let transcript = reader.ctc.decode(first)?;
                let confidence = transcript.confidence();
                Some(Outcome::Text(Text { text: transcript.text, confidence }))
            }
            _ => None,
        })
    }

    /// The answer's numbers of one window, which can be pooled with those of others: `numbers` are of
    /// the first output, `given` of the input that it is compared with, if it is; `row` is replaced.
    ///
    /// # Errors
    /// The numbers are no answer.
    pub fn row(
        &self,
        numbers: &[f32],
        given: &[f32],
        row: &mut Vec<f32>,
    ) -> Result<(), OutputError> {
        match self {
            Self::Classification(classes) => classes.confidences(numbers, row),
            Self::MultiLabel(labels) => labels.probabilities(numbers, row),
            Self::Regression(regression) => regression.values(numbers, row),
            Self::Embedding { .. } => {
                row.clear();
                row.extend_from_slice(numbers);
                finite(row, &[])
            }
            Self::Reconstruction(reconstruction) => {
                row.clear();
                row.push(reconstruction.score(given, numbers)?);
                Ok(())
            }
            Self::Tensors | Self::Detection(_) | Self::Segmentation(_) | Self::Ctc(_) => {
                row.clear();
                Ok(())
            }
        }
    }

    /// The answer of a row, or of several that were pooled. What is made of whole tensors has none.
    pub fn outcome(&self, row: &[f32]) -> Outcome {
        match self {
            Self::Classification(classes) => Outcome::Classes(classes.classes(row)),
            Self::MultiLabel(labels) => Outcome::Labels(labels.labels(row), labels.confidence(row)),
            Self::Regression(regression) => Outcome::Quantities(regression.quantities(row)),
            Self::Embedding { normalise } => Outcome::Embedding(vector(row, *normalise)),
            Self::Reconstruction(reconstruction) => Outcome::Anomaly(Anomaly {
                score: row.first().copied().unwrap_or_default(),
                threshold: reconstruction.threshold,
            }),
            Self::Tensors | Self::Detection(_) | Self::Segmentation(_) | Self::Ctc(_) => {
                Outcome::Tensors(Vec::new())
            }
        }
    }
}

impl Outcome {
    /// How sure the answer is, in 0..=1; nothing for kinds that cannot tell.
    pub fn confidence(&self) -> Option<f32> {
        match self {
            Self::Classes(classes) => classes.first().map(|class| class.confidence),
            Self::Labels(_, confidence) => Some(*confidence),
            // Where nothing is found there is nothing to be sure of.
            Self::Things(things) => things.found.first().map(|best| best.confidence),
            Self::Text(text) => Some(text.confidence),
            Self::Quantities(_)
            | Self::Embedding(_)
            | Self::Anomaly(_)
            | Self::Tensors(_)
            | Self::Pixels(_) => None,
        }
    }
}

/// A vector, of length 1 where that is asked for; one of zeros stays.
fn vector(row: &[f32], normalise: bool) -> Vec<f32> {
    let length = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
    if !normalise || length == 0.0 {
        return row.to_vec();
    }
    #[allow(clippy::cast_possible_truncation, reason = "at most 1")]
    row.iter().map(|x| (f64::from(*x) / length) as f32).collect()
}

/// Whether the values are numbers and as many as their labels, where they have any.
fn finite(values: &[f32], labels: &[String]) -> Result<(), OutputError> {
    if !labels.is_empty() && values.len() != labels.len() {
        return Err(OutputError::Count { want: labels.len(), got: values.len() });
    }
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(at) => {
            let label = labels.get(at).cloned().unwrap_or_else(|| format!("element {at}"));
            Err(OutputError::NotFinite { label, value: values[at].to_string() })
        }
    }
}
