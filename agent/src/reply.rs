//! What callers are told of a request.
//!
//! **Invariant:** a result is the same bytes whenever it is told; only who looks a request up is told
//! numbers that change with time.

use serde::Serialize;

use crate::answer::{Answer, Reason};
use crate::envelope::{Envelope, EnvelopeError, Final, Held};
use crate::listing::note_of;
use crate::queue::{Record, RequestId, State, Summary};
use crate::request::{DataClass, TaskName};
use crate::subject::Subject;

/// What the caller is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The request.
    pub id: RequestId,
    /// Its task, or the model that it asks.
    pub subject: Subject,
    /// Its class.
    pub class: DataClass,
    /// Where it stands.
    pub state: State,
    /// The answer; provisional while the request is held, none when there is none yet.
    pub answer: Option<Answer>,
    /// Why it went this way.
    pub reasons: Vec<Reason>,
    /// What happened to it last, such as why a send failed.
    pub note: Option<String>,
    /// What the queue knows of it, if it was looked up there.
    pub kept: Option<Summary>,
}

/// A stored record, as the caller is told of it.
///
/// # Errors
/// When its bytes do not read back.
pub fn reply_of(record: Record) -> Result<Reply, EnvelopeError> {
    let envelope = Envelope::from_bytes(&record.envelope)?;
    let (subject, class) = (envelope.subject(), envelope.class);
    let (answer, mut reasons) = match (&record.answer, envelope.held) {
        (Some(bytes), _) => {
            let stored = Final::from_bytes(bytes)?;
            (Some(stored.answer), stored.reasons)
        }
        (None, Held::Task(held)) => (held.provisional, envelope.reasons),
        (None, Held::Conversation(_)) => (None, envelope.reasons),
    };
    if record.summary.state.is_final() && record.answer.is_none() {
        // It ended otherwise, as its note says.
        reasons.retain(|reason| *reason != Reason::Held);
    }
    Ok(Reply {
        id: record.summary.id,
        subject,
        class,
        state: record.summary.state,
        answer,
        reasons,
        note: note_of(&record.summary),
        kept: Some(record.summary),
    })
}

/// The JSON form of a [`Reply`].
#[derive(Debug, Serialize)]
pub struct ReplyBody<'a> {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    state: &'static str,
    class: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<&'a Answer>,
    reasons: Vec<ReasonBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    kept: Option<KeptBody>,
}

#[derive(Debug, Serialize)]
struct KeptBody {
    priority: u8,
    /// Sends that failed.
    attempts: u32,
    /// Bytes of its input, or of its answer.
    bytes: u64,
    age_ms: u64,
    /// Until it may be sent again.
    #[serde(skip_serializing_if = "Option::is_none")]
    due_in_ms: Option<u64>,
    /// Until its time to live ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_left_ms: Option<u64>,
}

impl KeptBody {
    fn of(summary: &Summary, now_ms: u64) -> Self {
        let left = |at: u64| at.saturating_sub(now_ms);
        let waits = !summary.state.is_final();
        // What was set aside has no time.
        let has_time = waits && summary.state != State::SetAside;
        Self {
            priority: summary.priority,
            attempts: summary.attempts,
            bytes: summary.bytes,
            age_ms: now_ms.saturating_sub(summary.accepted_at_ms),
            due_in_ms: has_time.then(|| left(summary.not_before_ms)),
            ttl_left_ms: summary.expires_at_ms.filter(|_| waits).map(left),
        }
    }
}

#[derive(Debug, Serialize)]
struct ReasonBody {
    code: &'static str,
    text: String,
}

impl<'a> From<&'a Reply> for ReplyBody<'a> {
    fn from(reply: &'a Reply) -> Self {
        let reasons = reply.reasons.iter();
        Self {
            id: reply.id.to_string(),
            task: reply.subject.task().map(TaskName::as_str),
            model: reply.subject.model(),
            state: reply.state.name(),
            class: reply.class.as_str(),
            answer: reply.answer.as_ref(),
            reasons: reasons.map(|r| ReasonBody { code: r.code(), text: r.to_string() }).collect(),
            note: reply.note.as_deref(),
            kept: None,
        }
    }
}

impl<'a> ReplyBody<'a> {
    /// As the request is at a moment of the queue's clock, with what the queue knows of it.
    pub fn at(reply: &'a Reply, now_ms: u64) -> Self {
        let kept = reply.kept.as_ref().map(|summary| KeptBody::of(summary, now_ms));
        Self { kept, ..Self::from(reply) }
    }
}
