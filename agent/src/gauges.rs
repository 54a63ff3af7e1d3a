//! What the metrics mean, and the numbers of queue and models as metrics.
//!
//! **Invariant:** every metric of the agent is described here; every number of [`Stats`] that an operator
//! watches has a metric of the same meaning. What a model that is gone did last is not told as of now.

use std::fmt::Write as _;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge};

use crate::engine::{Engine, Load, ModelEntry, Readiness};
use crate::queue::Stats;

/// Counters with their meaning, as `/metrics` shows it.
const COUNTERS: [(&str, &str); 26] = [
    ("holdfast_audit_files_dropped_total", "Oldest parts of the record that were dropped"),
    ("holdfast_audit_lines_total", "Lines put on record of what left the device"),
    ("holdfast_audit_unwritten_total", "Lines that the record lacks"),
    ("holdfast_cache_lookups_total", "Inquiries under a rule of the cache: hit, shared, miss"),
    ("holdfast_connections_closed_total", "Connections closed for want of a place, by the rule"),
    ("holdfast_drained_total", "Held requests that were tried, by how that came out"),
    ("holdfast_escalation_tokens_total", "Tokens that destinations charged"),
    ("holdfast_escalations_total", "Requests sent to a destination, by how that came out"),
    ("holdfast_expired_total", "Requests whose time to live ended before their answer"),
    ("holdfast_fleet_results_total", "Results that the controller acknowledged"),
    ("holdfast_forgotten_total", "Kept answers that were removed, by the rule that did it"),
    ("holdfast_hedges_total", "Second attempts beside a slow first one, by how they came out"),
    ("holdfast_model_runs_total", "Runs of a model; one can answer several"),
    ("holdfast_network_bytes_total", "Bytes sent and received, by what for and with whom"),
    ("holdfast_panics_total", "Parts of the agent that failed and began again"),
    ("holdfast_process_written_bytes_total", "Bytes that the agent had written to any disk"),
    ("holdfast_queue_damaged_total", "Damaged records found in the queue, and requests lost"),
    ("holdfast_queue_dropped_total", "Requests dropped from a full queue, by the rule that did it"),
    ("holdfast_queue_syncs_total", "Times that the queue made its journal durable"),
    ("holdfast_requests_total", "Requests by task and outcome"),
    ("holdfast_results_missed_total", "Results removed before a taker had them"),
    ("holdfast_results_withheld_total", "Results that a receiver may not have, by the reason"),
    ("holdfast_set_aside_total", "Requests that were tried too often and wait for the operator"),
    ("holdfast_turned_away_total", "Requests that a model did not take, by the reason"),
    ("holdfast_webhook_posts_total", "Posts to webhooks, by how they came out"),
    ("holdfast_written_bytes_total", "Bytes that queue and cache wrote to disk, by purpose"),
];
const GAUGES: [(&str, &str); 15] = [
    ("holdfast_budget_left_micros", "Millionths of the currency that a destination may cost today"),
    ("holdfast_cache_bytes", "Bytes that kept answers take on disk"),
    ("holdfast_cache_entries", "Answers that are kept"),
    ("holdfast_clock_trusted", "1 while NTP keeps the date, else 0"),
    ("holdfast_connectivity", "1 for what a link, or all of the device, is called now, else 0"),
    ("holdfast_destination_circuit", "0 closed: asked; 1 half open: one tries; 2 open: left alone"),
    ("holdfast_drain_window", "Held requests that may be under way to a destination at once"),
    ("holdfast_link_up", "1 while a destination is reached, else 0"),
    ("holdfast_network_budget_left_bytes", "Bytes that a metered link may still carry, by period"),
    ("holdfast_network_metered", "1 while the link is metered, else 0"),
    ("holdfast_queue_bytes", "Bytes of the queue: held, live, allocated, index"),
    ("holdfast_queue_open", "1 while the queue is open and requests can be held, else 0"),
    ("holdfast_queue_requests", "Requests in the queue, by state"),
    ("holdfast_queue_segments", "Files of the queue's journal"),
    ("holdfast_tls_current", "1 while TLS is spoken with what the files hold now, else 0"),
];
/// Those of models, which come and go with them.
const MODEL_LOADED: (&str, &str) =
    ("holdfast_model_loaded", "1 while a version of a bundle answers, else 0");
const MODEL_WAITING: (&str, &str) = ("holdfast_model_waiting", "Requests that wait for a model");
const MODEL_WORKERS: (&str, &str) =
    ("holdfast_model_workers", "Workers of a model, by whether they have something to do");
const HISTOGRAMS: [(&str, &str); 3] = [
    ("holdfast_batch_rows", "Rows that a model took in one run"),
    ("holdfast_escalation_seconds", "Time until a destination answered"),
    ("holdfast_inference_seconds", "Time that a model took for one input"),
];

/// Has `/metrics` say what each metric is.
pub fn describe() {
    for (name, what) in COUNTERS {
        describe_counter!(name, what);
    }
    for (name, what) in GAUGES {
        describe_gauge!(name, what);
    }
    for (name, what) in HISTOGRAMS {
        describe_histogram!(name, what);
    }
}

/// What the engine says of its models now, as Prometheus takes it.
///
/// The recorder keeps for ever what was set once, so that these do not go through it.
pub fn of_models(engine: &Engine) -> String {
    let mut loaded = Family::new(MODEL_LOADED);
    for ModelEntry { name, version, state, .. } in engine.index() {
        let is_ready = usize::from(state == Readiness::Ready);
        loaded.add(&[("model", &name), ("version", &version)], is_ready);
    }
    let (mut waits, mut works) = (Family::new(MODEL_WAITING), Family::new(MODEL_WORKERS));
    for lane in engine.all_lanes() {
        let Load { waiting, workers, busy, .. } = lane.load();
        let (model, version) = (("model", lane.name()), ("version", lane.version()));
        waits.add(&[model, version], waiting);
        works.add(&[model, version, ("state", "busy")], busy);
        works.add(&[model, version, ("state", "idle")], workers.saturating_sub(busy));
    }
    [loaded, waits, works].map(Family::text).concat()
}

/// The numbers of one gauge under its description.
struct Family {
    name: &'static str,
    head: String,
    lines: String,
}

impl Family {
    fn new((name, what): (&'static str, &str)) -> Self {
        let head = format!("# HELP {name} {what}\n# TYPE {name} gauge\n");
        Self { name, head, lines: String::new() }
    }

    fn add(&mut self, labels: &[(&str, &str)], value: usize) {
        let escaped =
            |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let labels = labels.iter().map(|(key, text)| format!("{key}=\"{}\"", escaped(text)));
        let labels = labels.collect::<Vec<_>>().join(",");
        // Nothing fails that writes to a string.
        writeln!(self.lines, "{}{{{labels}}} {value}", self.name).ok();
    }

    /// Nothing where there is no number.
    fn text(self) -> String {
        if self.lines.is_empty() { String::new() } else { format!("{}{}\n", self.head, self.lines) }
    }
}

/// Sets the metric of whether there is a queue.
pub fn of_queue_open(is_open: bool) {
    gauge!("holdfast_queue_open").set(if is_open { 1.0 } else { 0.0 });
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_text_as_prometheus_reads_it() {
        let mut family = Family::new(("a_gauge", "What it is"));
        family.add(&[("model", "a\"b\\c"), ("version", "1.0.0")], 7);
        let want = "# HELP a_gauge What it is\n# TYPE a_gauge gauge\n\
                    a_gauge{model=\"a\\\"b\\\\c\",version=\"1.0.0\"} 7\n\n";
        assert_eq!(family.text(), want);
        assert_eq!(Family::new(("a_gauge", "What it is")).text(), "");
    }
}
