//! The real clock.
//!
//! **Invariant:** no benchmark takes a time from anywhere else.

use std::time::{Duration, Instant};

/// Now.
#[expect(
    clippy::disallowed_methods,
    reason = "a benchmark measures real time, never a paused clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// How long the work took, and what it gave.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = now();
    let value = work();
    (start.elapsed(), value)
}
