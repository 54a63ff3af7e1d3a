//! Signatures around messages, and the rules against messages that come again.
//!
//! An envelope is
//!
//! ```text
//! version: u8 = 1 | public key: 32 | sequence: u64, little endian | payload | ed25519 signature: 64
//! ```
//!
//! and the signature covers `"holdfast/1 envelope" | 0 | length of the topic: u16, little endian | topic |` and then
//! everything in front of the signature, so that nothing can be moved to another topic, device or protocol.
//!
//! Every sender numbers what it sends with a sequence that grows for the life of its key, across restarts. A
//! receiver takes a message only if its sequence is above every one before ([`LastSequence`]). The last will is the
//! one exception, because it is signed before the messages that it follows; a hello names its sequence instead.
//!
//! **Invariant:** a [`Verified`] exists only for an envelope whose signature is right for that topic.

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

use crate::message::MAX_MESSAGE;
use crate::topic::Topic;

/// The version of the envelope.
pub const VERSION: u8 = 1;
/// Bytes that an envelope adds to its payload.
pub const OVERHEAD: usize = HEAD + SIGNATURE;
/// Largest envelope, in bytes.
pub const MAX_ENVELOPE: usize = MAX_MESSAGE + OVERHEAD;
const HEAD: usize = 1 + KEY + 8;
const KEY: usize = 32;
const SIGNATURE: usize = 64;
const CONTEXT: &[u8] = b"holdfast/1 envelope\0";

/// Who signed: an ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; KEY]);

impl PublicKey {
    /// From its bytes; whether it is a key at all shows when a signature is verified.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; KEY]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; KEY] {
        &self.0
    }
}

impl std::fmt::Display for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// Signs what one side sends.
#[derive(Clone)]
pub struct Signer(SigningKey);

impl Signer {
    /// From the secret key.
    #[must_use]
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(secret))
    }

    /// The key that others verify with.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Puts a payload into a signed envelope for one topic.
    #[must_use]
    pub fn seal(&self, topic: &Topic, sequence: u64, payload: &[u8]) -> Vec<u8> {
        let mut envelope = Vec::with_capacity(OVERHEAD + payload.len());
        envelope.push(VERSION);
        envelope.extend_from_slice(&self.0.verifying_key().to_bytes());
        envelope.extend_from_slice(&sequence.to_le_bytes());
        envelope.extend_from_slice(payload);
        let signature = self.0.sign(&signed_bytes(topic, &envelope));
        envelope.extend_from_slice(&signature.to_bytes());
        envelope
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({})", self.public_key())
    }
}

/// An envelope whose signature is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified<'a> {
    /// Who signed it.
    pub key: PublicKey,
    /// Its number among all that this key signed.
    pub sequence: u64,
    /// What is in it.
    pub payload: &'a [u8],
}

/// Why an envelope is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Too short or too long to be one.
    #[error("an envelope of {0} bytes: it has {OVERHEAD} to {MAX_ENVELOPE}")]
    Size(usize),
    /// A version that this code does not know.
    #[error("envelope version {0} is unknown: update this side")]
    Version(u8),
    /// Not signed by that key for that topic.
    #[error("the signature does not fit the key, the topic or the content")]
    Signature,
}

/// Opens an envelope that arrived on a topic.
///
/// # Errors
/// [`EnvelopeError`] if it is not whole or not rightly signed.
pub fn open<'a>(topic: &Topic, envelope: &'a [u8]) -> Result<Verified<'a>, EnvelopeError> {
    let size = EnvelopeError::Size(envelope.len());
    if envelope.len() > MAX_ENVELOPE {
        return Err(size);
    }
    let (signed, signature) = envelope.split_last_chunk::<SIGNATURE>().ok_or(size)?;
    let (version, rest) = signed.split_first().ok_or(size)?;
    let (key, rest) = rest.split_first_chunk::<KEY>().ok_or(size)?;
    let (sequence, payload) = rest.split_first_chunk::<8>().ok_or(size)?;
    if *version != VERSION {
        return Err(EnvelopeError::Version(*version));
    }
    VerifyingKey::from_bytes(key)
        .and_then(|key| {
            key.verify_strict(&signed_bytes(topic, signed), &Signature::from_bytes(signature))
        })
        .map_err(|_| EnvelopeError::Signature)?;
    Ok(Verified { key: PublicKey(*key), sequence: u64::from_le_bytes(*sequence), payload })
}

fn signed_bytes(topic: &Topic, head_and_payload: &[u8]) -> Vec<u8> {
    let topic = topic.to_string();
    let length = u16::try_from(topic.len()).unwrap_or(u16::MAX);
    [CONTEXT, &length.to_le_bytes(), topic.as_bytes(), head_and_payload].concat()
}

/// The rule against replay for one sender: only what is newer than everything before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastSequence(u64);

/// A message came again, or later than one sent after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sequence {got} is not above {last}")]
pub struct Stale {
    /// The sequence that came.
    pub got: u64,
    /// The highest sequence before.
    pub last: u64,
}

impl LastSequence {
    /// After everything up to this sequence.
    #[must_use]
    pub const fn new(last: u64) -> Self {
        Self(last)
    }

    /// The highest sequence that was taken.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Takes the next sequence.
    ///
    /// # Errors
    /// [`Stale`] if it is not above the last; then nothing changes.
    pub fn accept(self, sequence: u64) -> Result<Self, Stale> {
        if sequence > self.0 {
            Ok(Self(sequence))
        } else {
            Err(Stale { got: sequence, last: self.0 })
        }
    }
}
