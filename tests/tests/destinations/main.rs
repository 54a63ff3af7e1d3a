//! Every destination that is talked to passes the same suite, against a strict stand-in of its
//! provider that the provider's own SDK has proved.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod agent;
mod money;
mod sdks;
mod suite;
mod talk;
