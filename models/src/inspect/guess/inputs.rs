//! What an input is probably made of.
//!
//! **Invariant:** pure; what was guessed, and what nobody but the model's maker knows, has a note.

use super::{DraftInput, DraftOutput, Hints, Note, Source, guessed, missing};
use crate::bundle::{Layout, MediaKind};
use crate::tensor::Dtype;

/// Rates at which speech and sounds are usually recorded for models, in Hz.
const SAMPLE_RATE: u32 = 16_000;
/// Words in the name of an input that takes samples of sound.
const WAVE_NAMES: [&str; 6] = ["audio", "pcm", "samples", "speech", "wav", "signal"];
/// An input with its most likely source.
pub(super) fn input(
    tensor: DraftOutput,
    has_state: bool,
    hints: &Hints,
    notes: &mut Vec<Note>,
) -> DraftInput {
    let own = tensor.name.clone();
    let key = |what: &str| format!("input {own}: {what}");
    let name = own.to_ascii_lowercase();
    let is_whole = !matches!(tensor.dtype, Dtype::F16 | Dtype::F32 | Dtype::F64);
    let scalable = matches!(tensor.dtype, Dtype::F16 | Dtype::F32 | Dtype::I8 | Dtype::U8);
    let size: usize = tensor.shape.iter().product();
    if tensor.shape.is_empty() || (size == 1 && is_whole) {
        let is_rate = matches!(&*name, "sr" | "rate" | "sample_rate" | "sampling_rate");
        let value = if is_rate { i64::from(SAMPLE_RATE) } else { 0 };
        notes.push(match is_rate {
            true => guessed(key("constant"), format!("the rate is {value} Hz")),
            false => missing(key("constant"), "which value it has, if it is always the same"),
        });
        return DraftInput { tensor, source: Source::Constant(value) };
    }
    if let Some(image) = image(&tensor.shape, hints.sample).filter(|_| scalable) {
        return picture(tensor, image, key, notes);
    }
    let is_wave = matches!(tensor.shape.as_slice(), [1, _] | [1, 1, _])
        && matches!(tensor.dtype, Dtype::F16 | Dtype::F32)
        && (hints.sample == Some(MediaKind::Audio)
            || has_state && size > 64
            || WAVE_NAMES.iter().any(|word| name.contains(word)));
    if is_wave {
        let what = format!("samples of a recording at {SAMPLE_RATE} Hz");
        notes.push(guessed(key("wave"), what));
        let what = "whether a window begins with samples of the one before it (context_samples), and \
                    how far apart windows are (step_samples; here one begins where the last ends)";
        notes.push(missing(key("context_samples and step_samples"), what));
        let source = Source::Wave { sample_rate_hz: SAMPLE_RATE, window: size };
        return DraftInput { tensor, source };
    }
    numbers(tensor, key, hints, notes)
}

/// An input that is made of a picture.
fn picture(
    mut tensor: DraftOutput,
    image: Source,
    key: impl Fn(&str) -> String,
    notes: &mut Vec<Note>,
) -> DraftInput {
    notes.push(guessed(key("image"), format!("a picture, as its shape is {:?}", tensor.shape)));
    match tensor.dtype {
        Dtype::U8 | Dtype::I8 => {
            let zero = if tensor.dtype == Dtype::I8 { -128 } else { 0 };
            tensor.scale = Some((1.0 / 255.0, zero));
            let what = "each byte of a pixel as it is, from the least integer on";
            notes.push(guessed(key("scale"), what));
        }
        _ => {
            let what = "how pixels became numbers in training: here 0..=255 became 0..=1; mean and \
                        std are of that range, one for all or one a channel";
            notes.push(missing(key("mean and std"), what));
        }
    }
    let what = "what happened to the aspect ratio (stretch, crop or letterbox), and the filter";
    notes.push(missing(key("resize"), what));
    DraftInput { tensor, source: image }
}

/// An input of numbers as they are, as long as nobody says what they are made of.
fn numbers(
    tensor: DraftOutput,
    key: impl Fn(&str) -> String,
    hints: &Hints,
    notes: &mut Vec<Note>,
) -> DraftInput {
    let what = match hints.sample {
        Some(MediaKind::Audio) => {
            "how the recording becomes these features: write [input.audio] in the place of \
             [input.tensor]; models/README.md has its keys"
        }
        Some(MediaKind::Image) => {
            "how the picture becomes these numbers: write [input.image] in the place of \
             [input.tensor]; models/README.md has its keys"
        }
        _ => {
            "numbers as they are: if they are made of a recording, a picture or a text, write \
             [input.audio], [input.image] or [input.text] instead; mean and std if they are scaled"
        }
    };
    notes.push(missing(key("tensor"), what));
    if !matches!(hints.sample, Some(MediaKind::Audio | MediaKind::Image)) {
        let what = "how many numbers further the next window begins, where one body holds several \
                    (here one begins where the last ends)";
        notes.push(missing(key("step"), what));
    }
    DraftInput { tensor, source: Source::Numbers }
}

/// A picture's tensor has one channel or three, and more than a few rows and columns.
fn image(dims: &[usize], sample: Option<MediaKind>) -> Option<Source> {
    let &[1, a, b, c] = dims else { return None };
    let is_side = |side: usize| (8..=4096).contains(&side);
    let (layout, channels, height, width) = if matches!(a, 1 | 3) && is_side(b) && is_side(c) {
        (Layout::Nchw, a, b, c)
    } else if matches!(c, 1 | 3) && is_side(a) && is_side(b) {
        (Layout::Nhwc, c, a, b)
    } else {
        return None;
    };
    // One channel may as well be the features of a sound.
    let is_likely = match sample {
        Some(kind) => kind == MediaKind::Image,
        None => channels == 3 || width == height,
    };
    is_likely.then_some(Source::Image { width, height, is_gray: channels == 1, layout })
}
