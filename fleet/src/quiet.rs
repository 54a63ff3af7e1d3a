//! Keeps a log readable when somebody sends rubbish all day.
//!
//! **Invariant:** of one reason, at most one line in [`Quiet::EVERY`]; what was left out is counted in the next.

use std::collections::HashMap;
use std::hash::Hash;

use holdfast_wire::unit::Millis;

/// Says, by reason, whether the next line may be written.
#[derive(Debug)]
pub(crate) struct Quiet<R> {
    last: HashMap<R, (Millis, u64)>,
}

impl<R: Eq + Hash> Quiet<R> {
    pub(crate) const EVERY: Millis = Millis::secs(10);

    pub(crate) fn new() -> Self {
        Self { last: HashMap::new() }
    }

    /// `Some(left_out)` if a line may be written now, with the number of lines that were not since the last.
    pub(crate) fn may_log(&mut self, reason: R, now: Millis) -> Option<u64> {
        match self.last.get_mut(&reason) {
            Some((at, left_out)) if now.since(*at) < Self::EVERY => {
                *left_out = left_out.saturating_add(1);
                None
            }
            Some((at, left_out)) => {
                *at = now;
                Some(std::mem::take(left_out))
            }
            None => {
                self.last.insert(reason, (now, 0));
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_in_ten_seconds() {
        let mut quiet = Quiet::new();
        assert_eq!(quiet.may_log("a", Millis(5)), Some(0));
        assert_eq!(quiet.may_log("b", Millis(6)), Some(0));
        for n in 0..1000 {
            assert_eq!(quiet.may_log("a", Millis(7 + n)), None);
        }
        assert_eq!(quiet.may_log("a", Millis(10_005)), Some(1000));
        assert_eq!(quiet.may_log("a", Millis(20_005)), Some(0));
    }
}
