//! The seam between a bundle and the engines that execute graphs.
//!
//! **Invariant:** a `Session` takes and gives exactly the tensors of its `Graph`: same names, same
//! element types, same pinned shapes. An engine that panics or refuses is a typed error.

pub mod tract;

/// A tensor of a graph: its name and its pinned shape; elements are f32.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// The name in the graph.
    pub name: String,
    /// The shape, batch included.
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

    /// Loads a graph and makes it ready to run.
    ///
    /// # Errors
    /// The graph is damaged, uses what the engine has not, or is not as it is said to be.
    fn load(&self, graph: &Graph<'_>) -> Result<Box<dyn Session>, RuntimeError>;
}

/// A graph that is ready to run, used by one thread at a time.
pub trait Session: Send {
    /// Runs the graph. `inputs` hold the elements of each input in C order; each of `outputs` is
    /// replaced by the elements of that output.
    ///
    /// # Errors
    /// A length differs from the graph's, or the engine fails.
    fn run(&mut self, inputs: &[&[f32]], outputs: &mut [Vec<f32>]) -> Result<(), RuntimeError>;
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
