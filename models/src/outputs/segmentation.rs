//! The class of each pixel, brought back to the picture and told in runs.
//!
//! **Invariant:** the lengths of a mask's runs add up to its picture's pixels, and no two runs beside
//! each other have the same class.

use super::detection::whole;
use super::view::{Activation, DecodeError, View, must};
use crate::bundle::Layout;
use crate::image::{Part, Placement};

/// Most runs of one mask.
pub const MAX_RUNS: usize = 1 << 22;

/// How a tensor says what each pixel is. It may have fewer pixels than the picture's tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Segmentation {
    /// A number for each class, the highest wins, of equal ones the first: [classes, rows, columns],
    /// or [rows, columns, classes] when the layout is NHWC.
    Scores {
        /// How the dimensions lie.
        layout: Layout,
        /// Number of classes, 1..=65,535.
        classes: u16,
    },
    /// The class as a whole number: [rows, columns].
    Index {
        /// Number of classes, 1..=65,535.
        classes: u16,
    },
    /// One score, class 1 from the threshold on and class 0 below: [rows, columns], with or without a
    /// dimension of 1 on either side.
    Threshold {
        /// What makes the number a score.
        activation: Activation,
        /// 0..=1.
        threshold: f32,
    },
}

/// Pixels of one class that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The class; nothing where the graph did not see the picture.
    pub class: Option<u16>,
    /// How many pixels.
    pub length: u32,
}

/// The class of each pixel of a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    width: u32,
    height: u32,
    runs: Vec<Run>,
    areas: Vec<u64>,
}

impl Mask {
    /// Width of the picture in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height of the picture in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The pixels row by row from the upper left; a run goes on over the end of a row.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The pixels of each class.
    pub fn areas(&self) -> &[u64] {
        &self.areas
    }
}

/// A class for each pixel of the graph's output.
struct Classes {
    rows: usize,
    columns: usize,
    classes: Vec<u16>,
}

impl Segmentation {
    /// The class of each pixel of the picture: that of the output's pixel in which its middle lies.
    ///
    /// # Errors
    /// A tensor of another shape, a number that is none, a class that is none, a parameter out of its
    /// range, or a mask that changes more than four million times.
    pub fn decode(&self, output: View<'_>, placement: &Placement) -> Result<Mask, DecodeError> {
        let (classes, count) = match *self {
            Self::Scores { layout, classes } => {
                must(classes > 0, "classes", classes, "1..=65535")?;
                (best(output, layout, usize::from(classes))?, classes)
            }
            Self::Index { classes } => {
                must(classes > 0, "classes", classes, "1..=65535")?;
                let [rows, columns] = plane(output)?;
                let index = |x: &f32| whole(*x, usize::from(classes)).map(narrow);
                let list: Result<_, _> = output.values.iter().map(index).collect();
                (Classes { rows, columns, classes: list? }, classes)
            }
            Self::Threshold { activation, threshold } => {
                must((0.0..=1.0).contains(&threshold), "threshold", threshold, "0..=1")?;
                let [rows, columns] = plane(output)?;
                let class = |x: &f32| {
                    activation.score(*x, "a score").map(|score| u16::from(score >= threshold))
                };
                let list: Result<_, _> = output.values.iter().map(class).collect();
                (Classes { rows, columns, classes: list? }, 2)
            }
        };
        in_picture(&classes, usize::from(count), placement)
    }
}

/// Rows and columns of a tensor with one number a pixel, of which there is at least one.
fn plane(output: View<'_>) -> Result<[usize; 2], DecodeError> {
    let wanted = "[rows, columns], neither 0";
    let mut shape = output.shape;
    // [1, rows, columns, 1], but not [1, 1, rows, 1].
    if let [rest @ .., 1] = shape
        && matches!(rest, [_, rows, _] if *rows != 1)
    {
        shape = rest;
    }
    match (View { shape, ..output }).dims::<2>("classes", wanted)? {
        [0, _] | [_, 0] => Err(output.wrong("classes", wanted)),
        dims => Ok(dims),
    }
}

fn best(output: View<'_>, layout: Layout, classes: usize) -> Result<Classes, DecodeError> {
    let wanted = match layout {
        Layout::Nchw => format!("[{classes}, rows, columns], neither 0"),
        Layout::Nhwc => format!("[rows, columns, {classes}], neither 0"),
    };
    let dims = output.dims::<3>("classes", &wanted)?;
    let (got, rows, columns) = match layout {
        Layout::Nchw => (dims[0], dims[1], dims[2]),
        Layout::Nhwc => (dims[2], dims[0], dims[1]),
    };
    if got != classes || rows == 0 || columns == 0 {
        return Err(output.wrong("classes", &wanted));
    }
    if let Some(value) = output.values.iter().find(|x| x.is_nan()) {
        return Err(DecodeError::NotFinite { what: "a score", value: value.to_string() });
    }
    let pixels = rows * columns;
    let best = match layout {
        Layout::Nchw => {
            let mut best = vec![0; pixels];
            let mut highest = output.values[..pixels].to_vec();
            for (class, plane) in output.values.chunks_exact(pixels).enumerate().skip(1) {
                for ((best, highest), x) in best.iter_mut().zip(&mut highest).zip(plane) {
                    if x > highest {
                        (*best, *highest) = (narrow(class), *x);
                    }
                }
            }
            best
        }
        Layout::Nhwc => {
            let of_pixel = |scores: &[f32]| {
                let first = scores.first().copied().unwrap_or_default();
                let higher = |best: (usize, f32), (class, x): (usize, &f32)| {
                    if *x > best.1 { (class, *x) } else { best }
                };
                narrow(scores.iter().enumerate().fold((0, first), higher).0)
            };
            output.values.chunks_exact(classes).map(of_pixel).collect()
        }
    };
    Ok(Classes { rows, columns, classes: best })
}

/// A class that is known to be below the number of classes.
fn narrow(class: usize) -> u16 {
    u16::try_from(class).unwrap_or(u16::MAX)
}

fn in_picture(output: &Classes, count: usize, placement: &Placement) -> Result<Mask, DecodeError> {
    let Part { left, top, width, height } = placement.seen();
    let (on, tensor, picture) = (placement.on(), placement.tensor(), placement.picture());
    let columns = Axis { from: left, size: width, on: (on.left, on.width), tensor: tensor.0 }
        .places(picture.0, output.columns);
    let rows = Axis { from: top, size: height, on: (on.top, on.height), tensor: tensor.1 }
        .places(picture.1, output.rows);
    let mut runs: Vec<Run> = Vec::new();
    let mut areas = vec![0; count];
    let mut line: Vec<Run> = Vec::new();
    let mut last: Option<Option<usize>> = None;
    for row in rows {
        // Rows of the picture that show the same row of the output are the same.
        if last != Some(row) {
            line.clear();
            for column in &columns {
                let class = row.zip(*column).and_then(|(row, column)| {
                    output.classes.get(row * output.columns + column).copied()
                });
                push(&mut line, Run { class, length: 1 });
            }
            last = Some(row);
        }
        for run in &line {
            push(&mut runs, *run);
            if let Some(area) = run.class.and_then(|class| areas.get_mut(usize::from(class))) {
                *area += u64::from(run.length);
            }
        }
        if runs.len() > MAX_RUNS {
            return Err(DecodeError::TooManyRuns(MAX_RUNS));
        }
    }
    Ok(Mask { width: picture.0, height: picture.1, runs, areas })
}

fn push(runs: &mut Vec<Run>, run: Run) {
    match runs.last_mut() {
        Some(last) if last.class == run.class => last.length += run.length,
        _ => runs.push(run),
    }
}

/// One direction of a picture in its tensor.
struct Axis {
    /// Where the part that is seen begins, and how many pixels it has.
    from: u32,
    size: u32,
    /// Where it begins in the tensor, and how many pixels of that it covers.
    on: (u32, u32),
    /// Pixels of the tensor.
    tensor: u32,
}

impl Axis {
    /// For each pixel of the picture the one of the output in which its middle lies, in whole
    /// numbers; nothing for a pixel that is not seen.
    fn places(&self, picture: u32, output: usize) -> Vec<Option<usize>> {
        let (size, on) = (u64::from(self.size), (u64::from(self.on.0), u64::from(self.on.1)));
        let place = |at: u32| {
            let inside = at.checked_sub(self.from).filter(|at| *at < self.size)?;
            // (on + (inside + 1/2) * covered / size) * output / tensor
            let doubled = 2 * on.0 * size + (2 * u64::from(inside) + 1) * on.1;
            let place = u128::from(doubled) * output as u128
                / (2 * u128::from(size) * u128::from(self.tensor));
            Some(usize::try_from(place).unwrap_or(usize::MAX).min(output - 1))
        };
        (0..picture).map(place).collect()
    }
}
