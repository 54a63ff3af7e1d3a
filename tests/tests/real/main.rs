//! An agent with real destinations: servers that others wrote, started here, killed in the middle, and started
//! again.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod chain;
mod desk;
mod talk;
mod tensors;
