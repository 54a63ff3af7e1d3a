//! Detectors of the YOLO family: answers on grids, with anchors and without, and flattened lists.
//!
//! **Invariant:** pure; both orders of a tensor give the same boxes.

use super::probability::{mean_place, sigmoid};
use super::region::{BoxForm, Detection, Region, Unit};
use super::suppression::{Candidates, Rules};
use super::view::{Activation, DecodeError, View, must};
use crate::image::Placement;

/// Most numbers that one distance is spread over.
const MAX_BINS: usize = 64;

/// One grid of a detector with anchors.
#[derive(Debug, Clone, PartialEq)]
pub struct AnchorHead {
    /// Pixels of the tensor from one cell to the next.
    pub stride: f32,
    /// Width and height of each anchor, in pixels of the tensor.
    pub anchors: Vec<(f32, f32)>,
}

/// How the dimensions of a grid's tensor lie; a is the anchors, k the numbers of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GridOrder {
    /// [a * k, rows, columns].
    ChannelsFirst,
    /// [rows, columns, a * k].
    ChannelsLast,
    /// [a, rows, columns, k].
    AnchorsFirst,
}

/// How a cell's numbers become a box; c is the cell's column or row, s the sigmoid, a the anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnchorForm {
    /// YOLOv3 (Redmon and Farhadi 2018): `(s(t) + c) stride`, `a exp(t)`.
    V3,
    /// YOLOv5: `(2 s(t) - 0.5 + c) stride`, `a (2 s(t))^2`.
    V5,
}

/// A detector with anchors: for each anchor of each cell x, y, width, height, whether there is
/// anything, and a number a class.
#[derive(Debug, Clone, PartialEq)]
pub struct Anchored {
    /// Its grids, in the order of the outputs.
    pub heads: Vec<AnchorHead>,
    /// How the dimensions lie.
    pub order: GridOrder,
    /// How boxes are made.
    pub form: AnchorForm,
    /// Number of classes.
    pub classes: usize,
    /// Which boxes are kept.
    pub rules: Rules,
}

/// A detector without anchors that gives the distances from a cell's middle to the four sides, each
/// as a distribution over whole numbers of strides (distribution focal loss, Li et al. 2020), and then
/// a number a class: YOLOv8 without its last layers. With one bin the number is the distance.
#[derive(Debug, Clone, PartialEq)]
pub struct Distances {
    /// Pixels of the tensor from one cell to the next, for each output.
    pub strides: Vec<f32>,
    /// Numbers that each distance is spread over, 1..=64; 16 in YOLOv8.
    pub bins: usize,
    /// How the dimensions lie; there is one anchor.
    pub order: GridOrder,
    /// Number of classes.
    pub classes: usize,
    /// What makes the numbers of the classes scores.
    pub activation: Activation,
    /// Which boxes are kept.
    pub rules: Rules,
}

/// A detector whose graph makes the boxes itself and gives them in one list: YOLOv5 and YOLOv8 as
/// they are usually exported.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// Whether the tensor is [numbers, places] (YOLOv8) or [places, numbers] (YOLOv5).
    pub is_transposed: bool,
    /// What the first four numbers are.
    pub form: BoxForm,
    /// What they are counted in.
    pub unit: Unit,
    /// Whether a number that says if there is anything stands before the classes (YOLOv5).
    pub has_objectness: bool,
    /// Number of classes.
    pub classes: usize,
    /// What makes the numbers scores.
    pub activation: Activation,
    /// Which boxes are kept.
    pub rules: Rules,
}

/// Where the numbers of a grid are found.
#[derive(Debug, Clone, Copy)]
struct Cells<'a> {
    view: View<'a>,
    anchors: usize,
    rows: usize,
    columns: usize,
    /// Places from one anchor, row, column and number to the next.
    steps: [usize; 4],
}

impl<'a> Cells<'a> {
    fn new(
        view: View<'a>,
        order: GridOrder,
        anchors: usize,
        numbers: usize,
    ) -> Result<Self, DecodeError> {
        let channels = anchors.saturating_mul(numbers);
        let what = "a grid";
        let (rows, columns, steps) = match order {
            GridOrder::ChannelsFirst => {
                let wanted = format!("[{channels}, rows, columns]");
                match view.dims::<3>(what, &wanted)? {
                    [c, rows, columns] if c == channels => {
                        (rows, columns, [numbers * rows * columns, columns, 1, rows * columns])
                    }
                    _ => return Err(view.wrong(what, &wanted)),
                }
            }
            GridOrder::ChannelsLast => {
                let wanted = format!("[rows, columns, {channels}]");
                match view.dims::<3>(what, &wanted)? {
                    [rows, columns, c] if c == channels => {
                        (rows, columns, [numbers, columns * channels, channels, 1])
                    }
                    _ => return Err(view.wrong(what, &wanted)),
                }
            }
            GridOrder::AnchorsFirst => {
                let wanted = format!("[{anchors}, rows, columns, {numbers}]");
                match view.dims::<4>(what, &wanted)? {
                    [a, rows, columns, k] if (a, k) == (anchors, numbers) => {
                        (rows, columns, [rows * columns * numbers, columns * numbers, numbers, 1])
                    }
                    _ => return Err(view.wrong(what, &wanted)),
                }
            }
        };
        Ok(Self { view, anchors, rows, columns, steps })
    }

    fn len(&self) -> usize {
        self.anchors * self.rows * self.columns
    }

    /// Anchor, row and column of the cell with this number.
    fn cell(&self, number: usize) -> [usize; 3] {
        let column = number % self.columns;
        let row = number / self.columns % self.rows;
        [number / self.columns / self.rows, row, column]
    }

    /// The number `k` of a cell.
    fn at(&self, [anchor, row, column]: [usize; 3], k: usize) -> f32 {
        let [a, r, c, n] = self.steps;
        self.view.at(anchor * a + row * r + column * c + k * n)
    }

    /// The numbers of a cell from `k` on.
    fn four(&self, cell: [usize; 3], k: usize) -> [f32; 4] {
        [0, 1, 2, 3].map(|i| self.at(cell, k + i))
    }
}

/// The grids of a detector, as one list of cells.
struct Grids<'a>(Vec<Cells<'a>>);

impl Grids<'_> {
    /// Which grid, which cell of it.
    fn find(&self, mut place: usize) -> Option<(usize, [usize; 3])> {
        for (at, cells) in self.0.iter().enumerate() {
            if place < cells.len() {
                return Some((at, cells.cell(place)));
            }
            place -= cells.len();
        }
        None
    }
}

fn check_stride(stride: f32) -> Result<(), DecodeError> {
    must(stride.is_finite() && stride > 0.0, "stride", stride, "above 0")
}

fn check_classes(classes: usize) -> Result<(), DecodeError> {
    must((1..=100_000).contains(&classes), "classes", classes, "1..=100000")
}

fn check_count(what: &'static str, got: usize, want: usize) -> Result<(), DecodeError> {
    if got == want { Ok(()) } else { Err(DecodeError::Count { what, got, want }) }
}

/// Takes the scores of one place: those of the classes, times whether there is anything. Where that
/// alone is too low, the classes are not looked at.
fn take(
    candidates: &mut Candidates,
    place: usize,
    objectness: f32,
    least: f32,
    scores: impl Iterator<Item = Result<f32, DecodeError>>,
) -> Result<(), DecodeError> {
    if objectness < least {
        return Ok(());
    }
    let scores = scores.enumerate().map(|(class, score)| Ok((class, score? * objectness)));
    candidates.take(place, scores)
}

impl Anchored {
    /// What is found, the highest score first.
    ///
    /// # Errors
    /// A tensor of another shape, a score that is not a number, or a parameter out of its range. A
    /// box that is not finite or has no area is dropped.
    pub fn decode(
        &self,
        heads: &[View<'_>],
        placement: &Placement,
    ) -> Result<Vec<Detection>, DecodeError> {
        check_count("grids", heads.len(), self.heads.len())?;
        check_classes(self.classes)?;
        let mut grids = Vec::with_capacity(heads.len());
        for (head, view) in self.heads.iter().zip(heads) {
            check_stride(head.stride)?;
            for (w, h) in &head.anchors {
                let fits = [w, h].iter().all(|side| side.is_finite() && **side > 0.0);
                must(fits, "anchor", format!("{w} x {h}"), "above 0")?;
            }
            grids.push(Cells::new(*view, self.order, head.anchors.len(), 5 + self.classes)?);
        }
        let mut candidates = Candidates::new(self.rules)?;
        let mut place = 0;
        for cells in &grids {
            for cell in (0..cells.len()).map(|number| cells.cell(number)) {
                let score = |k: usize| Activation::Sigmoid.score(cells.at(cell, k), "a score");
                let scores = (5..5 + self.classes).map(score);
                take(&mut candidates, place, score(4)?, self.rules.score, scores)?;
                place += 1;
            }
        }
        let grids = Grids(grids);
        let region = |place: usize| self.region(&grids, place);
        Ok(candidates.keep(region, Unit::Pixel, placement))
    }

    fn region(&self, grids: &Grids<'_>, place: usize) -> Region {
        let found = grids.find(place).and_then(|(at, cell)| {
            let head = self.heads.get(at)?;
            Some((grids.0.get(at)?.four(cell, 0), cell, head, *head.anchors.get(cell[0])?))
        });
        let Some(([x, y, w, h], [_, row, column], head, anchor)) = found else {
            return NOWHERE;
        };
        let (across, down) = (column as f32, row as f32);
        let (centre, size) = match self.form {
            AnchorForm::V3 => {
                ((sigmoid(x) + across, sigmoid(y) + down), (anchor.0 * w.exp(), anchor.1 * h.exp()))
            }
            AnchorForm::V5 => (
                (2.0 * sigmoid(x) - 0.5 + across, 2.0 * sigmoid(y) - 0.5 + down),
                (anchor.0 * (2.0 * sigmoid(w)).powi(2), anchor.1 * (2.0 * sigmoid(h)).powi(2)),
            ),
        };
        Region::around((centre.0 * head.stride, centre.1 * head.stride), size)
    }
}

/// No box.
const NOWHERE: Region = Region { left: 0.0, top: 0.0, right: 0.0, bottom: 0.0 };

impl Distances {
    /// What is found, the highest score first.
    ///
    /// # Errors
    /// As [`Anchored::decode`].
    pub fn decode(
        &self,
        heads: &[View<'_>],
        placement: &Placement,
    ) -> Result<Vec<Detection>, DecodeError> {
        check_count("strides", heads.len(), self.strides.len())?;
        check_classes(self.classes)?;
        must((1..=MAX_BINS).contains(&self.bins), "bins", self.bins, "1..=64")?;
        let first = 4 * self.bins;
        let mut grids = Vec::with_capacity(heads.len());
        for (stride, view) in self.strides.iter().zip(heads) {
            check_stride(*stride)?;
            grids.push(Cells::new(*view, self.order, 1, first + self.classes)?);
        }
        let mut candidates = Candidates::new(self.rules)?;
        let mut place = 0;
        for cells in &grids {
            for cell in (0..cells.len()).map(|number| cells.cell(number)) {
                let score = |k: usize| self.activation.score(cells.at(cell, k), "a score");
                let scores = (first..first + self.classes).map(score);
                take(&mut candidates, place, 1.0, self.rules.score, scores)?;
                place += 1;
            }
        }
        let grids = Grids(grids);
        let region = |place: usize| self.region(&grids, place);
        Ok(candidates.keep(region, Unit::Pixel, placement))
    }

    fn region(&self, grids: &Grids<'_>, place: usize) -> Region {
        let found = grids
            .find(place)
            .and_then(|(at, cell)| Some((grids.0.get(at)?, cell, *self.strides.get(at)?)));
        let Some((cells, cell, stride)) = found else { return NOWHERE };
        let [left, top, right, bottom] =
            [0, 1, 2, 3].map(|side| self.distance(cells, cell, side) * stride);
        let (x, y) = ((cell[2] as f32 + 0.5) * stride, (cell[1] as f32 + 0.5) * stride);
        Region { left: x - left, top: y - top, right: x + right, bottom: y + bottom }
    }

    /// The mean of the distribution, in strides.
    fn distance(&self, cells: &Cells<'_>, cell: [usize; 3], side: usize) -> f32 {
        let bin = |i: usize| cells.at(cell, side * self.bins + i);
        if self.bins == 1 {
            return bin(0);
        }
        mean_place(self.bins, bin)
    }
}

impl Listed {
    /// What is found, the highest score first.
    ///
    /// # Errors
    /// As [`Anchored::decode`].
    pub fn decode(
        &self,
        list: View<'_>,
        placement: &Placement,
    ) -> Result<Vec<Detection>, DecodeError> {
        check_classes(self.classes)?;
        let first = 4 + usize::from(self.has_objectness);
        let numbers = first + self.classes;
        let (wanted, order) = match self.is_transposed {
            true => (format!("[{numbers}, places]"), [1, 0]),
            false => (format!("[places, {numbers}]"), [0, 1]),
        };
        let dims = list.dims::<2>("boxes", &wanted)?;
        let (places, got) = (dims[order[0]], dims[order[1]]);
        if got != numbers {
            return Err(list.wrong("boxes", &wanted));
        }
        let at = |place: usize, k: usize| match self.is_transposed {
            true => list.at(k * places + place),
            false => list.at(place * numbers + k),
        };
        let mut candidates = Candidates::new(self.rules)?;
        for place in 0..places {
            let score = |k: usize| self.activation.score(at(place, k), "a score");
            let objectness = if self.has_objectness { score(4)? } else { 1.0 };
            let scores = (first..numbers).map(score);
            take(&mut candidates, place, objectness, self.rules.score, scores)?;
        }
        let region = |place: usize| self.form.region([0, 1, 2, 3].map(|k| at(place, k)));
        Ok(candidates.keep(region, self.unit, placement))
    }
}
