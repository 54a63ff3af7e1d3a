//! Owns `POST /v1/responses`.
//!
//! **Invariant:** events are numbered from 0 without a gap.

use super::{Asked, Named, Refusal};
use crate::conversation::Answer;
use crate::event::Event;

/// What the body of a request asks.
///
/// # Errors
/// The first field that cannot be honoured, by its path.
pub fn read(body: &[u8]) -> Result<Asked, Refusal> {
    let _ = body;
    Err(Refusal { param: None, code: "invalid_json", message: "nothing is read yet".to_owned() })
}

/// A response without an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is held.
    Queued,
    /// It is being answered.
    InProgress,
    /// The caller took it back.
    Cancelled,
    /// There will be no answer.
    Failed {
        /// Such as `server_error` or `rate_limit_exceeded`.
        code: String,
        /// Why.
        message: String,
    },
}

/// The body of a response that has no answer, or none yet; `asked` is what was read of its request.
pub fn standing(named: &Named, asked: &Asked, standing: &Standing) -> Vec<u8> {
    let _ = (named, asked, standing);
    Vec::new()
}

/// The body of a response with its answer; `asked` is what was read of its request.
pub fn answer(named: &Named, asked: &Asked, answer: &Answer) -> Vec<u8> {
    let _ = (named, asked, answer);
    Vec::new()
}

/// Writes an answer piece by piece, as typed server-sent events.
#[derive(Debug)]
pub struct Writer {}

impl Writer {
    /// A writer of one answer; `asked` is what was read of its request.
    pub fn new(named: &Named, asked: &Asked) -> Self {
        let _ = (named, asked);
        Self {}
    }

    /// Appends what `event` becomes to `out`; the first of all opens the response.
    pub fn write(&mut self, event: &Event, out: &mut Vec<u8>) {
        let _ = (event, out);
    }

    /// The answer is over: appends `response.completed` or `response.incomplete`.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let _ = out;
    }

    /// There is no more of the answer: appends `response.failed`.
    pub fn fail(&mut self, code: &str, message: &str, out: &mut Vec<u8>) {
        let _ = (code, message, out);
    }
}
