//! Owns whether a caller may still hear a stream that it was let in to.
//!
//! **Invariant:** where a token is required, a stream outlives the right to it by less than a second.

use std::future::Future as _;
use std::pin::Pin;
use std::task::Context;

use tokio::time::{Instant, Sleep, sleep};

use super::{Access, Caller, LOOK_EVERY};

/// A caller, looked after while it is told a stream.
#[derive(Debug)]
pub(crate) struct Standing {
    access: Access,
    caller: Caller,
    look: Pin<Box<Sleep>>,
}

impl Standing {
    pub(super) fn new(access: Access, caller: Caller) -> Self {
        Self { access, caller, look: Box::pin(sleep(LOOK_EVERY)) }
    }

    /// Whether it has lost its right; else the task is woken for the next look.
    pub(crate) fn is_lost(&mut self, context: &mut Context<'_>) -> bool {
        while self.look.as_mut().poll(context).is_ready() {
            if !self.access.still_knows(&self.caller) {
                return true;
            }
            self.look.as_mut().reset(Instant::now() + LOOK_EVERY);
        }
        false
    }
}
