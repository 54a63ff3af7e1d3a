//! What a graph takes: the tensor, and how what a caller sends becomes it.
//!
//! **Invariant:** the preprocessing gives exactly as many elements as the tensor's shape.

use toml::Value;

use super::manifest::MAX_ELEMENTS;
use super::section::{Section, number, whole};
use super::series::{self, TensorFront, TextFront, WaveFront};
use crate::quantisation::{Form, Rounding, Scale};
use crate::runtime::TensorSpec;
use crate::tensor::Dtype;

/// The input of a graph and the preprocessing in front of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// The tensor's name in the graph.
    pub name: String,
    /// Its element type, and what its integers stand for.
    pub form: Form,
    /// Its shape; batch 1 first where the batch is free.
    pub shape: Vec<usize>,
    /// Whether the graph takes any batch.
    pub free_batch: bool,
    /// How it is made.
    pub front: Front,
}

impl Input {
    /// Number of elements, of one window.
    pub fn size(&self) -> usize {
        self.shape.iter().product()
    }

    /// The type of the numbers that a caller sends: f32 where they are turned into others here.
    pub fn sent_dtype(&self) -> Dtype {
        if self.form.is_scalable() { Dtype::F32 } else { self.form.dtype }
    }

    /// Whether no caller sends it.
    pub fn is_constant(&self) -> bool {
        matches!(self.front, Front::Constant(_))
    }

    /// The tensor.
    pub fn spec(&self) -> TensorSpec {
        TensorSpec {
            free_batch: self.free_batch,
            ..TensorSpec::pinned(&*self.name, self.form.dtype, &self.shape)
        }
    }
}

/// The preprocessing.
#[derive(Debug, Clone, PartialEq)]
pub enum Front {
    /// From a recording, as features of its spectrum.
    Audio(AudioFront),
    /// From a picture.
    Image(ImageFront),
    /// From a recording, as samples.
    Wave(WaveFront),
    /// From numbers.
    Tensor(TensorFront),
    /// From a text.
    Text(TextFront),
    /// From nothing: always these elements.
    Constant(Vec<f64>),
}

/// How a recording becomes a tensor of features, `[frames, columns]`.
#[derive(Debug, Clone, PartialEq)]
pub struct AudioFront {
    /// The rate that the clip is resampled to, in Hz.
    pub sample_rate_hz: u32,
    /// Length of the clip in samples at that rate.
    pub clip_samples: usize,
    /// Which part of a longer recording is taken.
    pub fit: Fit,
    /// How the clip's level is set.
    pub normalise: Normalise,
    /// Samples in a frame.
    pub frame_samples: usize,
    /// Samples from one frame to the next.
    pub step_samples: usize,
    /// Points of the Fourier transform; a frame is padded with zeros to it.
    pub fft: usize,
    /// What is taken of each bin.
    pub spectrum: Spectrum,
    /// Number of mel bands.
    pub mel_bands: usize,
    /// Lower edge of the first band, in Hz.
    pub mel_low_hz: f32,
    /// Upper edge of the last band, in Hz.
    pub mel_high_hz: f32,
    /// Added before the logarithm.
    pub log_floor: f32,
    /// What is taken of the log-mel bands.
    pub features: Features,
    /// Subtracted from each column: one value, or one a column.
    pub mean: Vec<f32>,
    /// Divides each column: one value, or one a column.
    pub std: Vec<f32>,
}

impl AudioFront {
    /// Number of whole frames in a clip.
    pub fn frames(&self) -> usize {
        (self.clip_samples - self.frame_samples) / self.step_samples + 1
    }

    /// Values a frame.
    pub fn columns(&self) -> usize {
        match self.features {
            Features::LogMel => self.mel_bands,
            Features::Mfcc(count) => count,
        }
    }
}

/// Which part of a recording longer than the clip is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// The first samples.
    Start,
    /// The window with the most energy, the first of equal ones.
    Loudest,
}

/// How the level of a clip is set, before it is padded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Normalise {
    /// Left as it is.
    None,
    /// Divided by its largest sample, with its sign; zeros when that is not above 0.
    Max,
    /// Divided by its largest magnitude; zeros when that is 0.
    Peak,
}

/// What is taken of each bin of the Fourier transform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spectrum {
    /// The magnitude.
    Magnitude,
    /// The squared magnitude.
    Power,
}

/// What is taken of the log-mel bands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Features {
    /// All of them.
    LogMel,
    /// The first coefficients of their DCT-II, each scaled by sqrt(2 / bands).
    Mfcc(usize),
}

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

/// The tables that say how an input is made, one of which each has.
const FRONTS: [&str; 6] = ["audio", "image", "wave", "tensor", "text", "constant"];

pub(super) fn read(section: Section<'_>) -> Option<Input> {
    let name = section.text("name", 200);
    let kind = front_of(&section);
    let form = match kind {
        Some("tensor" | "constant") => open_form(&section),
        _ => form(&section),
    };
    let shape = match kind {
        Some("audio" | "image") | None => shape(&section),
        Some(_) => open_shape(&section),
    };
    let size = shape.as_ref().map(|(dims, _)| dims.iter().product());
    let front = kind.and_then(|kind| {
        let table = section.child(kind)?;
        match kind {
            "audio" => read_audio(table).map(Front::Audio),
            "image" => read_image(table).map(Front::Image),
            "wave" => series::wave(table, size).map(Front::Wave),
            "tensor" => series::tensor(table, form.as_ref(), size).map(Front::Tensor),
            "text" => series::text(table).map(Front::Text),
            _ => series::constant(table, form.map(|form| form.dtype), size).map(Front::Constant),
        }
    });
    if let (Some(front), Some((shape, _))) = (&front, &shape) {
        check_shape(&section, front, shape);
    }
    section.finish();
    let (shape, free_batch) = shape?;
    Some(Input { name: name?, form: form?, shape, free_batch, front: front? })
}

/// Which of the tables there is; only one may be.
fn front_of(section: &Section<'_>) -> Option<&'static str> {
    let mut there = FRONTS.into_iter().filter(|kind| section.has(kind));
    let Some(first) = there.next() else {
        let others = "here, or else [input.image], [input.wave], [input.tensor], [input.text] or \
                      [input.constant]";
        return section.need("audio", others, |_| None);
    };
    for other in there {
        let allowed = format!("absent beside [input.{first}]");
        section.need::<()>(other, &allowed, |_| None);
    }
    Some(first)
}

/// The element type of a tensor that need not stand for other numbers.
pub(super) fn open_form(section: &Section<'_>) -> Option<Form> {
    if section.has("scale") || section.has("zero_point") {
        return form(section);
    }
    let dtype = section.choice("dtype", &Form::NUMBERS)?;
    Some(Form { dtype, scale: None })
}

/// The element type; integers need a scale, other types have none.
pub(super) fn form(section: &Section<'_>) -> Option<Form> {
    let dtype = section.choice("dtype", &Form::DTYPES);
    let range = match dtype {
        Some(Dtype::I8) => -128..=127,
        Some(Dtype::U8) => 0..=255,
        _ => {
            for key in
                ["scale", "zero_point", "rounding"].into_iter().filter(|key| section.has(key))
            {
                let allowed = "absent, as dtype is not \"i8\" or \"u8\"";
                section.need::<()>(key, allowed, |_| None);
            }
            return Some(Form { dtype: dtype?, scale: None });
        }
    };
    let scale = section.number("scale", 1e-12..=1e12);
    let allowed = format!("a whole number {}..={}", range.start(), range.end());
    let zero_point = section.need("zero_point", &allowed, |value| {
        let number = i32::try_from(value.as_integer()?).ok()?;
        range.contains(&number).then_some(number)
    });
    let roundings = [("nearest", Rounding::Nearest), ("truncate", Rounding::Truncate)];
    let rounding = match section.has("rounding") {
        true => section.choice("rounding", &roundings),
        false => Some(Rounding::Nearest),
    };
    let scale = Scale { scale: scale?, zero_point: zero_point?, rounding: rounding? };
    Some(Form { dtype: dtype?, scale: Some(scale) })
}

/// A shape with batch 1 and a bounded number of elements, and whether the batch is free.
pub(super) fn shape(section: &Section<'_>) -> Option<(Vec<usize>, bool)> {
    let allowed = format!(
        "1 followed by up to 5 whole numbers from 1, at most {MAX_ELEMENTS} elements in all; \
         \"batch\" or -1 instead of the 1 where the graph takes any batch"
    );
    section.need("shape", &allowed, |v| {
        let list = v.as_array().filter(|list| (2..=6).contains(&list.len()))?;
        let (first, rest) = list.split_first()?;
        let is_free = is_any_batch(first);
        if !is_free && whole(first) != Some(1) {
            return None;
        }
        let mut dims = vec![1];
        dims.extend(rest.iter().map(whole).collect::<Option<Vec<usize>>>()?);
        let size = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        (1..=MAX_ELEMENTS).contains(&size).then_some((dims, is_free))
    })
}

/// A shape of any rank with a bounded number of elements, and whether the batch is free: then its
/// first dimension is 1 here.
pub(super) fn open_shape(section: &Section<'_>) -> Option<(Vec<usize>, bool)> {
    let allowed = format!(
        "a list of up to 6 whole numbers from 1, at most {MAX_ELEMENTS} elements in all; \"batch\" \
         or -1 first where the graph takes any batch"
    );
    section.need("shape", &allowed, |v| {
        let list = v.as_array().filter(|list| list.len() <= 6)?;
        let is_free = list.first().is_some_and(is_any_batch);
        let first = is_free.then_some(1);
        let rest = list.iter().skip(usize::from(is_free)).map(whole).collect::<Option<Vec<_>>>()?;
        let dims: Vec<usize> = first.into_iter().chain(rest).collect();
        let size = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        (1..=MAX_ELEMENTS).contains(&size).then_some((dims, is_free))
    })
}

fn is_any_batch(first: &Value) -> bool {
    first.as_str() == Some("batch") || first.as_integer() == Some(-1)
}

/// The shape must be what the preprocessing makes; dimensions of 1 may stand anywhere in features.
fn check_shape(section: &Section<'_>, front: &Front, shape: &[usize]) {
    let without_ones =
        |dims: &[usize]| -> Vec<usize> { dims.iter().copied().filter(|&d| d != 1).collect() };
    let (fits, want) = match front {
        Front::Audio(audio) => {
            let made = [audio.frames(), audio.columns()];
            let want = format!("{} frames by {} columns, as [input.audio] makes", made[0], made[1]);
            (without_ones(shape) == without_ones(&made), want)
        }
        Front::Image(image) => {
            let (c, h, w) = (image.channels.count(), image.height as usize, image.width as usize);
            let made = match image.layout {
                Layout::Nchw => [1, c, h, w],
                Layout::Nhwc => [1, h, w, c],
            };
            (shape == made, format!("{made:?}, as [input.image] makes"))
        }
        Front::Wave(_) | Front::Tensor(_) | Front::Text(_) | Front::Constant(_) => return,
    };
    if !fits {
        section.invalid::<()>("shape", format!("{shape:?}"), &want);
    }
}

fn read_audio(section: Section<'_>) -> Option<AudioFront> {
    let sample_rate = section.whole("sample_rate_hz", 4_000..=192_000);
    let clip = section.whole("clip_samples", 16..=sample_rate.unwrap_or(192_000) * 60);
    let fit = section.choice("fit", &[("start", Fit::Start), ("loudest", Fit::Loudest)]);
    let levels = [("none", Normalise::None), ("max", Normalise::Max), ("peak", Normalise::Peak)];
    let normalise = section.choice("normalise", &levels);
    let frame = section.whole("frame_samples", 16..=clip.unwrap_or(16_384).clamp(16, 16_384));
    let step = section.whole("step_samples", 1..=clip.unwrap_or(16_384).max(1));
    let window = section.choice("window", &[("hann", ())]);
    let fft = section.whole("fft", frame.unwrap_or(16)..=32_768);
    let spectrum = section
        .choice("spectrum", &[("magnitude", Spectrum::Magnitude), ("power", Spectrum::Power)]);
    let mel_bands = section.whole("mel_bands", 1..=256);
    let nyquist = sample_rate.map_or(96_000.0, |rate| rate as f32 / 2.0);
    let mel_low = section.number("mel_low_hz", 0.0..=nyquist);
    let mel_high = section.number("mel_high_hz", 0.0..=nyquist);
    if let (Some(low), Some(high)) = (mel_low, mel_high)
        && low >= high
    {
        section.invalid::<()>("mel_high_hz", high, "above mel_low_hz");
    }
    let mel_scale = section.choice("mel_scale", &[("htk", ())]);
    let log_floor = section.number("log_floor", 1e-12..=1.0);
    let is_mfcc = section.choice("features", &[("log-mel", false), ("mfcc", true)]);
    let features = match is_mfcc {
        Some(true) => section.whole("mfcc", 1..=mel_bands.unwrap_or(256)).map(Features::Mfcc),
        Some(false) if section.has("mfcc") => {
            section.need("mfcc", "absent, as features is not \"mfcc\"", |_| None)
        }
        Some(false) => Some(Features::LogMel),
        None => {
            section.or("mfcc", 1, "a whole number from 1", whole);
            None
        }
    };
    let columns = match features {
        Some(Features::Mfcc(count)) => Some(count),
        Some(Features::LogMel) => mel_bands,
        None => None,
    };
    let mean = per(&section, "mean", columns, "column", 0.0, f32::MIN..=f32::MAX);
    let std = per(&section, "std", columns, "column", 1.0, 1e-9..=f32::MAX);
    section.finish();
    window.and(mel_scale)?;
    Some(AudioFront {
        sample_rate_hz: u32::try_from(sample_rate?).ok()?,
        clip_samples: clip?,
        fit: fit?,
        normalise: normalise?,
        frame_samples: frame?,
        step_samples: step?,
        fft: fft?,
        spectrum: spectrum?,
        mel_bands: mel_bands?,
        mel_low_hz: mel_low?,
        mel_high_hz: mel_high?,
        log_floor: log_floor?,
        features: features?,
        mean: mean?,
        std: std?,
    })
}

fn read_image(section: Section<'_>) -> Option<ImageFront> {
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

/// A number for all, or a list with one for each of `count`.
pub(super) fn per(
    section: &Section<'_>,
    key: &str,
    count: Option<usize>,
    what: &str,
    default: f32,
    range: std::ops::RangeInclusive<f32>,
) -> Option<Vec<f32>> {
    let above = if *range.start() > 0.0 { " above 0" } else { "" };
    let allowed = match count {
        Some(count) => format!("a number{above}, or {count} of them, one a {what}"),
        None => format!("a number{above}, or one a {what}"),
    };
    section.or(key, vec![default], &allowed, |v| match v.as_array() {
        None => number(v).filter(|x| range.contains(x)).map(|x| vec![x]),
        Some(list) => {
            let list: Option<Vec<f32>> =
                list.iter().map(|v| number(v).filter(|x| range.contains(x))).collect();
            list.filter(|l| !l.is_empty() && count.is_none_or(|n| n == l.len()))
        }
    })
}
