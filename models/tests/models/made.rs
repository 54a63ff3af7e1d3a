//! Files made for the tests: bundles on disk and recordings in memory.

use std::fmt::Write as _;
use std::fs;
use std::io::Cursor;
use std::path::Path;

use sha2::{Digest, Sha256};

/// Writes a bundle: the manifest's text without its files, and the files, which are then listed.
pub(crate) fn bundle(dir: &Path, manifest: &str, files: &[(&str, &[u8])]) {
    let mut text = manifest.to_owned();
    for (path, bytes) in files {
        let target = dir.join(path);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(target, bytes).unwrap();
        let hash = sha256(bytes);
        write!(
            text,
            "\n[[file]]\npath = \"{path}\"\nbytes = {}\nsha256 = \"{hash}\"\n",
            bytes.len()
        )
        .unwrap();
    }
    fs::write(dir.join("bundle.toml"), text).unwrap();
}

/// A hash as manifests spell it.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A golden.toml.
pub(crate) fn goldens(list: &[(&str, &str, &[f32])]) -> String {
    let mut text = String::new();
    for (sample, variant, output) in list {
        write!(
            text,
            "[[golden]]\nsample = \"{sample}\"\nvariant = \"{variant}\"\noutput = {output:?}\n"
        )
        .unwrap();
    }
    text
}

/// A WAV file of 16-bit samples.
pub(crate) fn wav(rate: u32, channels: u16, samples: &[i16]) -> Vec<u8> {
    wav_of(rate, channels, 16, hound::SampleFormat::Int, samples)
}

/// A WAV file of any samples.
pub(crate) fn wav_of<S: hound::Sample + Copy>(
    rate: u32,
    channels: u16,
    bits: u16,
    format: hound::SampleFormat,
    samples: &[S],
) -> Vec<u8> {
    let spec = hound::WavSpec {
        channels,
        sample_rate: rate,
        bits_per_sample: bits,
        sample_format: format,
    };
    let mut file = Cursor::new(Vec::new());
    let mut writer = hound::WavWriter::new(&mut file, spec).unwrap();
    for sample in samples {
        writer.write_sample(*sample).unwrap();
    }
    writer.finalize().unwrap();
    file.into_inner()
}

/// A tone of half full scale.
pub(crate) fn tone(rate: u32, hz: f64, seconds: f64) -> Vec<i16> {
    let count = (f64::from(rate) * seconds).round() as usize;
    let turn = std::f64::consts::TAU * hz / f64::from(rate);
    (0..count).map(|n| ((turn * n as f64).sin() * 16_384.0).round() as i16).collect()
}
