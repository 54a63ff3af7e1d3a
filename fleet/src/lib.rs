//! The controller of a fleet of Holdfast devices.
//!
//! A message's way:
//!
//! ```text
//! broker (embedded, or an external one)
//!    -> link      polls; hands every message on, waits for nothing
//!    -> roster    pure: topic, signature, key, sequence -> a change of one device, or refused with a reason
//!    -> store     SQLite; what is acknowledged is on disk before
//!    -> link      the signed acknowledgement
//!    -> api       JSON, server-sent events, the page
//! ```
//!
//! Tasks and who waits for whom, without a cycle: the HTTP server reads the roster; `intake` owns the roster's
//! changes and waits for the store; the link's poll task waits for the network only and drops (and counts) what
//! intake cannot take. `serve` alone wires them.
//!
//! **Invariant:** a message that is not rightly signed by the device it speaks for changes nothing.

pub mod cli;
pub mod config;

mod api;
mod broker;
mod clock;
mod device;
mod devices;
mod exit;
mod intake;
mod key;
mod link;
mod quiet;
mod roster;
mod serve;
mod store;
