//! Owns putting the pieces of an answer together.
//!
//! **Invariant:** what is gathered of a stream is what the provider would have answered in one piece;
//! without an end there is no answer.

use crate::conversation::{Answer, Usage};
use crate::event::Event;

/// Puts the pieces of an answer together.
#[derive(Debug, Clone, Default)]
pub struct Gathering {
    usage: Option<Usage>,
}

impl Gathering {
    /// The next piece.
    pub fn take(&mut self, event: &Event) {
        if let Event::Usage(usage) = event {
            self.usage = Some(*usage);
        }
    }

    /// The answer; `None` where it has not come to its end.
    pub fn answer(self) -> Option<Answer> {
        None
    }

    /// What was counted so far.
    pub fn usage(&self) -> Option<Usage> {
        self.usage
    }
}
