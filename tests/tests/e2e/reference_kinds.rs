//! The reference models that are no classifiers, from file to answer: bundles written here, our own
//! front ends and decoders, and what the folder's PROVENANCE.md states for its reference pipeline.

use std::fs;
use std::path::Path;

use holdfast_models::outputs::Anomaly;
use holdfast_models::runtime::onnx_runtime::Provider;
use holdfast_models::{Inference, Media, MediaKind, Model, OnnxRuntime, Outcome, Runtime, Tract};
use holdfast_tests::bundle::Made;
use holdfast_tests::{onnxruntime, reference};

/// The runtimes that are there.
fn runtimes() -> Vec<Box<dyn Runtime>> {
    let newest = onnxruntime::library("newest");
    let newest = newest.map(|it| Box::new(OnnxRuntime::new(it, Provider::Cpu)) as Box<dyn Runtime>);
    std::iter::once(Box::new(Tract) as Box<dyn Runtime>).chain(newest).collect()
}

fn model(reference: &Path, name: &str, made: Made<'_>, runtime: &dyn Runtime) -> Model {
    let onnx = fs::read(reference.join(format!("models/{name}.onnx"))).unwrap();
    let made = Made { onnx: &onnx, ..made };
    made.model(runtime).unwrap_or_else(|error| panic!("{name} on {}: {error:?}", runtime.name()))
}

fn ask(model: &mut Model, bytes: Vec<u8>, content_type: Option<&str>) -> Inference {
    let expects = Some(MediaKind::Tensor).filter(|_| content_type != Some("audio/wav"));
    let media = Media::detect_for(bytes, content_type, expects).unwrap();
    model.infer(&media).unwrap()
}

fn anomaly(inference: &Inference) -> Anomaly {
    match inference.outcome {
        Outcome::Anomaly(anomaly) => anomaly,
        ref other => panic!("{other:?}"),
    }
}

/// The numbers of an NPY file, and how many rows it has.
fn numbers(path: &Path) -> (Vec<f32>, usize) {
    let bytes = fs::read(path).unwrap();
    let head = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let text = std::str::from_utf8(&bytes[10..head]).unwrap();
    let rows = text.split("'shape': (").nth(1).unwrap().split(',').next().unwrap();
    let (values, _) = bytes[head..].as_chunks();
    (values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(), rows.parse().unwrap())
}

fn rows(path: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

/// The share of pairs of an anomaly and a normal window in which the anomaly scores higher.
fn auc(anomalies: &[f32], normal: &[f32]) -> f64 {
    let higher = |a: f32, n: f32| if a > n { 1.0 } else { f64::from(u8::from(a == n)) / 2.0 };
    let sum: f64 = anomalies.iter().flat_map(|a| normal.iter().map(move |n| higher(*a, *n))).sum();
    sum / (anomalies.len() * normal.len()) as f64
}

#[test]
fn pump_anomalies_are_found_as_the_reference_finds_them() {
    let Some(reference) = reference::reference("anomalies of the pumps") else { return };
    let norm = fs::read_to_string(reference.join("models/pump_norm.json")).unwrap();
    let norm: serde_json::Value = serde_json::from_str(&norm).unwrap();
    let tables = format!(
        "[[input]]\nname = \"window_norm\"\ndtype = \"f32\"\nshape = [\"batch\", 128]\n\
         [input.tensor]\nmean = {}\nstd = {}\n[[output]]\nname = \"recon\"\ndtype = \"f32\"\n\
         shape = [\"batch\", 128]\nof = \"window_norm\"\nerror = \"squared\"\nthreshold = {}\n",
        norm["mean_per_channel"], norm["std_per_channel"], norm["threshold_mse"]
    );
    let (values, count) = numbers(&reference.join("data/pump/windows_Nx128_f32.npy"));
    let labels = rows(&reference.join("data/pump/labels.csv"));
    assert_eq!((count, values.len()), (labels.len(), 128 * labels.len()));
    let bytes = |row: &[f32]| -> Vec<u8> { row.iter().flat_map(|x| x.to_le_bytes()).collect() };
    let sample = bytes(&values[..128]);
    for runtime in runtimes() {
        for (name, want, found, slack) in
            [("pump_ae_fp32", 0.891, 0.16, 0.01), ("pump_ae_int8_qdq", 0.889, 0.16, 0.02)]
        {
            let made = Made {
                onnx: &[],
                kind: "reconstruction",
                tables: &tables,
                label: "label = \"normal\"",
                sample: ("sample.bin", &sample),
                golden: &[0.0; 128],
                tolerance: 100.0,
            };
            let mut model = model(&reference, name, made, &*runtime);
            let (mut anomalies, mut normal) = (Vec::new(), Vec::new());
            let (mut hits, mut false_ones) = (0, 0);
            for (row, label) in values.chunks_exact(128).zip(&labels) {
                let inference = ask(&mut model, bytes(row), Some("application/octet-stream"));
                let anomaly = anomaly(&inference);
                assert_eq!(inference.outcome.confidence(), None);
                match label[2].as_str() {
                    "1" => {
                        anomalies.push(anomaly.score);
                        hits += u32::from(anomaly.is_anomaly());
                    }
                    _ => {
                        normal.push(anomaly.score);
                        false_ones += u32::from(anomaly.is_anomaly());
                    }
                }
            }
            let got = auc(&anomalies, &normal);
            let share = f64::from(hits) / anomalies.len() as f64;
            println!("{name} on {}: AUC {got:.4}, {share:.3} found", runtime.name());
            assert!((got - want).abs() < slack, "{name} on {}: {got}", runtime.name());
            assert!((share - found).abs() < slack, "{name} on {}: {share}", runtime.name());
            assert!(f64::from(false_ones) / normal.len() as f64 <= slack, "{name}: {false_ones}");
            // All windows at once are a recording of so many.
            let all = ask(&mut model, bytes(&values), Some("application/octet-stream"));
            assert_eq!(all.recorded.map(|all| (all.windows, all.width)), Some((count, 1)));
        }
    }
}

#[test]
fn a_toy_car_clip_scores_as_the_reference_scores_it() {
    let Some(reference) = reference::reference("scores of the toy car") else { return };
    let table =
        |dtype: &str, name: &str| format!("name = {name:?}\n{dtype}\nshape = [\"batch\", 640]\n");
    let f32 = ("dtype = \"f32\"", "dtype = \"f32\"");
    let int8 = (
        "dtype = \"i8\"\nscale = 0.3910152316093445\nzero_point = 89",
        "dtype = \"i8\"\nscale = 0.36449846625328064\nzero_point = 96",
    );
    let clip = |file: &str| fs::read(reference.join("data/ad_toycar").join(file)).unwrap();
    let labels = rows(&reference.join("data/ad_toycar/labels.csv"));
    let sample = clip(&labels[0][0]);
    for runtime in runtimes() {
        for (name, (input, output), column) in
            [("ad_toycar_autoencoder_fp32", f32, 3), ("ad_toycar_autoencoder_int8_qdq", int8, 4)]
        {
            // Windows of five frames of 128 bands, one frame apart.
            let tables = format!(
                "[[input]]\n{}[input.tensor]\nstep = 128\n[[output]]\n{}of = \"input_1\"\n\
                 error = \"squared\"\nthreshold = 12.0\n",
                table(input, "input_1"),
                table(output, "Identity"),
            );
            let made = Made {
                onnx: &[],
                kind: "reconstruction",
                tables: &tables,
                label: "label = \"normal\"",
                sample: ("sample.npy", &sample),
                golden: &[0.0; 640],
                tolerance: 100.0,
            };
            let mut model = model(&reference, name, made, &*runtime);
            for label in &labels {
                let inference = ask(&mut model, clip(&label[0]), None);
                let anomaly = anomaly(&inference);
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

/// The tables of a voice activity detector of Silero.
const SPEECH: &str = "[[input]]\nname = \"input\"\ndtype = \"f32\"\nshape = [1, 576]\n[input.wave]\n\
    sample_rate_hz = 16000\nwindow_samples = 512\ncontext_samples = 64\n[[input]]\nname = \"sr\"\n\
    dtype = \"i64\"\nshape = []\n[input.constant]\nvalue = 16000\n[[output]]\nname = \"output\"\n\
    dtype = \"f32\"\nshape = [1, 1]\nmeaning = \"probabilities\"\nlabels = [\"speech\"]\n\
    release = 0.35\nthreshold = 0.6\n[[state]]\ninput = \"state\"\noutput = \"stateN\"\n\
    dtype = \"f32\"\nshape = [2, 1, 128]\n";

#[test]
fn speech_is_heard_as_the_reference_hears_it() {
    let Some(reference) = reference::reference("speech in recordings") else { return };
    let file = |name: &str| fs::read(reference.join("data").join(name)).unwrap();
    let (want, _) = numbers(&reference.join("models/golden/silero_vad_speech_30s_probs.npy"));
    let words = rows(&reference.join("data/stream/commands_25s.csv"));
    let sample = file("vad/speech_30s.wav");
    for runtime in runtimes() {
        let names = ["silero_vad_op18_ifless", "silero_vad", "silero_vad_16k_op15"];
        // tract has no If whose branches differ.
        let known = if runtime.name() == "tract" { &names[..1] } else { &names[..] };
        for name in known {
            let made = Made {
                onnx: &[],
                kind: "multi-label",
                tables: SPEECH,
                label: "label = \"speech\"",
                sample: ("sample.wav", &sample),
                golden: &[0.5],
                tolerance: 1.0,
            };
            let mut model = model(&reference, name, made, &*runtime);
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
                let speech = recorded.rows[..937].iter().filter(|p| **p >= 0.5).count();
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

/// The tables of the face detector, which decodes its boxes itself.
pub(super) const FACES: &str = "[[input]]\nname = \"input\"\ndtype = \"f32\"\nshape = [1, 3, 240, 320]\n\
    [input.image]\nwidth = 320\nheight = 240\nchannels = \"rgb\"\nresize = \"stretch\"\n\
    filter = \"bilinear\"\nlayout = \"nchw\"\nmean = 0.4980392156862745\nstd = 0.5019607843137255\n\
    [[output]]\nname = \"scores\"\ndtype = \"f32\"\nshape = [1, 4420, 2]\n[[output]]\n\
    name = \"boxes\"\ndtype = \"f32\"\nshape = [1, 4420, 4]\n[detection]\ndecoder = \"ssd\"\n\
    labels = [\"background\", \"face\"]\nbackground = \"background\"\noutputs = [\"boxes\", \"scores\"]\n\
    form = \"corners\"\nunit = \"fraction\"\nscores = \"plain\"\nscore = 0.7\noverlap = 0.3\n\
    threshold = 0.8\n";

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
    let photos = rows(&reference.join("data/images/labels.csv"));
    let photo = |name: &str| fs::read(reference.join("data/images").join(name)).unwrap();
    let sample = photo(&photos[0][0]);
    for runtime in runtimes() {
        // Of 15 photos, how many have as many faces as a person sees.
        for (name, want) in [
            ("face_ultralight_rfb_320_fp32", 15),
            ("face_ultralight_rfb_320_opset9_fp32", 15),
            ("face_ultralight_rfb_320_int8_qdq", 13),
        ] {
            let made = Made {
                onnx: &[],
                kind: "detection",
                tables: FACES,
                label: "",
                sample: ("sample.jpg", &sample),
                // Shares: each is within 1.0 of any other.
                golden: &[0.5; 4420 * 2],
                tolerance: 1.0,
            };
            let mut model = model(&reference, name, made, &*runtime);
            let (mut right, mut counted) = (0, 0);
            for row in &photos {
                let media = Media::detect(photo(&row[0]), None).unwrap();
                let inference = model.infer(&media).unwrap();
                let Outcome::Things(things) = &inference.outcome else { panic!("no boxes") };
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
