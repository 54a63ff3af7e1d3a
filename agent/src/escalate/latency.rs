//! Owns how long a destination takes to its first byte, as far as it was measured lately.
//!
//! **Invariant:** only what was answered with a success is measured, and what is long ago counts for
//! nothing.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The part that the newest measurement has in the average.
const NEWEST: f64 = 0.2;
/// What was measured before that long is not known any more.
const STALE: Duration = Duration::from_secs(5 * 60);

/// The average of one destination.
#[derive(Debug, Default)]
pub(super) struct Latency(Mutex<Option<Average>>);

/// An exponentially weighted average.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Average {
    seconds: f64,
    at: Instant,
}

impl Latency {
    /// Takes in one measurement.
    pub(super) fn note(&self, took: Duration) {
        let mut average = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *average = Some(Average::after(*average, took, now()));
    }

    /// The average; nothing where it was not measured lately.
    pub(super) fn get(&self) -> Option<Duration> {
        let average = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        average?.as_of(now())
    }
}

impl Average {
    fn after(before: Option<Self>, took: Duration, now: Instant) -> Self {
        let took = took.as_secs_f64();
        let known = before.filter(|before| before.as_of(now).is_some());
        let seconds = known.map_or(took, |known| known.seconds + NEWEST * (took - known.seconds));
        Self { seconds, at: now }
    }

    fn as_of(&self, now: Instant) -> Option<Duration> {
        let is_fresh = now.saturating_duration_since(self.at) < STALE;
        is_fresh.then(|| Duration::try_from_secs_f64(self.seconds).ok()).flatten()
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_average_follows_what_is_measured_and_is_forgotten() {
        let latency = Latency::default();
        assert_eq!(latency.get(), None);
        for (took_ms, want_ms) in [(100, 100), (200, 120), (120, 120), (20, 100)] {
            latency.note(Duration::from_millis(took_ms));
            let got = latency.get().unwrap();
            let off = got.abs_diff(Duration::from_millis(want_ms));
            assert!(off < Duration::from_micros(1), "{got:?} after {took_ms} ms");
        }
        tokio::time::advance(STALE).await;
        assert_eq!(latency.get(), None);
        latency.note(Duration::from_millis(7));
        assert_eq!(latency.get(), Some(Duration::from_millis(7)), "it begins anew");
    }
}
