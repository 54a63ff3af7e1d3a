//! Inputs that are numbers, samples or words rather than features: how a bundle describes them.
//!
//! **Invariant:** what a front end makes has as many elements as its tensor.

use super::input::per;
use super::section::{Section, number, whole};
use crate::numbers::holds;
use crate::quantisation::Form;
use crate::tensor::Dtype;

/// How a recording's samples become a tensor, window by window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaveFront {
    /// The rate that the recording is resampled to, in Hz.
    pub sample_rate_hz: u32,
    /// New samples of a window.
    pub window_samples: usize,
    /// Samples before those of the window, which come first; zeros before the recording's beginning.
    pub context_samples: usize,
    /// Samples from one window to the next.
    pub step_samples: usize,
}

/// How numbers that a caller sends become a tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorFront {
    /// Numbers from one window to the next.
    pub step: usize,
    /// Subtracted from each number: one, or a list that is repeated over the window.
    pub mean: Vec<f32>,
    /// Divides after that: one, or a list that is repeated over the window.
    pub std: Vec<f32>,
}

/// How a text becomes a tensor: words, hashed into as many buckets as the tensor has elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextFront {
    /// The longest run of neighbouring words that counts, from 1.
    pub ngrams: usize,
    /// Whether the counts are divided by their L2 norm.
    pub normalise: bool,
}

/// Reads `[input.wave]`; `size` is the tensor's number of elements.
pub(super) fn wave(section: Section<'_>, size: Option<usize>) -> Option<WaveFront> {
    let rate = section.whole("sample_rate_hz", 4_000..=192_000);
    let window = section.whole("window_samples", 1..=rate.unwrap_or(192_000) * 60);
    let context = match section.has("context_samples") {
        true => section.whole("context_samples", 0..=1 << 20),
        false => Some(0),
    };
    let step = match section.has("step_samples") {
        true => section.whole("step_samples", 1..=window.unwrap_or(1).max(1)),
        false => window,
    };
    if let (Some(window), Some(context), Some(size)) = (window, context, size)
        && window + context != size
    {
        let want = format!("{size} together with context_samples, as the shape has");
        section.invalid::<()>("window_samples", window, &want);
    }
    section.finish();
    Some(WaveFront {
        sample_rate_hz: u32::try_from(rate?).ok()?,
        window_samples: window?,
        context_samples: context?,
        step_samples: step?,
    })
}

/// Reads `[input.tensor]`; `size` is the tensor's number of elements.
pub(super) fn tensor(
    section: Section<'_>,
    form: Option<&Form>,
    size: Option<usize>,
) -> Option<TensorFront> {
    let step = match section.has("step") {
        true => section.whole("step", 1..=size.unwrap_or(1).max(1)),
        false => Some(size.unwrap_or(1).max(1)),
    };
    let is_scaled = section.has("mean") || section.has("std");
    let mean = per(&section, "mean", None, "feature", 0.0, f32::MIN..=f32::MAX);
    let std = per(&section, "std", None, "feature", 1.0, 1e-9..=f32::MAX);
    for (key, list) in [("mean", &mean), ("std", &std)] {
        if let (Some(list), Some(size)) = (list, size)
            && !size.is_multiple_of(list.len())
        {
            let want = format!("a list whose length divides the {size} elements of the shape");
            section.invalid::<()>(key, format!("{} numbers", list.len()), &want);
        }
    }
    if is_scaled && form.is_some_and(|form| !form.is_scalable()) {
        let key = if section.has("mean") { "mean" } else { "std" };
        section.invalid::<()>(key, "present", "absent, as the tensor takes whole numbers");
    }
    section.finish();
    Some(TensorFront { step: step?, mean: mean?, std: std? })
}

/// Reads `[input.text]`.
pub(super) fn text(section: Section<'_>) -> Option<TextFront> {
    let features = section.choice("features", &[("hashed-words", ())]);
    let hash = section.choice("hash", &[("fnv1a-32", ())]);
    let ngrams = section.whole("ngrams", 1..=4);
    let normalise = section.choice("normalise", &[("none", false), ("l2", true)]);
    section.finish();
    features.and(hash)?;
    Some(TextFront { ngrams: ngrams?, normalise: normalise? })
}

/// Reads `[input.constant]`: one number for all elements, or as many as there are.
pub(super) fn constant(
    section: Section<'_>,
    dtype: Option<Dtype>,
    size: Option<usize>,
) -> Option<Vec<f64>> {
    let allowed = match (dtype, size) {
        (Some(dtype), Some(size)) => format!("a number of type {dtype}, or {size} of them"),
        _ => "a number, or a list of them".to_owned(),
    };
    let fits = |x: &f64| dtype.is_none_or(|dtype| holds(dtype, *x));
    let one = |v: &toml::Value| match v {
        toml::Value::Float(x) => Some(*x).filter(|x| x.is_finite()),
        toml::Value::Boolean(x) => Some(f64::from(u8::from(*x))),
        #[allow(clippy::cast_precision_loss, reason = "checked to be exact")]
        toml::Value::Integer(n) => (n.unsigned_abs() <= 1 << 53).then_some(*n as f64),
        _ => None,
    };
    let value = section.need("value", &allowed, |v| match v.as_array() {
        None => one(v).filter(fits).map(|x| vec![x; size.unwrap_or(1)]),
        Some(list) => {
            let list: Option<Vec<f64>> = list.iter().map(|v| one(v).filter(fits)).collect();
            list.filter(|list| size.is_none_or(|size| size == list.len()))
        }
    });
    section.finish();
    value
}

/// A tensor that is carried from one window of a recording to the next, of zeros at first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The name of the graph's input.
    pub input: String,
    /// The name of the graph's output that it becomes.
    pub output: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
}

/// Reads a `[[state]]`.
pub(super) fn state(section: Section<'_>) -> Option<State> {
    let input = section.text("input", 200);
    let output = section.text("output", 200);
    let dtype = section.choice("dtype", &Form::NUMBERS);
    let allowed = "a list of up to 6 whole numbers from 1, at most 16777216 elements in all";
    let shape = section.need("shape", allowed, |v| {
        let dims: Option<Vec<usize>> = v.as_array()?.iter().map(whole).collect();
        let dims = dims.filter(|dims| dims.len() <= 6)?;
        let size = dims.iter().try_fold(1usize, |n, dim| n.checked_mul(*dim))?;
        (1..=super::manifest::MAX_ELEMENTS).contains(&size).then_some(dims)
    });
    section.finish();
    Some(State { input: input?, output: output?, dtype: dtype?, shape: shape? })
}

/// Reads a number in a range, with a value for when it is absent.
pub(super) fn number_or(
    section: &Section<'_>,
    key: &str,
    default: f32,
    range: std::ops::RangeInclusive<f32>,
) -> Option<f32> {
    let allowed = format!("a number {}..={}", range.start(), range.end());
    section.or(key, default, &allowed, |v| number(v).filter(|x| range.contains(x)))
}
