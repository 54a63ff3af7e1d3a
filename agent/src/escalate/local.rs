//! Owns asking the agent that runs on this device, for the command line.
//!
//! **Invariant:** it sends nothing but the question.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::time::Instant;

use super::error::{EscalateError, clean, clean_up_to};
use super::http::{Call, Http, HttpError, Method};
use super::proof::Proof;
use crate::destination::{Destination, Limits, Protocol, Transport, Zone};
use crate::network::Tap;

/// A local agent that needs longer for a small thing is not well.
const WITHIN: Duration = Duration::from_secs(3);
/// For what is large, and must be synced.
const WITHIN_LARGE: Duration = Duration::from_secs(60);
/// What the agent is called behind its socket.
const SOCKET_HOST: &str = "http://localhost";
/// A body is large from here on.
const LARGE: usize = 1024 * 1024;
/// The longest answer of an agent on this device: a request with all its bytes.
const MAX_BODY: usize = crate::export::MAX_LINE_BYTES;

/// What it says of a refusal is ours, and may be long: which bundle, why, and what goes on.
const LONGEST_DETAIL: usize = 2000;

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
    /// Somebody took the connection, and answered nothing or not to the end.
    #[error(
        "{url} took the connection and gave no whole answer: {cause}; something runs there: an agent \
         that has no place for another connection (api.max_connections) or is overloaded says so in \
         its log and /metrics, another program listens there otherwise"
    )]
    Unanswered {
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

/// The local agent's own API, which answers with JSON.
#[derive(Debug)]
pub struct LocalAgent {
    http: Http,
    base: String,
    token: Option<String>,
}

impl LocalAgent {
    /// The agent at `base`, such as `http://127.0.0.1:8470`, or behind a Unix socket, which is shown the
    /// operator's token if there is one; connects to nobody.
    ///
    /// # Errors
    /// When the address is none.
    pub fn at(
        base: &str,
        socket: Option<PathBuf>,
        token: Option<String>,
    ) -> Result<Self, LocalError> {
        let (http, base) = match socket {
            Some(path) => (Http::over_socket(path)?, SOCKET_HOST),
            None => (Http::new(&destination(base), Tap::default())?, base),
        };
        Ok(Self { http: http.reading_up_to(MAX_BODY), base: base.to_owned(), token })
    }

    /// Asks for a path.
    ///
    /// # Errors
    /// When nobody is there, or somebody else.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, LocalError> {
        let within = if body.len() > LARGE { WITHIN_LARGE } else { WITHIN };
        self.ask_within(method, path, body, within).await
    }

    /// Asks for a path that takes so long at most.
    ///
    /// # Errors
    /// As [`LocalAgent::ask`].
    pub async fn ask_within<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        within: Duration,
    ) -> Result<T, LocalError> {
        let call = Call {
            method,
            url: format!("{}{path}", self.base),
            headers: Vec::new(),
            proof: self.proof(),
            body: body.into(),
        };
        exchange(&self.http, call, within).await
    }

    fn proof(&self) -> Proof {
        let token = self.token.iter();
        token.map(|token| ("authorization", format!("Bearer {token}"))).collect()
    }
}

/// Asks the local agent once, which answers in a few seconds at most.
///
/// # Errors
/// When nobody is there, or somebody else.
pub async fn ask_agent<T: DeserializeOwned>(method: Method, url: &str) -> Result<T, LocalError> {
    let http = Http::new(&destination(url), Tap::default())?;
    let url = url.to_owned();
    let (proof, body) = (Proof::new(), Bytes::new());
    let call = Call { method, url, headers: Vec::new(), proof, body };
    exchange(&http, call, WITHIN).await
}

fn destination(url: &str) -> Destination {
    Destination {
        name: "agent".to_owned(),
        zone: Zone::Site,
        protocol: Protocol::Holdfast,
        url: url.to_owned(),
        credential: None,
        tasks: Vec::new(),
        transport: Transport::default(),
        connect_timeout: WITHIN,
        timeout: WITHIN,
        concurrency: 1,
        limits: Limits::default(),
    }
}

async fn exchange<T: DeserializeOwned>(
    http: &Http,
    call: Call,
    within: Duration,
) -> Result<T, LocalError> {
    let asked = call.url.clone();
    let url = || asked.clone();
    let reply = http.exchange(call, Instant::now() + within, || ()).await.map_err(|error| {
        let cause = match error {
            HttpError::Connect(cause) => return LocalError::Silent { url: url(), cause },
            HttpError::Impostor(cause) | HttpError::Cut(cause) | HttpError::Unfinished(cause) => {
                cause
            }
            HttpError::NoAnswer => format!("nothing within {} s", within.as_secs()),
            HttpError::TooLong { .. } => "an answer without an end".to_owned(),
        };
        LocalError::Unanswered { url: url(), cause }
    })?;
    if reply.status != 200 {
        let problem: serde_json::Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        // The Open Inference Protocol has its reason under another name.
        let detail = problem["detail"].as_str().or(problem["error"].as_str());
        let detail = clean_up_to(detail.unwrap_or("it does not say why"), LONGEST_DETAIL);
        return Err(LocalError::Refused { url: url(), status: reply.status, detail });
    }
    let body = if reply.body.is_empty() { b"null" } else { &*reply.body };
    serde_json::from_slice(body)
        .map_err(|error| LocalError::Foreign { url: url(), what: clean(&error.to_string()) })
}
