//! The front ends against the reference pipelines.

use std::fs;
use std::path::Path;

use holdfast_models::audio::AudioPipeline;
use holdfast_models::bundle::{AudioFront, Features, Fit, ImageFront, Layout, Normalise, Spectrum};
use holdfast_models::image::ImagePipeline;
use holdfast_models::quantisation::Form;
use holdfast_models::{Bundle, Media, MediaType, Model, Tract};

use crate::reference::{self, npy, npy_bytes, rows};
use crate::{made, pictures};

/// The numbers of the reference keyword model (PROVENANCE.md, KWS).
pub(crate) fn reference_front() -> AudioFront {
    AudioFront {
        sample_rate_hz: 16_000,
        clip_samples: 16_000,
        fit: Fit::Start,
        normalise: Normalise::Max,
        frame_samples: 480,
        step_samples: 320,
        fft: 512,
        spectrum: Spectrum::Magnitude,
        mel_bands: 40,
        mel_low_hz: 20.0,
        mel_high_hz: 4_000.0,
        log_floor: 1e-6,
        features: Features::Mfcc(10),
        mean: vec![0.0],
        std: vec![1.0],
    }
}

fn worst(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn each_step_of_the_audio_front_end_is_the_references() {
    let Some(dir) = reference::folder("steps of the audio front end") else { return };
    let golden = dir.join("models/golden/kws_frontend");
    let name = fs::read_to_string(golden.join("source_wav.txt")).unwrap();
    let name = Path::new(name.trim()).file_name().unwrap();
    let recording =
        AudioPipeline::decode(&fs::read(dir.join("data/kws_wav").join(name)).unwrap()).unwrap();

    let mut mfcc = AudioPipeline::new(&reference_front());
    let mut log_mel =
        AudioPipeline::new(&AudioFront { features: Features::LogMel, ..reference_front() });
    let mut off = Vec::new();
    let mut check = |file: &str, got: &[f32]| {
        off.push((file.to_owned(), worst(got, &npy(&golden.join(file)).1)));
    };
    check("wave_normalised.npy", mfcc.clip(&recording).unwrap());
    check("magnitude_49x257.npy", &mfcc.spectra());
    check("mel_matrix_257x40.npy", &mfcc.mel_matrix());
    log_mel.clip(&recording).unwrap();
    let mut features = vec![0.0; 49 * 40];
    log_mel.features(&mut features);
    check("logmel_49x40.npy", &features);
    let mut features = vec![0.0; 49 * 10];
    mfcc.features(&mut features);
    check("mfcc_49x10.npy", &features);
    println!("largest differences: {off:?}");
    assert!(off.iter().all(|(_, off)| *off <= 1e-3), "{off:?}");
}

#[test]
fn the_features_of_every_recording_are_the_references() {
    let Some(dir) = reference::folder("features of 96 recordings") else { return };
    let (shape, want) = npy(&dir.join("data/kws_features/wav_mfcc_f32.npy"));
    assert_eq!(shape, [96, 49, 10, 1]);
    let mut pipeline = AudioPipeline::new(&reference_front());
    let mut features = vec![0.0; 49 * 10];
    let mut largest = 0.0f32;
    for (row, want) in rows(&dir.join("data/kws_wav/labels.csv")).iter().zip(want.chunks_exact(490))
    {
        let bytes = fs::read(dir.join("data/kws_wav").join(&row[0])).unwrap();
        pipeline.clip(&AudioPipeline::decode(&bytes).unwrap()).unwrap();
        pipeline.features(&mut features);
        let off = worst(&features, want);
        assert!(off <= 1e-3, "{}: off by {off}", row[0]);
        largest = largest.max(off);
    }
    println!("96 recordings, largest difference {largest:e}");
}

#[test]
fn the_reference_keyword_model_is_as_accurate_as_stated() {
    let Some(dir) = reference::folder("accuracy of the reference keyword model") else { return };
    let labels = fs::read_to_string(dir.join("models/kws_labels.txt")).unwrap();
    let labels: Vec<&str> = labels.split_whitespace().collect();
    let recordings = rows(&dir.join("data/kws_wav/labels.csv"));
    let onnx = fs::read(dir.join("models/kws_dscnn_fp32.onnx")).unwrap();
    let sample = fs::read(dir.join("data/kws_wav").join(&recordings[0][0])).unwrap();

    // The golden is what tract gives for the reference's own features, so the check at load
    // compares our front end with the reference's.
    let (_, features) = npy(&dir.join("data/kws_features/wav_mfcc_f32.npy"));
    let golden = crate::runtimes::run(
        &onnx,
        ("input_1", &[1, 49, 10, 1]),
        ("Identity", &[1, 12]),
        &features[..490],
    );
    let goldens = made::goldens(&[("sample.wav", "fp32", &golden.unwrap())]);
    let manifest = format!(
        r#"
format = 1
name = "reference-keywords"
version = "1.0.0"
task = "keywords"
kind = "classification"
description = "the MLPerf Tiny keyword model"
licence = "Apache-2.0"
[provenance]
trained_by = "mlcommons/tiny"
data = ["Speech Commands v0.02 (Pete Warden, Google), CC BY 4.0"]
seed = 0
date = "2026-11-20"
[[input]]
name = "input_1"
dtype = "f32"
shape = [1, 49, 10, 1]
[input.audio]
sample_rate_hz = 16000
clip_samples = 16000
fit = "start"
normalise = "max"
frame_samples = 480
step_samples = 320
window = "hann"
fft = 512
spectrum = "magnitude"
mel_bands = 40
mel_low_hz = 20.0
mel_high_hz = 4000.0
mel_scale = "htk"
log_floor = 1e-6
features = "mfcc"
mfcc = 10
[[output]]
name = "Identity"
dtype = "f32"
shape = [1, 12]
meaning = "probabilities"
labels = {labels:?}
threshold = 0.5
[[variant]]
name = "fp32"
precision = "fp32"
file = "model.onnx"
tolerance = 0.001
accuracy = 0.906
[[sample]]
file = "sample.wav"
label = "{}"
"#,
        recordings[0][2]
    );
    let bundle_dir = tempfile::tempdir().unwrap();
    made::bundle(
        bundle_dir.path(),
        &manifest,
        &[("model.onnx", &onnx), ("sample.wav", &sample), ("golden.toml", goldens.as_bytes())],
    );
    let bundle = Bundle::open(bundle_dir.path()).unwrap();
    let mut model = Model::load(&bundle, None, &Tract).unwrap();
    let mut right = 0;
    for row in &recordings {
        let media =
            Media::detect(fs::read(dir.join("data/kws_wav").join(&row[0])).unwrap(), None).unwrap();
        let answer = model.infer(&media).unwrap();
        right += usize::from(answer.classes()[0].label == row[2]);
    }
    println!("reference keyword model: {right}/96");
    assert!((86..=88).contains(&right), "{right}/96, PROVENANCE.md states 87/96");
}

#[test]
fn stretched_photos_are_pillows() {
    let Some(dir) = reference::folder("45 photos at 96x96") else { return };
    let (shape, want) = npy_bytes(&dir.join("data/images/vww_96x96_rgb_u8.npy"));
    assert_eq!(shape, [45, 96, 96, 3]);
    let mut pipeline = ImagePipeline::new(
        &ImageFront { layout: Layout::Nhwc, ..pictures::front(96, 96) },
        &Form::PLAIN,
    );
    let mut tensor = vec![0.0; 96 * 96 * 3];
    let (mut largest, mut sum) = (0, 0u64);
    for (row, want) in
        rows(&dir.join("data/images/labels.csv")).iter().zip(want.chunks_exact(96 * 96 * 3))
    {
        let bytes = fs::read(dir.join("data/images").join(&row[0])).unwrap();
        let decoded = ImagePipeline::decode(&bytes, MediaType::Jpeg).unwrap();
        let got = pipeline.fit(decoded).unwrap().data().to_vec();
        let off = got.iter().zip(want).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        // The JPEG decoders differ by a step or two; the filter itself is compared elsewhere.
        assert!(off <= 2, "{}: a step is off by {off}", row[0]);
        largest = largest.max(off);
        sum += got.iter().zip(want).map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>();
        pipeline.tensor(&mut tensor);
        assert!(
            tensor.iter().zip(&got).all(|(x, step)| (x * 255.0 - f32::from(*step)).abs() < 1e-3)
        );
    }
    let mean = sum as f64 / (45.0 * 96.0 * 96.0 * 3.0);
    println!("45 photos: largest difference {largest} steps, mean {mean:.4}");
    assert!(mean < 0.3, "mean difference {mean} steps");
}

#[test]
fn the_audio_front_end_takes_under_a_millisecond() {
    // The bar holds for an optimised build on an idle core; this is a ceiling for a shared one.
    let samples = made::tone(16_000, 440.0, 1.0);
    let recording = AudioPipeline::decode(&made::wav(16_000, 1, &samples)).unwrap();
    let mut pipeline = AudioPipeline::new(&reference_front());
    let mut features = vec![0.0; 49 * 10];
    let mut best = std::time::Duration::MAX;
    for _ in 0..50 {
        #[allow(clippy::disallowed_methods, reason = "a measurement")]
        let began = std::time::Instant::now();
        pipeline.clip(&recording).unwrap();
        pipeline.features(&mut features);
        best = best.min(began.elapsed());
    }
    println!("audio front end, 1 s of audio: {best:?} at best");
    assert_eq!(features.len(), 490);
    assert!(best.as_micros() < 5_000, "{best:?}");
}
