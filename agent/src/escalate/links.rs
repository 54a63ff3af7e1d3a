//! Owns the one live copy of every link's state, and tells who waits for it.
//!
//! **Invariant:** the state changes by [`LinkState::step`](super::link::LinkState::step) alone.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

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
            let (before, after) = states.step(name, event, now, jitter());
            if before.as_str() != after.as_str() {
                tell(name, before, after);
            }
            before != after
        });
    }
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
