//! Owns sending requests to destinations, and what is known of the way there.
//!
//! One client per destination; every retry time, rate limit and link state is the destination's
//! own. What to do after a failure is [`SendError::next`]; doing it is the caller's part.
//!
//! Whatever is sent passes `passage.rs`: a request of a task (`send`), or what is asked of a model that
//! its caller names (`talk.rs`), in one piece or piece by piece.
//!
//! **Invariant:** what is sent is a [`Cleared`], to exactly the destination that the policy saw; and
//! results go out as a [`ClearedResult`](crate::policy::ClearedResult) alone.

mod budget;
mod chat;
mod circuit;
mod circuits;
pub mod connectivity;
mod credential;
mod download;
mod endpoint;
mod error;
mod exchange;
#[cfg(test)]
pub(crate) mod fakes;
mod hedge;
mod holdfast;
mod hook;
mod http;
mod latency;
mod limits;
pub mod link;
mod links;
mod local;
mod next;
mod oip;
mod outlook;
mod passage;
mod pause;
mod portal;
mod probe;
mod proof;
mod purse;
#[cfg(test)]
pub(crate) mod scripted;
mod talk;
mod tally;
#[cfg(test)]
mod tests;
mod tokens;
mod transcribe;
mod trust;
mod turn;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

pub use self::chat::{Hints, TaskHints};
pub use self::connectivity::Connectivity;
pub use self::credential::CredentialError;
pub(crate) use self::credential::Secret;
pub use self::download::{DownloadError, download};
use self::endpoint::Endpoint;
pub use self::endpoint::credential_fault;
pub use self::error::{EscalateError, Fault, SendError};
pub use self::hedge::Attempt;
pub(crate) use self::hedge::in_turn;
pub use self::hook::{Hook, Posted};
pub use self::http::Method;
pub use self::limits::Share;
pub use self::link::{LinkState, LinkStates};
use self::links::Links;
pub(crate) use self::links::jitter;
pub use self::local::{LocalAgent, LocalError, ask_agent};
pub use self::next::Next;
pub use self::oip::Bundles;
use self::passage::Errand;
pub use self::pause::Pause;
pub use self::probe::{ProbeError, probe};
pub use self::purse::Purse;
pub use self::talk::{Telling, Told};
pub use self::tally::Counts;
use self::tally::Tally;
use self::turn::Turns;
pub use self::turn::{Standing, Turn};
use crate::answer::Answer;
use crate::audit::Audit;
use crate::destination::{Destination, Protocol};
use crate::network::Network;
use crate::policy::Cleared;
use crate::price::Content;
use crate::queue::URGENT;
use crate::subject::Subject;

/// Sends requests to the configured destinations.
#[derive(Debug)]
pub struct Escalator {
    endpoints: Vec<Arc<Endpoint>>,
    hints: Hints,
    bundles: Bundles,
    links: Arc<Links>,
    tally: Arc<Tally>,
    purse: Purse,
    audit: Audit,
    network: Network,
    freed: Arc<watch::Sender<u64>>,
}

impl Escalator {
    /// Sets up the clients; sends nothing. `hints` says what the tasks are, for destinations
    /// that do not know them; `purse` has what may be spent, `audit` the record of what is sent.
    ///
    /// # Errors
    /// A name that is there twice, an unfit URL, or TLS that cannot be set up.
    pub fn new(
        destinations: &[Destination],
        hints: Hints,
        purse: Purse,
        audit: Audit,
    ) -> Result<Self, EscalateError> {
        Self::over(Network::default(), destinations, hints, purse, audit)
    }

    /// As [`Escalator::new`], with what is sent counted by `network`, and sent as far as that lets it.
    ///
    /// # Errors
    /// As there.
    pub fn over(
        network: Network,
        destinations: &[Destination],
        hints: Hints,
        purse: Purse,
        audit: Audit,
    ) -> Result<Self, EscalateError> {
        let freed = Arc::new(watch::Sender::new(0));
        let mut endpoints: Vec<Arc<Endpoint>> = Vec::with_capacity(destinations.len());
        for destination in destinations {
            if endpoints.iter().any(|other| other.destination.name == destination.name) {
                return Err(EscalateError::Twice { name: destination.name.clone() });
            }
            let turns = Turns::new(destination, purse.clone(), freed.clone());
            endpoints.push(Arc::new(Endpoint::new(destination, turns, &network)?));
        }
        let names = destinations.iter().map(|destination| destination.name.as_str());
        let (links, tally) = (Arc::new(Links::new(names)), Arc::default());
        let bundles = Bundles::default();
        Ok(Self { endpoints, hints, bundles, links, tally, purse, audit, network, freed })
    }

    /// The same, with the bundles of this device, for destinations that take their tensors.
    #[must_use]
    pub fn with_bundles(self, bundles: Bundles) -> Self {
        Self { bundles, ..self }
    }

    /// The destinations, in the order of the configuration.
    pub fn destinations(&self) -> impl Iterator<Item = &Destination> {
        self.endpoints.iter().map(|endpoint| &endpoint.destination)
    }

    /// Says in the log whose credential cannot be read now; it is read anew at each use.
    pub async fn tell_missing_credentials(&self) {
        for destination in self.destinations() {
            if let Some(fault) = credential_fault(destination).await {
                let (destination, why) = (&destination.name, crate::error_chain(&fault));
                tracing::warn!(%destination, %why, "no credential: nothing goes there until it is there");
            }
        }
    }

    /// The record of what is sent.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// The meter of what is sent.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The state of every link, and a notice at each change.
    pub fn links(&self) -> watch::Receiver<LinkStates> {
        self.links.subscribe()
    }

    /// The state of the link to `name`, and for how long it has been up, down or in doubt.
    pub fn link(&self, name: &str) -> (LinkState, Duration) {
        self.links.lasting(name)
    }

    /// What every link is called now, in the order of their names.
    pub fn connectivity(&self) -> Vec<(String, Connectivity)> {
        let mut links = self.links.connectivity();
        for (name, state) in &mut links {
            *state = state.metered(self.network.is_metered_to(name));
        }
        links
    }

    /// What was sent since the start; what a link that is down kept back is not in it.
    pub fn counts(&self) -> Counts {
        self.tally.counts()
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

    /// For how long nothing that is held and asks `asked` goes to `name`, since it fails on everything that it
    /// is asked.
    pub fn rest(&self, name: &str, asked: &Subject) -> Option<Duration> {
        self.endpoint(name)?.rest(Some(asked))
    }

    /// Whether `name` fails on everybody who asks it `asked`, as far as is known.
    pub fn is_failing(&self, name: &str, asked: &Subject) -> bool {
        self.endpoint(name).is_some_and(|endpoint| {
            let model = endpoint.destination.model_asked(asked);
            !endpoint.circuits.is_closed(model)
        })
    }

    /// What `name` would do with something held that came now and asks `asked`, or whatever.
    pub fn standing(&self, name: &str, asked: Option<&Subject>, share: Share) -> Standing {
        let Some(endpoint) = self.endpoint(name) else { return Standing::LinkDown };
        if self.links.get(name).is_down() {
            return Standing::LinkDown;
        }
        if let Err(used_up) = self.network.may(name, share == Share::First) {
            return Standing::OverBudget(used_up.renews_in);
        }
        match endpoint.paused.get(Instant::now()) {
            Some(pause) => Standing::Paused(pause.left()),
            None => match endpoint.rest(asked) {
                Some(left) => Standing::Paused(left),
                None => endpoint.turns.standing(share),
            },
        }
    }

    /// Takes a turn at `name` for a held request that asks `asked`, with a body of `bytes`, if it has one now.
    ///
    /// # Errors
    /// Why it has none.
    pub fn try_turn(
        &self,
        name: &str,
        asked: &Subject,
        share: Share,
        bytes: u64,
    ) -> Result<Turn, Standing> {
        match (self.standing(name, Some(asked), share), self.endpoint(name)) {
            (Standing::Open, Some(endpoint)) => endpoint.try_turn(asked, share, bytes),
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
        self.send_among(cleared, within, &Attempt::default()).await
    }

    /// As [`Escalator::send`], as one attempt of several.
    pub(crate) async fn send_among(
        &self,
        cleared: Cleared<'_>,
        within: Duration,
        attempt: &Attempt,
    ) -> Result<Answer, SendError> {
        let sending = self.attempt(cleared, within, None, Some(attempt));
        self.counted(&cleared.destination().name, sending).await
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
        self.counted(&cleared.destination().name, self.attempt(cleared, within, Some(turn), None))
            .await
    }

    async fn counted<T>(
        &self,
        destination: &str,
        sending: impl Future<Output = Result<T, SendError>>,
    ) -> Result<T, SendError> {
        let began = Instant::now();
        let result = sending.await;
        self.tally.note(destination, began, result.as_ref().err());
        result
    }

    async fn attempt(
        &self,
        cleared: Cleared<'_>,
        within: Duration,
        turn: Option<Turn>,
        attempt: Option<&Attempt>,
    ) -> Result<Answer, SendError> {
        let (request, destination) = (cleared.request(), cleared.destination());
        let bytes = u64::try_from(request.media.bytes().len()).unwrap_or(u64::MAX);
        let mut errand = Errand {
            destination,
            id: request.id,
            model: destination.model(request.task.as_str()),
            asked: request.task.as_str(),
            class: request.class,
            hops: request.hops,
            is_urgent: request.priority.get() >= URGENT,
            bytes,
            content: Content::default(),
            tokens_out: None,
            cost_limit: None,
            within,
            attempt,
        };
        let mut usage = None;
        let (answer, cost_micros) = match &destination.protocol {
            Protocol::Holdfast | Protocol::HoldfastModel(_) => {
                let passage = self.enter(&errand, turn).await?;
                let result = holdfast::ask(&passage.exchange(), request).await;
                passage.settle(result, None).await?
            }
            Protocol::Chat(chat) => {
                chat::check_fit(destination, chat, request, &self.hints)?;
                errand.bytes = chat::sent_bytes(bytes);
                errand.content = chat::priced(&request.media);
                errand.tokens_out = chat.max_tokens;
                let passage = self.enter(&errand, turn).await?;
                let exchange = passage.exchange();
                let result = chat::ask(&exchange, chat, request, &self.hints, &mut usage).await;
                passage.settle(result, usage.as_ref()).await?
            }
            Protocol::Oip(oip) => {
                let began = Instant::now();
                // Nothing is worked at for whom nobody can be asked.
                self.may_go(&errand)?;
                let prepared = oip::prepare(destination, request, &self.bundles, within).await?;
                errand.bytes = prepared.bytes();
                errand.within = within.saturating_sub(began.elapsed());
                let passage = self.enter(&errand, turn).await?;
                let result = oip::ask(&passage.exchange(), oip, request, prepared).await;
                passage.settle(result, None).await?
            }
        };
        Ok(Answer { cost_micros, ..answer })
    }

    fn endpoint(&self, name: &str) -> Option<&Endpoint> {
        let found = self.endpoints.iter().find(|endpoint| endpoint.destination.name == name);
        found.map(|endpoint| &**endpoint)
    }
}
