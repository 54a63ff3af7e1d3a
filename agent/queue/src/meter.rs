//! What the queue did to the disk: the flash's wear.
//!
//! **Invariant:** every byte that the journal writes is counted once, under what it was written for.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Damaged records that are told apart; more are counted each time that they are read.
const TOLD_APART: usize = 10_000;

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
    /// The segments and offsets of those that were counted when they were read.
    read_damaged: Mutex<BTreeSet<(u64, u64)>>,
}

impl Meter {
    /// Counts a record that was read and is damaged, once, however often it is read.
    pub(super) fn count_damaged(&self, segment: u64, offset: u64) {
        let mut seen = self.read_damaged.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = if seen.len() < TOLD_APART {
            seen.insert((segment, offset))
        } else {
            !seen.contains(&(segment, offset))
        };
        drop(seen);
        if is_new {
            count(&self.damaged, 1);
        }
    }
}

/// Adds to a counter.
pub(super) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
