//! Owns how a held request and its final answer are written to disk.
//!
//! **Invariant:** byte 0 is the version, the rest is postcard of the struct of that version in
//! `stored`.

use bytes::Bytes;
use holdfast_models::{Media, MediaType};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::answer::{Answer, Reason};
use crate::queue::RequestId;
use crate::request::{DataClass, Escalate, IdempotencyKey, Priority, Request, TaskName};
use crate::stored::{AnswerV1, AnswerV2, AnswerV3, EnvelopeOf, FinalOf};

/// Everything about a held request but its input.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// What is asked.
    pub task: TaskName,
    /// How sensitive the input is; read from here by every later decision.
    pub class: DataClass,
    /// Urgency.
    pub priority: Priority,
    /// What the caller wants of a bigger model.
    pub escalate: Escalate,
    /// The input's media type, such as `audio/wav`.
    pub media_type: String,
    /// Milliseconds that the caller waited at most in the first call.
    pub deadline_ms: u64,
    /// Milliseconds, from acceptance, that somebody wants the answer.
    pub ttl_ms: u64,
    /// The caller's own name for the request.
    pub key: Option<String>,
    /// How many agents it came through.
    pub hops: u8,
    /// The local answer, to be replaced.
    pub provisional: Option<Answer>,
    /// Why it was held.
    pub reasons: Vec<Reason>,
}

/// A final answer with the reasons that led to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Final {
    /// What the request was, for the reader of the answer.
    pub task: TaskName,
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
    #[error("stored record has version {0}, this agent reads 1 to 3: run the agent that wrote it")]
    Version(u8),
    /// Damaged, or written by another program.
    #[error("stored record cannot be decoded")]
    Damaged,
}

impl Envelope {
    /// The envelope of a request that is about to be held.
    pub fn of(request: &Request, provisional: Option<Answer>, reasons: Vec<Reason>) -> Self {
        Self {
            task: request.task.clone(),
            class: request.class,
            priority: request.priority,
            escalate: request.escalate,
            media_type: request.media.media_type().mime().to_owned(),
            deadline_ms: request.deadline_ms,
            ttl_ms: request.ttl_ms,
            key: request.key.as_ref().map(|key| key.as_str().to_owned()),
            hops: request.hops,
            provisional,
            reasons,
        }
    }

    /// The bytes to store.
    pub fn to_bytes(&self) -> Vec<u8> {
        match &self.provisional {
            None => encode(1, &self.stored(None::<AnswerV1>)),
            Some(answer) => match (AnswerV1::of(answer), AnswerV2::of(answer)) {
                (Some(first), _) => encode(1, &self.stored(Some(first))),
                (None, Some(second)) => encode(2, &self.stored(Some(second))),
                (None, None) => encode(3, &self.stored(Some(AnswerV3::from(answer)))),
            },
        }
    }

    fn stored<A>(&self, provisional: Option<A>) -> EnvelopeOf<A> {
        EnvelopeOf {
            task: self.task.clone(),
            class: self.class,
            priority: self.priority,
            escalate: self.escalate,
            media_type: self.media_type.clone(),
            deadline_ms: self.deadline_ms,
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
            Some((&version, _)) => Err(EnvelopeError::Version(version)),
            None => Err(EnvelopeError::Damaged),
        }
    }

    /// The request, as it was when it was held.
    ///
    /// # Errors
    /// When the stored media type or key is none that this agent knows.
    pub fn request(&self, id: RequestId, body: Bytes) -> Result<Request, EnvelopeError> {
        let media_type = MediaType::from_mime(&self.media_type).ok_or(EnvelopeError::Damaged)?;
        let key = match &self.key {
            Some(text) => Some(IdempotencyKey::parse(text).ok_or(EnvelopeError::Damaged)?),
            None => None,
        };
        Ok(Request {
            id,
            task: self.task.clone(),
            media: Media::trusted(media_type, body),
            class: self.class,
            priority: self.priority,
            escalate: self.escalate,
            deadline_ms: self.deadline_ms,
            ttl_ms: self.ttl_ms,
            // The queue knows when it is due.
            not_before_ms: 0,
            key,
            hops: self.hops,
        })
    }
}

impl Final {
    /// The bytes to store.
    pub fn to_bytes(&self) -> Vec<u8> {
        match (AnswerV1::of(&self.answer), AnswerV2::of(&self.answer)) {
            (Some(first), _) => encode(1, &self.stored(first)),
            (None, Some(second)) => encode(2, &self.stored(second)),
            (None, None) => encode(3, &self.stored(AnswerV3::from(&self.answer))),
        }
    }

    fn stored<A>(&self, answer: A) -> FinalOf<A> {
        let (task, class, reasons) = (self.task.clone(), self.class, self.reasons.clone());
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
            Some((&version, _)) => Err(EnvelopeError::Version(version)),
            None => Err(EnvelopeError::Damaged),
        }
    }
}

impl<A: Into<Answer>> From<EnvelopeOf<A>> for Envelope {
    fn from(stored: EnvelopeOf<A>) -> Self {
        Self {
            task: stored.task,
            class: stored.class,
            priority: stored.priority,
            escalate: stored.escalate,
            media_type: stored.media_type,
            deadline_ms: stored.deadline_ms,
            ttl_ms: stored.ttl_ms,
            key: stored.key,
            hops: stored.hops,
            provisional: stored.provisional.map(Into::into),
            reasons: stored.reasons,
        }
    }
}

impl<A: Into<Answer>> From<FinalOf<A>> for Final {
    fn from(stored: FinalOf<A>) -> Self {
        let FinalOf { task, class, answer, reasons } = stored;
        Self { task, class, answer: answer.into(), reasons }
    }
}

fn encode<T: Serialize>(version: u8, value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![version]).expect("writing to memory cannot fail")
}

fn decode<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, EnvelopeError> {
    postcard::from_bytes(bytes).map_err(|_| EnvelopeError::Damaged)
}
