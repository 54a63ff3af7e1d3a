//! Owns the count of bytes of a day and of a month.
//!
//! Pure: the day is an argument. So that not every byte writes to the disk, the note runs ahead of
//! what counts against a budget; what it is ahead counts as used after a kill.
//!
//! **Invariant:** no day and no month comes twice, and nothing that was noted is counted less.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::plan::Today;

/// What is counted for people alone is noted when it grew by so much.
const NOTED_BY: u64 = 1 << 20;

/// What bytes were sent or fetched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Requests, to destinations.
    Escalation,
    /// Whether a destination is there.
    Probe,
    /// Results, to webhooks.
    Webhook,
    /// Everything to and from the controller.
    Mqtt,
    /// What the command line fetches.
    Download,
    /// Access tokens for a destination.
    Token,
}

impl Purpose {
    /// Every one, in order.
    pub const ALL: [Self; 6] =
        [Self::Escalation, Self::Probe, Self::Webhook, Self::Mqtt, Self::Download, Self::Token];

    /// The word in metrics and files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Escalation => "escalation",
            Self::Probe => "probe",
            Self::Webhook => "webhook",
            Self::Mqtt => "mqtt",
            Self::Download => "download",
            Self::Token => "token",
        }
    }
}

/// Bytes both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Bytes {
    /// Out of the device.
    pub sent: u64,
    /// Into it.
    pub received: u64,
}

impl Bytes {
    /// Both together.
    pub fn total(self) -> u64 {
        self.sent.saturating_add(self.received)
    }
}

/// A day or a month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Period {
    number: u64,
    metered: u64,
    bytes: [Bytes; Purpose::ALL.len()],
}

/// A day or a month, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Written {
    number: u64,
    metered_bytes: u64,
    #[serde(default)]
    bytes: BTreeMap<String, Bytes>,
}

/// What is written down.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Note {
    day: Written,
    month: Written,
}

/// The count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Ledger {
    day: Period,
    month: Period,
    /// What the note on disk has of the month: of metered bytes, and of all.
    noted: (u64, u64),
    /// The day of the note on disk.
    noted_day: u64,
}

impl Ledger {
    /// Goes on from a note; a day that is later than today (the count was set back by a power cut) is
    /// today's.
    pub(super) fn resume(note: &Note, today: Today) -> Self {
        let (mut day, mut month) = (Period::of(&note.day), Period::of(&note.month));
        // Further ahead than a power cut sets the count back, the note is of another count: nothing would
        // ever renew.
        if day.number > today.day.saturating_add(1) {
            day.number = today.day;
        }
        if month.number > today.month.saturating_add(1) {
            month.number = today.month;
        }
        let noted = (month.metered, month.total());
        let mut ledger = Self { day, month, noted, noted_day: day.number };
        ledger.on(today);
        ledger
    }

    /// One of which nobody knows what was used: so much of it, to be sure.
    pub(super) fn unknown(today: Today, (day_used, month_used): (u64, u64)) -> Self {
        let mut ledger = Self::default();
        ledger.on(today);
        ledger.day.metered = day_used;
        ledger.month.metered = month_used.max(day_used);
        ledger
    }

    /// The same, on its day.
    pub(super) fn on(&mut self, today: Today) -> &mut Self {
        if today.day > self.day.number {
            self.day = Period { number: today.day, ..Period::default() };
        }
        if today.month > self.month.number {
            self.month = Period { number: today.month, ..Period::default() };
            self.noted = (0, 0);
        }
        self
    }

    pub(super) fn add(&mut self, purpose: Purpose, bytes: Bytes, is_metered: bool) {
        for period in [&mut self.day, &mut self.month] {
            period.add(purpose, bytes, is_metered);
        }
    }

    /// Metered bytes of the day and of the month.
    pub(super) fn metered(&self) -> (u64, u64) {
        (self.day.metered, self.month.metered)
    }

    pub(super) fn day(&self) -> BTreeMap<&'static str, Bytes> {
        self.day.by_purpose().collect()
    }

    pub(super) fn month(&self) -> BTreeMap<&'static str, Bytes> {
        self.month.by_purpose().collect()
    }

    /// What has to be on disk soon, metered bytes `ahead` of the count; `None` when what is there will do.
    pub(super) fn due_note(&self, ahead: u64) -> Option<Note> {
        let (metered, total) = self.noted;
        let is_due = self.month.metered > metered
            || self.month.total() >= total.saturating_add(NOTED_BY)
            || (self.day.number != self.noted_day && self.day.total() > 0);
        is_due.then(|| self.note_ahead(if self.month.metered > metered { ahead } else { 0 }))
    }

    /// The count as it stands.
    pub(super) fn note(&self) -> Note {
        self.note_ahead(0)
    }

    /// Takes in that a note is on disk.
    pub(super) fn noted(&mut self, note: &Note) {
        if note.month.number == self.month.number {
            let total = note.month.bytes.values().map(|each| each.total()).sum();
            self.noted = (note.month.metered_bytes, total);
            self.noted_day = note.day.number;
        }
    }

    /// Whether the note on disk is not what is counted.
    pub(super) fn is_changed(&self) -> bool {
        self.noted != (self.month.metered, self.month.total())
    }

    fn note_ahead(&self, ahead: u64) -> Note {
        let (mut day, mut month) = (self.day.written(), self.month.written());
        // Never less than what is there: that may have been ahead already.
        day.metered_bytes = day.metered_bytes.saturating_add(ahead);
        month.metered_bytes = month.metered_bytes.saturating_add(ahead);
        Note { day, month }
    }
}

impl Period {
    fn of(written: &Written) -> Self {
        let mut period =
            Self { number: written.number, metered: written.metered_bytes, ..Self::default() };
        for (slot, purpose) in period.bytes.iter_mut().zip(Purpose::ALL) {
            *slot = written.bytes.get(purpose.as_str()).copied().unwrap_or_default();
        }
        period
    }

    fn written(&self) -> Written {
        let bytes = self.by_purpose().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
        Written { number: self.number, metered_bytes: self.metered, bytes }
    }

    fn add(&mut self, purpose: Purpose, bytes: Bytes, is_metered: bool) {
        for (slot, _) in self.bytes.iter_mut().zip(Purpose::ALL).filter(|(_, of)| *of == purpose) {
            slot.sent = slot.sent.saturating_add(bytes.sent);
            slot.received = slot.received.saturating_add(bytes.received);
        }
        if is_metered {
            self.metered = self.metered.saturating_add(bytes.total());
        }
    }

    fn by_purpose(&self) -> impl Iterator<Item = (&'static str, Bytes)> + '_ {
        let named = Purpose::ALL.into_iter().zip(self.bytes);
        named.filter(|(_, bytes)| bytes.total() > 0).map(|(each, bytes)| (each.as_str(), bytes))
    }

    fn total(&self) -> u64 {
        self.bytes.iter().map(|bytes| bytes.total()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TODAY: Today = Today { day: 700, month: 23 };

    fn bytes(sent: u64, received: u64) -> Bytes {
        Bytes { sent, received }
    }

    #[test]
    fn a_day_and_a_month_begin_anew_and_none_comes_twice() {
        let mut ledger = Ledger::default();
        ledger.on(TODAY).add(Purpose::Mqtt, bytes(5, 7), true);
        ledger.add(Purpose::Probe, bytes(1, 1), false);
        assert_eq!(ledger.metered(), (12, 12));
        assert_eq!(ledger.day()["probe"], bytes(1, 1));
        for (case, today, want) in [
            ("the same day", TODAY, (12, 12)),
            ("a day back", Today { day: 699, month: 23 }, (12, 12)),
            ("the next day", Today { day: 701, month: 23 }, (0, 12)),
            ("the next month", Today { day: 731, month: 24 }, (0, 0)),
            ("a month back", Today { day: 700, month: 23 }, (0, 0)),
        ] {
            assert_eq!(ledger.on(today).metered(), want, "{case}");
        }
    }

    #[test]
    fn a_note_goes_on_where_it_was_and_runs_ahead_of_a_kill() {
        let mut ledger = Ledger::default();
        ledger.on(TODAY).add(Purpose::Escalation, bytes(100, 50), true);
        let note = ledger.due_note(1000).expect("metered bytes are noted");
        ledger.noted(&note);
        assert_eq!(ledger.due_note(1000), None, "what is ahead will do for a while");
        ledger.add(Purpose::Escalation, bytes(900, 0), true);
        assert_eq!(ledger.due_note(1000), None);
        let killed = Ledger::resume(&note, TODAY);
        assert_eq!(killed.metered(), (1150, 1150), "never less than was counted");
        let stopped = Ledger::resume(&ledger.note(), TODAY);
        assert_eq!(stopped.metered(), (1050, 1050), "a good stop notes what is");
        assert_eq!(stopped.day(), ledger.day());
        assert_eq!(stopped.month()["escalation"], bytes(1000, 50));
        let next_day = Ledger::resume(&note, Today { day: 701, month: 23 });
        assert_eq!(next_day.metered(), (0, 1150));
        let set_back = Ledger::resume(&note, Today { day: 690, month: 23 });
        assert_eq!(set_back.metered(), (1150, 1150), "a later day is today's");
        // A count that begins in 1970 again: what was used stays, and renews with its own days.
        let mut long_before = Ledger::resume(&note, Today { day: 0, month: 0 });
        assert_eq!(long_before.metered(), (1150, 1150));
        assert_eq!(long_before.on(Today { day: 1, month: 0 }).metered(), (0, 1150));
        assert_eq!(long_before.on(Today { day: 31, month: 1 }).metered(), (0, 0));
    }

    #[test]
    fn what_nobody_pays_for_is_noted_now_and_then() {
        let mut ledger = Ledger::default();
        ledger.on(TODAY).add(Purpose::Webhook, bytes(NOTED_BY - 1, 0), false);
        let first = ledger.due_note(9).expect("a first note of the day");
        ledger.noted(&first);
        assert_eq!(ledger.due_note(9), None);
        ledger.add(Purpose::Webhook, bytes(1, 0), false);
        assert!(ledger.due_note(9).is_none() && ledger.is_changed());
        ledger.add(Purpose::Webhook, bytes(NOTED_BY, 0), false);
        let note = ledger.due_note(9).unwrap();
        assert_eq!(Ledger::resume(&note, TODAY).metered(), (0, 0), "and nothing is ahead");
    }

    #[test]
    fn a_note_is_text_and_reads_back() {
        let mut ledger = Ledger::default();
        ledger.on(TODAY).add(Purpose::Token, bytes(3, 4), true);
        let text = toml::to_string(&ledger.note()).unwrap();
        assert_eq!(toml::from_str::<Note>(&text).unwrap(), ledger.note(), "{text}");
    }
}
