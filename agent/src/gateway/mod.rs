//! Owns the way of an inquiry: which destinations the name of its model means, who of them is asked,
//! and what is told when nobody answers.
//!
//! The destinations are asked one after the other, as far as the class lets it go there, in the order of
//! the route ([`balance`](crate::balance)); the next one is asked after a failure, as long as nothing of
//! an answer was given to the caller and there is time. A spent rate is waited for when nobody else is left.
//!
//! **Invariant:** whatever leaves the device goes through [`Policy::clear`](crate::policy::Policy::clear);
//! nothing is asked again once a piece of an answer is out of here.

mod cached;
pub mod held;
pub mod holdable;
mod keys;
mod kinds;
mod listening;
mod local;
pub mod plan;
mod refused;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use holdfast_chat::{self as chat, Conversation, Event, Vectors};
use tokio::time::Instant;

pub use self::cached::{Asker, Found, Given, Wants};
use self::kinds::Sharing;
pub use self::listening::Rest;
pub use self::plan::Route;
pub use self::refused::Refused;
use crate::answer::Reason;
use crate::balance::Balance;
use crate::destination::{Destination, Zone};
use crate::escalate::{Attempt, SendError, Told, in_turn};
use crate::inquiry::{Inquiry, Matter, Recording, Texts};
use crate::policy::Cleared;
use crate::price;
use crate::service::Service;

/// The way of inquiries.
#[derive(Debug, Clone)]
pub struct Gateway {
    service: Service,
    routes: Arc<[Route]>,
    sharing: Arc<Sharing>,
    keys: keys::Keys,
}

/// An answer, and who gave it.
#[derive(Debug, Clone)]
pub struct Answered<A> {
    /// The answer.
    pub answer: A,
    /// The destination's name, or `device`.
    pub place: String,
    /// Its zone.
    pub zone: Zone,
    /// What it cost, in millionths of the operator's currency, where that is known.
    pub cost_micros: Option<u64>,
}

/// An answer that has begun.
#[derive(Debug)]
pub struct Begun {
    /// The pieces that are there.
    pub events: Vec<Event>,
    /// The rest; `None` where that was all.
    pub rest: Option<Rest>,
}

/// Whether a second destination is asked beside one that is slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    /// Where the route says so.
    AsRouted,
    /// An answer that comes piece by piece, and what is no conversation.
    Never,
}

impl Gateway {
    /// The way to the destinations of `service`, with these routes.
    pub fn new(service: Service, routes: Vec<Route>) -> Self {
        let (sharing, keys) = (Arc::default(), keys::Keys::default());
        Self { service, routes: routes.into(), sharing, keys }
    }

    /// Asks for the answer to a conversation in one piece.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn converse(
        &self,
        model: &str,
        inquiry: &Inquiry<Conversation>,
    ) -> Result<Answered<chat::Answer>, Refused> {
        let escalator = &self.service.escalator;
        let send = move |cleared, within, attempt: Attempt| {
            let sending = async move { escalator.converse(cleared, within, &attempt).await };
            sending.boxed() as BoxFuture<'_, _>
        };
        self.along(model, inquiry, Beside::AsRouted, send).await.map(Answered::of)
    }

    /// Asks for the answer to a conversation piece by piece; returns when the first is there.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn converse_in_pieces(
        &self,
        model: &str,
        inquiry: &Inquiry<Conversation>,
    ) -> Result<Answered<Begun>, Refused> {
        let escalator = &self.service.escalator;
        let send = move |cleared, within, attempt: Attempt| {
            let begin = async move {
                let begun = escalator.converse_in_pieces(cleared, within, &attempt);
                let mut telling = begun.await?;
                let mut events = Vec::new();
                let mut is_more = true;
                while is_more && events.is_empty() {
                    is_more = telling.next(&mut events).await?;
                }
                let cost_micros = telling.cost_micros();
                let rest = is_more.then(|| Rest::Own(Box::new(telling)));
                Ok(Told { answer: Begun { events, rest }, cost_micros })
            };
            begin.boxed() as BoxFuture<'_, _>
        };
        self.along(model, inquiry, Beside::Never, send).await.map(Answered::of)
    }

    /// Asks for vectors of texts: a bundle of that name, or a destination.
    ///
    /// # Errors
    /// Why there are none.
    pub async fn embed(
        &self,
        model: &str,
        inquiry: &Inquiry<Texts>,
    ) -> Result<Answered<Vectors>, Refused> {
        if let Some(local) = local::embed(&self.service.engine, model, inquiry).await {
            return local;
        }
        let escalator = &self.service.escalator;
        let send = move |cleared, within, attempt: Attempt| {
            let sending = async move { escalator.embed(cleared, within, &attempt).await };
            sending.boxed() as BoxFuture<'_, _>
        };
        self.along(model, inquiry, Beside::Never, send).await.map(Answered::of)
    }

    /// Asks what a recording says: a bundle of that name, or a destination.
    ///
    /// # Errors
    /// Why nobody tells.
    pub async fn transcribe(
        &self,
        model: &str,
        inquiry: &Inquiry<Recording>,
    ) -> Result<Answered<String>, Refused> {
        if let Some(local) = local::transcribe(&self.service.engine, model, inquiry).await {
            return local;
        }
        let escalator = &self.service.escalator;
        let send = move |cleared, within, attempt: Attempt| {
            let sending = async move { escalator.transcribe(cleared, within, &attempt).await };
            sending.boxed() as BoxFuture<'_, _>
        };
        self.along(model, inquiry, Beside::Never, send).await.map(Answered::of)
    }

    /// Asks the destinations that `model` means, one after the other.
    async fn along<'a, M: Matter, A>(
        &'a self,
        model: &str,
        inquiry: &'a Inquiry<M>,
        beside: Beside,
        send: impl Fn(
            Cleared<'a, Inquiry<M>>,
            Duration,
            Attempt,
        ) -> BoxFuture<'a, Result<Told<A>, SendError>>,
    ) -> Result<(Told<A>, &'a Destination), Refused> {
        let begun = Instant::now();
        let (meant, route) = plan::meant(model, &self.service.destinations, &self.routes);
        if meant.is_empty() {
            return Err(self.unknown(model));
        }
        let (mut errors, mut reasons) = (Vec::new(), Vec::new());
        let mut allowed = Vec::with_capacity(meant.len());
        for destination in meant {
            match self.service.policy.clear(inquiry, destination) {
                Ok(cleared) => allowed.push(cleared),
                Err(denied) => reasons.push(denied.into()),
            }
        }
        let hedge_after = route.and_then(|route| route.balancing.hedge_after);
        let hedge_after = hedge_after.filter(|_| beside == Beside::AsRouted);
        let send = |cleared, asked, attempt| {
            let left = inquiry.terms.within.saturating_sub(begun.elapsed());
            (asked == 0 || !left.is_zero()).then(|| send(cleared, left, attempt))
        };
        let failed = |cleared: Cleared<'a, Inquiry<M>>, error: SendError| {
            let (destination, text) = (cleared.destination().name.clone(), error.to_string());
            reasons.push(Reason::SendFailed { destination, error: text });
            errors.push(error);
        };
        let allowed = self.in_order(route, inquiry, allowed);
        if let Some((cleared, told)) = in_turn(allowed, hedge_after, send, failed).await {
            return Ok((told, cleared.destination()));
        }
        Err(Refused::of(errors, reasons))
    }

    /// The destinations that the class may go to, in the order in which they are asked.
    fn in_order<'a, M: Matter>(
        &self,
        route: Option<&Route>,
        inquiry: &Inquiry<M>,
        allowed: Vec<Cleared<'a, Inquiry<M>>>,
    ) -> Vec<Cleared<'a, Inquiry<M>>> {
        let Some(Route { balancing, .. }) = route else { return allowed };
        let asked: Vec<_> = allowed
            .iter()
            .map(|cleared| {
                let destination = cleared.destination();
                (destination, plan::model_of(destination).unwrap_or_default())
            })
            .collect();
        let price = |destination: &Destination| match balancing.balance {
            Balance::Price => {
                let (content, most) = (inquiry.matter.content(), inquiry.matter.tokens_out());
                price::likely(&destination.limits, &content, most)
            }
            Balance::Order | Balance::Weight | Balance::Latency => 0,
        };
        let order = self.service.escalator.in_order(balancing, &asked, price);
        order.into_iter().filter_map(|index| allowed.get(index).copied()).collect()
    }

    fn unknown(&self, model: &str) -> Refused {
        let known = self.models().into_iter().map(|entry| entry.id).collect();
        Refused::Unknown { model: model.chars().take(64).collect(), known }
    }

    /// Everything that can be asked by its name.
    pub fn models(&self) -> Vec<chat::served::models::ModelEntry> {
        let mut models = local::models(&self.service.engine);
        for entry in plan::names(&self.service.destinations, &self.routes) {
            if !models.iter().any(|model| model.id == entry.id) {
                models.push(entry);
            }
        }
        models
    }
}

impl<A> Answered<A> {
    fn of((told, destination): (Told<A>, &Destination)) -> Self {
        let (place, zone) = (destination.name.clone(), destination.zone);
        Self { answer: told.answer, place, zone, cost_micros: told.cost_micros }
    }
}
