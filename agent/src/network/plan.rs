//! Owns what a metered link may carry in a day and in a month.
//!
//! Pure: time is an argument, counted from the device's own count. A day is 24 hours of it, as for
//! money; a month begins on a day of the calendar.
//!
//! **Invariant:** what is not urgent leaves the reserve to what is, and what is urgent stops at the budget.

use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::Offset;

/// Milliseconds in a day of the device's count.
const DAY_MS: u64 = 86_400_000;

/// What a metered link may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Bytes in a day.
    pub per_day: Option<u64>,
    /// Bytes in a month.
    pub per_month: Option<u64>,
    /// The day of the calendar on which a month begins, 1..=28.
    pub month_begins_on: u8,
    /// The part of each budget that is kept for what is urgent, 0..=100.
    pub reserve_percent: u8,
}

impl Default for Plan {
    fn default() -> Self {
        Self { per_day: None, per_month: None, month_begins_on: 1, reserve_percent: 10 }
    }
}

/// Which day and which month it is, each counted from some first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Today {
    pub(super) day: u64,
    pub(super) month: u64,
}

impl Today {
    /// That of a moment of the device's count.
    pub(super) fn of(now_ms: u64, month_begins_on: u8) -> Self {
        let date = date(now_ms);
        let months = i64::from(date.year()) * 12 + i64::from(date.month()) - 1;
        let is_before = u8::try_from(date.day()).unwrap_or(1) < month_begins_on;
        let month = u64::try_from(months - i64::from(is_before)).unwrap_or(0);
        Self { day: now_ms / DAY_MS, month }
    }
}

impl Plan {
    /// Whether anything is limited.
    pub fn has_budget(&self) -> bool {
        self.per_day.is_some() || self.per_month.is_some()
    }

    /// What all of it is, of the day and of the month.
    pub(super) fn whole(&self) -> (u64, u64) {
        (self.per_day.unwrap_or(0), self.per_month.unwrap_or(0))
    }

    /// The note of what was used runs ahead by so much.
    pub(super) fn ahead(&self) -> u64 {
        let budgets = self.per_day.into_iter().chain(self.per_month);
        let smallest = budgets.min().unwrap_or(64 << 20);
        (smallest / 64).clamp(4 << 10, 1 << 20)
    }

    /// Whether something more may go, so much having gone in this day and in this month.
    ///
    /// # Errors
    /// Until which millisecond of the count it may not.
    pub(super) fn room(
        &self,
        (day, month): (u64, u64),
        is_urgent: bool,
        now_ms: u64,
    ) -> Result<(), u64> {
        let is_over = |used: u64, budget: u64| {
            let kept = if is_urgent { 0 } else { u64::from(self.reserve_percent.min(100)) };
            let reserve = u128::from(budget) * u128::from(kept) / 100;
            u128::from(used) + reserve >= u128::from(budget)
        };
        if self.per_month.is_some_and(|budget| is_over(month, budget)) {
            return Err(next_month_ms(now_ms, self.month_begins_on));
        }
        if self.per_day.is_some_and(|budget| is_over(day, budget)) {
            return Err((now_ms / DAY_MS + 1).saturating_mul(DAY_MS));
        }
        Ok(())
    }
}

/// `2026-11-23T00:00:00Z`.
pub(super) fn date_text(ms: u64) -> String {
    timestamp(ms).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn timestamp(ms: u64) -> Timestamp {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
}

fn date(ms: u64) -> Date {
    Offset::UTC.to_datetime(timestamp(ms)).date()
}

fn next_month_ms(now_ms: u64, begins_on: u8) -> u64 {
    let month = Today::of(now_ms, begins_on).month.saturating_add(1);
    let begins = || {
        let year = i16::try_from(month / 12).ok()?;
        let of_year = i8::try_from(month % 12 + 1).ok()?;
        let date = Date::new(year, of_year, i8::try_from(begins_on).ok()?).ok()?;
        let at = Offset::UTC.to_timestamp(date.to_datetime(Time::midnight())).ok()?;
        u64::try_from(at.as_millisecond()).ok()
    };
    // A count beyond the calendar: a month is 30 days there.
    begins().unwrap_or_else(|| now_ms.saturating_add(30 * DAY_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> u64 {
        u64::try_from(text.parse::<Timestamp>().unwrap().as_millisecond()).unwrap()
    }

    #[test]
    fn days_and_months_are_those_of_the_calendar() {
        let month = |text: &str, begins_on| Today::of(at(text), begins_on).month;
        for (text, begins_on, next) in [
            ("2026-11-22T09:00:00Z", 1, "2026-12-01T00:00:00Z"),
            ("2026-12-31T23:59:59Z", 1, "2027-01-01T00:00:00Z"),
            ("2026-02-28T12:00:00Z", 28, "2026-03-28T00:00:00Z"),
            ("2026-02-27T12:00:00Z", 28, "2026-02-28T00:00:00Z"),
            ("2024-02-29T12:00:00Z", 15, "2024-03-15T00:00:00Z"),
            ("2026-01-05T00:00:00Z", 6, "2026-01-06T00:00:00Z"),
            ("1970-01-01T00:00:00Z", 1, "1970-02-01T00:00:00Z"),
        ] {
            assert_eq!(date_text(next_month_ms(at(text), begins_on)), next, "{text}, {begins_on}");
            let before = at(next) - 1;
            assert_eq!(month(text, begins_on), Today::of(before, begins_on).month, "{text}");
            assert_eq!(month(text, begins_on) + 1, month(next, begins_on), "{text}");
        }
        assert_eq!(Today::of(at("1970-01-03T00:00:00Z"), 1).day, 2);
        assert!(next_month_ms(u64::MAX / 2, 1) > u64::MAX / 2, "no date at all is no end");
    }

    #[test]
    fn the_table_of_budgets() {
        let plan = Plan { per_day: Some(100), per_month: Some(1000), ..Plan::default() };
        let day_only = Plan { per_month: None, ..plan };
        let now = at("2026-11-22T09:00:00Z");
        let (day, month) = (at("2026-11-23T00:00:00Z"), at("2026-12-01T00:00:00Z"));
        for (case, plan, used, is_urgent, want) in [
            ("nothing used", plan, (0, 0), false, Ok(())),
            ("up to the reserve", plan, (89, 89), false, Ok(())),
            ("the reserve is not for all", plan, (90, 90), false, Err(day)),
            ("but for what is urgent", plan, (90, 90), true, Ok(())),
            ("which ends too", plan, (100, 100), true, Err(day)),
            ("the month ends later", plan, (0, 900), false, Err(month)),
            ("and for all", plan, (0, 1000), true, Err(month)),
            ("both are used up", plan, (100, 1000), false, Err(month)),
            ("no month's budget", day_only, (0, 1 << 50), false, Ok(())),
            ("no budget", Plan::default(), (1 << 50, 1 << 50), false, Ok(())),
            ("all is kept", Plan { reserve_percent: 100, ..plan }, (0, 0), false, Err(month)),
        ] {
            assert_eq!(plan.room(used, is_urgent, now), want, "{case}");
        }
    }
}
