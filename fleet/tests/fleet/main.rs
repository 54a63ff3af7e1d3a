//! The controller as its users meet it: the real command, a real broker, real signatures.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod api;
mod commands;
mod controller;
mod device;
mod external;
mod presence;
mod refusal;
mod restart;
mod results;
