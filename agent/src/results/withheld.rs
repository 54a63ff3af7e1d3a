//! Owns the count of results that are kept from a receiver.
//!
//! **Invariant:** every one is counted; the first of each class is a line in the log, so that a busy
//! device does not fill it.

use std::sync::{Mutex, PoisonError};

use super::feed::Found;
use super::receiver::Receiver;
use crate::policy::Denied;
use crate::reply::Reply;
use crate::request::DataClass;

/// What was said of one receiver.
#[derive(Debug, Default)]
pub(super) struct Withheld {
    said: Mutex<Vec<DataClass>>,
}

impl Withheld {
    /// The policy keeps a result from `receiver`.
    pub(super) fn note(&self, receiver: &Receiver, denied: &Denied) {
        count(receiver, "class");
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if !said.contains(&denied.class) {
            said.push(denied.class);
            tracing::warn!(why = %denied, "results of this class are not sent there");
        }
    }

    /// The result's content; one that cannot be read is kept back, since nobody knows its class.
    pub(super) fn readable<'a>(&self, found: &'a Found, receiver: &Receiver) -> Option<&'a Reply> {
        match &found.reply {
            Ok(reply) => Some(reply),
            Err(why) => {
                count(receiver, "unreadable");
                tracing::error!(receiver = %receiver.name, id = %found.id, %why, "a result cannot be sent");
                None
            }
        }
    }
}

fn count(receiver: &Receiver, why: &'static str) {
    let name = receiver.name.clone();
    metrics::counter!("holdfast_results_withheld_total", "receiver" => name, "why" => why)
        .increment(1);
}
