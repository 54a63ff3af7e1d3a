//! Decoded pixels: 8 bits a channel, one channel (grey) or three (red, green, blue), row by row.
//!
//! **Invariant:** `data` has exactly `width * height * channels` bytes.

use image::ColorType;
use image::metadata::Orientation;

use super::placement::Part;

/// A decoded picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pixels {
    width: u32,
    height: u32,
    channels: usize,
    data: Vec<u8>,
}

impl Pixels {
    /// One value everywhere.
    pub(super) fn filled(width: u32, height: u32, channels: usize, value: u8) -> Self {
        let size = width as usize * height as usize * channels;
        Self { width, height, channels, data: vec![value; size] }
    }

    /// Takes what a decoder wrote, in the machine's byte order, and makes it 8 bits a channel
    /// without alpha. Nothing when the colour type is not known.
    pub(super) fn from_decoder(
        width: u32,
        height: u32,
        color: ColorType,
        mut data: Vec<u8>,
    ) -> Option<Self> {
        let (from, to, wide) = match color {
            ColorType::L8 => (1, 1, false),
            ColorType::La8 => (2, 1, false),
            ColorType::Rgb8 => (3, 3, false),
            ColorType::Rgba8 => (4, 3, false),
            ColorType::L16 => (1, 1, true),
            ColorType::La16 => (2, 1, true),
            ColorType::Rgb16 => (3, 3, true),
            ColorType::Rgba16 => (4, 3, true),
            _ => return None,
        };
        let count = width as usize * height as usize;
        if data.len() != count * from * (1 + usize::from(wide)) {
            return None;
        }
        if wide {
            for i in 0..count * from {
                data[i] = narrow(u16::from_ne_bytes([data[2 * i], data[2 * i + 1]]));
            }
        }
        if from != to {
            for i in 0..count {
                data.copy_within(i * from..i * from + to, i * to);
            }
        }
        data.truncate(count * to);
        Some(Self { width, height, channels: to, data })
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// 1 or 3.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// The bytes, row by row, the channels of a pixel side by side.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    pub(super) fn data_mut(&mut self) -> &mut [u8] {
        &mut self.data
    }

    /// Luma by ITU-R 601-2 with Pillow's rounding.
    pub(super) fn make_gray(&mut self) {
        if self.channels == 1 {
            return;
        }
        let count = self.data.len() / 3;
        for i in 0..count {
            let [r, g, b] = [0, 1, 2].map(|c| u32::from(self.data[3 * i + c]));
            let luma = (r * 19_595 + g * 38_470 + b * 7_471 + 0x8000) >> 16;
            self.data[i] = u8::try_from(luma).unwrap_or(u8::MAX);
        }
        self.data.truncate(count);
        self.channels = 1;
    }

    /// Three channels, of which grey gives every one the same.
    pub(super) fn make_colour(&mut self) {
        if self.channels == 1 {
            self.data = self.data.iter().flat_map(|step| [*step; 3]).collect();
            self.channels = 3;
        }
    }

    /// Keeps a part, which must lie within the picture.
    pub(super) fn crop(&mut self, part: Part) {
        let Part { left, top, width, height } = part;
        let row = self.width as usize * self.channels;
        let kept = width as usize * self.channels;
        for y in 0..height as usize {
            let start = (top as usize + y) * row + left as usize * self.channels;
            self.data.copy_within(start..start + kept, y * kept);
        }
        self.data.truncate(kept * height as usize);
        (self.width, self.height) = (width, height);
    }

    /// Turned and mirrored so that it stands upright.
    pub(super) fn upright(self, orientation: Orientation) -> Self {
        let (w, h) = (self.width as usize, self.height as usize);
        let turned = matches!(
            orientation,
            Orientation::Rotate90
                | Orientation::Rotate270
                | Orientation::Rotate90FlipH
                | Orientation::Rotate270FlipH
        );
        let (out_w, out_h) = if turned { (h, w) } else { (w, h) };
        let source = |x: usize, y: usize| match orientation {
            Orientation::NoTransforms => (x, y),
            Orientation::FlipHorizontal => (w - 1 - x, y),
            Orientation::Rotate180 => (w - 1 - x, h - 1 - y),
            Orientation::FlipVertical => (x, h - 1 - y),
            Orientation::Rotate90FlipH => (y, x),
            Orientation::Rotate90 => (y, h - 1 - x),
            Orientation::Rotate270FlipH => (w - 1 - y, h - 1 - x),
            Orientation::Rotate270 => (w - 1 - y, x),
        };
        if orientation == Orientation::NoTransforms {
            return self;
        }
        let mut data = Vec::with_capacity(self.data.len());
        for y in 0..out_h {
            for x in 0..out_w {
                let (sx, sy) = source(x, y);
                let at = (sy * w + sx) * self.channels;
                data.extend_from_slice(&self.data[at..at + self.channels]);
            }
        }
        let (width, height) =
            if turned { (self.height, self.width) } else { (self.width, self.height) };
        Self { width, height, channels: self.channels, data }
    }
}

/// 16 bits to 8, rounded.
fn narrow(wide: u16) -> u8 {
    u8::try_from((u32::from(wide) + 128) / 257).unwrap_or(u8::MAX)
}
