//! Owns what the link to the controller is doing, and how long it waits between attempts.
//!
//! **Invariant:** pure; time and chance are arguments.

use std::time::Duration;

/// What the link is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Waiting to try again, after so many failures in a row.
    Waiting {
        /// Failures since the link was last up.
        attempt: u32,
    },
    /// Connecting to the broker.
    Connecting {
        /// Failures since the link was last up.
        attempt: u32,
    },
    /// Connected and subscribed; the controller has not acknowledged the hello yet.
    Greeting {
        /// Failures since the link was last up.
        attempt: u32,
    },
    /// The controller knows the device.
    Up,
}

/// What happens to a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The wait is over.
    Due,
    /// The broker has taken the subscription.
    Subscribed,
    /// The controller has acknowledged the hello.
    Acknowledged,
    /// The controller asks who is there.
    Announced,
    /// The connection broke, or nothing came back for too long.
    Broken,
}

/// The first wait, doubled with every failure.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

impl State {
    /// What becomes of it.
    #[must_use]
    pub fn step(self, event: Event) -> Self {
        match (self, event) {
            (Self::Waiting { attempt }, Event::Due) => Self::Connecting { attempt },
            (Self::Connecting { attempt }, Event::Subscribed) => Self::Greeting { attempt },
            (Self::Greeting { .. }, Event::Acknowledged) => Self::Up,
            (Self::Up, Event::Announced) => Self::Greeting { attempt: 0 },
            (Self::Up, Event::Broken) => Self::Waiting { attempt: 0 },
            (Self::Waiting { attempt }, Event::Broken) => Self::Waiting { attempt },
            (Self::Connecting { attempt } | Self::Greeting { attempt }, Event::Broken) => {
                Self::Waiting { attempt: attempt.saturating_add(1) }
            }
            // What came too late or twice changes nothing.
            (state, Event::Due | Event::Subscribed | Event::Acknowledged | Event::Announced) => {
                state
            }
        }
    }

    /// How long to wait now; `chance` in `0.0..=1.0` spreads a fleet that lost its broker at once.
    #[must_use]
    pub fn wait(self, chance: f64) -> Duration {
        match self {
            Self::Waiting { attempt } => {
                let doubled = FIRST_WAIT.saturating_mul(1 << attempt.min(10));
                doubled.min(LONGEST_WAIT).mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
            }
            Self::Connecting { .. } | Self::Greeting { .. } | Self::Up => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_steps() {
        use Event::{Acknowledged, Announced, Broken, Due, Subscribed};
        use State::{Connecting, Greeting, Up, Waiting};
        for (from, event, want) in [
            (Waiting { attempt: 3 }, Due, Connecting { attempt: 3 }),
            (Waiting { attempt: 3 }, Acknowledged, Waiting { attempt: 3 }),
            (Waiting { attempt: 3 }, Broken, Waiting { attempt: 3 }),
            (Connecting { attempt: 3 }, Subscribed, Greeting { attempt: 3 }),
            (Connecting { attempt: 3 }, Broken, Waiting { attempt: 4 }),
            (Greeting { attempt: 3 }, Acknowledged, Up),
            (Greeting { attempt: 3 }, Broken, Waiting { attempt: 4 }),
            (Greeting { attempt: 3 }, Announced, Greeting { attempt: 3 }),
            (Up, Announced, Greeting { attempt: 0 }),
            (Up, Broken, Waiting { attempt: 0 }),
            (Up, Acknowledged, Up),
        ] {
            assert_eq!(from.step(event), want, "{from:?} {event:?}");
        }
    }

    #[test]
    fn waits_double_up_to_a_limit_and_are_spread() {
        for (attempt, low_ms, high_ms) in
            [(0, 125, 250), (1, 250, 500), (6, 8_000, 16_000), (99, 15_000, 30_000)]
        {
            let waiting = State::Waiting { attempt };
            assert_eq!(waiting.wait(0.0), Duration::from_millis(low_ms), "{attempt}");
            assert_eq!(waiting.wait(1.0), Duration::from_millis(high_ms), "{attempt}");
        }
        assert_eq!(State::Up.wait(1.0), Duration::ZERO);
    }
}
