//! Owns `POST /v1/chat/completions`.
//!
//! **Invariant:** one choice is answered.

use super::{Asked, Named, Refusal, StreamOptions};
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

/// The body of the response.
pub fn answer(named: &Named, answer: &Answer) -> Vec<u8> {
    let _ = (named, answer);
    Vec::new()
}

/// Writes an answer piece by piece, as server-sent events.
#[derive(Debug)]
pub struct Writer {}

impl Writer {
    /// A writer of one answer.
    pub fn new(named: &Named, options: StreamOptions) -> Self {
        let _ = (named, options);
        Self {}
    }

    /// Appends what `event` becomes to `out`; the first of all opens the answer.
    pub fn write(&mut self, event: &Event, out: &mut Vec<u8>) {
        let _ = (event, out);
    }

    /// The answer is over: appends its usage, if it is asked for, and `[DONE]`.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let _ = out;
    }
}
