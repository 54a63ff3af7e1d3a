//! Owns whether each destination can be reached, and when it is tried again.
//!
//! Pure: time and chance are arguments. [`Unknown`](LinkState::Unknown) may be sent to; only
//! [`Down`](LinkState::Down) keeps requests back, and only a probe ends it.
//!
//! **Invariant:** any answer of the destination over HTTP, whatever its status, is a link that is up; one
//! of a captive portal is none.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::connectivity::{Connectivity, Quality};

/// The first wait after a link was found down; it doubles with every failed probe.
pub const FIRST_WAIT: Duration = Duration::from_millis(250);
/// The longest wait between two probes of a link that is down.
pub const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Whether one destination can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LinkState {
    /// Not tried yet, or in doubt since an exchange got no answer; a probe decides.
    #[default]
    Unknown,
    /// The last exchange got an answer.
    Up,
    /// It cannot be reached.
    Down {
        /// Probes that failed since it went down.
        attempt: u32,
        /// When it is probed next.
        retry_at: Instant,
        /// Somebody else answers in its place.
        is_portal: bool,
    },
}

/// What was seen of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It answered over HTTP, with whatever status.
    Answered,
    /// A send found nobody: no connection, or no answer in all the time that the destination has.
    Unreachable,
    /// A send was cut off, or its caller could not wait longer; this says little.
    Silent,
    /// A probe found nobody.
    ProbeFailed,
    /// What answered a send may be somebody else; a probe decides, at once.
    Doubtful,
    /// What answered a probe is somebody else.
    Portal,
}

impl LinkState {
    /// The state after `event`. `jitter` in `0.0..=1.0` spreads the probes of many devices.
    #[must_use]
    pub fn step(self, event: Event, now: Instant, jitter: f64) -> Self {
        match (self, event) {
            (_, Event::Answered) => Self::Up,
            (Self::Unknown | Self::Up, Event::Silent) => Self::Unknown,
            // Sends that were under way when it went down add nothing to what is known.
            (Self::Down { .. }, Event::Unreachable | Event::Silent | Event::Doubtful) => self,
            (Self::Unknown | Self::Up, Event::Doubtful) => {
                Self::Down { attempt: 0, retry_at: now, is_portal: false }
            }
            (Self::Unknown | Self::Up, Event::Unreachable | Event::ProbeFailed | Event::Portal) => {
                let (retry_at, is_portal) = (now + backoff(0, jitter), event == Event::Portal);
                Self::Down { attempt: 0, retry_at, is_portal }
            }
            (Self::Down { attempt, .. }, Event::ProbeFailed | Event::Portal) => {
                let (attempt, is_portal) = (attempt.saturating_add(1), event == Event::Portal);
                Self::Down { attempt, retry_at: now + backoff(attempt, jitter), is_portal }
            }
        }
    }

    /// Whether nothing should be sent there now.
    pub fn is_down(self) -> bool {
        match self {
            Self::Down { .. } => true,
            Self::Unknown | Self::Up => false,
        }
    }

    /// The word used in logs, health and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down { .. } => "down",
        }
    }
}

/// The wait before try `attempt` (from 0): doubling from [`FIRST_WAIT`] to [`LONGEST_WAIT`], and
/// of that between a half (`jitter` 0.0) and the whole (1.0).
#[must_use]
pub fn backoff(attempt: u32, jitter: f64) -> Duration {
    let doubled = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(attempt.min(16)));
    doubled.min(LONGEST_WAIT).mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
}

/// The state of every link, by the destination's name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkStates(BTreeMap<String, Link>);

/// The state of one link, and since when it is up, down or in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The state.
    pub state: LinkState,
    /// Since when, whatever the probes in between.
    pub since: Instant,
    /// How the last exchanges went.
    pub quality: Quality,
    /// What it is called after all that.
    pub connectivity: Connectivity,
}

impl LinkStates {
    /// Every named link, in doubt.
    pub fn unknown<'a>(names: impl IntoIterator<Item = &'a str>, now: Instant) -> Self {
        let (quality, connectivity) = (Quality::default(), Connectivity::Unknown);
        let link = Link { state: LinkState::Unknown, since: now, quality, connectivity };
        Self(names.into_iter().map(|name| (name.to_owned(), link)).collect())
    }

    /// The state of the link to `name`; unknown for a name that is not configured.
    pub fn get(&self, name: &str) -> LinkState {
        self.link(name).map(|link| link.state).unwrap_or_default()
    }

    /// The link to `name`; none for a name that is not configured.
    pub fn link(&self, name: &str) -> Option<Link> {
        self.0.get(name).copied()
    }

    /// Every link, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Link)> {
        self.0.iter().map(|(name, link)| (name.as_str(), *link))
    }

    /// Takes a step for `name` and returns the states before and after it.
    pub fn step(
        &mut self,
        name: &str,
        event: Event,
        now: Instant,
        jitter: f64,
    ) -> (LinkState, LinkState) {
        let Some(link) = self.0.get_mut(name) else { return Default::default() };
        let before = link.state;
        link.state = before.step(event, now, jitter);
        if before.as_str() != link.state.as_str() {
            link.since = now;
            if link.state.is_down() {
                link.quality = link.quality.after(true, now);
            }
        }
        link.connectivity = link.connectivity.of_link(link.state, link.quality, now);
        (before, link.state)
    }

    /// Takes in how an exchange with `name` went; a bad one failed, or was slow.
    pub fn note_quality(&mut self, name: &str, is_bad: bool, now: Instant) {
        let Some(link) = self.0.get_mut(name) else { return };
        link.quality = link.quality.after(is_bad, now);
        link.connectivity = link.connectivity.of_link(link.state, link.quality, now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    #[test]
    fn the_table_of_steps() {
        let now = now();
        let later = now + Duration::from_secs(9);
        let down = |attempt, retry_at| LinkState::Down { attempt, retry_at, is_portal: false };
        let portal = |attempt, retry_at| LinkState::Down { attempt, retry_at, is_portal: true };
        let (first, second) = (now + FIRST_WAIT, now + 2 * FIRST_WAIT);
        for (case, from, event, want) in [
            ("first answer", LinkState::Unknown, Event::Answered, LinkState::Up),
            ("still there", LinkState::Up, Event::Answered, LinkState::Up),
            ("back", down(7, later), Event::Answered, LinkState::Up),
            ("never there", LinkState::Unknown, Event::Unreachable, down(0, first)),
            ("lost", LinkState::Up, Event::Unreachable, down(0, first)),
            ("lost twice", down(3, later), Event::Unreachable, down(3, later)),
            ("in doubt", LinkState::Up, Event::Silent, LinkState::Unknown),
            ("still in doubt", LinkState::Unknown, Event::Silent, LinkState::Unknown),
            ("no news", down(3, later), Event::Silent, down(3, later)),
            ("doubt confirmed", LinkState::Unknown, Event::ProbeFailed, down(0, first)),
            ("probe beat the send", LinkState::Up, Event::ProbeFailed, down(0, first)),
            ("still down", down(0, now), Event::ProbeFailed, down(1, second)),
            ("a doubtful answer", LinkState::Up, Event::Doubtful, down(0, now)),
            ("no news either", portal(2, later), Event::Doubtful, portal(2, later)),
            ("somebody else", LinkState::Unknown, Event::Portal, portal(0, first)),
            ("still somebody else", portal(0, now), Event::Portal, portal(1, second)),
            ("the doubt was right", down(0, now), Event::Portal, portal(1, second)),
            ("the portal is gone", portal(7, now), Event::Answered, LinkState::Up),
            ("and nobody comes", portal(0, now), Event::ProbeFailed, down(1, second)),
        ] {
            assert_eq!(from.step(event, now, 1.0), want, "{case}");
        }
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        for (attempt, want_ms) in
            [(0, 250), (1, 500), (4, 4000), (6, 16000), (7, 30000), (99, 30000)]
        {
            assert_eq!(backoff(attempt, 1.0), Duration::from_millis(want_ms), "attempt {attempt}");
        }
    }

    #[test]
    fn since_is_when_it_went_down_and_not_the_last_probe() {
        let now = now();
        let mut states = LinkStates::unknown(["site"], now);
        for (seconds, event, want) in [
            (1, Event::Answered, 1),
            (2, Event::Answered, 1),
            (3, Event::Unreachable, 3),
            (4, Event::ProbeFailed, 3),
            (5, Event::Answered, 5),
        ] {
            states.step("site", event, now + Duration::from_secs(seconds), 0.5);
            let link = states.link("site").unwrap();
            assert_eq!(link.since, now + Duration::from_secs(want), "after {seconds} s");
        }
        assert_eq!(states.step("nobody", Event::Answered, now, 0.5), Default::default());
        assert!(states.link("nobody").is_none());
    }

    proptest! {
        #[test]
        fn a_wait_is_bounded_and_never_nothing(attempt: u32, jitter: f64) {
            let wait = backoff(attempt, jitter);
            prop_assert!(wait >= FIRST_WAIT / 2 && wait <= LONGEST_WAIT, "{wait:?}");
        }
    }
}
