//! Owns how much a token's holder asks: so often in a minute, and so much at once.
//!
//! A bucket of tokens a minute large, filled evenly (as for the limits of destinations).
//! **Invariant:** a place that is taken is given back when its value is dropped, wherever that is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A minute.
const MINUTE: Duration = Duration::from_secs(60);

/// What one holder has left in this minute.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// Of what a minute has, the part that is used, as time.
    used: Duration,
    seen: Duration,
}

impl Bucket {
    /// Takes one of `per_min`, at this time of a clock that only goes forward.
    ///
    /// # Errors
    /// The time until there is one.
    pub(super) fn take(&mut self, per_min: u32, now: Duration) -> Result<(), Duration> {
        let each = MINUTE / per_min.max(1);
        self.used = self.used.saturating_sub(now.saturating_sub(self.seen));
        self.seen = self.seen.max(now);
        let with = self.used + each;
        if with > MINUTE {
            return Err(with - MINUTE);
        }
        self.used = with;
        Ok(())
    }
}

/// How many requests a holder has under way.
#[derive(Debug, Clone, Default)]
pub(super) struct UnderWay(Arc<AtomicU32>);

/// One of them.
#[derive(Debug)]
pub struct Place(UnderWay);

impl UnderWay {
    /// A place, if fewer than `most` are taken.
    pub(super) fn take(&self, most: u32) -> Option<Place> {
        let more = |taken: u32| (taken < most).then_some(taken + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Place(self.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_has_so_many_and_no_more() {
        let mut bucket = Bucket::default();
        let at = Duration::from_secs;
        for _ in 0..3 {
            assert_eq!(bucket.take(3, at(100)), Ok(()));
        }
        assert_eq!(bucket.take(3, at(100)), Err(at(20)));
        assert_eq!(bucket.take(3, at(110)), Err(at(10)));
        assert_eq!(bucket.take(3, at(120)), Ok(()));
        assert_eq!(bucket.take(3, at(120)), Err(at(20)));
        assert_eq!((0..10).filter(|_| bucket.take(3, at(1000)).is_ok()).count(), 3);
    }

    #[test]
    fn a_place_comes_back() {
        let under_way = UnderWay::default();
        let one = under_way.take(2).unwrap();
        let _other = under_way.take(2).unwrap();
        assert!(under_way.take(2).is_none());
        drop(one);
        assert!(under_way.take(2).is_some());
    }
}
