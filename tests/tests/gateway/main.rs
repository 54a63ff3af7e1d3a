//! The API that OpenAI's clients speak: a real agent, asked with their own client, with stand-ins of
//! providers behind it and raw ones that break every rule.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod background;
mod balance;
mod cache;
mod circuits;
mod client;
mod desk;
mod ended;
mod faults;
mod gate;
mod holding;
mod large;
mod owners;
mod raw;
mod requests;
mod sharing;
mod streams;
