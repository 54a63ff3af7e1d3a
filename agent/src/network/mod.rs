//! Owns what the agent's own traffic amounts to, and what a metered link may carry of it.
//!
//! Everything that the agent sends or fetches goes past a [`Tap`], which counts it by its [`Purpose`].
//! While the link is metered it counts against the budget of the day and of the month too. When
//! that is used up, only what is urgent goes, out of a reserve; the rest waits ([`Network::may`]). Days
//! are those of the device's own count, as those of money.
//!
//! **Invariant:** what was counted is counted again after a restart: the note on disk runs ahead of
//! what counts against a budget, but for the last seconds before a kill.

mod keeping;
mod ledger;
mod plan;
pub mod routes;
mod spool;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use self::ledger::Ledger;
pub use self::ledger::{Bytes, Purpose};
pub use self::plan::Plan;
use self::plan::Today;
pub use self::spool::leave;
use crate::clock::Clock;

/// While the budget is used up, health is reported so much less often.
pub const SLOWED: u32 = 10;

/// What is known of the device's links before anything is sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetworkConfig {
    /// When the link counts as metered.
    pub metered: Metered,
    /// What a metered link may carry.
    pub plan: Plan,
    /// Destinations, webhooks and `controller` that are reached over no metered link.
    pub unmetered: Vec<String>,
}

/// When the link counts as metered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Metered {
    /// Never.
    #[default]
    Never,
    /// Always.
    Always,
    /// While the default route leads over one of these, which may end with `*`.
    Interfaces(Vec<String>),
}

/// The budget has nothing left for this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsedUp {
    /// When it renews, in milliseconds of the device's count.
    pub until_ms: u64,
    /// The same, from now on.
    pub renews_in: Duration,
}

/// What the count says, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// Sent and fetched in this day and in this month, by purpose; what is nothing is left out.
    pub day: BTreeMap<&'static str, Bytes>,
    /// The same of the month.
    pub month: BTreeMap<&'static str, Bytes>,
    /// Bytes over metered links in this day and in this month.
    pub metered: (u64, u64),
}

/// The meter of one agent; clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Network(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    config: NetworkConfig,
    /// Where it is noted, and by whose count; nowhere in a process that is no agent.
    kept: Option<(PathBuf, Clock)>,
    ledger: Mutex<Ledger>,
    is_metered: watch::Sender<bool>,
    /// The interfaces of the default route, as they were looked at last.
    interfaces: Mutex<Vec<String>>,
    /// 0: there is no controller; 1: its link is not up; 2: it is.
    controller: AtomicU8,
}

impl Network {
    /// Goes on with what is noted under `state_dir`. Blocks; changes nothing on disk.
    pub fn open(state_dir: &Path, clock: Clock, config: NetworkConfig) -> Self {
        let today = Today::of(clock.now_ms(), config.plan.month_begins_on);
        let ledger = Mutex::new(keeping::read(state_dir, &config.plan, today));
        let kept = Some((state_dir.to_owned(), clock));
        let network = Self(Arc::new(Inner { config, kept, ledger, ..Inner::default() }));
        network.look();
        network
    }

    /// What counts the traffic of `purpose` with `name`, which is a destination, a webhook or the like.
    pub fn tap(&self, purpose: Purpose, name: &str) -> Tap {
        let counter = |direction: &'static str| {
            metrics::counter!("holdfast_network_bytes_total", "purpose" => purpose.as_str(),
                "direction" => direction, "destination" => name.to_owned())
        };
        let is_metered = !self.0.config.unmetered.iter().any(|each| each == name);
        let (network, name) = (self.clone(), name.to_owned());
        let (sent, received) = (counter("sent"), counter("received"));
        Tap(Some(Arc::new(Pipe { network, purpose, name, is_metered, sent, received })))
    }

    /// Whether the link is metered now.
    pub fn is_metered(&self) -> bool {
        *self.0.is_metered.borrow()
    }

    /// The same, with a notice at each change.
    pub fn metered(&self) -> watch::Receiver<bool> {
        self.0.is_metered.subscribe()
    }

    /// Whether what goes to `name` goes over a metered link now.
    pub fn is_metered_to(&self, name: &str) -> bool {
        self.is_metered() && !self.0.config.unmetered.iter().any(|each| each == name)
    }

    /// The interfaces of the default route; none without one.
    pub fn interfaces(&self) -> Vec<String> {
        self.0.interfaces.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a metered link may carry.
    pub fn plan(&self) -> &Plan {
        &self.0.config.plan
    }

    /// Whether something may go to `name` now: the link is not metered, or its budget has room.
    ///
    /// # Errors
    /// Until when the budget is used up.
    pub fn may(&self, name: &str, is_urgent: bool) -> Result<(), UsedUp> {
        let plan = &self.0.config.plan;
        if !plan.has_budget() || !self.is_metered_to(name) {
            return Ok(());
        }
        let now_ms = self.now_ms();
        let today = Today::of(now_ms, plan.month_begins_on);
        let used = self.ledger().on(today).metered();
        plan.room(used, is_urgent, now_ms).map_err(|until_ms| {
            let renews_in = Duration::from_millis(until_ms.saturating_sub(now_ms));
            UsedUp { until_ms, renews_in }
        })
    }

    /// Whether the link is metered, and its budget has nothing left for what is not urgent.
    pub fn is_used_up(&self) -> bool {
        self.may("", false).is_err()
    }

    /// What was counted.
    pub fn count(&self) -> Count {
        let today = Today::of(self.now_ms(), self.0.config.plan.month_begins_on);
        let mut ledger = self.ledger();
        let ledger = ledger.on(today);
        Count { day: ledger.day(), month: ledger.month(), metered: ledger.metered() }
    }

    /// Takes in whether the link to the controller is up.
    pub fn note_controller(&self, is_up: bool) {
        self.0.controller.store(if is_up { 2 } else { 1 }, Ordering::Relaxed);
    }

    /// Whether the link to the controller is up; `None` where there is no controller.
    pub fn controller(&self) -> Option<bool> {
        match self.0.controller.load(Ordering::Relaxed) {
            0 => None,
            state => Some(state == 2),
        }
    }

    fn now_ms(&self) -> u64 {
        self.0.kept.as_ref().map_or(0, |(_, clock)| clock.now_ms())
    }

    fn add(&self, purpose: Purpose, bytes: Bytes, is_metered: bool) {
        let today = Today::of(self.now_ms(), self.0.config.plan.month_begins_on);
        self.ledger().on(today).add(purpose, bytes, is_metered);
    }

    /// What a panicked holder left is numbers all the same.
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UsedUp {
    /// When it renews, as a date of the device's count.
    pub fn until(&self) -> String {
        plan::date_text(self.until_ms)
    }
}

/// Counts what goes to one place for one purpose; clones are the same one, and the default counts
/// nothing.
#[derive(Debug, Clone, Default)]
pub struct Tap(Option<Arc<Pipe>>);

struct Pipe {
    network: Network,
    purpose: Purpose,
    name: String,
    is_metered: bool,
    sent: metrics::Counter,
    received: metrics::Counter,
}

impl std::fmt::Debug for Pipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pipe({} of {})", self.purpose.as_str(), self.name)
    }
}

impl Tap {
    /// So many bytes went out.
    pub fn sent(&self, bytes: u64) {
        let Some(pipe) = &self.0 else { return };
        pipe.sent.increment(bytes);
        pipe.count(Bytes { sent: bytes, received: 0 });
    }

    /// So many came in.
    pub fn received(&self, bytes: u64) {
        let Some(pipe) = &self.0 else { return };
        pipe.received.increment(bytes);
        pipe.count(Bytes { sent: 0, received: bytes });
    }

    /// The same place, for another purpose.
    pub fn of(&self, purpose: Purpose) -> Self {
        self.0.as_ref().map_or_else(Self::default, |pipe| pipe.network.tap(purpose, &pipe.name))
    }
}

impl Pipe {
    fn count(&self, bytes: Bytes) {
        let is_metered = self.is_metered && self.network.is_metered();
        self.network.add(self.purpose, bytes, is_metered);
    }
}

#[cfg(test)]
mod tests;
