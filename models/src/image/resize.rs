//! A picture to the bundle's size, with Pillow's filters.
//!
//! **Invariant:** the result has exactly the bundle's width and height.

use fast_image_resize as fir;
use fir::images::{Image, ImageRef};

use super::decode::ImageError;
use super::pixels::Pixels;
use crate::bundle::{Filter, ImageFront, Resize};

/// Resizes to one size, reusing its buffers.
pub(super) struct Resizer {
    width: u32,
    height: u32,
    resize: Resize,
    options: fir::ResizeOptions,
    resizer: fir::Resizer,
    /// Whether the filter overshoots, so that the order of the two directions shows.
    overshoots: bool,
    last: Pixels,
}

impl Resizer {
    pub(super) fn new(front: &ImageFront) -> Self {
        let algorithm = match front.filter {
            Filter::Nearest => fir::ResizeAlg::Nearest,
            Filter::Bilinear => fir::ResizeAlg::Convolution(fir::FilterType::Bilinear),
            // Pillow's bicubic has a = -0.5, which is Catmull-Rom.
            Filter::Bicubic => fir::ResizeAlg::Convolution(fir::FilterType::CatmullRom),
            Filter::Lanczos3 => fir::ResizeAlg::Convolution(fir::FilterType::Lanczos3),
        };
        Self {
            width: front.width,
            height: front.height,
            resize: front.resize,
            options: fir::ResizeOptions::new().resize_alg(algorithm),
            resizer: fir::Resizer::new(),
            overshoots: matches!(front.filter, Filter::Bicubic | Filter::Lanczos3),
            last: Pixels::filled(front.width, front.height, front.channels.count(), 0),
        }
    }

    /// The picture that `run` made last.
    pub(super) fn last(&self) -> &Pixels {
        &self.last
    }

    pub(super) fn run(&mut self, mut pixels: Pixels) -> Result<&Pixels, ImageError> {
        let channels = pixels.channels();
        let empty = Pixels::filled(0, 0, channels, 0);
        let mut last = std::mem::replace(&mut self.last, empty);
        if last.channels() != channels || last.width() != self.width {
            last = Pixels::filled(self.width, self.height, channels, 0);
        }
        match self.resize {
            Resize::Stretch => {
                self.resize(&pixels, &mut last)?;
            }
            Resize::Crop => {
                let (width, height) = self.part(pixels.width(), pixels.height());
                let (left, top) = ((pixels.width() - width) / 2, (pixels.height() - height) / 2);
                pixels.crop(left, top, width, height);
                self.resize(&pixels, &mut last)?;
            }
            Resize::Letterbox(pad) => {
                let (width, height) = self.inside(pixels.width(), pixels.height());
                let mut inner = Pixels::filled(width, height, channels, pad);
                self.resize(&pixels, &mut inner)?;
                frame(&inner, &mut last, pad);
            }
        }
        self.last = last;
        Ok(&self.last)
    }

    fn resize(&mut self, from: &Pixels, to: &mut Pixels) -> Result<(), ImageError> {
        if !self.overshoots || from.width() == to.width() || from.height() == to.height() {
            return resize(&mut self.resizer, &self.options, from, to);
        }
        // Pillow goes along the rows first and cuts what overshoots before it goes down.
        let mut rows = Pixels::filled(to.width(), from.height(), from.channels(), 0);
        resize(&mut self.resizer, &self.options, from, &mut rows)?;
        resize(&mut self.resizer, &self.options, &rows, to)
    }

    /// The size of the largest part of a picture that has the bundle's aspect ratio.
    fn part(&self, width: u32, height: u32) -> (u32, u32) {
        let (w, h) = (u64::from(width), u64::from(height));
        let (to_w, to_h) = (u64::from(self.width), u64::from(self.height));
        if w * to_h > h * to_w {
            (rounded(h * to_w, to_h, width), height)
        } else {
            (width, rounded(w * to_h, to_w, height))
        }
    }

    /// The largest size with the picture's aspect ratio inside the bundle's.
    fn inside(&self, width: u32, height: u32) -> (u32, u32) {
        let (w, h) = (u64::from(width), u64::from(height));
        let (to_w, to_h) = (u64::from(self.width), u64::from(self.height));
        if w * to_h > h * to_w {
            (self.width, rounded(h * to_w, w, self.height))
        } else {
            (rounded(w * to_h, h, self.width), self.height)
        }
    }
}

/// Puts `inner` in the middle of `outer` and fills the rest.
fn frame(inner: &Pixels, outer: &mut Pixels, pad: u8) {
    let channels = inner.channels();
    let row = inner.width() as usize * channels;
    let full = outer.width() as usize * channels;
    let left = ((outer.width() - inner.width()) / 2) as usize * channels;
    let top = ((outer.height() - inner.height()) / 2) as usize;
    let data = outer.data_mut();
    data.fill(pad);
    for (y, line) in inner.data().chunks_exact(row).enumerate() {
        let start = (top + y) * full + left;
        data[start..start + row].copy_from_slice(line);
    }
}

/// `a / b` to the nearest, from 1 to `max`.
fn rounded(a: u64, b: u64, max: u32) -> u32 {
    u32::try_from((2 * a + b) / (2 * b)).unwrap_or(max).clamp(1, max)
}

fn resize(
    resizer: &mut fir::Resizer,
    options: &fir::ResizeOptions,
    from: &Pixels,
    to: &mut Pixels,
) -> Result<(), ImageError> {
    match from.channels() {
        1 => resize_typed::<fir::pixels::U8>(resizer, options, from, to),
        _ => resize_typed::<fir::pixels::U8x3>(resizer, options, from, to),
    }
}

/// Of one kind of pixel: naming the two kinds keeps the kernels of all others out of the binary.
fn resize_typed<P: fir::PixelTrait>(
    resizer: &mut fir::Resizer,
    options: &fir::ResizeOptions,
    from: &Pixels,
    to: &mut Pixels,
) -> Result<(), ImageError> {
    let fail = |e: &dyn std::fmt::Display| ImageError::Resize(e.to_string());
    let other = || fail(&"the picture has another kind of pixel");
    let source = ImageRef::new(from.width(), from.height(), from.data(), P::pixel_type());
    let source = source.map_err(|e| fail(&e))?;
    let (width, height) = (to.width(), to.height());
    let mut target = Image::from_slice_u8(width, height, to.data_mut(), P::pixel_type())
        .map_err(|e| fail(&e))?;
    let source = source.typed_image::<P>().ok_or_else(other)?;
    let mut target = target.typed_image_mut::<P>().ok_or_else(other)?;
    resizer.resize_typed(&source, &mut target, options).map_err(|e| fail(&e))
}
