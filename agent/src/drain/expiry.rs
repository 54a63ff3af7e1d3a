//! Owns when requests past their time are looked for.
//!
//! Pure. **Invariant:** at most once a second, and not at all while nothing changed and none is due.

use std::time::Duration;

use tokio::time::Instant;

const EVERY: Duration = Duration::from_secs(1);

/// What is known of the next request whose time ends.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Expiry {
    next_ms: Option<u64>,
    looked_at: Option<Instant>,
    is_stale: bool,
}

impl Expiry {
    /// Something in the queue changed.
    pub(super) fn changed(&mut self) {
        self.is_stale = true;
    }

    /// It was looked, and the next time to live ends then.
    pub(super) fn looked(&mut self, next_ms: Option<u64>, now: Instant) {
        *self = Self { next_ms, looked_at: Some(now), is_stale: false };
    }

    /// How long it is until somebody should look; zero: now.
    pub(super) fn wait(&self, now_ms: u64, now: Instant) -> Duration {
        let Some(looked_at) = self.looked_at else { return Duration::ZERO };
        let rest = (looked_at + EVERY).saturating_duration_since(now);
        let due = self.next_ms.map(|next| Duration::from_millis(next.saturating_sub(now_ms)));
        match due {
            _ if self.is_stale => rest,
            Some(due) => due.max(rest),
            None => Duration::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_waits() {
        let now = Instant::now();
        let seconds = Duration::from_secs;
        for (case, next_ms, is_stale, after, want) in [
            ("none has a time", None, false, 5, Duration::MAX),
            ("due in the future", Some(60_000), false, 5, seconds(60)),
            ("due", Some(0), false, 5, Duration::ZERO),
            ("due, but one is in work", Some(0), false, 0, seconds(1)),
            ("something is new", Some(60_000), true, 5, Duration::ZERO),
            ("something is new, just looked", None, true, 0, seconds(1)),
        ] {
            let mut expiry = Expiry::default();
            assert_eq!(expiry.wait(0, now), Duration::ZERO, "never looked");
            expiry.looked(next_ms, now);
            if is_stale {
                expiry.changed();
            }
            assert_eq!(expiry.wait(0, now + seconds(after)), want, "{case}");
        }
    }
}
