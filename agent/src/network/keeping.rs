//! Owns the note of the count on disk, and the look at whether the link is metered.
//!
//! **Invariant:** a note that cannot be read counts as budgets used up, and one that cannot be written
//! stops nothing.

use std::io;
use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::ledger::{Bytes, Ledger, Note, Purpose};
use super::plan::{Plan, Today};
use super::{Metered, Network, routes, spool};
use crate::whole_file;

/// The count is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// What changed is noted after this time at the latest.
const NOTE_EVERY: Duration = Duration::from_secs(300);
/// The note's name in the state folder.
const FILE: &str = "network.toml";

impl Network {
    /// Notes the count when it is due and when the agent stops, takes in what other processes fetched,
    /// and looks at the way out, until `stop`.
    pub async fn keep(self, stop: CancellationToken) {
        let Some((state_dir, _)) = self.0.kept.clone() else { return };
        let mut every = interval(LOOK_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut noted_at, mut is_warned, mut was_used_up) = (Instant::now(), false, false);
        loop {
            let stops = tokio::select! {
                biased;
                _ = every.tick() => false,
                () = stop.cancelled() => true,
            };
            let (network, dir) = (self.clone(), state_dir.clone());
            let is_late = stops || noted_at.elapsed() >= NOTE_EVERY;
            let look = move || {
                network.look();
                network.take_in(&dir);
                network.write(&dir, is_late)
            };
            match tokio::task::spawn_blocking(look).await {
                Ok(Ok(true)) => (noted_at, is_warned) = (Instant::now(), false),
                Ok(Ok(false)) => {}
                Ok(Err(error)) if !is_warned => {
                    is_warned = true;
                    tracing::warn!(%error, "what was sent cannot be noted; after a restart it counts for less");
                }
                Ok(Err(_)) | Err(_) => {}
            }
            self.tell();
            was_used_up = self.tell_change(was_used_up);
            if stops {
                return;
            }
        }
    }

    /// Looks at the way out. Blocks.
    pub(super) fn look(&self) {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let (v4, v6) = (read("/proc/net/route"), read("/proc/net/ipv6_route"));
        let interfaces = routes::default_interfaces(&v4, &v6);
        let is_metered = match &self.0.config.metered {
            Metered::Never => false,
            Metered::Always => true,
            Metered::Interfaces(patterns) => routes::is_metered(&v4, &v6, patterns),
        };
        let has_changed = self.0.is_metered.send_if_modified(|was| {
            let has_changed = *was != is_metered;
            *was = is_metered;
            has_changed
        });
        if has_changed {
            let by = interfaces.join(", ");
            let now = if is_metered { "metered" } else { "not metered" };
            tracing::info!(interfaces = by, "the link is {now}");
        }
        *self.0.interfaces.lock().unwrap_or_else(PoisonError::into_inner) = interfaces;
    }

    /// Takes in what other processes of this device fetched. Blocks.
    fn take_in(&self, state_dir: &Path) {
        let taken = spool::take(state_dir);
        if taken.total() > 0 {
            let tap = self.tap(Purpose::Download, "command-line");
            tap.sent(taken.sent);
            tap.received(taken.received);
        }
    }

    /// Writes the count down if it is due; says whether it is on disk as it is counted. Blocks.
    pub(super) fn write(&self, state_dir: &Path, is_late: bool) -> io::Result<bool> {
        let ahead = self.0.config.plan.ahead();
        let note = {
            let ledger = self.ledger();
            match is_late {
                true => ledger.is_changed().then(|| ledger.note()),
                false => ledger.due_note(ahead),
            }
        };
        let Some(note) = note else { return Ok(is_late) };
        let text = toml::to_string(&note).map_err(io::Error::other)?;
        whole_file::write(&state_dir.join(FILE), text.as_bytes(), 0o600)?;
        self.ledger().noted(&note);
        Ok(true)
    }

    /// Tells once that the budget is used up, and that it is not any more; whether it is now.
    fn tell_change(&self, was_used_up: bool) -> bool {
        let is_used_up = self.is_used_up();
        match (was_used_up, is_used_up) {
            (false, true) => tracing::warn!(
                "the data budget of the metered link is used up: what is not urgent waits; see /v1/network"
            ),
            (true, false) => tracing::info!("there is a data budget again, or no need of one"),
            (true, true) | (false, false) => {}
        }
        is_used_up
    }

    /// Sets the metrics of the budgets.
    #[expect(clippy::cast_precision_loss, reason = "gauges are f64")]
    fn tell(&self) {
        let metered = if self.is_metered() { 1.0 } else { 0.0 };
        metrics::gauge!("holdfast_network_metered").set(metered);
        let ((day, month), plan) = (self.count().metered, self.plan());
        for (period, used, budget) in [("day", day, plan.per_day), ("month", month, plan.per_month)]
        {
            if let Some(budget) = budget {
                let left = budget.saturating_sub(used) as f64;
                metrics::gauge!("holdfast_network_budget_left_bytes", "period" => period).set(left);
            }
        }
    }
}

/// The count that is noted under `state_dir`. Blocks.
pub(super) fn read(state_dir: &Path, plan: &Plan, today: Today) -> Ledger {
    let path = state_dir.join(FILE);
    let note = match std::fs::read_to_string(&path) {
        Ok(text) => toml::from_str::<Note>(&text).map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Note::default()),
        Err(error) => Err(error),
    };
    match note {
        Ok(note) => Ledger::resume(&note, today),
        Err(error) => {
            tracing::warn!(
                path = %path.display(),
                %error,
                "what was sent cannot be read: the budgets of metered links count as used up; remove it to begin anew"
            );
            Ledger::unknown(today, plan.whole())
        }
    }
}

impl Bytes {
    /// Both of two.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            sent: self.sent.saturating_add(other.sent),
            received: self.received.saturating_add(other.received),
        }
    }
}
