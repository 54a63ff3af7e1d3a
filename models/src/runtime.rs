//! The seam between a bundle and the engines that execute graphs.
//!
//! **Invariant:** a `Session` takes and gives exactly the tensors of its `Graph`: same names, same
//! element types, same pinned shapes. An engine that panics or refuses is a typed error.

pub mod onnx_runtime;
pub mod tract;

use std::num::NonZeroUsize;

use crate::tensor::{Dtype, Tensor};

/// A tensor of a graph: its name, its element type and its pinned shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// The name in the graph.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// The shape, batch included; empty for a scalar.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// Number of elements.
    pub fn size(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A graph to load.
#[derive(Debug, Clone, Copy)]
pub struct Graph<'a> {
    /// The ONNX file.
    pub onnx: &'a [u8],
    /// Its inputs, in the order in which `run` takes them.
    pub inputs: &'a [TensorSpec],
    /// Its outputs, in the order in which `run` gives them.
    pub outputs: &'a [TensorSpec],
}

/// An engine that loads graphs.
pub trait Runtime: Send + Sync {
    /// The engine's name, as it is shown and configured.
    fn name(&self) -> &'static str;

    /// Loads a graph and makes it ready to run on this many threads; an engine that knows of one
    /// thread only uses one.
    ///
    /// # Errors
    /// The graph is damaged, uses what the engine has not, or is not as it is said to be.
    fn load(
        &self,
        graph: &Graph<'_>,
        threads: NonZeroUsize,
    ) -> Result<Box<dyn Session>, RuntimeError>;
}

/// A graph that is ready to run, used by one thread at a time.
pub trait Session: Send {
    /// Runs the graph. `inputs` are the graph's, in their order; each of `outputs` is replaced by
    /// that output, in the memory it has.
    ///
    /// # Errors
    /// An input is not as the graph says, or the engine fails.
    fn run(&mut self, inputs: &[Tensor], outputs: &mut [Tensor]) -> Result<(), RuntimeError>;
}

/// Why a graph does not load or run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuntimeError {
    /// The file is not a graph that can be read.
    #[error("{runtime} cannot read the graph: {why}")]
    Malformed {
        /// The engine.
        runtime: &'static str,
        /// The engine's reason.
        why: String,
    },
    /// The engine lacks something that the graph uses.
    #[error("{runtime} cannot run the graph: {why}; use another variant or runtime")]
    Unsupported {
        /// The engine.
        runtime: &'static str,
        /// What is missing, with the operator's name.
        why: String,
    },
    /// A tensor of the graph is not as the bundle says.
    #[error("{what} of the graph is {got}, the bundle says {want}")]
    Interface {
        /// Which tensor.
        what: String,
        /// As it is in the graph.
        got: String,
        /// As it is in the bundle.
        want: String,
    },
    /// The engine panicked.
    #[error("{runtime} panicked on the graph: {why}; use another variant or runtime")]
    Panicked {
        /// The engine.
        runtime: &'static str,
        /// The panic's message.
        why: String,
    },
    /// A run failed.
    #[error("{runtime} failed: {why}")]
    Failed {
        /// The engine.
        runtime: &'static str,
        /// The engine's reason.
        why: String,
    },
}

/// Whether tensors are as a session's graph says.
fn check_tensors(specs: &[TensorSpec], tensors: &[Tensor]) -> Result<(), RuntimeError> {
    check_count("inputs", tensors.len(), specs.len())?;
    for (spec, tensor) in specs.iter().zip(tensors) {
        if spec.dtype != tensor.dtype() || spec.shape != tensor.shape() {
            return Err(RuntimeError::Interface {
                what: format!("tensor {}", spec.name),
                got: format!("{} {:?}", tensor.dtype(), tensor.shape()),
                want: format!("{} {:?}", spec.dtype, spec.shape),
            });
        }
    }
    Ok(())
}

fn check_count(what: &str, got: usize, want: usize) -> Result<(), RuntimeError> {
    if got == want {
        return Ok(());
    }
    Err(RuntimeError::Interface {
        what: format!("number of {what}"),
        got: got.to_string(),
        want: want.to_string(),
    })
}

/// Where each of `wanted` stands among the graph's own names, which must be the same ones.
fn places(what: &str, own: &[String], wanted: &[TensorSpec]) -> Result<Vec<usize>, RuntimeError> {
    let places: Option<Vec<usize>> =
        wanted.iter().map(|spec| own.iter().position(|name| *name == spec.name)).collect();
    match places {
        Some(places) if own.len() == wanted.len() => Ok(places),
        _ => {
            let wanted: Vec<&str> = wanted.iter().map(|spec| spec.name.as_str()).collect();
            Err(RuntimeError::Interface {
                what: what.to_owned(),
                got: own.join(", "),
                want: wanted.join(", "),
            })
        }
    }
}

/// Runs foreign code; a panic in it is an error.
fn caught<T>(runtime: &'static str, run: impl FnOnce() -> T) -> Result<T, RuntimeError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).map_err(|payload| {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let why = text
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no reason given".to_owned());
        RuntimeError::Panicked { runtime, why }
    })
}
