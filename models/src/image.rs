//! A picture's way to the tensor that a graph takes.
//!
//! Owns the decoding under limits and the resizing and normalising by one bundle's numbers.
//!
//! **Invariant:** no pixel is decoded before the picture's stated size is found to be within the
//! limits.

pub mod annotate;
mod decode;
mod pixels;
mod placement;
mod resize;
mod structure;

use crate::bundle::{Channels, ImageFront, Layout};
use crate::media::MediaType;
use crate::quantisation::Form;
use crate::tensor::{Element, Elements};

pub use decode::{ImageError, MAX_PIXELS, MAX_SIDE};
pub use pixels::Pixels;
pub use placement::{Part, Placement};

use resize::Resizer;

/// The image front end of one bundle, with its tables and buffers.
pub struct ImagePipeline {
    front: ImageFront,
    resizer: Resizer,
    /// The element that each step of each channel becomes.
    levels: Vec<Elements>,
}

impl ImagePipeline {
    /// Makes the tables for a bundle's numbers, which become elements of this form.
    pub fn new(front: &ImageFront, form: &Form) -> Self {
        let value = |values: &[f32], channel: usize| values[channel.min(values.len() - 1)];
        let level = |channel: usize| {
            let (mean, std) = (value(&front.mean, channel), value(&front.std, channel));
            let mut table = [0.0; 256];
            for (step, x) in (0u8..=255).zip(&mut table) {
                *x = (f32::from(step) / 255.0 - mean) / std;
            }
            form.elements(&table)
        };
        Self {
            resizer: Resizer::new(front),
            levels: (0..front.channels.count()).map(level).collect(),
            front: front.clone(),
        }
    }

    /// Decodes a picture, upright by its EXIF orientation.
    ///
    /// # Errors
    /// The picture is damaged, too large, or of a kind that is not taken.
    pub fn decode(bytes: &[u8], media: MediaType) -> Result<Pixels, ImageError> {
        decode::decode(bytes, media)
    }

    /// The picture at the bundle's size and channels, as bytes, row by row.
    ///
    /// # Errors
    /// The picture cannot be resized.
    pub fn fit(&mut self, mut pixels: Pixels) -> Result<&Pixels, ImageError> {
        if self.front.channels == Channels::Gray {
            pixels.make_gray();
        }
        self.resizer.run(pixels)
    }

    /// How the picture that `fit` made last lies in the tensor.
    pub fn placement(&self) -> Placement {
        self.resizer.placement()
    }

    /// The tensor of the picture that `fit` made last, in the bundle's layout. `out` has room for
    /// exactly that, and elements of the bundle's form.
    pub fn tensor<T: Element + Copy>(&self, out: &mut [T]) {
        let levels: Vec<&[T]> = self.levels.iter().filter_map(T::of).collect();
        let pixels = self.resizer.last();
        let have = pixels.channels();
        // A grey picture gives every channel the same step.
        let source = |channel: usize| if have == 1 { 0 } else { channel };
        match self.front.layout {
            Layout::Nchw => {
                let planes = out.chunks_exact_mut(pixels.data().len() / have);
                for ((channel, levels), plane) in levels.iter().enumerate().zip(planes) {
                    let steps = pixels.data().iter().skip(source(channel)).step_by(have);
                    for (value, step) in plane.iter_mut().zip(steps) {
                        *value = levels[usize::from(*step)];
                    }
                }
            }
            Layout::Nhwc => {
                if let Some(tables) = three::<T>(&levels).filter(|_| have == 3) {
                    return coloured(pixels.data(), tables, out);
                }
                let values = out.chunks_exact_mut(levels.len().max(1));
                for (pixel, values) in pixels.data().chunks_exact(have).zip(values) {
                    for (channel, (value, levels)) in values.iter_mut().zip(&levels).enumerate() {
                        *value = levels[usize::from(pixel[source(channel)])];
                    }
                }
            }
        }
    }
}

/// The tables of red, green and blue.
fn three<'a, T>(levels: &[&'a [T]]) -> Option<[&'a [T; 256]; 3]> {
    let [red, green, blue] = levels else { return None };
    Some([red.as_array()?, green.as_array()?, blue.as_array()?])
}

/// Each pixel by its tables, as most models take it: a step of a byte is never outside of 256 entries,
/// so that nothing is looked at but the pixel.
fn coloured<T: Copy>(pixels: &[u8], [red, green, blue]: [&[T; 256]; 3], out: &mut [T]) {
    let (pixels, _) = pixels.as_chunks::<3>();
    let (values, _) = out.as_chunks_mut::<3>();
    for (pixel, value) in pixels.iter().zip(values) {
        let [r, g, b] = pixel.map(usize::from);
        *value = [red[r], green[g], blue[b]];
    }
}
