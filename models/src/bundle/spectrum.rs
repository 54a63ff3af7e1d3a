//! Owns `[input.audio]`: how a recording becomes features of its spectrum.
//!
//! **Invariant:** a frame fits in the clip and in its transform, and no band is above half the rate.

use super::input::per;
use super::section::{Section, whole};

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

pub(super) fn read(section: Section<'_>) -> Option<AudioFront> {
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
