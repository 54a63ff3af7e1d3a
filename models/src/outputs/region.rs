//! A box, how far two of them overlap, and its way from the tensor to the picture.
//!
//! **Invariant:** a `Detection` lies inside of its picture, has an area and a score in 0..=1.

use crate::image::Placement;

/// A box: left and right from the left edge, top and bottom from the upper one.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs, reason = "the sides' own names")]
pub struct Region {
    pub left: f32,
    pub top: f32,
    pub right: f32,
    pub bottom: f32,
}

/// A thing that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detection {
    /// Which class, as the graph counts them.
    pub class: usize,
    /// 0..=1.
    pub score: f32,
    /// Where, in the picture's pixels.
    pub region: Region,
}

/// What a box is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// The tensor's width and height are 1.
    Fraction,
    /// Pixels of the tensor.
    Pixel,
}

/// What the four numbers of a box are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoxForm {
    /// Left, top, right, bottom.
    Corners,
    /// Top, left, bottom, right.
    CornersByRow,
    /// Centre x, centre y, width, height.
    Centre,
    /// Centre y, centre x, height, width.
    CentreByRow,
}

impl BoxForm {
    /// The four numbers with x before y.
    pub(super) fn by_column(self, [a, b, c, d]: [f32; 4]) -> [f32; 4] {
        match self {
            Self::Corners | Self::Centre => [a, b, c, d],
            Self::CornersByRow | Self::CentreByRow => [b, a, d, c],
        }
    }

    /// Whether the first two are a centre.
    pub(super) fn is_centre(self) -> bool {
        matches!(self, Self::Centre | Self::CentreByRow)
    }

    /// The box of four numbers.
    pub(super) fn region(self, numbers: [f32; 4]) -> Region {
        let [a, b, c, d] = self.by_column(numbers);
        match self.is_centre() {
            true => Region::around((a, b), (c, d)),
            false => Region { left: a, top: b, right: c, bottom: d },
        }
    }
}

impl Region {
    /// The box of that size around a centre.
    pub fn around((x, y): (f32, f32), (width, height): (f32, f32)) -> Self {
        let (half_w, half_h) = (width / 2.0, height / 2.0);
        Self { left: x - half_w, top: y - half_h, right: x + half_w, bottom: y + half_h }
    }

    /// Whether all sides are finite and in their order, so that there is an area.
    pub fn is_proper(&self) -> bool {
        [self.left, self.top, self.right, self.bottom].iter().all(|side| side.is_finite())
            && self.left < self.right
            && self.top < self.bottom
    }

    fn area(&self) -> f64 {
        (f64::from(self.right) - f64::from(self.left))
            * (f64::from(self.bottom) - f64::from(self.top))
    }

    /// The area that two proper boxes share, divided by the area that they cover together; 0..=1.
    pub fn overlap(&self, other: &Self) -> f64 {
        let width = f64::from(self.right.min(other.right)) - f64::from(self.left.max(other.left));
        let height = f64::from(self.bottom.min(other.bottom)) - f64::from(self.top.max(other.top));
        if width <= 0.0 || height <= 0.0 {
            return 0.0;
        }
        let shared = width * height;
        shared / (self.area() + other.area() - shared)
    }

    /// This box of the tensor as one of the picture, cut at its edges; nothing when no part of it
    /// lies inside.
    pub fn in_picture(&self, unit: Unit, placement: &Placement) -> Option<Self> {
        let (width, height) = match unit {
            Unit::Fraction => placement.tensor(),
            Unit::Pixel => (1, 1),
        };
        let point = |x: f32, y: f32| placement.to_picture((x * width as f32, y * height as f32));
        let (left, top) = point(self.left, self.top);
        let (right, bottom) = point(self.right, self.bottom);
        let (width, height) = placement.picture();
        let cut = Self {
            left: left.clamp(0.0, width as f32),
            top: top.clamp(0.0, height as f32),
            right: right.clamp(0.0, width as f32),
            bottom: bottom.clamp(0.0, height as f32),
        };
        cut.is_proper().then_some(cut)
    }
}
