//! Recordings of every kind: how they are read, brought to one rate, cut and levelled.

use holdfast_models::audio::{AudioError, AudioPipeline, Recording};
use holdfast_models::bundle::{AudioFront, Features, Fit, Normalise, Spectrum};
use hound::SampleFormat;

use crate::front_end::reference_front;
use crate::made::{tone, wav, wav_of};

fn decode(bytes: &[u8]) -> Result<Recording, AudioError> {
    AudioPipeline::decode(bytes)
}

#[test]
fn every_sample_format_gives_the_same_recording() {
    let samples = tone(16_000, 440.0, 0.1);
    let want: Vec<f32> = samples.iter().map(|s| f32::from(*s) / 32_768.0).collect();
    let wide: Vec<i32> = samples.iter().map(|s| i32::from(*s) << 8).collect();
    let widest: Vec<i32> = samples.iter().map(|s| i32::from(*s) << 16).collect();
    let narrow: Vec<i8> = samples.iter().map(|s| (s >> 8) as i8).collect();
    let cases = [
        ("8 bits", wav_of(16_000, 1, 8, SampleFormat::Int, &narrow), 1.0 / 128.0),
        ("16 bits", wav(16_000, 1, &samples), 0.0),
        ("24 bits", wav_of(16_000, 1, 24, SampleFormat::Int, &wide), 0.0),
        ("32 bits", wav_of(16_000, 1, 32, SampleFormat::Int, &widest), 0.0),
        ("float", wav_of(16_000, 1, 32, SampleFormat::Float, &want), 0.0),
    ];
    for (name, bytes, allowed) in cases {
        let got = decode(&bytes).unwrap();
        assert_eq!((got.rate, got.samples.len()), (16_000, want.len()), "{name}");
        let off = got.samples.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off <= allowed, "{name}: off by {off}");
    }
}

#[test]
fn channels_are_averaged() {
    let stereo = wav(8_000, 2, &[1000, 3000, -500, 500, i16::MAX, i16::MAX]);
    let mono: Vec<f32> = [2000.0, 0.0, 32_767.0].map(|x: f32| x / 32_768.0).to_vec();
    assert_eq!(decode(&stereo).unwrap(), Recording { samples: mono, rate: 8_000 });
    let six = wav(48_000, 6, &[600, 0, 0, 0, 0, 0]);
    assert_eq!(decode(&six).unwrap().samples, [100.0 / 32_768.0]);
}

#[test]
fn what_is_wrong_with_a_recording_is_said() {
    let good = wav(16_000, 1, &[1; 100]);
    let patched = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    let float = |x: f32| wav_of(16_000, 1, 32, SampleFormat::Float, &[0.0, x]);
    let is_malformed = |e: &AudioError| matches!(e, AudioError::Malformed(_));
    let cases: [(&str, Vec<u8>, &dyn Fn(&AudioError) -> bool); 15] = [
        ("nothing", Vec::new(), &is_malformed),
        ("no WAV", b"not a recording at all, just text".to_vec(), &is_malformed),
        ("a header alone", good[..20].to_vec(), &is_malformed),
        ("cut off", good[..144].to_vec(), &|e| *e == AudioError::Truncated { want: 100, got: 50 }),
        ("no samples", wav(16_000, 1, &[]), &|e| *e == AudioError::Empty),
        ("no channels", patched(22, &[0, 0]), &is_malformed),
        ("a rate of 0", patched(24, &[0; 8]), &|e| *e == AudioError::Rate(0)),
        ("too slow", wav(3_999, 1, &[1]), &|e| *e == AudioError::Rate(3_999)),
        ("too fast", wav(192_001, 1, &[1]), &|e| *e == AudioError::Rate(192_001)),
        ("compressed", patched(20, &[2, 0]), &|e| *e == AudioError::Encoding("ADPCM".into())),
        ("of 7 bits", patched(34, &[7, 0]), &|e| {
            *e == AudioError::Encoding("PCM of 7 bits".into())
        }),
        ("33 channels", wav(16_000, 33, &[1; 33]), &|e| *e == AudioError::Channels(33)),
        // 4 GiB of samples in a file of 244 bytes: refused by its length, nothing allocated.
        ("a lying length", patched(40, &[0xFE, 0xFF, 0xFF, 0xFF]), &|e| {
            matches!(e, AudioError::TooLong(_))
        }),
        ("not a number", float(f32::NAN), &|e| *e == AudioError::Sample(1)),
        ("far too loud", float(1e30), &|e| *e == AudioError::Sample(1)),
    ];
    for (name, bytes, is_right) in cases {
        let error = decode(&bytes).unwrap_err();
        assert!(is_right(&error), "{name}: {error:?}");
    }
    let long = wav(4_000, 1, &vec![0; 4_000 * 60 + 1]);
    assert!(matches!(decode(&long), Err(AudioError::TooLong(_))));
    assert!(decode(&wav(4_000, 1, &vec![0; 4_000 * 60])).is_ok());
}

fn plain() -> AudioFront {
    AudioFront { normalise: Normalise::None, ..reference_front() }
}

/// The strongest frequency of a clip of 1 s at 16 kHz, and its amplitude.
fn strongest(clip: &[f32]) -> (usize, f64) {
    let power = |hz: usize| {
        let turn = std::f64::consts::TAU * hz as f64 / 16_000.0;
        let (mut re, mut im) = (0.0, 0.0);
        // The middle alone, away from the edges.
        for (n, x) in clip.iter().enumerate().skip(4_000).take(8_000) {
            re += f64::from(*x) * (turn * n as f64).cos();
            im += f64::from(*x) * (turn * n as f64).sin();
        }
        re.hypot(im) / 4_000.0
    };
    (100..=3_000).step_by(20).map(|hz| (hz, power(hz))).max_by(|a, b| a.1.total_cmp(&b.1)).unwrap()
}

#[test]
fn a_tone_keeps_its_pitch_and_level_at_every_rate() {
    for rate in [4_000, 8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000] {
        let recording = decode(&wav(rate, 1, &tone(rate, 1_000.0, 1.0))).unwrap();
        let mut pipeline = AudioPipeline::new(&plain());
        let clip = pipeline.clip(&recording).unwrap();
        assert_eq!(clip.len(), 16_000);
        let (hz, amplitude) = strongest(clip);
        assert_eq!(hz, 1_000, "at {rate} Hz");
        assert!((amplitude - 0.5).abs() < 0.01, "at {rate} Hz: amplitude {amplitude}");
        // Aligned with the start: the tone's first quarter period rises from 0.
        let off = clip[2_000..14_000]
            .iter()
            .zip(2_000..)
            .map(|(x, n)| {
                let want = 0.5 * (std::f64::consts::TAU * f64::from(n) / 16.0).sin();
                (f64::from(*x) - want).abs()
            })
            .fold(0.0, f64::max);
        assert!(off < 0.01, "at {rate} Hz: off by {off}");
    }
}

#[test]
fn what_the_target_rate_cannot_carry_is_filtered_out() {
    let recording = decode(&wav(48_000, 1, &tone(48_000, 11_000.0, 1.0))).unwrap();
    let mut pipeline = AudioPipeline::new(&plain());
    let clip = pipeline.clip(&recording).unwrap();
    let left = clip[1_000..15_000].iter().fold(0.0f32, |max, x| max.max(x.abs()));
    assert!(left < 0.001, "{left} of 0.5 is left of a tone of 11 kHz");
}

#[test]
fn the_order_of_recordings_changes_nothing() {
    let mut pipeline = AudioPipeline::new(&reference_front());
    let recordings: Vec<Recording> = [(44_100, 700.0), (8_000, 300.0), (16_000, 900.0)]
        .iter()
        .map(|(rate, hz)| decode(&wav(*rate, 1, &tone(*rate, *hz, 1.3))).unwrap())
        .collect();
    let mut run = |i: usize| {
        let mut features = vec![0.0; 49 * 10];
        pipeline.clip(&recordings[i]).unwrap();
        pipeline.features(&mut features);
        features
    };
    let first: Vec<_> = (0..3).map(&mut run).collect();
    for i in [2, 0, 0, 1, 2, 1, 0] {
        assert_eq!(run(i), first[i], "recording {i}");
    }
}

#[test]
fn clips_are_cut_levelled_and_padded() {
    let clip = |fit, normalise, clip_samples, samples: &[f32]| {
        let front = AudioFront {
            clip_samples,
            fit,
            normalise,
            frame_samples: 16,
            step_samples: 16,
            fft: 16,
            ..reference_front()
        };
        let recording = Recording { samples: samples.to_vec(), rate: 16_000 };
        AudioPipeline::new(&front).clip(&recording).unwrap().to_vec()
    };
    let padded = |head: &[f32]| {
        let mut clip = head.to_vec();
        clip.resize(16, 0.0);
        clip
    };
    let short = [0.25, -0.5, 0.125];
    assert_eq!(clip(Fit::Start, Normalise::None, 16, &short), padded(&short));
    assert_eq!(clip(Fit::Start, Normalise::Max, 16, &short), padded(&[1.0, -2.0, 0.5]));
    assert_eq!(clip(Fit::Start, Normalise::Peak, 16, &short), padded(&[0.5, -1.0, 0.25]));
    for normalise in [Normalise::None, Normalise::Max, Normalise::Peak] {
        assert_eq!(clip(Fit::Loudest, normalise, 16, &[0.0; 40]), [0.0; 16]);
    }
    // A clip whose largest sample is not above 0 counts as silent.
    assert_eq!(clip(Fit::Start, Normalise::Max, 16, &[-0.5; 20]), [0.0; 16]);
    let mut long = vec![0.01; 100];
    long[60] = 0.5;
    long[70] = -0.5;
    let start = clip(Fit::Start, Normalise::None, 16, &long);
    assert_eq!(start, [0.01; 16]);
    // The first window that holds both loud samples is 55..71.
    let loud = clip(Fit::Loudest, Normalise::None, 16, &long);
    assert_eq!((loud[5], loud[15]), (0.5, -0.5));
}

#[test]
fn features_are_scaled_by_column_and_spectra_can_be_powers() {
    let recording = decode(&wav(16_000, 1, &tone(16_000, 500.0, 1.0))).unwrap();
    let run = |front: &AudioFront| {
        let mut pipeline = AudioPipeline::new(front);
        let mut features = vec![0.0; front.frames() * front.columns()];
        pipeline.clip(&recording).unwrap();
        pipeline.features(&mut features);
        (features, pipeline.spectra())
    };
    let (plain, magnitudes) = run(&reference_front());
    let mean: Vec<f32> = (0..10u8).map(f32::from).collect();
    let std: Vec<f32> = (1..=10u8).map(f32::from).collect();
    let (scaled, _) = run(&AudioFront { mean, std, ..reference_front() });
    for (i, (scaled, plain)) in scaled.iter().zip(&plain).enumerate() {
        let column = (i % 10) as f32;
        assert!((scaled - (plain - column) / (column + 1.0)).abs() < 1e-4);
    }
    let (_, powers) = run(&AudioFront { spectrum: Spectrum::Power, ..reference_front() });
    for (power, magnitude) in powers.iter().zip(&magnitudes) {
        assert!((power - magnitude * magnitude).abs() <= 1e-4 * power.max(1.0));
    }
    let (log_mel, _) = run(&AudioFront { features: Features::LogMel, ..reference_front() });
    assert_eq!(log_mel.len(), 49 * 40);
}
