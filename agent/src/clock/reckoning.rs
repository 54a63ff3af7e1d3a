//! Owns how the count goes on: pure, the clocks are arguments.
//!
//! | between the note and now | the count gains |
//! |---|---|
//! | the agent was restarted | the time since boot that went by |
//! | the machine was restarted, the date is trusted now and was then | the dates' difference |
//! | the machine was restarted, the date was not or is not trusted | the time since this boot |
//!
//! In the last case the time that the machine was off counts later, if the date becomes trusted while
//! the agent runs; else it does not count at all: a time to live then is one of powered-on time.
//!
//! **Invariant:** the count gains at least what the machine ran, and more only by trusted dates.

use serde::{Deserialize, Serialize};

/// What the machine's clocks say at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reading {
    /// The kernel's id of this boot; empty where there is none, which is no boot twice.
    pub(super) boot: String,
    /// CLOCK_BOOTTIME.
    pub(super) since_boot_ms: u64,
    /// Since 1970.
    pub(super) date_ms: u64,
    /// Whether the date is kept right by somebody.
    pub(super) trusted: bool,
}

/// The count at one moment, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// The count.
    pub(super) count_ms: u64,
    /// The clocks at that moment.
    pub(super) at: Reading,
}

impl Note {
    pub(super) fn parse(text: &str) -> Option<Self> {
        toml::from_str(text).ok()
    }

    pub(super) fn to_text(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }
}

/// The count.
#[derive(Debug)]
pub(super) struct Reckoning {
    /// The count at boot, if it had run then; it can be less than nothing.
    at_boot_ms: i128,
    /// A trusted note from before this boot: the time off may still be made up for.
    before: Option<Note>,
}

impl Reckoning {
    /// Goes on from a note.
    pub(super) fn resume(note: Option<Note>, now: &Reading) -> Self {
        let since_boot = i128::from(now.since_boot_ms);
        let Some(note) = note else {
            return Self { at_boot_ms: i128::from(now.date_ms) - since_boot, before: None };
        };
        if note.at.boot == now.boot && !now.boot.is_empty() {
            let at_boot_ms = i128::from(note.count_ms) - i128::from(note.at.since_boot_ms);
            return Self { at_boot_ms, before: None };
        }
        let at_boot_ms = i128::from(note.count_ms);
        let mut count = Self { at_boot_ms, before: note.at.trusted.then_some(note) };
        count.look(now);
        count
    }

    /// The count at a time since boot.
    pub(super) fn at(&self, since_boot_ms: u64) -> u64 {
        let count = self.at_boot_ms + i128::from(since_boot_ms);
        u64::try_from(count.max(0)).unwrap_or(u64::MAX)
    }

    /// Makes up for the time off, if the dates allow it now; says how much was gained.
    pub(super) fn look(&mut self, now: &Reading) -> u64 {
        let Some(before) = self.before.take_if(|_| now.trusted) else { return 0 };
        let went_by = now.date_ms.saturating_sub(before.at.date_ms);
        let counted = self.at(now.since_boot_ms).saturating_sub(before.count_ms);
        let gained = went_by.saturating_sub(counted);
        self.at_boot_ms += i128::from(gained);
        gained
    }

    /// What to write down.
    pub(super) fn note(&self, now: &Reading) -> Note {
        let count_ms = self.at(now.since_boot_ms);
        let at = match &self.before {
            // As long as the time off can be made up for, the note must not say it was.
            Some(_) => Reading { trusted: false, ..now.clone() },
            None => now.clone(),
        };
        Note { count_ms, at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400_000;
    const YEAR: u64 = 365 * DAY;
    const DATE: u64 = 1_800_000_000_000;

    fn at(boot: &str, since_boot_ms: u64, date_ms: u64, trusted: bool) -> Reading {
        Reading { boot: boot.to_owned(), since_boot_ms, date_ms, trusted }
    }

    #[test]
    fn without_a_note_the_count_begins_at_the_date() {
        for date in [0, 1000, DATE] {
            let now = at("a", 5000, date, false);
            let count = Reckoning::resume(None, &now);
            assert_eq!(count.at(5000), date);
            assert_eq!(count.at(6000), date + 1000);
        }
    }

    #[test]
    fn no_jump_of_the_date_moves_the_count() {
        let start = at("a", 1000, DATE, true);
        let mut count = Reckoning::resume(None, &start);
        for (date, trusted) in
            [(DATE + YEAR, false), (DATE - YEAR, false), (0, true), (u64::MAX, true)]
        {
            let now = at("a", 2000, date, trusted);
            assert_eq!(count.look(&now), 0);
            assert_eq!(count.at(2000), DATE + 1000);
            let note = count.note(&now);
            let again = Reckoning::resume(Some(note), &at("a", 9000, 0, true));
            assert_eq!(again.at(9000), DATE + 8000, "after a restart of the agent");
        }
    }

    #[test]
    fn time_off_counts_by_trusted_dates_alone() {
        let note = Note { count_ms: 7 * DAY, at: at("a", DAY, DATE, true) };
        let resume = |note: &Note, now: &Reading| Reckoning::resume(Some(note.clone()), now);
        let up_ms = 30_000;
        let trusted = at("b", up_ms, DATE + 3 * DAY, true);
        assert_eq!(resume(&note, &trusted).at(up_ms), 10 * DAY);
        let in_1970 = at("b", up_ms, up_ms, false);
        assert_eq!(resume(&note, &in_1970).at(up_ms), 7 * DAY + up_ms);
        let a_year_ahead = at("b", up_ms, DATE + YEAR, false);
        assert_eq!(resume(&note, &a_year_ahead).at(up_ms), 7 * DAY + up_ms);
        let was_wrong = Note { at: Reading { trusted: false, ..note.at.clone() }, ..note.clone() };
        assert_eq!(resume(&was_wrong, &trusted).at(up_ms), 7 * DAY + up_ms);
        let went_back = at("b", up_ms, DATE - YEAR, true);
        assert_eq!(resume(&note, &went_back).at(up_ms), 7 * DAY + up_ms, "never back");
    }

    #[test]
    fn time_off_is_made_up_for_when_the_date_becomes_trusted() {
        let note = Note { count_ms: 7 * DAY, at: at("a", DAY, DATE, true) };
        let mut count = Reckoning::resume(Some(note), &at("b", 1000, 1000, false));
        assert_eq!(count.look(&at("b", 60_000, 60_000, false)), 0);
        let synced = at("b", 61_000, DATE + 3 * DAY, true);
        assert_eq!(count.look(&synced), 3 * DAY - 61_000);
        assert_eq!(count.at(61_000), 10 * DAY);
        assert_eq!(count.look(&at("b", 62_000, DATE + YEAR, true)), 0, "once");
    }

    #[test]
    fn time_off_that_was_not_made_up_for_is_not_counted_twice_later() {
        let note = Note { count_ms: 7 * DAY, at: at("a", DAY, DATE, true) };
        let up = at("b", 1000, 1000, false);
        let count = Reckoning::resume(Some(note), &up);
        let note = count.note(&at("b", 2000, 2000, false));
        assert_eq!((note.count_ms, note.at.trusted), (7 * DAY + 2000, false));
        let now = at("c", 500, DATE + 9 * DAY, true);
        assert_eq!(Reckoning::resume(Some(note), &now).at(500), 7 * DAY + 2500);
    }

    #[test]
    fn a_machine_without_boot_ids_counts_what_it_runs() {
        let note = Note { count_ms: DAY, at: at("", 5000, DATE, false) };
        assert_eq!(Reckoning::resume(Some(note), &at("", 6000, DATE, false)).at(6000), DAY + 6000);
    }

    #[test]
    fn a_note_reads_back_and_garbage_does_not() {
        let note = Note { count_ms: 7 * DAY, at: at("a", DAY, DATE, true) };
        assert_eq!(Note::parse(&note.to_text()), Some(note));
        for garbage in ["", "\0\0\0", "count_ms = -1", "count_ms = 1\n[at]\nboot = 3"] {
            assert_eq!(Note::parse(garbage), None, "{garbage:?}");
        }
    }
}
