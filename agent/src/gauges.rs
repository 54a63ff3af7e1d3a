//! The queue's numbers as metrics.
//!
//! **Invariant:** every number of [`Stats`] that an operator watches has a metric of the same meaning.

use metrics::{counter, gauge};

use crate::queue::Stats;

/// Sets the metrics to what the queue says of itself.
#[expect(clippy::cast_precision_loss, reason = "gauges are f64")]
pub fn of_queue(stats: &Stats) {
    for (state, count) in [
        ("held", stats.held),
        ("in_flight", stats.in_flight),
        ("waiting_for_budget", stats.waiting_for_budget),
        ("set_aside", stats.set_aside),
        ("answered", stats.answered),
        ("failed", stats.failed),
        ("expired", stats.expired),
        ("cancelled", stats.cancelled),
    ] {
        gauge!("holdfast_queue_requests", "state" => state).set(count as f64);
    }
    for (what, bytes) in [
        ("held", stats.held_bytes),
        ("live", stats.live_bytes),
        ("allocated", stats.allocated_bytes),
        ("index", stats.index_bytes),
    ] {
        gauge!("holdfast_queue_bytes", "what" => what).set(bytes as f64);
    }
    gauge!("holdfast_queue_segments").set(stats.segments as f64);
    let records = stats.written_bytes.saturating_sub(stats.prepared_bytes + stats.moved_bytes);
    for (purpose, bytes) in [
        ("records", records),
        ("preallocation", stats.prepared_bytes),
        ("compaction", stats.moved_bytes),
    ] {
        counter!("holdfast_written_bytes_total", "purpose" => purpose).absolute(bytes);
    }
    if let Some(bytes) = stats.process_written_bytes {
        counter!("holdfast_process_written_bytes_total").absolute(bytes);
    }
    counter!("holdfast_queue_syncs_total").absolute(stats.syncs);
    counter!("holdfast_queue_dropped_total", "rule" => "drop_oldest").absolute(stats.dropped);
    counter!("holdfast_queue_damaged_total").absolute(stats.damaged);
}
