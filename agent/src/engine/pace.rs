//! How long a model takes lately, and how long somebody who comes now would wait.
//!
//! **Invariant:** pure, and of fixed size. Nobody is told to wait by a measurement that is old while a
//! worker is free: then it is measured again.

use std::time::Duration;

use tokio::time::Instant;

/// The newest measurements count.
const KEPT: usize = 16;
/// With a free worker, a measurement says nothing any more after this time.
const FRESH: Duration = Duration::from_secs(1);

/// Times of the newest runs.
#[derive(Debug, Default)]
pub(super) struct Pace {
    micros: [u32; KEPT],
    sorted: [u32; KEPT],
    count: usize,
    jobs_per_run: f64,
    newest: Option<Instant>,
}

/// What stands in front of somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Front {
    /// Those who go first.
    pub(super) ahead: usize,
    /// Workers that have something to do.
    pub(super) busy: usize,
    /// All workers.
    pub(super) workers: usize,
}

impl Pace {
    /// Takes in a run that answered this many.
    #[expect(clippy::cast_precision_loss, reason = "a few hundred at most")]
    pub(super) fn note(&mut self, took: Duration, jobs: usize, now: Instant) {
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        self.micros[self.count % KEPT] = micros;
        self.count = self.count.saturating_add(1);
        self.sorted = self.micros;
        let known = self.count.min(KEPT);
        self.sorted[..known].sort_unstable();
        let jobs = jobs.max(1) as f64;
        let before = if self.count == 1 { jobs } else { self.jobs_per_run };
        self.jobs_per_run = before + (jobs - before) / 8.0;
        self.newest = Some(now);
    }

    /// The median time of a run; `None` before the first.
    pub(super) fn run(&self) -> Option<Duration> {
        let known = self.count.min(KEPT);
        let median = self.sorted[..known].get(known / 2)?;
        Some(Duration::from_micros((*median).into()))
    }

    /// How long it takes at least until somebody is answered who comes now: the time of those in
    /// front, shared by the workers, half a run for each that is under way, and the own run.
    #[expect(clippy::cast_precision_loss, reason = "a few thousand at most")]
    pub(super) fn expected(&self, front: Front, now: Instant) -> Duration {
        let Some(run) = self.run() else { return Duration::ZERO };
        let Front { ahead, busy, workers } = front;
        if ahead == 0 && busy < workers {
            let is_fresh = self.newest.is_some_and(|newest| now - newest < FRESH);
            let fastest = Duration::from_micros(self.sorted[0].into());
            return if is_fresh { fastest } else { Duration::ZERO };
        }
        let runs = ahead as f64 / self.jobs_per_run.max(1.0) + busy as f64 / 2.0;
        run + run.mul_f64(runs / workers.max(1) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_wait_is_that_of_those_in_front_and_the_own_run() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        let front = |ahead, busy, workers| Front { ahead, busy, workers };
        assert_eq!(pace.expected(front(9, 1, 1), now), Duration::ZERO, "nothing is known yet");
        for took in [10, 12, 10, 500, 8] {
            pace.note(ms(took), 1, now);
        }
        assert_eq!(pace.run(), Some(ms(10)), "one that was slow does not count");
        for (front, at, want) in [
            (front(0, 0, 1), now, ms(8)),
            (front(0, 0, 1), now + FRESH, Duration::ZERO),
            (front(0, 1, 1), now, ms(15)),
            (front(0, 1, 1), now + FRESH, ms(15)),
            (front(4, 1, 1), now, ms(55)),
            (front(4, 2, 2), now, ms(35)),
        ] {
            assert_eq!(pace.expected(front, at), want, "{front:?}");
        }
        for _ in 0..200 {
            pace.note(ms(10), 4, now);
        }
        let expected = pace.expected(front(8, 1, 1), now).as_millis();
        assert!((34..=36).contains(&expected), "four are answered at once: {expected}");
    }

    #[test]
    fn old_measurements_fall_out() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        for _ in 0..KEPT {
            pace.note(ms(100), 1, now);
        }
        for _ in 0..KEPT {
            pace.note(ms(1), 1, now);
        }
        assert_eq!(pace.run(), Some(ms(1)));
    }
}
