//! Owns what the drain knows of each destination: its pace, and what is under way there.
//!
//! **Invariant:** what is held has no more under way at a destination than its pace allows, and what
//! is urgent one more.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::pace::{Event, Pace};
use crate::destination::Destination;
use crate::escalate::{Escalator, Share, Standing, Turn, jitter};
use crate::subject::Subject;

/// The lanes, one for each destination, in the configured order.
#[derive(Debug)]
pub(super) struct Lanes(Mutex<Vec<Lane>>);

#[derive(Debug)]
struct Lane {
    name: String,
    pace: Pace,
    under_way: usize,
    /// Requests that it answered, if only by refusing.
    answers: u64,
}

/// A turn at a destination, counted as under way there until it is dropped.
pub(super) struct Place<'a> {
    lanes: &'a Lanes,
    index: usize,
    turn: Option<Turn>,
}

impl Place<'_> {
    /// The destination's place among all.
    pub(super) fn index(&self) -> usize {
        self.index
    }

    /// What the send needs; once.
    pub(super) fn turn(&mut self) -> Option<Turn> {
        self.turn.take()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(lane) = self.lanes.lock().get_mut(self.index) {
            lane.under_way = lane.under_way.saturating_sub(1);
        }
    }
}

impl Lanes {
    pub(super) fn new(destinations: &[Destination]) -> Self {
        let lanes = destinations.iter().map(|destination| {
            // One place is left to who waits in a call, and to what is urgent.
            let pace = Pace::new(destination.concurrency.saturating_sub(1));
            Lane { name: destination.name.clone(), pace, under_way: 0, answers: 0 }
        });
        Self(Mutex::new(lanes.collect()))
    }

    /// What the destination would do with a held request that asks `asked`, or whatever, now.
    pub(super) fn standing(
        &self,
        escalator: &Escalator,
        index: usize,
        asked: Option<&Subject>,
        share: Share,
    ) -> Standing {
        let lanes = self.lock();
        let Some(lane) = lanes.get(index) else { return Standing::LinkDown };
        let standing = escalator.standing(&lane.name, asked, share);
        if standing != Standing::Open {
            return standing;
        }
        let now = Instant::now().into_std();
        if let Some(until) = lane.pace.rest_until().filter(|until| *until > now) {
            return Standing::Paused(until - now);
        }
        let extra = usize::from(share == Share::First);
        if lane.under_way < lane.pace.window() + extra { standing } else { Standing::Full }
    }

    /// Takes a place for a held request with a body of `bytes`, if there is one now.
    pub(super) fn take(
        &self,
        escalator: &Escalator,
        index: usize,
        (asked, share): (&Subject, Share),
        bytes: u64,
    ) -> Option<Place<'_>> {
        if self.standing(escalator, index, Some(asked), share) != Standing::Open {
            return None;
        }
        let mut lanes = self.lock();
        let lane = lanes.get_mut(index)?;
        let turn = escalator.try_turn(&lane.name, asked, share, bytes).ok()?;
        lane.under_way += 1;
        Some(Place { lanes: self, index, turn: Some(turn) })
    }

    /// Takes in what was seen of a destination.
    pub(super) fn note(&self, index: usize, event: Event) {
        let mut lanes = self.lock();
        let Some(lane) = lanes.get_mut(index) else { return };
        lane.answers += u64::from(event == Event::Answered);
        let fresh = Pace::new(1);
        let pace = std::mem::replace(&mut lane.pace, fresh);
        lane.pace = pace.step(event, Instant::now().into_std(), jitter());
        let labels = [("destination", lane.name.clone())];
        #[allow(clippy::cast_precision_loss, reason = "a few hundred at most")]
        metrics::gauge!("holdfast_drain_window", &labels).set(lane.pace.window() as f64);
    }

    /// How many requests a destination has answered.
    pub(super) fn answers(&self, index: usize) -> u64 {
        self.lock().get(index).map_or(0, |lane| lane.answers)
    }

    /// Every destination whose link is down begins slowly when it is back.
    pub(super) fn note_links(&self, escalator: &Escalator) {
        let down: Vec<usize> = {
            let lanes = self.lock();
            let is_down = |lane: &&(usize, &Lane)| !escalator.is_reachable(&lane.1.name);
            let all: Vec<_> = lanes.iter().enumerate().collect();
            all.iter().filter(is_down).map(|(index, _)| *index).collect()
        };
        for index in down {
            self.note(index, Event::LinkDown);
        }
    }

    /// What a panicked holder left is numbers all the same.
    fn lock(&self) -> MutexGuard<'_, Vec<Lane>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
