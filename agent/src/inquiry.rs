//! Owns what is asked of a model that its caller names, with the terms under which it is asked.
//!
//! Unlike a [`Request`](crate::request::Request) it is of no task, and is not held: who asks waits for
//! the answer, or takes it piece by piece.
//!
//! **Invariant:** an [`Inquiry`] that exists is labelled with a data class.

use std::time::Duration;

use bytes::Bytes;

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

impl<M> Labelled for Inquiry<M> {
    fn class(&self) -> DataClass {
        self.terms.class
    }
}

/// Texts that are to become vectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Texts {
    /// The texts, in the order in which their vectors are wanted.
    pub inputs: Vec<String>,
    /// How long the vectors are to be, where the caller says so.
    pub dimensions: Option<u32>,
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
}
