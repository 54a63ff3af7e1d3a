//! What OpenAI's clients say to us and hear from us: we are the server.
//!
//! Readers are strict: a field that nobody has is refused by its path (`unknown_parameter`), one that
//! OpenAI has and that cannot be honoured too (`unsupported_parameter`), unless it changes nothing.
//!
//! **Invariant:** what is read is honoured or refused; nothing is fetched.

pub mod completion;
pub mod embeddings;
mod fault;
mod fields;
mod json;
pub mod legacy;
pub mod models;
mod parts;
pub mod responses;
mod tools;
pub mod transcriptions;

use std::collections::BTreeMap;

use thiserror::Error;

use crate::conversation::Conversation;

/// Why a request is refused: 400, `invalid_request_error`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct Refusal {
    /// The path of the field, such as `messages[0].content`.
    pub param: Option<String>,
    /// Such as `unknown_parameter`.
    pub code: &'static str,
    /// What to do about it.
    pub message: String,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Asked {
    /// A bundle, a destination's model or a route.
    pub model: String,
    /// What the model is asked.
    pub conversation: Conversation,
    /// How to stream the answer; `None` for one piece.
    pub stream: Option<StreamOptions>,
    /// Up to 16 pairs of the caller's, names of up to 64 characters and values of up to 512.
    pub metadata: BTreeMap<String, String>,
    /// Whether the answer is to be kept, where the caller says so.
    pub store: Option<bool>,
    /// Whether the answer is fetched later; of responses alone.
    pub background: bool,
    /// The end user, as the caller calls them.
    pub user: Option<String>,
}

/// How an answer is streamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamOptions {
    /// Whether tokens are told at the end.
    pub include_usage: bool,
}

/// What stands around an answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Named {
    /// Such as `chatcmpl-1`.
    pub id: String,
    /// Seconds of Unix time.
    pub created: u64,
    /// The model, as the caller knows it.
    pub model: String,
    /// What else is told with it.
    pub metadata: BTreeMap<String, String>,
}

/// The body of an error. `kind` is one of OpenAI's, such as `invalid_request_error`,
/// `authentication_error`, `permission_error`, `rate_limit_error` and `api_error`.
pub fn error(kind: &str, code: Option<&str>, param: Option<&str>, message: &str) -> Vec<u8> {
    serde_json::json!({ "error":
        { "message": message, "type": kind, "param": param, "code": code } })
    .to_string()
    .into_bytes()
}

/// An error in mid-stream; the stream ends with it.
pub fn error_event(kind: &str, code: Option<&str>, param: Option<&str>, message: &str) -> Vec<u8> {
    let mut out = b"data: ".to_vec();
    out.extend(error(kind, code, param, message));
    out.extend(b"\n\n");
    out
}
