//! Owns the way of an inquiry that a rule of the cache covers: an answer that was given before, a send that
//! is under way already, or a send of its own whose answer is kept.
//!
//! ```text
//! hit     an answer that was given before, where the policy in force still lets the class go to who gave it
//! shared  the send of somebody who asks the very same at the same time, under the same terms, whether the
//!         answer is to come piece by piece or not
//! miss    a send
//! ```
//!
//! **Invariant:** without a rule nothing of this is touched; only whole, good answers are kept; nobody
//! waits beyond its own time, which begins when it asks, and nobody is given an answer that it could not
//! have been sent for now.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use holdfast_chat::{Answer, Conversation, Vectors};
use tokio::time::{Instant, timeout_at};

use super::kinds::{Kind, Listing, Said, Sending, Sent};
use super::listening::{Rest, Source, broken};
use super::{Answered, Begun, Gateway, Refused, plan};
use crate::answer::Reason;
use crate::cache::{Cache, Digest, Kept, What, way_of};
use crate::inquiry::{Inquiry, Recording, Texts};
use crate::request::DataClass;

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

/// How an inquiry goes.
enum Way<'a, M> {
    /// By itself; with what is said of that where a rule covers it.
    Alone(Option<Found>),
    /// As a rule has it.
    Covered(Covered<'a, M>),
}

/// An inquiry that a rule covers.
struct Covered<'a, M> {
    cache: &'a Cache,
    ttl: Duration,
    digest: Digest,
    model: &'a str,
    inquiry: &'a Inquiry<M>,
    /// Whether it may wait with others.
    joins: bool,
    /// When its time ends.
    until: Instant,
}

/// A send of such an inquiry, whoever waits for it.
struct Errand<M> {
    cache: Cache,
    ttl: Duration,
    digest: Digest,
    model: String,
    inquiry: Inquiry<M>,
    until: Instant,
}

impl<M: Clone> Covered<'_, M> {
    /// A send of it, for which so much time is left.
    fn errand(&self, left: Duration) -> Errand<M> {
        let mut inquiry = self.inquiry.clone();
        inquiry.terms.within = left;
        let (cache, model) = (self.cache.clone(), self.model.to_owned());
        Errand { cache, ttl: self.ttl, digest: self.digest, model, inquiry, until: self.until }
    }
}

/// What somebody waited for.
struct Waited<A> {
    said: Answered<Said<A>>,
    is_shared: bool,
    /// The send, where others may find it.
    send: Option<Sending<A>>,
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
        self.once(&asker, model, inquiry).await
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
        self.once(&asker, model, inquiry).await
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
        self.once(&asker, model, inquiry).await
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
        let covered = match self.way(&asker, model, inquiry).await? {
            Way::Covered(covered) => covered,
            Way::Alone(found) => {
                return Ok((self.converse_in_pieces(model, inquiry).await?, found));
            }
        };
        let retold = |answer: Arc<Answer>| Begun { events: answer.pieces(), rest: None };
        if let Some((answered, found)) = self.hit(&covered).await {
            return Ok((answered.map(retold), found));
        }
        let time = (inquiry.terms.within, covered.until);
        let begin = |errand, listed| self.clone().begin_stream(errand, listed).boxed();
        let take = |Waited { said, is_shared, send }| {
            let begun = said.map(|said| match said {
                Said::Whole(answer) => retold(answer),
                Said::Pieces(source) => {
                    // Who sent it has its time in the sending.
                    let time = is_shared.then_some(time);
                    let rest = Some(Rest::Heard(source.hear(time, send)));
                    Begun { events: Vec::new(), rest }
                }
            });
            ready(Ok(begun)).boxed()
        };
        self.together(&covered, begin, take).await
    }

    /// The answer to a conversation that was given before, where it will do; nobody is asked.
    pub(super) async fn given_before(
        &self,
        asker: &Asker,
        model: &str,
        inquiry: &Inquiry<Conversation>,
    ) -> Option<(Answered<Arc<Answer>>, Option<Found>)> {
        match self.way(asker, model, inquiry).await.ok()? {
            Way::Covered(covered) => self.hit(&covered).await,
            Way::Alone(_) => None,
        }
    }

    async fn once<M: Kind>(
        &self,
        asker: &Asker,
        model: &str,
        inquiry: &Inquiry<M>,
    ) -> Given<Arc<M::Answer>> {
        let covered = match self.way(asker, model, inquiry).await? {
            Way::Covered(covered) => covered,
            Way::Alone(found) => {
                return Ok((M::ask(self, model, inquiry).await?.map(Arc::new), found));
            }
        };
        if let Some(hit) = self.hit(&covered).await {
            return Ok(hit);
        }
        let begin = |errand, listed| self.clone().begin(errand, listed).boxed();
        self.together(&covered, begin, |waited| whole::<M>(waited).boxed()).await
    }

    async fn way<'a, M: Kind>(
        &'a self,
        asker: &Asker,
        model: &'a str,
        inquiry: &'a Inquiry<M>,
    ) -> Result<Way<'a, M>, Refused> {
        let rule = self.rule::<M>(model, inquiry.terms.class);
        let (Some(caller), Some((cache, ttl))) = (asker.caller.as_deref(), rule) else {
            return Ok(Way::Alone(None));
        };
        if asker.wants == Wants::Own {
            return Ok(Way::Alone(Some(Found::Miss.count())));
        }
        let until = Instant::now() + inquiry.terms.within;
        let digest = digest_of(caller, model, inquiry).await.ok_or(Refused::Stopping)?;
        let joins = asker.wants == Wants::Any;
        Ok(Way::Covered(Covered { cache, ttl, digest, model, inquiry, joins, until }))
    }

    /// How long an answer is kept, and where; `None` where no rule covers it.
    fn rule<M: Kind>(&self, model: &str, class: DataClass) -> Option<(&Cache, Duration)> {
        let cache = self.service.cache.as_ref()?;
        let ttl = cache.ttl(model, class)?;
        (!M::is_local(self, model)).then_some((cache, ttl))
    }

    /// The answer that was given before, if it may be given now. While a send is under way there is none: it
    /// is on disk before its send cannot be joined any more, so that who looks in this order misses neither.
    async fn hit<M: Kind>(
        &self,
        covered: &Covered<'_, M>,
    ) -> Option<(Answered<Arc<M::Answer>>, Option<Found>)> {
        let Covered { cache, ttl, digest, model, inquiry, joins, .. } = covered;
        let sends = M::sends(&self.sharing);
        if !joins || sends.about(&digest.send(&inquiry.terms)).is_some() {
            return None;
        }
        let (class, within) = (inquiry.terms.class, inquiry.terms.within / PART_LOOKING);
        let (kept, age) = cache.find(*digest, class, *ttl, within).await?;
        let (meant, _) = plan::meant(model, &self.service.destinations, &self.routes);
        let destination = meant.into_iter().find(|each| each.name == kept.place)?;
        self.service.policy.clear(*inquiry, destination).ok()?;
        if way_of(destination) != kept.way {
            return None;
        }
        let answer = Arc::new(M::of(kept.what)?);
        let (place, zone) = (destination.name.clone(), destination.zone);
        let answered = Answered { answer, place, zone, cost_micros: Some(0) };
        Some((answered, Some(Found::Hit(age).count())))
    }

    /// Waits for the send that is under way, or for one that `begin` makes, and for what `take` makes of it.
    async fn together<M: Kind, T>(
        &self,
        covered: &Covered<'_, M>,
        begin: impl Fn(Errand<M>, Option<Listing<M::Answer>>) -> BoxFuture<'static, Sent<M::Answer>>,
        take: impl Fn(Waited<M::Answer>) -> BoxFuture<'static, Result<Answered<T>, Arc<Refused>>>,
    ) -> Given<T> {
        let (within, until) = (covered.inquiry.terms.within, covered.until);
        // What it looked for before is of its time.
        let mut left = until.saturating_duration_since(Instant::now());
        if !covered.joins {
            let found = Found::Miss.count();
            let said = begin(covered.errand(left), None).await?;
            let told = take(Waited { said, is_shared: false, send: None }).await?;
            return Ok((told, Some(found)));
        }
        let (key, sends) = (covered.digest.send(&covered.inquiry.terms), M::sends(&self.sharing));
        loop {
            // Mostly made here, and not while the list is held.
            let errand = sends.about(&key).is_none().then(|| covered.errand(left));
            let (send, others) = sends.join(key, until, |listed| {
                begin(errand.unwrap_or_else(|| covered.errand(left)), Some(listed))
            });
            let is_shared = others.is_some();
            let taking = async {
                let said = send.clone().await?;
                take(Waited { said, is_shared, send: Some(send) }).await
            };
            let Some(others) = others else {
                let found = Found::Miss.count();
                return Ok((taking.await?, Some(found)));
            };
            let found = Found::Shared.count();
            let outcome = timeout_at(until, taking).await;
            let outcome = outcome.unwrap_or_else(|_| Err(Refused::TooLate { within }.into()));
            let now = Instant::now();
            left = until.saturating_duration_since(now);
            match outcome {
                // Only the time of who had begun it was over.
                Err(_) if now >= others && left >= within / PART_LEFT && !left.is_zero() => {}
                Err(error) => return Err(error),
                // Who sent it pays.
                Ok(told) => return Ok((Answered { cost_micros: Some(0), ..told }, Some(found))),
            }
        }
    }

    /// A send of its own; it is found until a good answer is kept.
    async fn begin<M: Kind>(
        self,
        errand: Errand<M>,
        listed: Option<Listing<M::Answer>>,
    ) -> Sent<M::Answer> {
        let answered = M::ask(&self, &errand.model, &errand.inquiry).await?;
        self.remember(&errand, &answered.place, || M::kept(&answered.answer)).await;
        drop(listed);
        Ok(answered.map(|answer| Said::Whole(Arc::new(answer))))
    }

    /// The same, of an answer that comes piece by piece: it can be joined as long as it comes.
    async fn begin_stream(
        self,
        errand: Errand<Conversation>,
        listed: Option<Listing<Answer>>,
    ) -> Sent<Answer> {
        let begun = self.converse_in_pieces(&errand.model, &errand.inquiry).await?;
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
            let what = || Conversation::kept(&ending.answer()?);
            self.remember(&errand, &by, what).await;
            ending.tell();
        };
        tokio::spawn(telling);
        Ok(Answered { answer: Said::Pieces(source), place, zone, cost_micros })
    }

    /// Keeps an answer where it is to be kept, before its callers have it, so that whoever asks next finds it;
    /// takes no longer than they have time, and than the cache waits for a disk.
    async fn remember<M>(
        &self,
        errand: &Errand<M>,
        place: &str,
        what: impl FnOnce() -> Option<What>,
    ) {
        let Errand { cache, ttl, digest, inquiry, until, .. } = errand;
        let by = self.service.destinations.iter().find(|each| each.name == place);
        let Some(destination) = by.filter(|_| !ttl.is_zero()) else { return };
        let Some(what) = what() else { return };
        let kept = Kept { place: place.to_owned(), way: way_of(destination), what };
        let keeping = cache.keep(*digest, inquiry.terms.class, *ttl, kept);
        drop(timeout_at(*until, keeping).await);
    }
}

/// What tells it from every other one, made off the reactor where much is asked; `None` where the runtime
/// stops.
async fn digest_of<M: Kind>(caller: &str, model: &str, inquiry: &Inquiry<M>) -> Option<Digest> {
    if !inquiry.matter.is_large() {
        return Some(Digest::of(caller, model, inquiry));
    }
    let (caller, model, large) = (caller.to_owned(), model.to_owned(), inquiry.clone());
    tokio::task::spawn_blocking(move || Digest::of(&caller, &model, &large)).await.ok()
}

/// All of an answer, also of one that comes piece by piece to somebody else.
async fn whole<M: Kind>(
    Waited { said, send, .. }: Waited<M::Answer>,
) -> Result<Answered<Arc<M::Answer>>, Arc<Refused>> {
    let Answered { answer, place, zone, cost_micros } = said;
    let answer = match answer {
        Said::Whole(answer) => answer,
        Said::Pieces(source) => {
            let all = source.hear(None, None).all().await.and_then(|answer| {
                let answer = M::of(What::Message(answer)).map(Arc::new);
                answer.ok_or_else(|| Arc::new(broken(&place, "it is of another kind")))
            });
            all.map_err(|error| {
                let (destination, text) = (place.clone(), error.to_string());
                let reasons = vec![Reason::SendFailed { destination, error: text }];
                Refused::Failed { error, reasons }
            })?
        }
    };
    // Until here others found it.
    drop(send);
    Ok(Answered { answer, place, zone, cost_micros })
}

impl<A> Answered<A> {
    fn map<B>(self, change: impl FnOnce(A) -> B) -> Answered<B> {
        let Self { answer, place, zone, cost_micros } = self;
        Answered { answer: change(answer), place, zone, cost_micros }
    }
}
