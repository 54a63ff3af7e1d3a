//! Where a picture lies in the tensor that was made of it, and the way back to its pixels.
//!
//! **Invariant:** neither part is empty, `seen` lies inside of the picture and `on` inside of the
//! tensor; what resizes a picture and what reads a graph's boxes use the same one.

use crate::bundle::Resize;

/// A part of a picture or of a tensor, in its pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the sides' own names")]
pub struct Part {
    pub left: u32,
    pub top: u32,
    pub width: u32,
    pub height: u32,
}

impl Part {
    fn whole((width, height): (u32, u32)) -> Self {
        Self { left: 0, top: 0, width, height }
    }

    /// The part of that size in the middle of the whole.
    fn middle((width, height): (u32, u32), whole: (u32, u32)) -> Self {
        Self { left: (whole.0 - width) / 2, top: (whole.1 - height) / 2, width, height }
    }
}

/// Which part of a picture lies on which part of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    picture: (u32, u32),
    tensor: (u32, u32),
    seen: Part,
    on: Part,
}

impl Placement {
    /// How a picture comes to lie in a tensor; sizes are width and height in pixels, a side of 0
    /// counts as 1.
    pub fn new(resize: Resize, picture: (u32, u32), tensor: (u32, u32)) -> Self {
        let picture = (picture.0.max(1), picture.1.max(1));
        let tensor = (tensor.0.max(1), tensor.1.max(1));
        let (seen, on) = match resize {
            Resize::Stretch => (Part::whole(picture), Part::whole(tensor)),
            Resize::Crop => (Part::middle(inside(tensor, picture), picture), Part::whole(tensor)),
            Resize::Letterbox(_) => {
                (Part::whole(picture), Part::middle(inside(picture, tensor), tensor))
            }
        };
        Self { picture, tensor, seen, on }
    }

    /// Width and height of the picture in pixels.
    pub fn picture(&self) -> (u32, u32) {
        self.picture
    }

    /// Width and height of the tensor in pixels.
    pub fn tensor(&self) -> (u32, u32) {
        self.tensor
    }

    /// The part of the picture that the graph sees.
    pub fn seen(&self) -> Part {
        self.seen
    }

    /// The part of the tensor that it lies on.
    pub fn on(&self) -> Part {
        self.on
    }

    /// The point of the picture, in its pixels, at this point of the tensor, in the tensor's pixels.
    /// A point beside the picture gives one outside of it.
    pub fn to_picture(&self, (x, y): (f32, f32)) -> (f32, f32) {
        let (seen, on) = (self.seen, self.on);
        let back = |at: f32, from: u32, size: u32, to: u32, scale: u32| {
            (at - from as f32) * (scale as f32 / size as f32) + to as f32
        };
        (
            back(x, on.left, on.width, seen.left, seen.width),
            back(y, on.top, on.height, seen.top, seen.height),
        )
    }
}

/// The largest size with the aspect ratio of `shape` that fits into `into`.
fn inside(shape: (u32, u32), into: (u32, u32)) -> (u32, u32) {
    let (w, h) = (u64::from(shape.0), u64::from(shape.1));
    let (to_w, to_h) = (u64::from(into.0), u64::from(into.1));
    if w * to_h > h * to_w {
        (into.0, rounded(h * to_w, w, into.1))
    } else {
        (rounded(w * to_h, h, into.0), into.1)
    }
}

/// `a / b` to the nearest, from 1 to `max`.
fn rounded(a: u64, b: u64, max: u32) -> u32 {
    u32::try_from((2 * a + b) / (2 * b)).unwrap_or(max).clamp(1, max)
}
