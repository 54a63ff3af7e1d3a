//! Owns what is asked of a model that its caller names, with the terms under which it is asked.
//!
//! Unlike a [`Request`](crate::request::Request) it is of no task, and is not held: who asks waits for
//! the answer, or takes it piece by piece.
//!
//! **Invariant:** an [`Inquiry`] that exists is labelled with a data class.

use std::time::Duration;

use bytes::Bytes;
use holdfast_chat::served::transcriptions::{Chunking, Wanted};
use holdfast_chat::{Conversation, Inputs, Part, Said, Turn};

use crate::price::{Content, wav_ms};
use crate::queue::RequestId;
use crate::request::{DataClass, IdempotencyKey, Labelled, Priority};

/// One thing asked, `M` being what.
#[derive(Debug, Clone)]
pub struct Inquiry<M> {
    /// Unique.
    pub id: RequestId,
    /// The terms.
    pub terms: Terms,
    /// What is asked.
    pub matter: M,
}

/// The terms of an [`Inquiry`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// How sensitive it is.
    pub class: DataClass,
    /// Urgency, where a model of this device answers.
    pub priority: Priority,
    /// How long its caller waits: for the answer, or for the end of one that comes piece by piece.
    pub within: Duration,
    /// What it may cost at most, in millionths of the operator's currency.
    pub cost_limit_micros: Option<u64>,
    /// The caller's own name for it, which destinations are told.
    pub key: Option<IdempotencyKey>,
    /// How many Holdfast agents it came through.
    pub hops: u8,
}

/// Of a text, about.
const BYTES_OF_A_TOKEN: u64 = 4;

/// What can be asked, as far as its price goes by it.
pub(crate) trait Matter {
    /// What is in it, about.
    fn content(&self) -> Content;

    /// How many tokens the answer has at most, where that is known.
    fn tokens_out(&self) -> Option<u32>;
}

impl Matter for Conversation {
    fn content(&self) -> Content {
        let mut content = Content::default();
        let mut text_bytes = 0_u64;
        let mut words = |text: &str| {
            text_bytes = text_bytes.saturating_add(length(text.as_bytes()));
        };
        self.system.iter().for_each(|text| words(text));
        self.tools.iter().for_each(|tool| words(&tool.description));
        for turn in &self.turns {
            match turn {
                Turn::Model(said) => said.iter().for_each(|said| match said {
                    Said::Text(text) | Said::Reasoning { text, .. } => words(text),
                    Said::Redacted(_) | Said::Call(_) => {}
                }),
                Turn::Results(results) => results.iter().for_each(|result| words(&result.content)),
                Turn::User(parts) => parts.iter().for_each(|part| match part {
                    Part::Speaker(text) | Part::Text(text) => words(text),
                    Part::Image(..) => content.images += 1,
                    Part::Audio(_, file) => {
                        content.audio_ms = content.audio_ms.saturating_add(wav_ms(file));
                    }
                }),
            }
        }
        content.text_bytes = text_bytes;
        content
    }

    fn tokens_out(&self) -> Option<u32> {
        self.max_tokens
    }
}

impl Matter for Texts {
    fn content(&self) -> Content {
        let text_bytes = match &self.inputs {
            Inputs::Texts(texts) => texts.iter().map(|text| length(text.as_bytes())).sum(),
            Inputs::Tokens(tokens) => {
                let count = tokens.iter().map(Vec::len).sum::<usize>();
                u64::try_from(count).unwrap_or(u64::MAX).saturating_mul(BYTES_OF_A_TOKEN)
            }
        };
        Content { text_bytes, ..Content::default() }
    }

    fn tokens_out(&self) -> Option<u32> {
        Some(0)
    }
}

impl Matter for Recording {
    fn content(&self) -> Content {
        Content { audio_ms: wav_ms(&self.bytes), ..Content::default() }
    }

    fn tokens_out(&self) -> Option<u32> {
        None
    }
}

/// How many bytes these are.
pub(crate) fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

impl<M> Labelled for Inquiry<M> {
    fn class(&self) -> DataClass {
        self.terms.class
    }
}

/// Texts that are to become vectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Texts {
    /// The texts, in the order in which their vectors are wanted.
    pub inputs: Inputs,
    /// How long the vectors are to be, where the caller says so.
    pub dimensions: Option<u32>,
    /// The end user, as the caller calls them.
    pub user: Option<String>,
}

/// A recording that is to become a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    /// The file.
    pub bytes: Bytes,
    /// What it is called.
    pub name: String,
    /// Its language, such as `de`, where the caller says so.
    pub language: Option<String>,
    /// Words that may be in it, where the caller says so.
    pub prompt: Option<String>,
    /// `0.0..=1.0`, where the caller says so.
    pub temperature: Option<f32>,
    /// How it is cut, where the caller says so.
    pub chunking: Option<Chunking>,
    /// What is wanted of the answer: the words, or what the destination makes of them.
    pub wanted: Wanted,
}
