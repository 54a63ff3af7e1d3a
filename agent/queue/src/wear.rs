//! How long the writer may wait for more to come, so that one sync serves more records and the flash
//! lasts longer.
//!
//! **Invariant:** nobody waits longer than the configured delay or, over the budget, a second; an urgent
//! record does not wait.

use std::time::Duration;

/// From this priority on a request is urgent: its record does not wait for others to share a sync.
pub const URGENT: u8 = 7;
/// Over the budget, syncs are at least this far apart.
const SLOWED: Duration = Duration::from_millis(1000);
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Of a day's budget, this part can be written at once.
const BURST: f64 = 1.0 / 24.0;

/// How long a commit without anything urgent waits for more, when so many bytes were written since
/// the day began, `open` ago.
#[must_use]
pub(super) fn delay(
    configured: Duration,
    budget_per_day: Option<u64>,
    written: u64,
    open: Duration,
) -> Duration {
    let Some(budget) = budget_per_day else { return configured };
    #[expect(clippy::cast_precision_loss, reason = "a share of a day's bytes")]
    let (budget, written) = (budget as f64, written as f64);
    let allowed = budget * (open.as_secs_f64() / DAY.as_secs_f64() + BURST);
    if written > allowed { configured.max(SLOWED) } else { configured }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_spent_budget_slows_commits() {
        const MIB: u64 = 1 << 20;
        let hour = Duration::from_secs(3600);
        for (budget, written, open, want) in [
            (None, u64::MAX, Duration::ZERO, 5),
            (Some(2400 * MIB), 99 * MIB, Duration::ZERO, 5),
            (Some(2400 * MIB), 101 * MIB, Duration::ZERO, 1000),
            (Some(2400 * MIB), 199 * MIB, hour, 5),
            (Some(2400 * MIB), 201 * MIB, hour, 1000),
        ] {
            let got = delay(Duration::from_millis(5), budget, written, open);
            assert_eq!(got, Duration::from_millis(want), "{budget:?} {written} {open:?}");
        }
    }
}
