//! Owns the age of what was put on disk and may not outlive its time.
//!
//! **Invariant:** an age is never less than the time that the machine ran since; where nobody can tell,
//! there is none.

use uuid::Uuid;

use super::reckoning::Reading;

/// A moment, as it can be put on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The kernel's id of that boot; zero where there is none.
    boot: [u8; 16],
    /// CLOCK_BOOTTIME.
    since_boot_ms: u64,
    /// Since 1970; 0 where nobody kept the date right.
    date_ms: u64,
}

impl Stamp {
    /// How many bytes it has on disk.
    pub(crate) const BYTES: usize = 32;

    pub(super) fn of(reading: &Reading) -> Self {
        let boot = Uuid::parse_str(&reading.boot).map(Uuid::into_bytes).unwrap_or_default();
        let date_ms = if reading.trusted { reading.date_ms } else { 0 };
        Self { boot, since_boot_ms: reading.since_boot_ms, date_ms }
    }

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let whole = u128::from(self.since_boot_ms) << 64 | u128::from(self.date_ms);
        let mut bytes = [0; Self::BYTES];
        let (boot, times) = bytes.split_at_mut(16);
        boot.copy_from_slice(&self.boot);
        times.copy_from_slice(&whole.to_le_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let (mut boot, mut times) = ([0; 16], [0; 16]);
        let (first, second) = bytes.split_at(16);
        boot.copy_from_slice(first);
        times.copy_from_slice(second);
        let whole = u128::from_le_bytes(times);
        let half = |value: u128| u64::try_from(value & u128::from(u64::MAX)).unwrap_or(u64::MAX);
        Self { boot, since_boot_ms: half(whole >> 64), date_ms: half(whole) }
    }

    /// Milliseconds from this moment to `now`. Within one boot its clock says it, from one boot to another
    /// the dates, if somebody kept them right at both; else nobody does.
    pub(crate) fn age_ms(&self, now: &Self) -> Option<u64> {
        if self.boot == now.boot && self.boot != [0; 16] {
            return now.since_boot_ms.checked_sub(self.since_boot_ms);
        }
        if self.date_ms == 0 || now.date_ms == 0 {
            return None;
        }
        now.date_ms.checked_sub(self.date_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "8ad8d1f1-4ff5-4a1c-8d49-0f6a0e1b7a01";
    const B: &str = "8ad8d1f1-4ff5-4a1c-8d49-0f6a0e1b7a02";

    fn at(boot: &str, since_boot_ms: u64, date_ms: u64, trusted: bool) -> Stamp {
        Stamp::of(&Reading { boot: boot.to_owned(), since_boot_ms, date_ms, trusted })
    }

    #[test]
    fn an_age_is_told_by_who_can_know_it() {
        let then = at(A, 1000, 50_000, true);
        for (case, then, now, want) in [
            ("one boot", then, at(A, 4000, 0, false), Some(3000)),
            ("one boot, a date that jumped", then, at(A, 4000, 1, true), Some(3000)),
            ("one boot, and its clock went back", then, at(A, 900, 60_000, true), None),
            ("another boot, trusted dates", then, at(B, 10, 57_000, true), Some(7000)),
            ("another boot, a date from before", then, at(B, 10, 49_999, true), None),
            ("another boot, no date now", then, at(B, 4000, 57_000, false), None),
            ("another boot, no date then", at(A, 1, 5, false), at(B, 4000, 57_000, true), None),
            ("nobody knows the boot", at("", 1, 5, false), at("", 2, 6, false), None),
        ] {
            assert_eq!(then.age_ms(&now), want, "{case}");
        }
    }

    #[test]
    fn a_moment_reads_back() {
        let stamp = at(A, u64::MAX, 7, true);
        assert_eq!(Stamp::from_bytes(&stamp.to_bytes()), stamp);
    }
}
