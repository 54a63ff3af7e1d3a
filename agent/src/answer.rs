//! Owns what an answer is, and the words that explain it.
//!
//! **Invariant:** stored answers and envelopes start with a version byte; released shapes never
//! change.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::destination::Zone;
use crate::outcome::{Outcome, Recorded};
use crate::policy::Denied;
use crate::request::DataClass;

/// One class of a classification.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Class {
    /// The class's name.
    pub label: String,
    /// Calibrated probability in `0.0..=1.0`.
    pub confidence: f32,
}

/// The result of a request. Stored as `stored` says.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// The best class; of another kind of answer what it says in a few words.
    pub label: String,
    /// How sure it is, in `0.0..=1.0`: of classes the calibrated probability of the best, of labels
    /// that hold each for itself how sure the least sure is. None for a kind that cannot tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f32>,
    /// The likeliest classes, likeliest first; at most [`MAX_CLASSES`]. None for other kinds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<Class>,
    /// The answer, if it is none of classes.
    #[serde(flatten)]
    pub outcome: Option<Outcome>,
    /// When, in a recording of several windows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Recorded>,
    /// The zone where it was made.
    pub zone: Zone,
    /// Who made it: a destination's name, or `device`.
    pub place: String,
    /// What made it, such as `voice-commands@1.0.0 int8 tract`.
    pub model: String,
    /// Milliseconds from the request's arrival at its maker to the answer.
    pub took_ms: f64,
    /// Whether a better answer is still to come.
    pub provisional: bool,
    /// What the destination that was asked costs for it, in millionths of the operator's currency;
    /// none where it has no prices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_micros: Option<u64>,
}

/// A span as an answer states it: milliseconds, to the microsecond.
#[must_use]
pub fn millis(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e3
}

/// An answer carries at most this many classes.
pub const MAX_CLASSES: usize = 5;

/// Why a request went the way it went. The order in a list is the order of the thoughts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Reason {
    /// The local answer is sure enough.
    ConfidenceReached {
        /// The local answer's confidence.
        confidence: f32,
        /// What the bundle asks.
        threshold: f32,
    },
    /// The local answer is not sure enough.
    ConfidenceBelow {
        /// The local answer's confidence.
        confidence: f32,
        /// What the bundle asks.
        threshold: f32,
    },
    /// No bundle on this device does the task.
    NoLocalModel,
    /// The local model failed on this input.
    LocalFailed {
        /// What it said.
        error: String,
    },
    /// The caller wanted a bigger model.
    CallerAsked,
    /// The caller wanted no bigger model.
    CallerForbade,
    /// The policy keeps the request out of a destination.
    ClassForbids {
        /// The request's class.
        class: DataClass,
        /// The destination.
        destination: String,
        /// Its zone.
        zone: Zone,
    },
    /// No destination is configured for the task.
    NoDestination,
    /// The request came through too many agents already.
    TooManyHops,
    /// The destination cannot be reached now.
    LinkDown {
        /// The destination.
        destination: String,
    },
    /// The destination was tried and gave no answer.
    SendFailed {
        /// The destination.
        destination: String,
        /// What happened.
        error: String,
    },
    /// A destination answered.
    Escalated {
        /// The destination.
        destination: String,
        /// Its zone.
        zone: Zone,
    },
    /// The request waits on disk.
    Held,
    /// The queue did not take it.
    NotHeld {
        /// What the queue said.
        error: String,
    },
    /// Nobody above could be asked in the time given, so the local answer stands.
    LocalStands,
    /// The caller's time to live ended before an answer came.
    Expired,
    /// The caller wants it sent no earlier.
    NotBefore {
        /// Milliseconds from when it was asked.
        ms: u64,
    },
    /// The local answer is of a kind that does not tell how sure it is.
    NoConfidence,
}

impl Reason {
    /// The reason's stable name, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::ConfidenceReached { .. } => "confidence_reached",
            Self::ConfidenceBelow { .. } => "confidence_below",
            Self::NoLocalModel => "no_local_model",
            Self::LocalFailed { .. } => "local_failed",
            Self::CallerAsked => "caller_asked",
            Self::CallerForbade => "caller_forbade",
            Self::ClassForbids { .. } => "class_forbids",
            Self::NoDestination => "no_destination",
            Self::TooManyHops => "too_many_hops",
            Self::LinkDown { .. } => "link_down",
            Self::SendFailed { .. } => "send_failed",
            Self::Escalated { .. } => "escalated",
            Self::Held => "held",
            Self::NotHeld { .. } => "not_held",
            Self::LocalStands => "local_stands",
            Self::Expired => "expired",
            Self::NotBefore { .. } => "not_before",
            Self::NoConfidence => "no_confidence",
        }
    }
}

impl From<Denied> for Reason {
    fn from(denied: Denied) -> Self {
        let Denied { class, destination, zone, .. } = denied;
        Self::ClassForbids { class, destination, zone }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConfidenceReached { confidence, threshold } => {
                write!(f, "sure enough: {confidence:.2} of {threshold:.2} asked")
            }
            Self::ConfidenceBelow { confidence, threshold } => {
                write!(f, "not sure: {confidence:.2} of {threshold:.2} asked")
            }
            Self::NoLocalModel => f.write_str("no local model does this task"),
            Self::LocalFailed { error } => write!(f, "the local model failed: {error}"),
            Self::CallerAsked => f.write_str("the caller asked for a bigger model"),
            Self::CallerForbade => f.write_str("the caller wants a local answer only"),
            Self::ClassForbids { class, destination, zone } => {
                write!(f, "{class} data may not go to {destination} (zone {zone})")
            }
            Self::NoDestination => f.write_str("no destination is configured for this task"),
            Self::TooManyHops => f.write_str("it came through too many agents to be sent further"),
            Self::LinkDown { destination } => write!(f, "no link to {destination}"),
            Self::SendFailed { destination, error } => write!(f, "{destination} failed: {error}"),
            Self::Escalated { destination, zone } => {
                write!(f, "answered by {destination} (zone {zone})")
            }
            Self::NoConfidence => {
                f.write_str("answers of this kind tell no confidence; the local one stands")
            }
            Self::Held => f.write_str("held on disk until a destination can be reached"),
            Self::NotHeld { error } => write!(f, "it could not be held: {error}"),
            Self::LocalStands => f.write_str("the local answer stands"),
            Self::Expired => f.write_str("its time to live ended before an answer came"),
            Self::NotBefore { ms } => {
                write!(f, "the caller wants it sent no earlier than {ms} ms after it was asked")
            }
        }
    }
}

/// Reasons, as one sentence.
pub fn sentence(reasons: &[Reason]) -> String {
    reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
