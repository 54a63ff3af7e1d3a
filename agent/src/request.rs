//! Owns what a request is: the task, the input, and the terms under which it was asked.
//!
//! **Invariant:** a [`Request`] that exists is bounded and labelled; an input without a data
//! class never becomes one.

use std::fmt;
use std::str::FromStr;

use holdfast_models::Media;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::queue::RequestId;

/// How sensitive the input of a request is, from least to most.
///
/// The order matters: a class is cleared for every zone that a more sensitive class is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataClass {
    /// May be sent to anybody.
    Public,
    /// May be sent to services under contract.
    Internal,
    /// May not leave the site.
    Confidential,
    /// May not leave the device.
    Restricted,
}

impl DataClass {
    /// Every class, least sensitive first.
    pub const ALL: [Self; 4] = [Self::Public, Self::Internal, Self::Confidential, Self::Restricted];

    /// The word used in configuration, headers and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Internal => "internal",
            Self::Confidential => "confidential",
            Self::Restricted => "restricted",
        }
    }
}

impl fmt::Display for DataClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for DataClass {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|class| class.as_str() == text).ok_or(())
    }
}

/// Urgency of a request, 0 (can wait) to 9 (now); 4 unless the caller says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Priority(u8);

impl Priority {
    /// The priority in `0..=9`, or `None` outside of it.
    pub fn new(value: u8) -> Option<Self> {
        (value <= 9).then_some(Self(value))
    }

    /// The number, in `0..=9`.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(4)
    }
}

/// The name of a task, as in `POST /v1/tasks/{task}`: 1 to 64 of `a-z`, `0-9`, `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct TaskName(String);

impl TaskName {
    /// The only way in; `None` when the text is not a task name.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        fits.then(|| Self(text.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl<'de> Deserialize<'de> for TaskName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a task name"))
    }
}

/// What the caller wants of a bigger model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Escalate {
    /// When the local answer is not sure enough.
    #[default]
    Auto,
    /// In any case; a local answer is only provisional.
    Always,
    /// Not at all; the local answer is final, however unsure.
    Never,
}

impl Escalate {
    /// Every choice, in the order that the documentation lists them.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Always, Self::Never];

    /// The word used in headers and queries.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "never",
        }
    }
}

impl FromStr for Escalate {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|choice| choice.as_str() == text).ok_or(())
    }
}

/// A caller's own name for a request: 1 to 200 visible ASCII characters, and whose name it is where callers
/// are told apart.
///
/// The same key with the same request returns the same answer; with another request it is refused. The same
/// key of another owner is another key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The only way in; `None` when the text is not a key.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=200).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        fits.then(|| Self(text.to_owned()))
    }

    /// The key as one of this owner.
    pub fn owned_by(self, owner: Owner) -> Self {
        Self(format!("{} {}", self.shown(), hex::encode(owner.0)))
    }

    /// Reads [`IdempotencyKey::as_str`] back; `None` when the text is no key.
    pub fn stored(text: &str) -> Option<Self> {
        let (key, owner) = text.split_once(OWNED).unzip();
        let key = Self::parse(key.unwrap_or(text))?;
        owner.is_none_or(is_owner).then(|| owner.map_or(key, |_| Self(text.to_owned())))
    }

    /// The key with its owner, as it is kept and compared.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key as its caller wrote it.
    pub fn shown(&self) -> &str {
        shown(&self.0)
    }

    /// The key as destinations are told it, which know nothing of the owner: 1 to 200 visible ASCII
    /// characters, others for each owner.
    pub fn told(&self) -> String {
        let told = match self.0.split_once(OWNED) {
            Some((key, owner)) => Some(format!("{key}.{owner}")),
            // One that looks as if it had an owner.
            None if self.0.rsplit_once('.').is_some_and(|(_, owner)| is_owner(owner)) => None,
            None => Some(self.0.clone()),
        };
        let told = told.filter(|told| Self::parse(told).is_some());
        told.unwrap_or_else(|| hex::encode(Sha256::digest(self.0.as_bytes())))
    }
}

fn is_owner(text: &str) -> bool {
    text.len() == 2 * OWNER_BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A kept key without its owner.
pub fn shown(key: &str) -> &str {
    key.split_once(OWNED).map_or(key, |(key, _)| key)
}

/// Whose keys are told from everybody else's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner([u8; OWNER_BYTES]);

impl Owner {
    /// The owner who is called so, and nobody else.
    pub fn called(identity: &str) -> Self {
        let digest = Sha256::digest(identity.as_bytes());
        let mut owner = [0; OWNER_BYTES];
        owner.iter_mut().zip(digest).for_each(|(to, byte)| *to = byte);
        Self(owner)
    }
}

/// Between a key, which has none, and its owner.
const OWNED: char = ' ';
const OWNER_BYTES: usize = 8;

/// One thing asked.
#[derive(Debug, Clone)]
pub struct Request {
    /// Unique, and the idempotency key of every send upward.
    pub id: RequestId,
    /// What is asked.
    pub task: TaskName,
    /// The input: one recording or picture, as it came.
    pub media: Media,
    /// How sensitive the input is.
    pub class: DataClass,
    /// Urgency.
    pub priority: Priority,
    /// What the caller wants of a bigger model.
    pub escalate: Escalate,
    /// Milliseconds that the caller waits for an answer in the same call.
    pub deadline_ms: u64,
    /// Milliseconds after which nobody wants the answer any more.
    pub ttl_ms: u64,
    /// Milliseconds before which it is not to be sent up; 0: at once. Less than `ttl_ms`.
    pub not_before_ms: u64,
    /// The caller's own name for the request.
    pub key: Option<IdempotencyKey>,
    /// How many Holdfast agents it came through; bounds loops of escalation.
    pub hops: u8,
}

/// Anything that carries a data class.
pub trait Labelled {
    /// How sensitive it is.
    fn class(&self) -> DataClass;
}

impl Labelled for Request {
    fn class(&self) -> DataClass {
        self.class
    }
}

/// A request that went through this many agents is not sent further.
pub const MAX_HOPS: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_parse_back() {
        for class in DataClass::ALL {
            assert_eq!(class.as_str().parse(), Ok(class));
        }
        for choice in Escalate::ALL {
            assert_eq!(choice.as_str().parse(), Ok(choice));
        }
        assert_eq!(
            "Restricted".parse::<DataClass>(),
            Err(()),
            "case matters: what is unknown is refused"
        );
    }

    #[test]
    fn names_and_keys_are_bounded() {
        for (text, fits) in [
            ("voice-commands", true),
            ("", false),
            ("Voice", false),
            ("../etc", false),
            (&"a".repeat(64), true),
            (&"a".repeat(65), false),
        ] {
            assert_eq!(TaskName::parse(text).is_some(), fits, "{text}");
        }
        for (text, fits) in [
            ("a", true),
            ("", false),
            ("has space", false),
            (&"k".repeat(201), false),
            ("é", false),
        ] {
            assert_eq!(IdempotencyKey::parse(text).is_some(), fits, "{text}");
        }
        let key = |text: &str| IdempotencyKey::parse(text).unwrap();
        let (mine, yours) = (Owner::called("token:1"), Owner::called("token:2"));
        let long = "k".repeat(200);
        for text in ["k", &*long] {
            let (own, other) = (key(text).owned_by(mine), key(text).owned_by(yours));
            assert!(own != other && own != key(text) && own == key(text).owned_by(mine));
            assert_eq!((own.shown(), key(text).shown()), (text, text));
            for key in [own, other, key(text)] {
                assert_eq!(IdempotencyKey::stored(key.as_str()), Some(key.clone()));
                assert!(IdempotencyKey::parse(&key.told()).is_some(), "{}", key.told());
            }
        }
        assert_eq!(key("k").told(), "k");
        let own = key("k").owned_by(mine);
        assert_ne!(key(&own.told()).told(), own.told(), "nobody writes another's key");
        assert_ne!(key(&long).owned_by(mine).told(), key(&long).owned_by(yours).told());
        for text in ["", " ", "k ", "k 12", "k 0123456789abcdeg", " 0123456789abcdef", "k  "] {
            assert_eq!(IdempotencyKey::stored(text), None, "{text:?}");
        }
        assert_eq!(Priority::new(10), None);
    }
}
