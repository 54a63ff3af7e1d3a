//! What a graph that nobody described does on a runtime, and what a bundle's goldens are on it: found out
//! in a process of its own, as everything that was never tried on this board.
//!
//! **Invariant:** whatever a file or a library does to the process that tries it, the one that asked goes
//! on, with a reason, within a time.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use holdfast_models::bundle::{Golden, Unproven};
use holdfast_models::runtime::{Graph, TensorSpec};
use holdfast_models::{Dtype, Model, RuntimeError};
use serde::{Deserialize, Serialize};

use super::candidates::TRACT;
use super::library::{OnnxRuntimeConfig, runtime};
use super::probe::{NICE, Program, become_a_child, limit_memory};
use crate::outcome::Said;

/// A sample that takes longer than this to answer is no sample.
const SAMPLE_WITHIN: Duration = Duration::from_secs(10);

/// The tensors of a graph, as they are handed to a child.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tensors {
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Tensor {
    name: String,
    dtype: String,
    shape: Vec<usize>,
    free_batch: bool,
}

impl Tensors {
    /// Those of a graph with these inputs and outputs.
    pub fn of(inputs: &[TensorSpec], outputs: &[TensorSpec]) -> Self {
        let own = |spec: &TensorSpec| Tensor {
            name: spec.name.clone(),
            dtype: spec.dtype.name().to_owned(),
            shape: spec.shape.clone(),
            free_batch: spec.free_batch,
        };
        Self {
            inputs: inputs.iter().map(own).collect(),
            outputs: outputs.iter().map(own).collect(),
        }
    }

    /// Nothing where a type is unknown.
    fn specs(tensors: &[Tensor]) -> Option<Vec<TensorSpec>> {
        let spec = |tensor: &Tensor| {
            let (_, dtype) = Dtype::ALL.iter().find(|(name, _)| *name == tensor.dtype)?;
            let pinned = TensorSpec::pinned(&*tensor.name, *dtype, &tensor.shape);
            Some(TensorSpec { free_batch: tensor.free_batch, ..pinned })
        };
        tensors.iter().map(spec).collect()
    }
}

/// What became of a graph on a runtime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trial {
    /// It can be run.
    Runs,
    /// There is no such runtime on this machine.
    NotHere(String),
    /// The runtime lacks what the graph uses; another one may have it.
    Lacks(String),
    /// The graph is at fault, or has done the process harm.
    Refused(String),
}

impl Trial {
    /// Why it cannot be run, if it cannot.
    pub fn problem(&self) -> Option<&str> {
        match self {
            Self::Runs => None,
            Self::NotHere(why) | Self::Lacks(why) | Self::Refused(why) => Some(why),
        }
    }
}

/// What a variant says to one of its bundle's samples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleAnswer {
    /// The sample.
    pub sample: String,
    /// The answer in a few words.
    pub says: String,
    /// The best label, where the answer has some.
    pub label: Option<String>,
}

impl Program {
    /// Whether a runtime can run the graph in a file. What cannot be found out counts against the graph.
    pub async fn try_graph(
        &self,
        onnx: &Path,
        tensors: &Tensors,
        runtime: &str,
        config: &OnnxRuntimeConfig,
    ) -> Trial {
        let tensors = match serde_json::to_string(tensors) {
            Ok(tensors) => tensors,
            Err(error) => return Trial::Refused(error.to_string()),
        };
        let mut arguments: Vec<OsString> = ["graph".into(), "--file".into(), onnx.into()].into();
        arguments.extend(["--tensors", &tensors, "--runtime", runtime].map(OsString::from));
        arguments.extend(config.as_argument());
        let tried = self.run(&arguments, self.within).await;
        tried.unwrap_or_else(|error| Trial::Refused(error.to_string()))
    }

    /// Has the goldens of a variant made, of all samples of the bundle, and written to `to` as the text
    /// of a `golden.toml`.
    ///
    /// # Errors
    /// The runtime cannot run the variant, or a sample cannot be answered; as a sentence.
    pub async fn make_goldens(
        &self,
        bundle: &Path,
        samples: usize,
        (variant, runtime): (&str, &str),
        config: &OnnxRuntimeConfig,
        to: &Path,
    ) -> Result<Vec<SampleAnswer>, String> {
        let mut arguments: Vec<OsString> =
            ["goldens".into(), "--bundle".into(), bundle.into()].into();
        arguments.extend(["--variant", variant, "--runtime", runtime].map(OsString::from));
        arguments.extend(["--to".into(), to.into()]);
        arguments.extend(config.as_argument());
        let all = SAMPLE_WITHIN.saturating_mul(u32::try_from(samples).unwrap_or(u32::MAX));
        let made = self.run(&arguments, self.within.saturating_add(all)).await;
        made.map_err(|error| error.to_string())
    }
}

/// Loads a graph; the child's side of [`Program::try_graph`].
///
/// # Errors
/// The file cannot be read, or the tensors are none; as a sentence.
pub fn try_graph(
    file: &Path,
    tensors: &str,
    name: &str,
    config: &OnnxRuntimeConfig,
) -> Result<Trial, String> {
    become_a_child(NICE);
    let tensors: Tensors = serde_json::from_str(tensors).map_err(|error| error.to_string())?;
    let unknown = || "an unknown type of elements".to_owned();
    let inputs = Tensors::specs(&tensors.inputs).ok_or_else(unknown)?;
    let outputs = Tensors::specs(&tensors.outputs).ok_or_else(unknown)?;
    let onnx = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    // Before the limit, as a library reserves what it never uses.
    if name != TRACT
        && let Err(error) = config.open()
    {
        return Ok(Trial::NotHere(crate::error_chain(&error)));
    }
    limit_memory(name);
    let runtime = runtime(name, config)?;
    let graph = Graph { onnx: &onnx, inputs: &inputs, outputs: &outputs };
    Ok(match runtime.load(&graph, NonZeroUsize::MIN) {
        Ok(_session) => Trial::Runs,
        Err(error @ RuntimeError::Unsupported { .. }) => Trial::Lacks(crate::error_chain(&error)),
        Err(error) => Trial::Refused(crate::error_chain(&error)),
    })
}

/// Runs a variant on the samples and writes what it gives; the child's side of
/// [`Program::make_goldens`].
///
/// # Errors
/// As there.
pub fn make_goldens(
    bundle: &Path,
    (variant, name): (&str, &str),
    config: &OnnxRuntimeConfig,
    to: &Path,
) -> Result<Vec<SampleAnswer>, String> {
    become_a_child(NICE);
    let told = |error: &dyn std::error::Error| crate::error_chain(error);
    let bundle = Unproven::open(bundle).map_err(|error| told(&error))?;
    let runtime = runtime(name, config)?;
    limit_memory(name);
    let made = Model::references(&bundle, variant, &*runtime).map_err(|error| told(&error))?;
    let (mut goldens, mut answers) = (Vec::new(), Vec::new());
    for reference in made {
        let sample = reference.golden.sample.clone();
        let label = reference.inference.classes().first().map(|class| class.label.clone());
        answers.push(SampleAnswer { sample, says: Said::of(reference.inference).label, label });
        goldens.push(reference.golden);
    }
    std::fs::write(to, Golden::text(&goldens))
        .map_err(|error| format!("cannot write {}: {error}", to.display()))?;
    Ok(answers)
}
