//! Why a model of this device gives no answer.
//!
//! **Invariant:** each reason says which model, and what to do now; what passes says how long it takes.

use std::time::Duration;

use thiserror::Error;

use super::tensors::TensorFault;
use crate::request::TaskName;

/// Why there is no local answer.
#[derive(Debug, Clone, Error)]
pub enum EngineError {
    /// No bundle does this task.
    #[error("no local model does task {0}")]
    NoModel(TaskName),
    /// As many requests as allowed wait already.
    #[error("{waiting} requests wait for {model} already; try again {}", when(*expected))]
    Busy {
        /// The task, or the bundle.
        model: String,
        /// The limit that was reached.
        waiting: usize,
        /// How long the wait would be.
        expected: Duration,
    },
    /// The caller's deadline would end first: nothing was begun.
    #[error(
        "no local answer for {model} within {} ms: it would take {} ms now; give more time, or try again later",
        within.as_millis(), expected.as_millis().max(1)
    )]
    TooLate {
        /// The task, or the bundle.
        model: String,
        /// The time that was given.
        within: Duration,
        /// How long it would take now.
        expected: Duration,
    },
    /// The caller's deadline ended first.
    #[error("no local answer for {model} within {} ms", waited.as_millis())]
    Late {
        /// The task, or the bundle.
        model: String,
        /// The time that was given.
        waited: Duration,
    },
    /// There is no such bundle.
    #[error("there is no model {model} here; there are {have}")]
    NoBundle {
        /// What was asked for.
        model: String,
        /// What there is.
        have: String,
    },
    /// There is no such version of a bundle.
    #[error("model {model} has no version {version}; it has {have}")]
    NoVersion {
        /// The bundle.
        model: String,
        /// What was asked for.
        version: String,
        /// What there is.
        have: String,
    },
    /// A bundle does not answer now.
    #[error("model {model} is not ready: {why}")]
    NotReady {
        /// The bundle.
        model: String,
        /// Why.
        why: String,
    },
    /// A tensor is not as the bundle says.
    #[error(transparent)]
    Tensor(TensorFault),
    /// The input cannot be used; nobody above could use it either.
    #[error("{0}")]
    Input(String),
    /// The model failed on an input that is fine.
    #[error("{0}")]
    Model(String),
}

impl EngineError {
    /// When to try again, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { expected, .. } | Self::TooLate { expected, .. } => Some(*expected),
            Self::NoModel(_)
            | Self::Late { .. }
            | Self::NoBundle { .. }
            | Self::NoVersion { .. }
            | Self::NotReady { .. }
            | Self::Tensor(_)
            | Self::Input(_)
            | Self::Model(_) => None,
        }
    }
}

fn when(expected: Duration) -> String {
    match expected.as_millis() {
        0 => "shortly".to_owned(),
        ms => format!("in {ms} ms"),
    }
}
