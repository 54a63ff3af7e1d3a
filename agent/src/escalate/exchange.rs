//! Owns what one send has to work with: the destination, the secret, and the time.
//!
//! **Invariant:** every call reports what it saw of the link, and its outcome is sorted by what
//! to do about it before a protocol sees it.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::credential::Secret;
use super::error::{Fault, SendError, clean};
use super::http::{Call, Http, HttpError, Method, Reply};
use super::link::Event;
use super::links::Links;
use crate::destination::Destination;

/// Waited after a 429 that names no time.
const THROTTLED: Duration = Duration::from_secs(5);

/// One send to one destination, which may take several calls.
pub(super) struct Exchange<'a> {
    destination: &'a Destination,
    http: &'a Http,
    links: &'a Links,
    secret: Option<&'a Secret>,
    limit: Limit,
}

/// The time that a send has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    deadline: Instant,
    /// All the time that the destination is given, and not only what its caller can wait.
    is_whole: bool,
}

impl Limit {
    /// The smaller of what the caller gives and what the destination is given.
    pub(super) fn new(destination: &Destination, within: Duration) -> Self {
        let time = within.min(destination.timeout);
        Self { deadline: Instant::now() + time, is_whole: destination.timeout <= within }
    }

    /// When the send ends at the latest.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }
}

impl<'a> Exchange<'a> {
    pub(super) fn new(
        destination: &'a Destination,
        http: &'a Http,
        links: &'a Links,
        secret: Option<&'a Secret>,
        limit: Limit,
    ) -> Self {
        Self { destination, http, links, secret, limit }
    }

    pub(super) fn destination(&self) -> &'a Destination {
        self.destination
    }

    /// The destination's name, for an error.
    pub(super) fn name(&self) -> String {
        self.destination.name.clone()
    }

    /// The time that is left.
    pub(super) fn left(&self) -> Duration {
        self.limit.deadline.saturating_duration_since(Instant::now())
    }

    /// One call; an `Ok` has a status of success.
    pub(super) async fn call(
        &self,
        method: Method,
        url: String,
        headers: Vec<(&'static str, String)>,
        body: bytes::Bytes,
    ) -> Result<Reply, SendError> {
        let call = Call { method, url, headers, secret: self.secret, body };
        let name = &self.destination.name;
        let up = || self.links.note(name, Event::Answered);
        match self.http.exchange(call, self.limit.deadline, up).await {
            Ok(reply) => self.sort(reply),
            Err(error) => Err(self.lost(error)),
        }
    }

    /// The body of `reply` as what the protocol says it is.
    pub(super) fn json<T: DeserializeOwned>(&self, reply: &Reply) -> Result<T, SendError> {
        let foreign = |what| self.unusable(Fault::Foreign { what });
        if !reply.is_json {
            return Err(foreign(format!("its content type is \"{}\"", clean(&reply.content_type))));
        }
        // The position says enough; the error's own text could quote the answer.
        serde_json::from_slice(&reply.body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            foreign(format!("its JSON is wrong at line {line} column {column}"))
        })
    }

    fn lost(&self, error: HttpError) -> SendError {
        let destination = self.name();
        let event = match &error {
            HttpError::Connect(_) => Event::Unreachable,
            HttpError::NoAnswer if self.limit.is_whole => Event::Unreachable,
            HttpError::NoAnswer | HttpError::Cut(_) => Event::Silent,
            HttpError::Unfinished(_) | HttpError::TooLong => Event::Answered,
        };
        self.links.note(&destination, event);
        match error {
            HttpError::Connect(cause) => SendError::Unreachable { destination, cause },
            HttpError::NoAnswer if self.limit.is_whole => {
                SendError::TimedOut { destination, limit: self.destination.timeout }
            }
            HttpError::NoAnswer => {
                let cause = "no answer in the time that the caller waits".to_owned();
                SendError::Interrupted { destination, cause }
            }
            HttpError::Cut(cause) | HttpError::Unfinished(cause) => {
                SendError::Interrupted { destination, cause }
            }
            HttpError::TooLong => self.unusable(Fault::TooLong { limit: self.http.max_answer() }),
        }
    }

    fn sort(&self, reply: Reply) -> Result<Reply, SendError> {
        let destination = self.name();
        let status = reply.status;
        match (status, reply.retry_after) {
            (200..=299, _) => Ok(reply),
            // A captive portal redirects; where to is nobody's business here.
            (300..=399, _) => {
                let what = format!("a redirect (status {status}), which is never followed");
                Err(self.unusable(Fault::Foreign { what }))
            }
            (401 | 402 | 403 | 407, _) => Err(SendError::Unauthorised { destination, status }),
            (429, wait) => {
                Err(SendError::Throttled { destination, retry_after: wait.unwrap_or(THROTTLED) })
            }
            (503, Some(retry_after)) => Err(SendError::Throttled { destination, retry_after }),
            (408 | 425 | 500.., _) => {
                Err(SendError::Failed { destination, status, detail: self.detail(&reply) })
            }
            _ => Err(SendError::Refused { destination, status, detail: self.detail(&reply) }),
        }
    }

    fn unusable(&self, fault: Fault) -> SendError {
        SendError::Unusable { destination: self.name(), fault }
    }

    /// What the destination says of its refusal, without what it may repeat of ours.
    fn detail(&self, reply: &Reply) -> String {
        let told: Option<Problem> =
            reply.is_json.then(|| serde_json::from_slice(&reply.body).ok()).flatten();
        let text = told.and_then(Problem::text).unwrap_or_else(|| "it does not say why".to_owned());
        let text = self.secret.map_or_else(|| text.clone(), |secret| secret.scrub(&text));
        clean(&text)
    }
}

/// A refusal in RFC 9457's form or in OpenAI's.
#[derive(Debug, Deserialize)]
struct Problem {
    title: Option<String>,
    detail: Option<String>,
    error: Option<Complaint>,
}

#[derive(Debug, Deserialize)]
struct Complaint {
    message: Option<String>,
}

impl Problem {
    fn text(self) -> Option<String> {
        self.detail.or(self.title).or(self.error.and_then(|complaint| complaint.message))
    }
}
