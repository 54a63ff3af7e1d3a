//! Owns the form of requests outside of a queue: JSON Lines that another agent can take in.
//!
//! The first line names the version, then comes a line for each request, and the last line says how
//! many there were, so that half a file is no export. Times are spans, since no two devices count
//! alike: what passes between export and import is not counted.
//!
//! **Invariant:** a line that is taken in is, byte for byte, what was held; its data class is in the
//! envelope, under the checksum, and nowhere else.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::envelope::{Envelope, EnvelopeError};
use crate::queue::{MAX_BODY_BYTES, MAX_ENVELOPE_BYTES, NewEntry, RequestId, Summary};
use crate::service::idempotency;

/// The version that is written and read.
pub const VERSION: u32 = 1;
/// No line is longer.
pub const MAX_LINE_BYTES: usize = (MAX_BODY_BYTES + MAX_ENVELOPE_BYTES) / 3 * 4 + 4096;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The version of the lines that follow.
    pub holdfast_export: u32,
}

/// The last line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tail {
    /// How many requests came before it.
    pub requests: u64,
}

/// One request that has no end yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Its id, which it keeps.
    pub id: RequestId,
    /// 0..=9, 9 is the most urgent.
    pub priority: u8,
    /// Milliseconds since it was accepted.
    pub age_ms: u64,
    /// Milliseconds until it expires; null: it does not.
    pub left_ms: Option<u64>,
    /// The envelope, in base64.
    pub envelope: String,
    /// The body, in base64.
    pub body: String,
    /// SHA-256 of envelope and body, in hexadecimal digits.
    pub sha256: String,
}

/// Why a line is not taken in.
#[derive(Debug, Error)]
pub enum ExportError {
    /// A version of another agent.
    #[error(
        "this is an export of version {0}, this agent reads {VERSION}: use the agent that wrote it"
    )]
    Version(u32),
    /// No base64, or none that is so long.
    #[error("its {0} is no base64")]
    NotBase64(&'static str),
    /// It was changed, or cut.
    #[error("its bytes do not match its sha256")]
    Altered,
    /// The envelope, or what it says of the body.
    #[error("its envelope cannot be used")]
    Envelope(#[from] EnvelopeError),
}

impl Head {
    /// Of this version.
    pub fn new() -> Self {
        Self { holdfast_export: VERSION }
    }

    /// Whether the lines that follow can be read.
    ///
    /// # Errors
    /// When they are of another version.
    pub fn check(&self) -> Result<(), ExportError> {
        match self.holdfast_export {
            VERSION => Ok(()),
            other => Err(ExportError::Version(other)),
        }
    }
}

impl Default for Head {
    fn default() -> Self {
        Self::new()
    }
}

impl Line {
    /// The line of a request, at a moment of its queue's clock.
    pub fn of(summary: &Summary, envelope: &[u8], body: &[u8], now_ms: u64) -> Self {
        Self {
            id: summary.id,
            priority: summary.priority,
            age_ms: now_ms.saturating_sub(summary.accepted_at_ms),
            left_ms: summary.expires_at_ms.map(|at| at.saturating_sub(now_ms)),
            envelope: STANDARD.encode(envelope),
            body: STANDARD.encode(body),
            sha256: digest(envelope, body),
        }
    }

    /// The request, to be put into a queue at a moment of that queue's clock.
    ///
    /// # Errors
    /// When anything of it does not read.
    pub fn entry(&self, now_ms: u64) -> Result<NewEntry, ExportError> {
        let decode = |what, text: &str| {
            STANDARD.decode(text).map(Bytes::from).map_err(|_| ExportError::NotBase64(what))
        };
        let envelope = decode("envelope", &self.envelope)?;
        let body = decode("body", &self.body)?;
        if digest(&envelope, &body) != self.sha256 {
            return Err(ExportError::Altered);
        }
        let request = Envelope::from_bytes(&envelope)?.request(self.id, body.clone())?;
        Ok(NewEntry {
            id: self.id,
            idempotency: idempotency(&request),
            priority: self.priority,
            accepted_at_ms: now_ms.saturating_sub(self.age_ms),
            not_before_ms: 0,
            expires_at_ms: self.left_ms.map(|left| now_ms.saturating_add(left)),
            envelope,
            body,
        })
    }
}

fn digest(envelope: &[u8], body: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(envelope);
    hash.update(body);
    hex::encode(hash.finalize())
}
