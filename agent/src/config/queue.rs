//! Owns the reading of `[queue]`.
//!
//! **Invariant:** a segment of the journal is no larger than the whole of it may be.

use std::time::Duration;

use super::reader::Section;
use crate::queue::{QueueConfig, WhenFull};

/// Reads it: the queue, for how many milliseconds answers are kept, and how often a request is tried.
pub(super) fn read(mut section: Section<'_>) -> (QueueConfig, u64, u32) {
    let defaults = QueueConfig::default();
    let max_mib = section.integer("max_mib", 1..=1_048_576, defaults.max_bytes >> 20);
    let segment_mib = (max_mib / 4).clamp(1, defaults.segment_bytes >> 20);
    let segment_mib = section.integer("segment_mib", 1..=1024, segment_mib);
    if segment_mib > max_mib {
        let what = format!("is {segment_mib}, more than queue.max_mib ({max_mib}) lets in");
        section.fault("segment_mib", what);
    }
    let queue = QueueConfig {
        max_requests: section.integer("max_requests", 1..=10_000_000, defaults.max_requests),
        max_bytes: max_mib << 20,
        when_full: match section.text("when_full").as_deref() {
            None | Some("refuse") => WhenFull::Refuse,
            Some("drop-oldest") => WhenFull::DropOldest,
            Some(other) => {
                section.fault(
                    "when_full",
                    format!("is \"{other}\", must be one of refuse, drop-oldest"),
                );
                WhenFull::Refuse
            }
        },
        max_age_ms: section.integer("max_age_s", 1..=31_536_000, defaults.max_age_ms / 1000) * 1000,
        commit_delay: Duration::from_millis(section.integer("commit_delay_ms", 0..=10_000, 0)),
        wear_per_day: Some(section.integer("wear_mib_per_day", 0..=1_048_576, 0) << 20)
            .filter(|bytes| *bytes > 0),
        max_finals: section.integer("max_answers", 1..=10_000_000, defaults.max_finals),
        ageing_ms: section.integer("ageing_s", 1..=31_536_000, defaults.ageing_ms / 1000) * 1000,
        headroom_inodes: section.integer(
            "headroom_inodes",
            0..=1_000_000_000,
            defaults.headroom_inodes,
        ),
        segment_bytes: segment_mib << 20,
        headroom_bytes: section.integer(
            "headroom_mib",
            0..=1_048_576,
            defaults.headroom_bytes >> 20,
        ) << 20,
        ..defaults
    };
    let keep_answers_s = section.integer("keep_answers_s", 1..=31_536_000, 86_400);
    let max_attempts = section.integer("max_attempts", 1..=1000, 20);
    section.finish();
    (queue, keep_answers_s * 1000, u32::try_from(max_attempts).unwrap_or(u32::MAX))
}
