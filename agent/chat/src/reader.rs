//! Owns reading a streamed response, whichever protocol it is in.
//!
//! **Invariant:** however the bytes are split, the events are the same; no more than one event of
//! the wire is kept.

use crate::event::{Event, StreamError};

/// The longest event of the wire, in bytes.
pub(crate) const MOST_BYTES: usize = 1 << 20;

/// The reader of a streamed response with a status of success.
#[derive(Debug)]
pub struct Reader {}

impl Reader {
    /// Bytes as they come, split anywhere. Appends to `events`; those that came before an error are
    /// there.
    ///
    /// # Errors
    /// [`StreamError::Malformed`] and [`StreamError::Failed`]; nothing may be pushed after either.
    pub fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), StreamError> {
        let _ = (bytes, events, MOST_BYTES);
        Ok(())
    }

    /// The response is over.
    ///
    /// # Errors
    /// [`StreamError::Cut`] unless the answer came to its own end.
    pub fn finish(&mut self, events: &mut Vec<Event>) -> Result<(), StreamError> {
        let _ = events;
        Err(StreamError::Cut)
    }
}
