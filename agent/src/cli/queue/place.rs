//! Where the queue is, and who has it: a running agent, which is asked, or nobody, and then it is
//! opened here.
//!
//! **Invariant:** nothing is written beside an agent that has the queue.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::runtime::Runtime;

use super::Common;
use crate::api::Ids;
use crate::cli::{Exit, Failure, running, runtime};
use crate::clock::Clock;
use crate::config::Config;
use crate::escalate::{LocalAgent, LocalError, Method};
use crate::export::Line;
use crate::operator::{self, Dropped, TakenIn};
use crate::queue::{self, OpenReport, Queue, QueueError, Recorded, RequestId, State, StoppedQueue};
use crate::run::queue_dir;

/// Where the queue is.
pub(super) struct Place {
    pub(super) config: Config,
    pub(super) dir: PathBuf,
    pub(super) now_ms: u64,
}

/// Who has the queue, for those who only look.
pub(super) enum Holder {
    /// Nobody has made it yet.
    Nobody,
    /// No agent runs.
    Stopped {
        /// The queue.
        queue: Box<StoppedQueue>,
        /// What of its journal does not read.
        damage: Damage,
    },
    /// An agent.
    Agent(Running),
}

/// What of a stopped queue's journal does not read.
pub(super) struct Damage {
    places: Vec<queue::Damage>,
    segments: Vec<PathBuf>,
}

impl Damage {
    /// Whether there is any.
    pub(super) fn is_any(&self) -> bool {
        !self.places.is_empty() || !self.segments.is_empty()
    }

    /// Why a request is not there.
    pub(super) fn why_not_there(&self, id: RequestId) -> Failure {
        if let Some(place) = self.places.iter().find(|place| place.id == Some(id)) {
            let queue::Damage { segment, offset, .. } = *place;
            return of_queue(&QueueError::Damaged { id, segment, offset });
        }
        let mut failure = unknown(id);
        if self.is_any() {
            failure.sentence += "; or it was in one of the damaged parts, see `queue verify`";
        }
        failure
    }
}

/// An agent that runs.
pub(super) struct Running {
    agent: LocalAgent,
    runtime: Runtime,
}

/// A queue that can be changed, through whoever has it.
pub(super) enum Writer {
    /// The agent.
    Agent(Running),
    /// This process.
    Own { queue: Queue, runtime: Runtime, now_ms: u64 },
}

impl Place {
    pub(super) fn of(common: &Common) -> Result<Self, Failure> {
        let config = common.config.load()?;
        let dir = queue_dir(&config.state_dir);
        let now_ms = Clock::resume(&config.state_dir).now_ms();
        Ok(Self { config, dir, now_ms })
    }

    /// For looking only: nothing on disk is changed.
    pub(super) fn holder(&self) -> Result<Holder, Failure> {
        if !self.is_there()? {
            eprintln!("no queue at {}: nothing was held there", self.dir.display());
            return Ok(Holder::Nobody);
        }
        match queue::read_only(&self.dir) {
            Ok((queue, report)) => {
                let damage = Damage { places: report.damage, segments: report.bad };
                if damage.is_any() {
                    eprintln!(
                        "warning: parts of {} are damaged, and what was in them is left out; `queue verify` names them",
                        self.dir.display()
                    );
                }
                Ok(Holder::Stopped { queue: Box::new(queue), damage })
            }
            Err(QueueError::InUse { .. }) => Ok(Holder::Agent(self.running()?)),
            Err(error) => Err(of_queue(&error)),
        }
    }

    /// For changing; `None`: there is no queue, and none is made.
    pub(super) fn writer(&self) -> Result<Option<Writer>, Failure> {
        if self.is_there()? { self.writer_or_new().map(Some) } else { Ok(None) }
    }

    /// Whether there is a queue, as far as this user can see.
    fn is_there(&self) -> Result<bool, Failure> {
        let dir = self.dir.display();
        match std::fs::metadata(&self.dir) {
            Ok(found) if found.is_dir() => Ok(true),
            Ok(_) => Err(Failure::new(Exit::Storage, format!("{dir} is no folder"))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => {
                let sentence =
                    format!("cannot look into {dir}: {error}; the agent's user and root can");
                Err(Failure::new(Exit::Storage, sentence))
            }
        }
    }

    /// The queue's folder, for what makes no sense without one.
    pub(super) fn existing(&self) -> Result<&Path, Failure> {
        if self.is_there()? {
            return Ok(&self.dir);
        }
        let sentence = format!("no queue at {}: is it the right --config?", self.dir.display());
        Err(Failure::new(Exit::Unavailable, sentence))
    }

    /// For changing; a queue that is not there is made.
    pub(super) fn writer_or_new(&self) -> Result<Writer, Failure> {
        match Queue::open(&self.dir, self.config.queue.clone()) {
            Ok((queue, report)) => {
                tell_lost(&report);
                Ok(Writer::Own { queue, runtime: runtime()?, now_ms: self.now_ms })
            }
            Err(QueueError::InUse { .. }) => Ok(Writer::Agent(self.running()?)),
            Err(error) => Err(of_queue(&error)),
        }
    }

    /// The running agent, where it said that it is, or where it was told to be.
    fn running(&self) -> Result<Running, Failure> {
        let agent = running::agent(&self.config).map_err(of_agent)?;
        Ok(Running { agent, runtime: runtime()? })
    }
}

/// Whoever opens the queue after a loss is told of it, and nobody after him.
fn tell_lost(report: &OpenReport) {
    if report.lost.is_empty() {
        return;
    }
    let ids: Vec<String> = report.lost.iter().map(ToString::to_string).collect();
    eprintln!(
        "warning: {} requests are lost with a part of the journal: {}",
        ids.len(),
        ids.join(" ")
    );
}

impl Running {
    /// What it says of a path.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.ask(Method::Get, path, Vec::new())
    }

    fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, Failure> {
        self.runtime.block_on(self.agent.ask(method, path, body)).map_err(of_agent)
    }

    /// The ids in one state, or of all that have no end yet.
    pub(super) fn ids(&self, state: Option<State>) -> Result<Vec<RequestId>, Failure> {
        let state = state.map(|state| format!("?state={state}")).unwrap_or_default();
        let Ids { ids } = self.get(&format!("/v1/queue/ids{state}"))?;
        Ok(ids)
    }

    /// A request with all its bytes; `None`: it has its end by now.
    pub(super) fn exported(&self, id: RequestId) -> Result<Option<Line>, Failure> {
        let path = format!("/v1/requests/{id}/record");
        let asked = self.agent.ask(Method::Get, &path, Vec::new());
        match self.runtime.block_on(asked) {
            Ok(line) => Ok(Some(line)),
            Err(LocalError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(of_agent(error)),
        }
    }
}

impl Writer {
    pub(super) fn ids(&self, state: State) -> Result<Vec<RequestId>, Failure> {
        match self {
            Self::Agent(agent) => agent.ids(Some(state)),
            Self::Own { queue, runtime, .. } => {
                runtime.block_on(queue.ids(Some(state))).map_err(|error| of_queue(&error))
            }
        }
    }

    pub(super) fn cancel(&self, id: RequestId) -> Result<(), Failure> {
        match self {
            Self::Agent(agent) => {
                let path = format!("/v1/requests/{id}");
                agent.ask(Method::Delete, &path, Vec::new()).map(|_: Value| ())
            }
            Self::Own { queue, runtime, now_ms } => {
                stored(id, runtime.block_on(queue.cancel(id, *now_ms)))
            }
        }
    }

    pub(super) fn retry(&self, id: RequestId) -> Result<(), Failure> {
        match self {
            Self::Agent(agent) => {
                let path = format!("/v1/requests/{id}/retry");
                agent.ask(Method::Post, &path, Vec::new()).map(|_: Value| ())
            }
            Self::Own { queue, runtime, .. } => stored(id, runtime.block_on(queue.retry_now(id))),
        }
    }

    pub(super) fn drop_request(&self, id: RequestId) -> Result<Dropped, Failure> {
        match self {
            Self::Agent(agent) => {
                let path = format!("/v1/requests/{id}?forget=true");
                agent.ask(Method::Delete, &path, Vec::new())
            }
            Self::Own { queue, runtime, now_ms } => runtime
                .block_on(operator::drop_request(queue, id, *now_ms))
                .map_err(|error| of_queue(&error)),
        }
    }

    pub(super) fn take_in(&self, line: &Line) -> Result<TakenIn, Failure> {
        match self {
            Self::Agent(agent) => {
                let body = serde_json::to_vec(line)
                    .map_err(|error| Failure::new(Exit::Bug, error.to_string()))?;
                agent.ask(Method::Post, "/v1/queue/records", body)
            }
            Self::Own { queue, runtime, now_ms } => {
                let entry = line
                    .entry(*now_ms)
                    .map_err(|error| Failure::new(Exit::Found, crate::error_chain(&error)))?;
                runtime.block_on(operator::take_in(queue, entry)).map_err(|error| of_queue(&error))
            }
        }
    }

    /// Closes a queue that this process has, in good order.
    pub(super) fn close(self) -> Result<(), Failure> {
        match self {
            Self::Agent(_) => Ok(()),
            Self::Own { queue, runtime, .. } => {
                runtime.block_on(queue.close()).map_err(|error| of_queue(&error))
            }
        }
    }
}

fn stored(id: RequestId, outcome: Result<Recorded, QueueError>) -> Result<(), Failure> {
    match outcome {
        Ok(Recorded::Stored) => Ok(()),
        Ok(Recorded::AlreadyFinal(state)) => {
            Err(Failure::new(Exit::Found, format!("request {id} is {state} already")))
        }
        Err(error) => Err(of_queue(&error)),
    }
}

pub(super) fn of_queue(error: &QueueError) -> Failure {
    let exit = match error {
        QueueError::Damaged { .. } => {
            let sentence = format!(
                "{error}, its bytes cannot be had back; `queue repair` takes out what is left of it"
            );
            return Failure::new(Exit::Found, sentence);
        }
        QueueError::Unknown { .. }
        | QueueError::KeyConflict { .. }
        | QueueError::TooLarge { .. } => Exit::Found,
        QueueError::InUse { .. } => Exit::Unavailable,
        _ => Exit::Storage,
    };
    Failure::new(exit, crate::error_chain(error))
}

pub(super) fn unknown(id: RequestId) -> Failure {
    of_queue(&QueueError::Unknown { id })
}

fn of_agent(error: LocalError) -> Failure {
    match error {
        LocalError::Refused { status: 404 | 409 | 410 | 413 | 422, detail, .. } => {
            Failure::new(Exit::Found, detail)
        }
        LocalError::Refused { status: 503 | 507, detail, .. } => {
            Failure::new(Exit::Storage, detail)
        }
        error => {
            let why = crate::error_chain(&error);
            let sentence = format!("the agent that has the queue does not answer: {why}");
            Failure::new(Exit::Unavailable, sentence)
        }
    }
}
