//! The waiting line in front of a model.
//!
//! Who is more urgent goes first; waiting for [`AGEING`] counts as one priority more, so that nobody
//! waits for ever. Among equals the first to come goes first.
//!
//! **Invariant:** at most as many wait as the line is long. In a full line the one that would go last
//! makes room for one that goes before it; else the newcomer is turned away. Pure: time is an argument.

use std::time::Duration;

use tokio::time::Instant;

use crate::request::Priority;

/// Waiting so long counts as one priority more.
pub(super) const AGEING: Duration = Duration::from_millis(200);
/// The highest priority.
const HIGHEST: u8 = 9;

/// Those who wait, with what each wants.
#[derive(Debug)]
pub(super) struct Line<J> {
    /// Whoever goes first stands last.
    waiting: Vec<Waiting<J>>,
    length: usize,
    number: u64,
}

#[derive(Debug)]
struct Waiting<J> {
    place: Place,
    came: Instant,
    give_up_at: Instant,
    job: J,
}

/// A place in the line; the smaller one goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    turn: Instant,
    number: u64,
}

/// What came of a newcomer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entered<J> {
    /// It waits.
    Waits,
    /// It waits, and this one had to go.
    Instead(J),
    /// It was turned away.
    Full(J),
}

impl<J> Line<J> {
    /// A line of this length.
    pub(super) fn new(length: usize) -> Self {
        Self { waiting: Vec::with_capacity(length.min(64)), length, number: 0 }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The place of one who comes now.
    pub(super) fn place(&mut self, priority: Priority, now: Instant) -> Place {
        self.number += 1;
        let later = u32::from(HIGHEST.saturating_sub(priority.get()));
        Place { turn: now + AGEING * later, number: self.number }
    }

    /// How many go before a place.
    pub(super) fn ahead(&self, place: Place) -> usize {
        self.waiting.len() - self.waiting.partition_point(|other| other.place >= place)
    }

    /// Takes a place.
    pub(super) fn enter(
        &mut self,
        (place, now): (Place, Instant),
        give_up_at: Instant,
        job: J,
    ) -> Entered<J> {
        let entered = if self.waiting.len() < self.length {
            Entered::Waits
        } else if self.waiting.first().is_some_and(|last| place < last.place) {
            Entered::Instead(self.waiting.remove(0).job)
        } else {
            return Entered::Full(job);
        };
        let at = self.waiting.partition_point(|other| other.place > place);
        self.waiting.insert(at, Waiting { place, came: now, give_up_at, job });
        entered
    }

    /// Gives up a place; nothing where it was their turn already.
    pub(super) fn leave(&mut self, place: Place) -> Option<J> {
        let at = self.waiting.partition_point(|other| other.place > place);
        let is_there = self.waiting.get(at).is_some_and(|there| there.place == place);
        is_there.then(|| self.waiting.remove(at).job)
    }

    /// Lets the first go; those whose time is over are dropped.
    pub(super) fn next(&mut self, now: Instant) -> Option<J> {
        loop {
            let first = self.waiting.pop()?;
            if now < first.give_up_at {
                return Some(first.job);
            }
        }
    }

    /// Lets further ones go with one who went, in their order, as long as `fits` takes them.
    pub(super) fn next_with(
        &mut self,
        now: Instant,
        mut fits: impl FnMut(&J) -> bool,
    ) -> Option<J> {
        self.waiting.retain(|waiting| now < waiting.give_up_at);
        let at = self.waiting.iter().rposition(|waiting| fits(&waiting.job))?;
        Some(self.waiting.remove(at).job)
    }

    /// Since when the one waits who came first.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.waiting.iter().map(|waiting| waiting.came).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn priority(value: u8) -> Priority {
        Priority::new(value).unwrap()
    }

    fn enter(line: &mut Line<&'static str>, name: &'static str, p: u8, now: Instant) -> Place {
        let place = line.place(priority(p), now);
        let entered = line.enter((place, now), now + Duration::from_secs(60), name);
        assert_eq!(entered, Entered::Waits, "{name}");
        place
    }

    fn all(line: &mut Line<&'static str>, now: Instant) -> Vec<&'static str> {
        std::iter::from_fn(|| line.next(now)).collect()
    }

    #[test]
    fn the_urgent_go_first_and_equals_in_the_order_they_came() {
        let (mut line, now) = (Line::new(8), Instant::now());
        for (name, p) in [("usual", 4), ("idle", 0), ("urgent", 9), ("usual too", 4)] {
            enter(&mut line, name, p, now);
        }
        assert_eq!(all(&mut line, now), ["urgent", "usual", "usual too", "idle"]);
    }

    #[test]
    fn waiting_makes_urgent() {
        let (mut line, now) = (Line::new(64), Instant::now());
        enter(&mut line, "patient", 0, now);
        // Somebody more urgent comes every 50 ms, and one goes every 50 ms.
        let mut went = Vec::new();
        for step in 1..60 {
            let now = now + Duration::from_millis(50) * step;
            enter(&mut line, "pushy", 5, now);
            went.extend(line.next(now));
        }
        let at = went.iter().position(|name| *name == "patient").expect("its turn came");
        assert!((18..=21).contains(&at), "after 5 times the ageing of 200 ms: {at}");
    }

    #[test]
    fn a_full_line_gives_a_place_to_the_more_urgent_only() {
        let (mut line, now) = (Line::new(2), Instant::now());
        enter(&mut line, "usual", 4, now);
        enter(&mut line, "idle", 0, now);
        let give_up_at = now + Duration::from_secs(1);
        let mut come = |name, p| {
            let place = line.place(priority(p), now);
            line.enter((place, now), give_up_at, name)
        };
        assert_eq!(come("as idle", 0), Entered::Full("as idle"));
        assert_eq!(come("urgent", 9), Entered::Instead("idle"));
        assert_eq!(come("usual too", 4), Entered::Full("usual too"));
        assert_eq!(all(&mut line, now), ["urgent", "usual"]);
    }

    #[test]
    fn who_leaves_or_is_late_does_not_go() {
        let (mut line, now) = (Line::new(8), Instant::now());
        let first = enter(&mut line, "first", 4, now);
        let second = enter(&mut line, "second", 4, now);
        let place = line.place(priority(4), now);
        let soon = now + Duration::from_millis(10);
        line.enter((place, now), soon, "short of time");
        let third = enter(&mut line, "third", 4, now);
        assert_eq!((line.ahead(second), line.ahead(third), line.len()), (1, 3, 4));
        assert_eq!(line.leave(first), Some("first"));
        assert_eq!(line.leave(first), None, "it is gone");
        assert_eq!(line.next(now), Some("second"));
        assert_eq!(line.leave(second), None, "it was its turn");
        assert_eq!(all(&mut line, soon), ["third"]);
    }

    #[test]
    fn others_of_a_kind_go_along_in_their_order() {
        let (mut line, now) = (Line::new(8), Instant::now());
        for name in ["a1", "b1", "a2", "a3"] {
            enter(&mut line, name, 4, now);
        }
        assert_eq!(line.next(now), Some("a1"));
        let is_a = |job: &&str| job.starts_with('a');
        assert_eq!(line.next_with(now, is_a), Some("a2"));
        assert_eq!(line.next_with(now, is_a), Some("a3"));
        assert_eq!(line.next_with(now, is_a), None);
        assert_eq!(all(&mut line, now), ["b1"]);
        assert_eq!(line.oldest(), None);
    }
}
