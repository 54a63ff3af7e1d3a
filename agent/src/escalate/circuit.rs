//! Owns when a model at a destination is left alone since it fails: a circuit breaker.
//!
//! Pure: time and chance are arguments. Where several different requests fail, it is the destination
//! that ails and not they.
//!
//! | state | lets through | becomes |
//! |---|---|---|
//! | closed | everything | open, when four different requests in a row fail, or half of ten and more in half a minute |
//! | open | nothing | half open, with the first that comes after its rest |
//! | half open | that one alone | closed, when that is answered; open for twice as long, when it fails |
//!
//! A rest is two seconds at first and a quarter of an hour at last; who waits in a call tries
//! after half a minute at the latest.
//!
//! **Invariant:** in a state that is not closed, what was let through before it says nothing.

use std::time::{Duration, Instant};

use super::link::LONGEST_WAIT;
use crate::queue::RequestId;

/// So many different requests in a row that fail open it.
const IN_A_ROW: usize = 4;
/// Of fewer in the window than these, the part that failed says nothing.
const LEAST: u32 = 10;
/// The time of one slot of the window.
const SLOT: Duration = Duration::from_secs(5);
/// The window's slots.
const SLOTS: usize = 6;
/// The first rest.
const FIRST_REST: Duration = Duration::from_secs(2);
/// What is held tries at least so often: however many wait, one of them finds out that it is well.
const LONGEST_REST: Duration = Duration::from_secs(15 * 60);
/// While one tries, the others come again after this time.
const TRIAL_WAIT: Duration = Duration::from_secs(1);

/// On whose behalf something would be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    /// Somebody who waits in a call.
    Waiting,
    /// The queue.
    Held,
}

/// How a circuit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    /// It lets everything through.
    Closed,
    /// It lets one through, to see.
    HalfOpen,
    /// It lets nothing through for this time.
    Open(Duration),
}

/// What became of something that was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// It has an answer, if only a refusal.
    Answered,
    /// The destination failed on this one.
    Failed(RequestId),
    /// It went out, and whoever waited left too soon to say anything of the destination.
    Left,
    /// Nothing that says anything of the destination.
    Nothing,
}

/// That something was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    epoch: u64,
}

/// One circuit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Circuit {
    state: State,
    /// Changes with the state.
    epoch: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Closed { failing: Vec<RequestId>, window: Window },
    Open { since: Instant, rest: Duration, rests: u32 },
    HalfOpen { since: Instant, rest: Duration, rests: u32 },
}

impl Circuit {
    pub(super) fn new(now: Instant) -> Self {
        Self { state: closed(now), epoch: 0 }
    }

    /// Whether everything goes through.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// Its state as a metric: 0 closed, 1 half open, 2 open.
    pub(super) fn level(&self) -> u8 {
        match self.state {
            State::Closed { .. } => 0,
            State::HalfOpen { .. } => 1,
            State::Open { .. } => 2,
        }
    }

    /// What `asker` would find now.
    pub(super) fn gate(&self, asker: Asker, now: Instant) -> Gate {
        match self.state {
            State::Closed { .. } => Gate::Closed,
            State::HalfOpen { .. } => Gate::Open(TRIAL_WAIT),
            State::Open { since, rest, .. } => {
                let rest = match asker {
                    Asker::Waiting => rest.min(LONGEST_WAIT),
                    Asker::Held => rest,
                };
                let left = (since + rest).saturating_duration_since(now);
                if left.is_zero() { Gate::HalfOpen } else { Gate::Open(left) }
            }
        }
    }

    /// Lets `asker` through, if that may be now.
    ///
    /// # Errors
    /// How long it is until something may.
    pub(super) fn admit(self, asker: Asker, now: Instant) -> Result<(Self, Ticket), Duration> {
        let circuit = match (self.gate(asker, now), self.state) {
            (Gate::Open(left), _) => return Err(left),
            (Gate::HalfOpen, State::Open { since, rest, rests }) => {
                next(State::HalfOpen { since, rest, rests }, self.epoch)
            }
            (_, state) => Self { state, epoch: self.epoch },
        };
        let ticket = Ticket { epoch: circuit.epoch };
        Ok((circuit, ticket))
    }

    /// The circuit after what was let through with `ticket`. `jitter` in `0.0..=1.0` spreads the rests of
    /// many devices.
    #[must_use]
    pub(super) fn step(self, ticket: Ticket, seen: Seen, now: Instant, jitter: f64) -> Self {
        if ticket.epoch != self.epoch {
            return self;
        }
        let epoch = self.epoch;
        match (self.state, seen) {
            (State::Closed { window, .. }, Seen::Answered) => {
                let window = window.with(false, now);
                Self { state: State::Closed { failing: Vec::new(), window }, epoch }
            }
            (State::Closed { mut failing, window }, Seen::Failed(id)) => {
                // One that fails again and again says nothing of the others.
                if failing.contains(&id) {
                    return Self { state: State::Closed { failing, window }, epoch };
                }
                failing.push(id);
                let window = window.with(true, now);
                match failing.len() >= IN_A_ROW || window.is_bad() {
                    true => next(open(0, now, jitter), epoch),
                    false => Self { state: State::Closed { failing, window }, epoch },
                }
            }
            (State::HalfOpen { .. }, Seen::Answered) => next(closed(now), epoch),
            (State::HalfOpen { rests, .. }, Seen::Failed(_)) => {
                next(open(rests, now, jitter), epoch)
            }
            (State::HalfOpen { since, rest, rests }, Seen::Nothing) => {
                next(State::Open { since, rest, rests }, epoch)
            }
            // It was tried: the next try waits as long again.
            (State::HalfOpen { rest, rests, .. }, Seen::Left) => {
                next(State::Open { since: now, rest, rests }, epoch)
            }
            (state @ State::Closed { .. }, Seen::Nothing | Seen::Left)
            | (state @ State::Open { .. }, _) => Self { state, epoch },
        }
    }

    /// The circuit of a destination that was out of reach: what was known of it is over.
    #[must_use]
    pub(super) fn renewed(self, now: Instant) -> Self {
        next(closed(now), self.epoch)
    }
}

/// A state after that of `epoch`.
fn next(state: State, epoch: u64) -> Circuit {
    Circuit { state, epoch: epoch.wrapping_add(1) }
}

fn closed(now: Instant) -> State {
    State::Closed { failing: Vec::new(), window: Window::new(now) }
}

/// Open after so many rests since it was closed.
fn open(rests: u32, now: Instant, jitter: f64) -> State {
    let doubled = FIRST_REST.saturating_mul(2_u32.saturating_pow(rests.min(16)));
    let rest = doubled.min(LONGEST_REST).mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0));
    State::Open { since: now, rest, rests: rests.saturating_add(1) }
}

/// What was seen lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    begun: Instant,
    slots: [Slot; SLOTS],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Slot {
    /// Which one since the window began.
    number: u64,
    answered: u32,
    failed: u32,
}

impl Window {
    fn new(now: Instant) -> Self {
        Self { begun: now, slots: [Slot::default(); SLOTS] }
    }

    fn with(mut self, has_failed: bool, now: Instant) -> Self {
        let since = now.saturating_duration_since(self.begun);
        let number = since.as_secs() / SLOT.as_secs();
        let at = usize::try_from(number).unwrap_or_default() % SLOTS;
        // What is older than the window goes.
        let oldest = (number + 1).saturating_sub(SLOTS as u64);
        for slot in self.slots.iter_mut().filter(|slot| slot.number < oldest) {
            *slot = Slot::default();
        }
        if let Some(slot) = self.slots.get_mut(at) {
            slot.number = number;
            slot.failed = slot.failed.saturating_add(u32::from(has_failed));
            slot.answered = slot.answered.saturating_add(u32::from(!has_failed));
        }
        self
    }

    fn is_bad(&self) -> bool {
        let sum = |of: fn(&Slot) -> u32| {
            self.slots.iter().map(of).fold(0_u32, |sum, count| sum.saturating_add(count))
        };
        let (answered, failed) = (sum(|slot| slot.answered), sum(|slot| slot.failed));
        answered.saturating_add(failed) >= LEAST && failed >= answered
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn failed() -> Seen {
        Seen::Failed(RequestId::new())
    }

    /// Sends one, if it may, and takes in what comes of it.
    fn sent(circuit: Circuit, seen: Seen, now: Instant) -> Circuit {
        let (circuit, ticket) = circuit.admit(Asker::Held, now).unwrap();
        circuit.step(ticket, seen, now, 1.0)
    }

    #[test]
    fn the_table_of_what_opens_it() {
        let (start, same) = (now(), failed());
        let mixed = |good: usize, bad: usize| {
            let pairs = (0..good.max(bad)).flat_map(move |at| {
                let good = (at < good).then_some(Seen::Answered);
                good.into_iter().chain((at < bad).then(failed))
            });
            pairs.collect::<Vec<_>>()
        };
        for (case, seen, is_closed) in [
            ("nothing yet", vec![], true),
            ("three in a row", vec![failed(), failed(), failed()], true),
            ("four in a row", vec![failed(), failed(), failed(), failed()], false),
            (
                "an answer between",
                vec![failed(), failed(), Seen::Answered, failed(), failed()],
                true,
            ),
            ("the same again and again", vec![same; 99], true),
            ("nothing is no failure", vec![Seen::Nothing; 99], true),
            ("every second of eight", mixed(4, 4), true),
            ("every second of ten", mixed(5, 5), false),
            ("every third", [Seen::Answered, Seen::Answered, failed()].repeat(30), true),
        ] {
            let circuit = seen.into_iter().fold(Circuit::new(start), |circuit, seen| {
                if circuit.is_closed() { sent(circuit, seen, start) } else { circuit }
            });
            assert_eq!(circuit.is_closed(), is_closed, "{case}");
        }
    }

    #[test]
    fn what_is_long_ago_does_not_count() {
        let start = now();
        let mut circuit = Circuit::new(start);
        for second in 0..600 {
            // Half of all, and never ten in half a minute.
            let seen = if second % 2 == 0 { failed() } else { Seen::Answered };
            circuit = sent(circuit, seen, start + SECOND * 4 * second);
            assert!(circuit.is_closed(), "after {second} sends");
        }
    }

    #[test]
    fn rests_double_and_one_at_a_time_tries() {
        let mut at = now();
        let mut circuit = (0..4).fold(Circuit::new(at), |circuit, _| sent(circuit, failed(), at));
        let mut rests = Vec::new();
        for _ in 0..20 {
            let Gate::Open(rest) = circuit.gate(Asker::Held, at) else { panic!("{circuit:?}") };
            rests.push(rest.as_millis());
            assert_eq!(circuit.clone().admit(Asker::Held, at).unwrap_err(), rest);
            at += rest;
            assert_eq!(circuit.gate(Asker::Held, at), Gate::HalfOpen);
            let (half, ticket) = circuit.admit(Asker::Held, at).unwrap();
            for other in [Asker::Held, Asker::Waiting] {
                assert_eq!(half.clone().admit(other, at).unwrap_err(), TRIAL_WAIT);
            }
            circuit = half.step(ticket, failed(), at, 1.0);
        }
        assert_eq!(rests[..5], [2_000, 4_000, 8_000, 16_000, 32_000]);
        assert_eq!(rests.last(), Some(&LONGEST_REST.as_millis()));
        let Gate::Open(soonest) = circuit.gate(Asker::Waiting, at) else { panic!("{circuit:?}") };
        assert_eq!(soonest, LONGEST_WAIT, "who waits in a call tries sooner");
        let well = sent(circuit, Seen::Answered, at + LONGEST_REST);
        assert!(well.is_closed());
        let again = (0..4).fold(well, |circuit, _| sent(circuit, failed(), at));
        assert_eq!(again.gate(Asker::Held, at), Gate::Open(FIRST_REST), "it begins anew");
    }

    #[test]
    fn a_try_that_says_nothing_leaves_it_to_the_next() {
        let start = now();
        let open = (0..4).fold(Circuit::new(start), |circuit, _| sent(circuit, failed(), start));
        let later = start + FIRST_REST;
        let left = sent(open, Seen::Nothing, later);
        assert_eq!(left.gate(Asker::Held, later), Gate::HalfOpen);
        let tried = sent(left, Seen::Left, later);
        assert_eq!(tried.gate(Asker::Held, later), Gate::Open(FIRST_REST), "it was asked");
        assert!(sent(tried, Seen::Answered, later + FIRST_REST).is_closed());
    }

    #[test]
    fn what_was_sent_before_it_opened_says_nothing() {
        let start = now();
        let (circuit, early) = Circuit::new(start).admit(Asker::Waiting, start).unwrap();
        let open = (0..4).fold(circuit, |circuit, _| sent(circuit, failed(), start));
        assert_eq!(open.clone().step(early, Seen::Answered, start, 1.0), open);
        let (half, _) = open.admit(Asker::Held, start + FIRST_REST).unwrap();
        for seen in [Seen::Answered, failed(), Seen::Left, Seen::Nothing] {
            assert_eq!(half.clone().step(early, seen, start, 1.0), half, "{seen:?}");
        }
        assert!(half.renewed(start).is_closed(), "a link that was down ends it");
    }

    proptest! {
        /// Sends that overlap as they like: an open circuit never has more than one under way that was
        /// let through since it opened, and it always lets one through in the end.
        #[test]
        fn at_most_one_tries(steps in proptest::collection::vec((0_u8..8, 0_u64..2_000), 1..300)) {
            let mut at = now();
            let mut circuit = Circuit::new(at);
            let (mut under_way, mut trials) = (Vec::new(), 0_usize);
            for (step, wait_ms) in steps {
                at += Duration::from_millis(wait_ms);
                match step {
                    0..=3 => {
                        let was_closed = circuit.is_closed();
                        match circuit.clone().admit(Asker::Waiting, at) {
                            Ok((next, ticket)) => {
                                trials += usize::from(!was_closed);
                                under_way.push((ticket, !was_closed));
                                circuit = next;
                            }
                            Err(left) => prop_assert!(left <= LONGEST_WAIT && !was_closed),
                        }
                        prop_assert!(circuit.is_closed() || trials <= 1, "{trials} try");
                    }
                    _ => if let Some((ticket, is_trial)) = under_way.pop() {
                        let seen = match step {
                            4..=5 => failed(),
                            6 => Seen::Answered,
                            _ => Seen::Nothing,
                        };
                        circuit = circuit.step(ticket, seen, at, 0.5);
                        trials -= usize::from(is_trial);
                    },
                }
            }
        }
    }
}
