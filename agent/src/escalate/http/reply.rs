//! Owns what comes back of a call: read whole, or piece by piece as it comes.
//!
//! **Invariant:** an answer is read up to a bound of its protocol and up to a deadline, and one that comes
//! piece by piece waits so long for each; every byte of it is counted.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderName, RETRY_AFTER};
use tokio::time::{Instant, timeout_at};

use super::super::wire::Wire;
use super::{HttpError, MAX_ANSWER, cause};
use crate::oip::outgoing;

/// An answer that comes piece by piece has no more bytes than this.
const MAX_STREAM: usize = 64 * MAX_ANSWER;
/// A destination is left alone for at most this long, whatever it asks for.
pub(in crate::escalate) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(600);

/// What came back, read whole.
#[derive(Debug)]
pub(in crate::escalate) struct Reply {
    pub(in crate::escalate) status: u16,
    pub(in crate::escalate) is_json: bool,
    pub(in crate::escalate) content_type: String,
    pub(in crate::escalate) retry_after: Option<Duration>,
    /// What it tells of its limits and errors in headers, names in lower case.
    pub(in crate::escalate) told: Vec<(String, String)>,
    pub(in crate::escalate) body: Bytes,
}

/// How long is waited for an answer that comes piece by piece.
#[derive(Debug, Clone, Copy)]
pub(in crate::escalate) struct Patience {
    /// For its head.
    pub(in crate::escalate) head: Instant,
    /// For each piece after the one before.
    pub(in crate::escalate) idle: Duration,
    /// For its end.
    pub(in crate::escalate) end: Instant,
}

/// What came back of a call for an answer piece by piece.
#[derive(Debug)]
pub(in crate::escalate) enum Opened {
    /// The answer begins.
    Flow(Flow),
    /// Something else, read whole.
    Reply(Reply),
}

/// The rest of an answer that comes piece by piece; the call ends when it is dropped.
#[derive(Debug)]
pub(in crate::escalate) struct Flow {
    response: reqwest::Response,
    wire: Wire,
    left: usize,
    idle: Duration,
    end: Instant,
}

impl Flow {
    /// The rest of a response, of which the head was read.
    pub(super) fn new(response: reqwest::Response, wire: Wire, patience: Patience) -> Self {
        let Patience { idle, end, .. } = patience;
        Self { response, wire, left: MAX_STREAM, idle, end }
    }

    /// The bytes that come next, as they come; `None` at the end.
    pub(in crate::escalate) async fn next(&mut self) -> Result<Option<Bytes>, HttpError> {
        let until = self.end.min(Instant::now() + self.idle);
        let chunk = timeout_at(until, self.response.chunk()).await.map_err(|_| {
            HttpError::Unfinished(match until == self.end {
                true => "its time ended in the middle".to_owned(),
                false => format!("nothing more came for {} ms", self.idle.as_millis()),
            })
        })?;
        let chunk = chunk.map_err(|error| HttpError::Unfinished(cause(error)))?;
        count(&self.wire, self.response.headers(), chunk.as_deref());
        let length = chunk.as_ref().map_or(0, Bytes::len);
        self.left =
            self.left.checked_sub(length).ok_or(HttpError::TooLong { limit: MAX_STREAM })?;
        Ok(chunk)
    }
}

/// Reads it whole, before the deadline.
pub(super) async fn whole(
    response: reqwest::Response,
    wire: &Wire,
    max_answer: usize,
    deadline: Instant,
) -> Result<Reply, HttpError> {
    timeout_at(deadline, read(response, wire, max_answer))
        .await
        .unwrap_or_else(|_| Err(HttpError::Unfinished("its time ended in the middle".to_owned())))
}

/// Counts a piece of a body, or its end.
fn count(wire: &Wire, headers: &HeaderMap, piece: Option<&[u8]>) {
    match piece {
        Some(piece) => wire.piece(headers, piece),
        None => wire.end(headers),
    }
}

async fn read(
    mut response: reqwest::Response,
    wire: &Wire,
    max_answer: usize,
) -> Result<Reply, HttpError> {
    let promised = response.content_length().unwrap_or(0);
    if usize::try_from(promised).map_or(true, |promised| promised > max_answer) {
        return Err(HttpError::TooLong { limit: max_answer });
    }
    let status = response.status().as_u16();
    let content_type = text(response.headers(), &CONTENT_TYPE).unwrap_or_default().to_owned();
    let retry_after = retry_after(response.headers());
    let told = told(response.headers());
    let mut body = BytesMut::new();
    loop {
        let chunk = response.chunk().await.map_err(|error| HttpError::Unfinished(cause(error)))?;
        count(wire, response.headers(), chunk.as_deref());
        let Some(chunk) = chunk else { break };
        if body.len() + chunk.len() > max_answer {
            return Err(HttpError::TooLong { limit: max_answer });
        }
        body.extend_from_slice(&chunk);
    }
    let is_json = is_json(&content_type);
    Ok(Reply { status, is_json, content_type, retry_after, told, body: body.freeze() })
}

/// The headers in which providers tell of limits and errors, portals of themselves, and servers of how much
/// of an answer is JSON.
fn told(headers: &HeaderMap) -> Vec<(String, String)> {
    const TELLING: [&str; 5] =
        ["retry-after", "x-ratelimit-", "x-amzn-errortype", "location", outgoing::JSON_LENGTH];
    let telling = headers
        .iter()
        .filter(|(name, _)| TELLING.iter().any(|beginning| name.as_str().starts_with(beginning)));
    let texts = telling
        .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
    texts.collect()
}

fn is_json(content_type: &str) -> bool {
    let json = ["application/json", "application/problem+json", "application/x-amz-json-1.1"];
    json.iter().any(|kind| is_kind(content_type, kind))
}

/// Whether this content type is of that kind, whatever its parameters.
pub(super) fn is_kind(content_type: &str, kind: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case(kind)
}

/// A header's text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// How long the other side asks to wait: seconds, or a date measured by its own clock (ours may
/// be wrong), at most [`LONGEST_RETRY_AFTER`].
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let asked = text(headers, &RETRY_AFTER)?.trim();
    let wait = match asked.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let parser = DateTimeParser::new();
            let until = parser.parse_timestamp(asked).ok()?;
            let now = parser.parse_timestamp(text(headers, &DATE)?).ok()?;
            Duration::try_from(until.duration_since(now)).unwrap_or_default()
        }
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn a_wait_is_read_in_both_forms_and_capped() {
        let date = "Fri, 20 Nov 2026 12:00:00 GMT";
        for (asked, own, want) in [
            ("7", None, Some(7)),
            ("0", None, Some(0)),
            ("999999", None, Some(600)),
            ("Fri, 20 Nov 2026 12:00:30 GMT", Some(date), Some(30)),
            ("Fri, 20 Nov 2026 11:00:00 GMT", Some(date), Some(0)),
            ("Fri, 20 Nov 2026 22:00:00 GMT", Some(date), Some(600)),
            ("Fri, 20 Nov 2026 12:00:30 GMT", None, None),
            ("soon", Some(date), None),
            ("-3", None, None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(asked));
            if let Some(own) = own {
                headers.insert(DATE, HeaderValue::from_static(own));
            }
            assert_eq!(retry_after(&headers), want.map(Duration::from_secs), "{asked}");
        }
    }

    #[test]
    fn only_json_is_json() {
        for (text, want) in [
            ("application/json", true),
            ("application/json; charset=utf-8", true),
            ("Application/Problem+JSON", true),
            ("text/html", false),
            ("application/json-seq", false),
            ("", false),
        ] {
            assert_eq!(is_json(text), want, "{text}");
        }
    }
}
