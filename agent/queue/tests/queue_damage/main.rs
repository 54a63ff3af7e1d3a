//! Damage of every kind: torn ends, flipped bits, a broken or old index, broken segments. The queue
//! opens, loses only what is itself damaged, and names it.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test's helpers fail like the test"
)]

mod index;
#[path = "../queue_kit/mod.rs"]
mod queue_kit;
mod records;
mod segments;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use holdfast_queue::{OpenReport, RequestId, State, read_only};

use queue_kit::{entry, open};

/// A closed queue with these bodies held, in this order.
async fn filled(dir: &Path, bodies: &[&[u8]]) -> Vec<RequestId> {
    let (queue, _) = open(dir);
    let mut ids = Vec::new();
    for body in bodies {
        let new = entry(5, 1, body);
        ids.push(new.id);
        queue.accept(new).await.unwrap();
    }
    queue.close().await.unwrap();
    ids
}

fn held_in(dir: &Path) -> (BTreeSet<RequestId>, OpenReport) {
    let (stopped, report) = read_only(dir).unwrap();
    let held = stopped.list(Some(State::Held), usize::MAX).unwrap();
    (held.into_iter().map(|summary| summary.id).collect(), report)
}

/// Offset behind the last byte of a file that is not zero.
fn used(path: &Path) -> u64 {
    let bytes = fs::read(path).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1)
}
