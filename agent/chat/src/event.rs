//! Owns the pieces in which an answer comes, whoever sends it, and how its stream may fail.
//!
//! **Invariant:** pieces come in the order in which they were said; after [`Event::Stop`] there is
//! only [`Event::Usage`].

use thiserror::Error;

use crate::conversation::{Stop, Usage};
use crate::dialect::Malformed;
use crate::failure::Failure;

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Which model answers, as the provider calls it. At most once.
    Model(String),
    /// More words.
    Text(String),
    /// More thoughts.
    Reasoning(String),
    /// The provider's seal on the thoughts so far; thoughts after it are others.
    Sealed(String),
    /// Thoughts that are not shown, whole, as the provider wants them back.
    Redacted(String),
    /// A tool call begins; calls are numbered from 0 in the order in which they begin.
    Call {
        /// Its number.
        index: usize,
        /// Tells the call from others.
        id: String,
        /// The tool's name.
        name: String,
        /// The provider's seal on the call.
        signature: Option<String>,
    },
    /// More of the JSON text of a call's arguments; a call with none at all has an empty object.
    Arguments {
        /// The call's number.
        index: usize,
        /// More of the text.
        text: String,
    },
    /// Tokens counted so far; the last one holds.
    Usage(Usage),
    /// Why the answer ended. Once; only usage may follow.
    Stop(Stop),
}

/// A stream that is no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StreamError {
    /// It is not what the protocol says; with nothing of the answer in it.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The provider tells of a failure in mid-stream.
    #[error("the provider broke off")]
    Failed(Failure),
    /// It ended before the answer did.
    #[error("the stream ended before the answer did")]
    Cut,
}
