//! Owns what may be spent at one destination in a day.
//!
//! Pure: the day is an argument, counted from the device's own count of time. A send reserves its
//! price before, and settles it after. So that not every send writes to the disk, the note of what was
//! spent runs ahead by a part of the budget; what it is ahead counts as spent after a restart.
//!
//! **Invariant:** spent and reserved together are never more than the budget, and never more than what
//! was noted when something is sent, as long as nothing costs more than what was set apart for it.

use serde::{Deserialize, Serialize};

/// The note runs ahead of what is spent by this part of the budget: it is written so often in a day.
const NOTES_PER_DAY: u64 = 64;

/// What is written down for one destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// Days of the device's count.
    pub(super) day: u64,
    /// Spent at most on that day, in millionths.
    pub(super) spent_micros: u64,
}

/// The spending at one destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spending {
    price: u64,
    budget: u64,
    day: u64,
    spent: u64,
    reserved: u64,
    /// What the note on disk allows for today.
    noted: u64,
}

impl Spending {
    /// Goes on from a note; one of a later day (the count was set back by a power cut) is today's.
    pub(super) fn resume(price: u64, budget: u64, note: Option<Note>, today: u64) -> Self {
        let fresh = Self { price, budget, day: today, spent: 0, reserved: 0, noted: 0 };
        match note {
            Some(note) if note.day >= today => {
                let spent = note.spent_micros.min(budget);
                Self { day: note.day, spent, noted: spent, ..fresh }
            }
            _ => fresh,
        }
    }

    /// The same, on its day: a new day begins with nothing spent.
    #[must_use]
    pub(super) fn on(self, today: u64) -> Self {
        if today > self.day { Self { day: today, spent: 0, noted: 0, ..self } } else { self }
    }

    /// Whether one request of the usual price more may be paid for.
    pub(super) fn has_room(&self) -> bool {
        self.committed().saturating_add(self.price) <= self.budget
    }

    /// What is set apart for a request of which nothing is known yet.
    pub(super) fn price(&self) -> u64 {
        self.price
    }

    /// Sets so much apart for a request; `None` when it would be too much.
    #[must_use]
    pub(super) fn reserved(self, amount: u64) -> Option<Self> {
        let reserved = self.reserved.saturating_add(amount);
        (self.spent.saturating_add(reserved) <= self.budget).then_some(Self { reserved, ..self })
    }

    /// Gives back what was set apart, unspent.
    #[must_use]
    pub(super) fn released(self, amount: u64) -> Self {
        Self { reserved: self.reserved.saturating_sub(amount), ..self }
    }

    /// Ends a reservation of `amount`: the request cost so much.
    #[must_use]
    pub(super) fn settled(self, amount: u64, cost: u64) -> Self {
        let spent = self.spent.saturating_add(cost);
        Self { spent, ..self.released(amount) }
    }

    /// What has to be on disk before what is reserved may be sent; `None` when it is.
    pub(super) fn due_note(&self) -> Option<Note> {
        // What went beyond the budget is no more than all of it.
        (self.committed().min(self.budget) > self.noted).then(|| {
            let ahead = self.committed().saturating_add(self.budget / NOTES_PER_DAY);
            Note { day: self.day, spent_micros: ahead.min(self.budget) }
        })
    }

    /// What is on disk, as it stands.
    pub(super) fn note(&self) -> Note {
        Note { day: self.day, spent_micros: self.noted }
    }

    /// Takes in that a note is on disk.
    #[must_use]
    pub(super) fn noted(self, note: Note) -> Self {
        let is_today = note.day == self.day;
        Self {
            noted: if is_today { self.noted.max(note.spent_micros) } else { self.noted },
            ..self
        }
    }

    /// What is left for today, in millionths.
    pub(super) fn left(&self) -> u64 {
        self.budget.saturating_sub(self.committed())
    }

    fn committed(&self) -> u64 {
        self.spent.saturating_add(self.reserved)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_day_has_its_budget_and_the_next_one_has_it_anew() {
        let mut spending = Spending::resume(3, 10, None, 7);
        for _ in 0..3 {
            spending = spending.reserved(3).unwrap().settled(3, 3);
        }
        assert_eq!((spending.left(), spending.reserved(3)), (1, None));
        assert!(spending.reserved(1).is_some(), "a smaller one fits");
        assert_eq!(spending.on(6).left(), 1, "no day comes twice");
        assert_eq!(spending.on(8).left(), 10);
    }

    #[test]
    fn what_cost_nothing_is_given_back_and_what_is_under_way_counts() {
        let spending = Spending::resume(5, 10, None, 7);
        let spending = spending.reserved(5).unwrap().reserved(5).unwrap();
        assert!(spending.reserved(1).is_none());
        assert_eq!(spending.settled(5, 0).left(), 5);
        assert_eq!(spending.settled(5, 2).left(), 3, "it cost less than was set apart");
        assert_eq!(spending.settled(5, 7).left(), 0, "it cost more");
        assert_eq!(spending.settled(5, 5).on(8).left(), 5, "one is under way into the new day");
        assert!(spending.released(5).reserved(6).is_none(), "and it grows no further than that");
    }

    #[test]
    fn a_note_counts_on_its_day_and_on_earlier_ones() {
        for (day, spent_micros, left) in [(6, 9, 10), (7, 9, 1), (8, 9, 1), (7, 99, 0)] {
            let note = Some(Note { day, spent_micros });
            assert_eq!(Spending::resume(1, 10, note, 7).left(), left, "{note:?}");
        }
    }

    proptest! {
        /// Reserve, settle (in full or for less), let a day pass, or be killed and go on from the note.
        #[test]
        fn no_day_is_overspent_whatever_happens(
            price in 1_u64..50,
            budget in 50_u64..5000,
            steps in proptest::collection::vec(0_u8..=20, 1..400),
        ) {
            let (mut today, mut on_disk) = (7, None);
            let mut spending = Spending::resume(price, budget, on_disk, today);
            let mut sent_today = 0_u64;
            let mut under_way: Vec<u64> = Vec::new();
            for step in steps {
                match step {
                    0..=11 => if let Some(next) = spending.on(today).reserved(price) {
                        spending = next;
                        if let Some(note) = spending.due_note() {
                            on_disk = Some(note);
                            spending = spending.noted(note);
                        }
                        prop_assert!(spending.due_note().is_none());
                        sent_today += price;
                        under_way.push(today);
                    },
                    12..=18 => if let Some(day) = under_way.pop() {
                        let cost = if step < 17 { price } else { price / 3 };
                        spending = spending.on(today).settled(price, cost);
                        sent_today -= if day < today { 0 } else { price - cost };
                    },
                    19 => (today, sent_today) = (today + 1, 0),
                    _ => {
                        spending = Spending::resume(price, budget, on_disk, today);
                        under_way.clear();
                    }
                }
                prop_assert!(sent_today <= budget, "{sent_today} of {budget}");
            }
        }
    }
}
