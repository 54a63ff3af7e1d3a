//! A picture to the bundle's size, with Pillow's filters.
//!
//! **Invariant:** the result has exactly the bundle's width and height.

use fast_image_resize as fir;
use fir::images::{Image, ImageRef};

use super::decode::ImageError;
use super::pixels::Pixels;
use super::placement::{Part, Placement};
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
    placement: Placement,
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
            placement: Placement::new(
                front.resize,
                (front.width, front.height),
                (front.width, front.height),
            ),
        }
    }

    /// The picture that `run` made last.
    pub(super) fn last(&self) -> &Pixels {
        &self.last
    }

    /// How that picture lies in the tensor.
    pub(super) fn placement(&self) -> Placement {
        self.placement
    }

    pub(super) fn run(&mut self, mut pixels: Pixels) -> Result<&Pixels, ImageError> {
        let channels = pixels.channels();
        let (from, to) = ((pixels.width(), pixels.height()), (self.width, self.height));
        let placement = Placement::new(self.resize, from, to);
        self.placement = placement;
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
                pixels.crop(placement.seen());
                self.resize(&pixels, &mut last)?;
            }
            Resize::Letterbox(pad) => {
                let on = placement.on();
                let mut inner = Pixels::filled(on.width, on.height, channels, pad);
                self.resize(&pixels, &mut inner)?;
                frame(&inner, &mut last, on, pad);
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
}

/// Puts `inner` on that part of `outer` and fills the rest.
fn frame(inner: &Pixels, outer: &mut Pixels, on: Part, pad: u8) {
    let channels = inner.channels();
    let row = inner.width() as usize * channels;
    let full = outer.width() as usize * channels;
    let (left, top) = (on.left as usize * channels, on.top as usize);
    let data = outer.data_mut();
    data.fill(pad);
    for (y, line) in inner.data().chunks_exact(row).enumerate() {
        let start = (top + y) * full + left;
        data[start..start + row].copy_from_slice(line);
    }
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
