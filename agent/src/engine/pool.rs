//! The workers of one model, and the line in front of them.
//!
//! One worker begins; more are taken on, up to the most, when somebody waits and all are busy. Each
//! is a thread, and blocks it. Who has nothing to do for a while rests: the last worker lets go of what
//! it holds, the others end. Where one could not be had, the next is asked for a while later. One that
//! cannot get back what it needs ends too; the last one tells so those who wait, and tries again when
//! the next comes: who comes while that one waits is told at once.
//!
//! **Invariant:** a job whose caller went away, or whose time is over, is never begun, and none is begun
//! by a worker that lacks what it needs. There is always a worker that looks at the line: one that is
//! still to come does not count. The threads end when the pool is dropped and its line is empty.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::line::{Entered, Line, Place};
use super::pace::{Front, Pace};
use crate::request::Priority;

/// One who works, on a thread of its own; must not panic.
pub(super) trait Work<J>: Send {
    /// Whether it has what it needs.
    fn is_ready(&self) -> bool;

    /// Gets back what it needs.
    ///
    /// # Errors
    /// It cannot be had; as a sentence.
    fn make_ready(&mut self) -> Result<(), String>;

    /// Does these, and says in how many runs; whatever is left in there is dropped. Those who wait need
    /// not hear of it yet.
    fn work(&mut self, jobs: &mut Vec<J>) -> u64;

    /// Tells those who wait what came of it: who asks again at once finds a worker that is free.
    fn tell(&mut self);

    /// Tells one who waits that nothing will come of it.
    fn turn_away(&mut self, job: J, why: &str);

    /// There was nothing to do for a while: lets go of what can be had again.
    fn rest(&mut self);
}

/// A worker.
pub(super) type Worker<J> = Box<dyn Work<J>>;
/// Makes one more worker, on the thread that it is to have.
pub(super) type Hire<J> = Box<dyn Fn() -> Result<Worker<J>, String> + Send + Sync>;

/// How jobs go together.
#[derive(Debug)]
pub(super) struct Batching<J> {
    /// Whether two can be done at once.
    pub(super) alike: fn(&J, &J) -> bool,
    /// So many at most; a job may count as several.
    pub(super) most: usize,
    /// How many a job counts as.
    pub(super) size: fn(&J) -> usize,
    /// A busy worker waits so long for more, counted from when the first came.
    pub(super) delay: Duration,
}

/// The rules of a pool.
#[derive(Debug)]
pub(super) struct Rules<J> {
    /// Most workers.
    pub(super) workers: usize,
    /// Most that wait.
    pub(super) waiting: usize,
    /// Who has nothing to do for so long rests; `None`: never.
    pub(super) rest_after: Option<Duration>,
    /// Where a worker could not be had, none is asked for so long.
    pub(super) hire_again_after: Duration,
    /// How jobs go together, if they do.
    pub(super) batching: Option<Batching<J>>,
}

/// Workers and their line.
#[derive(Debug)]
pub(super) struct Pool<J: Send + 'static> {
    shared: Arc<Shared<J>>,
}

struct Shared<J> {
    name: String,
    floor: Mutex<Floor<J>>,
    /// Rings when there is something to do.
    bell: Condvar,
    hire: Hire<J>,
    rest_after: Option<Duration>,
    hire_again_after: Duration,
    batching: Option<Batching<J>>,
}

#[derive(Debug)]
struct Floor<J> {
    line: Line<J>,
    /// Threads; how many of them are about to look at the line, and how many found nothing there; and
    /// how many may be.
    workers: usize,
    coming: usize,
    idle: usize,
    most: usize,
    /// Before this moment no further worker is asked for.
    hire_from: Option<Instant>,
    pace: Pace,
    runs: u64,
    is_resting: bool,
    /// Why the one worker that there is cannot work.
    ill: Option<String>,
    is_closed: bool,
}

/// A place in the line, which is given up when this is dropped.
#[derive(Debug)]
pub(super) struct Ticket<J: Send + 'static> {
    shared: Arc<Shared<J>>,
    place: Place,
}

/// Why a job was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Turned {
    /// The line is full.
    Full {
        /// How long the wait would be.
        expected: Duration,
    },
    /// It cannot be done in time.
    TooLate {
        /// How long it would take.
        expected: Duration,
    },
    /// Nobody can work, and whether that is so still is being found out for somebody else.
    Ill {
        /// Why.
        why: String,
    },
}

/// What a pool is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Load {
    /// Jobs that wait.
    pub waiting: usize,
    /// Workers.
    pub workers: usize,
    /// Workers that have something to do.
    pub busy: usize,
    /// Runs so far; one run can answer several.
    pub runs: u64,
    /// Whether it gave its memory back, since nobody asks.
    pub is_resting: bool,
}

impl<J> std::fmt::Debug for Shared<J> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<J: Send + 'static> Pool<J> {
    /// A pool with its first worker.
    ///
    /// # Errors
    /// There is no thread for it; as a sentence.
    pub(super) fn start(
        name: String,
        rules: Rules<J>,
        first: Worker<J>,
        hire: Hire<J>,
    ) -> Result<Self, String> {
        let floor = Floor {
            line: Line::new(rules.waiting),
            workers: 1,
            coming: 1,
            idle: 0,
            most: rules.workers.max(1),
            hire_from: None,
            pace: Pace::default(),
            runs: 0,
            is_resting: false,
            ill: None,
            is_closed: false,
        };
        let shared = Arc::new(Shared {
            name,
            floor: Mutex::new(floor),
            bell: Condvar::new(),
            hire,
            rest_after: rules.rest_after,
            hire_again_after: rules.hire_again_after,
            batching: rules.batching,
        });
        let this = Arc::clone(&shared);
        shared.spawn(move || this.serve(first))?;
        Ok(Self { shared })
    }

    /// Takes a job in, which is then done unless its ticket is dropped before; `Some` is a job that
    /// had to make room for it.
    ///
    /// # Errors
    /// It is not taken.
    pub(super) fn admit(
        &self,
        job: J,
        priority: Priority,
        give_up_at: Instant,
    ) -> Result<(Ticket<J>, Option<J>), Turned> {
        let now = Instant::now();
        let mut floor = self.shared.floor();
        if let Some(why) = floor.ill.clone().filter(|_| floor.line.len() > 0) {
            return Err(Turned::Ill { why });
        }
        let place = floor.line.place(priority, now);
        let expected = floor.pace.expected(floor.front(place), now);
        if now + expected >= give_up_at {
            return Err(Turned::TooLate { expected });
        }
        let instead = match floor.line.enter((place, now), give_up_at, job) {
            Entered::Waits => None,
            Entered::Instead(job) => Some(job),
            Entered::Full(_) => return Err(Turned::Full { expected }),
        };
        let is_enough = floor.line.len() <= floor.idle + floor.coming;
        let may_hire = floor.hire_from.is_none_or(|from| now >= from);
        let grows = !is_enough && may_hire && floor.workers < floor.most;
        floor.workers += usize::from(grows);
        floor.coming += usize::from(grows);
        drop(floor);
        self.shared.bell.notify_one();
        if grows {
            self.shared.grow();
        }
        Ok((Ticket { shared: Arc::clone(&self.shared), place }, instead))
    }

    /// What it is doing now.
    pub(super) fn load(&self) -> Load {
        let floor = self.shared.floor();
        let Floor { workers, idle, runs, is_resting, .. } = *floor;
        let busy = workers.saturating_sub(idle);
        Load { waiting: floor.line.len(), workers, busy, runs, is_resting }
    }

    /// Why nobody can work; `None` as long as somebody can. The next job has it tried again.
    pub(super) fn fault(&self) -> Option<String> {
        self.shared.floor().ill.clone()
    }
}

impl<J: Send + 'static> Drop for Pool<J> {
    fn drop(&mut self) {
        self.shared.floor().is_closed = true;
        self.shared.bell.notify_all();
    }
}

impl<J: Send + 'static> Drop for Ticket<J> {
    fn drop(&mut self) {
        let left = self.shared.floor().line.leave(self.place);
        drop(left);
    }
}

impl<J> Floor<J> {
    fn front(&self, place: Place) -> Front {
        let busy = self.workers.saturating_sub(self.idle);
        Front { ahead: self.line.ahead(place), busy, workers: self.workers }
    }
}

impl<J: Send + 'static> Shared<J> {
    fn floor(&self) -> MutexGuard<'_, Floor<J>> {
        self.floor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self, run: impl FnOnce() + Send + 'static) -> Result<(), String> {
        let builder = std::thread::Builder::new().name(format!("infer-{}", self.name));
        let spawned = builder.spawn(run).map(|_| ());
        spawned.map_err(|error| format!("cannot start a thread for inference: {error}"))
    }

    /// Takes on one more worker, which is counted already.
    fn grow(self: &Arc<Self>) {
        let this = Arc::clone(self);
        let hired = self.spawn(move || match (this.hire)() {
            Ok(worker) => {
                this.floor().ill = None;
                this.serve(worker);
            }
            Err(why) => {
                let mut floor = this.floor();
                floor.coming -= 1;
                this.stay_small(floor, &why);
            }
        });
        if let Err(why) = hired {
            let mut floor = self.floor();
            floor.coming -= 1;
            self.stay_small(floor, &why);
        }
    }

    /// There is one worker less. What did not come about is not tried at every request.
    fn stay_small(&self, mut floor: MutexGuard<'_, Floor<J>>, why: &str) {
        floor.workers -= 1;
        floor.hire_from = Some(Instant::now() + self.hire_again_after);
        let workers = floor.workers;
        drop(floor);
        // It may have been waited for.
        self.bell.notify_one();
        let again_in_s = self.hire_again_after.as_secs();
        tracing::warn!(model = self.name, workers, again_in_s, why, "no further worker can be had");
    }

    /// A worker's thread.
    fn serve(&self, mut worker: Worker<J>) {
        let mut jobs = Vec::new();
        let mut before = None;
        while self.next(&mut jobs, before, &mut worker) {
            let count = jobs.len();
            before = Some(count);
            let begun = Instant::now();
            let runs = worker.work(&mut jobs);
            jobs.clear();
            let now = Instant::now();
            let mut floor = self.floor();
            floor.pace.note(now - begun, count, now);
            floor.runs += runs;
            floor.coming += 1;
            drop(floor);
            worker.tell();
        }
    }

    /// Waits for something to do, behind a run of so many jobs; false: there will be nothing more.
    fn next(&self, jobs: &mut Vec<J>, before: Option<usize>, worker: &mut Worker<J>) -> bool {
        let mut floor = self.floor();
        floor.coming -= 1;
        let mut was_idle = false;
        let mut rests = false;
        loop {
            // One caller after the other never has several at once: nothing is gained by a delay.
            if !was_idle && (before > Some(1) || floor.line.len() > 1) {
                floor = self.gather(floor);
            }
            if floor.line.len() > 0 && !worker.is_ready() {
                match self.make_ready(floor, worker) {
                    Some((again, has_turned_away)) => {
                        floor = again;
                        if worker.is_ready() {
                            // Whoever woke it may be gone by now; it has its model all the same.
                            rests = false;
                            floor.is_resting = false;
                        } else if has_turned_away && floor.line.len() > 0 {
                            // Who came meanwhile rang while nobody waited for the bell.
                            continue;
                        }
                    }
                    None => return false,
                }
            }
            let first = worker.is_ready().then(|| floor.line.next(Instant::now())).flatten();
            if let Some(first) = first {
                floor.is_resting = false;
                jobs.push(first);
                self.fill(&mut floor, jobs);
                if floor.line.len() > 0 && floor.idle > 0 {
                    self.bell.notify_one();
                }
                return true;
            }
            if floor.is_closed && floor.line.len() == 0 {
                floor.workers -= 1;
                // Somebody may have waited for this one.
                self.bell.notify_one();
                return false;
            }
            was_idle = true;
            floor.idle += 1;
            let is_over;
            (floor, is_over) = self.wait(floor, self.rest_after.filter(|_| !rests));
            floor.idle -= 1;
            if is_over && floor.line.len() == 0 && !floor.is_closed {
                // One that is still to come may not come.
                if floor.workers - floor.coming > 1 {
                    floor.workers -= 1;
                    return false;
                }
                drop(floor);
                worker.rest();
                rests = true;
                floor = self.floor();
                floor.is_resting = true;
            }
        }
    }

    /// Has a worker get back what it needs, since somebody waits. Where that cannot be had it takes nothing:
    /// it ends (`None`) where another one looks at the line, and else tells those who wait (true).
    fn make_ready<'a>(
        &'a self,
        mut floor: MutexGuard<'a, Floor<J>>,
        worker: &mut Worker<J>,
    ) -> Option<(MutexGuard<'a, Floor<J>>, bool)> {
        // It takes its time, and it may not come about: who is free and ready goes first.
        floor.coming += 1;
        drop(floor);
        self.bell.notify_one();
        let ready = worker.make_ready();
        let mut floor = self.floor();
        floor.coming -= 1;
        let Err(why) = ready else {
            floor.ill = None;
            return Some((floor, false));
        };
        if floor.workers - floor.coming > 1 {
            self.stay_small(floor, &why);
            return None;
        }
        // Who is still to come may be able to work; who does not come says so by the bell.
        if floor.coming > 0 {
            return Some((floor, false));
        }
        floor.ill = Some(why.clone());
        let now = Instant::now();
        let left: Vec<J> = std::iter::from_fn(|| floor.line.next(now)).collect();
        drop(floor);
        left.into_iter().for_each(|job| worker.turn_away(job, &why));
        Some((self.floor(), true))
    }

    /// A worker that comes from its work, and finds less than it could do at once, gives others the
    /// chance to go along, unless a worker is free.
    fn gather<'a>(&'a self, mut floor: MutexGuard<'a, Floor<J>>) -> MutexGuard<'a, Floor<J>> {
        let Some(batching) = &self.batching else { return floor };
        loop {
            let now = Instant::now();
            let until = floor.line.oldest().map(|oldest| oldest + batching.delay);
            let Some(until) = until.filter(|until| now < *until) else { return floor };
            if floor.line.len() >= batching.most || floor.idle > 0 || floor.is_closed {
                return floor;
            }
            floor = self.wait(floor, Some(until - now)).0;
        }
    }

    /// Takes those along that can be done with the first, but for those that somebody is free to begin.
    fn fill(&self, floor: &mut Floor<J>, jobs: &mut Vec<J>) {
        let (Some(batching), now) = (&self.batching, Instant::now()) else { return };
        let mut size = jobs.iter().map(batching.size).sum::<usize>();
        while size < batching.most && floor.line.len() > floor.idle {
            let Some(first) = jobs.first() else { return };
            let fits = |job: &J| {
                (batching.alike)(first, job) && size + (batching.size)(job) <= batching.most
            };
            let Some(next) = floor.line.next_with(now, fits) else { return };
            size += (batching.size)(&next);
            jobs.push(next);
        }
    }

    /// Waits for the bell; true: it did not ring within the time.
    fn wait<'a>(
        &self,
        floor: MutexGuard<'a, Floor<J>>,
        within: Option<Duration>,
    ) -> (MutexGuard<'a, Floor<J>>, bool) {
        match within {
            Some(within) => {
                let waited = self.bell.wait_timeout(floor, within);
                let (floor, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                (floor, timeout.timed_out())
            }
            None => (self.bell.wait(floor).unwrap_or_else(PoisonError::into_inner), false),
        }
    }
}

#[cfg(test)]
mod tests;
