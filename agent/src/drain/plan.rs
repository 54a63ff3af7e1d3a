//! Owns where a held request goes next.
//!
//! Pure: where the destinations stand is an argument.
//!
//! | destination | what is held does | what is urgent does |
//! |---|---|---|
//! | takes one now | goes | goes |
//! | all places taken | waits for it: a backlog does not spill over | tries the next |
//! | rate, pause, link | tries the next | tries the next |
//! | budget spent | tries the next | tries the next |

use std::time::Duration;

use crate::escalate::{Share, Standing};
use crate::queue::URGENT;

/// The share that a held request has.
pub(super) fn share(priority: u8) -> Share {
    if priority >= URGENT { Share::First } else { Share::Backlog }
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// To this destination, now.
    Go(usize),
    /// Nowhere, for now.
    Wait(Wait),
    /// Nowhere until there is budget, which is after this time.
    Budget(Duration),
}

/// What a request waits for: whichever comes first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wait {
    /// One of these takes it.
    pub(super) open: Vec<usize>,
    /// This one's places are not all taken any more: it takes it, or fails and leaves it to the next.
    pub(super) not_full: Option<usize>,
}

impl Wait {
    /// The destinations that it is for.
    pub(super) fn indexes(&self) -> impl Iterator<Item = usize> + '_ {
        self.open.iter().copied().chain(self.not_full)
    }
}

/// Chooses among `candidates`, in the configured order; there is at least one.
pub(super) fn choose(candidates: &[(usize, Standing)], share: Share) -> Way {
    let mut waits = Vec::new();
    let mut renews: Option<Duration> = None;
    for (index, standing) in candidates {
        match standing {
            Standing::Open => return Way::Go(*index),
            Standing::Full if share == Share::Backlog => {
                return Way::Wait(Wait { open: waits, not_full: Some(*index) });
            }
            Standing::OverBudget(after) => {
                renews = Some(renews.map_or(*after, |before| before.min(*after)));
                waits.push(*index);
            }
            Standing::Full | Standing::Limited(_) | Standing::Paused(_) | Standing::LinkDown => {
                waits.push(*index)
            }
        }
    }
    let is_over_budget =
        |candidate: &(usize, Standing)| matches!(candidate.1, Standing::OverBudget(_));
    match renews {
        Some(after) if candidates.iter().all(is_over_budget) => Way::Budget(after),
        _ => Way::Wait(Wait { open: waits, not_full: None }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_ways() {
        use Share::{Backlog, First};
        use Standing::{Full, LinkDown, Open, OverBudget};
        let soon = Duration::from_secs(1);
        let late = Duration::from_secs(9);
        let (limited, paused) = (Standing::Limited(soon), Standing::Paused(soon));
        let wait = |open: &[usize]| Way::Wait(Wait { open: open.to_vec(), not_full: None });
        let behind =
            |open: &[usize], full| Way::Wait(Wait { open: open.to_vec(), not_full: Some(full) });
        for (case, standings, share, want) in [
            ("the first that is open", &[Open, Open][..], Backlog, Way::Go(0)),
            ("a backlog does not spill over", &[Full, Open], Backlog, behind(&[], 0)),
            ("an urgent one does", &[Full, Open], First, Way::Go(1)),
            ("rate spills over", &[limited, Open], Backlog, Way::Go(1)),
            ("so does a pause", &[paused, Open], Backlog, Way::Go(1)),
            ("and a dead link", &[LinkDown, Open], Backlog, Way::Go(1)),
            ("and a spent budget", &[OverBudget(late), Open], Backlog, Way::Go(1)),
            ("all closed", &[LinkDown, limited, Full], First, wait(&[0, 1, 2])),
            ("down, then full", &[LinkDown, Full, Open], Backlog, behind(&[0], 1)),
            ("only budget", &[OverBudget(late)], First, Way::Budget(late)),
            ("two budgets", &[OverBudget(late), OverBudget(soon)], Backlog, Way::Budget(soon)),
            ("budget or link", &[OverBudget(late), LinkDown], Backlog, wait(&[0, 1])),
        ] {
            let candidates: Vec<_> = standings.iter().copied().enumerate().collect();
            assert_eq!(choose(&candidates, share), want, "{case}");
        }
    }
}
