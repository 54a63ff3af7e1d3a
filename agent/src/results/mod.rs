//! Owns the delivery of results: final states of requests, in the order in which they were recorded, at
//! least once to everybody who takes them.
//!
//! ```text
//! queue ──► feed (pages by number, from disk) ──► api: page, server-sent events
//!             ▲                                └► webhook ──► policy ──► escalate::Hook
//!             │                                └► fleet ────► policy ──► link (MQTT)
//!          takers (a durable cursor each; moves only on acknowledgement)
//! ```
//!
//! **Invariant:** a taker's cursor passes a result only when the taker acknowledged it, when the policy
//! or the configuration keeps it from that taker, or when it was given up or lost; the last two are
//! counted and said.

mod cursor;
pub mod feed;
pub mod fleet;
mod patience;
pub mod receiver;
pub mod signature;
pub mod takers;
pub mod webhook;
mod withheld;
