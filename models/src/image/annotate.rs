//! What was found, drawn on the picture that it was found in.
//!
//! Owns the drawing: boxes with their labels, masks as a tint, a line of text in a corner; and its
//! letters (`font.txt`: 16 characters a row from the space on, 5 x 7 points each, the last one for
//! whatever is not ASCII).
//!
//! **Invariant:** no mark, wherever it lies, is drawn outside of the picture, and a picture without
//! marks keeps its pixels.

use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

use super::decode::ImageError;
use super::pixels::Pixels;
use crate::media::MediaType;
use crate::outputs::Region;
use crate::outputs::segmentation::Run;

const FONT: &str = include_str!("font.txt");
/// Points of a letter, and those from one to the next.
const LETTER: (u32, u32) = (5, 7);
const ADVANCE: u32 = 6;
/// Characters a row of the font, and lines of text from one row to the next.
const FONT_COLUMNS: usize = 16;
const FONT_LINES: usize = 8;
/// Text is so many times smaller than the picture's shorter side, a box's line so many times thinner.
const TEXT_SHARE: u32 = 300;
const LINE_SHARE: u32 = 240;
/// Thin lines and small letters stay readable from here on.
const JPEG_QUALITY: u8 = 92;
/// Most characters of a label.
const MAX_LABEL: usize = 60;

/// Something to draw.
#[derive(Debug, Clone, PartialEq)]
pub enum Mark {
    /// A box and what it is, in the colour of its class.
    Box {
        /// Where, in the picture's pixels.
        region: Region,
        /// Which class.
        class: usize,
        /// The label, which may be empty.
        text: String,
    },
    /// A tint of each class's pixels.
    Tint {
        /// Width and height of the picture that it is for; on another one it is not drawn.
        size: (u32, u32),
        /// The classes, row by row.
        runs: Vec<Run>,
        /// The class that is left as it is.
        background: Option<u16>,
    },
    /// A line in the upper left corner; further ones stand below it.
    Line {
        /// The text.
        text: String,
        /// The class whose colour is around it, if it is of one.
        class: Option<usize>,
    },
}

/// A colour: red, green, blue.
type Colour = [u8; 3];

/// Draws the marks in their order; the picture is in colour then.
pub fn annotate(pixels: Pixels, marks: &[Mark]) -> Pixels {
    let mut canvas = Canvas::new(pixels);
    let mut line = 0;
    for mark in marks {
        match mark {
            Mark::Box { region, class, text } => canvas.region(region, *class, text),
            Mark::Tint { size, runs, background } => canvas.tint(*size, runs, *background),
            Mark::Line { text, class } => {
                let (scale, pad) = (canvas.text_scale, canvas.text_scale);
                let top = line * (LETTER.1 * scale + 3 * pad) + pad;
                canvas.text((pad, top), text, class.map_or([0; 3], colour));
                line += 1;
            }
        }
    }
    canvas.pixels
}

/// What a picture can be written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PictureFile {
    /// Every pixel as it is.
    Png,
    /// Smaller, and nearly as it is.
    Jpeg,
}

impl PictureFile {
    /// Endings of file names, each with what it stands for.
    pub const ENDINGS: [(&str, Self); 3] =
        [("png", Self::Png), ("jpg", Self::Jpeg), ("jpeg", Self::Jpeg)];

    /// What a file of this name is to be, by its ending.
    pub fn of_name(name: &Path) -> Option<Self> {
        let ending = name.extension()?.to_str()?.to_ascii_lowercase();
        Self::ENDINGS.into_iter().find(|(own, _)| *own == ending).map(|(_, file)| file)
    }

    /// The picture as such a file.
    ///
    /// # Errors
    /// It cannot be encoded: a JPEG has at most 65,535 pixels a side.
    pub fn encode(self, pixels: &Pixels) -> Result<Vec<u8>, ImageError> {
        let color =
            if pixels.channels() == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
        let (width, height) = (pixels.width(), pixels.height());
        let mut file = Vec::new();
        let (media, written) = match self {
            Self::Png => {
                let encoder = PngEncoder::new(&mut file);
                (MediaType::Png, encoder.write_image(pixels.data(), width, height, color))
            }
            Self::Jpeg => {
                let encoder = JpegEncoder::new_with_quality(&mut file, JPEG_QUALITY);
                (MediaType::Jpeg, encoder.write_image(pixels.data(), width, height, color))
            }
        };
        written.map_err(|error| ImageError::Malformed { media, why: error.to_string() })?;
        Ok(file)
    }
}

/// A picture under drawing.
struct Canvas {
    pixels: Pixels,
    /// Pixels of one point of a letter.
    text_scale: u32,
    /// Pixels of a box's line.
    line: u32,
}

impl Canvas {
    fn new(mut pixels: Pixels) -> Self {
        pixels.make_colour();
        let side = pixels.width().min(pixels.height());
        let share = |part: u32| side.div_ceil(part).max(1);
        Self { text_scale: share(TEXT_SHARE), line: share(LINE_SHARE), pixels }
    }

    /// Fills a part, as far as it lies inside.
    fn fill(&mut self, (left, top): (u32, u32), (width, height): (u32, u32), colour: Colour) {
        let right = left.saturating_add(width).min(self.pixels.width());
        let bottom = top.saturating_add(height).min(self.pixels.height());
        let row = self.pixels.width() as usize * 3;
        for y in top..bottom {
            for x in left..right {
                let at = y as usize * row + x as usize * 3;
                if let Some(pixel) = self.pixels.data_mut().get_mut(at..at + 3) {
                    pixel.copy_from_slice(&colour);
                }
            }
        }
    }

    fn region(&mut self, region: &Region, class: usize, text: &str) {
        let (width, height) = (self.pixels.width(), self.pixels.height());
        let (left, right) = (whole(region.left, width), whole(region.right, width));
        let (top, bottom) = (whole(region.top, height), whole(region.bottom, height));
        if left >= right || top >= bottom {
            return;
        }
        let colour = colour(class);
        let (across, down) = (right - left, bottom - top);
        let line = self.line.min(across).min(down);
        self.fill((left, top), (across, line), colour);
        self.fill((left, bottom - line), (across, line), colour);
        self.fill((left, top), (line, down), colour);
        self.fill((right - line, top), (line, down), colour);
        if text.is_empty() {
            return;
        }
        // On the box where there is room above it, otherwise in its upper corner.
        let (text_width, text_height) = self.text_size(text);
        let at = left.min(width.saturating_sub(text_width));
        self.text((at, top.checked_sub(text_height).unwrap_or(top)), text, colour);
    }

    fn tint(&mut self, size: (u32, u32), runs: &[Run], background: Option<u16>) {
        if size != (self.pixels.width(), self.pixels.height()) {
            return;
        }
        let mut rest = self.pixels.data_mut();
        for run in runs {
            let (part, behind) = rest.split_at_mut((run.length as usize * 3).min(rest.len()));
            rest = behind;
            let Some(class) = run.class.filter(|class| Some(*class) != background) else {
                continue;
            };
            let colour = colour(usize::from(class));
            for pixel in part.chunks_exact_mut(3) {
                for (value, tint) in pixel.iter_mut().zip(colour) {
                    *value = value.midpoint(tint);
                }
            }
        }
    }

    /// Width and height of a text with what is around it.
    fn text_size(&self, text: &str) -> (u32, u32) {
        let letters = u32::try_from(text.chars().take(MAX_LABEL).count()).unwrap_or(0);
        let scale = self.text_scale;
        (letters * ADVANCE * scale + scale, (LETTER.1 + 2) * scale)
    }

    /// Writes a text in black or white, whichever can be read on the colour around it.
    fn text(&mut self, (left, top): (u32, u32), text: &str, around: Colour) {
        let scale = self.text_scale;
        let size = self.text_size(text);
        self.fill((left, top), size, around);
        let [r, g, b] = around.map(u32::from);
        let ink = if 299 * r + 587 * g + 114 * b > 128_000 { [0; 3] } else { [255; 3] };
        let mut x = left + scale;
        for letter in text.chars().take(MAX_LABEL) {
            for (column, row) in points(letter) {
                let at = (x + column * scale, top + scale + row * scale);
                self.fill(at, (scale, scale), ink);
            }
            x += ADVANCE * scale;
        }
    }
}

/// The points of a letter: column and row.
fn points(letter: char) -> impl Iterator<Item = (u32, u32)> {
    let place = match u32::from(letter) {
        code @ 0x20..=0x7E => code as usize - 0x20,
        _ => 0x5F,
    };
    let (line, column) = (place / FONT_COLUMNS * FONT_LINES, place % FONT_COLUMNS);
    let first = column * ADVANCE as usize;
    let rows = FONT.lines().skip(line).take(LETTER.1 as usize).zip(0u32..);
    rows.flat_map(move |(text, row)| {
        let dots = text.bytes().skip(first).take(LETTER.0 as usize).zip(0u32..);
        dots.filter(|(dot, _)| *dot == b'#').map(move |(_, column)| (column, row))
    })
}

/// A side in whole pixels, inside of the picture.
fn whole(side: f32, size: u32) -> u32 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    let side = side.round().clamp(0.0, size as f32) as u32;
    side.min(size)
}

/// The colour of a class: hues by the golden ratio, so that neighbours differ.
fn colour(class: usize) -> Colour {
    let hue = (class % 1024 * 633) % 1024;
    let (sector, part) = (hue * 6 / 1024, hue * 6 % 1024);
    let up = u8::try_from(part * 255 / 1023).unwrap_or(u8::MAX);
    let down = 255 - up;
    match sector {
        0 => [255, up, 0],
        1 => [down, 255, 0],
        2 => [0, 255, up],
        3 => [0, down, 255],
        4 => [up, 0, 255],
        _ => [255, 0, down],
    }
}
