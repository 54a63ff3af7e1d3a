//! Owns how fast things get done here, so that a caller who is refused or held knows when to come back.
//!
//! **Invariant:** [`Rate`] is pure, time is an argument; what was never measured is said to be unknown.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::slot::Slot;

/// Rates are measured this often.
const MEASURE_EVERY: Duration = Duration::from_secs(1);
/// What happened this long ago counts about a third.
const MEMORY_S: f64 = 60.0;
/// Slower than one in an hour says nothing about when the next one is done.
const LEAST_PER_S: f64 = 1.0 / 3600.0;
/// Before anything was measured, a refused caller is told to come back after so many seconds.
pub const UNKNOWN_S: u64 = 30;
/// Nobody is sent away for longer, in seconds.
pub const LONGEST_S: u64 = 3600;

/// How many are finished in a second, the recent ones counting most.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rate {
    per_s: Option<f64>,
    noted_ms: Option<u64>,
}

impl Rate {
    /// After `finished` more, since the last note, at a moment in milliseconds.
    #[must_use]
    pub fn note(self, finished: u64, now_ms: u64) -> Self {
        let Some(before_ms) = self.noted_ms else {
            return Self { noted_ms: Some(now_ms), ..self };
        };
        let over_s = seconds(now_ms.saturating_sub(before_ms));
        if over_s <= 0.0 {
            return self;
        }
        #[allow(clippy::cast_precision_loss, reason = "a rate is not exact")]
        let now_per_s = finished as f64 / over_s;
        let per_s = match self.per_s {
            None => (finished > 0).then_some(now_per_s),
            Some(old) => Some(old + (now_per_s - old) * (1.0 - (-over_s / MEMORY_S).exp())),
        };
        Self { per_s, noted_ms: Some(now_ms) }
    }

    /// Seconds, rounded up, in which `count` are finished; `None` when that cannot be told.
    #[must_use]
    pub fn time_for(self, count: u64) -> Option<u64> {
        let per_s = self.per_s.filter(|per_s| *per_s >= LEAST_PER_S)?;
        #[allow(clippy::cast_precision_loss, reason = "a rate is not exact")]
        let wait_s = (count as f64 / per_s).ceil();
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative, and a cast from a float stops at the largest number"
        )]
        Some(wait_s as u64)
    }
}

/// What a refused caller is told to wait, in seconds, when `length` wait in front: until a hundredth
/// of them is done, so that there is room for more than one who comes back.
#[must_use]
pub fn retry_after_s(rate: Rate, length: u64) -> u64 {
    let wait_s = rate.time_for((length / 100).max(1)).unwrap_or(UNKNOWN_S);
    wait_s.clamp(1, LONGEST_S)
}

fn seconds(ms: u64) -> f64 {
    Duration::from_millis(ms).as_secs_f64()
}

/// The pace of the queue and of the calls to the API; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Pressure(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    held: AtomicU64,
    calls: AtomicU64,
    measured: Mutex<Measured>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Measured {
    queue: Rate,
    calls: Rate,
    /// As it was when it was measured last: requests that were held so far, requests that waited, and
    /// calls that were finished.
    seen: Option<(u64, u64)>,
    calls_seen: u64,
}

impl Pressure {
    /// A request was put into the queue.
    pub fn note_held(&self) {
        self.0.held.fetch_add(1, Ordering::Relaxed);
    }

    /// A call to the API that had a place has come to its end.
    pub fn note_call(&self) {
        self.0.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// How fast requests leave the queue.
    pub fn queue(&self) -> Rate {
        self.measured().queue
    }

    /// How fast calls to the API come to their end.
    pub fn calls(&self) -> Rate {
        self.measured().calls
    }

    /// Measures until `stop`.
    pub async fn keep(self, queue: Slot, clock: Clock, stop: CancellationToken) {
        let mut every = interval(MEASURE_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = every.tick() => {}
            }
            self.measure(queue.get().map(|queue| queue.waiting()), clock.now_ms());
        }
    }

    /// What left is what came, less what the queue grew by.
    fn measure(&self, waiting: Option<u64>, now_ms: u64) {
        let held = self.0.held.load(Ordering::Relaxed);
        let calls = self.0.calls.load(Ordering::Relaxed);
        let mut measured = self.0.measured.lock().unwrap_or_else(PoisonError::into_inner);
        measured.calls = measured.calls.note(calls.saturating_sub(measured.calls_seen), now_ms);
        measured.calls_seen = calls;
        let Some(waiting) = waiting else { return };
        let left = measured.seen.map_or(0, |(held_before, waiting_before)| {
            (waiting_before + held.saturating_sub(held_before)).saturating_sub(waiting)
        });
        measured.queue = measured.queue.note(left, now_ms);
        measured.seen = Some((held, waiting));
    }

    fn measured(&self) -> Measured {
        *self.0.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_known_after_the_first_that_is_finished() {
        let rate = Rate::default().note(0, 1_000);
        assert_eq!(rate.time_for(1), None);
        let rate = rate.note(0, 2_000);
        assert_eq!(rate.time_for(1), None);
        assert_eq!(retry_after_s(rate, 500), UNKNOWN_S);
        let rate = rate.note(4, 4_000);
        for (count, want) in [(0, 0), (1, 1), (2, 1), (3, 2), (1_000, 500)] {
            assert_eq!(rate.time_for(count), Some(want), "{count}");
        }
        assert_eq!(retry_after_s(rate, 1_000), 5);
        assert_eq!(retry_after_s(rate, 0), 1);
        // The same moment again changes nothing.
        assert_eq!(rate.note(9, 4_000), rate);
    }

    #[test]
    fn a_rate_follows_what_happens_and_is_unknown_again_after_a_long_stop() {
        let mut rate = Rate::default().note(0, 0);
        for second in 1..=600 {
            rate = rate.note(10, second * 1_000);
        }
        assert_eq!(rate.time_for(100), Some(10));
        let after_a_minute = rate.note(0, 660_000);
        assert_eq!(after_a_minute.time_for(100), Some(28), "a third of it is left");
        let long_ago = rate.note(0, 3_600_000);
        assert_eq!(long_ago.time_for(100), None);
        assert_eq!(retry_after_s(long_ago, 100), UNKNOWN_S);
        let slow = Rate::default().note(0, 0).note(1, 3_000_000);
        assert_eq!(retry_after_s(slow, 1_000_000), LONGEST_S);
    }

    #[test]
    fn what_left_the_queue_is_what_came_less_what_it_grew_by() {
        let pressure = Pressure::default();
        pressure.measure(Some(5), 0);
        for _ in 0..7 {
            pressure.note_held();
        }
        // Five waited, seven came, two wait: ten left in two seconds.
        pressure.measure(Some(2), 2_000);
        assert_eq!(pressure.queue().time_for(10), Some(2));
        // Without a queue nothing is measured of it.
        pressure.note_call();
        pressure.measure(None, 3_000);
        assert_eq!(pressure.queue().time_for(10), Some(2));
        assert_eq!(pressure.calls().time_for(1), Some(1));
    }
}
