//! Owns the spending of all destinations that have a budget, in memory and in a small file.
//!
//! **Invariant:** nothing is sent for money that the file does not count as spent, so that a restart
//! at any moment overspends nothing.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::budget::{Note, Spending};
use crate::clock::Clock;
use crate::destination::Destination;
use crate::price;
use crate::whole_file;

/// Milliseconds in a day of the device's count.
const DAY_MS: u64 = 86_400_000;

/// The money for destinations; clones are the same purse.
#[derive(Debug, Clone)]
pub struct Purse(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    clock: Clock,
    spendings: Mutex<BTreeMap<String, Spending>>,
    /// Who writes the file.
    writing: tokio::sync::Mutex<()>,
}

/// The file.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Notes {
    #[serde(default)]
    destination: BTreeMap<String, Note>,
}

impl Purse {
    /// Goes on with what is noted under `state_dir`. Blocks; changes nothing on disk.
    pub fn open(state_dir: &Path, clock: Clock, destinations: &[Destination]) -> Self {
        let path = state_dir.join("spending.toml");
        let today = clock.now_ms() / DAY_MS;
        let notes = read(&path);
        let spendings = destinations.iter().filter_map(|destination| {
            let (name, limits) = (&destination.name, &destination.limits);
            let budget = limits.budget_micros?;
            let note = match &notes {
                Some(notes) => notes.destination.get(name).copied(),
                // Nobody knows what was spent: all of it, to be sure.
                None => Some(Note { day: today, spent_micros: budget }),
            };
            let price = price::usual(limits, destination.max_tokens());
            Some((name.clone(), Spending::resume(price, budget, note, today)))
        });
        let spendings = Mutex::new(spendings.collect());
        Self(Arc::new(Inner { path, clock, spendings, writing: tokio::sync::Mutex::default() }))
    }

    /// Whether the budget of `name` has room for one request more.
    ///
    /// # Errors
    /// How long it is until the budget renews.
    pub(super) fn check(&self, name: &str) -> Result<(), Duration> {
        let now_ms = self.0.clock.now_ms();
        let mut spendings = self.spendings();
        let Some(spending) = spendings.get_mut(name) else { return Ok(()) };
        *spending = spending.on(now_ms / DAY_MS);
        if spending.has_room() { Ok(()) } else { Err(until_tomorrow(now_ms)) }
    }

    /// Sets `amount` apart for one request to `name`, or the usual price; `None` where there is no budget.
    ///
    /// # Errors
    /// How long it is until the budget renews.
    pub(super) fn reserve(
        &self,
        name: &str,
        amount: Option<u64>,
    ) -> Result<Option<Reservation>, Duration> {
        let now_ms = self.0.clock.now_ms();
        let mut spendings = self.spendings();
        let Some(spending) = spendings.get_mut(name) else { return Ok(None) };
        let today = spending.on(now_ms / DAY_MS);
        let amount = amount.unwrap_or(today.price());
        *spending = today.reserved(amount).ok_or_else(|| until_tomorrow(now_ms))?;
        let spent = Spent::Known(0);
        Ok(Some(Reservation { purse: self.clone(), name: name.to_owned(), amount, spent }))
    }

    /// Writes down what is reserved, if what is on disk does not cover it.
    pub(super) async fn note(&self) -> io::Result<()> {
        if !self.has_due_note() {
            return Ok(());
        }
        let _writing = self.0.writing.lock().await;
        // Another one may have written for us.
        if !self.has_due_note() {
            return Ok(());
        }
        let notes: BTreeMap<String, Note> = self
            .spendings()
            .iter()
            .map(|(name, spending)| {
                (name.clone(), spending.due_note().unwrap_or_else(|| spending.note()))
            })
            .collect();
        let notes = Notes { destination: notes };
        let text = toml::to_string(&notes).map_err(io::Error::other)?;
        let path = self.0.path.clone();
        let writing = move || whole_file::write(&path, text.as_bytes(), 0o600);
        tokio::task::spawn_blocking(writing).await.map_err(io::Error::other)??;
        for (name, note) in notes.destination {
            if let Some(spending) = self.spendings().get_mut(&name) {
                *spending = spending.noted(note);
            }
        }
        Ok(())
    }

    fn has_due_note(&self) -> bool {
        self.spendings().values().any(|spending| spending.due_note().is_some())
    }

    /// What a panicked holder left is numbers all the same.
    fn spendings(&self) -> MutexGuard<'_, BTreeMap<String, Spending>> {
        self.0.spendings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a request cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spent {
    /// So much, in millionths.
    Known(u64),
    /// Nobody knows: all that was set apart, or so much if that is more.
    AtLeast(u64),
}

/// The price of one request, set apart. It costs nothing until it goes out; dropped from then on, it
/// counts as paid.
#[derive(Debug)]
pub(super) struct Reservation {
    purse: Purse,
    name: String,
    amount: u64,
    spent: Spent,
}

impl Reservation {
    /// Sets `amount` apart instead of what was; nothing changes when that is too much.
    ///
    /// # Errors
    /// How long it is until the budget renews.
    pub(super) fn resize(&mut self, amount: u64) -> Result<(), Duration> {
        let now_ms = self.purse.0.clock.now_ms();
        let mut spendings = self.purse.spendings();
        let Some(spending) = spendings.get_mut(&self.name) else { return Ok(()) };
        let without = spending.on(now_ms / DAY_MS).released(self.amount);
        *spending = without.reserved(amount).ok_or_else(|| until_tomorrow(now_ms))?;
        self.amount = amount;
        Ok(())
    }

    /// From here on nobody knows whether it has to be paid for.
    pub(super) fn goes_out(&mut self) {
        self.spent = Spent::AtLeast(0);
    }

    /// Ends it, with what the request cost.
    pub(super) fn settle(mut self, spent: Spent) {
        self.spent = spent;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let today = self.purse.0.clock.now_ms() / DAY_MS;
        let mut spendings = self.purse.spendings();
        let Some(spending) = spendings.get_mut(&self.name) else { return };
        let before = spending.on(today);
        let cost = match self.spent {
            Spent::Known(micros) => micros,
            Spent::AtLeast(micros) => micros.max(self.amount),
        };
        *spending = before.settled(self.amount, cost);
        let labels = [("destination", self.name.clone())];
        #[allow(clippy::cast_precision_loss, reason = "for people")]
        metrics::gauge!("holdfast_budget_left_micros", &labels).set(spending.left() as f64);
    }
}

fn until_tomorrow(now_ms: u64) -> Duration {
    Duration::from_millis(DAY_MS - now_ms % DAY_MS)
}

/// What is noted; `None` when it cannot be read although it is there.
fn read(path: &Path) -> Option<Notes> {
    let told = match std::fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text).map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Notes::default()),
        Err(error) => Err(error),
    };
    told.inspect_err(|error| {
        tracing::warn!(
            path = %path.display(),
            %error,
            "what was spent cannot be read: today's budgets count as spent; remove it to begin anew"
        );
    })
    .ok()
}
