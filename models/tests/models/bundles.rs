//! Bundles on disk: what is taken, and that every fault of a bad one is told at once.

use std::fs;
use std::path::Path;

use holdfast_models::bundle::{Fault, Front, Problem};
use holdfast_models::tensor::Elements;
use holdfast_models::{Bundle, Dtype, InferError, LoadError, MediaKind, Model, Tensor, Tract};
use tempfile::TempDir;

use crate::made;
use crate::onnx;

/// A whole manifest for a graph that takes 4 x 4 grey pixels and gives 16 logits.
pub(crate) const MANIFEST: &str = r#"
format = 1
name = "tiny"
version = "1.2.3"
task = "look"
kind = "classification"
description = "Gives the pixels back."
licence = "MIT"
[provenance]
trained_by = "no one"
data = ["none"]
seed = 1
date = "2026-11-20"
[[input]]
name = "x"
dtype = "f32"
shape = [1, 1, 4, 4]
[input.image]
width = 4
height = 4
channels = "gray"
resize = "stretch"
filter = "bilinear"
layout = "nchw"
[[output]]
name = "y"
dtype = "f32"
shape = [1, 1, 4, 4]
meaning = "logits"
labels = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p"]
threshold = 0.5
[[variant]]
name = "fp32"
precision = "fp32"
file = "model.onnx"
tolerance = 0.001
accuracy = 1.0
[[sample]]
file = "samples/a.png"
label = "a"
"#;

const AUDIO: &str = r#"[input.audio]
sample_rate_hz = 16000
clip_samples = 16000
fit = "start"
normalise = "none"
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
features = "log-mel"
"#;

fn picture() -> Vec<u8> {
    let pixels: Vec<u8> = (0..16).map(|i| if i == 0 { 255 } else { 0 }).collect();
    crate::pictures::png(4, 4, image::ExtendedColorType::L8, &pixels)
}

/// Writes the bundle with a manifest and a golden for its sample.
fn write(dir: &Path, manifest: &str, golden: &str) {
    let relu = onnx::graph(&[1, 1, 4, 4], &[("Relu", &["x"], &["y"], &[])], &[]);
    write_with(dir, manifest, golden, &relu);
}

/// The same, around a graph.
pub(crate) fn write_with(dir: &Path, manifest: &str, golden: &str, onnx: &[u8]) {
    let files =
        [("model.onnx", onnx), ("samples/a.png", &picture()), ("golden.toml", golden.as_bytes())];
    made::bundle(dir, manifest, &files);
}

pub(crate) fn golden() -> String {
    let mut output = [0.0; 16];
    output[0] = 1.0;
    made::goldens(&[("samples/a.png", "fp32", &output)])
}

fn whole() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), MANIFEST, &golden());
    dir
}

fn faults(dir: &Path) -> Vec<Fault> {
    Bundle::open(dir).map(|_| Vec::new()).unwrap_or_else(|e| e.faults)
}

#[test]
fn a_whole_bundle_opens_and_its_model_answers() {
    let dir = whole();
    let bundle = Bundle::open(dir.path()).unwrap();
    assert_eq!((bundle.name(), bundle.version(), bundle.task()), ("tiny", "1.2.3", "look"));
    assert_eq!((bundle.labels().len(), bundle.threshold()), (16, 0.5));
    assert_eq!(bundle.expects(), MediaKind::Image);
    assert_eq!(bundle.variants()[0].name(), "fp32");
    assert!(matches!(&bundle.sources()[0].front, Front::Image(image) if image.mean == [0.0]));
    let mut model = Model::load(&bundle, None, &Tract).unwrap();
    assert_eq!((model.variant(), model.runtime(), model.goldens_checked()), ("fp32", "tract", 1));
    let media = holdfast_models::Media::detect(picture(), Some("image/png")).unwrap();
    let answer = model.infer(&media).unwrap();
    assert_eq!(answer.classes()[0].label, "a");
    let error = Model::load(&bundle, Some("int8"), &Tract).unwrap_err();
    assert!(matches!(error, LoadError::Variant { .. }), "{error}");
}

#[test]
fn a_model_that_answers_otherwise_than_its_golden_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut output = [0.0; 16];
    output[0] = 1.01;
    write(dir.path(), MANIFEST, &made::goldens(&[("samples/a.png", "fp32", &output)]));
    let bundle = Bundle::open(dir.path()).unwrap();
    let error = Model::load(&bundle, None, &Tract).unwrap_err();
    let LoadError::Golden { off, tolerance, .. } = &error else { panic!("{error:?}") };
    assert!((off - 0.01).abs() < 1e-5 && *tolerance == 0.001, "{error}");
}

#[test]
fn each_fault_is_told_with_its_key_and_what_is_allowed() {
    // A line of the manifest, what stands there instead, the fault's key, a part of its text.
    let cases = [
        ("format = 1", "format = 2", "format", "1..=1"),
        ("name = \"tiny\"", "name = \"Tiny!\"", "name", "a-z"),
        ("version = \"1.2.3\"", "version = \"1.2\"", "version", "semantic"),
        ("version = \"1.2.3\"", "version = \"1.2.3-01\"", "version", "semantic"),
        ("task = \"look\"", "task = 7", "task", "a-z"),
        ("kind = \"classification\"", "kind = \"poetry\"", "kind", "\"classification\""),
        ("licence = \"MIT\"", "", "licence", "missing"),
        ("seed = 1", "seed = -1", "provenance.seed", "0 or more"),
        ("date = \"2026-11-20\"", "date = \"2026-13-20\"", "provenance.date", "YYYY-MM-DD"),
        ("data = [\"none\"]", "data = []", "provenance.data", "1 to 100"),
        (
            "dtype = \"f32\"\nshape = [1, 1, 4, 4]\n[input",
            "dtype = \"i4\"\nshape = [1, 1, 4, 4]\n[input",
            "input[0].dtype",
            "\"f32\"",
        ),
        (
            "shape = [1, 1, 4, 4]\n[input",
            "shape = [1, 4, 4, 1]\n[input",
            "input[0].shape",
            "[1, 1, 4, 4]",
        ),
        (
            "shape = [1, 1, 4, 4]\n[input",
            "shape = [2, 1, 4, 4]\n[input",
            "input[0].shape",
            "1 followed by",
        ),
        (
            "shape = [1, 1, 4, 4]\n[input",
            "shape = [1, 100000, 100000]\n[input",
            "input[0].shape",
            "16777216",
        ),
        (
            "shape = [1, 1, 4, 4]\n[input",
            "shape = [1, 9223372036854775807, 9223372036854775807]\n[input",
            "input[0].shape",
            "16777216",
        ),
        ("width = 4", "width = 0", "input[0].image.width", "1..=4096"),
        (
            "channels = \"gray\"",
            "channels = \"cmyk\"",
            "input[0].image.channels",
            "\"rgb\" or \"gray\"",
        ),
        ("resize = \"stretch\"", "resize = \"letterbox\"", "input[0].image.pad_value", "0..=255"),
        (
            "resize = \"stretch\"",
            "resize = \"stretch\"\npad_value = 3",
            "input[0].image.pad_value",
            "absent",
        ),
        (
            "layout = \"nchw\"",
            "layout = \"nchw\"\nmean = [0.0, 1.0]",
            "input[0].image.mean",
            "1 of them",
        ),
        ("layout = \"nchw\"", "layout = \"nchw\"\nstd = 0.0", "input[0].image.std", "above 0"),
        (
            "layout = \"nchw\"",
            "layout = \"nchw\"\ncolour = 1",
            "input[0].image.colour",
            "not a key",
        ),
        ("[[output]]", "[extra]\n[[output]]", "extra", "not a key"),
        ("threshold = 0.5", "threshold = 1.5", "output[0].threshold", "0..=1"),
        ("threshold = 0.5", "threshold = nan", "output[0].threshold", "0..=1"),
        (
            "threshold = 0.5",
            "threshold = 0.5\ntemperature = 0",
            "output[0].temperature",
            "0.01..=100",
        ),
        ("\"o\", \"p\"]", "\"o\"]", "output[0].labels", "16 values"),
        ("\"o\", \"p\"]", "\"o\", \"o\"]", "output[0].labels", "twice"),
        ("meaning = \"logits\"", "meaning = \"vibes\"", "output[0].meaning", "\"probabilities\""),
        (
            "file = \"model.onnx\"",
            "file = \"../model.onnx\"",
            "variant[0].file",
            "inside the bundle",
        ),
        ("file = \"model.onnx\"", "file = \"/etc/passwd\"", "variant[0].file", "inside the bundle"),
        ("file = \"model.onnx\"", "file = \"a\\\\b\"", "variant[0].file", "inside the bundle"),
        ("file = \"model.onnx\"", "file = \"other.onnx\"", "variant.file", "[[file]]"),
        ("tolerance = 0.001", "tolerance = -1.0", "variant[0].tolerance", "0..=100"),
        ("accuracy = 1.0", "accuracy = 90", "variant[0].accuracy", "0..=1"),
        ("label = \"a\"", "label = \"z\"", "sample.label", "output[0].labels"),
        ("[[sample]]\nfile = \"samples/a.png\"\nlabel = \"a\"", "", "sample", "1 to 1000"),
        (
            "[[variant]]",
            "[[variant]]\nname = \"fp32\"\nprecision = \"fp32\"\nfile = \"model.onnx\"\ntolerance = 0.1\naccuracy = 1\n[[variant]]",
            "variant[1].name",
            "different",
        ),
    ];
    for (line, instead, key, text) in cases {
        assert!(MANIFEST.contains(line), "{line}");
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &MANIFEST.replacen(line, instead, 1), &golden());
        let faults = faults(dir.path());
        let found = faults.iter().find(|f| f.key == key);
        assert!(
            found.is_some_and(|f| f.to_string().contains(text)),
            "{instead:?} for {line:?}: {faults:#?}"
        );
    }
}

#[test]
fn faults_of_an_audio_front_end_are_told() {
    let base = MANIFEST.replace("shape = [1, 1, 4, 4]\n[input", "shape = [1, 1, 49, 40]\n[input");
    let image = base.find("[input.image]").unwrap()..base.find("[[output]]").unwrap();
    let open = |audio: &str| {
        let mut manifest = base.clone();
        manifest.replace_range(image.clone(), audio);
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &manifest, &golden());
        faults(dir.path())
    };
    assert_eq!(open(AUDIO), []);
    let cases = [
        ("sample_rate_hz = 16000", "sample_rate_hz = 100", "sample_rate_hz", "4000..=192000"),
        ("clip_samples = 16000", "clip_samples = 960001", "clip_samples", "16..=960000"),
        ("fit = \"start\"", "fit = \"middle\"", "fit", "\"start\" or \"loudest\""),
        ("frame_samples = 480", "frame_samples = 16001", "frame_samples", "16..=16000"),
        ("step_samples = 320", "step_samples = 0", "step_samples", "1..=16000"),
        ("fft = 512", "fft = 256", "fft", "480..=32768"),
        ("window = \"hann\"", "window = \"none\"", "window", "\"hann\""),
        ("mel_bands = 40", "mel_bands = 0", "mel_bands", "1..=256"),
        ("mel_high_hz = 4000.0", "mel_high_hz = 9000.0", "mel_high_hz", "0..=8000"),
        ("mel_high_hz = 4000.0", "mel_high_hz = 10.0", "mel_high_hz", "above mel_low_hz"),
        ("log_floor = 1e-6", "log_floor = 0.0", "log_floor", "a number"),
        ("features = \"log-mel\"", "features = \"mfcc\"", "mfcc", "1..=40"),
        ("features = \"log-mel\"", "features = \"log-mel\"\nmfcc = 10", "mfcc", "absent"),
        ("features = \"log-mel\"", "features = \"log-mel\"\nstd = [1.0, 2.0]", "std", "40 of them"),
    ];
    for (line, instead, key, text) in cases {
        let faults = open(&AUDIO.replacen(line, instead, 1));
        let key = format!("input[0].audio.{key}");
        assert!(
            faults.iter().any(|f| f.key == key && f.to_string().contains(text)),
            "{instead}: {faults:#?}"
        );
    }
    let shape = open(&AUDIO.replace("step_samples = 320", "step_samples = 160"));
    assert!(shape.iter().any(|f| f.to_string().contains("98 frames by 40")), "{shape:#?}");
    let both = open(&format!("{AUDIO}[input.image]\nwidth = 4\n"));
    assert!(both.iter().any(|f| f.key == "input[0].image"), "{both:#?}");
    let neither = open("");
    assert!(neither.iter().any(|f| f.key == "input[0].audio"), "{neither:#?}");
}

#[test]
fn all_faults_come_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = MANIFEST
        .replace("version = \"1.2.3\"", "version = \"one\"\ncolour = \"blue\"")
        .replace("width = 4", "width = -4")
        .replace("threshold = 0.5", "threshold = 7")
        .replace("accuracy = 1.0", "")
        .replace("label = \"a\"", "label = \"q\"");
    write(dir.path(), &manifest, &golden());
    fs::write(dir.path().join("model.onnx"), b"short").unwrap();
    fs::remove_file(dir.path().join("samples/a.png")).unwrap();
    let error = Bundle::open(dir.path()).unwrap_err();
    let keys: Vec<&str> = error.faults.iter().map(|f| f.key.as_str()).collect();
    for key in [
        "version",
        "colour",
        "input[0].image.width",
        "output[0].threshold",
        "variant[0].accuracy",
        "sample.label",
        "model.onnx",
        "samples/a.png",
    ] {
        assert!(keys.contains(&key), "{key} is not among {keys:?}");
    }
    let text = error.to_string();
    assert!(text.contains("refused") && text.lines().count() == error.faults.len() + 1, "{text}");
}

#[test]
fn files_that_are_not_those_of_the_manifest_are_told() {
    let dir = whole();
    let model = dir.path().join("model.onnx");
    let mut bytes = fs::read(&model).unwrap();
    let opened = Bundle::open(dir.path()).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&model, &bytes).unwrap();
    assert!(matches!(&faults(dir.path())[..], [Fault { problem: Problem::Hash { .. }, .. }]));
    // Opened before the change: the model is not loaded from the changed file.
    let error = Model::load(&opened, None, &Tract).unwrap_err();
    assert!(matches!(error, LoadError::Bundle(_)), "{error}");
    bytes.push(0);
    fs::write(&model, &bytes).unwrap();
    assert!(matches!(&faults(dir.path())[..], [Fault { problem: Problem::Size { .. }, .. }]));
    fs::remove_file(&model).unwrap();
    assert!(matches!(&faults(dir.path())[..], [Fault { problem: Problem::Unreadable(_), .. }]));
    fs::create_dir(&model).unwrap();
    assert_eq!(faults(dir.path()).len(), 1);
}

#[cfg(unix)]
#[test]
fn a_link_out_of_the_bundle_is_refused() {
    let dir = whole();
    let outside = tempfile::tempdir().unwrap();
    let model = dir.path().join("model.onnx");
    fs::copy(&model, outside.path().join("model.onnx")).unwrap();
    fs::remove_file(&model).unwrap();
    std::os::unix::fs::symlink(outside.path().join("model.onnx"), &model).unwrap();
    let faults = faults(dir.path());
    assert!(faults[0].to_string().contains("out of the bundle"), "{faults:?}");
}

#[test]
fn manifests_and_goldens_that_are_no_toml_are_told() {
    for text in ["", "format = ", "\u{0}", "[[input]", "format = 1\nformat = 1"] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("bundle.toml"), text).unwrap();
        assert!(!faults(dir.path()).is_empty(), "{text:?}");
    }
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(&faults(empty.path())[..], [Fault { problem: Problem::Unreadable(_), .. }]));
    let short = made::goldens(&[("samples/a.png", "fp32", &[1.0])]);
    let unknown = made::goldens(&[("samples/b.png", "int8", &[0.0; 16])]);
    for (golden, text) in [
        ("golden = 1", "golden.toml"),
        ("[[golden]]\nsample = \"a\"\n", "golden.toml"),
        ("golden = []", "at least one"),
        (&short, "16 finite values"),
        (&unknown, "a [[variant]]"),
        (&unknown, "a [[file]]"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), MANIFEST, golden);
        let faults = faults(dir.path());
        assert!(faults.iter().any(|f| f.to_string().contains(text)), "{golden}: {faults:?}");
    }
}

#[test]
fn a_graph_runs_without_its_front_end() {
    let dir = tempfile::tempdir().unwrap();
    let free = MANIFEST.replace("shape = [1, 1, 4, 4]", "shape = [\"batch\", 1, 4, 4]");
    let relu = onnx::graph(&[0, 1, 4, 4], &[("Relu", &["x"], &["y"], &[])], &[]);
    let golden = golden();
    let files = [
        ("model.onnx", &relu[..]),
        ("samples/a.png", &picture()),
        ("golden.toml", golden.as_bytes()),
    ];
    made::bundle(dir.path(), &free, &files);
    let bundle = Bundle::open(dir.path()).unwrap();
    let spec = &bundle.inputs()[0];
    assert_eq!((&*spec.name, spec.to_string().as_str()), ("x", "f32 [batch, 1, 4, 4]"));
    let mut model = Model::load(&bundle, None, &Tract).unwrap();
    let mut outputs = [Tensor::zeros(&[1], Dtype::F32)];
    for batch in [1, 3] {
        let values: Vec<f32> = (0..batch * 16).map(|i| i as f32 - 8.0).collect();
        let want: Vec<f32> = values.iter().map(|x| x.max(0.0)).collect();
        let input = Tensor::new(vec![batch, 1, 4, 4], Elements::F32(values)).unwrap();
        model.run_tensors(&[input], &mut outputs).unwrap();
        assert_eq!((outputs[0].shape(), outputs[0].of()), (&[batch, 1, 4, 4][..], Some(&want[..])));
    }
    // One run for several, of one row and of three, gives each what it would get alone.
    let ask = |batch: usize, first: f32| {
        let values = (0..batch * 16).map(|i| first + i as f32).collect();
        [Tensor::new(vec![batch, 1, 4, 4], Elements::F32(values)).unwrap()]
    };
    let asks = [ask(1, -8.0), ask(3, -24.0), ask(1, 5.0)];
    let together = model.run_tensors_together(asks.iter().map(|ask| &ask[..])).unwrap();
    let alone = asks.iter().map(|ask| {
        model.run_tensors(ask, &mut outputs).unwrap();
        outputs.to_vec()
    });
    assert_eq!(together, alone.collect::<Vec<_>>());
    let other = [Tensor::zeros(&[1, 1, 4, 4], Dtype::I64)];
    let mixed = [&asks[0][..], &other];
    let error = model.run_tensors_together(mixed.into_iter()).unwrap_err();
    assert!(error.to_string().contains("its inputs do not go together"), "{error}");
    for (inputs, text) in [
        (vec![], "0 inputs were sent, the model takes x"),
        (vec![Tensor::zeros(&[1, 4, 4], Dtype::F32)], "input x is f32 [1, 4, 4]"),
        (vec![Tensor::zeros(&[0, 1, 4, 4], Dtype::F32)], "send f32 [batch, 1, 4, 4]"),
        (vec![Tensor::zeros(&[1, 1, 4, 4], Dtype::I64)], "input x is i64 [1, 1, 4, 4]"),
        (vec![Tensor::zeros(&[9999, 1, 4, 4], Dtype::F32)], "input x is f32 [9999"),
    ] {
        let error = model.run_tensors(&inputs, &mut outputs).unwrap_err();
        let told = matches!(&error, InferError::Media(_)) && error.to_string().contains(text);
        assert!(told, "{error}");
    }
}

#[test]
fn a_batch_is_free_on_both_sides_or_on_none() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &MANIFEST.replacen("shape = [1,", "shape = [-1,", 1), &golden());
    let faults = faults(dir.path());
    assert!(faults.iter().any(|f| f.key == "output[0].shape"), "{faults:?}");
}
