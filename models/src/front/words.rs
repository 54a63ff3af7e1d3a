//! A text as a hashed bag of words.
//!
//! **Invariant:** pure; the numbers are finite, and those of a text without words are all 0.

use crate::bundle::TextFront;

/// FNV-1a of 32 bits: where it begins, and what it is multiplied by at each byte.
const FNV_OFFSET: u32 = 0x811C_9DC5;
const FNV_PRIME: u32 = 0x0100_0193;

/// Counts the words, and the runs of neighbouring words joined by `_`, in as many buckets as there is
/// room for. In lower case; what is neither letter nor digit stands between words.
pub(super) fn hash(text: &str, front: TextFront, buckets: &mut [f32]) {
    buckets.fill(0.0);
    let text = text.to_lowercase();
    let words: Vec<&str> =
        text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    for length in 1..=front.ngrams {
        for run in words.windows(length) {
            let mut hash = FNV_OFFSET;
            let mut take = |byte: u8| hash = (hash ^ u32::from(byte)).wrapping_mul(FNV_PRIME);
            for (at, word) in run.iter().enumerate() {
                if at > 0 {
                    take(b'_');
                }
                word.bytes().for_each(&mut take);
            }
            let at = hash as usize % buckets.len().max(1);
            if let Some(bucket) = buckets.get_mut(at) {
                *bucket += 1.0;
            }
        }
    }
    if front.normalise {
        let norm = buckets.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
        if norm > 0.0 {
            for bucket in buckets {
                #[allow(clippy::cast_possible_truncation, reason = "at most 1")]
                let share = (f64::from(*bucket) / norm) as f32;
                *bucket = share;
            }
        }
    }
}
