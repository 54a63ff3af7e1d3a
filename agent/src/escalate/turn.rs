//! Owns whose turn it is at one destination: its places, its rate, its budget.
//!
//! What is new or urgent waits for a place in order and comes before what was held: that leaves a
//! place free (where there are two or more) and a part of the rate.
//!
//! **Invariant:** who sends has a [`Turn`]: a place, a share of the rate, and the money set apart and
//! noted on disk.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout_at};

use super::circuits::Pass;
use super::error::SendError;
use super::limits::{Limits, Share};
use super::purse::{Purse, Reservation, Spent};
use crate::destination::Destination;

/// What a destination would do with a request that came now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It takes one.
    Open,
    /// All places are taken; a change of [`Escalator::turns`](super::Escalator::turns) tells.
    Full,
    /// Its rate lets the next one in after this time.
    Limited(Duration),
    /// Its budget is spent, and renews after this time.
    OverBudget(Duration),
    /// It is left alone for this time.
    Paused(Duration),
    /// Its link is down.
    LinkDown,
}

/// The turns at one destination.
#[derive(Debug)]
pub(super) struct Turns {
    name: String,
    slots: Arc<Semaphore>,
    /// Places that the backlog leaves free.
    kept: usize,
    limits: Mutex<Limits>,
    purse: Purse,
    freed: Arc<watch::Sender<u64>>,
}

/// A place at a destination, with what else a send needs.
#[derive(Debug)]
pub struct Turn {
    destination: String,
    slot: Option<OwnedSemaphorePermit>,
    pass: Option<Pass>,
    reservation: Option<Reservation>,
    freed: Arc<watch::Sender<u64>>,
}

impl Turn {
    /// The destination that it is for.
    pub(super) fn destination(&self) -> &str {
        &self.destination
    }

    /// Has `amount` set apart for it, and nothing else.
    ///
    /// # Errors
    /// How long it is until the budget renews.
    pub(super) fn set_apart(&mut self, amount: u64) -> Result<(), Duration> {
        self.reservation.as_mut().map_or(Ok(()), |reservation| reservation.resize(amount))
    }

    /// The same, let through the circuit already.
    pub(super) fn with_pass(mut self, pass: Pass) -> Self {
        self.pass = Some(pass);
        self
    }

    /// Whether it was let through the circuit.
    pub(super) fn has_pass(&self) -> bool {
        self.pass.is_some()
    }

    /// What it was let through the circuit with; once.
    pub(super) fn take_pass(&mut self) -> Option<Pass> {
        self.pass.take()
    }

    /// The request goes out now.
    pub(super) fn goes_out(&mut self) {
        if let Some(reservation) = &mut self.reservation {
            reservation.goes_out();
        }
    }

    /// Ends it, with what the destination may want for it.
    pub(super) fn end(mut self, spent: Spent) {
        if let Some(reservation) = self.reservation.take() {
            reservation.settle(spent);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        drop(self.pass.take());
        drop(self.slot.take());
        drop(self.reservation.take());
        self.freed.send_modify(|version| *version = version.wrapping_add(1));
    }
}

impl Turns {
    pub(super) fn new(
        destination: &Destination,
        purse: Purse,
        freed: Arc<watch::Sender<u64>>,
    ) -> Self {
        let places = destination.concurrency.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            name: destination.name.clone(),
            slots: Arc::new(Semaphore::new(places)),
            kept: usize::from(places > 1),
            limits: Mutex::new(Limits::new(&destination.limits, now())),
            purse,
            freed,
        }
    }

    /// Where a request of this share stands.
    pub(super) fn standing(&self, share: Share) -> Standing {
        if let Err(renews) = self.purse.check(&self.name) {
            return Standing::OverBudget(renews);
        }
        let wait = self.limits().wait(share, now());
        if !wait.is_zero() {
            return Standing::Limited(wait);
        }
        let kept = match share {
            Share::First => 0,
            Share::Backlog => self.kept,
        };
        if self.slots.available_permits() > kept { Standing::Open } else { Standing::Full }
    }

    /// A turn at once, for a body of `bytes`.
    pub(super) fn try_take(&self, share: Share, bytes: u64) -> Result<Turn, Standing> {
        match self.standing(share) {
            Standing::Open => {}
            other => return Err(other),
        }
        let slot = self.slots.clone().try_acquire_owned().map_err(|_| Standing::Full)?;
        let mut limits = self.limits();
        let wait = limits.wait(share, now());
        if !wait.is_zero() {
            return Err(Standing::Limited(wait));
        }
        let reservation = self.purse.reserve(&self.name, None).map_err(Standing::OverBudget)?;
        *limits = limits.taken(bytes, now());
        Ok(self.turn(slot, reservation))
    }

    /// A turn for somebody who waits until `deadline`, for a body of `bytes` and with `amount` set apart;
    /// who `moves_on` waits for a place, and not for the rate.
    pub(super) async fn take(
        &self,
        bytes: u64,
        amount: u64,
        deadline: Instant,
        moves_on: bool,
    ) -> Result<Turn, SendError> {
        let destination = || self.name.clone();
        let over = |renews_in| SendError::OverBudget { destination: destination(), renews_in };
        let limited = |wait| SendError::Limited { destination: destination(), retry_after: wait };
        drop(self.purse.reserve(&self.name, Some(amount)).map_err(over)?);
        let spent = self.limits().wait(Share::First, now());
        if moves_on && !spent.is_zero() {
            return Err(limited(spent));
        }
        let slot = timeout_at(deadline, self.slots.clone().acquire_owned())
            .await
            .ok()
            .and_then(Result::ok)
            .ok_or_else(|| SendError::Busy { destination: destination() })?;
        loop {
            match self.try_pass(bytes, amount) {
                Ok(reservation) => {
                    return Ok(self.turn(slot, reservation.map_err(over)?));
                }
                Err(wait) if moves_on || Instant::now() + wait >= deadline => {
                    return Err(limited(wait));
                }
                Err(wait) => sleep(wait).await,
            }
        }
    }

    /// Passes the rate, or says how long it will be; then the budget, or how long that will be.
    fn try_pass(
        &self,
        bytes: u64,
        amount: u64,
    ) -> Result<Result<Option<Reservation>, Duration>, Duration> {
        let mut limits = self.limits();
        let wait = limits.wait(Share::First, now());
        if !wait.is_zero() {
            return Err(wait);
        }
        let reserved = self.purse.reserve(&self.name, Some(amount));
        if reserved.is_ok() {
            *limits = limits.taken(bytes, now());
        }
        Ok(reserved)
    }

    fn turn(&self, slot: OwnedSemaphorePermit, reservation: Option<Reservation>) -> Turn {
        let (destination, freed) = (self.name.clone(), self.freed.clone());
        Turn { destination, slot: Some(slot), pass: None, reservation, freed }
    }

    /// What a panicked holder left is numbers all the same.
    fn limits(&self) -> MutexGuard<'_, Limits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
