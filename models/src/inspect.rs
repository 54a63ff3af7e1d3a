//! A plain ONNX file that is to become a bundle: what it says of itself, what can be inferred of what
//! it is for, and the first `bundle.toml` that follows from both.
//!
//! **Invariant:** pure but for the reading of the bytes that it is given; what was inferred rather than
//! read is marked as such, and what nobody but its maker can know is named.

mod guess;
mod labels;
mod operators;
mod whole;
mod write;

use std::fmt;

use crate::bundle::MAX_ELEMENTS;
use crate::runtime::tract::describe::describe;
use crate::tensor::Dtype;

pub use guess::{Draft, DraftError, DraftInput, DraftOutput, Hints, Kind, Note, Source};
pub use whole::Table;
pub use write::{Texts, manifest};

/// Most dimensions of a tensor in a bundle.
const MAX_RANK: usize = 6;
/// Most inputs, and most outputs.
const MAX_PORTS: usize = 32;

/// What a file says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspected {
    /// The file's size.
    pub bytes: usize,
    /// The version of the ONNX operators that it uses, where it says so.
    pub opset: Option<i64>,
    /// What made the file.
    pub producer: String,
    /// Every kind of operator in it, sorted.
    pub operators: Vec<Operator>,
    /// What the graph takes, without what the file itself holds.
    pub inputs: Vec<Port>,
    /// What it gives.
    pub outputs: Vec<Port>,
}

/// A kind of operator.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Operator {
    /// Whose it is; empty for ONNX itself.
    pub domain: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.domain {
            "" => f.write_str(&self.name),
            domain => write!(f, "{domain}.{}", self.name),
        }
    }
}

/// A tensor that a graph takes or gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub kind: PortType,
    /// Its dimensions; nothing where the file does not say how many there are.
    pub dims: Option<Vec<Dim>>,
    /// For integers that are numbers with a scale: the scale and the zero point.
    pub scale: Option<(f32, i32)>,
    /// For an output, the operators behind it, the nearest first, as far as the first one that gives
    /// the values their meaning.
    pub made_by: Vec<String>,
}

/// What a graph's input or output is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortType {
    /// A tensor of these elements.
    Tensor(Dtype),
    /// A tensor of elements that bundles do not have.
    Other(String),
    /// A sequence, a map or nothing.
    NoTensor,
}

/// One dimension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// So many.
    Fixed(usize),
    /// Any number, by the name that the file gives it, if it gives one.
    Free(String),
}

/// Why a file becomes no bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    /// It cannot be read, or is not what an engine may be given.
    #[error("the file cannot be read as ONNX: {0}")]
    Malformed(String),
    /// It has operators that neither ONNX nor an engine here has.
    #[error(
        "unknown operators: {0}; export the model with the operators of ONNX, or with its own functions inside of the file"
    )]
    Operators(String),
    /// A tensor is of a kind that bundles do not have.
    #[error("{port} is {got}, which no bundle can say: {instead}")]
    Port {
        /// Which input or output.
        port: String,
        /// What it is.
        got: String,
        /// What to do.
        instead: &'static str,
    },
}

/// Reads a file and checks that it can become a bundle.
///
/// # Errors
/// The first reason why not.
pub fn inspect(onnx: &[u8]) -> Result<Inspected, InspectError> {
    let inspected = describe(onnx)?;
    let unknown: Vec<String> = inspected
        .operators
        .iter()
        .filter(|operator| !operators::is_known(operator))
        .map(ToString::to_string)
        .collect();
    if !unknown.is_empty() {
        return Err(InspectError::Operators(unknown.join(", ")));
    }
    for (what, ports) in [("input", &inspected.inputs), ("output", &inspected.outputs)] {
        if ports.is_empty() || ports.len() > MAX_PORTS {
            return Err(InspectError::Port {
                port: format!("the list of {what}s"),
                got: format!("{} long", ports.len()),
                instead: "export a graph with 1 to 32 of them",
            });
        }
        ports.iter().try_for_each(|port| check(what, port))?;
    }
    Ok(inspected)
}

fn check(what: &str, port: &Port) -> Result<(), InspectError> {
    let refused = |got: String, instead| {
        Err(InspectError::Port { port: format!("{what} {}", port.name), got, instead })
    };
    match &port.kind {
        PortType::Tensor(_) => {}
        PortType::Other(kind) => {
            let instead = "export the model so that it is a tensor of numbers";
            return refused(format!("of type {kind}"), instead);
        }
        PortType::NoTensor => {
            let instead = "export the model so that it is one, without ZipMap or sequences";
            return refused("no tensor".to_owned(), instead);
        }
    }
    let Some(dims) = &port.dims else { return Ok(()) };
    let shape = || format!("of shape {}", shape(dims));
    if dims.len() > MAX_RANK {
        return refused(shape(), "export it with at most 6 dimensions");
    }
    let mut fixed = dims.iter().filter_map(|dim| match dim {
        Dim::Fixed(size) => Some(*size),
        Dim::Free(_) => None,
    });
    let size = fixed.try_fold(1usize, |all, size| all.checked_mul(size));
    if size.is_none_or(|size| size == 0 || size > MAX_ELEMENTS) {
        return refused(shape(), "export it with 1 to 16777216 elements");
    }
    Ok(())
}

/// A shape as it is told to people: `[batch, 3, ?]`.
pub(crate) fn shape(dims: &[Dim]) -> String {
    let dim = |dim: &Dim| match dim {
        Dim::Fixed(size) => size.to_string(),
        Dim::Free(name) if name.is_empty() => "?".to_owned(),
        Dim::Free(name) => name.clone(),
    };
    format!("[{}]", dims.iter().map(dim).collect::<Vec<_>>().join(", "))
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            PortType::Tensor(dtype) => dtype.name(),
            PortType::Other(kind) => kind,
            PortType::NoTensor => "no tensor",
        };
        let dims = self.dims.as_deref().map_or_else(|| "[...]".to_owned(), shape);
        write!(f, "{} {kind} {dims}", self.name)
    }
}
