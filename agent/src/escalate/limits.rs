//! Owns how fast requests and bytes may go to one destination: token buckets.
//!
//! Pure: time is an argument. A bucket fills at the configured rate and holds two seconds' worth, at
//! least two requests. What is held leaves a quarter of it, at least one request, to what is new or
//! urgent. A body larger than the bucket goes when there is anything in it and is owed afterwards.
//!
//! **Invariant:** in any time `t`, no more goes than the bucket holds and the rate lets in during `t`,
//! plus one body.

use std::time::{Duration, Instant};

use crate::destination;

/// On whose behalf something is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Share {
    /// Somebody waits, or it is urgent.
    First,
    /// It was held, and leaves some room to those.
    Backlog,
}

/// The limits of one destination, with what they have left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    requests: Option<Bucket>,
    bytes: Option<Bucket>,
}

impl Limits {
    pub(super) fn new(limits: &destination::Limits, now: Instant) -> Self {
        let requests = limits.requests_per_min.map(|rate| Bucket::new(rate, 1, now));
        let bytes = limits.bytes_per_s.map(|rate| Bucket::new(rate.saturating_mul(60), 1024, now));
        Self { requests, bytes }
    }

    /// How long it is until a request may go; zero when one may now.
    pub(super) fn wait(&self, share: Share, now: Instant) -> Duration {
        let wait = |bucket: &Option<Bucket>| bucket.map(|bucket| bucket.wait(share, now));
        wait(&self.requests).max(wait(&self.bytes)).unwrap_or_default()
    }

    /// The limits after a request with a body of `bytes` went.
    #[must_use]
    pub(super) fn taken(self, bytes: u64, now: Instant) -> Self {
        let requests = self.requests.map(|bucket| bucket.taken(1, now));
        let bytes = self.bytes.map(|bucket| bucket.taken(bytes, now));
        Self { requests, bytes }
    }
}

/// Something that fills steadily. Levels are in parts of a unit, so that no time is lost to rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bucket {
    /// Units in a minute, which is parts in a nanosecond.
    rate: u64,
    /// Parts.
    capacity: i128,
    /// Parts that the backlog leaves.
    kept: i128,
    /// Parts; less than nothing when something is owed.
    level: i128,
    at: Instant,
}

/// Parts of a unit: nanoseconds in a minute.
const PARTS: i128 = 60_000_000_000;

impl Bucket {
    /// A bucket that holds no more than what it keeps for the urgent, so that a device that starts
    /// again and again does not send more by it.
    fn new(rate: u64, least: u64, now: Instant) -> Self {
        let capacity = (rate / 30).max(2 * least);
        let kept = i128::from((capacity / 4).max(least)) * PARTS;
        Self { rate, capacity: i128::from(capacity) * PARTS, kept, level: kept, at: now }
    }

    fn level(&self, now: Instant) -> i128 {
        let nanos = now.saturating_duration_since(self.at).as_nanos();
        let gained = i128::try_from(nanos).unwrap_or(i128::MAX).saturating_mul(self.rate.into());
        self.level.saturating_add(gained).min(self.capacity)
    }

    fn wait(&self, share: Share, now: Instant) -> Duration {
        let kept = match share {
            Share::First => 0,
            Share::Backlog => self.kept,
        };
        let missing = (kept + PARTS - self.level(now)).max(0);
        let nanos = missing.div_euclid(self.rate.into())
            + i128::from(missing.rem_euclid(self.rate.into()) > 0);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn taken(self, units: u64, now: Instant) -> Self {
        let level = self.level(now) - i128::from(units) * PARTS;
        Self { level, at: self.at.max(now), ..self }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits(requests_per_min: Option<u64>, bytes_per_s: Option<u64>) -> destination::Limits {
        destination::Limits { requests_per_min, bytes_per_s, ..destination::Limits::default() }
    }

    fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    #[test]
    fn without_limits_nothing_waits() {
        let limits = Limits::new(&limits(None, None), now());
        assert_eq!(limits.taken(1 << 40, now()).wait(Share::Backlog, now()), Duration::ZERO);
    }

    #[test]
    fn the_backlog_leaves_room_to_what_is_urgent() {
        let start = now();
        // One in 5 s; it holds two, of which one is kept.
        let full = Limits::new(&limits(Some(12), None), start);
        let at = start + Duration::from_secs(60);
        let one = full.taken(0, at);
        for (case, limits, share, want) in [
            ("at the start", full.wait(Share::First, start), Share::First, 0),
            ("at the start", full.wait(Share::Backlog, start), Share::Backlog, 5),
            ("full", full.wait(Share::Backlog, at), Share::Backlog, 0),
            ("one left", one.wait(Share::Backlog, at), Share::Backlog, 5),
            ("one left", one.wait(Share::First, at), Share::First, 0),
            ("none left", one.taken(0, at).wait(Share::First, at), Share::First, 5),
            ("none left", one.taken(0, at).wait(Share::Backlog, at), Share::Backlog, 10),
        ]
        .map(|(case, wait, share, want)| (case, wait, share, Duration::from_secs(want)))
        {
            assert_eq!(limits, want, "{case}, {share:?}");
        }
    }

    #[test]
    fn a_large_body_goes_and_is_owed() {
        let start = now();
        let limits = Limits::new(&limits(None, Some(1024)), start);
        let after = limits.taken(1024 * 101, start);
        let wait = after.wait(Share::First, start);
        assert!((99..=101).contains(&wait.as_secs()), "{wait:?}");
        assert_eq!(after.wait(Share::First, start + wait), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn no_stretch_of_time_sees_more_than_bucket_and_rate(
            rate in 1_u64..100_000,
            steps in proptest::collection::vec((0_u64..20_000, any::<bool>()), 1..200),
        ) {
            let start = now();
            let (mut limits, mut at) = (Limits::new(&limits(Some(rate), None), start), start);
            let mut sent: Vec<Instant> = Vec::new();
            for (wait_ms, is_first) in steps {
                at += Duration::from_millis(wait_ms);
                let share = if is_first { Share::First } else { Share::Backlog };
                let wait = limits.wait(share, at);
                prop_assert!(limits.wait(share, at + wait).is_zero(), "it said {wait:?}");
                if wait.is_zero() {
                    limits = limits.taken(1, at);
                    sent.push(at);
                }
            }
            let holds = (rate / 30).max(2);
            for (index, first) in sent.iter().enumerate() {
                for (more, last) in sent[index..].iter().enumerate() {
                    let seconds = last.duration_since(*first).as_secs_f64();
                    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
                    let most = holds as f64 + rate as f64 * seconds / 60.0 + 1e-6;
                    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
                    let went = (more + 1) as f64;
                    prop_assert!(went <= most, "{went} in {seconds} s, {most} may");
                }
            }
        }
    }
}
