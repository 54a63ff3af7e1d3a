//! Keys in memory: short ones lie where they are compared.
//!
//! A look into a map of some ten thousand changes compares a key with a dozen others; each that lies
//! elsewhere is a miss of the processor's cache, and an allocation before and after.
//!
//! **Invariant:** keys are the same, and sort, as their bytes do.

use std::{borrow::Borrow, cmp::Ordering, ops::Deref};

/// Bytes that a short key may have: all keys but those of long idempotency keys do.
const SHORT: usize = 30;
/// Where its length stands, behind its bytes and the zeros that fill them up: so two short keys sort as
/// their bytes with the length do.
const LEN: usize = SHORT;

/// A key.
#[derive(Debug, Clone)]
pub(crate) struct Key(Form);

#[derive(Debug, Clone)]
enum Form {
    Short([u8; LEN + 1]),
    Long(Box<[u8]>),
}

impl Key {
    /// The key of these bytes, one part after the other.
    pub(crate) fn of(parts: &[&[u8]]) -> Self {
        let all: usize = parts.iter().map(|part| part.len()).sum();
        let Some(len) = u8::try_from(all).ok().filter(|_| all <= SHORT) else {
            return Key(Form::Long(parts.concat().into()));
        };
        let mut bytes = [0; LEN + 1];
        let mut rest: &mut [u8] = &mut bytes;
        for part in parts {
            let Some((to, behind)) = rest.split_at_mut_checked(part.len()) else { break };
            to.copy_from_slice(part);
            rest = behind;
        }
        if let Some(last) = bytes.last_mut() {
            *last = len;
        }
        Key(Form::Short(bytes))
    }

    /// The first key behind this one.
    pub(crate) fn behind(key: &[u8]) -> Self {
        Key::of(&[key, &[0]])
    }
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Form::Short(bytes) => {
                let len = bytes.last().copied().unwrap_or_default();
                bytes.get(..usize::from(len)).unwrap_or_default()
            }
            Form::Long(bytes) => bytes,
        }
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            (Form::Short(one), Form::Short(other)) => words(one).cmp(&words(other)),
            (Form::Short(_) | Form::Long(_), _) => (**self).cmp(&**other),
        }
    }
}

/// Numbers that sort as the bytes do; the last two have a byte in common.
#[inline]
fn words(bytes: &[u8; LEN + 1]) -> [u64; 4] {
    let word = |at: usize| {
        let word = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
        word.map_or(0, |word| u64::from_be_bytes(*word))
    };
    [word(0), word(8), word(16), word(LEN - 7)]
}

impl From<&[u8]> for Key {
    fn from(bytes: &[u8]) -> Self {
        Key::of(&[bytes])
    }
}

impl From<Vec<u8>> for Key {
    fn from(bytes: Vec<u8>) -> Self {
        match bytes.len() <= SHORT {
            true => Key::of(&[&bytes]),
            false => Key(Form::Long(bytes.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_are_as_their_bytes(
            one in proptest::collection::vec(0..3_u8, 0..2 * SHORT),
            other in proptest::collection::vec(0..3_u8, 0..2 * SHORT),
            at in 0..2 * SHORT,
        ) {
            let (head, tail) = one.split_at(at.min(one.len()));
            let key = Key::of(&[head, tail]);
            prop_assert_eq!(&*key, &*one);
            prop_assert_eq!(&key, &Key::from(one.clone()));
            prop_assert_eq!(key.cmp(&Key::from(&*other)), one.cmp(&other));
            let behind = Key::behind(&one);
            prop_assert!(key < behind && (other <= one || *behind <= *other));
        }
    }
}
