//! Owns how a held request and its final answer are written to disk.
//!
//! **Invariant:** byte 0 is the version, the rest is postcard of the struct of that version in
//! `stored`; so is the body of a held conversation.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use holdfast_chat::{Conversation, Hints};
use holdfast_models::{Media, MediaType};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::answer::{Answer, Reason};
use crate::inquiry::{Inquiry, Terms};
use crate::queue::RequestId;
use crate::request::{DataClass, Escalate, IdempotencyKey, Priority, Request, TaskName};
use crate::stored::{AnswerV1, AnswerV2, AnswerV3, EnvelopeOf, EnvelopeV4, FinalOf, FinalV4};
use crate::subject::Subject;

/// Everything about a held request but its input.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// What is asked, and what is special to that.
    pub held: Held,
    /// How sensitive the input is; read from here by every later decision.
    pub class: DataClass,
    /// Urgency.
    pub priority: Priority,
    /// Milliseconds, from acceptance, that somebody wants the answer.
    pub ttl_ms: u64,
    /// The caller's own name for the request.
    pub key: Option<String>,
    /// How many agents it came through.
    pub hops: u8,
    /// Why it was held.
    pub reasons: Vec<Reason>,
}

/// What is held.
#[derive(Debug, Clone, PartialEq)]
pub enum Held {
    /// A task; its body is the input.
    Task(Box<HeldTask>),
    /// A conversation; its body is [`body_of`] it.
    Conversation(Box<HeldConversation>),
}

/// A task that is held.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldTask {
    /// What is asked.
    pub task: TaskName,
    /// What the caller wants of a bigger model.
    pub escalate: Escalate,
    /// The input's media type, such as `audio/wav`.
    pub media_type: String,
    /// Milliseconds that the caller waited at most in the first call.
    pub deadline_ms: u64,
    /// The local answer, to be replaced.
    pub provisional: Option<Answer>,
}

/// A conversation that is held.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldConversation {
    /// The model's name, as its caller knows it.
    pub model: String,
    /// Milliseconds that one try to have it answered takes at most.
    pub within_ms: u64,
    /// What it may cost at most, in millionths of the operator's currency.
    pub cost_limit_micros: Option<u64>,
    /// What is told beside the answer.
    pub frame: Frame,
}

/// What its caller is told of a held conversation beside the answer.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Frame {
    /// Seconds of Unix time at which it was asked.
    pub created_s: u64,
    /// The caller's pairs.
    pub metadata: BTreeMap<String, String>,
    /// The end user, as the caller calls them.
    pub user: Option<String>,
    /// The conversation without its turns; without system prompt, tools and schema, too, where these are
    /// longer than what the queue keeps beside a request.
    pub settings: Conversation,
}

/// A held request, read back.
#[derive(Debug, Clone)]
pub enum Unpacked {
    /// A task.
    Task(Request),
    /// A conversation, and the name of the model that is asked.
    Conversation(Box<Inquiry<Conversation>>, String),
}

/// A final answer with the reasons that led to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Final {
    /// What the request was, for the reader of the answer.
    pub subject: Subject,
    /// Its class.
    pub class: DataClass,
    /// The answer.
    pub answer: Answer,
    /// Why it came about this way.
    pub reasons: Vec<Reason>,
}

/// Stored bytes that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EnvelopeError {
    /// Written by a newer agent, or damaged.
    #[error("stored record has version {0}, this agent reads 1 to 4: run the agent that wrote it")]
    Version(u8),
    /// Damaged, or written by another program.
    #[error("stored record cannot be decoded")]
    Damaged,
}

/// The version of the body of a conversation.
const BODY_VERSION: u8 = 1;
/// The same of one with hints, which stand before it.
const HINTED_VERSION: u8 = 2;

/// The body of a conversation that is held.
pub fn body_of(conversation: &Conversation) -> Vec<u8> {
    match conversation.hints.is_empty() {
        true => bare_body_of(conversation),
        false => encode(HINTED_VERSION, &(&conversation.hints, conversation)),
    }
}

/// The same without what changes no answer.
pub(crate) fn bare_body_of(conversation: &Conversation) -> Vec<u8> {
    encode(BODY_VERSION, conversation)
}

/// The conversation that such a body is.
///
/// # Errors
/// When the version is unknown or the bytes do not decode.
pub(crate) fn conversation_of(body: &[u8]) -> Result<Conversation, EnvelopeError> {
    match body.split_first() {
        Some((&BODY_VERSION, rest)) => decode(rest),
        Some((&HINTED_VERSION, rest)) => {
            let (hints, conversation): (Hints, Conversation) = decode(rest)?;
            Ok(Conversation { hints, ..conversation })
        }
        Some((&version, _)) => Err(EnvelopeError::Version(version)),
        None => Err(EnvelopeError::Damaged),
    }
}

impl Envelope {
    /// The envelope of a request that is about to be held.
    pub fn of(request: &Request, provisional: Option<Answer>, reasons: Vec<Reason>) -> Self {
        Self {
            held: Held::Task(Box::new(HeldTask {
                task: request.task.clone(),
                escalate: request.escalate,
                media_type: request.media.media_type().mime().to_owned(),
                deadline_ms: request.deadline_ms,
                provisional,
            })),
            class: request.class,
            priority: request.priority,
            ttl_ms: request.ttl_ms,
            key: request.key.as_ref().map(|key| key.as_str().to_owned()),
            hops: request.hops,
            reasons,
        }
    }

    /// Whom it asks.
    pub fn subject(&self) -> Subject {
        match &self.held {
            Held::Task(held) => Subject::Task(held.task.clone()),
            Held::Conversation(held) => Subject::Model(held.model.clone()),
        }
    }

    /// The task's name, or the model's.
    pub fn name(&self) -> &str {
        match &self.held {
            Held::Task(held) => held.task.as_str(),
            Held::Conversation(held) => &held.model,
        }
    }

    /// The bytes to store.
    pub fn to_bytes(&self) -> Vec<u8> {
        match &self.held {
            Held::Task(held) => self.task_bytes(held),
            Held::Conversation(held) => encode(4, &EnvelopeV4::of(self, held)),
        }
    }

    fn task_bytes(&self, held: &HeldTask) -> Vec<u8> {
        match &held.provisional {
            None => encode(1, &self.stored(held, None::<AnswerV1>)),
            Some(answer) => match (AnswerV1::of(answer), AnswerV2::of(answer)) {
                (Some(first), _) => encode(1, &self.stored(held, Some(first))),
                (None, Some(second)) => encode(2, &self.stored(held, Some(second))),
                (None, None) => encode(3, &self.stored(held, Some(AnswerV3::from(answer)))),
            },
        }
    }

    fn stored<A>(&self, held: &HeldTask, provisional: Option<A>) -> EnvelopeOf<A> {
        EnvelopeOf {
            task: held.task.clone(),
            class: self.class,
            priority: self.priority,
            escalate: held.escalate,
            media_type: held.media_type.clone(),
            deadline_ms: held.deadline_ms,
            ttl_ms: self.ttl_ms,
            key: self.key.clone(),
            hops: self.hops,
            provisional,
            reasons: self.reasons.clone(),
        }
    }

    /// Reads stored bytes.
    ///
    /// # Errors
    /// When the version is unknown or the bytes do not decode.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        match bytes.split_first() {
            Some((1, rest)) => decode::<EnvelopeOf<AnswerV1>>(rest).map(Self::from),
            Some((2, rest)) => decode::<EnvelopeOf<AnswerV2>>(rest).map(Self::from),
            Some((3, rest)) => decode::<EnvelopeOf<AnswerV3>>(rest).map(Self::from),
            Some((4, rest)) => decode::<EnvelopeV4>(rest).map(Self::from),
            Some((&version, _)) => Err(EnvelopeError::Version(version)),
            None => Err(EnvelopeError::Damaged),
        }
    }

    /// The request, as it was when it was held.
    ///
    /// # Errors
    /// When the stored media type, key or conversation is none that this agent knows.
    pub fn unpacked(&self, id: RequestId, body: Bytes) -> Result<Unpacked, EnvelopeError> {
        let key = match &self.key {
            Some(text) => Some(IdempotencyKey::stored(text).ok_or(EnvelopeError::Damaged)?),
            None => None,
        };
        match &self.held {
            Held::Task(held) => self.request(held, id, body, key).map(Unpacked::Task),
            Held::Conversation(held) => {
                let terms = Terms {
                    class: self.class,
                    priority: self.priority,
                    within: Duration::from_millis(held.within_ms),
                    cost_limit_micros: held.cost_limit_micros,
                    key,
                    hops: self.hops,
                };
                let inquiry = Inquiry { id, terms, matter: conversation_of(&body)? };
                Ok(Unpacked::Conversation(Box::new(inquiry), held.model.clone()))
            }
        }
    }

    fn request(
        &self,
        held: &HeldTask,
        id: RequestId,
        body: Bytes,
        key: Option<IdempotencyKey>,
    ) -> Result<Request, EnvelopeError> {
        let media_type = MediaType::from_mime(&held.media_type).ok_or(EnvelopeError::Damaged)?;
        Ok(Request {
            id,
            task: held.task.clone(),
            media: Media::trusted(media_type, body),
            class: self.class,
            priority: self.priority,
            escalate: held.escalate,
            deadline_ms: held.deadline_ms,
            ttl_ms: self.ttl_ms,
            // The queue knows when it is due.
            not_before_ms: 0,
            key,
            hops: self.hops,
        })
    }
}

impl Unpacked {
    /// Whom it asks.
    pub fn subject(&self) -> Subject {
        match self {
            Self::Task(request) => Subject::Task(request.task.clone()),
            Self::Conversation(_, model) => Subject::Model(model.clone()),
        }
    }

    /// Its id.
    pub fn id(&self) -> RequestId {
        match self {
            Self::Task(request) => request.id,
            Self::Conversation(inquiry, _) => inquiry.id,
        }
    }
}

impl Final {
    /// The bytes to store.
    pub fn to_bytes(&self) -> Vec<u8> {
        match &self.subject {
            Subject::Task(task) => match (AnswerV1::of(&self.answer), AnswerV2::of(&self.answer)) {
                (Some(first), _) => encode(1, &self.stored(task, first)),
                (None, Some(second)) => encode(2, &self.stored(task, second)),
                (None, None) => encode(3, &self.stored(task, AnswerV3::from(&self.answer))),
            },
            Subject::Model(model) => encode(4, &FinalV4::of(self, model)),
        }
    }

    fn stored<A>(&self, task: &TaskName, answer: A) -> FinalOf<A> {
        let (task, class, reasons) = (task.clone(), self.class, self.reasons.clone());
        FinalOf { task, class, answer, reasons }
    }

    /// Reads stored bytes.
    ///
    /// # Errors
    /// When the version is unknown or the bytes do not decode.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        match bytes.split_first() {
            Some((1, rest)) => decode::<FinalOf<AnswerV1>>(rest).map(Self::from),
            Some((2, rest)) => decode::<FinalOf<AnswerV2>>(rest).map(Self::from),
            Some((3, rest)) => decode::<FinalOf<AnswerV3>>(rest).map(Self::from),
            Some((4, rest)) => decode::<FinalV4>(rest).map(Self::from),
            Some((&version, _)) => Err(EnvelopeError::Version(version)),
            None => Err(EnvelopeError::Damaged),
        }
    }
}

impl<A: Into<Answer>> From<EnvelopeOf<A>> for Envelope {
    fn from(stored: EnvelopeOf<A>) -> Self {
        Self {
            held: Held::Task(Box::new(HeldTask {
                task: stored.task,
                escalate: stored.escalate,
                media_type: stored.media_type,
                deadline_ms: stored.deadline_ms,
                provisional: stored.provisional.map(Into::into),
            })),
            class: stored.class,
            priority: stored.priority,
            ttl_ms: stored.ttl_ms,
            key: stored.key,
            hops: stored.hops,
            reasons: stored.reasons,
        }
    }
}

impl<A: Into<Answer>> From<FinalOf<A>> for Final {
    fn from(stored: FinalOf<A>) -> Self {
        let FinalOf { task, class, answer, reasons } = stored;
        Self { subject: Subject::Task(task), class, answer: answer.into(), reasons }
    }
}

fn encode<T: Serialize>(version: u8, value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![version]).expect("writing to memory cannot fail")
}

fn decode<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, EnvelopeError> {
    postcard::from_bytes(bytes).map_err(|_| EnvelopeError::Damaged)
}
