//! Owns the posting of results to webhooks.
//!
//! **Invariant:** what is sent is a [`ClearedResult`], to exactly the receiver that the policy saw, and
//! signed.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::credential::Secret;
use super::error::EscalateError;
use super::http::{Call, Http, HttpError, Method};
use super::portal::{self, Sign};
use super::proof::Proof;
use crate::audit::{Audit, Sent, Unwritten};
use crate::destination::{Credential, Transport};
use crate::network::{Network, Purpose};
use crate::policy::ClearedResult;
use crate::results::receiver::{Address, Webhook};
use crate::results::signature;

const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// The way to one webhook.
#[derive(Debug)]
pub struct Hook {
    http: Http,
    secret: Credential,
    timeout: Duration,
    audit: Audit,
}

/// What became of a result that was posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Posted {
    /// The receiver has it.
    Taken,
    /// The receiver answered, and did not take it.
    Refused {
        /// What it said.
        why: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// Nobody answered, or it could not be sent at all.
    Unreached {
        /// Why.
        why: String,
    },
    /// The receiver wants nothing any more: 410.
    Gone,
}

impl Hook {
    /// Sets up the way to `webhook`, whose posts are put on record and counted; opens no connection.
    ///
    /// # Errors
    /// When its URL or TLS cannot be used.
    pub fn new(webhook: &Webhook, audit: Audit, network: &Network) -> Result<Self, EscalateError> {
        let url = match &webhook.receiver.address {
            Address::Url(url) => url.as_str(),
            Address::Controller => "",
        };
        let (name, tls) = (webhook.name.as_str(), Transport::default());
        let tap = network.tap(Purpose::Webhook, name);
        let http = Http::to(name, url, CONNECT_WITHIN, 1, &tls, tap)?;
        let secret = Credential::File(webhook.secret_file.clone());
        Ok(Self { http, secret, timeout: webhook.timeout, audit })
    }

    /// What is wrong with the secret that signs, if something is.
    pub async fn secret_fault(&self) -> Option<String> {
        self.signing_key().await.err()
    }

    async fn signing_key(&self) -> Result<Vec<u8>, String> {
        let secret = Secret::read(&self.secret).await;
        let secret = secret.map_err(|error| crate::error_chain(&error))?;
        secret.signing_key().ok_or_else(|| "its secret is not base64 behind whsec_".to_owned())
    }

    /// Posts one result; `at_s` is the date in seconds since 1970-01-01 UTC.
    pub async fn post(&self, cleared: ClearedResult<'_>, at_s: u64) -> Posted {
        let Address::Url(url) = &cleared.receiver().address else {
            return Posted::Unreached { why: "it has no URL".to_owned() };
        };
        let key = match self.signing_key().await {
            Ok(key) => key,
            Err(why) => return Posted::Unreached { why },
        };
        let body = cleared.body();
        let mut record = match self.audit.sent(on_record(&cleared, &body)).await {
            Ok(record) => record,
            Err(Unwritten(cause)) => {
                let why = format!("nothing is sent while it cannot be put on record: {cause}");
                return Posted::Unreached { why };
            }
        };
        let id = cleared.id().to_string();
        let headers = vec![
            ("content-type", "application/json".to_owned()),
            ("webhook-signature", signature::sign(&key, &id, at_s, &body)),
            ("webhook-id", id),
            ("webhook-timestamp", at_s.to_string()),
        ];
        let (asked, url, body) = (url, url.clone(), Bytes::from(body));
        let call = Call { method: Method::Post, url, headers, proof: Proof::new(), body };
        let deadline = Instant::now() + self.timeout;
        let posted = match self.http.exchange(call, deadline, || {}).await {
            // A receiver that moved for good says so with its own redirect.
            Ok(reply)
                if let Some(sign) = portal::sign(asked, &reply)
                    && !matches!(sign, Sign::Away { for_good: true, .. }) =>
            {
                Posted::Unreached { why: format!("somebody else answers in its place: {sign}") }
            }
            Ok(reply) => match reply.status {
                200..=299 => Posted::Taken,
                410 => Posted::Gone,
                status => {
                    let why = format!("status {status}");
                    Posted::Refused { why, retry_after: reply.retry_after }
                }
            },
            Err(error) => unreached(error),
        };
        let on_disk = record.on_disk();
        record.ended(posted.outcome(), (0, 0), 0);
        on_disk.await;
        posted
    }
}

impl Posted {
    /// A word for the record.
    fn outcome(&self) -> &'static str {
        match self {
            Self::Taken => "answered",
            Self::Refused { .. } => "refused",
            Self::Unreached { .. } => "unreachable",
            Self::Gone => "gone",
        }
    }
}

/// What the record says of a result that is posted.
fn on_record(cleared: &ClearedResult<'_>, body: &[u8]) -> Sent {
    let (reply, receiver) = (cleared.reply(), cleared.receiver());
    Sent {
        request: cleared.id(),
        asked: reply.subject.name().to_owned(),
        class: reply.class,
        destination: receiver.name.clone(),
        zone: receiver.zone,
        bytes: u64::try_from(body.len()).unwrap_or(u64::MAX),
        most_micros: 0,
    }
}

fn unreached(error: HttpError) -> Posted {
    let is_answered = error.is_answered();
    let why = match error {
        HttpError::Connect(cause)
        | HttpError::Impostor(cause)
        | HttpError::Cut(cause)
        | HttpError::Unfinished(cause) => cause,
        HttpError::NoAnswer => "no answer within its timeout".to_owned(),
        HttpError::TooLong { .. } => "its answer is too long".to_owned(),
    };
    if is_answered { Posted::Refused { why, retry_after: None } } else { Posted::Unreached { why } }
}
