//! What the queue did to the disk: the flash's wear.
//!
//! **Invariant:** every byte that the journal writes is counted once, under what it was written for.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the queue was opened.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// fdatasync calls on segments.
    pub(super) syncs: AtomicU64,
    /// Bytes written to segments.
    pub(super) written: AtomicU64,
    /// Of these, zeros written ahead of the records.
    pub(super) prepared: AtomicU64,
    /// Of these, records moved out of nearly dead segments.
    pub(super) moved: AtomicU64,
    /// Records appended.
    pub(super) appended: AtomicU64,
    /// Requests dropped because the queue was full.
    pub(super) dropped: AtomicU64,
    /// Records found damaged.
    pub(super) damaged: AtomicU64,
}

/// Adds to a counter.
pub(super) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
