//! Owns what one send has to work with: the destination, the secret, and the time.
//!
//! **Invariant:** every call reports what it saw of the link, and its outcome is sorted by what
//! to do about it before a protocol sees it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_chat::{Failure, Kind, plain_code};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::credential::Secret;
use super::endpoint::Endpoint;
use super::error::{Fault, SendError, clean};
use super::hedge::FirstByte;
use super::http::{
    Call, Flow, Http, HttpError, LONGEST_RETRY_AFTER, Method, Opened, Patience, Reply,
};
use super::latency::Latency;
use super::link::Event;
use super::links::Links;
use super::oip::Known;
use super::portal::{self, Sign};
use crate::destination::{Chat, Destination, Protocol};

/// Waited after a 429 that names no time.
const THROTTLED: Duration = Duration::from_secs(5);

/// One send to one destination, which may take several calls.
pub(super) struct Exchange<'a> {
    destination: &'a Destination,
    http: &'a Http,
    links: &'a Links,
    latency: &'a Latency,
    known: &'a Known,
    doubted: &'a AtomicBool,
    proved: &'a AtomicBool,
    secret: Option<&'a Secret>,
    token: Option<&'a Secret>,
    limit: Limit,
    /// Who is told of the first byte.
    told: Option<&'a FirstByte>,
}

/// The time that a send has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    /// When it goes out, as far as is known.
    begun: Instant,
    deadline: Instant,
    /// For the last piece of an answer that comes piece by piece.
    end: Instant,
    /// All the time that the destination is given, and not only what its caller can wait.
    is_whole: bool,
}

impl Limit {
    /// The smaller of what the caller gives and what the destination is given.
    pub(super) fn new(destination: &Destination, within: Duration) -> Self {
        let (now, time) = (Instant::now(), within.min(destination.timeout));
        let (deadline, end) = (now + time, now + within);
        Self { begun: now, deadline, end, is_whole: destination.timeout <= within }
    }

    /// The same, of a send that goes out now and not when somebody began to wait for it.
    pub(super) fn begun_now(self) -> Self {
        Self { begun: Instant::now(), ..self }
    }

    /// When the send ends at the latest.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }
}

impl<'a> Exchange<'a> {
    pub(super) fn new(
        endpoint: &'a Endpoint,
        links: &'a Links,
        (secret, token): (Option<&'a Secret>, Option<&'a Secret>),
        limit: Limit,
        told: Option<&'a FirstByte>,
    ) -> Self {
        let Endpoint { destination, http, latency, known, doubted, proved, .. } = endpoint;
        Self {
            destination,
            http,
            links,
            latency,
            known,
            doubted,
            proved,
            secret,
            token,
            limit,
            told,
        }
    }

    /// The same, for a further call: that one has less than all the time that the destination is given.
    pub(super) fn going_on(&self) -> Self {
        Self { limit: Limit { is_whole: false, ..self.limit }, ..*self }
    }

    /// What proves who we are, if the destination wants that.
    pub(super) fn secret(&self) -> Option<&'a Secret> {
        self.secret
    }

    /// What was given for it, if the destination wants that in its place.
    pub(super) fn token(&self) -> Option<&'a Secret> {
        self.token
    }

    pub(super) fn destination(&self) -> &'a Destination {
        self.destination
    }

    /// What is known of the models there, where they take tensors.
    pub(super) fn known(&self) -> &'a Known {
        self.known
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
    pub(super) async fn call(&self, call: Call) -> Result<Reply, SendError> {
        self.call_up_to(call, self.http.max_answer()).await
    }

    /// As [`Self::call`], with so many bytes of an answer at most.
    pub(super) async fn call_up_to(&self, call: Call, most: usize) -> Result<Reply, SendError> {
        let (began, is_question) = (Instant::now(), call.method == Method::Post);
        let mut first_byte = None;
        let up = || {
            self.comes();
            first_byte = Some(began.elapsed()).filter(|_| is_question);
        };
        let url = call.url.clone();
        match self.http.exchange_up_to(call, self.limit.deadline, most, up).await {
            Ok(reply) => self
                .own(&url, reply)
                .and_then(|reply| self.sort(reply))
                .inspect(|_| self.measured(first_byte)),
            Err(error) => Err(self.lost(error)),
        }
    }

    /// One call for an answer that comes piece by piece, as the content type `wanted`.
    pub(super) async fn open(&self, call: Call, wanted: &str) -> Result<Flow, SendError> {
        let (began, mut first_byte) = (Instant::now(), None);
        let up = || {
            self.comes();
            first_byte = Some(began.elapsed());
        };
        let Limit { deadline, end, .. } = self.limit;
        let patience = Patience { head: deadline, idle: self.destination.timeout, end };
        let url = call.url.clone();
        match self.http.open(call, patience, wanted, up).await {
            Ok(Opened::Flow(flow)) => {
                self.proved.store(true, Ordering::Relaxed);
                self.measured(first_byte);
                Ok(flow)
            }
            Ok(Opened::Reply(reply)) => {
                let reply = self.own(&url, reply).and_then(|reply| self.sort(reply))?;
                Err(self.unusable(self.no_json(&reply.content_type)))
            }
            Err(error) => Err(self.lost(error)),
        }
    }

    /// `reply`, if it is the destination's own; what a captive portal says is no answer. As long as the
    /// destination never said anything of its own to a request, one that is sent elsewhere is told as one that
    /// reached nobody.
    fn own(&self, url: &str, reply: Reply) -> Result<Reply, SendError> {
        let sign = portal::sign(url, &reply);
        self.doubted.store(sign.is_some(), Ordering::Relaxed);
        let Some(sign) = sign else {
            self.proved.store(true, Ordering::Relaxed);
            return Ok(reply);
        };
        self.links.note(&self.destination.name, Event::Doubtful);
        let what = sign.to_string();
        Err(self.unusable(match sign {
            Sign::Away { .. } | Sign::Told if !self.proved.load(Ordering::Relaxed) => {
                Fault::Elsewhere { what }
            }
            Sign::Away { .. } | Sign::Told | Sign::Page => Fault::Foreign { what },
        }))
    }

    /// The first byte of an answer comes.
    fn comes(&self) {
        self.links.note(&self.destination.name, Event::Answered);
        if let Some(told) = self.told {
            told.comes();
        }
    }

    /// Takes in how long the first byte of a success took. What fails at once is not quick.
    fn measured(&self, first_byte: Option<Duration>) {
        if let Some(took) = first_byte {
            self.latency.note(took);
            let is_slow = took > self.destination.timeout / 2;
            self.links.note_quality(&self.destination.name, is_slow);
        }
    }

    /// The body of `reply` as what the protocol says it is.
    pub(super) fn json<T: DeserializeOwned>(&self, reply: &Reply) -> Result<T, SendError> {
        // The position says enough; the error's own text could quote the answer.
        serde_json::from_slice(self.json_body(reply)?).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let what = format!("its JSON is wrong at line {line} column {column}");
            self.unusable(Fault::Foreign { what })
        })
    }

    /// The body of `reply`, which says that it is JSON.
    pub(super) fn json_body<'b>(&self, reply: &'b Reply) -> Result<&'b [u8], SendError> {
        if reply.is_json {
            return Ok(&reply.body);
        }
        Err(self.unusable(self.no_json(&reply.content_type)))
    }

    fn no_json(&self, content_type: &str) -> Fault {
        Fault::Foreign { what: format!("its content type is \"{}\"", self.told(content_type)) }
    }

    /// What it means that nothing came back, or not all of it.
    pub(super) fn lost(&self, error: HttpError) -> SendError {
        let destination = self.name();
        let event = match &error {
            HttpError::Connect(_) => Event::Unreachable,
            HttpError::Impostor(_) => Event::Doubtful,
            HttpError::NoAnswer if self.limit.is_whole => Event::Unreachable,
            HttpError::NoAnswer | HttpError::Cut(_) => Event::Silent,
            HttpError::Unfinished(_) | HttpError::TooLong { .. } => Event::Answered,
        };
        self.links.note(&destination, event);
        if event != Event::Unreachable {
            // That one is counted where it takes the link down.
            self.links.note_quality(&destination, true);
        }
        match error {
            HttpError::Connect(cause) | HttpError::Impostor(cause) => {
                SendError::Unreachable { destination, cause }
            }
            HttpError::NoAnswer if self.limit.is_whole => {
                SendError::TimedOut { destination, limit: self.destination.timeout }
            }
            HttpError::NoAnswer => {
                let cause = "no answer in the time that the caller waits".to_owned();
                let waited = Some(self.limit.begun.elapsed());
                SendError::Interrupted { destination, cause, waited }
            }
            HttpError::Cut(cause) | HttpError::Unfinished(cause) => {
                SendError::Interrupted { destination, cause, waited: None }
            }
            HttpError::TooLong { limit } => self.unusable(Fault::TooLong { limit }),
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
            // It is another agent: what it does not let on says nothing of our credential.
            (403, _) if forbids_class(&reply) => {
                let (detail, code) = (self.detail(&reply), None);
                Err(SendError::Refused { destination, status, detail, code })
            }
            (status, _) if let Protocol::Chat(chat) = &self.destination.protocol => {
                Err(self.refused(chat, status, &reply))
            }
            (402, _) => Err(self.out_of_credit(status, &reply)),
            (401 | 403 | 407, _) => Err(SendError::Unauthorised { destination, status }),
            (429, wait) => {
                Err(SendError::Throttled { destination, retry_after: wait.unwrap_or(THROTTLED) })
            }
            (503, Some(retry_after)) => Err(SendError::Throttled { destination, retry_after }),
            (408 | 425 | 500.., _) => Err(self.failed_with(status, self.detail(&reply))),
            _ => {
                let (detail, code) = (self.detail(&reply), self.plain_code(&reply));
                Err(SendError::Refused { destination, status, detail, code })
            }
        }
    }

    /// A refusal as the provider's protocol has it.
    fn refused(&self, chat: &Chat, status: u16, reply: &Reply) -> SendError {
        let header = |name: &str| match (name, reply.retry_after) {
            // A date is read where its response is.
            ("retry-after", Some(wait)) => Some(wait.as_secs_f64().to_string()),
            _ => reply.told.iter().find(|(told, _)| told == name).map(|(_, text)| text.clone()),
        };
        self.sort_failure(status, &chat.dialect.failure(status, &header, &reply.body))
    }

    /// What to do about a failure that the provider's protocol tells of.
    pub(super) fn sort_failure(&self, status: u16, failure: &Failure) -> SendError {
        let destination = self.name();
        let detail = || self.said(failure.detail.as_deref());
        match failure.kind {
            Kind::Transient => self.failed_with(status, detail()),
            Kind::Throttled => {
                let retry_after = failure.wait.unwrap_or(THROTTLED).min(LONGEST_RETRY_AFTER);
                SendError::Throttled { destination, retry_after }
            }
            Kind::OutOfCredit => SendError::OutOfCredit { destination, status, detail: detail() },
            Kind::BadRequest => {
                let code = failure.code.clone().filter(|code| self.told(code) == *code);
                SendError::Refused { destination, status, detail: detail(), code }
            }
            Kind::Authentication => SendError::Unauthorised { destination, status },
            Kind::Safety => self.unusable(Fault::NotLetThrough),
        }
    }

    fn failed_with(&self, status: u16, detail: String) -> SendError {
        self.links.note_quality(&self.destination.name, true);
        SendError::Failed { destination: self.name(), status, detail }
    }

    fn out_of_credit(&self, status: u16, reply: &Reply) -> SendError {
        let (destination, detail) = (self.name(), self.detail(reply));
        SendError::OutOfCredit { destination, status, detail }
    }

    pub(super) fn unusable(&self, fault: Fault) -> SendError {
        SendError::Unusable { destination: self.name(), fault }
    }

    /// What the destination says of its refusal, without what it may repeat of ours.
    fn detail(&self, reply: &Reply) -> String {
        // Triton says that its JSON is plain text.
        let is_told = reply.is_json || matches!(self.destination.protocol, Protocol::Oip(_));
        let told: Option<Problem> =
            is_told.then(|| serde_json::from_slice(&reply.body).ok()).flatten();
        self.said(told.and_then(Problem::text).as_deref())
    }

    /// The code of an agent that is talked to in OpenAI's form.
    fn plain_code(&self, reply: &Reply) -> Option<String> {
        let told: serde_json::Value = serde_json::from_slice(&reply.body).ok()?;
        plain_code(&told["error"]["code"]).filter(|code| self.told(code) == *code)
    }

    fn said(&self, text: Option<&str>) -> String {
        self.told(text.unwrap_or("it does not say why"))
    }

    /// A text of the destination's as it may be shown: short, and without the credential.
    pub(super) fn told(&self, text: &str) -> String {
        let secrets = self.secret.into_iter().chain(self.token);
        clean(&secrets.fold(text.to_owned(), |text, secret| secret.scrub(&text)))
    }
}

/// Whether an agent says that its policy keeps an inquiry of this class where it is.
fn forbids_class(reply: &Reply) -> bool {
    let told = serde_json::from_slice(&reply.body).ok();
    told.is_some_and(|told: serde_json::Value| told["error"]["code"] == "class_forbids")
}

/// A refusal in RFC 9457's form, in that of the Open Inference Protocol, or in OpenAI's.
#[derive(Debug, Deserialize)]
struct Problem {
    title: Option<String>,
    detail: Option<String>,
    error: Option<serde_json::Value>,
}

impl Problem {
    fn text(self) -> Option<String> {
        // OpenAI's form has its message one deeper.
        let error = || {
            let error = self.error.as_ref()?;
            error.as_str().or_else(|| error.get("message")?.as_str()).map(str::to_owned)
        };
        self.detail.or(self.title).or_else(error)
    }
}
