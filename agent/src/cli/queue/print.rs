//! How the queue's commands print for people.
//!
//! **Invariant:** pure; text from records reaches the terminal without control characters.

use serde_json::Value;

use super::change::Changed;
use super::export::Exported;
use super::import::Imported;
use super::repair::Repaired;
use super::verify::Verified;
use crate::cli::table;
use crate::listing::{Listing, Numbers};

pub(super) fn listing(listing: &Listing) -> String {
    let Listing {
        held,
        in_flight,
        waiting_for_budget,
        set_aside,
        answered,
        failed,
        expired,
        cancelled,
        requests,
    } = listing;
    let counts = format!(
        "{held} held, {in_flight} in flight, {waiting_for_budget} waiting for budget, {set_aside} set \
         aside, {answered} answered, {failed} failed, {expired} expired, {cancelled} cancelled"
    );
    if requests.is_empty() {
        return counts;
    }
    let mut table = table::table(&[
        "ID", "STATE", "ASKS", "CLASS", "PRIORITY", "TRIES", "AGE", "BYTES", "NOTE",
    ]);
    for row in requests {
        table.add_row([
            row.id.clone(),
            row.state.clone(),
            plain(asks(&row.task, &row.model)),
            row.class.clone(),
            row.priority.to_string(),
            row.attempts.to_string(),
            span(row.age_ms),
            row.bytes.to_string(),
            plain(row.note.as_deref().unwrap_or_default()),
        ]);
    }
    format!("{counts}\n{}", table::lines(&table))
}

pub(super) fn request(request: &Value) -> String {
    let text = |value: &Value| value.as_str().map(plain).unwrap_or_default();
    let mut lines = Vec::new();
    for key in ["id", "task", "model", "state", "class"] {
        if request[key].is_null() {
            continue;
        }
        lines.push(format!("{key:<10}  {}", text(&request[key])));
    }
    for key in ["priority", "attempts", "bytes"] {
        if let Some(number) = request[key].as_u64() {
            lines.push(format!("{key:<10}  {number}"));
        }
    }
    for (key, name) in [("age_ms", "age"), ("due_in_ms", "due in"), ("ttl_left_ms", "expires in")] {
        if let Some(ms) = request[key].as_u64() {
            lines.push(format!("{name:<10}  {}", span(ms)));
        }
    }
    let answer = &request["answer"];
    if answer.is_object() {
        let kind = if answer["provisional"] == true { ", provisional" } else { "" };
        let confidence = answer["confidence"].as_f64();
        let confidence = confidence.map_or("no confidence".to_owned(), |it| format!("{it:.2}"));
        lines.push(format!(
            "{:<10}  {} ({confidence}{kind}) by {} at {}",
            "answer",
            text(&answer["label"]),
            text(&answer["model"]),
            text(&answer["place"]),
        ));
    }
    for reason in request["reasons"].as_array().into_iter().flatten() {
        lines.push(format!("{:<10}  {}", "because", text(&reason["text"])));
    }
    if request["note"].is_string() {
        lines.push(format!("{:<10}  {}", "note", text(&request["note"])));
    }
    lines.join("\n")
}

pub(super) fn numbers(Numbers { stats, oldest_age_ms }: &Numbers) -> String {
    let oldest = oldest_age_ms.map_or_else(|| "none".to_owned(), span);
    let rows = [
        ("held", stats.held.to_string()),
        ("in flight", stats.in_flight.to_string()),
        ("waiting for budget", stats.waiting_for_budget.to_string()),
        ("set aside", stats.set_aside.to_string()),
        ("answered", stats.answered.to_string()),
        ("failed", stats.failed.to_string()),
        ("expired", stats.expired.to_string()),
        ("cancelled", stats.cancelled.to_string()),
        ("oldest that waits", oldest),
        ("bytes held", stats.held_bytes.to_string()),
        ("bytes needed", stats.live_bytes.to_string()),
        ("bytes on disk", stats.allocated_bytes.to_string()),
        ("segments", stats.segments.to_string()),
        ("bytes of index", stats.index_bytes.to_string()),
        ("records appended", stats.appended.to_string()),
        ("bytes written", stats.written_bytes.to_string()),
        ("  of them ahead", stats.prepared_bytes.to_string()),
        ("  of them moved", stats.moved_bytes.to_string()),
        ("syncs", stats.syncs.to_string()),
        ("requests dropped", stats.dropped.to_string()),
        ("records damaged", stats.damaged.to_string()),
    ];
    rows.map(|(name, value)| format!("{name:<18}  {value}")).join("\n")
}

pub(super) fn changed(rows: &[Changed]) -> String {
    if rows.is_empty() {
        return "there is none".to_owned();
    }
    let row = |row: &Changed| {
        let done = row.change.done();
        match (&row.problem, &row.dropped) {
            (Some(problem), _) => format!("{}  not {done}: {}", row.id, plain(problem)),
            (None, None) => format!("{}  {done}", row.id),
            (None, Some(lost)) => format!(
                "{}  {done}: it was {}, {} {}, class {}",
                row.id,
                lost.was,
                if lost.model.is_some() { "model" } else { "task" },
                plain(asks(&lost.task, &lost.model)),
                plain(&lost.class)
            ),
        }
    };
    rows.iter().map(row).collect::<Vec<_>>().join("\n")
}

pub(super) fn exported(done: &Exported) -> String {
    let Exported { requests, bytes, left_out, .. } = done;
    let mut lines: Vec<_> =
        left_out.iter().map(|what| format!("left out: {}", plain(what))).collect();
    lines.push(format!("{requests} requests exported, {bytes} bytes"));
    lines.join("\n")
}

pub(super) fn imported(done: &Imported) -> String {
    let Imported { imported, known, refused } = done;
    let mut lines: Vec<_> =
        refused.iter().map(|what| format!("refused: {}", plain(what))).collect();
    lines.push(format!(
        "{imported} requests imported, {known} were there already, {} refused",
        refused.len()
    ));
    lines.join("\n")
}

pub(super) fn repaired(done: &Repaired) -> String {
    let Repaired { held, records, damage, lost, touched, untold, set_aside } = done;
    let mut lines: Vec<_> = damage.iter().map(|what| format!("damaged: {}", plain(what))).collect();
    lines.extend(lost.iter().map(|id| format!("lost: request {id}")));
    lines.extend(
        touched
            .iter()
            .map(|id| format!("request {id} is there, but an attempt or its end may be forgotten")),
    );
    lines.extend(untold.iter().map(|why| {
        format!(
            "requests lost with a whole segment cannot be named: the old index cannot tell ({})",
            plain(why)
        )
    }));
    lines.extend(set_aside.iter().map(|path| format!("set aside: {}", path.display())));
    lines.push(format!("{records} records read, the index is made anew, {held} requests wait"));
    lines.join("\n")
}

pub(super) fn verified(found: &Verified) -> String {
    let Verified { requests, bytes, damage, untold } = found;
    let mut lines = vec![format!("{requests} requests, {bytes} bytes read")];
    lines.extend(damage.iter().map(|what| format!("damaged: {}", plain(what))));
    lines.extend(untold.iter().map(|why| {
        format!(
            "whether requests are gone with a whole part of the journal cannot be told: {}",
            plain(why)
        )
    }));
    lines.push(match damage.len() {
        0 => "all intact".to_owned(),
        count => {
            format!("{count} damaged: check the disk; everything else that is there is intact")
        }
    });
    lines.join("\n")
}

/// The task, or the model.
fn asks<'a>(task: &'a Option<String>, model: &'a Option<String>) -> &'a str {
    task.as_deref().or(model.as_deref()).unwrap_or("?")
}

fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}
