//! The reference models that are no classifiers, from file to answer: bundles written here, our own
//! front ends and decoders, and what they find in the folder's files.
//!
//! **Invariant:** what is counted is counted over all files that somebody has labelled.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use holdfast_models::outputs::{Anomaly, Things};
use holdfast_models::{Inference, Media, MediaKind, Model, Outcome, Runtime};

use crate::bundle::Made;
use crate::classifiers::{read, rows};

/// The tables of the face detector, which decodes its boxes itself.
pub const FACES: &str = "[[input]]\nname = \"input\"\ndtype = \"f32\"\nshape = [1, 3, 240, 320]\n\
    [input.image]\nwidth = 320\nheight = 240\nchannels = \"rgb\"\nresize = \"stretch\"\n\
    filter = \"bilinear\"\nlayout = \"nchw\"\nmean = 0.4980392156862745\nstd = 0.5019607843137255\n\
    [[output]]\nname = \"scores\"\ndtype = \"f32\"\nshape = [1, 4420, 2]\n[[output]]\n\
    name = \"boxes\"\ndtype = \"f32\"\nshape = [1, 4420, 4]\n[detection]\ndecoder = \"ssd\"\n\
    labels = [\"background\", \"face\"]\nbackground = \"background\"\noutputs = [\"boxes\", \"scores\"]\n\
    form = \"corners\"\nunit = \"fraction\"\nscores = \"plain\"\nscore = 0.7\noverlap = 0.3\n\
    threshold = 0.8\n";

/// The tables of a voice activity detector of Silero.
const SPEECH: &str = "[[input]]\nname = \"input\"\ndtype = \"f32\"\nshape = [1, 576]\n[input.wave]\n\
    sample_rate_hz = 16000\nwindow_samples = 512\ncontext_samples = 64\n[[input]]\nname = \"sr\"\n\
    dtype = \"i64\"\nshape = []\n[input.constant]\nvalue = 16000\n[[output]]\nname = \"output\"\n\
    dtype = \"f32\"\nshape = [1, 1]\nmeaning = \"probabilities\"\nlabels = [\"speech\"]\n\
    release = 0.35\nthreshold = 0.6\n[[state]]\ninput = \"state\"\noutput = \"stateN\"\n\
    dtype = \"f32\"\nshape = [2, 1, 128]\n";

/// The share of its probabilities that a frame of speech has at least.
const IS_SPEECH: f32 = 0.5;
/// Numbers of a window of the pumps.
const WINDOW: usize = 128;

/// Asks a model about a file.
///
/// # Errors
/// It refuses the file, or fails.
pub fn ask(model: &mut Model, bytes: Vec<u8>, content_type: Option<&str>) -> Result<Inference> {
    let expects = Some(MediaKind::Tensor).filter(|_| content_type != Some("audio/wav"));
    let media = Media::detect_for(bytes, content_type, expects)?;
    Ok(model.infer(&media)?)
}

/// How unusual a file is.
///
/// # Errors
/// The answer is of another kind.
pub fn anomaly(inference: &Inference) -> Result<Anomaly> {
    match inference.outcome {
        Outcome::Anomaly(anomaly) => Ok(anomaly),
        ref other => bail!("an anomaly was expected, not {other:?}"),
    }
}

/// The numbers of an NPY file, and how many rows it has.
///
/// # Errors
/// It cannot be read, or is no NPY file.
pub fn numbers(path: &Path) -> Result<(Vec<f32>, usize)> {
    let bytes = read(path)?;
    let not_npy = || format!("{} is no NPY file", path.display());
    let length = bytes.get(8..10).with_context(not_npy)?;
    let head = 10 + usize::from(u16::from_le_bytes([length[0], length[1]]));
    let text = std::str::from_utf8(bytes.get(10..head).with_context(not_npy)?)?;
    let shape = text.split("'shape': (").nth(1).and_then(|shape| shape.split(',').next());
    let (values, _) = bytes.get(head..).unwrap_or_default().as_chunks();
    let values = values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    Ok((values, shape.with_context(not_npy)?.parse()?))
}

/// A model on a runtime; its name says of which kind it is.
///
/// # Errors
/// There is no such model, or it does not load.
pub fn model(reference: &Path, name: &str, runtime: &dyn Runtime) -> Result<Model> {
    let onnx = read(&reference.join(format!("models/{name}.onnx")))?;
    let data = reference.join("data");
    let (golden, sample);
    // Shares are within 1.0 of any other; what else is given is compared elsewhere, graph by graph.
    let made = match name.split('_').next() {
        Some("pump") => {
            sample = pumps(reference)?.first().map(|(bytes, _)| bytes.clone()).unwrap_or_default();
            golden = vec![0.0; WINDOW];
            Made {
                onnx: &onnx,
                kind: "reconstruction",
                tables: &pump_tables(reference)?,
                label: "label = \"normal\"",
                sample: ("sample.bin", &sample),
                golden: &golden,
                tolerance: 100.0,
            }
            .model(runtime)
        }
        Some("ad") => {
            let first = rows(&data.join("ad_toycar/labels.csv"))?;
            let first = first.first().context("no clips")?;
            sample = read(&data.join("ad_toycar").join(&first[0]))?;
            golden = vec![0.0; 640];
            Made {
                onnx: &onnx,
                kind: "reconstruction",
                tables: &toy_car_tables(name.contains("int8")),
                label: "label = \"normal\"",
                sample: ("sample.npy", &sample),
                golden: &golden,
                tolerance: 100.0,
            }
            .model(runtime)
        }
        Some("silero") => {
            sample = read(&data.join("vad/speech_30s.wav"))?;
            Made {
                onnx: &onnx,
                kind: "multi-label",
                tables: SPEECH,
                label: "label = \"speech\"",
                sample: ("sample.wav", &sample),
                golden: &[0.5],
                tolerance: 1.0,
            }
            .model(runtime)
        }
        Some("face") => {
            let photos = photos(reference)?;
            sample = photos.first().map(|(bytes, _)| bytes.clone()).unwrap_or_default();
            golden = vec![0.5; 4420 * 2];
            Made {
                onnx: &onnx,
                kind: "detection",
                tables: FACES,
                label: "",
                sample: ("sample.jpg", &sample),
                golden: &golden,
                tolerance: 1.0,
            }
            .model(runtime)
        }
        _ => bail!("{name} is a classifier, or unknown"),
    };
    made.with_context(|| format!("{name} on {}", runtime.name()))
}

fn pump_tables(reference: &Path) -> Result<String> {
    let norm = read(&reference.join("models/pump_norm.json"))?;
    let norm: serde_json::Value = serde_json::from_slice(&norm)?;
    let value = |key: &str| norm.get(key).with_context(|| format!("pump_norm.json has no {key}"));
    Ok(format!(
        "[[input]]\nname = \"window_norm\"\ndtype = \"f32\"\nshape = [\"batch\", {WINDOW}]\n\
         [input.tensor]\nmean = {}\nstd = {}\n[[output]]\nname = \"recon\"\ndtype = \"f32\"\n\
         shape = [\"batch\", {WINDOW}]\nof = \"window_norm\"\nerror = \"squared\"\nthreshold = {}\n",
        value("mean_per_channel")?,
        value("std_per_channel")?,
        value("threshold_mse")?,
    ))
}

/// Windows of five frames of 128 bands, one frame apart.
fn toy_car_tables(is_int8: bool) -> String {
    let (input, output) = match is_int8 {
        false => ("dtype = \"f32\"", "dtype = \"f32\""),
        true => (
            "dtype = \"i8\"\nscale = 0.3910152316093445\nzero_point = 89",
            "dtype = \"i8\"\nscale = 0.36449846625328064\nzero_point = 96",
        ),
    };
    format!(
        "[[input]]\nname = \"input_1\"\n{input}\nshape = [\"batch\", 640]\n[input.tensor]\n\
         step = 128\n[[output]]\nname = \"Identity\"\n{output}\nshape = [\"batch\", 640]\n\
         of = \"input_1\"\nerror = \"squared\"\nthreshold = 12.0\n"
    )
}

/// The pumps' windows as raw elements, and whether each is an anomaly.
///
/// # Errors
/// The files cannot be read, or do not go together.
pub fn pumps(reference: &Path) -> Result<Vec<(Vec<u8>, bool)>> {
    let (values, count) = numbers(&reference.join("data/pump/windows_Nx128_f32.npy"))?;
    let labels = rows(&reference.join("data/pump/labels.csv"))?;
    ensure!(
        (count, values.len()) == (labels.len(), WINDOW * labels.len()),
        "windows or labels are missing"
    );
    let bytes = |row: &[f32]| row.iter().flat_map(|x| x.to_le_bytes()).collect();
    let windows = values.chunks_exact(WINDOW).zip(&labels);
    Ok(windows.map(|(row, label)| (bytes(row), label[2] == "1")).collect())
}

/// The scores of the pumps' windows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scores {
    /// Of windows with a fault.
    pub faulty: Vec<Anomaly>,
    /// Of those without.
    pub normal: Vec<Anomaly>,
}

impl Scores {
    /// Of all windows.
    ///
    /// # Errors
    /// The model fails.
    pub fn of(reference: &Path, model: &mut Model) -> Result<Self> {
        let mut scores = Self::default();
        for (bytes, is_faulty) in pumps(reference)? {
            let inference = ask(model, bytes, Some("application/octet-stream"))?;
            ensure!(inference.outcome.confidence().is_none(), "a score is no confidence");
            let of = if is_faulty { &mut scores.faulty } else { &mut scores.normal };
            of.push(anomaly(&inference)?);
        }
        Ok(scores)
    }

    /// The share of pairs of a faulty and a normal window in which the faulty one scores higher.
    pub fn auc(&self) -> f64 {
        let higher = |a: f32, n: f32| if a > n { 1.0 } else { f64::from(u8::from(a == n)) / 2.0 };
        let pairs = self.faulty.iter().flat_map(|a| self.normal.iter().map(move |n| (a, n)));
        let sum: f64 = pairs.map(|(a, n)| higher(a.score, n.score)).sum();
        sum / (self.faulty.len() * self.normal.len()) as f64
    }
}

/// The photos, and what their table says of each.
///
/// # Errors
/// A file cannot be read.
pub fn photos(reference: &Path) -> Result<Vec<(Vec<u8>, Vec<String>)>> {
    let folder = reference.join("data/images");
    let photos = rows(&folder.join("labels.csv"))?.into_iter();
    photos.map(|row| Ok((read(&folder.join(&row[0]))?, row))).collect()
}

/// The things that a detector finds in a photo.
///
/// # Errors
/// The model fails.
pub fn things(model: &mut Model, photo: Vec<u8>) -> Result<Things> {
    match model.infer(&Media::detect(photo, None)?)?.outcome {
        Outcome::Things(things) => Ok(things),
        other => bail!("boxes were expected, not {other:?}"),
    }
}

/// How many windows of a recording are speech.
pub fn speech(rows: &[f32]) -> usize {
    rows.iter().filter(|share| **share >= IS_SPEECH).count()
}

/// What a model that is no classifier finds in the files, as it is told to people; none for a
/// classifier.
///
/// # Errors
/// A file cannot be read, or the model fails.
pub fn found(name: &str, reference: &Path, runtime: &dyn Runtime) -> Result<Option<String>> {
    let kind = name.split('_').next().unwrap_or_default();
    if !["ad", "face", "silero"].contains(&kind) && !name.starts_with("pump_ae") {
        return Ok(None);
    }
    let mut model = model(reference, name, runtime)?;
    Ok(Some(match kind {
        "pump" => format!("AUC {:.3}", Scores::of(reference, &mut model)?.auc()),
        "ad" => {
            let folder = reference.join("data/ad_toycar");
            let clips = rows(&folder.join("labels.csv"))?;
            let mut right = 0;
            for clip in &clips {
                let inference = ask(&mut model, fs::read(folder.join(&clip[0]))?, None)?;
                right += usize::from(anomaly(&inference)?.is_anomaly() == (clip[2] == "1"));
            }
            format!("{right} of {}", clips.len())
        }
        "face" => {
            let (mut right, mut counted) = (0, 0);
            for (photo, row) in photos(reference)? {
                let Ok(faces) = row[9].parse::<usize>() else { continue };
                counted += 1;
                right += usize::from(things(&mut model, photo)?.found.len() == faces);
            }
            format!("{right} of {counted}")
        }
        _ => {
            let recording = read(&reference.join("data/vad/speech_30s.wav"))?;
            let inference = ask(&mut model, recording, Some("audio/wav"))?;
            let recorded = inference.recorded.context("no windows")?;
            let rows = recorded.rows.get(..recorded.windows).unwrap_or_default();
            format!("speech in {} of {} windows", speech(rows), recorded.windows)
        }
    }))
}
