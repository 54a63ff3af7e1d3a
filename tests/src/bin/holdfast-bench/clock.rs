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

/// Nanoseconds of the machine's count since it booted, the same in every process.
pub(crate) fn stamp_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or_default()
}
