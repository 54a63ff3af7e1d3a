//! Owns what is known of the requests that stand in line on disk, behind the many of their kind that are
//! kept in memory.
//!
//! The line is walked along only while a destination that somebody in it waits for takes something, and
//! from where the walk came to before. What is met and cannot go is passed without a write.
//!
//! **Invariant:** a walk that meets nobody who can go is not begun again before a destination opens, or
//! an hour later, when all of it is looked at.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::parked::Waiting;
use super::plan::{Wait, share};
use crate::escalate::Share;
use crate::queue::{Lease, URGENT, Walk};
use crate::subject::Subject;

/// All of the line is looked at so often, whatever is known of it.
const LOOK_AT_ALL_EVERY: Duration = Duration::from_secs(3600);
/// Destinations, with what they would be asked, that are remembered; who waits for others is found when
/// all is looked at.
const MOST_REMEMBERED: usize = 256;

/// A destination by its place among all, what it would be asked, and in which share.
pub(super) type WaitedFor = (usize, Subject, Share);

/// The line, as far as it is known.
#[derive(Debug)]
pub(super) struct Line {
    walk: Walk,
    waited_for: BTreeSet<WaitedFor>,
    /// Of these, whom somebody was met who waits for, in this walk.
    met: BTreeSet<WaitedFor>,
    /// When all of it is looked at.
    look_at_all_at: Instant,
}

impl Line {
    /// A line of which nothing is known.
    pub(super) fn new() -> Self {
        let (waited_for, met) = (BTreeSet::new(), BTreeSet::new());
        Self { walk: Walk::default(), waited_for, met, look_at_all_at: Instant::now() }
    }

    /// How far it was walked along.
    pub(super) fn walk(&self) -> &Walk {
        &self.walk
    }

    /// Whether somebody in it, of at least this priority, may be able to go.
    pub(super) fn is_worth_a_look(
        &self,
        least_priority: u8,
        is_open: impl Fn(&WaitedFor) -> bool,
    ) -> bool {
        let is_all = least_priority == 0 && Instant::now() >= self.look_at_all_at;
        is_all || self.waited_for.iter().any(|each| is_of(least_priority, each) && is_open(each))
    }

    /// Takes note of whom a request waits for that is in line, or is put there.
    pub(super) fn note(&mut self, priority: u8, asked: &Subject, wait: &Wait) {
        for index in wait.indexes() {
            let waited_for = (index, asked.clone(), share(priority));
            for set in [&mut self.waited_for, &mut self.met] {
                if set.len() < MOST_REMEMBERED {
                    set.insert(waited_for.clone());
                }
            }
        }
    }

    /// Leaves a request behind that cannot go now.
    pub(super) fn pass(&mut self, lease: &Lease) {
        self.walk.pass(lease);
    }

    /// A request goes back to the queue: if it stands in line, it is met again.
    pub(super) fn back_to(&mut self, waiting: &Waiting) {
        if waiting.lease.is_in_line() {
            self.walk.back_to(&waiting.lease);
            self.note(waiting.lease.priority(), &waiting.asked, &waiting.wait);
        }
    }

    /// Nobody is left to meet, of all or of the urgent ones. `is_open` as above.
    pub(super) fn ended(&mut self, least_priority: u8, is_open: impl Fn(&WaitedFor) -> bool) {
        self.walk.begin_again(least_priority);
        let Self { met, waited_for, .. } = self;
        let is_of_it = |each: &WaitedFor| is_of(least_priority, each);
        waited_for.retain(|each| !is_of_it(each) || met.contains(each) || !is_open(each));
        met.retain(|each| !is_of_it(each));
        if least_priority == 0 {
            self.look_at_all_at = Instant::now() + LOOK_AT_ALL_EVERY;
        }
    }

    /// Whom somebody in it waits for.
    pub(super) fn waits(&self) -> impl Iterator<Item = (usize, &Subject)> {
        self.waited_for.iter().map(|(index, asked, _)| (*index, asked))
    }
}

/// Whether it is of requests of at least this priority that somebody waits.
fn is_of(least_priority: u8, (_, _, share): &WaitedFor) -> bool {
    least_priority < URGENT || *share == Share::First
}
