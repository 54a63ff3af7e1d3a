//! Owns who is sent results: webhooks and the fleet's controller, each in a zone.
//!
//! **Invariant:** a receiver always has a zone, which the policy is asked about for every result.

use std::path::PathBuf;
use std::time::Duration;

use super::takers::TakerName;
use crate::destination::Zone;
use crate::request::TaskName;
use crate::subject::Subject;

/// Somebody whom results are sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receiver {
    /// Its name in logs and metrics.
    pub name: String,
    /// Where it lies.
    pub zone: Zone,
    /// How it is reached.
    pub address: Address,
}

/// How a receiver is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// By POST to this URL.
    Url(String),
    /// Over MQTT, by the device's link.
    Controller,
}

/// A receiver of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// The operator's name for it, unique in the configuration.
    pub name: TakerName,
    /// Where results are sent.
    pub receiver: Receiver,
    /// The file whose first line is the secret that signs.
    pub secret_file: PathBuf,
    /// Only results of these tasks; of all when empty.
    pub tasks: Vec<TaskName>,
    /// Limit for one whole exchange.
    pub timeout: Duration,
    /// A result that the receiver refuses for so long is skipped.
    pub give_up: Duration,
}

impl Webhook {
    /// Whether results of `task` are wanted.
    pub fn wants(&self, subject: &Subject) -> bool {
        let is_named = |task: &TaskName| task.as_str() == subject.name();
        self.tasks.is_empty() || self.tasks.iter().any(is_named)
    }
}
