//! Owns `[input.image]`: how a picture becomes a tensor.
//!
//! **Invariant:** there is a mean and a deviation for each channel, and no deviation is 0.

use super::input::per;
use super::section::{Section, whole};

/// How a picture becomes a tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageFront {
    /// Width of the tensor in pixels.
    pub width: u32,
    /// Height of the tensor in pixels.
    pub height: u32,
    /// Colour or grey.
    pub channels: Channels,
    /// What happens to the aspect ratio.
    pub resize: Resize,
    /// The filter, with Pillow's meaning: antialiased when shrinking.
    pub filter: Filter,
    /// The order of the tensor's dimensions.
    pub layout: Layout,
    /// Subtracted from `u8 / 255`, one a channel.
    pub mean: Vec<f32>,
    /// Divides after that, one a channel.
    pub std: Vec<f32>,
}

/// The channels of a picture's tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channels {
    /// Red, green, blue.
    Rgb,
    /// Luma by ITU-R 601, as Pillow's "L".
    Gray,
}

impl Channels {
    /// How many there are.
    pub fn count(self) -> usize {
        match self {
            Self::Rgb => 3,
            Self::Gray => 1,
        }
    }
}

/// What happens to the aspect ratio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resize {
    /// The whole picture is stretched.
    Stretch,
    /// The largest centred part of the right aspect ratio is taken.
    Crop,
    /// The whole picture is fitted inside, the rest filled with this value.
    Letterbox(u8),
}

/// How pixels are weighed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the filters' common names")]
pub enum Filter {
    Nearest,
    Bilinear,
    Bicubic,
    Lanczos3,
}

/// The order of dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Batch, channel, row, column.
    Nchw,
    /// Batch, row, column, channel.
    Nhwc,
}

pub(super) fn read(section: Section<'_>) -> Option<ImageFront> {
    let width = section.whole("width", 1..=4096);
    let height = section.whole("height", 1..=4096);
    let channels = section.choice("channels", &[("rgb", Channels::Rgb), ("gray", Channels::Gray)]);
    let shapes =
        [("stretch", Resize::Stretch), ("crop", Resize::Crop), ("letterbox", Resize::Letterbox(0))];
    let resize = match section.choice("resize", &shapes) {
        Some(Resize::Letterbox(_)) => section
            .need("pad_value", "a whole number 0..=255", |v| {
                whole(v).and_then(|n| u8::try_from(n).ok())
            })
            .map(Resize::Letterbox),
        other => {
            if section.has("pad_value") {
                let allowed = "absent, as resize is not \"letterbox\"";
                section.need::<()>("pad_value", allowed, |_| None);
            }
            other
        }
    };
    let filters = [
        ("nearest", Filter::Nearest),
        ("bilinear", Filter::Bilinear),
        ("bicubic", Filter::Bicubic),
        ("lanczos3", Filter::Lanczos3),
    ];
    let filter = section.choice("filter", &filters);
    let layout = section.choice("layout", &[("nchw", Layout::Nchw), ("nhwc", Layout::Nhwc)]);
    let count = channels.map(Channels::count);
    let mean = per(&section, "mean", count, "channel", 0.0, f32::MIN..=f32::MAX);
    let std = per(&section, "std", count, "channel", 1.0, 1e-9..=f32::MAX);
    section.finish();
    Some(ImageFront {
        width: u32::try_from(width?).ok()?,
        height: u32::try_from(height?).ok()?,
        channels: channels?,
        resize: resize?,
        filter: filter?,
        layout: layout?,
        mean: mean?,
        std: std?,
    })
}
