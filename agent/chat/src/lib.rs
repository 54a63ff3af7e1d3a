//! Conversations with models: one form of what is asked and answered, and what every provider's
//! protocol makes of it. Pure: bytes in, bytes out; whoever sends them is elsewhere.
//!
//! ```text
//! Conversation -> Dialect::call -> Call (path, headers, body)     or Unfit: nothing to send
//! body of a 2xx -> Dialect::answer -> Answer                      or Malformed
//! any other     -> Dialect::failure -> Failure                    sorted by what to do about it
//! a stream      -> Dialect::reader -> Reader::push -> Event ...   or StreamError
//! events        -> Gathering -> Answer                            as if it had come in one piece
//! ```
//!
//! [`served`] is the other side, where we are the server: what OpenAI's clients send becomes a
//! [`Conversation`], and an [`Answer`] or its [`Event`]s what they hear.
//!
//! Thoughts that a provider hides are [`Said::Redacted`] and [`Event::Redacted`]: nobody reads them,
//! and they go back as they came. Responses name what was asked, so that what writes them takes the
//! [`served::Asked`] too; [`served::responses::standing`] is a response that has no answer yet, and
//! [`served::responses::Writer::fail`] the end of one that will have none.
//!
//! **Invariant:** what a protocol cannot express is an [`Unfit`] before anything is sent, or a
//! conversion that the header of the protocol's module states.

mod anthropic;
mod bedrock;
mod conversation;
mod dialect;
mod event;
mod failure;
mod frames;
mod gathering;
mod gemini;
mod ids;
mod media;
mod openai;
mod pieces;
mod reader;
mod schema;
pub mod served;
pub mod sigv4;
mod sse;
mod thinking;
mod unfit;
mod vectors;
mod wait;
mod written;

pub use self::conversation::{
    Answer, Conversation, Detail, Effort, Hints, Output, Part, Said, Sampling, Stop, Thinking,
    Tool, ToolCall, ToolChoice, ToolResult, Turn, Usage, Verbosity,
};
pub use self::dialect::{Call, Dialect, Malformed};
pub use self::event::{Event, StreamError};
pub use self::failure::{Failure, Kind, plain_code};
pub use self::gathering::Gathering;
pub use self::media::{Audio, Image};
pub use self::reader::Reader;
pub use self::unfit::{Unfit, What};
pub use self::vectors::{Inputs, Vectors};
