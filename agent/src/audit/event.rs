//! Owns what a line of the record says.
//!
//! **Invariant:** nothing of what was asked or answered is in it, and no credential.

use serde::{Deserialize, Serialize};

use crate::destination::Zone;
use crate::queue::RequestId;
use crate::request::DataClass;

/// One line, without its seal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The line's place in the record, from 1.
    pub number: u64,
    /// When, in milliseconds of the device's count.
    pub at_ms: u64,
    /// The date then, as `YYYYMMDDTHHMMSSZ`.
    pub date: String,
    /// Whether something kept the date right.
    pub date_is_trusted: bool,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A file begins.
    Begun {
        /// The seal of the last line before it, in hexadecimal digits; of the first file zeros.
        after: String,
    },
    /// Something goes out.
    Sent(Sent),
    /// That is over.
    Ended(Ended),
}

/// What goes out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// The request.
    pub request: RequestId,
    /// Its task, or the model that is asked there.
    pub asked: String,
    /// How its data is labelled.
    pub class: DataClass,
    /// Where it goes.
    pub destination: String,
    /// The zone that lies in, for which the policy cleared the class.
    pub zone: Zone,
    /// Bytes that are posted.
    pub bytes: u64,
    /// What it may cost at most, in millionths of the operator's currency.
    pub most_micros: u64,
}

/// How that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The request.
    pub request: RequestId,
    /// Where it went.
    pub destination: String,
    /// `answered`, `cut` in the middle of an answer, `left` by its caller, `kept` here after all, or the
    /// code of the error.
    pub outcome: String,
    /// Tokens of the question by the provider's count; 0 where it counts none.
    pub tokens_in: u64,
    /// Tokens of the answer.
    pub tokens_out: u64,
    /// What it cost, in millionths of the operator's currency; where that is not known, what was set apart.
    pub cost_micros: u64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}
