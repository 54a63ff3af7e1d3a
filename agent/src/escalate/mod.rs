//! Owns sending requests to destinations, and what is known of the way there.
//!
//! One client per destination; every retry time, rate limit and link state is the destination's
//! own. What to do after a failure is [`SendError::next`]; doing it is the caller's part.
//!
//! **Invariant:** what is sent is a [`Cleared`], to exactly the destination that the policy saw; and
//! results go out as a [`ClearedResult`](crate::policy::ClearedResult) alone.

mod budget;
mod chat;
mod credential;
mod download;
mod error;
mod exchange;
#[cfg(test)]
pub(crate) mod fakes;
mod holdfast;
mod hook;
mod http;
mod limits;
pub mod link;
mod links;
mod local;
mod pause;
mod probe;
mod proof;
mod purse;
#[cfg(test)]
pub(crate) mod scripted;
#[cfg(test)]
mod tests;
mod tokens;
mod turn;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

pub use self::chat::{Hints, TaskHints};
pub use self::credential::CredentialError;
pub use self::download::{DownloadError, download};
pub use self::error::{EscalateError, Fault, Next, SendError};
use self::exchange::{Exchange, Limit};
pub use self::hook::{Hook, Posted};
use self::http::Http;
pub use self::http::Method;
pub use self::limits::Share;
pub use self::link::{LinkState, LinkStates};
use self::links::Links;
pub(crate) use self::links::jitter;
pub use self::local::{LocalAgent, LocalError, ask_agent};
pub use self::pause::Pause;
use self::pause::Paused;
pub use self::probe::{ProbeError, probe};
pub use self::purse::Purse;
use self::purse::Spent;
use self::tokens::Tokens;
use self::turn::Turns;
pub use self::turn::{Standing, Turn};
use crate::answer::Answer;
use crate::destination::{Destination, Protocol};
use crate::policy::Cleared;
use crate::price::{self, Input};
use crate::request::{MAX_HOPS, Request};

/// Sends requests to the configured destinations.
#[derive(Debug)]
pub struct Escalator {
    endpoints: Vec<Endpoint>,
    hints: Hints,
    links: Links,
    tally: Tally,
    purse: Purse,
    freed: Arc<watch::Sender<u64>>,
}

/// What was sent since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Sends that came to their end.
    pub sent: u64,
    /// Those that brought the final answer.
    pub answered: u64,
    /// Those that did not.
    pub failed: u64,
}

#[derive(Debug, Default)]
struct Tally {
    answered: AtomicU64,
    failed: AtomicU64,
}

/// One destination with what is its own.
#[derive(Debug)]
struct Endpoint {
    destination: Destination,
    http: Http,
    turns: Turns,
    paused: Paused,
    tokens: Tokens,
}

impl Escalator {
    /// Sets up the clients; sends nothing. `hints` says what the tasks are, for destinations
    /// that do not know them; `purse` has what may be spent.
    ///
    /// # Errors
    /// A name that is there twice, an unfit URL, or TLS that cannot be set up.
    pub fn new(
        destinations: &[Destination],
        hints: Hints,
        purse: Purse,
    ) -> Result<Self, EscalateError> {
        let freed = Arc::new(watch::Sender::new(0));
        let mut endpoints: Vec<Endpoint> = Vec::with_capacity(destinations.len());
        for destination in destinations {
            if endpoints.iter().any(|other| other.destination.name == destination.name) {
                return Err(EscalateError::Twice { name: destination.name.clone() });
            }
            endpoints.push(Endpoint {
                destination: destination.clone(),
                http: Http::new(destination)?,
                turns: Turns::new(destination, purse.clone(), freed.clone()),
                paused: Paused::default(),
                tokens: Tokens::default(),
            });
        }
        let names = destinations.iter().map(|destination| destination.name.as_str());
        let (links, tally) = (Links::new(names), Tally::default());
        Ok(Self { endpoints, hints, links, tally, purse, freed })
    }

    /// The destinations, in the order of the configuration.
    pub fn destinations(&self) -> impl Iterator<Item = &Destination> {
        self.endpoints.iter().map(|endpoint| &endpoint.destination)
    }

    /// The state of every link, and a notice at each change.
    pub fn links(&self) -> watch::Receiver<LinkStates> {
        self.links.subscribe()
    }

    /// The state of the link to `name`, and for how long it has been up, down or in doubt.
    pub fn link(&self, name: &str) -> (LinkState, Duration) {
        self.links.lasting(name)
    }

    /// What was sent since the start; what a link that is down kept back is not in it.
    pub fn counts(&self) -> Counts {
        let answered = self.tally.answered.load(Ordering::Relaxed);
        let failed = self.tally.failed.load(Ordering::Relaxed);
        Counts { sent: answered + failed, answered, failed }
    }

    /// Whether `name` is worth a send now: its link is not down.
    pub fn is_reachable(&self, name: &str) -> bool {
        !self.links.get(name).is_down()
    }

    /// Why `name` is left alone for the moment although its link may be up.
    pub fn pause(&self, name: &str) -> Option<Pause> {
        self.endpoint(name)?.paused.get(Instant::now())
    }

    /// Changes whenever a send is over, and a place free.
    pub fn turns(&self) -> watch::Receiver<u64> {
        self.freed.subscribe()
    }

    /// What `name` would do with a request that came now.
    pub fn standing(&self, name: &str, share: Share) -> Standing {
        let Some(endpoint) = self.endpoint(name) else { return Standing::LinkDown };
        if self.links.get(name).is_down() {
            return Standing::LinkDown;
        }
        match endpoint.paused.get(Instant::now()) {
            Some(pause) => Standing::Paused(pause.left()),
            None => endpoint.turns.standing(share),
        }
    }

    /// Takes a turn at `name` for a request with a body of `bytes`, if it has one now.
    ///
    /// # Errors
    /// Why it has none.
    pub fn try_turn(&self, name: &str, share: Share, bytes: u64) -> Result<Turn, Standing> {
        match (self.standing(name, share), self.endpoint(name)) {
            (Standing::Open, Some(endpoint)) => endpoint.try_turn(share, bytes),
            (standing, _) => Err(standing),
        }
    }

    /// Sends one request for somebody who waits, and waits for its final answer, `within` that time
    /// and the destination's own limit. Sending a request again under its id never doubles it at a
    /// Holdfast agent.
    ///
    /// # Errors
    /// [`SendError`], whose [`next`](SendError::next) says what to do.
    pub async fn send(&self, cleared: Cleared<'_>, within: Duration) -> Result<Answer, SendError> {
        self.counted(cleared, self.attempt(cleared, within, None)).await
    }

    /// As [`Escalator::send`], by somebody who has a turn already.
    ///
    /// # Errors
    /// As there.
    pub async fn send_in(
        &self,
        turn: Turn,
        cleared: Cleared<'_>,
        within: Duration,
    ) -> Result<Answer, SendError> {
        self.counted(cleared, self.attempt(cleared, within, Some(turn))).await
    }

    async fn counted(
        &self,
        cleared: Cleared<'_>,
        sending: impl Future<Output = Result<Answer, SendError>>,
    ) -> Result<Answer, SendError> {
        let started = Instant::now();
        let destination = &cleared.destination().name;
        let result = sending.await;
        let outcome = result.as_ref().map_or_else(SendError::code, |_| "answered");
        let labels = [("destination", destination.clone()), ("outcome", outcome.to_owned())];
        metrics::counter!("holdfast_escalations_total", &labels).increment(1);
        match &result {
            Ok(_) => self.tally.answered.fetch_add(1, Ordering::Relaxed),
            Err(SendError::LinkDown { .. }) => 0,
            Err(_) => self.tally.failed.fetch_add(1, Ordering::Relaxed),
        };
        if result.is_ok() {
            let labels = [("destination", destination.clone())];
            metrics::histogram!("holdfast_escalation_seconds", &labels).record(started.elapsed());
        }
        result
    }

    async fn attempt(
        &self,
        cleared: Cleared<'_>,
        within: Duration,
        turn: Option<Turn>,
    ) -> Result<Answer, SendError> {
        let name = || cleared.destination().name.clone();
        let request = cleared.request();
        let endpoint = self
            .endpoints
            .iter()
            .find(|endpoint| endpoint.destination == *cleared.destination())
            .ok_or_else(|| SendError::NotConfigured { destination: name() })?;
        if request.hops >= MAX_HOPS {
            return Err(SendError::TooManyHops { destination: name() });
        }
        if let Protocol::Chat(chat) = &endpoint.destination.protocol {
            chat::check_fit(&endpoint.destination, chat, request, &self.hints)?;
        }
        let limit = Limit::new(&endpoint.destination, within);
        self.check_link(endpoint)?;
        let secret = endpoint.secret().await?;
        endpoint.check_pause(secret.as_ref())?;
        let mut turn = match turn.filter(|turn| turn.destination() == endpoint.destination.name) {
            Some(turn) => turn,
            None => endpoint.wait_for_turn(request, limit.deadline()).await?,
        };
        let result = self.in_turn(endpoint, &mut turn, request, secret.as_ref(), limit).await;
        turn.end(match &result {
            Ok(answer) => Spent::Known(answer.cost_micros.unwrap_or_default()),
            Err(error) if error.may_cost() => Spent::All,
            Err(_) => Spent::Known(0),
        });
        if matches!(result, Err(SendError::Unauthorised { .. })) {
            endpoint.tokens.forget().await;
        }
        if let Err(error) = &result {
            endpoint.paused.note(error, secret.as_ref(), Instant::now());
        }
        result
    }

    async fn in_turn(
        &self,
        endpoint: &Endpoint,
        turn: &mut Turn,
        request: &Request,
        secret: Option<&credential::Secret>,
        limit: Limit,
    ) -> Result<Answer, SendError> {
        // The wait for a turn may have been long.
        self.check_link(endpoint)?;
        endpoint.check_pause(secret)?;
        self.purse.note().await.map_err(|error| {
            let destination = endpoint.destination.name.clone();
            SendError::Unnoted { destination, cause: error.to_string() }
        })?;
        turn.goes_out();
        let (destination, http) = (&endpoint.destination, &endpoint.http);
        let tokens = &endpoint.tokens;
        let exchange = Exchange::new(destination, http, &self.links, secret, tokens, limit);
        let limits = &destination.limits;
        let (answer, cost) = match &destination.protocol {
            Protocol::Holdfast => {
                (holdfast::ask(&exchange, request).await?, price::of(limits, Input::Words, None))
            }
            Protocol::Chat(chat) => {
                let input = chat::priced(&request.media);
                let (answer, usage) = chat::ask(&exchange, chat, request, &self.hints).await?;
                let cost = match price::is_counted(limits, usage.as_ref()) {
                    true => price::of(limits, input, usage.as_ref()),
                    false => price::most(limits, chat.max_tokens),
                };
                (answer, cost)
            }
        };
        Ok(Answer { cost_micros: limits.has_prices().then_some(cost), ..answer })
    }

    fn endpoint(&self, name: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.destination.name == name)
    }

    fn check_link(&self, endpoint: &Endpoint) -> Result<(), SendError> {
        let destination = &endpoint.destination.name;
        if self.links.get(destination).is_down() {
            return Err(SendError::LinkDown { destination: destination.clone() });
        }
        Ok(())
    }
}

impl Endpoint {
    async fn secret(&self) -> Result<Option<credential::Secret>, SendError> {
        let Some(credential) = &self.destination.credential else { return Ok(None) };
        let read = match proof::takes_whole(&self.destination.protocol) {
            true => credential::Secret::read_whole(credential).await,
            false => credential::Secret::read(credential).await,
        };
        match read {
            Ok(secret) => Ok(Some(secret)),
            Err(source) => {
                let destination = self.destination.name.clone();
                let error = SendError::Credential { destination, source };
                self.paused.note(&error, None, Instant::now());
                Err(error)
            }
        }
    }

    fn try_turn(&self, share: Share, bytes: u64) -> Result<Turn, Standing> {
        self.turns.try_take(share, self.sent_bytes(bytes))
    }

    async fn wait_for_turn(&self, request: &Request, deadline: Instant) -> Result<Turn, SendError> {
        let bytes = u64::try_from(request.media.bytes().len()).unwrap_or(u64::MAX);
        self.turns.take(self.sent_bytes(bytes), deadline).await
    }

    /// What an input of `bytes` becomes on its way.
    fn sent_bytes(&self, bytes: u64) -> u64 {
        match self.destination.protocol {
            Protocol::Holdfast => bytes,
            Protocol::Chat(_) => chat::sent_bytes(bytes),
        }
    }

    fn check_pause(&self, secret: Option<&credential::Secret>) -> Result<(), SendError> {
        let destination = self.destination.name.clone();
        self.paused.check(destination, secret, Instant::now())
    }
}
