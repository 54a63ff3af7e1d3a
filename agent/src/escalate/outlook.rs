//! Owns what is known beforehand of how a destination would take a request, and the order that follows.
//!
//! **Invariant:** nothing is sent here, and nobody is in the order who was not given.

use std::time::Duration;

use tokio::time::Instant;

use super::chat::priced;
use super::circuit::{Asker, Gate};
use super::endpoint::Endpoint;
use super::pause::Pause;
use super::turn::Standing;
use super::{Escalator, Share, jitter};
use crate::balance::{Balance, Balancing, Member, Readiness, order};
use crate::destination::Destination;
use crate::price;
use crate::request::Request;

impl Escalator {
    /// The places of `asked`, which are destinations with their models, in the order in which
    /// `balancing` has them asked; `price` is what the request is likely to cost there.
    pub(crate) fn in_order(
        &self,
        balancing: &Balancing,
        asked: &[(&Destination, &str)],
        price: impl Fn(&Destination) -> u64,
    ) -> Vec<usize> {
        if asked.len() < 2 || balancing.balance == Balance::Order {
            return (0..asked.len()).collect();
        }
        let members = asked.iter().map(|(destination, model)| {
            let (readiness, latency) = self.outlook(&destination.name, model);
            let (weight, price_micros) = (balancing.weight(&destination.name), price(destination));
            Member { weight, latency, price_micros, readiness }
        });
        order(balancing.balance, &members.collect::<Vec<_>>(), jitter())
    }

    /// These destinations in the order in which `balancing` has them asked `request`.
    pub(crate) fn for_task<'a>(
        &self,
        balancing: &Balancing,
        request: &Request,
        destinations: Vec<&'a Destination>,
    ) -> Vec<&'a Destination> {
        let asked = destinations.iter().map(|each| (*each, each.model(request.task.as_str())));
        let price = |each: &Destination| {
            price::likely(&each.limits, &priced(&request.media), each.max_tokens())
        };
        let order = self.in_order(balancing, &asked.collect::<Vec<_>>(), price);
        order.into_iter().filter_map(|index| destinations.get(index).copied()).collect()
    }

    fn outlook(&self, name: &str, model: &str) -> (Readiness, Option<Duration>) {
        let Some(endpoint) = self.endpoint(name) else { return (Readiness::Closed, None) };
        let readiness = match self.links.get(name).is_down() {
            true => Readiness::Closed,
            false => endpoint.readiness(model),
        };
        (readiness, endpoint.latency.get())
    }
}

impl Endpoint {
    /// How it would take something that somebody waits for.
    fn readiness(&self, model: &str) -> Readiness {
        match self.paused.get(Instant::now()) {
            Some(Pause::Throttled { .. }) => return Readiness::Closed,
            // Whoever renewed the credential is not kept waiting.
            Some(_) => return Readiness::InLine,
            None => {}
        }
        match (self.circuits.gate(model, Asker::Waiting), self.turns.standing(Share::First)) {
            (Gate::Open(_), _) => Readiness::Closed,
            (_, Standing::Open) => Readiness::Ready,
            // What is left of a budget may do for a small request.
            (_, Standing::Full | Standing::Limited(_) | Standing::OverBudget(_)) => {
                Readiness::InLine
            }
            (_, Standing::Paused(_) | Standing::LinkDown) => Readiness::Closed,
        }
    }
}
