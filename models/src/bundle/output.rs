//! What a graph gives: its output tensors.
//!
//! **Invariant:** the shape has a bounded number of elements.

use super::input::{form, open_form, open_shape};
use super::kind::Kind;
use super::section::Section;
use crate::quantisation::Form;
use crate::runtime::TensorSpec;

/// An output of a graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// The tensor's name in the graph.
    pub name: String,
    /// Its element type, and what its integers stand for.
    pub form: Form,
    /// Its shape; batch 1 first where the batch is free.
    pub shape: Vec<usize>,
    /// Whether the graph gives whatever batch it took.
    pub free_batch: bool,
}

impl Output {
    /// Number of elements, of one window.
    pub fn size(&self) -> usize {
        self.shape.iter().product()
    }

    /// The tensor.
    pub fn spec(&self) -> TensorSpec {
        TensorSpec {
            free_batch: self.free_batch,
            ..TensorSpec::pinned(&*self.name, self.form.dtype, &self.shape)
        }
    }
}

/// Reads what every output has; the kind's keys are read by who knows the kind.
pub(super) fn read(section: &Section<'_>, kind: Option<Kind>) -> Option<Output> {
    let name = section.text("name", 200);
    let form = if kind == Some(Kind::Tensor) { open_form(section) } else { form(section) };
    let shape = open_shape(section);
    let (shape, free_batch) = shape?;
    Some(Output { name: name?, form: form?, shape, free_batch })
}
