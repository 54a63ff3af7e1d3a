//! How requests for a graph whose batch is free may go together.
//!
//! **Invariant:** what is stated is bounded, and is stated only of a graph that takes any batch.

use std::time::Duration;

use super::section::Section;

/// Most rows of one batch.
const MAX_SIZE: usize = 1024;
/// Longest delay, in microseconds.
const MAX_DELAY_US: usize = 1_000_000;

/// What `[batching]` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batching {
    /// Rows of one batch at most.
    pub max_size: usize,
    /// A worker that is busy already waits so long at most for more, from when the first came.
    pub max_delay: Duration,
}

pub(super) fn read(section: Section<'_>) -> Option<Batching> {
    let max_size = section.whole("max_size", 2..=MAX_SIZE);
    let max_delay_us =
        section.or("max_delay_us", 0, &format!("a whole number 0..={MAX_DELAY_US}"), |value| {
            super::section::whole(value).filter(|us| *us <= MAX_DELAY_US)
        });
    section.finish();
    let max_delay = Duration::from_micros(u64::try_from(max_delay_us?).ok()?);
    Some(Batching { max_size: max_size?, max_delay })
}
