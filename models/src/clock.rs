//! The one place in this crate that reads a clock.
//!
//! **Invariant:** times are used to measure spans alone; nothing is decided by a date here.

use std::time::Instant;

/// The monotonic time now; inference runs on its own thread, outside any async runtime.
#[allow(clippy::disallowed_methods, reason = "this is the one place that may read the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
