//! Owns the way of every send, whoever is asked what: link, pause, circuit, credential, turn, money and
//! token before it, and what is noted when it is over.
//!
//! **Invariant:** what goes out has a turn, with the most that it may cost noted on disk, and a line in the
//! record, which is on disk before anybody hears of the answer; what it cost in the end is settled once, and
//! what was cut off never counts as less than was set apart.

use std::sync::Arc;
use std::time::Duration;

use holdfast_chat::Usage;
use tokio::time::Instant;

use super::Escalator;
use super::circuits::Pass;
use super::credential::Secret;
use super::endpoint::Endpoint;
use super::error::SendError;
use super::exchange::{Exchange, Limit};
use super::hedge::{Attempt, FirstByte};
use super::links::Links;
use super::purse::Spent;
use super::tally::Leave;
use super::turn::Turn;
use crate::audit::{Sending, Sent, Unwritten};
use crate::destination::Destination;
use crate::price::{self, Content};
use crate::queue::RequestId;
use crate::request::{DataClass, MAX_HOPS};

/// What is to be sent, as far as it matters before it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Errand<'a> {
    pub(super) destination: &'a Destination,
    /// The name of what is asked.
    pub(super) id: RequestId,
    /// The model that is asked, or the task of another agent.
    pub(super) model: &'a str,
    /// Its task, or the model that is asked.
    pub(super) asked: &'a str,
    pub(super) class: DataClass,
    /// Agents that it came through.
    pub(super) hops: u8,
    /// It goes before others, and out of the reserve of a metered link's budget.
    pub(super) is_urgent: bool,
    /// Bytes that are posted.
    pub(super) bytes: u64,
    /// What is in it.
    pub(super) content: Content,
    /// The answer's length at most, where that is known.
    pub(super) tokens_out: Option<u32>,
    /// What its caller lets it cost.
    pub(super) cost_limit: Option<u64>,
    /// How long its caller waits.
    pub(super) within: Duration,
    /// Which attempt it is, where it is one of several.
    pub(super) attempt: Option<&'a Attempt>,
}

/// A send on its way.
#[derive(Debug)]
pub(super) struct Passage {
    endpoint: Arc<Endpoint>,
    links: Arc<Links>,
    turn: Turn,
    id: RequestId,
    pass: Pass,
    leave: Leave,
    first_byte: Option<FirstByte>,
    secret: Option<Secret>,
    token: Option<Secret>,
    limit: Limit,
    content: Content,
    tokens_out: Option<u32>,
    record: Sending,
}

/// How a send ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum End<'a> {
    /// With its answer.
    Answered,
    /// Without one; what was counted all the same is what it cost.
    Failed(&'a SendError),
    /// In the middle of an answer that came piece by piece: by an error, or since its caller left.
    Broken(Option<&'a SendError>),
}

/// What it may cost at most there, if it may.
fn affordable(
    destination: &Destination,
    errand: &Errand<'_>,
    is_held: bool,
) -> Result<u64, SendError> {
    let limits = &destination.limits;
    let most = price::most(limits, &errand.content, errand.tokens_out);
    // What is held and dearer than a day's budget would wait for one day after the other.
    let budget = limits.budget_micros.filter(|_| is_held);
    match errand.cost_limit.into_iter().chain(budget).find(|limit| *limit < most) {
        Some(limit) => {
            Err(SendError::TooDear { destination: destination.name.clone(), most, limit })
        }
        None => Ok(most),
    }
}

impl Escalator {
    /// Passes everything that comes before a send; `turn` is that of somebody who has one already.
    pub(super) async fn enter(
        &self,
        errand: &Errand<'_>,
        turn: Option<Turn>,
    ) -> Result<Passage, SendError> {
        let endpoint = self.configured(errand.destination)?;
        let destination = || endpoint.destination.name.clone();
        if errand.hops >= MAX_HOPS {
            return Err(SendError::TooManyHops { destination: destination() });
        }
        let most = affordable(&endpoint.destination, errand, turn.is_some())?;
        let limit = Limit::new(&endpoint.destination, errand.within);
        self.check_link(endpoint)?;
        self.check_plan(endpoint, errand.is_urgent)?;
        let secret = endpoint.secret().await?;
        endpoint.check_pause(secret.as_ref())?;
        if turn.as_ref().is_none_or(|turn| !turn.has_pass()) {
            endpoint.check_circuit(errand.model)?;
        }
        let mut turn = match turn.filter(|turn| turn.destination() == endpoint.destination.name) {
            Some(mut turn) => {
                turn.set_apart(most).map_err(|renews_in| SendError::OverBudget {
                    destination: destination(),
                    renews_in,
                })?;
                turn
            }
            None => {
                let moves_on = errand.attempt.is_some_and(|attempt| attempt.moves_on);
                endpoint.turns.take(errand.bytes, most, limit.deadline(), moves_on).await?
            }
        };
        // The wait for a turn may have been long.
        self.check_link(endpoint)?;
        self.check_plan(endpoint, errand.is_urgent)?;
        endpoint.check_pause(secret.as_ref())?;
        let mut pass = match turn.take_pass() {
            Some(pass) => pass,
            None => endpoint.admit(errand.model)?,
        };
        let token = endpoint.token(secret.as_ref(), limit.deadline()).await?;
        let mut record = self.put_on_record(errand, most).await?;
        if Instant::now() >= limit.deadline() {
            // Nothing went out: whoever is late here, it is not the destination.
            return Err(SendError::Busy { destination: destination() });
        }
        turn.goes_out();
        pass.goes_out(errand.id);
        record.goes_out();
        let (endpoint, links) = (Arc::clone(endpoint), Arc::clone(&self.links));
        let first_byte = errand.attempt.map(|attempt| attempt.first_byte.clone());
        let limit = limit.begun_now();
        let leave = Leave::new(&self.tally, &endpoint.destination.name);
        let Errand { id, content, tokens_out, .. } = *errand;
        Ok(Passage {
            endpoint,
            links,
            turn,
            id,
            pass,
            leave,
            first_byte,
            secret,
            token,
            limit,
            content,
            tokens_out,
            record,
        })
    }

    /// Has it written down what it may cost, and that it goes out.
    async fn put_on_record(&self, errand: &Errand<'_>, most: u64) -> Result<Sending, SendError> {
        let destination = || errand.destination.name.clone();
        self.purse.note().await.map_err(|error| {
            let cause = error.to_string();
            SendError::Unnoted { destination: destination(), cause }
        })?;
        let recorded = self.audit.sent(errand.sent(most)).await;
        recorded
            .map_err(|Unwritten(cause)| SendError::Unrecorded { destination: destination(), cause })
    }

    /// The endpoint of a destination that is configured just as the policy saw it.
    fn configured(&self, destination: &Destination) -> Result<&Arc<Endpoint>, SendError> {
        let found = self.endpoints.iter().find(|endpoint| endpoint.destination == *destination);
        found.ok_or_else(|| SendError::NotConfigured { destination: destination.name.clone() })
    }

    /// Whether an errand could go now, as far as the link and the budget of a metered one say.
    pub(super) fn may_go(&self, errand: &Errand<'_>) -> Result<(), SendError> {
        let endpoint = self.configured(errand.destination)?;
        self.check_link(endpoint)?;
        self.check_plan(endpoint, errand.is_urgent)
    }

    /// What is over a metered link, and beyond its budget, waits.
    fn check_plan(&self, endpoint: &Endpoint, is_urgent: bool) -> Result<(), SendError> {
        let destination = &endpoint.destination.name;
        self.network.may(destination, is_urgent).map_err(|used_up| SendError::OverPlan {
            destination: destination.clone(),
            until: used_up.until(),
            renews_in: used_up.renews_in,
        })
    }

    fn check_link(&self, endpoint: &Endpoint) -> Result<(), SendError> {
        let destination = &endpoint.destination.name;
        if self.links.get(destination).is_down() {
            return Err(SendError::LinkDown { destination: destination.clone() });
        }
        Ok(())
    }
}

impl Errand<'_> {
    /// What the record says of it.
    fn sent(&self, most_micros: u64) -> Sent {
        Sent {
            request: self.id,
            asked: self.asked.to_owned(),
            class: self.class,
            destination: self.destination.name.clone(),
            zone: self.destination.zone,
            bytes: self.bytes,
            most_micros,
        }
    }
}

impl Passage {
    /// What a protocol needs for its calls.
    pub(super) fn exchange(&self) -> Exchange<'_> {
        let (secret, token) = (self.secret.as_ref(), self.token.as_ref());
        Exchange::new(
            &self.endpoint,
            &self.links,
            (secret, token),
            self.limit,
            self.first_byte.as_ref(),
        )
    }

    /// Takes in that the answer has begun.
    pub(super) fn answers(&mut self) {
        self.pass.answered();
    }

    pub(super) fn destination(&self) -> &Destination {
        &self.endpoint.destination
    }

    /// Waits until its line in the record is on disk, before the first piece of an answer is told.
    pub(super) async fn on_record(&mut self) {
        self.record.on_disk().await;
    }

    /// Ends it, `usage` being what was counted; tells what an answer cost, where that has a price.
    pub(super) fn end(mut self, end: End<'_>, usage: Option<&Usage>) -> Option<u64> {
        self.leave.is_over();
        let limits = &self.endpoint.destination.limits;
        let counted = usage.filter(|usage| usage.input > 0);
        let counted = counted.map(|usage| price::of(limits, &self.content, Some(usage)));
        let cost = price::answered(limits, &self.content, self.tokens_out, usage);
        let (spent, error) = match end {
            End::Answered => (Spent::Known(cost), None),
            End::Failed(error) => {
                let spent = match (counted, error.may_cost()) {
                    (Some(counted), _) => Spent::Known(counted),
                    (None, true) => Spent::AtLeast(0),
                    (None, false) => Spent::Known(0),
                };
                (spent, Some(error))
            }
            End::Broken(error) => (Spent::AtLeast(counted.unwrap_or_default()), error),
        };
        let outcome = match end {
            End::Answered => "answered",
            End::Broken(Some(_)) => "cut",
            End::Broken(None) => "left",
            End::Failed(error) => error.code(),
        };
        let tokens = usage.map_or((0, 0), |usage| (usage.input, usage.output));
        let micros = match spent {
            Spent::Known(micros) => micros,
            Spent::AtLeast(micros) => micros.max(self.record.most_micros()),
        };
        self.record.ended(outcome, tokens, micros);
        match (end, error) {
            (End::Answered, _) => self.pass.answered(),
            (_, Some(error)) => {
                self.pass.failed(self.id, error);
                self.endpoint.note(error, self.secret.as_ref(), self.token.as_ref());
            }
            (_, None) => {}
        }
        // What was seen is known before the place is free.
        drop(self.pass);
        self.turn.end(spent);
        limits.has_prices().then_some(cost)
    }

    /// Ends one that has its answer in one piece, or none; returns when its line in the record is on disk.
    pub(super) async fn settle<T>(
        mut self,
        result: Result<T, SendError>,
        usage: Option<&Usage>,
    ) -> Result<(T, Option<u64>), SendError> {
        let end = result.as_ref().map_or_else(End::Failed, |_| End::Answered);
        let on_disk = self.record.on_disk();
        // Its place is another's meanwhile.
        let cost = self.end(end, usage);
        on_disk.await;
        Ok((result?, cost))
    }
}
