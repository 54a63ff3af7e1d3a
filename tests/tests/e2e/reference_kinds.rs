//! The reference models that are no classifiers, from file to answer: bundles written here, our own
//! front ends and decoders, and what the folder's PROVENANCE.md states for its reference pipeline.

use std::fs;
use std::path::Path;

use holdfast_models::outputs::Anomaly;
use holdfast_models::runtime::onnx_runtime::Provider;
use holdfast_models::{Inference, Model, OnnxRuntime, Runtime, Tract};
use holdfast_tests::kinds::{self, Scores};
use holdfast_tests::{onnxruntime, reference};

/// The runtimes that are there.
fn runtimes() -> Vec<Box<dyn Runtime>> {
    let newest = onnxruntime::library("newest");
    let newest = newest.map(|it| Box::new(OnnxRuntime::new(it, Provider::Cpu)) as Box<dyn Runtime>);
    std::iter::once(Box::new(Tract) as Box<dyn Runtime>).chain(newest).collect()
}

fn model(reference: &Path, name: &str, runtime: &dyn Runtime) -> Model {
    kinds::model(reference, name, runtime).unwrap_or_else(|error| panic!("{error:?}"))
}

fn ask(model: &mut Model, bytes: Vec<u8>, content_type: Option<&str>) -> Inference {
    kinds::ask(model, bytes, content_type).unwrap()
}

fn rows(path: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

#[test]
fn pump_anomalies_are_found_as_the_reference_finds_them() {
    let Some(reference) = reference::reference("anomalies of the pumps") else { return };
    let all: Vec<u8> =
        kinds::pumps(&reference).unwrap().into_iter().flat_map(|(bytes, _)| bytes).collect();
    for runtime in runtimes() {
        for (name, want, found, slack) in
            [("pump_ae_fp32", 0.891, 0.16, 0.01), ("pump_ae_int8_qdq", 0.889, 0.16, 0.02)]
        {
            let mut model = model(&reference, name, &*runtime);
            let scores = Scores::of(&reference, &mut model).unwrap();
            let share = |of: &[Anomaly]| {
                of.iter().filter(|anomaly| anomaly.is_anomaly()).count() as f64 / of.len() as f64
            };
            let (auc, hits) = (scores.auc(), share(&scores.faulty));
            println!("{name} on {}: AUC {auc:.4}, {hits:.3} found", runtime.name());
            assert!((auc - want).abs() < slack, "{name} on {}: {auc}", runtime.name());
            assert!((hits - found).abs() < slack, "{name} on {}: {hits}", runtime.name());
            assert!(share(&scores.normal) <= slack, "{name} on {}", runtime.name());
            // All windows at once are a recording of so many.
            let count = scores.faulty.len() + scores.normal.len();
            let all = ask(&mut model, all.clone(), Some("application/octet-stream"));
            assert_eq!(all.recorded.map(|all| (all.windows, all.width)), Some((count, 1)));
        }
    }
}

#[test]
fn a_toy_car_clip_scores_as_the_reference_scores_it() {
    let Some(reference) = reference::reference("scores of the toy car") else { return };
    let clip = |file: &str| fs::read(reference.join("data/ad_toycar").join(file)).unwrap();
    let labels = rows(&reference.join("data/ad_toycar/labels.csv"));
    for runtime in runtimes() {
        for (name, column) in
            [("ad_toycar_autoencoder_fp32", 3), ("ad_toycar_autoencoder_int8_qdq", 4)]
        {
            let mut model = model(&reference, name, &*runtime);
            for label in &labels {
                let inference = ask(&mut model, clip(&label[0]), None);
                let anomaly = kinds::anomaly(&inference).unwrap();
                let want: f32 = label[column].parse().unwrap();
                println!("{name} of {} on {}: {anomaly:?}", label[0], runtime.name());
                let off = (anomaly.score - want).abs() / want;
                assert!(off < 0.01, "{} on {}: {anomaly:?}, {want}", label[0], runtime.name());
                assert_eq!(anomaly.is_anomaly(), label[2] == "1");
                let recorded = inference.recorded.unwrap();
                assert_eq!((recorded.windows, recorded.rows.len()), (196, 196));
            }
        }
    }
}

#[test]
fn speech_is_heard_as_the_reference_hears_it() {
    let Some(reference) = reference::reference("speech in recordings") else { return };
    let file = |name: &str| fs::read(reference.join("data").join(name)).unwrap();
    let (want, _) =
        kinds::numbers(&reference.join("models/golden/silero_vad_speech_30s_probs.npy")).unwrap();
    let words = rows(&reference.join("data/stream/commands_25s.csv"));
    let sample = file("vad/speech_30s.wav");
    for runtime in runtimes() {
        let names = ["silero_vad_op18_ifless", "silero_vad", "silero_vad_16k_op15"];
        // tract has no If whose branches differ.
        let known = if runtime.name() == "tract" { &names[..1] } else { &names[..] };
        for name in known {
            let mut model = model(&reference, name, &*runtime);
            // Twice: nothing of a recording is left for the next.
            for _ in 0..2 {
                let inference = ask(&mut model, sample.clone(), Some("audio/wav"));
                let recorded = inference.recorded.unwrap();
                assert_eq!(recorded.step_ms, Some(32.0));
                assert_eq!((recorded.windows, want.len()), (937, 937));
                let pairs = want.iter().zip(&recorded.rows);
                let off = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                println!("{name} on {}: off by {off}", runtime.name());
                assert!(off < 1e-3, "{name} on {}: {off}", runtime.name());
                let speech = kinds::speech(&recorded.rows[..937]);
                assert!(speech.abs_diff(734) <= 9, "{speech}");
            }
            let inference = ask(&mut model, file("stream/commands_25s.wav"), Some("audio/wav"));
            let spans = inference.recorded.unwrap().spans;
            let seconds = |window: usize| window as f64 * 0.032;
            let number = |text: &str| text.parse::<f64>().unwrap();
            for word in &words {
                let (begin, end) = (number(&word[3]), number(&word[4]));
                let is_heard =
                    |first: usize, last: usize| seconds(first) < end && seconds(last) > begin;
                let heard = spans.iter().any(|span| is_heard(span.first, span.end));
                assert!(heard, "{name} on {}: {word:?} in {spans:?}", runtime.name());
            }
            for span in &spans {
                let is_word = |word: &&Vec<String>| {
                    seconds(span.first) < number(&word[2]) && seconds(span.end) > number(&word[1])
                };
                assert!(words.iter().any(|word| is_word(&word)), "{name}: {span:?} is no word");
            }
        }
    }
}

/// A box by its sides, as fractions of the picture.
type Sides = [f64; 4];

fn overlap(a: Sides, b: Sides) -> f64 {
    let area = |s: Sides| (s[2] - s[0]).max(0.0) * (s[3] - s[1]).max(0.0);
    let both = area([a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    both / (area(a) + area(b) - both)
}

#[test]
fn faces_are_found_as_the_reference_finds_them() {
    let Some(reference) = reference::reference("faces in photos") else { return };
    let found = fs::read(reference.join("models/golden/face_rfb_320_fp32_detections.json"));
    let golden: serde_json::Value = serde_json::from_slice(&found.unwrap()).unwrap();
    let photos = kinds::photos(&reference).unwrap();
    for runtime in runtimes() {
        // Of 15 photos, how many have as many faces as a person sees.
        for (name, want) in [
            ("face_ultralight_rfb_320_fp32", 15),
            ("face_ultralight_rfb_320_opset9_fp32", 15),
            ("face_ultralight_rfb_320_int8_qdq", 13),
        ] {
            let mut model = model(&reference, name, &*runtime);
            let (mut right, mut counted) = (0, 0);
            for (photo, row) in &photos {
                let things = kinds::things(&mut model, photo.clone()).unwrap();
                let (width, height) = (f64::from(things.width), f64::from(things.height));
                assert_eq!(
                    (width.to_string(), height.to_string()),
                    (row[2].clone(), row[3].clone())
                );
                assert!(things.found.iter().all(|face| face.label == "face"));
                if let Ok(faces) = row[9].parse::<usize>() {
                    counted += 1;
                    right += usize::from(things.found.len() == faces);
                }
                if !name.ends_with("fp32") {
                    continue;
                }
                // Every box of the reference that is not at the edge of being one is found again.
                for known in golden[&row[0]].as_array().unwrap() {
                    let sides = known["box_norm_xyxy"].as_array().unwrap();
                    let side = |at: usize| sides[at].as_f64().unwrap();
                    let known_sides = [side(0), side(1), side(2), side(3)];
                    let best = things.found.iter().map(|face| {
                        let (x, y) =
                            (|x: f32| f64::from(x) / width, |y: f32| f64::from(y) / height);
                        let at = face.region;
                        overlap(known_sides, [x(at.left), y(at.top), x(at.right), y(at.bottom)])
                    });
                    let best = best.fold(0.0, f64::max);
                    let is_doubtful = known["score"].as_f64().unwrap() < 0.75;
                    assert!(best > 0.85 || is_doubtful, "{name} on {}: {best}", row[0]);
                }
            }
            println!("{name} on {}: {right} of {counted}", runtime.name());
            assert_eq!(counted, 15);
            // Without the rounding of its activations a quantised network is nearer to the one it was
            // made from, so tract may do better.
            assert!(right >= want, "{name} on {}: {right} of {counted}", runtime.name());
        }
    }
}
