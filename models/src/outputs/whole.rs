//! Answers that are made of whole tensors at once: things in a picture, its pixels, a text.
//!
//! **Invariant:** pure; a label stands for the class of its place in the bundle's list.

use super::ctc::Ctc;
use super::detection::{Finished, Ssd};
use super::grid::{Anchored, Distances, Listed};
use super::region::{Detection, Region};
use super::segmentation::{Mask, Segmentation};
use super::view::{DecodeError, View};
use crate::image::Placement;

/// How things in a picture are found.
#[derive(Debug, Clone, PartialEq)]
pub struct Detector {
    /// The label of each class.
    pub labels: Vec<String>,
    /// When the best thing scores below this, the answer is not good enough.
    pub threshold: f32,
    /// Where the tensors that are read stand among the outputs, in the order of `boxes`.
    pub outputs: Vec<usize>,
    /// How boxes are made of them.
    pub boxes: Boxes,
}

/// How boxes are made of tensors.
#[derive(Debug, Clone, PartialEq)]
pub enum Boxes {
    /// Of one of boxes and one of scores.
    Ssd(Ssd),
    /// Of one list of finished boxes.
    Finished(Finished),
    /// Of grids with anchors.
    Anchored(Anchored),
    /// Of grids of distances.
    Distances(Distances),
    /// Of one list of boxes and scores.
    Listed(Listed),
}

/// A thing that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The label.
    pub label: String,
    /// 0..=1.
    pub confidence: f32,
    /// Where, in the picture's pixels.
    pub region: Region,
}

/// What was found in a picture of that size, the surest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Things {
    /// Width of the picture in pixels.
    pub width: u32,
    /// Height of the picture in pixels.
    pub height: u32,
    /// What was found.
    pub found: Vec<Found>,
}

/// How a picture's pixels are told apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Segmenter {
    /// The label of each class.
    pub labels: Vec<String>,
    /// How the first output tells them.
    pub segmentation: Segmentation,
}

/// The class of each pixel of a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Pixels {
    /// The label of each class.
    pub labels: Vec<String>,
    /// The classes.
    pub mask: Mask,
}

/// How a text is read.
#[derive(Debug, Clone, PartialEq)]
pub struct Reader {
    /// How the first output tells it.
    pub ctc: Ctc,
    /// A text that is less sure than this is not good enough.
    pub threshold: f32,
}

/// A text and how sure it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Text {
    /// The text.
    pub text: String,
    /// 0..=1: the geometric mean over the steps.
    pub confidence: f32,
}

impl Detector {
    /// What is found in the picture that lies so in the tensor.
    ///
    /// # Errors
    /// The tensors are no answer.
    pub fn decode(
        &self,
        outputs: &[View<'_>],
        placement: &Placement,
    ) -> Result<Things, DecodeError> {
        let views: Vec<View<'_>> =
            self.outputs.iter().filter_map(|at| outputs.get(*at).copied()).collect();
        let found = match (&self.boxes, views.as_slice()) {
            (Boxes::Ssd(ssd), [boxes, scores]) => ssd.decode(*boxes, *scores, placement)?,
            (Boxes::Finished(finished), [rows]) => finished.decode(*rows, placement)?,
            (Boxes::Listed(listed), [list]) => listed.decode(*list, placement)?,
            (Boxes::Anchored(anchored), heads) => anchored.decode(heads, placement)?,
            (Boxes::Distances(distances), heads) => distances.decode(heads, placement)?,
            (Boxes::Ssd(_) | Boxes::Finished(_) | Boxes::Listed(_), _) => {
                let want = if matches!(self.boxes, Boxes::Ssd(_)) { 2 } else { 1 };
                return Err(DecodeError::Count { what: "outputs", got: views.len(), want });
            }
        };
        let named = |detection: Detection| Found {
            label: self.labels.get(detection.class).cloned().unwrap_or_default(),
            confidence: detection.score,
            region: detection.region,
        };
        let (width, height) = placement.picture();
        Ok(Things { width, height, found: found.into_iter().map(named).collect() })
    }
}
