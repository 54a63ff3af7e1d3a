//! Owns the emptying of the queue: what is held is sent up as soon as somebody may be asked.
//!
//! Most urgent first, then oldest, within the places, rate, pace and money of each destination
//! (`lanes.rs`, `pace.rs`, and [`Escalator::standing`]). A request whose destinations take nothing now
//! is kept aside in memory (`parked.rs`), so that it neither blocks others nor costs a write; while
//! no destination takes anything, nothing is looked at.
//!
//! ```text
//! queue -> lease -> plan: where do its destinations stand?
//!                     a turn         -> attempt -> answer, fail, retry, set aside
//!                     none now       -> parked, or in line, until one has a turn
//!                     only money is missing -> waits on disk for the day's budget
//!                     nobody may     -> settled
//! ```
//!
//! **Invariant:** the policy in force is asked anew for every destination at every attempt, and a
//! request leaves the queue only by its one final state.

mod attempt;
mod expiry;
mod lanes;
mod line;
mod memory;
mod outcome;
mod pace;
mod parked;
mod plan;
mod release;
mod sweep;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::expiry::Expiry;
use self::lanes::{Lanes, Place};
use self::line::{Line, WaitedFor};
use self::memory::Memory;
use self::outcome::{Outcome, settle, unread};
use self::parked::{MOST_PARKED, Parked};
use self::plan::{Wait, Way, choose, share};
use crate::answer::Reason;
use crate::balance::Balancing;
use crate::clock::Clock;
use crate::destination::Destination;
use crate::envelope::{Envelope, Held};
use crate::escalate::{Escalator, Share, Standing};
use crate::gateway::Route;
use crate::gateway::plan::meant;
use crate::policy::Policy;
use crate::price;
use crate::queue::{Lease, Queue, QueueError, URGENT};
use crate::subject::Subject;

/// Sends that are under way when the agent stops get this long.
const GRACE: Duration = Duration::from_secs(2);
/// Requests worked on at once, at most.
const MOST_AT_ONCE: usize = 64;
/// Of these, kept for what is urgent.
const KEPT_FOR_URGENT: usize = 8;
/// What no destination is configured for is looked at again after this time.
const NOBODY_WAIT: Duration = Duration::from_secs(15 * 60);
/// A disk that failed is tried again after this time.
const DISK_WAIT: Duration = Duration::from_secs(2);
/// So many requests are looked at before what is under way has its turn.
const LOOKS: usize = 64;
/// The longest wait without a look at the queue.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// While only urgent requests could go, they are looked for this often.
const URGENT_EVERY: Duration = Duration::from_secs(1);

/// What the drain works with.
#[derive(Debug)]
pub struct Drain {
    /// What is held.
    pub queue: Queue,
    /// The clients of the destinations.
    pub escalator: Arc<Escalator>,
    /// The destinations, in the configured order.
    pub destinations: Arc<[Destination]>,
    /// Which of several destinations of a task comes first.
    pub balancing: Arc<Balancing>,
    /// The operator's names for some of them, as conversations ask for them.
    pub routes: Arc<[Route]>,
    /// The policy in force.
    pub policy: Arc<Policy>,
    /// What stored times are in.
    pub clock: Clock,
    /// A request that was tried so often is set aside.
    pub max_attempts: u32,
}

impl Drain {
    /// Empties the queue upward until `cancel`, then finishes or gives back what is under way.
    pub async fn run(self, cancel: CancellationToken) {
        let lanes = Lanes::new(&self.destinations);
        let (memory, joining) = (Memory::default(), AtomicUsize::new(0));
        Worker { drain: self, lanes, memory, joining }.work(cancel).await;
    }
}

/// A drain at work.
struct Worker {
    drain: Drain,
    lanes: Lanes,
    memory: Memory,
    /// Requests that are being put in line.
    joining: AtomicUsize,
}

/// What is under way.
type Carried<'a> = FuturesUnordered<BoxFuture<'a, ()>>;

/// What the loop keeps between its rounds.
struct Desk {
    changes: watch::Receiver<u64>,
    parked: Parked,
    line: Line,
    expiry: Expiry,
    idle: Option<Idle>,
}

/// The queue gave nothing: it gives nothing while it does not change, until something is due.
#[derive(Debug, Clone, Copy)]
struct Idle {
    version: u64,
    due_ms: Option<u64>,
}

/// Where every destination stands, for both shares.
struct Doors {
    backlog: Vec<Standing>,
    first: Vec<Standing>,
}

impl Worker {
    async fn work(&self, cancel: CancellationToken) {
        let changes = self.drain.queue.changes();
        let (parked, line, expiry) = (Parked::default(), Line::new(), Expiry::default());
        let mut desk = Desk { changes, parked, line, expiry, idle: None };
        let mut links = self.drain.escalator.links();
        let mut turns = self.drain.escalator.turns();
        let mut under_way = Carried::new();
        let mut sweep = std::pin::pin!(self.sweep().fuse());
        let mut release = std::pin::pin!(self.release().fuse());
        loop {
            if desk.changes.has_changed().unwrap_or_default() {
                desk.expiry.changed();
            }
            desk.changes.borrow_and_update();
            links.borrow_and_update();
            turns.borrow_and_update();
            self.lanes.note_links(&self.drain.escalator);
            let looked = match self.expire(&mut desk).await {
                Ok(()) => self.fill(&mut desk, &mut under_way).await,
                Err(error) => Err(error),
            };
            let (wait, reads) = match looked {
                Ok(wait) => {
                    let wait = wait.min(self.rest_of_waiting(&desk));
                    (wait.min(desk.expiry.wait(self.drain.clock.now_ms(), Instant::now())), true)
                }
                Err(QueueError::Closed) => break,
                Err(error) => {
                    tracing::warn!(%error, "the queue cannot be read or written; trying again");
                    (DISK_WAIT, false)
                }
            };
            tokio::select! {
                () = cancel.cancelled() => break,
                Some(()) = under_way.next() => {}
                () = &mut sweep => {}
                () = &mut release => {}
                // A failed read changes the queue itself; a disk that fails is left in peace.
                changed = desk.changes.changed(), if reads => match changed {
                    Ok(()) => desk.expiry.changed(),
                    Err(_) => break,
                },
                _ = links.changed(), if reads => {}
                _ = turns.changed(), if reads => {}
                () = sleep(wait.max(Duration::from_millis(1))) => {}
            }
        }
        let rest = async { while under_way.next().await.is_some() {} };
        if timeout(GRACE, rest).await.is_err() {
            tracing::info!(count = under_way.len(), "sends under way are given back to the queue");
        }
    }

    /// Takes on as much as may be sent now; returns how long it is worth waiting for more.
    async fn fill<'a>(
        &'a self,
        desk: &mut Desk,
        under_way: &mut Carried<'a>,
    ) -> Result<Duration, QueueError> {
        for _ in 0..LOOKS {
            let doors = self.doors();
            let backlog = doors.are_worth_a_look(Share::Backlog)
                && under_way.len() < MOST_AT_ONCE - KEPT_FOR_URGENT;
            let first = doors.are_worth_a_look(Share::First) && under_way.len() < MOST_AT_ONCE;
            let now_ms = self.drain.clock.now_ms();
            let released = desk.parked.release(now_ms, |index, asked, share| {
                self.standing_of(doors.standing(index, share), index, asked)
            });
            if let Some(waiting) = released {
                desk.line.back_to(&waiting);
            }
            if doors.are_all_dead() {
                // There is nobody to look past them for.
                desk.parked.leave().iter().for_each(|waiting| desk.line.back_to(waiting));
            }
            if !(backlog || first) {
                return Ok(doors.wait());
            }
            let is_open = |waited_for: &WaitedFor| self.is_open(&doors, waited_for);
            // What is urgent does not wait behind what is held, in line neither.
            let urgent = !backlog || (first && desk.line.is_worth_a_look(URGENT, is_open));
            let least_priority = if urgent { URGENT } else { 0 };
            let along = desk.line.is_worth_a_look(least_priority, is_open);
            let version = *desk.changes.borrow();
            if let Some(idle) = desk.idle.filter(|idle| !along && idle.lasts(version, now_ms)) {
                return Ok(idle.wait(now_ms).min(doors.wait()));
            }
            let queue = &self.drain.queue;
            let lease = match along {
                true => queue.lease_along(now_ms, least_priority, desk.line.walk()).await?,
                false => queue.lease_urgent(now_ms, least_priority).await?,
            };
            match lease {
                Some(lease) => self.place(lease, desk, under_way),
                // Who is on the way into the line cannot be met in it yet.
                None if along => {
                    let is_settled = self.joining.load(Ordering::Relaxed) == 0;
                    desk.line.ended(least_priority, |each| is_settled && is_open(each));
                }
                None if urgent => return Ok(doors.wait().min(URGENT_EVERY)),
                None => {
                    let due_ms = self.drain.queue.next_due(now_ms).await?;
                    let idle = Idle { version, due_ms };
                    desk.idle = Some(idle);
                    return Ok(idle.wait(now_ms).min(doors.wait()));
                }
            }
        }
        // What is under way has its turn between.
        Ok(Duration::ZERO)
    }

    /// Sends a request on its way, or keeps it aside.
    fn place<'a>(&'a self, lease: Lease, desk: &mut Desk, under_way: &mut Carried<'a>) {
        let envelope = match Envelope::from_bytes(lease.envelope()) {
            Ok(envelope) => envelope,
            Err(error) => {
                return under_way.push(self.conclude(lease, unread(error)).boxed());
            }
        };
        let share = share(lease.priority());
        let candidates = self.candidates(lease.id(), &envelope);
        if candidates.indexes.is_empty() {
            let outcome = match candidates.is_served {
                true => settle(envelope, candidates.reasons),
                // A configuration that lost its destinations must not cost what is held.
                false => Outcome::PutOff { after: NOBODY_WAIT, why: nobody_for(&envelope) },
            };
            return under_way.push(self.conclude(lease, outcome).boxed());
        }
        let asked = envelope.subject();
        let indexes = self.in_order(&candidates.indexes, &envelope);
        let standings = self.standings(&indexes, Some(&asked), share);
        let wait = match choose(&standings, share) {
            Way::Go(index) => {
                let (lanes, escalator) = (&self.lanes, &self.drain.escalator);
                let place = lanes.take(escalator, index, (&asked, share), lease.body_len());
                let wait = Wait { not_full: Some(index), ..Wait::default() };
                match place {
                    Some(place) => {
                        return under_way.push(self.carry(lease, envelope, place).boxed());
                    }
                    // It closed meanwhile: chosen anew.
                    None => wait,
                }
            }
            Way::Budget(after) => {
                let why = self.why_no_budget(&indexes, share);
                return under_way
                    .push(self.conclude(lease, Outcome::Budget { after, why }).boxed());
            }
            Way::Wait(wait) => wait,
        };
        let beyond = desk.parked.is_full();
        if beyond || lease.is_in_line() {
            desk.line.note(lease.priority(), &asked, &wait);
        }
        match beyond {
            true if lease.is_in_line() => desk.line.pass(&lease),
            true => under_way.push(self.join_line(lease, self.behind_others(&wait)).boxed()),
            false => desk.parked.park(lease, asked, wait),
        }
    }

    /// Puts a request in line.
    fn join_line(&self, lease: Lease, why: String) -> impl Future<Output = ()> + Send {
        self.joining.fetch_add(1, Ordering::Relaxed);
        async move {
            self.conclude(lease, Outcome::InLine { why }).await;
            self.joining.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Why a request stands in line.
    fn behind_others(&self, wait: &Wait) -> String {
        let names = wait.indexes().filter_map(|index| self.drain.destinations.get(index));
        let names: Vec<&str> = names.map(|destination| &*destination.name).collect();
        format!("{MOST_PARKED} others wait for {} before it", names.join(" or "))
    }

    /// Whether a destination takes a request that waits in line for it.
    fn is_open(&self, doors: &Doors, (index, task, share): &WaitedFor) -> bool {
        let standing = doors.standing(*index, *share);
        self.standing_of(standing, *index, task) == Standing::Open
    }

    /// Which budget something waits for.
    fn why_no_budget(&self, indexes: &[usize], share: Share) -> String {
        let network = self.drain.escalator.network();
        let used_up = indexes.iter().filter_map(|index| {
            let destination = self.drain.destinations.get(*index)?;
            network.may(&destination.name, share == Share::First).err()
        });
        match used_up.min_by_key(|used_up| used_up.until_ms) {
            Some(used_up) => {
                format!("{} until {}", release::USED_UP, used_up.until())
            }
            None => "the day's budget is spent".to_owned(),
        }
    }

    /// Where a destination stands toward what asks `asked`, where it stands so toward any.
    fn standing_of(&self, standing: Standing, index: usize, asked: &Subject) -> Standing {
        let destination = self.drain.destinations.get(index);
        match destination.filter(|_| standing == Standing::Open) {
            Some(destination) => {
                let rest = self.drain.escalator.rest(&destination.name, asked);
                rest.map_or(standing, Standing::Paused)
            }
            None => standing,
        }
    }

    /// How long it is until something that is kept aside may be let through a circuit.
    fn rest_of_waiting(&self, desk: &Desk) -> Duration {
        let rests = desk.parked.waits().chain(desk.line.waits()).filter_map(|(index, asked)| {
            let destination = self.drain.destinations.get(index)?;
            self.drain.escalator.rest(&destination.name, asked)
        });
        rests.min().unwrap_or(LOOK_EVERY)
    }

    /// The destinations at these places, in the order in which they are asked a request.
    fn in_order(&self, indexes: &[usize], envelope: &Envelope) -> Vec<usize> {
        let balancing = match &envelope.held {
            Held::Task(_) => &*self.drain.balancing,
            Held::Conversation(held) => {
                let (_, route) = meant(&held.model, &self.drain.destinations, &self.drain.routes);
                let Some(route) = route else { return indexes.to_vec() };
                &route.balancing
            }
        };
        let of = |index: &usize| self.drain.destinations.get(*index).map(|each| (*index, each));
        let found: Vec<_> = indexes.iter().filter_map(of).collect();
        let subject = envelope.subject();
        let asked: Vec<_> =
            found.iter().map(|(_, each)| (*each, each.model_asked(&subject))).collect();
        let price = |each: &Destination| price::usual(&each.limits, each.max_tokens());
        let order = self.drain.escalator.in_order(balancing, &asked, price);
        order.into_iter().filter_map(|place| found.get(place).map(|(index, _)| *index)).collect()
    }

    fn doors(&self) -> Doors {
        let all: Vec<usize> = (0..self.drain.destinations.len()).collect();
        let standings = |share| self.standings(&all, None, share).into_iter().map(|(_, each)| each);
        Doors {
            backlog: standings(Share::Backlog).collect(),
            first: standings(Share::First).collect(),
        }
    }

    fn standings(
        &self,
        indexes: &[usize],
        asked: Option<&Subject>,
        share: Share,
    ) -> Vec<(usize, Standing)> {
        let standing = |index| self.lanes.standing(&self.drain.escalator, index, asked, share);
        indexes.iter().map(|index| (*index, standing(*index))).collect()
    }

    /// Takes one request as far as it comes.
    async fn carry(&self, lease: Lease, envelope: Envelope, place: Place<'_>) {
        let outcome = self.attempt(&lease, envelope, place).await;
        self.conclude(lease, outcome).await;
    }

    /// Ends what is past its time, if it is time to look.
    async fn expire(&self, desk: &mut Desk) -> Result<(), QueueError> {
        let now_ms = self.drain.clock.now_ms();
        if !desk.expiry.wait(now_ms, Instant::now()).is_zero() {
            return Ok(());
        }
        desk.parked.drop_expired(now_ms);
        let ids = self.drain.queue.expire(now_ms).await?;
        if !ids.is_empty() {
            metrics::counter!("holdfast_expired_total").increment(ids.len() as u64);
            self.memory.forget(&ids);
            tracing::info!(count = ids.len(), "held requests came to the end of their time");
        }
        desk.expiry.looked(self.drain.queue.next_expiry().await?, Instant::now());
        Ok(())
    }
}

/// Why what nobody is configured for waits.
fn nobody_for(envelope: &Envelope) -> String {
    match &envelope.held {
        Held::Task(_) => Reason::NoDestination.to_string(),
        Held::Conversation(held) => format!("nobody here is called {:?} any more", held.model),
    }
}

impl Idle {
    fn lasts(&self, version: u64, now_ms: u64) -> bool {
        self.version == version && self.due_ms.is_none_or(|due| now_ms < due)
    }

    fn wait(&self, now_ms: u64) -> Duration {
        let due = self.due_ms.map(|due| Duration::from_millis(due.saturating_sub(now_ms)));
        due.map_or(LOOK_EVERY, |due| due.min(LOOK_EVERY))
    }
}

impl Doors {
    fn of(&self, share: Share) -> &[Standing] {
        match share {
            Share::Backlog => &self.backlog,
            Share::First => &self.first,
        }
    }

    fn standing(&self, index: usize, share: Share) -> Standing {
        self.of(share).get(index).copied().unwrap_or(Standing::LinkDown)
    }

    fn are_all_dead(&self) -> bool {
        self.backlog.iter().chain(&self.first).all(|standing| *standing == Standing::LinkDown)
    }

    /// A destination takes something, or the money for it is spent, which is to be noted.
    fn are_worth_a_look(&self, share: Share) -> bool {
        let is = |each: &Standing| matches!(each, Standing::Open | Standing::OverBudget(_));
        self.of(share).iter().any(is)
    }

    /// How long it is until one is opened by time alone; what else opens one wakes the drain.
    fn wait(&self) -> Duration {
        let waits = self.backlog.iter().chain(&self.first).map(|standing| match standing {
            Standing::Limited(wait) | Standing::Paused(wait) | Standing::OverBudget(wait) => *wait,
            Standing::Open | Standing::Full | Standing::LinkDown => LOOK_EVERY,
        });
        waits.min().unwrap_or(LOOK_EVERY).min(LOOK_EVERY)
    }
}
