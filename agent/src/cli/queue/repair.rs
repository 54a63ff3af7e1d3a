//! `holdfast-agent queue repair`: makes a stopped queue good again, and says what that cost.
//!
//! **Invariant:** what cannot be read is set aside, never deleted.

use std::path::PathBuf;

use serde::Serialize;

use super::place::{Place, of_queue};
use crate::cli::{Exit, Failure, runtime};
use crate::queue::{self, OpenReport, QueueError, RequestId};

/// What was done.
#[derive(Debug, Default, Serialize)]
pub(super) struct Repaired {
    /// Requests that wait in the repaired queue.
    pub(super) held: u64,
    /// Records that were read.
    pub(super) records: u64,
    /// Places that were damaged, one sentence each.
    pub(super) damage: Vec<String>,
    /// Requests that are lost.
    pub(super) lost: Vec<RequestId>,
    /// Requests that are there, but of which an attempt or their end may be forgotten.
    pub(super) touched: Vec<RequestId>,
    /// Why what is lost with a whole segment cannot be named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) untold: Option<String>,
    /// Files that were set aside.
    pub(super) set_aside: Vec<PathBuf>,
}

impl Repaired {
    /// Whether nothing was wrong with the journal, and nothing is lost.
    pub(super) fn was_intact(&self) -> bool {
        self.damage.is_empty() && self.lost.is_empty()
    }
}

/// Repairs the queue.
pub(super) fn repair(place: &Place) -> Result<Repaired, Failure> {
    let dir = place.existing()?;
    let repaired =
        runtime()?.block_on(queue::repair(dir, place.config.queue.clone())).map_err(|error| {
            match error {
                QueueError::InUse { .. } => Failure::new(
                    Exit::Unavailable,
                    format!("{error}; a queue in use is not repaired"),
                ),
                error => of_queue(&error),
            }
        })?;
    let queue::Repaired {
        journal_was_gone,
        damage,
        given_up,
        aside,
        lost,
        touched,
        untold,
        report,
    } = repaired;
    let OpenReport { held, replayed, .. } = report;
    let mut damage: Vec<String> = damage.iter().map(ToString::to_string).collect();
    if journal_was_gone {
        damage.push("the folder `journal` was gone with what was in it; it is made, empty".into());
    }
    damage.extend(
        given_up.iter().map(|path| format!("{} is no segment of this queue", path.display())),
    );
    Ok(Repaired { held, records: replayed, damage, lost, touched, untold, set_aside: aside })
}
