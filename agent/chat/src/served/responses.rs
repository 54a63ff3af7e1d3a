//! Owns `POST /v1/responses`.
//!
//! Stated conversions:
//! - `instructions` and the `system` and `developer` messages before the first turn are the system
//!   prompt, joined by an empty line;
//! - items of the model that follow each other are one turn;
//! - thoughts are the summary of a reasoning item, their seal is its `encrypted_content`, and those that a
//!   provider hides are an item with `encrypted_content` alone, behind `redacted_thinking:`;
//! - the seal on a call is `extra_content.google.thought_signature`, as in chat completions;
//! - a stop that OpenAI does not have is a response that is completed;
//! - a summary of thoughts that is asked for is what the provider tells of them, however long;
//! - the items of a request are told again without the system prompt, which is the response's
//!   `instructions`.
//!
//! **Invariant:** events are numbered from 0 without a gap, and what is told at the end of a stream is
//! what would have been answered in one piece.

mod input;
mod item;
mod read;
mod retelling;
mod write;

pub use self::input::{Page, items};
pub use self::read::read;
pub use self::retelling::Retelling;
pub use self::write::{Standing, Writer, answer, standing};

/// Before the data of thoughts that a provider hides; no base64 has a colon.
const REDACTED: &str = "redacted_thinking:";
