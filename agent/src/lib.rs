//! The device: it answers on its own, holds what it cannot answer well, and escalates what it may.
//!
//! A request's way is [`api`] → [`request`] → [`route::decide`] → [`engine`] → [`route::judge`] →
//! [`queue`] → [`escalate`] → [`answer`]; [`service`] walks it, [`run`] wires it.
//!
//! Tasks, and who waits for whom (no cycles):
//! ```text
//! api ──► service ──► engine (one thread a bundle)
//!            │└─────► escalate ──► destinations
//!            └──────► queue (one writer thread) ◄── drain ──► escalate
//! link (MQTT) ◄── health ◄── engine, queue, escalate     (latest values only)
//! ```

pub mod answer;
pub mod destination;
pub mod policy;
pub mod queue;
pub mod request;
