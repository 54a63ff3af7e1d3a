//! Owns the latency figures of one model: a count, and quantiles over the newest answers.
//!
//! **Invariant:** memory is fixed; old answers fall out.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Quantiles are over this many newest answers.
const KEPT: usize = 512;

#[derive(Debug, Default)]
pub(super) struct Latency(Mutex<Ring>);

#[derive(Debug, Default)]
struct Ring {
    count: u64,
    micros: Vec<u32>,
}

/// How many answers, and how quickly the newest came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quantiles {
    /// Answers since the start.
    pub count: u64,
    /// Median, in microseconds.
    pub p50_us: u32,
    /// 95th percentile, in microseconds.
    pub p95_us: u32,
    /// 99th percentile, in microseconds.
    pub p99_us: u32,
}

impl Latency {
    pub(super) fn record(&self, took: Duration) {
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        let at = usize::try_from(ring.count).unwrap_or(0) % KEPT;
        match ring.micros.get_mut(at) {
            Some(slot) => *slot = micros,
            None => ring.micros.push(micros),
        }
        ring.count += 1;
    }

    pub(super) fn quantiles(&self) -> Quantiles {
        let (count, mut micros) = {
            let ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            (ring.count, ring.micros.clone())
        };
        micros.sort_unstable();
        let at = |percent: usize| {
            let rank = (micros.len() * percent).div_ceil(100).saturating_sub(1);
            micros.get(rank).copied().unwrap_or(0)
        };
        Quantiles { count, p50_us: at(50), p95_us: at(95), p99_us: at(99) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_newest_answers() {
        let latency = Latency::default();
        assert_eq!(latency.quantiles(), Quantiles::default());
        for micros in 1..=100 {
            latency.record(Duration::from_micros(micros));
        }
        let want = Quantiles { count: 100, p50_us: 50, p95_us: 95, p99_us: 99 };
        assert_eq!(latency.quantiles(), want);
        for _ in 0..KEPT {
            latency.record(Duration::from_micros(7));
        }
        assert_eq!(latency.quantiles(), Quantiles { count: 612, p50_us: 7, p95_us: 7, p99_us: 7 });
    }
}
