//! `holdfast-agent queue verify`: every byte of a stopped queue against its checksum.
//!
//! **Invariant:** it changes nothing, and what it calls intact was read whole.

use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::place::of_queue;
use crate::cli::{Exit, Failure};
use crate::queue::{self, QueueError, RequestId};

/// What was found.
#[derive(Debug, Default, Serialize)]
pub(super) struct Verified {
    /// Requests that were read, held and kept.
    pub(super) requests: u64,
    /// Bytes of the journal that count.
    pub(super) bytes: u64,
    /// What is damaged, one sentence each.
    pub(super) damage: Vec<String>,
    /// Why it cannot be said whether requests are gone with a whole part of the journal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) untold: Option<String>,
}

impl Verified {
    pub(super) fn is_intact(&self) -> bool {
        self.damage.is_empty()
    }
}

pub(super) fn verify(dir: &Path) -> Result<Verified, Failure> {
    let (queue, report) = queue::read_only(dir).map_err(|error| match error {
        QueueError::InUse { .. } => {
            let sentence = format!("{}; a queue in use cannot be verified", error);
            Failure::new(Exit::Unavailable, sentence)
        }
        error => of_queue(&error),
    })?;
    let bytes = queue.stats().map_err(|error| of_queue(&error))?.live_bytes;
    let mut found = Verified { bytes, ..Verified::default() };
    for place in &report.damage {
        found.damage.push(place.to_string());
    }
    for path in &report.bad {
        found.damage.push(format!(
            "{} is no segment of this queue; the next start or `queue repair` sets it aside",
            path.display()
        ));
    }
    match queue.lost() {
        Ok(Some(lost)) => {
            let gone = |id| format!("request {id} is gone with a part of the journal");
            let named =
                |id: &RequestId| found.damage.iter().any(|said| said.contains(&id.to_string()));
            let lost: Vec<_> = lost.into_iter().filter(|id| !named(id)).map(gone).collect();
            found.damage.extend(lost);
        }
        Ok(None) => {
            found.untold = Some("no index of this boot or of a clean stop is there".to_owned())
        }
        Err(error) => found.untold = Some(crate::error_chain(&error)),
    }
    let requests = queue.list(None, usize::MAX).map_err(|error| of_queue(&error))?;
    let bar = ProgressBar::new(requests.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} requests, {eta} left") {
        bar.set_style(style);
    }
    for request in requests {
        match queue.check(request.id) {
            Ok(()) => {}
            Err(error @ QueueError::Damaged { .. }) => found.damage.push(error.to_string()),
            Err(error) => return Err(of_queue(&error)),
        }
        found.requests += 1;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(found)
}
