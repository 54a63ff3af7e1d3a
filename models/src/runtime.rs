//! The seam between a bundle and the engines that execute graphs.
//!
//! **Invariant:** a `Session` takes and gives exactly the tensors of its `Graph`: same names, same
//! element types, same pinned shapes, and one batch where the first dimension is free. An engine that
//! panics or refuses is a typed error.

mod fit;
pub mod onnx_runtime;
pub mod tract;

use std::borrow::Cow;
use std::num::NonZeroUsize;

pub use self::fit::{Misfit, batch_of};
use crate::tensor::{Dtype, Tensor};

/// Largest batch that a graph is run with.
pub const MAX_BATCH: usize = 4096;

/// A tensor of a graph: its name, its element type and its shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// The name in the graph.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// The shape, batch included; empty for a scalar.
    pub shape: Vec<usize>,
    /// Whether the first dimension, which is 1 in `shape`, may be any number up to [`MAX_BATCH`].
    pub free_batch: bool,
}

impl TensorSpec {
    /// A tensor whose every dimension is pinned.
    pub fn pinned(name: impl Into<String>, dtype: Dtype, shape: &[usize]) -> Self {
        Self { name: name.into(), dtype, shape: shape.to_vec(), free_batch: false }
    }

    /// Number of elements, of one element of the batch where that is free.
    pub fn size(&self) -> usize {
        self.shape.iter().product()
    }

    /// The batch that a shape has here, if it is a shape of this tensor: 1 where it is pinned.
    pub fn batch_of(&self, shape: &[usize]) -> Option<usize> {
        if !self.free_batch {
            return (shape == self.shape).then_some(1);
        }
        let (batch, rest) = shape.split_first()?;
        let fits = (1..=MAX_BATCH).contains(batch) && Some(rest) == self.shape.get(1..);
        fits.then_some(*batch)
    }

    /// The shape, with the batch that it is run with where that is free.
    fn shape_at(&self, batch: usize) -> Cow<'_, [usize]> {
        if !self.free_batch || batch == 1 {
            return Cow::Borrowed(&self.shape);
        }
        let mut shape = self.shape.clone();
        if let Some(first) = shape.first_mut() {
            *first = batch;
        }
        Cow::Owned(shape)
    }
}

impl std::fmt::Display for TensorSpec {
    /// As it is told to people: `f32 [batch, 128]`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let first = self.free_batch.then(|| "batch".to_owned());
        let pinned = self.shape.iter().skip(usize::from(self.free_batch)).map(usize::to_string);
        let dims: Vec<String> = first.into_iter().chain(pinned).collect();
        write!(f, "{} [{}]", self.dtype, dims.join(", "))
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

/// Whether tensors are as a session's graph says, all of one batch, which is given.
pub(crate) fn check_tensors(
    specs: &[TensorSpec],
    tensors: &[Tensor],
) -> Result<usize, RuntimeError> {
    check_count("inputs", tensors.len(), specs.len())?;
    batch_of(specs, tensors).map_err(|misfit| {
        let (Misfit::Dtype { at } | Misfit::Shape { at } | Misfit::Batch { at, .. }) = misfit;
        let told = |spec: &TensorSpec| spec.to_string();
        let want = specs.get(at).map(told).unwrap_or_default();
        let got = |tensor: &Tensor| format!("{} {:?}", tensor.dtype(), tensor.shape());
        RuntimeError::Interface {
            what: format!("tensor {}", specs.get(at).map_or("", |spec| &spec.name)),
            got: tensors.get(at).map(got).unwrap_or_default(),
            want: match misfit {
                Misfit::Batch { want: batch, .. } => format!("{want} with a batch of {batch}"),
                Misfit::Dtype { .. } | Misfit::Shape { .. } => want,
            },
        }
    })
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
