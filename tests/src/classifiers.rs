//! The reference classifiers from file to label: bundles written here, our own front ends, and what the
//! folder's PROVENANCE.md says that its reference pipeline gets right.
//!
//! **Invariant:** a case is counted on all of its test files, each of them once.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use holdfast_models::{Media, Runtime};

use crate::bundle::Made;

/// A classifier, and how many of its test files the reference pipeline gets right.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// The file's name, without its ending.
    pub model: &'static str,
    /// The tensors' names, and their lines on type and scale.
    input: (&'static str, &'static str),
    output: (&'static str, &'static str),
    front: Front,
    /// Test files that the reference pipeline gets right.
    pub right: usize,
}

/// What stands before the graph.
#[derive(Debug, Clone, Copy)]
enum Front {
    /// The keyword front end of MLPerf Tiny over the 96 recordings.
    Keywords,
    /// Photos, their side in pixels, `crop` or `stretch`, and what normalises them.
    Photos { side: usize, resize: &'static str, levels: &'static str, what: Photos },
    /// Windows of sensor values, as they are, without the faults.
    Pumps,
    /// Phrases as hashed words.
    Intents,
}

/// Which of the photos, and what is asked about them.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Photos {
    /// Is there a person? All 45.
    Person,
    /// Which of 1001 ImageNet classes? The 22 that have one.
    ImageNet,
    /// Which of 10 CIFAR classes? The 10 that have one.
    Cifar,
}

const F32: &str = "dtype = \"f32\"";
/// A probability in 256 steps.
const I8_SHARE: &str = "dtype = \"i8\"\nscale = 0.00390625\nzero_point = -128";
const U8_SHARE: &str = "dtype = \"u8\"\nscale = 0.00390625\nzero_point = 0";
/// The bytes of a picture, as they are or from -128 on.
const U8_PIXELS: &str = "dtype = \"u8\"\nscale = 0.00392156862745098\nzero_point = 0";
const I8_PIXELS: &str = "dtype = \"i8\"\nscale = 0.00392156862745098\nzero_point = -128";
const I8_MFCC: &str =
    "dtype = \"i8\"\nscale = 0.5847029089927673\nzero_point = 83\nrounding = \"truncate\"";
const PLAIN: &str = "mean = 0.0\nstd = 1.0";

const fn keywords(
    model: &'static str,
    input: &'static str,
    output: &'static str,
    right: usize,
) -> Case {
    let (input, output) = (("input_1", input), ("Identity", output));
    Case { model, input, output, front: Front::Keywords, right }
}

const fn person(
    model: &'static str,
    input: (&'static str, &'static str),
    output: (&'static str, &'static str),
    resize: &'static str,
    right: usize,
) -> Case {
    let front = Front::Photos { side: 96, resize, levels: PLAIN, what: Photos::Person };
    Case { model, input, output, front, right }
}

const V1_OUT: &str = "MobilenetV1/Predictions/Reshape_1";
/// (u8 - 128) / 128
const V1_LEVELS: &str = "mean = 0.5019607843137255\nstd = 0.5019607843137255";
/// (u8 - 127) * 2 / 255
const V2_LEVELS: &str = "mean = 0.4980392156862745\nstd = 0.5";

const fn imagenet(
    model: &'static str,
    (side, input, output): (usize, &'static str, (&'static str, &'static str)),
    levels: &'static str,
    resize: &'static str,
    right: usize,
) -> Case {
    let front = Front::Photos { side, resize, levels, what: Photos::ImageNet };
    Case { model, input: ("input", input), output, front, right }
}

/// The step of a byte is 1.
const BYTES: &str = "mean = 0.0\nstd = 0.00392156862745098";

const fn cifar(
    model: &'static str,
    input: (&'static str, &'static str),
    output: (&'static str, &'static str),
    levels: &'static str,
) -> Case {
    let front = Front::Photos { side: 32, resize: "crop", levels, what: Photos::Cifar };
    Case { model, input, output, front, right: 7 }
}

const fn plain(model: &'static str, input: &'static str, front: Front, right: usize) -> Case {
    Case { model, input: (input, F32), output: ("prob", F32), front, right }
}

const V1_F: (usize, &str, (&str, &str)) = (128, F32, (V1_OUT, F32));
const V1_Q: (usize, &str, (&str, &str)) = (128, U8_PIXELS, (V1_OUT, U8_SHARE));
const V2_F: (usize, &str, (&str, &str)) = (224, F32, ("Identity", F32));
const V2_Q: (usize, &str, (&str, &str)) = (224, U8_PIXELS, ("Identity", U8_SHARE));
const VWW_F: [(&str, &str); 2] = [("input_1", F32), ("Identity", F32)];
const VWW_Q: [(&str, &str); 2] = [("input_1_int8", I8_PIXELS), ("Identity_int8", I8_SHARE)];

/// All of them.
pub const CASES: [Case; 22] = [
    cifar("ic_resnet8_cifar10_fp32", VWW_F[0], VWW_F[1], BYTES),
    cifar("ic_resnet8_cifar10_int8_qdq", VWW_Q[0], VWW_Q[1], PLAIN),
    plain("intent_hashbow_fp32", "bow", Front::Intents, 40),
    plain("intent_hashbow_int8_qdq", "bow", Front::Intents, 40),
    plain("pump_state_fp32", "window", Front::Pumps, 422),
    plain("pump_state_int8_qdq", "window", Front::Pumps, 422),
    keywords("kws_dscnn_fp32", F32, F32, 87),
    keywords("kws_dscnn_hybrid_w8f32", F32, F32, 88),
    keywords("kws_dscnn_int8_qdq", I8_MFCC, I8_SHARE, 89),
    keywords("kws_dscnn_ortq_int8_qdq", F32, F32, 89),
    person("vww_mobilenetv1_fp32", VWW_F[0], VWW_F[1], "crop", 42),
    person("vww_mobilenetv1_fp32", VWW_F[0], VWW_F[1], "stretch", 39),
    person("vww_mobilenetv1_int8_qdq", VWW_Q[0], VWW_Q[1], "crop", 42),
    person("vww_mobilenetv1_int8_qdq", VWW_Q[0], VWW_Q[1], "stretch", 39),
    imagenet("mobilenet_v1_025_128_fp32", V1_F, V1_LEVELS, "crop", 13),
    imagenet("mobilenet_v1_025_128_fp32", V1_F, V1_LEVELS, "stretch", 9),
    imagenet("mobilenet_v1_025_128_int8_qdq", V1_Q, PLAIN, "crop", 15),
    imagenet("mobilenet_v1_025_128_int8_qdq", V1_Q, PLAIN, "stretch", 11),
    imagenet("mobilenet_v2_100_224_fp32", V2_F, V2_LEVELS, "crop", 20),
    imagenet("mobilenet_v2_100_224_fp32", V2_F, V2_LEVELS, "stretch", 21),
    imagenet("mobilenet_v2_100_224_int8_qdq", V2_Q, PLAIN, "crop", 20),
    imagenet("mobilenet_v2_100_224_int8_qdq", V2_Q, PLAIN, "stretch", 21),
];

/// What is asked, and the labels that are right for it.
struct Sample {
    bytes: Vec<u8>,
    content_type: Option<&'static str>,
    right: Vec<String>,
}

/// A file of the reference folder.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| path.display().to_string())
}

fn lines(path: &Path) -> Result<Vec<String>> {
    let text = String::from_utf8(read(path)?).with_context(|| path.display().to_string())?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// The rows of a table behind its head, each with all of its columns.
pub(crate) fn rows(path: &Path) -> Result<Vec<Vec<String>>> {
    let lines = lines(path)?;
    let columns = lines.first().map_or(0, |head| head.split(',').count());
    let rows = lines.iter().skip(1);
    let rows: Vec<Vec<String>> =
        rows.map(|line| line.split(',').map(str::to_owned).collect()).collect();
    let is_whole = rows.iter().all(|row| row.len() == columns);
    ensure!(is_whole, "{}: a row is cut", path.display());
    Ok(rows)
}

/// The label at a place that a table names.
fn label(labels: &[String], place: &str, first: usize) -> Result<String> {
    let place: usize = place.parse().with_context(|| format!("{place:?} is no place"))?;
    let at = place.checked_sub(first).and_then(|at| labels.get(at));
    at.cloned().with_context(|| format!("there is no label {place}"))
}

impl Front {
    /// The labels of the classes, each different.
    fn labels(self, reference: &Path) -> Result<Vec<String>> {
        let file = match self {
            Self::Keywords => "kws_labels.txt",
            Self::Photos { what: Photos::Person, .. } => "vww_labels.txt",
            Self::Photos { what: Photos::ImageNet, .. } => "imagenet_labels_1001.txt",
            Self::Photos { what: Photos::Cifar, .. } => "cifar10_labels.txt",
            Self::Pumps => "pump_state_labels.txt",
            Self::Intents => "intent_labels.txt",
        };
        let labels = lines(&reference.join("models").join(file))?;
        Ok(match self {
            // Two classes have one name, and the first class is the background.
            Self::Photos { what: Photos::ImageNet, .. } => {
                labels.iter().enumerate().map(|(at, name)| format!("{at} {name}")).collect()
            }
            _ => labels,
        })
    }

    /// The test files.
    fn samples(self, reference: &Path, labels: &[String]) -> Result<Vec<Sample>> {
        let data = reference.join("data");
        match self {
            Self::Keywords => {
                let rows = rows(&data.join("kws_wav/labels.csv"))?;
                let sample = |row: &Vec<String>| {
                    let bytes = read(&data.join("kws_wav").join(&row[0]))?;
                    Ok(Sample { bytes, content_type: None, right: vec![row[2].clone()] })
                };
                rows.iter().map(sample).collect()
            }
            Self::Photos { what, .. } => {
                let rows = rows(&data.join("images/labels.csv"))?;
                let sample = |row: &Vec<String>| {
                    let right = what.right(row, labels)?;
                    let bytes = read(&data.join("images").join(&row[0]))?;
                    Ok(Sample { bytes, content_type: None, right })
                };
                rows.iter().filter(|row| what.is_asked(row)).map(sample).collect()
            }
            Self::Pumps => {
                let all = read(&data.join("pump/windows_Nx128_f32.npy"))?;
                let head = all.get(8..10).context("no numbers in the pumps' windows")?;
                let head = 10 + usize::from(u16::from_le_bytes([head[0], head[1]]));
                let windows = all.get(head..).unwrap_or_default().chunks_exact(128 * 4);
                let rows = rows(&data.join("pump/labels.csv"))?;
                let normal = windows.zip(&rows).filter(|(_, row)| row[2] == "0");
                let sample = |(window, row): (&[u8], &Vec<String>)| {
                    let right = vec![label(labels, &row[1], 1)?];
                    let content_type = Some("application/octet-stream");
                    Ok(Sample { bytes: window.to_vec(), content_type, right })
                };
                normal.map(sample).collect()
            }
            Self::Intents => {
                let rows = rows(&data.join("intents/phrases.csv"))?;
                let sample = |row: &Vec<String>| Sample {
                    bytes: row[0].clone().into_bytes(),
                    content_type: Some("text/plain"),
                    right: vec![row[2].clone()],
                };
                Ok(rows.iter().map(sample).collect())
            }
        }
    }
}

impl Photos {
    /// Whether it is known what a photo should be.
    fn is_asked(self, row: &[String]) -> bool {
        match self {
            Self::Person => true,
            Self::ImageNet => !row[5].is_empty(),
            Self::Cifar => !row[7].is_empty(),
        }
    }

    /// The labels that are right for a photo.
    fn right(self, row: &[String], labels: &[String]) -> Result<Vec<String>> {
        match self {
            Self::Person => Ok(vec![label(labels, if row[4] == "1" { "1" } else { "0" }, 0)?]),
            // The table counts without the background.
            Self::ImageNet => row[5]
                .split('|')
                .map(|place| {
                    let place: usize = place.parse().context("a class is no number")?;
                    label(labels, &(place + 1).to_string(), 0)
                })
                .collect(),
            Self::Cifar => Ok(vec![label(labels, &row[7], 0)?]),
        }
    }
}

impl Case {
    /// How photos are brought to the model's size: `crop` or `stretch`; empty for what is no photo.
    pub fn fit(&self) -> &'static str {
        match self.front {
            Front::Photos { resize, .. } => resize,
            Front::Keywords | Front::Pumps | Front::Intents => "",
        }
    }

    /// Writes its bundle under a name.
    ///
    /// # Errors
    /// A file of the reference folder cannot be read, or one of the bundle not written.
    pub fn write(&self, reference: &Path, bundle: &str, dir: &Path) -> Result<()> {
        let labels = self.front.labels(reference)?;
        let samples = self.front.samples(reference, &labels)?;
        self.made(reference, &labels, &samples, |made| made.write_as(bundle, dir))
    }

    /// How many test files a runtime gets right, from file to label, and of how many.
    ///
    /// # Errors
    /// A file of the reference folder cannot be read; the model does not load or answer.
    pub fn count(&self, reference: &Path, runtime: &dyn Runtime) -> Result<(usize, usize)> {
        let labels = self.front.labels(reference)?;
        let samples = self.front.samples(reference, &labels)?;
        let mut model = self.made(reference, &labels, &samples, |made| made.model(runtime))?;
        let expects = Some(model.bundle().expects());
        let mut right = 0;
        for sample in &samples {
            let media = Media::detect_for(sample.bytes.clone(), sample.content_type, expects)?;
            let answer = model.infer(&media)?;
            let first = answer.classes().first().context("no class was given")?;
            right += usize::from(sample.right.contains(&first.label));
        }
        Ok((right, samples.len()))
    }

    /// Makes something of the bundle.
    fn made<T>(
        &self,
        reference: &Path,
        labels: &[String],
        samples: &[Sample],
        make: impl FnOnce(Made<'_>) -> Result<T>,
    ) -> Result<T> {
        let onnx = read(&reference.join(format!("models/{}.onnx", self.model)))?;
        let (tables, name) = tables(self, labels);
        let first = samples.first().with_context(|| format!("no files for {}", self.model))?;
        let right = first.right.first().context("no label for the first file")?;
        let made = Made {
            onnx: &onnx,
            kind: "classification",
            tables: &tables,
            label: &format!("label = {right:?}"),
            sample: (name, &first.bytes),
            // Any distribution is within 1.0 of any other: the goldens of these models are compared
            // elsewhere, graph by graph; here the labels are.
            golden: &vec![0.5; labels.len()],
            tolerance: 1.0,
        };
        make(made).with_context(|| self.model.to_owned())
    }
}

/// The tables of a case's bundle from `[[input]]` on, and how its sample is called.
fn tables(case: &Case, labels: &[String]) -> (String, &'static str) {
    let (front, shape, sample) = match case.front {
        Front::Keywords => (
            "[input.audio]\nsample_rate_hz = 16000\nclip_samples = 16000\nfit = \"start\"\n\
             normalise = \"max\"\nframe_samples = 480\nstep_samples = 320\nwindow = \"hann\"\n\
             fft = 512\nspectrum = \"magnitude\"\nmel_bands = 40\nmel_low_hz = 20.0\n\
             mel_high_hz = 4000.0\nmel_scale = \"htk\"\nlog_floor = 1e-6\nfeatures = \"mfcc\"\n\
             mfcc = 10\n"
                .to_owned(),
            "[1, 49, 10, 1]".to_owned(),
            "sample.wav",
        ),
        Front::Photos { side, resize, levels, .. } => (
            format!(
                "[input.image]\nwidth = {side}\nheight = {side}\nchannels = \"rgb\"\n\
                 resize = {resize:?}\nfilter = \"bilinear\"\nlayout = \"nhwc\"\n{levels}\n"
            ),
            format!("[1, {side}, {side}, 3]"),
            "sample.jpg",
        ),
        Front::Pumps => ("[input.tensor]\n".to_owned(), "[1, 128]".to_owned(), "sample.f32"),
        Front::Intents => (
            "[input.text]\nfeatures = \"hashed-words\"\nhash = \"fnv1a-32\"\nngrams = 2\n\
             normalise = \"l2\"\n"
                .to_owned(),
            "[1, 512]".to_owned(),
            "sample.txt",
        ),
    };
    let tables = format!(
        "[[input]]\nname = {:?}\n{}\nshape = {shape}\n{front}[[output]]\nname = {:?}\n{}\n\
         shape = [1, {}]\nmeaning = \"probabilities\"\nlabels = {labels:?}\nthreshold = 0.5\n",
        case.input.0,
        case.input.1,
        case.output.0,
        case.output.1,
        labels.len(),
    );
    (tables, sample)
}
