//! Owns the one live copy of every link's state, and tells who waits for it.
//!
//! **Invariant:** the state changes by [`LinkState::step`](super::link::LinkState::step) alone.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::connectivity::Connectivity;
use super::link::{Event, LinkState, LinkStates};

/// The states, shared by everybody who sends.
#[derive(Debug)]
pub(super) struct Links {
    states: watch::Sender<LinkStates>,
}

impl Links {
    pub(super) fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let now = Instant::now().into_std();
        Self { states: watch::Sender::new(LinkStates::unknown(names, now)) }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<LinkStates> {
        self.states.subscribe()
    }

    pub(super) fn get(&self, name: &str) -> LinkState {
        self.states.borrow().get(name)
    }

    /// The state of `name`, and for how long it has been up, down or in doubt.
    pub(super) fn lasting(&self, name: &str) -> (LinkState, Duration) {
        self.states.borrow().link(name).map_or_else(Default::default, |link| {
            (link.state, Instant::now().into_std().saturating_duration_since(link.since))
        })
    }

    /// Takes in what was seen of `name` just now.
    pub(super) fn note(&self, name: &str, event: Event) {
        let now = Instant::now().into_std();
        self.states.send_if_modified(|states| {
            let was = called(states, name);
            let (before, after) = states.step(name, event, now, jitter());
            if before.as_str() != after.as_str() {
                tell(name, before, after);
            }
            let is = called(states, name);
            tell_change(name, was, is);
            before != after || was != is
        });
    }

    /// Takes in how an exchange with `name` went; a bad one failed, or was slow.
    pub(super) fn note_quality(&self, name: &str, is_bad: bool) {
        let now = Instant::now().into_std();
        self.states.send_if_modified(|states| {
            let was = called(states, name);
            states.note_quality(name, is_bad, now);
            let is = called(states, name);
            tell_change(name, was, is);
            was != is
        });
    }

    /// What every link is called now, by name.
    pub(super) fn connectivity(&self) -> Vec<(String, Connectivity)> {
        let states = self.states.borrow();
        states.iter().map(|(name, link)| (name.to_owned(), link.connectivity)).collect()
    }
}

fn called(states: &LinkStates, name: &str) -> Connectivity {
    states.link(name).map(|link| link.connectivity).unwrap_or_default()
}

fn tell_change(name: &str, was: Connectivity, is: Connectivity) {
    if was == is {
        return;
    }
    let why = match is {
        Connectivity::Unknown | Connectivity::Metered => return,
        Connectivity::Online => "it answers",
        Connectivity::Degraded => "3 of the last 8 exchanges failed or were slow, or more",
        Connectivity::CaptivePortal => {
            "somebody else answers in its place: nothing but probes is sent"
        }
        Connectivity::Offline => "nobody answers",
    };
    tracing::info!(destination = name, was = was.as_str(), why, "link is {}", is.as_str());
}

fn tell(name: &str, before: LinkState, after: LinkState) {
    let labels = [("destination", name.to_owned())];
    metrics::gauge!("holdfast_link_up", &labels).set(if after == LinkState::Up {
        1.0
    } else {
        0.0
    });
    match after {
        LinkState::Down { .. } => {
            tracing::warn!(destination = name, "link is down; requests for it are held");
        }
        LinkState::Up if before.is_down() => {
            tracing::info!(destination = name, "link is back");
        }
        LinkState::Up | LinkState::Unknown => {
            tracing::debug!(destination = name, state = after.as_str(), "link");
        }
    }
}

/// Chance in `0.0..=1.0`, so that many devices do not act in step.
pub(crate) fn jitter() -> f64 {
    getrandom::u32().map_or(0.5, |chance| f64::from(chance) / f64::from(u32::MAX))
}
