//! Reads WAV files: PCM of 8, 16, 24 or 32 bits, float of 32 bits, any number of channels to mono.
//!
//! **Invariant:** memory follows the bytes that are there, never a length that a header claims.

use std::io::Cursor;

use hound::{SampleFormat, WavReader};

/// Longest recording that is taken, in seconds.
pub const MAX_SECONDS: u32 = 60;
/// Sample rates that are taken, in Hz.
const RATES: std::ops::RangeInclusive<u32> = 4_000..=192_000;
/// Most channels that are taken.
const MAX_CHANNELS: u16 = 32;
/// Largest magnitude of a float sample; full scale is 1.
const MAX_FLOAT: f32 = 65_536.0;

/// A recording as mono samples, full scale 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    /// The samples; never empty.
    pub samples: Vec<f32>,
    /// Samples a second.
    pub rate: u32,
}

/// Why a recording was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AudioError {
    /// Not a WAV file, or a damaged one.
    #[error("WAV damaged: {0}; send a complete RIFF/WAVE file")]
    Malformed(String),
    /// The data ends before the header says.
    #[error("WAV truncated: the header says {want} samples, {got} are there; send the whole file")]
    Truncated {
        /// Samples that the header states, over all channels.
        want: u32,
        /// Samples that are there.
        got: u32,
    },
    /// No samples.
    #[error("WAV holds no samples; send at least one")]
    Empty,
    /// A kind of WAV that is not taken.
    #[error("WAV encoding not taken: {0}; send PCM of 8, 16, 24 or 32 bits or float of 32 bits")]
    Encoding(String),
    /// The sample rate is out of range.
    #[error("WAV sample rate {0} Hz not taken: must be 4000..=192000 Hz")]
    Rate(u32),
    /// Too many channels.
    #[error("WAV with {0} channels not taken: must be 1..=32")]
    Channels(u16),
    /// Too long.
    #[error("WAV of {0:.1} s is too long: at most 60 s, send a shorter part")]
    TooLong(f64),
    /// A sample is not a number, or far beyond full scale.
    #[error("WAV sample {0} is not a finite number of at most 65536: full scale is 1.0")]
    Sample(usize),
    /// The resampler failed; a fault of this program.
    #[error("resampling from {rate} Hz failed: {why}")]
    Resample {
        /// The recording's rate in Hz.
        rate: u32,
        /// The reason.
        why: String,
    },
}

/// Decodes to mono, each sample the mean over the channels.
pub(super) fn decode(bytes: &[u8]) -> Result<Recording, AudioError> {
    let malformed = |why: &str| AudioError::Malformed(why.to_owned());
    check_encoding(bytes)?;
    let mut reader = WavReader::new(Cursor::new(bytes)).map_err(|e| match e {
        hound::Error::Unsupported => AudioError::Encoding("a compressed or unknown format".into()),
        hound::Error::FormatError(why) => malformed(why),
        _ => malformed("its header is incomplete"),
    })?;
    let spec = reader.spec();
    if !RATES.contains(&spec.sample_rate) {
        return Err(AudioError::Rate(spec.sample_rate));
    }
    if !(1..=MAX_CHANNELS).contains(&spec.channels) {
        return Err(AudioError::Channels(spec.channels));
    }
    if reader.duration() == 0 {
        return Err(AudioError::Empty);
    }
    if u64::from(reader.duration()) > u64::from(MAX_SECONDS) * u64::from(spec.sample_rate) {
        return Err(AudioError::TooLong(
            f64::from(reader.duration()) / f64::from(spec.sample_rate),
        ));
    }
    // A sample takes at least a byte, so this bounds the memory by what was sent.
    let there = usize::try_from(reader.duration()).unwrap_or(usize::MAX).min(bytes.len());
    let mut mono = Mono::new(spec.channels, there);
    match (spec.sample_format, spec.bits_per_sample) {
        (SampleFormat::Float, 32) => read(&mut reader, &mut mono, |x: f32| x)?,
        (SampleFormat::Int, bits @ (8 | 16 | 24 | 32)) => {
            let scale = 0.5f32.powi(i32::from(bits) - 1);
            // An i32 has more digits than an f32; rounding to the nearest is meant.
            read(&mut reader, &mut mono, |x: i32| x as f32 * scale)?;
        }
        (format, bits) => {
            return Err(AudioError::Encoding(format!("{bits} bits, {format:?}").to_lowercase()));
        }
    }
    Ok(Recording { samples: mono.samples, rate: spec.sample_rate })
}

/// Refuses what is a WAV of another encoding, which the reader would call damaged.
///
/// The format chunk begins with the encoding (1 PCM, 3 float, 0xFFFE: stated further on) and ends,
/// for these, with the bits of a sample; all numbers are of 16 bits, little-endian.
fn check_encoding(bytes: &[u8]) -> Result<(), AudioError> {
    let Some(start) = bytes.get(12..).and_then(|b| b.windows(4).position(|w| w == b"fmt ")) else {
        return Ok(());
    };
    let number = |at: usize| -> Option<u16> {
        let field = bytes.get(12 + start + 8 + at..)?.first_chunk()?;
        Some(u16::from_le_bytes(*field))
    };
    let (Some(encoding), Some(bits)) = (number(0), number(14)) else { return Ok(()) };
    let name = match (encoding, bits) {
        (1, 8 | 16 | 24 | 32) | (3, 32) | (0xFFFE, _) => return Ok(()),
        (1, _) => format!("PCM of {bits} bits"),
        (3, _) => format!("float of {bits} bits"),
        (2 | 0x11, _) => "ADPCM".to_owned(),
        (6, _) => "A-law".to_owned(),
        (7, _) => "mu-law".to_owned(),
        (0x55, _) => "MP3".to_owned(),
        (other, _) => format!("format {other:#06x}"),
    };
    Err(AudioError::Encoding(name))
}

fn read<S: hound::Sample>(
    reader: &mut WavReader<Cursor<&[u8]>>,
    mono: &mut Mono,
    scale: impl Fn(S) -> f32,
) -> Result<(), AudioError> {
    let want = reader.len();
    for (got, sample) in (0..want).zip(reader.samples::<S>()) {
        let sample = sample.map_err(|e| match e {
            hound::Error::IoError(_) => AudioError::Truncated { want, got },
            other => AudioError::Encoding(other.to_string()),
        })?;
        let sample = scale(sample);
        if !sample.is_finite() || sample.abs() > MAX_FLOAT {
            return Err(AudioError::Sample(mono.samples.len()));
        }
        mono.push(sample);
    }
    Ok(())
}

/// Averages the channels.
struct Mono {
    samples: Vec<f32>,
    channels: u16,
    sum: f32,
    seen: u16,
}

impl Mono {
    fn new(channels: u16, frames: usize) -> Self {
        Self { samples: Vec::with_capacity(frames), channels, sum: 0.0, seen: 0 }
    }

    fn push(&mut self, sample: f32) {
        if self.channels == 1 {
            self.samples.push(sample);
            return;
        }
        self.sum += sample;
        self.seen += 1;
        if self.seen == self.channels {
            self.samples.push(self.sum / f32::from(self.channels));
            (self.sum, self.seen) = (0.0, 0);
        }
    }
}
