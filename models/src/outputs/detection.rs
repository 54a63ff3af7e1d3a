//! Boxes and scores as tensors of their own: SSD and its kin, and lists of finished boxes.
//!
//! **Invariant:** pure; what is found lies in the picture's pixels, whatever way it took to the
//! tensor.

use super::priors::Prior;
use super::probability::{Softmax, probability, sigmoid};
use super::region::{BoxForm, Detection, Region, Unit};
use super::suppression::{Candidates, Rules};
use super::view::{Activation, DecodeError, View, must};
use crate::image::Placement;

/// A detector with a tensor of boxes, [places, 4], and one of scores, [places, classes].
#[derive(Debug, Clone, PartialEq)]
pub struct Ssd {
    /// What the four numbers of a box are.
    pub form: BoxForm,
    /// What they are counted in. With priors it is `Fraction`, as those are.
    pub unit: Unit,
    /// What they are counted from; nothing when the graph gives whole boxes.
    pub priors: Option<Offsets>,
    /// What makes the numbers scores.
    pub scores: Scores,
    /// The class that means that there is nothing, if the graph has one.
    pub background: Option<usize>,
    /// Which boxes are kept.
    pub rules: Rules,
}

/// Boxes as offsets from priors, by SSD (Liu et al. 2016) as Caffe's `PriorBox` and
/// `DetectionOutput` compute them:
/// - centre form: `x = v0 dx w0 + x0`, `y = v1 dy h0 + y0`, `w = w0 exp(v2 dw)`, `h = h0 exp(v3 dh)`;
/// - corner form: each side is the prior's plus `v d`.
#[derive(Debug, Clone, PartialEq)]
pub struct Offsets {
    /// The priors, one a place.
    pub priors: Vec<Prior>,
    /// The factors v0 to v3 of x, y, width and height, or of left, top, right and bottom; finite.
    pub variances: [f32; 4],
}

/// What makes the numbers of a place scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scores {
    /// Nothing: the graph gives 0..=1.
    Plain,
    /// A sigmoid of each.
    Sigmoid,
    /// A softmax over the classes of a place.
    Softmax,
}

impl Ssd {
    /// What is found, the highest score first.
    ///
    /// # Errors
    /// A tensor of another shape, a score that is not a number, or a parameter out of its range. A
    /// box that is not finite or has no area is dropped.
    pub fn decode(
        &self,
        boxes: View<'_>,
        scores: View<'_>,
        placement: &Placement,
    ) -> Result<Vec<Detection>, DecodeError> {
        let wanted = "[places, 4]";
        let [places, 4] = boxes.dims::<2>("boxes", wanted)? else {
            return Err(boxes.wrong("boxes", wanted));
        };
        let wanted = format!("[{places}, classes], as there are {places} boxes");
        let classes = match scores.dims::<2>("scores", &wanted)? {
            [rows, classes] if rows == places && classes > 0 => classes,
            _ => return Err(scores.wrong("scores", &wanted)),
        };
        if let Some(offsets) = &self.priors {
            let count = offsets.priors.len();
            let allowed = "one prior for each box, finite variances and the unit fraction";
            let fits = count == places && self.unit == Unit::Fraction;
            let is_finite = offsets.variances.iter().all(|v| v.is_finite());
            must(fits && is_finite, "priors", format!("{count} for {places} boxes"), allowed)?;
        }
        let mut candidates = Candidates::new(self.rules)?;
        for (place, row) in scores.values.chunks_exact(classes).enumerate() {
            let softmax = (self.scores == Scores::Softmax).then(|| Softmax::of(row, 1.0));
            let score = |(class, x): (usize, &f32)| {
                let score = match (&softmax, self.scores) {
                    (Some(softmax), _) => softmax.share(*x),
                    (None, Scores::Sigmoid) => sigmoid(*x),
                    (None, _) => *x,
                };
                Ok((class, probability(score, "a score")?))
            };
            let is_thing = |(class, _): &(usize, &f32)| Some(*class) != self.background;
            candidates.take(place, row.iter().enumerate().filter(is_thing).map(score))?;
        }
        let (rows, _) = boxes.values.as_chunks::<4>();
        let region = |place: usize| {
            let numbers = rows.get(place).copied().unwrap_or_default();
            self.region(place, numbers)
        };
        Ok(candidates.keep(region, self.unit, placement))
    }

    fn region(&self, place: usize, numbers: [f32; 4]) -> Region {
        let Some(Offsets { priors, variances: [v0, v1, v2, v3] }) = &self.priors else {
            return self.form.region(numbers);
        };
        let Some(prior) = priors.get(place) else { return self.form.region(numbers) };
        let [a, b, c, d] = self.form.by_column(numbers);
        let ((x, y), (w, h)) = (prior.centre, prior.size);
        if self.form.is_centre() {
            let centre = (v0 * a * w + x, v1 * b * h + y);
            return Region::around(centre, (w * (v2 * c).exp(), h * (v3 * d).exp()));
        }
        let from = prior.region();
        Region {
            left: from.left + v0 * a,
            top: from.top + v1 * b,
            right: from.right + v2 * c,
            bottom: from.bottom + v3 * d,
        }
    }
}

/// A list of finished boxes, as graphs with their own suppression give it: a tensor [rows, 6] of four
/// numbers of a box, its score, and its class as a whole number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Finished {
    /// What the four numbers of a box are.
    pub form: BoxForm,
    /// What they are counted in.
    pub unit: Unit,
    /// Number of classes.
    pub classes: usize,
    /// Which boxes are kept; an `overlap` of 1 keeps all that score high enough.
    pub rules: Rules,
}

impl Finished {
    /// What is found, the highest score first. Rows below the score are not looked at further, as
    /// graphs fill up the rest of the list with anything.
    ///
    /// # Errors
    /// A tensor of another shape, a score that is not in 0..=1, a class that is none, or a parameter
    /// out of its range. A box that is not finite or has no area is dropped.
    pub fn decode(
        &self,
        rows: View<'_>,
        placement: &Placement,
    ) -> Result<Vec<Detection>, DecodeError> {
        let wanted = "[rows, 6]";
        let [_, 6] = rows.dims::<2>("boxes", wanted)? else {
            return Err(rows.wrong("boxes", wanted));
        };
        let mut candidates = Candidates::new(self.rules)?;
        let (rows, _) = rows.values.as_chunks::<6>();
        for (place, [.., score, class]) in rows.iter().enumerate() {
            let score = Activation::None.score(*score, "a score")?;
            if score >= self.rules.score {
                let class = whole(*class, self.classes)?;
                candidates.take(place, std::iter::once(Ok((class, score))))?;
            }
        }
        let region = |place: usize| {
            let [a, b, c, d, ..] = rows.get(place).copied().unwrap_or_default();
            self.form.region([a, b, c, d])
        };
        Ok(candidates.keep(region, self.unit, placement))
    }
}

/// A class that a graph gives as a number.
pub(super) fn whole(value: f32, classes: usize) -> Result<usize, DecodeError> {
    // A number that is none of these is not equal to its whole part, or too large.
    if value.is_finite() && value >= 0.0 && value.fract() == 0.0 && value < classes as f32 {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked above"
        )]
        return Ok(value as usize);
    }
    let allowed = "a whole number below the number of classes";
    Err(DecodeError::OutOfRange { what: "a class", value: value.to_string(), allowed })
}
