//! Owns how a kept answer is written to disk.
//!
//! ```text
//! "HFC1" | class | time to live | moment | body
//! body:  of public answers    the answer, HMAC-SHA256 of all
//!        of all others        sealed, about the rest and the inquiry's digest
//! ```
//!
//! **Invariant:** what is read is what was kept of this inquiry under this key, or nothing; what lies on
//! disk of an answer above `public` is sealed. What is released stays as it is: another form has another
//! beginning.

use holdfast_chat::{Answer, Usage, Vectors};
use serde::{Deserialize, Serialize};

use super::digest::Digest;
use crate::clock::Stamp;
use crate::request::DataClass;
use crate::seal::Seal;
use crate::store_key::{StoreKey, mac};

/// What every file begins with.
const MARK: &[u8; 4] = b"HFC1";
/// Bytes of everything before the body.
pub(super) const HEAD: usize = 4 + 1 + 8 + Stamp::BYTES;
/// Bytes of a tag over a public answer.
const TAG: usize = 32;

/// An answer that is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// The destination that gave it.
    pub(crate) place: String,
    /// How that answered then.
    pub(crate) way: [u8; 32],
    /// The answer.
    pub(crate) what: What,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum What {
    /// To a conversation.
    Message(Answer),
    /// Of texts.
    Vectors {
        /// The model, as the provider calls it.
        model: String,
        /// One for each text.
        vectors: Vec<Vec<f32>>,
        /// What was counted.
        usage: Option<Usage>,
    },
    /// Of a recording.
    Text(String),
}

impl From<Vectors> for What {
    fn from(Vectors { model, vectors, usage }: Vectors) -> Self {
        Self::Vectors { model, vectors, usage }
    }
}

/// What is said of an answer before its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) class: DataClass,
    pub(super) ttl_ms: u64,
    pub(super) kept: Stamp,
}

impl Head {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = MARK.to_vec();
        bytes.push(number(self.class));
        bytes.extend(self.ttl_ms.to_le_bytes());
        bytes.extend(self.kept.to_bytes());
        bytes
    }

    /// What the first bytes of a file say; `None` where they are no answer's.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (mark, rest) = bytes.split_first_chunk::<4>()?;
        let (class, rest) = rest.split_first()?;
        let (ttl, rest) = rest.split_first_chunk::<8>()?;
        let (kept, _) = rest.split_first_chunk::<{ Stamp::BYTES }>()?;
        let class = DataClass::ALL.into_iter().find(|each| number(*each) == *class)?;
        (mark == MARK).then_some(())?;
        let (ttl_ms, kept) = (u64::from_le_bytes(*ttl), Stamp::from_bytes(kept));
        Some(Self { class, ttl_ms, kept })
    }

    /// How old it is, in milliseconds; `None` where it is over, or nobody can tell.
    pub(super) fn age_ms(&self, now: &Stamp) -> Option<u64> {
        self.kept.age_ms(now).filter(|age| *age < self.ttl_ms)
    }
}

/// A class on disk.
fn number(class: DataClass) -> u8 {
    match class {
        DataClass::Public => 0,
        DataClass::Internal => 1,
        DataClass::Confidential => 2,
        DataClass::Restricted => 3,
    }
}

/// Writes answers and reads them, under one key.
#[derive(Debug, Clone)]
pub(super) struct Press {
    seal: Seal,
    tags: [u8; 32],
    names: [u8; 32],
}

impl Press {
    pub(super) fn new(key: &StoreKey) -> Self {
        let seal = Seal::new(key.of("cache, sealed"));
        Self { seal, tags: key.of("cache, public"), names: key.of("cache, names") }
    }

    /// What the file of an inquiry is called; without the key nobody can tell what was asked from it.
    pub(super) fn name(&self, digest: &Digest) -> String {
        let mut name = hex::encode(mac(&self.names, &[&digest.0]));
        name.truncate(NAME);
        name
    }

    /// The bytes of a file; `None` where nothing can be sealed.
    pub(super) fn write(&self, head: Head, digest: &Digest, kept: &Kept) -> Option<Vec<u8>> {
        let payload = postcard::to_allocvec(kept).ok()?;
        let mut bytes = head.to_bytes();
        let body = match head.class {
            DataClass::Public => {
                let tag = mac(&self.tags, &[&bytes, &digest.0, &payload]);
                [payload, tag.to_vec()].concat()
            }
            _ => self.seal.seal(&[bytes.as_slice(), &digest.0].concat(), payload)?,
        };
        bytes.extend(body);
        Some(bytes)
    }

    /// The answer in a file's bytes; `None` where it is none to this inquiry.
    pub(super) fn read(&self, bytes: &[u8], digest: &Digest) -> Option<(Head, Kept)> {
        let (first, body) = bytes.split_at_checked(HEAD)?;
        let head = Head::parse(first)?;
        let kept = match head.class {
            DataClass::Public => {
                let (payload, tag) = body.split_at_checked(body.len().checked_sub(TAG)?)?;
                let own = mac(&self.tags, &[first, &digest.0, payload]);
                // Who can write here at will needs no tag to compare with.
                (own == tag).then(|| postcard::from_bytes(payload).ok())?
            }
            _ => {
                let payload = self.seal.open(&[first, &digest.0].concat(), body)?;
                postcard::from_bytes(&payload).ok()
            }
        };
        Some((head, kept?))
    }
}

/// Letters of a file's name.
pub(super) const NAME: usize = 32;

#[cfg(test)]
mod tests {
    use holdfast_chat::{Said, Stop};

    use super::*;
    use crate::clock;

    async fn press() -> Press {
        let dir = tempfile::tempdir().unwrap();
        Press::new(&StoreKey::read(None, dir.path()).await.unwrap())
    }

    fn kept() -> Kept {
        let said = vec![Said::Text("the press leaks".to_owned())];
        let usage = Some(Usage { input: 1, ..Usage::default() });
        let answer = Answer { model: "m".to_owned(), said, stop: Stop::End, usage };
        Kept { place: "near".to_owned(), way: [7; 32], what: What::Message(answer) }
    }

    fn head(class: DataClass) -> Head {
        Head { class, ttl_ms: 5000, kept: clock::stamp() }
    }

    #[tokio::test]
    async fn what_is_kept_reads_back_and_is_sealed_above_public() {
        let (press, digest) = (press().await, Digest([1; 32]));
        for class in [DataClass::Public, DataClass::Internal, DataClass::Confidential] {
            let bytes = press.write(head(class), &digest, &kept()).unwrap();
            let is_plain = bytes.windows(15).any(|part| part == b"the press leaks");
            assert_eq!(is_plain, class == DataClass::Public, "{class}");
            let (read, back) = press.read(&bytes, &digest).unwrap();
            assert_eq!((read.class, read.ttl_ms, back), (class, 5000, kept()));
            assert_eq!(Head::parse(&bytes), Some(read));
        }
    }

    #[tokio::test]
    async fn what_was_changed_anywhere_is_nothing() {
        let (own, other, digest) = (press().await, press().await, Digest([1; 32]));
        for class in [DataClass::Public, DataClass::Internal] {
            let bytes = own.write(head(class), &digest, &kept()).unwrap();
            for at in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1;
                assert!(own.read(&damaged, &digest).is_none(), "{class}: byte {at}");
                assert!(own.read(&bytes[..at], &digest).is_none(), "{class}: cut at {at}");
            }
            assert!(own.read(&bytes, &Digest([2; 32])).is_none(), "{class}: another inquiry");
            assert!(other.read(&bytes, &digest).is_none(), "{class}: another key");
        }
        assert_ne!(own.name(&digest), other.name(&digest));
        assert_ne!(own.name(&digest), own.name(&Digest([2; 32])));
        assert_eq!(own.name(&digest).len(), NAME);
    }
}
