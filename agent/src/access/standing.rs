//! Owns whether a caller may still hear what it was let in to: an answer that it waits for, or a stream.
//!
//! **Invariant:** where a token is required, neither outlives the right to it by more than a second.

use std::future::{Future as _, pending, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep};

use super::{Access, Caller, LOOK_EVERY};

/// A caller, looked after while it waits or is told a stream.
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

    /// Ends when a caller has lost its right; never for one that keeps it.
    pub(crate) async fn lost(standing: &mut Option<Self>) {
        let Some(standing) = standing else { return pending().await };
        poll_fn(|context| match standing.is_lost(context) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
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
