//! Owns how hard held requests press on one destination: slow start, as TCP has it.
//!
//! Pure: time is an argument. A window of sends under way at once begins at one, doubles with every
//! round of answers, and halves when the destination is throttled or fails, once for all that were
//! under way. Where several different requests fail one after the other, it is the destination that
//! ails and not they: it rests between tries, longer and longer, and the failures are nobody's attempt.
//!
//! **Invariant:** `1 <= window <= limit`.

use std::time::{Duration, Instant};

use crate::escalate::link::{FIRST_WAIT, backoff};
use crate::queue::RequestId;

/// So many different requests in a row that fail are the destination's fault.
const AILING: usize = 4;
/// One that ails is asked at least so often: however many wait, one of them finds out that it is well.
const LONGEST_REST: Duration = Duration::from_secs(15 * 60);

/// The pace toward one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pace {
    window: usize,
    limit: usize,
    /// Answers in this round.
    answered: usize,
    /// Sends that began before say nothing new.
    cut_at: Option<Instant>,
    /// Different requests that failed since the last answer.
    failing: Vec<RequestId>,
    /// Troubles that made it rest since the last answer.
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
    Failed { id: RequestId, begun: Instant },
}

impl Pace {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            window: 1,
            limit: limit.max(1),
            answered: 0,
            cut_at: None,
            failing: Vec::new(),
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
                Self { failing: Vec::new(), rests: 0, rest_until: None, ..self }
            }
            Event::Throttled { begun } => {
                let rest = backoff(self.rests, jitter);
                self.cut(begun, now).rest(now + rest)
            }
            Event::Failed { id, begun } => {
                if !self.failing.contains(&id) && self.failing.len() < AILING {
                    self.failing.push(id);
                }
                let cut = self.cut(begun, now);
                if !cut.is_ailing() {
                    return cut;
                }
                let until = now + rest_of_ailing(cut.rests, jitter);
                cut.rest(until)
            }
        }
    }

    /// Sends under way at once, at most.
    pub(super) fn window(&self) -> usize {
        self.window
    }

    /// Whether it fails on everybody.
    pub(super) fn is_ailing(&self) -> bool {
        self.failing.len() >= AILING
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

/// As [`backoff`], and on from there up to [`LONGEST_REST`].
fn rest_of_ailing(rests: u32, jitter: f64) -> Duration {
    let doubled = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(rests.min(16)));
    doubled.min(LONGEST_REST).mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
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
        let (throttled, failed) =
            (Event::Throttled { begun: now }, Event::Failed { id: RequestId::new(), begun: now });
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
    fn one_request_that_fails_again_and_again_is_no_ailing_destination() {
        let now = now();
        let id = RequestId::new();
        let failed = Event::Failed { id, begun: now };
        let alone = (0..99).fold(Pace::new(8), |pace, _| pace.step(failed, now, 0.5));
        assert!(!alone.is_ailing() && alone.rest_until().is_none());
    }

    #[test]
    fn a_destination_that_fails_on_everybody_rests_longer_and_longer() {
        let now = now();
        let fail =
            |pace: Pace| pace.step(Event::Failed { id: RequestId::new(), begun: now }, now, 1.0);
        let mut pace = Pace::new(8);
        let mut rests = Vec::new();
        for _ in 0..30 {
            pace = fail(pace);
            rests.push(pace.rest_until().map(|until| (until - now).as_millis()));
        }
        assert_eq!(rests[..6], [None, None, None, Some(250), Some(500), Some(1000)]);
        assert_eq!(rests.last(), Some(&Some(LONGEST_REST.as_millis())));
        let well = pace.step(Event::Answered, now, 1.0);
        assert!(!well.is_ailing() && well.rest_until().is_none());
    }
}
