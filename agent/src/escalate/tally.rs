//! Owns the count of what was sent, for people and for `/metrics`.
//!
//! **Invariant:** a send is counted once, when it is over; what a dead link, an open
//! circuit, a spent rate or a metered link's budget kept back was none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use super::error::SendError;

/// What was sent since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Sends that came to their end.
    pub sent: u64,
    /// Those that brought the final answer.
    pub answered: u64,
    /// Those that did not.
    pub failed: u64,
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    answered: AtomicU64,
    failed: AtomicU64,
}

impl Tally {
    pub(super) fn counts(&self) -> Counts {
        let answered = self.answered.load(Ordering::Relaxed);
        let failed = self.failed.load(Ordering::Relaxed);
        Counts { sent: answered + failed, answered, failed }
    }

    /// A send that began then is over.
    pub(super) fn note(&self, destination: &str, began: Instant, error: Option<&SendError>) {
        match error {
            None => self.answered.fetch_add(1, Ordering::Relaxed),
            Some(
                SendError::LinkDown { .. }
                | SendError::CircuitOpen { .. }
                | SendError::Limited { .. }
                | SendError::OverPlan { .. },
            ) => 0,
            Some(_) => self.failed.fetch_add(1, Ordering::Relaxed),
        };
        count(destination, error.map_or("answered", SendError::code));
        if error.is_none() {
            let labels = [("destination", destination.to_owned())];
            metrics::histogram!("holdfast_escalation_seconds", &labels).record(began.elapsed());
        }
    }

    /// Its caller went away before its end.
    pub(super) fn note_left(&self, destination: &str) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        count(destination, "left");
    }
}

/// Counts a caller who leaves: dropped before it is over, the send is that.
#[derive(Debug)]
pub(super) struct Leave(Option<(Arc<Tally>, String)>);

impl Leave {
    pub(super) fn new(tally: &Arc<Tally>, destination: &str) -> Self {
        Self(Some((Arc::clone(tally), destination.to_owned())))
    }

    /// The send is over, and counted by itself.
    pub(super) fn is_over(&mut self) {
        self.0 = None;
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        if let Some((tally, destination)) = self.0.take() {
            tally.note_left(&destination);
        }
    }
}

fn count(destination: &str, outcome: &'static str) {
    let labels = [("destination", destination.to_owned()), ("outcome", outcome.to_owned())];
    metrics::counter!("holdfast_escalations_total", &labels).increment(1);
}
