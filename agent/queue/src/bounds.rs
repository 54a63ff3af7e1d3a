//! The queue's bounds, as they are configured.
//!
//! **Invariant:** every bound has a stated rule for when it is reached.

use std::time::Duration;

/// What happens to a new request when a bound is reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// It is refused.
    #[default]
    Refuse,
    /// The oldest request of the lowest priority ends as failed, unless it is more urgent.
    DropOldest,
}

/// The queue's bounds.
#[derive(Debug, Clone)]
pub struct QueueConfig {
    /// Requests held at most.
    pub max_requests: u64,
    /// Bytes of held requests at most.
    pub max_bytes: u64,
    /// What happens when one of these two is reached.
    pub when_full: WhenFull,
    /// A request expires after so many milliseconds at the latest.
    pub max_age_ms: u64,
    /// A commit waits so long for more records to share its sync; urgent ones do not wait.
    pub commit_delay: Duration,
    /// Bytes that the journal may write in a day before commits are slowed; `None`: any.
    pub wear_per_day: Option<u64>,
    /// Requests that came to their end and are kept at most; beyond, the oldest are forgotten.
    pub max_finals: u64,
    /// A waiting request becomes as urgent as a new one of the next higher priority after this many
    /// milliseconds, and so on.
    pub ageing_ms: u64,
    /// Bytes that new requests leave free on the file system.
    pub headroom_bytes: u64,
    /// Files that new requests leave to be made on the file system.
    pub headroom_inodes: u64,
    /// Size of a journal segment; a larger record gets a segment of its own size.
    pub segment_bytes: u64,
    /// Bad indexes, and bad copies of one segment, that are kept aside.
    pub keep_bad: usize,
}

impl Default for QueueConfig {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        QueueConfig {
            max_requests: 1_000_000,
            max_bytes: 8 * 1024 * MIB,
            when_full: WhenFull::Refuse,
            max_age_ms: 365 * 86_400 * 1000,
            commit_delay: Duration::ZERO,
            wear_per_day: None,
            max_finals: 100_000,
            ageing_ms: 15 * 60 * 1000,
            headroom_bytes: 256 * MIB,
            headroom_inodes: 1000,
            segment_bytes: 16 * MIB,
            keep_bad: 3,
        }
    }
}
