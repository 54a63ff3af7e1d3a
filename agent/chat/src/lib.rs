//! Conversations with models: one form of what is asked and answered, and what every provider's
//! protocol makes of it. Pure: bytes in, bytes out; whoever sends them is elsewhere.
//!
//! ```text
//! Conversation -> Dialect::call -> Call (path, headers, body)     or Unfit: nothing to send
//! body of a 2xx -> Dialect::answer -> Answer                      or Malformed
//! any other     -> Dialect::failure -> Failure                    sorted by what to do about it
//! ```
//!
//! An [`Answer`] is a list of [`Said`] in order, so that a stream can fill it piece by piece.
//!
//! **Invariant:** what a protocol cannot express is an [`Unfit`] before anything is sent, or a
//! conversion that the header of the protocol's module states.

mod anthropic;
mod bedrock;
mod conversation;
mod dialect;
mod failure;
mod gemini;
mod media;
mod openai;
mod schema;
pub mod sigv4;
mod unfit;
mod wait;

pub use self::conversation::{
    Answer, Conversation, Output, Part, Said, Sampling, Stop, Tool, ToolCall, ToolChoice,
    ToolResult, Turn, Usage,
};
pub use self::dialect::{Call, Dialect, Malformed};
pub use self::failure::{Failure, Kind};
pub use self::media::{Audio, Image};
pub use self::unfit::{Unfit, What};
