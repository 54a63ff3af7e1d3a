//! Owns asking destinations that are down or in doubt whether they are there.
//!
//! **Invariant:** a probe carries no data and no credential, an answered link is not probed, and what a
//! captive portal says to a probe is no answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use holdfast_chat::Dialect;
use thiserror::Error;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Escalator;
use super::endpoint::Endpoint;
use super::error::EscalateError;
use super::http::{Call, Http, HttpError, Method};
use super::link::{Event, LinkState};
use super::portal::{self, Sign};
use super::proof::Proof;
use crate::destination::{Destination, Protocol};
use crate::network::Tap;

/// A probe that takes longer found nobody.
const LONGEST_PROBE: Duration = Duration::from_secs(5);

/// Over a metered link a destination that was not there so often
const MANY: u32 = 8;
/// is probed so much later.
const SPARING: Duration = Duration::from_secs(5 * 60);

impl Escalator {
    /// Probes every link that is down or in doubt, when it is due, until `cancel`.
    pub async fn probe_task(self: Arc<Self>, cancel: CancellationToken) {
        let probes = self.endpoints.iter().map(|endpoint| self.probe_endpoint(endpoint));
        cancel.run_until_cancelled(join_all(probes)).await;
    }

    /// Asks `name` at once whether it is there, and takes in what it says.
    pub async fn check(&self, name: &str) -> bool {
        let Some(endpoint) = self.endpoint(name) else { return false };
        self.probed(endpoint).await == Event::Answered
    }

    async fn probed(&self, endpoint: &Endpoint) -> Event {
        let name = &endpoint.destination.name;
        let (event, sign) = endpoint.probe().await;
        let was_portal = matches!(self.links.get(name), LinkState::Down { is_portal: true, .. });
        if let Some(sign) = sign.filter(|_| !was_portal) {
            tracing::warn!(
                destination = name,
                sign,
                "something else answers in its place, such as a captive portal; requests for it are held"
            );
        }
        self.links.note(name, event);
        if event != Event::Answered {
            // How it failed before says nothing of how it is when it is back.
            endpoint.circuits.renew();
        }
        event
    }

    async fn probe_endpoint(&self, endpoint: &Endpoint) {
        let name = &endpoint.destination.name;
        let mut states = self.links.subscribe();
        loop {
            let state = states.borrow_and_update().get(name);
            let due = match state {
                LinkState::Up => None,
                LinkState::Unknown => Some(Instant::now()),
                LinkState::Down { retry_at, attempt, .. } => {
                    let costs = self.network.is_metered() && attempt > MANY;
                    Some(Instant::from_std(retry_at) + if costs { SPARING } else { Duration::ZERO })
                }
            };
            let wait = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = states.changed() => if changed.is_err() { return },
                () = wait => match self.network.may(name, true) {
                    Ok(()) => drop(self.probed(endpoint).await),
                    // Nothing is left of what the metered link may carry, what is urgent included.
                    Err(used_up) => sleep(used_up.renews_in.min(SPARING)).await,
                },
            }
        }
    }
}

impl Endpoint {
    /// What a probe saw, and what shows that it was somebody else.
    async fn probe(&self) -> (Event, Option<String>) {
        let limit = LONGEST_PROBE.min(self.destination.timeout);
        let doubted = self.doubted.load(Ordering::Relaxed);
        match reach(&self.destination, &self.probes, limit, doubted).await {
            Ok(None) => (Event::Answered, None),
            Ok(sign) => (Event::Portal, sign),
            Err(_) => (Event::ProbeFailed, None),
        }
    }
}

/// Why a destination is not there.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// It is configured wrongly.
    #[error(transparent)]
    Configured(#[from] EscalateError),
    /// Somebody else answered.
    #[error("something else answers in place of {destination}: {sign}")]
    Portal {
        /// The destination.
        destination: String,
        /// What shows it.
        sign: String,
    },
    /// Nobody answered over HTTP.
    #[error("{destination} does not answer: {cause}")]
    Silent {
        /// The destination.
        destination: String,
        /// What the network said.
        cause: String,
    },
}

/// Asks whether somebody answers at `destination`, once, `within` that time.
///
/// # Errors
/// When nobody does, or somebody else, or the destination cannot be set up.
pub async fn probe(destination: &Destination, within: Duration) -> Result<(), ProbeError> {
    let http = Http::new(destination, Tap::default())?;
    let name = || destination.name.clone();
    let seen = reach(destination, &http, within, true).await.map_err(|error| {
        let cause = match error {
            HttpError::Connect(cause) | HttpError::Impostor(cause) | HttpError::Cut(cause) => cause,
            HttpError::NoAnswer => format!("nothing within {} ms", within.as_millis()),
            HttpError::Unfinished(_) | HttpError::TooLong { .. } => {
                "an answer without an end".to_owned()
            }
        };
        ProbeError::Silent { destination: name(), cause }
    })?;
    seen.map_or(Ok(()), |sign| Err(ProbeError::Portal { destination: name(), sign }))
}

/// Whether somebody answers; what shows that it is not the destination, if something does. `doubted`: a
/// request was answered by somebody else.
async fn reach(
    destination: &Destination,
    http: &Http,
    limit: Duration,
    doubted: bool,
) -> Result<Option<String>, HttpError> {
    let counts = |sign: &Sign| match (&destination.protocol, sign) {
        (_, Sign::Told)
        | (Protocol::Holdfast | Protocol::HoldfastModel(_) | Protocol::Oip(_), _) => true,
        // Nothing is promised of the first page, and what stands before a provider may send those away who
        // show no credential.
        (Protocol::Chat(chat), Sign::Page) => doubted || chat.dialect.idle_path() != "/",
        (Protocol::Chat(_), Sign::Away { .. }) => doubted,
    };
    let url = match &destination.protocol {
        Protocol::Holdfast | Protocol::HoldfastModel(_) => format!("{}/healthz", destination.url),
        Protocol::Oip(_) => format!("{}/v2/health/live", destination.url),
        Protocol::Chat(chat) => Dialect::address(&destination.url, chat.dialect.idle_path()),
    };
    let (proof, body) = (Proof::new(), Bytes::new());
    let asked = url.clone();
    let call = Call { method: Method::Get, url, headers: Vec::new(), proof, body };
    match http.exchange(call, Instant::now() + limit, || ()).await {
        Ok(reply) => Ok(portal::sign(&asked, &reply).filter(counts).map(|sign| sign.to_string())),
        Err(HttpError::Impostor(cause)) => Ok(Some(cause)),
        // Over plain HTTP an answer without an end may be anybody's.
        Err(error) if error.is_answered() && !asked.starts_with("http://") => Ok(None),
        Err(error) => Err(error),
    }
}
