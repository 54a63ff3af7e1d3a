//! The one place that reads clocks.
//!
//! **Invariant:** dates (which may jump) and spans (which never do) are never taken from each other.

use holdfast_wire::unit::Millis;
use tokio::time::Instant;

/// A moment, by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Now {
    /// Milliseconds since 1970-01-01 UTC; may jump.
    pub(crate) date: Millis,
    /// Milliseconds since the controller started; never jumps.
    pub(crate) span: Millis,
}

/// Both clocks, from the start of the process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> Now {
        Now { date: date(), span: self.0.elapsed().into() }
    }
}

/// Milliseconds since 1970-01-01 UTC.
pub(crate) fn date() -> Millis {
    Millis(u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0))
}
