//! The boxes that a detector's answers are counted from.
//!
//! **Invariant:** priors come in the order in which such graphs give their answers: map by map, row
//! by row, place by place, size by size.

use super::region::Region;
use super::view::{DecodeError, View, must};

/// Largest number of priors.
const MAX_PRIORS: usize = 1 << 20;

/// A box by its centre, as fractions of the tensor's width and height.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prior {
    /// Centre, across and down.
    pub centre: (f32, f32),
    /// Width and height.
    pub size: (f32, f32),
}

/// Where the middles of a map's places lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Middles {
    /// Evenly over the tensor: that of place `i` of `n` at `(i + 0.5) / n` (as in the published files of
    /// Ultra-Light-Fast-Generic-Face-Detector).
    Even,
    /// By the stride, `(i + 0.5) * stride` pixels from the edge, so that where it does not divide the
    /// side the last ones lie nearer to the edge or beyond (as in SSD).
    Stride,
}

/// One map of places, each with square boxes of these sizes around its middle.
#[derive(Debug, Clone, PartialEq)]
pub struct PriorMap {
    /// Pixels of the tensor from one place to the next.
    pub stride: u32,
    /// Sides of the boxes, in pixels of the tensor.
    pub sizes: Vec<f32>,
}

impl Prior {
    /// The box itself.
    pub fn region(&self) -> Region {
        Region::around(self.centre, self.size)
    }

    /// Priors from a constant tensor of [count, 4]: centre x, centre y, width, height, as fractions.
    ///
    /// # Errors
    /// Another shape, or a number that is not finite.
    pub fn from_tensor(tensor: View<'_>) -> Result<Vec<Self>, DecodeError> {
        let want = "[priors, 4]";
        let [_, 4] = tensor.dims::<2>("priors", want)? else {
            return Err(tensor.wrong("priors", want));
        };
        if let Some(value) = tensor.values.iter().find(|x| !x.is_finite()) {
            return Err(DecodeError::NotFinite { what: "a prior", value: value.to_string() });
        }
        let (rows, _) = tensor.values.as_chunks::<4>();
        Ok(rows.iter().map(|[x, y, w, h]| Self { centre: (*x, *y), size: (*w, *h) }).collect())
    }

    /// The priors of a tensor of that width and height in pixels. Each map has `ceil(side / stride)`
    /// places a row and rows; all four numbers are cut to 0..=1.
    ///
    /// # Errors
    /// A stride of 0, a size that is not above 0, or more than a million priors.
    pub fn generate(
        (width, height): (u32, u32),
        maps: &[PriorMap],
        middles: Middles,
    ) -> Result<Vec<Self>, DecodeError> {
        let mut priors = Vec::new();
        for map in maps {
            must(map.stride > 0, "stride", map.stride, "above 0")?;
            for size in &map.sizes {
                must(size.is_finite() && *size > 0.0, "size of a prior", size, "above 0")?;
            }
            let (columns, rows) = (width.div_ceil(map.stride), height.div_ceil(map.stride));
            let count = (columns as usize).saturating_mul(rows as usize);
            let count = count.saturating_mul(map.sizes.len()).saturating_add(priors.len());
            must(count <= MAX_PRIORS, "number of priors", count, "at most 1048576")?;
            let middle = |at: u32, places: u32, side: u32| match middles {
                Middles::Even => (at as f32 + 0.5) / places as f32,
                Middles::Stride => {
                    ((at as f32 + 0.5) * map.stride as f32 / side as f32).clamp(0.0, 1.0)
                }
            };
            for row in 0..rows {
                for column in 0..columns {
                    priors.extend(map.sizes.iter().map(|size| Self {
                        centre: (middle(column, columns, width), middle(row, rows, height)),
                        size: ((size / width as f32).min(1.0), (size / height as f32).min(1.0)),
                    }));
                }
            }
        }
        Ok(priors)
    }
}
