//! Owns what a destination is: an endpoint in a zone, with its protocol and limits.
//!
//! **Invariant:** a destination is never in zone `device`, and its URL has a scheme, a host and
//! no credentials in it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::policy::Zone;
use crate::request::TaskName;

/// A configured endpoint that requests can be escalated to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The operator's name for it, unique in the configuration.
    pub name: String,
    /// Where it lies; `site` or farther.
    pub zone: Zone,
    /// What it speaks.
    pub protocol: Protocol,
    /// Base URL without a trailing slash, such as `http://10.0.0.5:8470`.
    pub url: String,
    /// Where the API key comes from; none for an open endpoint.
    pub credential: Option<Credential>,
    /// The tasks that it is asked; empty for those of the bundles on this device.
    pub tasks: Vec<TaskName>,
    /// Limit for connecting.
    pub connect_timeout: Duration,
    /// Limit for one whole exchange.
    pub timeout: Duration,
    /// Requests under way at once.
    pub concurrency: usize,
}

impl Destination {
    /// Whether this destination is asked `task`.
    pub fn serves(&self, task: &TaskName) -> bool {
        self.tasks.is_empty() || self.tasks.contains(task)
    }
}

/// What a destination speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocol {
    /// Another Holdfast agent's task API.
    Holdfast,
    /// OpenAI chat completions with images and audio in, and the answer as JSON.
    OpenAi {
        /// The model asked for.
        model: String,
    },
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Holdfast => f.pad("holdfast"),
            Self::OpenAi { .. } => f.pad("openai"),
        }
    }
}

/// Where a secret is read from; read again at each use, so that it can be renewed in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// The first line of a file.
    File(PathBuf),
    /// An environment variable.
    Env(String),
}
