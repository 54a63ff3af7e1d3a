//! The contract between devices and their controller: topics, messages, signatures.
//!
//! What travels, from the inside out:
//!
//! ```text
//! message::Up / message::Down   version byte + postcard
//! sign::Signer -> envelope      version | public key | sequence | payload | signature
//! topic::Topic                  holdfast/1/{shard}/{device}/{kind}
//! ```
//!
//! The broker in between is not trusted: a signature covers the topic, the sequence and the payload, so what a
//! broker repeats, moves to another topic or alters is refused by the receiver.
//!
//! **Invariant:** no I/O, no clock, no task runs in here, and no bytes that arrive can make it panic or allocate
//! more than [`message::MAX_MESSAGE`] times a small constant.

pub mod id;
pub mod message;
pub mod sign;
pub mod topic;
pub mod unit;
