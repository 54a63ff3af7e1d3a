//! Owns why a request was not taken.
//!
//! **Invariant:** whoever gets one of these has changed nothing.

use std::time::Duration;

use thiserror::Error;

use crate::answer::{Reason, sentence};
use crate::envelope::EnvelopeError;
use crate::queue::{QueueError, RequestId};
use crate::request::shown;

/// Why a request was not taken.
#[derive(Debug, Clone, Error)]
pub enum AskError {
    /// The input cannot be used.
    #[error("{0}")]
    Input(String),
    /// Nobody here or above can answer it.
    #[error("nobody can answer this: {}", sentence(.0))]
    Nobody(Vec<Reason>),
    /// Only the model here could answer it, which has too much to do for that now.
    #[error("nobody can answer this now: {}", sentence(reasons))]
    Busy {
        /// Why it went this way.
        reasons: Vec<Reason>,
        /// How long the model would take.
        expected: Duration,
    },
    /// The queue did not take it.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// There is no queue now.
    #[error("nothing can be held or kept now: {0}")]
    NoQueue(String),
    /// The key belongs to another request.
    #[error(
        "idempotency key {:?} was used for request {id} with another content{}: use a new key",
        shown(key), differs.as_ref().map(|what| format!(" ({what})")).unwrap_or_default()
    )]
    Conflict {
        /// The key.
        key: String,
        /// The request that has it.
        id: RequestId,
        /// In what the two differ, where that is known.
        differs: Option<String>,
    },
    /// The same is asked already under this key, and takes longer than this caller may wait.
    #[error("the call under the same idempotency key is still under way: ask again with the key")]
    UnderWay,
    /// A stored record cannot be read.
    #[error(transparent)]
    Stored(#[from] EnvelopeError),
}
