//! JPEG, PNG and WebP to upright pixels, under limits.
//!
//! **Invariant:** the size that a header states is checked before any memory for pixels is taken,
//! and a decoder that panics is an error of its picture, not of the program.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::codecs::{jpeg::JpegDecoder, png::PngDecoder, webp::WebPDecoder};
use image::{ImageDecoder, Limits};

use super::pixels::Pixels;
use super::structure;
use crate::media::MediaType;

/// Largest width or height that is taken, in pixels.
pub const MAX_SIDE: u32 = 16_384;
/// Largest picture that is taken, in pixels.
pub const MAX_PIXELS: u64 = 25_000_000;
/// Largest memory that a decoder may take, in bytes.
const MAX_BYTES: u64 = 256 << 20;

/// Why a picture was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The file is damaged.
    #[error("{media} damaged: {why}; send a complete file")]
    Malformed {
        /// What the file says it is.
        media: MediaType,
        /// The decoder's reason.
        why: String,
    },
    /// The file ends too early.
    #[error("{0} truncated: its end is missing; send the whole file")]
    Truncated(MediaType),
    /// The picture is larger than the limits.
    #[error(
        "{media} of {width} x {height} pixels is too large: at most {MAX_PIXELS} pixels and {MAX_SIDE} a side, send a smaller one"
    )]
    TooLarge {
        /// What the file is.
        media: MediaType,
        /// Width in pixels as the header states.
        width: u32,
        /// Height in pixels as the header states.
        height: u32,
    },
    /// The picture has no pixels.
    #[error("{media} of {width} x {height} pixels is empty: send one with at least 1 x 1")]
    Empty {
        /// What the file is.
        media: MediaType,
        /// Width in pixels as the header states.
        width: u32,
        /// Height in pixels as the header states.
        height: u32,
    },
    /// The picture needs more memory than is allowed.
    #[error("{0} needs more than 256 MiB to decode; send a smaller one")]
    Memory(MediaType),
    /// A kind of picture that is not taken.
    #[error("{media} not taken: {why}")]
    Unsupported {
        /// What the file is.
        media: MediaType,
        /// What is not taken.
        why: String,
    },
    /// Resizing failed; a fault of this program.
    #[error("resizing failed: {0}")]
    Resize(String),
}

/// Decodes a picture and turns it upright.
pub(super) fn decode(bytes: &[u8], media: MediaType) -> Result<Pixels, ImageError> {
    let whole = match media {
        MediaType::Jpeg => structure::jpeg_is_whole(bytes),
        MediaType::Webp => structure::webp_is_whole(bytes),
        // The PNG decoder notices by itself.
        MediaType::Png => true,
        MediaType::Wav
        | MediaType::Npy
        | MediaType::Json
        | MediaType::Csv
        | MediaType::Text
        | MediaType::Raw => {
            return Err(ImageError::Unsupported { media, why: "it is no picture".to_owned() });
        }
    };
    if !whole {
        return Err(ImageError::Truncated(media));
    }
    let caught = catch_unwind(AssertUnwindSafe(|| {
        let reader = Cursor::new(bytes);
        match media {
            MediaType::Jpeg => read(JpegDecoder::new(reader).map_err(|e| typed(e, media))?, media),
            MediaType::Png => {
                let size = png_size(bytes).ok_or(ImageError::Truncated(media))?;
                check_size(size, media)?;
                let png = PngDecoder::with_limits(reader, limits());
                read(png.map_err(|e| typed(e, media))?, media)
            }
            _ => read(WebPDecoder::new(reader).map_err(|e| typed(e, media))?, media),
        }
    }));
    caught.unwrap_or_else(|_| {
        Err(ImageError::Malformed { media, why: "the decoder gave up on it".to_owned() })
    })
}

fn read(mut decoder: impl ImageDecoder, media: MediaType) -> Result<Pixels, ImageError> {
    let (width, height) = decoder.dimensions();
    check_size((width, height), media)?;
    decoder.set_limits(limits()).map_err(|e| typed(e, media))?;
    let color = decoder.color_type();
    let total = decoder.total_bytes();
    if total > MAX_BYTES {
        return Err(ImageError::Memory(media));
    }
    // Metadata that cannot be read says nothing about how the picture stands.
    let orientation = decoder.orientation().unwrap_or(image::metadata::Orientation::NoTransforms);
    let size = usize::try_from(total).map_err(|_| ImageError::Memory(media))?;
    let mut data = vec![0; size];
    decoder.read_image(&mut data).map_err(|e| typed(e, media))?;
    let pixels = Pixels::from_decoder(width, height, color, data)
        .ok_or_else(|| ImageError::Unsupported { media, why: format!("colours {color:?}") })?;
    Ok(pixels.upright(orientation))
}

fn check_size((width, height): (u32, u32), media: MediaType) -> Result<(), ImageError> {
    if width == 0 || height == 0 {
        return Err(ImageError::Empty { media, width, height });
    }
    let fits = width.max(height) <= MAX_SIDE && u64::from(width) * u64::from(height) <= MAX_PIXELS;
    if fits { Ok(()) } else { Err(ImageError::TooLarge { media, width, height }) }
}

/// Width and height in the IHDR chunk, which comes first.
fn png_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let number = |at: usize| -> Option<u32> {
        Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
    };
    Some((number(16)?, number(20)?))
}

fn limits() -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_BYTES);
    limits
}

fn typed(error: image::ImageError, media: MediaType) -> ImageError {
    use image::ImageError as E;
    match error {
        E::Limits(_) => ImageError::Memory(media),
        E::Unsupported(e) => ImageError::Unsupported { media, why: e.to_string() },
        E::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            ImageError::Truncated(media)
        }
        other => ImageError::Malformed { media, why: other.to_string() },
    }
}
