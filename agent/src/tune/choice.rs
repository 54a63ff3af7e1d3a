//! One way to run a bundle, and what it was measured to do.
//!
//! **Invariant:** pure; a choice says all that decides how fast and how right a bundle runs on a board.

use std::fmt;
use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

/// One way to run a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Choice {
    /// The bundle's variant.
    pub variant: String,
    /// The runtime, with its provider, such as `tract` or `onnxruntime-cuda`.
    pub runtime: String,
    /// Threads for one request.
    pub threads: NonZeroUsize,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.variant, self.runtime)?;
        match self.threads.get() {
            1 => Ok(()),
            threads => write!(f, " {threads} threads"),
        }
    }
}

/// What a choice was measured to do with the bundle's samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// From the file to a model whose goldens agree, in milliseconds.
    pub load_ms: f64,
    /// From a sample's bytes to its classes, the median, in milliseconds.
    pub p50_ms: f64,
    /// The 99th percentile of the same.
    pub p99_ms: f64,
    /// Memory that loading and running took at most, in KiB.
    pub peak_kib: u64,
    /// Largest difference from the goldens.
    pub off: f32,
    /// Requests measured.
    pub count: u64,
}

/// A choice that was tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// Which.
    #[serde(flatten)]
    pub choice: Choice,
    /// What it did.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of trying a choice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It runs, and its goldens agree.
    Measured(Measured),
    /// It cannot be used.
    Refused(String),
    /// It did not end in time, or nothing could be tried; later it may be otherwise.
    Unclear(String),
}

impl Tried {
    /// What it was measured to do, if it runs.
    pub fn measured(&self) -> Option<&Measured> {
        match &self.outcome {
            Outcome::Measured(measured) => Some(measured),
            Outcome::Refused(_) | Outcome::Unclear(_) => None,
        }
    }
}
