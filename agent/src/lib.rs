//! The device: it answers on its own, holds what it cannot answer well, and escalates what it may.
//!
//! A request's way is [`api`] → [`request`] → [`route::decide`] → [`engine`] → [`route::judge`] →
//! [`queue`] → [`escalate`] → [`answer`]; [`service`] walks it, [`run`] wires it.
//!
//! Tasks, and who waits for whom (no cycles):
//! ```text
//! api (behind access) ──► service ──► engine (workers of each bundle)
//!            │└─────► escalate ──► destinations
//!            └──────► queue (one writer thread) ◄── drain ──► escalate
//! api (what OpenAI's clients ask) ──► gateway ──► cache, escalate, engine, queue
//! oip (under /v2, and gRPC) ──► engine
//! results (webhooks, controller) ──► queue, policy, escalate, link
//! link (MQTT) ◄── health ◄── engine, queue, escalate     (latest values only)
//! ```

use std::error::Error;

pub mod access;
pub mod answer;
pub mod api;
pub mod ask_error;
pub mod asked;
pub mod audit;
pub mod balance;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod destination;
pub mod drain;
pub mod engine;
pub mod envelope;
pub mod escalate;
pub mod export;
pub mod gateway;
pub mod gauges;
pub mod health;
mod heap;
mod idempotency;
pub mod identity;
mod in_flight;
pub mod inquiry;
pub mod install;
pub mod link;
pub mod listing;
pub mod message;
pub mod network;
pub mod oip;
pub mod operator;
pub mod outcome;
mod pem;
pub mod policy;
pub mod pressure;
mod price;
pub mod reach;
pub mod reply;
pub mod request;
pub mod results;
pub mod route;
pub mod run;
mod seal;
pub mod service;
pub mod slot;
mod stamp;
pub mod store_key;
mod stored;
pub mod subject;
mod supervise;
pub mod together;
pub mod tune;
mod whole_file;

pub use holdfast_queue as queue;

/// An error with all its causes, in one line.
pub(crate) fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some libraries repeat their cause in their own text.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
