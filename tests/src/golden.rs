//! Models of the reference folder with the inputs and outputs that their own reference gave.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use holdfast_models::runtime::{Graph, TensorSpec};
use holdfast_models::{Dtype, Tensor};

/// A model and its golden input and output.
#[derive(Debug, Clone)]
pub struct Golden {
    /// The ONNX file.
    pub onnx: Vec<u8>,
    /// Its inputs, as the graph has them.
    pub inputs: Vec<TensorSpec>,
    /// Its outputs, as the graph has them.
    pub outputs: Vec<TensorSpec>,
    /// What it was given.
    pub given: Vec<Tensor>,
    /// What it gave.
    pub wanted: Vec<Tensor>,
}

#[derive(serde::Deserialize)]
struct Listed {
    inputs: Vec<File>,
    outputs: Vec<File>,
}

#[derive(serde::Deserialize)]
struct File {
    name: String,
    file: String,
    shape: Vec<usize>,
    dtype: String,
}

impl Golden {
    /// Reads `NAME.onnx` and `golden/NAME.json` in the folder of models.
    ///
    /// # Errors
    /// A file is missing or not as the folder's own description says.
    pub fn read(models: &Path, name: &str) -> anyhow::Result<Self> {
        let folder = models.join("golden");
        let listed = read(&folder.join(format!("{name}.json")))?;
        let listed: Listed = serde_json::from_slice(&listed).with_context(|| name.to_owned())?;
        let specs = |files: &[File]| -> anyhow::Result<Vec<TensorSpec>> {
            files.iter().map(File::spec).collect()
        };
        let tensors = |files: &[File]| -> anyhow::Result<Vec<Tensor>> {
            files.iter().map(|file| file.tensor(&folder)).collect()
        };
        Ok(Self {
            onnx: read(&models.join(format!("{name}.onnx")))?,
            inputs: specs(&listed.inputs)?,
            outputs: specs(&listed.outputs)?,
            given: tensors(&listed.inputs)?,
            wanted: tensors(&listed.outputs)?,
        })
    }

    /// The graph, to be loaded.
    pub fn graph(&self) -> Graph<'_> {
        Graph { onnx: &self.onnx, inputs: &self.inputs, outputs: &self.outputs }
    }

    /// Tensors for a session's outputs.
    pub fn room(&self) -> Vec<Tensor> {
        self.outputs.iter().map(|spec| Tensor::zeros(&spec.shape, spec.dtype)).collect()
    }

    /// The largest difference of any element from what was wanted; infinite where it is no number.
    pub fn off(&self, got: &[Tensor]) -> f32 {
        let differences = self.wanted.iter().zip(got).flat_map(|(want, got)| {
            let pairs = want.to_f32().into_iter().zip(got.to_f32());
            pairs.map(|(want, got)| (want - got).abs()).collect::<Vec<_>>()
        });
        let worse =
            |worst: f32, off: f32| if off.is_nan() { f32::INFINITY } else { worst.max(off) };
        differences.fold(0.0, worse)
    }
}

/// The names of the models in a folder, sorted.
///
/// # Errors
/// The folder cannot be read.
pub fn names(models: &Path) -> anyhow::Result<Vec<String>> {
    let entries = fs::read_dir(models).with_context(|| models.display().to_string())?;
    let paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let is_model = |path: &&PathBuf| path.extension().is_some_and(|ending| ending == "onnx");
    let stems = paths.iter().filter(is_model).filter_map(|path| path.file_stem()?.to_str());
    let mut names: Vec<String> = stems.map(str::to_owned).collect();
    names.sort();
    Ok(names)
}

impl File {
    fn spec(&self) -> anyhow::Result<TensorSpec> {
        let dtype = match self.dtype.as_str() {
            "float32" => Dtype::F32,
            "int8" => Dtype::I8,
            "uint8" => Dtype::U8,
            "int64" => Dtype::I64,
            other => anyhow::bail!("{}: element type {other}", self.file),
        };
        Ok(TensorSpec::pinned(&*self.name, dtype, &self.shape))
    }

    fn tensor(&self, folder: &Path) -> anyhow::Result<Tensor> {
        let bytes = read(&folder.join(&self.file))?;
        let spec = self.spec()?;
        let mut tensor = Tensor::zeros(&spec.shape, spec.dtype);
        let shape = &spec.shape;
        match spec.dtype {
            Dtype::U8 => tensor.copy_from(shape, &bytes),
            Dtype::I8 => tensor.copy_from(shape, &numbers(&bytes, i8::from_le_bytes)),
            Dtype::I64 => tensor.copy_from(shape, &numbers(&bytes, i64::from_le_bytes)),
            _ => tensor.copy_from(shape, &numbers(&bytes, f32::from_le_bytes)),
        }
        .with_context(|| self.file.clone())?;
        Ok(tensor)
    }
}

fn numbers<const N: usize, T>(bytes: &[u8], number: fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|bytes| number(*bytes)).collect()
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| path.display().to_string())
}
