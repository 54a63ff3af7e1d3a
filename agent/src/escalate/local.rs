//! Owns asking the agent that runs on this device, for the command line.
//!
//! **Invariant:** it sends nothing but the question.

use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::time::Instant;

use super::error::{EscalateError, clean};
use super::http::{Call, Http, HttpError, Method};
use crate::destination::{Destination, Protocol, Zone};

/// A local agent that needs longer is not well.
const WITHIN: Duration = Duration::from_secs(3);

/// Why the local agent did not tell.
#[derive(Debug, Error)]
pub enum LocalError {
    /// The address is none.
    #[error(transparent)]
    Address(#[from] EscalateError),
    /// Nobody is there.
    #[error("no agent answers at {url}: {cause}; is it running?")]
    Silent {
        /// What was asked.
        url: String,
        /// What the network said.
        cause: String,
    },
    /// It refused.
    #[error("{url} answered with status {status}: {detail}")]
    Refused {
        /// What was asked.
        url: String,
        /// The status.
        status: u16,
        /// What its problem says.
        detail: String,
    },
    /// Somebody else is there, or an agent of another version.
    #[error("what {url} answered is not what an agent of this version says: {what}")]
    Foreign {
        /// What was asked.
        url: String,
        /// What is wrong with it.
        what: String,
    },
}

/// Asks the local agent's own API, which answers with JSON in a few seconds at most.
///
/// # Errors
/// When nobody is there, or somebody else.
pub async fn ask_agent<T: DeserializeOwned>(method: Method, url: &str) -> Result<T, LocalError> {
    let agent = Destination {
        name: "agent".to_owned(),
        zone: Zone::Site,
        protocol: Protocol::Holdfast,
        url: url.to_owned(),
        credential: None,
        tasks: Vec::new(),
        connect_timeout: WITHIN,
        timeout: WITHIN,
        concurrency: 1,
    };
    let http = Http::new(&agent)?;
    let url = || url.to_owned();
    let call = Call { method, url: url(), headers: Vec::new(), secret: None, body: Bytes::new() };
    let reply = http.exchange(call, Instant::now() + WITHIN, || ()).await.map_err(|error| {
        let cause = match error {
            HttpError::Connect(cause) | HttpError::Cut(cause) | HttpError::Unfinished(cause) => {
                cause
            }
            HttpError::NoAnswer => format!("nothing within {} s", WITHIN.as_secs()),
            HttpError::TooLong => "an answer without an end".to_owned(),
        };
        LocalError::Silent { url: url(), cause }
    })?;
    if reply.status != 200 {
        let problem: serde_json::Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let detail = clean(problem["detail"].as_str().unwrap_or("it does not say why"));
        return Err(LocalError::Refused { url: url(), status: reply.status, detail });
    }
    serde_json::from_slice(&reply.body)
        .map_err(|error| LocalError::Foreign { url: url(), what: clean(&error.to_string()) })
}
