//! The three models that are served, as files for the peers and as bundles for the agent, and what is
//! asked of them.
//!
//! **Invariant:** every server gets the same input of a model.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use holdfast_models::runtime::TensorSpec;
use holdfast_models::{Dtype, Tensor};
use holdfast_tests::bundle::Made;
use holdfast_tests::classifiers::CASES;
use holdfast_tests::protobuf::Message;
use holdfast_tests::tiny;
use image::{ImageFormat, imageops};

use super::wire::{Question, post};

/// The side of what `MobileNetV2` sees.
const SIDE: usize = 224;
const CLASSES: usize = 1001;
/// A photo that is large enough for 640 x 480 pixels.
const PHOTO: &str = "data/images/grace_hopper.jpg";
/// The picture's size.
const PICTURE: (u32, u32) = (640, 480);

/// One model.
pub(crate) struct Model {
    pub(crate) name: &'static str,
    pub(crate) input: TensorSpec,
    pub(crate) output: TensorSpec,
    /// The file in the reference folder; none for the network that is written here.
    file: Option<&'static str>,
}

/// The models of a run, in a folder.
pub(crate) struct Models {
    /// NAME.onnx and NAME.input of each.
    pub(crate) files: PathBuf,
    /// Their bundles.
    pub(crate) bundles: PathBuf,
    /// The bundle of the tiny network alone.
    pub(crate) tiny: PathBuf,
    /// A JPEG of 640 x 480 pixels.
    pub(crate) picture: Vec<u8>,
}

/// All of them, the smallest first.
pub(crate) fn all() -> [Model; 3] {
    let shape = [1, SIDE, SIDE, 3];
    let mobilenet = |name, file, dtype| Model {
        name,
        input: TensorSpec::pinned("input", dtype, &shape),
        output: TensorSpec::pinned("Identity", dtype, &[1, CLASSES]),
        file: Some(file),
    };
    [
        Model {
            name: "tiny",
            input: TensorSpec::pinned("x", Dtype::F32, &tiny::INPUT.map(usize::from)),
            output: TensorSpec::pinned("y", Dtype::F32, &[1, tiny::CLASSES.into()]),
            file: None,
        },
        mobilenet("mobilenet-fp32", "mobilenet_v2_100_224_fp32", Dtype::F32),
        mobilenet("mobilenet-int8", "mobilenet_v2_100_224_int8_qdq", Dtype::U8),
    ]
}

impl Models {
    /// Writes all of them.
    pub(crate) fn write(reference: &Path, folder: &Path) -> anyhow::Result<Self> {
        let files = folder.join("models");
        let bundles = folder.join("bundles");
        fs::create_dir_all(&files)?;
        for model in all() {
            let onnx = match model.file {
                Some(file) => fs::read(reference.join(format!("models/{file}.onnx")))
                    .with_context(|| format!("{file}.onnx"))?,
                None => tiny::network(),
            };
            fs::write(files.join(format!("{}.onnx", model.name)), &onnx)?;
            fs::write(files.join(format!("{}.input", model.name)), model.bytes())?;
            let own = bundles.join(model.name);
            fs::create_dir_all(&own)?;
            match model.file {
                Some(file) => {
                    let is_it = |case: &&holdfast_tests::classifiers::Case| {
                        case.model == file && case.fit() == "crop"
                    };
                    let case = CASES.iter().find(is_it).context("no such classifier")?;
                    case.write(reference, model.name, &own)?;
                }
                None => model.write_tiny(&onnx, &own)?,
            }
        }
        let photo = image::load_from_memory(&fs::read(reference.join(PHOTO))?)?;
        let (width, height) = PICTURE;
        let sized = photo.resize_to_fill(width, height, imageops::FilterType::Triangle);
        let mut picture = Cursor::new(Vec::new());
        sized.to_rgb8().write_to(&mut picture, ImageFormat::Jpeg)?;
        let tiny = bundles.join("tiny");
        Ok(Self { files, bundles, tiny, picture: picture.into_inner() })
    }
}

impl Model {
    /// The bytes of its input: for f32 numbers from -1 to 1.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self.input.dtype {
            Dtype::U8 => (0..self.input.size()).map(|at| at.to_le_bytes()[0]).collect(),
            _ => self.numbers().flat_map(f32::to_le_bytes).collect(),
        }
    }

    /// Numbers of four digits, which are the same in JSON.
    fn numbers(&self) -> impl Iterator<Item = f32> + use<> {
        (0..self.input.size()).map(|at| {
            let step = u16::try_from(at * 7919 % 20_000).unwrap_or(0);
            f32::from(step) / 10_000.0 - 1.0
        })
    }

    fn write_tiny(&self, onnx: &[u8], dir: &Path) -> anyhow::Result<()> {
        let labels: Vec<String> = (0..tiny::CLASSES).map(|class| class.to_string()).collect();
        let tables = format!(
            "[[input]]\nname = \"x\"\ndtype = \"f32\"\nshape = {:?}\n[input.tensor]\n[[output]]\n\
             name = \"y\"\ndtype = \"f32\"\nshape = {:?}\nmeaning = \"probabilities\"\n\
             labels = {labels:?}\nthreshold = 0.0\n",
            self.input.shape, self.output.shape,
        );
        let made = Made {
            onnx,
            kind: "classification",
            tables: &tables,
            label: "label = \"0\"",
            sample: ("sample.f32", &self.bytes()),
            // Every distribution is within 1 of it.
            golden: &[0.1; tiny::CLASSES as usize],
            tolerance: 1.0,
        };
        made.write_as(self.name, dir)
    }

    fn datatype(&self) -> &'static str {
        if self.input.dtype == Dtype::U8 { "UINT8" } else { "FP32" }
    }

    fn path(&self) -> String {
        format!("/v2/models/{}/infer", self.name)
    }

    /// The Open Inference Protocol, with the tensors behind the JSON.
    pub(crate) fn binary(&self) -> Arc<Question> {
        let (bytes, shape) = (self.bytes(), &self.input.shape);
        let json = format!(
            "{{\"inputs\":[{{\"name\":{:?},\"shape\":{shape:?},\"datatype\":{:?},\
             \"parameters\":{{\"binary_data_size\":{}}}}}],\
             \"parameters\":{{\"binary_data_output\":true}}}}",
            self.input.name,
            self.datatype(),
            bytes.len(),
        );
        let length = json.len().to_string();
        let headers = [
            ("content-type", "application/octet-stream"),
            ("inference-header-content-length", &*length),
        ];
        let body = [json.as_bytes(), &bytes].concat();
        Arc::new(post(&self.path(), &headers, &body))
    }

    /// The Open Inference Protocol, all of it JSON.
    pub(crate) fn json(&self) -> (Arc<Question>, usize) {
        let numbers: Vec<String> = self.numbers().map(|x| format!("{x:.4}")).collect();
        let json = format!(
            "{{\"inputs\":[{{\"name\":{:?},\"shape\":{:?},\"datatype\":{:?},\"data\":[{}]}}]}}",
            self.input.name,
            self.input.shape,
            self.datatype(),
            numbers.join(","),
        );
        let question = post(&self.path(), &[JSON], json.as_bytes());
        (Arc::new(question), json.len())
    }

    /// The Open Inference Protocol over gRPC.
    pub(crate) fn grpc(&self) -> Arc<Question> {
        let mut input = Message::default().text(1, &self.input.name).text(2, self.datatype());
        for dim in &self.input.shape {
            input = input.bytes(3, &[u8::try_from(*dim).unwrap_or(0)]);
        }
        let call = Message::default().text(1, self.name).message(5, &input);
        let call = call.bytes(7, &self.bytes());
        Arc::new(Question::Grpc("/inference.GRPCInferenceService/ModelInfer", call.0))
    }

    /// What `raw.py` takes.
    pub(crate) fn raw(&self) -> Arc<Question> {
        let headers = [("content-type", "application/octet-stream")];
        Arc::new(post(&format!("/infer/{}", self.name), &headers, &self.bytes()))
    }

    /// What `lit.py` takes.
    pub(crate) fn lit(&self) -> Arc<Question> {
        let numbers: Vec<String> = self.numbers().map(|x| format!("{x:.4}")).collect();
        let json = format!("{{\"input\":[{}]}}", numbers.join(","));
        Arc::new(post("/predict", &[JSON], json.as_bytes()))
    }

    /// Its input, for who runs it in process.
    pub(crate) fn tensor(&self) -> anyhow::Result<Tensor> {
        let mut tensor = Tensor::zeros(&self.input.shape, self.input.dtype);
        match self.input.dtype {
            Dtype::U8 => tensor.copy_from(&self.input.shape, &self.bytes())?,
            _ => tensor.copy_from(&self.input.shape, &self.numbers().collect::<Vec<f32>>())?,
        }
        Ok(tensor)
    }
}

const JSON: (&str, &str) = ("content-type", "application/json");

/// A JPEG to a path.
pub(crate) fn jpeg(path: &str, picture: &[u8]) -> Arc<Question> {
    Arc::new(post(path, &[("content-type", "image/jpeg")], picture))
}
