//! Owns `POST /v1/chat/completions`.
//!
//! Stated conversions:
//! - `system` and `developer` messages before the first turn are the system prompt, joined by an empty
//!   line; so are the texts of one;
//! - thoughts are `reasoning_content`, and those that a provider wants back are `thinking_blocks`, as
//!   LiteLLM has them; the seal on a call is `extra_content.google.thought_signature`, as Google has it;
//! - a message of the assistant that says nothing is left out, and so is the name on one that says
//!   something; the name on a user's message is who speaks;
//! - a refusal of earlier turns is what the model said;
//! - `response_format` `json_object` is the schema of any object; a description goes into the schema;
//! - a stop that OpenAI does not have is `stop`;
//! - the texts of a `prediction` are one.
//!
//! **Invariant:** one choice is answered.

mod message;
mod read;
mod write;

pub use self::read::read;
pub use self::write::{Writer, answer};
