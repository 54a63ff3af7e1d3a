//! Owns how hard held requests press on one destination: slow start, as TCP has it.
//!
//! Pure: time is an argument. A window of sends under way at once begins at one, doubles with every
//! round of answers, and halves when the destination is throttled or fails, once for all that were
//! under way.
//!
//! **Invariant:** `1 <= window <= limit`.

use std::time::Instant;

use crate::escalate::link::backoff;

/// The pace toward one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pace {
    window: usize,
    limit: usize,
    /// Answers in this round.
    answered: usize,
    /// Sends that began before say nothing new.
    cut_at: Option<Instant>,
    /// Throttlings since the last answer.
    rests: u32,
    rest_until: Option<Instant>,
}

/// What was seen of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// Its link is down.
    LinkDown,
    /// It answered a request, if only by refusing it.
    Answered,
    /// It asked to be left alone, of a send that began then.
    Throttled { begun: Instant },
    /// It failed on a request, or did not answer it although it is there.
    Failed { begun: Instant },
}

impl Pace {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            window: 1,
            limit: limit.max(1),
            answered: 0,
            cut_at: None,
            rests: 0,
            rest_until: None,
        }
    }

    /// The pace after `event`. `jitter` in `0.0..=1.0` spreads the rests of many devices.
    #[must_use]
    pub(super) fn step(mut self, event: Event, now: Instant, jitter: f64) -> Self {
        match event {
            Event::LinkDown => Self::new(self.limit),
            Event::Answered => {
                self.answered += 1;
                if self.answered >= self.window {
                    self.window = self.window.saturating_mul(2).min(self.limit);
                    self.answered = 0;
                }
                Self { rests: 0, rest_until: None, ..self }
            }
            Event::Throttled { begun } => {
                let rest = backoff(self.rests, jitter);
                self.cut(begun, now).rest(now + rest)
            }
            Event::Failed { begun } => self.cut(begun, now),
        }
    }

    /// Sends under way at once, at most.
    pub(super) fn window(&self) -> usize {
        self.window
    }

    /// Until when nothing is sent.
    pub(super) fn rest_until(&self) -> Option<Instant> {
        self.rest_until
    }

    fn cut(self, begun: Instant, now: Instant) -> Self {
        if self.cut_at.is_some_and(|cut| begun < cut) {
            return self;
        }
        Self { window: (self.window / 2).max(1), answered: 0, cut_at: Some(now), ..self }
    }

    fn rest(self, until: Instant) -> Self {
        Self { rests: self.rests.saturating_add(1), rest_until: Some(until), ..self }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    #[test]
    fn the_table_of_windows() {
        use Event::{Answered, LinkDown};
        let now = now();
        let (throttled, failed) = (Event::Throttled { begun: now }, Event::Failed { begun: now });
        for (case, limit, events, want) in [
            ("at the start", 8, &[][..], 1),
            ("a round of one", 8, &[Answered][..], 2),
            ("half a round of two", 8, &[Answered; 2], 2),
            ("rounds of one, two and four", 8, &[Answered; 7], 8),
            ("no more than its limit", 6, &[Answered; 99], 6),
            ("a limit of one", 1, &[Answered; 9], 1),
            ("throttled", 8, &[Answered, Answered, Answered, throttled], 2),
            ("failed", 8, &[Answered, Answered, Answered, failed], 2),
            ("never nothing", 8, &[failed], 1),
            ("a round anew after a cut", 8, &[Answered, Answered, Answered, failed, Answered], 2),
            ("link down", 8, &[Answered, Answered, Answered, LinkDown], 1),
            ("no limit is one", 0, &[Answered], 1),
        ] {
            let mut pace = Pace::new(limit);
            for event in events {
                pace = pace.step(*event, now, 0.5);
            }
            assert_eq!(pace.window(), want, "{case}");
        }
    }

    #[test]
    fn a_whole_window_that_is_throttled_halves_it_once() {
        let start = now();
        let mut pace = (0..7).fold(Pace::new(8), |pace, _| pace.step(Event::Answered, start, 0.5));
        let later = start + Duration::from_secs(1);
        for _ in 0..8 {
            pace = pace.step(Event::Throttled { begun: start }, later, 0.5);
        }
        assert_eq!(pace.window(), 4);
        assert_eq!(pace.step(Event::Throttled { begun: later }, later, 0.5).window(), 2);
    }

    #[test]
    fn throttlings_rest_longer_and_longer_until_an_answer() {
        let now = now();
        let mut pace = Pace::new(8);
        for want_ms in [250, 500, 1000] {
            pace = pace.step(Event::Throttled { begun: now }, now, 1.0);
            assert_eq!(pace.rest_until(), Some(now + Duration::from_millis(want_ms)));
        }
        assert_eq!(pace.step(Event::Answered, now, 1.0).rest_until(), None);
    }
}
