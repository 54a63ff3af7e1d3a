//! The values of one output with the shape they are in, and what can be wrong with them.
//!
//! **Invariant:** a shape that was read has exactly as many elements as there are values.

use super::probability::{probability, sigmoid};

/// The values of one output tensor, in C order.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The elements.
    pub values: &'a [f32],
    /// The shape, batch 1 first or left out.
    pub shape: &'a [usize],
}

/// Why an output is no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// The tensor has another shape than the parameters say.
    #[error(
        "the output of {what} has shape {got:?} and {count} values: must be {want}; correct the bundle's output"
    )]
    Shape {
        /// Which tensor.
        what: &'static str,
        /// Its shape.
        got: Vec<usize>,
        /// Number of its values.
        count: usize,
        /// What it must be.
        want: String,
    },
    /// There are more or fewer tensors than the parameters say.
    #[error("{got} outputs for {want} {what}: must be one each; correct the bundle's output")]
    Count {
        /// What each tensor is for.
        what: &'static str,
        /// How many there are.
        got: usize,
        /// How many there must be.
        want: usize,
    },
    /// A value is infinite or not a number where that means nothing.
    #[error("the model gave {value} as {what}: the answer is not usable, use another variant")]
    NotFinite {
        /// What it stands for.
        what: &'static str,
        /// The value as text.
        value: String,
    },
    /// A value lies outside of what it stands for.
    #[error("the model gave {value} as {what}: must be {allowed}; correct the bundle's output")]
    OutOfRange {
        /// What it stands for.
        what: &'static str,
        /// The value as text.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// A parameter is out of its range.
    #[error("{what} = {value}: must be {allowed}; correct the bundle's output")]
    Parameter {
        /// Which.
        what: &'static str,
        /// Its value as text.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// A mask changes its class too often to be told in runs.
    #[error("the mask has more than {0} runs: send a smaller picture")]
    TooManyRuns(usize),
}

impl<'a> View<'a> {
    /// The shape as exactly `N` dimensions; those of 1 in front may be there or not.
    pub(super) fn dims<const N: usize>(
        &self,
        what: &'static str,
        want: &str,
    ) -> Result<[usize; N], DecodeError> {
        let mut shape = self.shape;
        while let [1, rest @ ..] = shape
            && shape.len() > N
        {
            shape = rest;
        }
        match <[usize; N]>::try_from(shape) {
            Ok(dims) if self.is_whole() => Ok(dims),
            _ => Err(self.wrong(what, want)),
        }
    }

    fn is_whole(&self) -> bool {
        let size = self.shape.iter().try_fold(1usize, |n, dim| n.checked_mul(*dim));
        size == Some(self.values.len())
    }

    /// The fault of having another shape.
    pub(super) fn wrong(&self, what: &'static str, want: &str) -> DecodeError {
        let (got, count) = (self.shape.to_vec(), self.values.len());
        DecodeError::Shape { what, got, count, want: want.to_owned() }
    }

    /// The value at this place, which the caller knows to be one; 0 for any other.
    pub(super) fn at(&self, place: usize) -> f32 {
        self.values.get(place).copied().unwrap_or_default()
    }
}

/// What makes a graph's number a score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// Nothing: the graph gives 0..=1.
    None,
    /// 1 / (1 + exp(-x)).
    Sigmoid,
}

impl Activation {
    /// A score in 0..=1.
    ///
    /// # Errors
    /// Not a number, or not in 0..=1 where it must be already.
    pub(super) fn score(self, x: f32, what: &'static str) -> Result<f32, DecodeError> {
        let score = match self {
            Self::None => x,
            Self::Sigmoid => sigmoid(x),
        };
        probability(score, what)
    }
}

/// Whether a parameter is in its range.
pub(super) fn must(
    fits: bool,
    what: &'static str,
    value: impl ToString,
    allowed: &'static str,
) -> Result<(), DecodeError> {
    match fits {
        true => Ok(()),
        false => Err(DecodeError::Parameter { what, value: value.to_string(), allowed }),
    }
}
