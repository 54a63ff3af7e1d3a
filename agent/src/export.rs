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
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::envelope::{Envelope, EnvelopeError, Unpacked};
use crate::gateway::held;
use crate::idempotency;
use crate::queue::{MAX_BODY_BYTES, MAX_ENVELOPE_BYTES, NewEntry, RequestId, State, Summary};

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
    /// Milliseconds until it may be sent; left out: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_in_ms: Option<u64>,
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
    /// Fields are missing, unknown or there twice, or this is no line at all.
    #[error("{0}")]
    NoLine(String),
    /// A field has a value that cannot be.
    #[error("its {field} is {got}, must be {want}")]
    Field {
        /// Which.
        field: &'static str,
        /// Its value.
        got: String,
        /// What it must be.
        want: String,
    },
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

/// The longest span that a line may state: a century.
const MOST_MS: u64 = 36_525 * 86_400_000;
/// The highest priority.
const MOST_PRIORITY: u64 = 9;

impl Line {
    /// Reads a line. What its values mean is checked by [`Line::entry`].
    ///
    /// # Errors
    /// When it is none, or a field of it has a value of another kind.
    pub fn parse(text: &[u8]) -> Result<Self, ExportError> {
        serde_json::from_slice(text).map_err(|error| {
            // A reader of JSON knows the line in what it was given, and not the line in the file.
            let said = error.to_string();
            let said = said.split(" at line ").next().unwrap_or_default();
            wrong_field(text).unwrap_or_else(|| ExportError::NoLine(said.to_owned()))
        })
    }

    /// Whether its numbers can be those of a request.
    fn check(&self) -> Result<(), ExportError> {
        let most = [
            ("priority", Some(self.priority.into()), MOST_PRIORITY),
            ("age_ms", Some(self.age_ms), MOST_MS),
            ("left_ms", self.left_ms, MOST_MS),
            ("due_in_ms", self.due_in_ms, MOST_MS),
        ];
        for (field, value, most) in most {
            if let Some(value) = value.filter(|value| *value > most) {
                let (got, want) = (value.to_string(), format!("0..={most}"));
                return Err(ExportError::Field { field, got, want });
            }
        }
        if let (Some(due), Some(left)) = (self.due_in_ms, self.left_ms)
            && due > 0
            && due >= left
        {
            let (got, want) = (due.to_string(), format!("below left_ms, {left}"));
            return Err(ExportError::Field { field: "due_in_ms", got, want });
        }
        Ok(())
    }

    /// The line of a request, at a moment of its queue's clock.
    pub fn of(summary: &Summary, envelope: &[u8], body: &[u8], now_ms: u64) -> Self {
        Self {
            id: summary.id,
            priority: summary.priority,
            age_ms: now_ms.saturating_sub(summary.accepted_at_ms),
            left_ms: summary.expires_at_ms.map(|at| at.saturating_sub(now_ms)),
            // What waits for money or the operator does not wait for a time.
            due_in_ms: Some(summary.not_before_ms.saturating_sub(now_ms))
                .filter(|due| *due > 0 && summary.state == State::Held),
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
        self.check()?;
        let decode = |what, text: &str| {
            STANDARD.decode(text).map(Bytes::from).map_err(|_| ExportError::NotBase64(what))
        };
        let envelope = decode("envelope", &self.envelope)?;
        let body = decode("body", &self.body)?;
        if digest(&envelope, &body) != self.sha256 {
            return Err(ExportError::Altered);
        }
        let unpacked = Envelope::from_bytes(&envelope)?.unpacked(self.id, body.clone())?;
        let idempotency = match &unpacked {
            Unpacked::Task(request) => idempotency::of(request),
            Unpacked::Conversation(inquiry, model) => held::idempotency(inquiry, model),
        };
        Ok(NewEntry {
            id: self.id,
            idempotency,
            priority: self.priority,
            accepted_at_ms: now_ms.saturating_sub(self.age_ms),
            not_before_ms: self.due_in_ms.map_or(0, |due| now_ms.saturating_add(due)),
            expires_at_ms: self.left_ms.map(|left| now_ms.saturating_add(left)),
            envelope,
            body,
        })
    }
}

/// The first field of a line with a value of another kind than it must be.
fn wrong_field(text: &[u8]) -> Option<ExportError> {
    let line: Map<String, Value> = serde_json::from_slice(text).ok()?;
    let is_number = |value: &Value| value.is_u64();
    let is_span = |value: &Value| value.is_u64() || value.is_null();
    let is_id = |value: &Value| value.as_str().is_some_and(|id| RequestId::parse(id).is_ok());
    type Is = fn(&Value) -> bool;
    let span = format!("0..={MOST_MS}");
    let fields: [(&'static str, Is, &str); 8] = [
        ("id", is_id, "a UUID"),
        ("priority", |value| value.as_u64().is_some_and(|it| it <= MOST_PRIORITY), "0..=9"),
        ("age_ms", is_number, &span),
        ("left_ms", is_span, &span),
        ("due_in_ms", is_span, &span),
        ("envelope", Value::is_string, "a text"),
        ("body", Value::is_string, "a text"),
        ("sha256", Value::is_string, "a text"),
    ];
    fields.into_iter().find_map(|(field, is, want)| {
        let value = line.get(field).filter(|value| !is(value))?;
        let got = value.to_string().chars().take(64).collect();
        Some(ExportError::Field { field, got, want: want.to_owned() })
    })
}

fn digest(envelope: &[u8], body: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(envelope);
    hash.update(body);
    hex::encode(hash.finalize())
}
