//! Where nothing is, as far as looks have shown.
//!
//! Whoever takes what is first in a range, removes it and looks for the next, would step over all that
//! was removed again and again, until it is written out.
//!
//! **Invariant:** no key that is in the index lies in a gap; gaps do not overlap, and are few.

use std::collections::BTreeMap;

use super::Key;

/// Gaps kept at most.
const MOST: usize = 64;

/// Gaps: the first key that is in none, by the first that is in the gap.
#[derive(Debug, Default)]
pub(super) struct Gaps(BTreeMap<Key, Key>);

impl Gaps {
    /// The first key at or after `key` that is in no gap.
    pub(super) fn end_of(&self, key: &[u8]) -> Key {
        let key = Key::from(key);
        let end = self.around(&key).map(|(_, end)| end.clone());
        end.unwrap_or(key)
    }

    /// Takes note that nothing is from `from` up to `end`.
    pub(super) fn add(&mut self, from: &[u8], end: &[u8]) {
        let (mut from, mut end) = (Key::from(from), Key::from(end));
        if from >= end || self.around(&from).is_some_and(|(_, known)| end <= *known) {
            return;
        }
        if self.0.len() >= MOST {
            self.0.clear();
        }
        while let Some((before, until)) = self.before(&end).filter(|(_, until)| **until >= from) {
            let (before, until) = (before.clone(), until.clone());
            self.0.remove(&before);
            (from, end) = (from.min(before), end.max(until));
        }
        self.0.insert(from, end);
    }

    /// Takes note that there is something at `key`.
    pub(super) fn fill(&mut self, key: &Key) {
        let Some(from) = self.around(key).map(|(from, _)| from.clone()) else { return };
        if from == *key {
            self.0.remove(&from);
        } else {
            self.0.insert(from, key.clone());
        }
    }

    /// The gap that `key` is in.
    fn around(&self, key: &Key) -> Option<(&Key, &Key)> {
        self.before(key).filter(|(_, end)| key < *end)
    }

    /// The last gap that begins at or before `key`.
    fn before(&self, key: &Key) -> Option<(&Key, &Key)> {
        self.0.range::<Key, _>(..=key).next_back()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_gap_has_a_key_in_it(
            steps in proptest::collection::vec((any::<bool>(), 0..40_u8, 1..10_u8), 1..60),
        ) {
            let (mut gaps, mut keys) = (Gaps::default(), BTreeSet::new());
            for (is_key, at, len) in steps {
                if is_key {
                    keys.insert(at);
                    gaps.fill(&Key::from(&[at][..]));
                } else if !(at..at + len).any(|key| keys.contains(&key)) {
                    gaps.add(&[at], &[at + len]);
                    prop_assert!(*gaps.end_of(&[at]) >= *[at + len].as_slice());
                }
                for key in &keys {
                    prop_assert_eq!(&*gaps.end_of(&[*key]), &[*key][..]);
                }
                let ends: Vec<_> = gaps.0.iter().collect();
                prop_assert!(ends.windows(2).all(|two| two[0].1 < two[1].0), "{ends:?}");
            }
        }
    }
}
