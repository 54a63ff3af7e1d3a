//! Owns the way of an inquiry that a rule of the cache covers: an answer that was given before, a send that
//! is under way already, or a send of its own whose answer is kept.
//!
//! ```text
//! hit     an answer that was given before, where the policy in force still lets the class go to who gave it
//! shared  the send of somebody who asks the very same at the same time, under the same terms
//! miss    a send
//! ```
//!
//! **Invariant:** without a rule nothing of this is touched; only whole, good answers are kept; nobody
//! waits beyond its own time, which begins when it asks, and nobody is given an answer that it could not
//! have been sent for now.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use holdfast_chat::{Answer, Conversation, Vectors};
use tokio::time::{Instant, timeout_at};

use super::in_flight::{InFlight, Listed, Sending};
use super::kinds::{Kind, Whole};
use super::listening::{Rest, Source, Streamed};
use super::{Answered, Begun, Gateway, Refused, plan};
use crate::cache::{Cache, Digest, Kept, What, way_of};
use crate::inquiry::{Inquiry, Recording, Texts};

/// From this size on a digest is not made on the reactor.
const LARGE: usize = 256 * 1024;
/// Who has this part of its time left when the send of another ran out of time sends itself.
const PART_LEFT: u32 = 4;
/// This part of its time an inquiry may look for an answer that was given before.
const PART_LOOKING: u32 = 4;

/// Who asks, and which answers will do.
#[derive(Debug, Clone)]
pub struct Asker {
    /// What tells the caller from every other one; where nothing does, no rule covers it.
    pub caller: Option<String>,
    /// Which answers will do.
    pub wants: Wants,
}

/// Which answers will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wants {
    /// Any.
    #[default]
    Any,
    /// A new one, which may be kept: `no-cache`.
    New,
    /// A new one that is for nobody else: `no-store`.
    Own,
}

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It was given before, so long ago.
    Hit(Duration),
    /// Another one had asked for it, and it was on its way.
    Shared,
    /// It was asked for.
    Miss,
}

impl Found {
    /// The word in headers and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit(_) => "hit",
            Self::Shared => "shared",
            Self::Miss => "miss",
        }
    }

    fn count(self) -> Self {
        metrics::counter!("holdfast_cache_lookups_total", "outcome" => self.as_str()).increment(1);
        self
    }
}

/// What somebody is told, and where it came from; `None` where no rule covers it.
pub type Given<A> = Result<(Answered<A>, Option<Found>), Arc<Refused>>;

/// An inquiry that a rule covers.
struct Covered<M> {
    cache: Cache,
    ttl: Duration,
    digest: Digest,
    model: Arc<str>,
    inquiry: Arc<Inquiry<M>>,
    /// Whether it may wait with others.
    joins: bool,
    /// When its time ends.
    until: Instant,
}

impl<M> Clone for Covered<M> {
    fn clone(&self) -> Self {
        Self {
            cache: self.cache.clone(),
            ttl: self.ttl,
            digest: self.digest,
            model: self.model.clone(),
            inquiry: self.inquiry.clone(),
            joins: self.joins,
            until: self.until,
        }
    }
}

/// A send that somebody waited for.
struct Waited<T: Clone> {
    told: T,
    found: Found,
    /// The send, where others may find it.
    send: Option<Sending<Result<T, Arc<Refused>>>>,
}

impl Gateway {
    /// As [`Gateway::converse`], where an answer that is there will do.
    ///
    /// # Errors
    /// Why there is none; all who share a send are told the same.
    pub async fn converse_as(
        &self,
        asker: Asker,
        model: &str,
        inquiry: &Inquiry<Conversation>,
    ) -> Given<Arc<Answer>> {
        self.once(asker, model, inquiry).await
    }

    /// As [`Gateway::embed`], where an answer that is there will do.
    ///
    /// # Errors
    /// As there.
    pub async fn embed_as(
        &self,
        asker: Asker,
        model: &str,
        inquiry: &Inquiry<Texts>,
    ) -> Given<Arc<Vectors>> {
        self.once(asker, model, inquiry).await
    }

    /// As [`Gateway::transcribe`], where an answer that is there will do.
    ///
    /// # Errors
    /// As there.
    pub async fn transcribe_as(
        &self,
        asker: Asker,
        model: &str,
        inquiry: &Inquiry<Recording>,
    ) -> Given<Arc<String>> {
        self.once(asker, model, inquiry).await
    }

    /// As [`Gateway::converse_in_pieces`], where an answer that is there will do.
    ///
    /// # Errors
    /// As there.
    pub async fn converse_in_pieces_as(
        &self,
        asker: Asker,
        model: &str,
        inquiry: &Inquiry<Conversation>,
    ) -> Given<Begun> {
        let until = Instant::now() + inquiry.terms.within;
        let Some((caller, ttl)) = self.rule(&asker, model, inquiry) else {
            let begun = self.converse_in_pieces(model, inquiry).await.map_err(Arc::new)?;
            return Ok((begun, None));
        };
        if asker.wants == Wants::Own {
            let begun = self.converse_in_pieces(model, inquiry).await.map_err(Arc::new)?;
            return Ok((begun, Some(Found::Miss.count())));
        }
        let joins = asker.wants == Wants::Any;
        let covered = self.covered((caller, model), inquiry, (ttl, joins, until)).await?;
        if let Some((answered, found)) = self.hit(&covered, &self.sharing.streams).await {
            let begun = |answer: Arc<Answer>| Begun { events: answer.pieces(), rest: None };
            return Ok((answered.map(begun), Some(found)));
        }
        let begin = |covered, listed| self.begin_stream(covered, listed);
        let waited = self.together(&self.sharing.streams, covered, begin).await?;
        let Waited { told, found, send } = waited;
        // Who sent it has its time in the sending.
        let time = (found == Found::Shared).then_some((inquiry.terms.within, until));
        let hear = |source: Source| Begun {
            events: Vec::new(),
            rest: Some(Rest::Heard(source.hear(time, send))),
        };
        Ok((told.map(hear).costs_nothing_if(found == Found::Shared), Some(found)))
    }

    async fn once<M: Kind>(
        &self,
        asker: Asker,
        model: &str,
        inquiry: &Inquiry<M>,
    ) -> Given<Arc<M::Answer>> {
        let until = Instant::now() + inquiry.terms.within;
        let rule = self.rule(&asker, model, inquiry);
        let Some((caller, ttl)) = rule.filter(|_| !M::is_local(self, model)) else {
            let answered = M::ask(self, model, inquiry).await.map_err(Arc::new)?;
            return Ok((answered.map(Arc::new), None));
        };
        if asker.wants == Wants::Own {
            let answered = M::ask(self, model, inquiry).await.map_err(Arc::new)?;
            return Ok((answered.map(Arc::new), Some(Found::Miss.count())));
        }
        let joins = asker.wants == Wants::Any;
        let covered = self.covered((caller, model), inquiry, (ttl, joins, until)).await?;
        if let Some((answered, found)) = self.hit(&covered, M::sends(&self.sharing)).await {
            return Ok((answered, Some(found)));
        }
        let begin = |covered, listed| self.begin(covered, listed);
        let waited = self.together(M::sends(&self.sharing), covered, begin).await?;
        let found = waited.found;
        Ok((waited.told.costs_nothing_if(found == Found::Shared), Some(found)))
    }

    /// Who asks, and how long the answer is kept; `None` where no rule covers it.
    fn rule<'a, M>(
        &self,
        asker: &'a Asker,
        model: &str,
        inquiry: &Inquiry<M>,
    ) -> Option<(&'a str, Duration)> {
        let ttl = self.service.cache.as_ref()?.ttl(model, inquiry.terms.class)?;
        Some((asker.caller.as_deref()?, ttl))
    }

    async fn covered<M: Kind>(
        &self,
        (caller, model): (&str, &str),
        inquiry: &Inquiry<M>,
        (ttl, joins, until): (Duration, bool, Instant),
    ) -> Result<Covered<M>, Arc<Refused>> {
        let cache = self.service.cache.clone().ok_or(Refused::Stopping)?;
        let inquiry = Arc::new(inquiry.clone());
        let digest = if inquiry.matter.size() < LARGE {
            Digest::of(caller, model, &inquiry)
        } else {
            let (caller, model) = (caller.to_owned(), model.to_owned());
            let large = inquiry.clone();
            let making = move || Digest::of(&caller, &model, &large);
            tokio::task::spawn_blocking(making).await.map_err(|_| Refused::Stopping)?
        };
        Ok(Covered { cache, ttl, digest, model: model.into(), inquiry, joins, until })
    }

    /// The answer that was given before, if it may be given now. While a send is under way there is none: it
    /// is on disk before its send cannot be joined any more, so that who looks in this order misses neither.
    async fn hit<M: Kind, T: Clone>(
        &self,
        covered: &Covered<M>,
        in_flight: &InFlight<T>,
    ) -> Option<(Answered<Arc<M::Answer>>, Found)> {
        let Covered { cache, ttl, digest, model, inquiry, joins, .. } = covered;
        if !joins || in_flight.is_under_way(digest.send(&inquiry.terms)) {
            return None;
        }
        let (class, within) = (inquiry.terms.class, inquiry.terms.within / PART_LOOKING);
        let (kept, age) = cache.find(*digest, class, *ttl, within).await?;
        let (meant, _) = plan::meant(model, &self.service.destinations, &self.routes);
        let destination = meant.into_iter().find(|each| each.name == kept.place)?;
        self.service.policy.clear(&**inquiry, destination).ok()?;
        if way_of(destination) != kept.way {
            return None;
        }
        let answer = Arc::new(M::of(kept.what)?);
        let (place, zone) = (destination.name.clone(), destination.zone);
        let answered = Answered { answer, place, zone, cost_micros: Some(0) };
        Some((answered, Found::Hit(age).count()))
    }

    /// Waits for the send that is under way, or for one that `begin` makes.
    async fn together<M: Kind, T: Clone>(
        &self,
        in_flight: &InFlight<Result<T, Arc<Refused>>>,
        mut covered: Covered<M>,
        begin: impl Fn(
            Covered<M>,
            Option<Listed<Result<T, Arc<Refused>>>>,
        ) -> BoxFuture<'static, Result<T, Arc<Refused>>>,
    ) -> Result<Waited<T>, Arc<Refused>> {
        let (within, until) = (covered.inquiry.terms.within, covered.until);
        // What it looked for before is of its time.
        covered.has_left(until.saturating_duration_since(Instant::now()));
        if !covered.joins {
            let found = Found::Miss.count();
            let told = begin(covered, None).await?;
            return Ok(Waited { told, found, send: None });
        }
        let key = covered.digest.send(&covered.inquiry.terms);
        loop {
            let begin = |listed| begin(covered.clone(), Some(listed));
            let (send, others) = in_flight.join(key, until, begin);
            let waiting = send.clone();
            let Some(others) = others else {
                let found = Found::Miss.count();
                let told = waiting.await?;
                return Ok(Waited { told, found, send: Some(send) });
            };
            let found = Found::Shared.count();
            let outcome = timeout_at(until, waiting).await;
            let outcome = outcome.unwrap_or_else(|_| Err(Refused::TooLate { within }.into()));
            let now = Instant::now();
            let left = until.saturating_duration_since(now);
            match outcome {
                // Only the time of who had begun it was over.
                Err(_) if now >= others && left >= within / PART_LEFT && !left.is_zero() => {
                    covered.has_left(left);
                }
                Err(error) => return Err(error),
                Ok(told) => return Ok(Waited { told, found, send: Some(send) }),
            }
        }
    }

    /// A send of its own; it is found until a good answer is kept.
    fn begin<M: Kind>(
        &self,
        covered: Covered<M>,
        listed: Option<Listed<Whole<M::Answer>>>,
    ) -> BoxFuture<'static, Whole<M::Answer>> {
        let gateway = self.clone();
        let sending = async move {
            let asked = M::ask(&gateway, &covered.model, &covered.inquiry).await;
            if let Ok(answered) = &asked {
                gateway.remember(&covered, &answered.place, M::kept(&answered.answer)).await;
            }
            drop(listed);
            asked.map(|answered| answered.map(Arc::new)).map_err(Arc::new)
        };
        sending.boxed()
    }

    /// The same, of an answer that comes piece by piece: it can be joined as long as it comes.
    fn begin_stream(
        &self,
        covered: Covered<Conversation>,
        listed: Option<Listed<Streamed>>,
    ) -> BoxFuture<'static, Streamed> {
        let gateway = self.clone();
        let sending = async move {
            let begun = gateway.converse_in_pieces(&covered.model, &covered.inquiry).await;
            let begun = begun.map_err(Arc::new)?;
            let Answered { answer: Begun { events, rest }, place, zone, cost_micros } = begun;
            let (source, teller) = Source::begin(events, &place, listed);
            let rest = match rest {
                Some(Rest::Own(telling)) => Some(telling),
                // Nobody else hears what was just begun.
                Some(Rest::Heard(_)) | None => None,
            };
            let by = place.clone();
            let telling = async move {
                let Some(ending) = teller.tell(rest).await else { return };
                let what = (!covered.ttl.is_zero()).then(|| ending.answer()).flatten();
                let what = what.as_ref().and_then(Conversation::kept);
                gateway.remember(&covered, &by, what).await;
                ending.tell();
            };
            tokio::spawn(telling);
            Ok(Answered { answer: source, place, zone, cost_micros })
        };
        sending.boxed()
    }

    /// Keeps an answer where it is to be kept, before its callers have it, so that whoever asks next finds it;
    /// takes no longer than they have time, and than the cache waits for a disk.
    async fn remember<M>(&self, covered: &Covered<M>, place: &str, what: Option<What>) {
        let Some(what) = what.filter(|_| !covered.ttl.is_zero()) else { return };
        let by = self.service.destinations.iter().find(|each| each.name == place);
        let Some(destination) = by else { return };
        let kept = Kept { place: place.to_owned(), way: way_of(destination), what };
        let class = covered.inquiry.terms.class;
        let keeping = covered.cache.keep(covered.digest, class, covered.ttl, kept);
        drop(timeout_at(covered.until, keeping).await);
    }
}

impl<M: Clone> Covered<M> {
    /// It has no more time left than this.
    fn has_left(&mut self, left: Duration) {
        Arc::make_mut(&mut self.inquiry).terms.within = left;
    }
}

impl<A> Answered<A> {
    fn map<B>(self, change: impl FnOnce(A) -> B) -> Answered<B> {
        let Self { answer, place, zone, cost_micros } = self;
        Answered { answer: change(answer), place, zone, cost_micros }
    }

    /// Who sent it pays.
    fn costs_nothing_if(self, is_shared: bool) -> Self {
        let cost_micros = if is_shared { Some(0) } else { self.cost_micros };
        Self { cost_micros, ..self }
    }
}
