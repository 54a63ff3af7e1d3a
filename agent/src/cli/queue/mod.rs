//! `holdfast-agent queue`: looks at the requests on disk, and takes them back.
//!
//! **Invariant:** while an agent has the queue, everything goes through its API; nobody else writes
//! beside it.

mod print;
mod verify;

use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{ConfigArgs, Exit, Failure, output};
use crate::clock::Clock;
use crate::config::Config;
use crate::escalate::{LocalError, Method, ask_agent};
use crate::listing::{self, Listing, Numbers};
use crate::queue::{self, Queue, QueueError, Recorded, RequestId, StoppedQueue};
use crate::run::queue_dir;
use crate::service::{ReplyBody, reply_of};

#[derive(Debug, clap::Args)]
pub(super) struct QueueArgs {
    #[command(subcommand)]
    command: QueueCommand,
}

#[derive(Debug, clap::Subcommand)]
enum QueueCommand {
    /// List the requests on disk, what waits first
    Ls(Common),
    /// Show one request with its answer and the reasons of its way
    Show {
        /// The request
        id: RequestId,
        #[command(flatten)]
        common: Common,
    },
    /// Take requests back; an answer that is under way then comes too late
    Cancel {
        /// The requests
        #[arg(required = true)]
        ids: Vec<RequestId>,
        #[command(flatten)]
        common: Common,
    },
    /// Show the queue in numbers: requests, bytes, writes
    Stats(Common),
    /// Read every byte of a queue that no agent has, and name what is damaged
    Verify(Common),
}

#[derive(Debug, clap::Args)]
struct Common {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

pub(super) fn queue(args: &QueueArgs) -> Result<Exit, Failure> {
    match &args.command {
        QueueCommand::Ls(common) => {
            let listing = ls(&Place::of(common)?)?;
            show(common, &listing, print::listing)
        }
        QueueCommand::Show { id, common } => {
            let request = request(&Place::of(common)?, *id)?;
            show(common, &request, print::request)
        }
        QueueCommand::Stats(common) => {
            let numbers = numbers(&Place::of(common)?)?;
            show(common, &numbers, print::numbers)
        }
        QueueCommand::Cancel { ids, common } => cancel_all(common, ids),
        QueueCommand::Verify(common) => {
            let place = Place::of(common)?;
            let found = verify::verify(&place.dir)?;
            show(common, &found, print::verified)?;
            Ok(if found.is_intact() { Exit::Fine } else { Exit::Found })
        }
    }
}

fn show<T: serde::Serialize>(
    common: &Common,
    found: &T,
    print: impl Fn(&T) -> String,
) -> Result<Exit, Failure> {
    if common.json { output::print_json(found) } else { output::print(&print(found)) }?;
    Ok(Exit::Fine)
}

/// Where the queue is.
struct Place {
    config: Config,
    dir: PathBuf,
    now_ms: u64,
}

/// Who has the queue.
enum Holder {
    /// Nobody has made it yet.
    Nobody,
    /// No agent runs.
    Stopped(Box<StoppedQueue>),
    /// An agent, at this URL.
    Agent(String),
}

impl Place {
    fn of(common: &Common) -> Result<Self, Failure> {
        let config = common.config.load()?;
        let dir = queue_dir(&config.state_dir);
        let now_ms = Clock::resume(&config.state_dir).now_ms();
        Ok(Self { config, dir, now_ms })
    }

    fn holder(&self) -> Result<Holder, Failure> {
        if !self.dir.exists() {
            return Ok(Holder::Nobody);
        }
        match queue::read_only(&self.dir) {
            Ok((stopped, _)) => Ok(Holder::Stopped(Box::new(stopped))),
            Err(QueueError::InUse { .. }) => Ok(Holder::Agent(self.api())),
            Err(error) => Err(of_queue(&error)),
        }
    }

    /// The running agent's address: where it said that it is, or where it was told to be.
    fn api(&self) -> String {
        let noted = std::fs::read_to_string(self.config.state_dir.join("api.json")).ok();
        let noted: Option<Value> = noted.and_then(|text| serde_json::from_str(&text).ok());
        let noted = noted.and_then(|value| value.get("api")?.as_str().map(str::to_owned));
        noted.unwrap_or_else(|| format!("http://{}", self.config.api.listen))
    }
}

fn of_queue(error: &QueueError) -> Failure {
    let exit = match error {
        QueueError::Unknown { .. } => Exit::Found,
        QueueError::InUse { .. } => Exit::Unavailable,
        _ => Exit::Storage,
    };
    Failure::new(exit, crate::error_chain(error))
}

fn unknown(id: RequestId) -> Failure {
    of_queue(&QueueError::Unknown { id })
}

fn from_agent<T: DeserializeOwned>(method: Method, url: &str) -> Result<T, Failure> {
    let runtime = super::runtime()?;
    runtime.block_on(ask_agent(method, url)).map_err(|error| match error {
        LocalError::Refused { status: 404 | 409, detail, .. } => Failure::new(Exit::Found, detail),
        error => {
            let why = crate::error_chain(&error);
            let sentence = format!("the agent that has the queue does not answer: {why}");
            Failure::new(Exit::Unavailable, sentence)
        }
    })
}

fn ls(place: &Place) -> Result<Listing, Failure> {
    match place.holder()? {
        Holder::Nobody => Ok(Listing::default()),
        Holder::Agent(api) => from_agent(Method::Get, &format!("{api}/v1/queue")),
        Holder::Stopped(queue) => {
            listing::of_stopped_queue(&queue, place.now_ms).map_err(|error| of_queue(&error))
        }
    }
}

fn numbers(place: &Place) -> Result<Numbers, Failure> {
    match place.holder()? {
        Holder::Nobody => Ok(Numbers::default()),
        Holder::Agent(api) => from_agent(Method::Get, &format!("{api}/v1/queue/stats")),
        Holder::Stopped(queue) => {
            let stats = queue.stats().map_err(|error| of_queue(&error))?;
            Ok(Numbers::of(stats, place.now_ms))
        }
    }
}

/// A request, as the API shows it.
fn request(place: &Place, id: RequestId) -> Result<Value, Failure> {
    let queue = match place.holder()? {
        Holder::Nobody => return Err(unknown(id)),
        Holder::Agent(api) => {
            return from_agent(Method::Get, &format!("{api}/v1/requests/{id}"));
        }
        Holder::Stopped(queue) => queue,
    };
    let record = queue.get(id).map_err(|error| of_queue(&error))?.ok_or_else(|| unknown(id))?;
    let unreadable = |error: &dyn std::error::Error| {
        Failure::new(Exit::Storage, format!("request {id}: {}", crate::error_chain(error)))
    };
    let reply = reply_of(record).map_err(|error| unreadable(&error))?;
    serde_json::to_value(ReplyBody::from(&reply)).map_err(|error| unreadable(&error))
}

fn cancel_all(common: &Common, ids: &[RequestId]) -> Result<Exit, Failure> {
    let place = Place::of(common)?;
    let done = match place.holder()? {
        Holder::Nobody => ids.iter().map(|id| Err(unknown(*id))).collect(),
        Holder::Agent(api) => {
            let delete = |id| from_agent(Method::Delete, &format!("{api}/v1/requests/{id}"));
            ids.iter().map(|id| delete(id).map(|_: Value| ())).collect()
        }
        Holder::Stopped(queue) => {
            drop(queue);
            cancel_on_disk(&place, ids)?
        }
    };
    let mut exit = Exit::Fine;
    let mut rows = Vec::new();
    for (id, done) in ids.iter().zip(done) {
        let problem = done.err().map(|failure| failure.sentence);
        if problem.is_some() {
            exit = Exit::Found;
        }
        rows.push(print::Cancelled { id: id.to_string(), cancelled: problem.is_none(), problem });
    }
    show(common, &rows, |rows| print::cancelled(rows))?;
    Ok(exit)
}

fn cancel_on_disk(place: &Place, ids: &[RequestId]) -> Result<Vec<Result<(), Failure>>, Failure> {
    let runtime = super::runtime()?;
    let opened = Queue::open(&place.dir, place.config.queue.clone());
    let (queue, _) = opened.map_err(|error| of_queue(&error))?;
    runtime.block_on(async {
        let mut done = Vec::new();
        for id in ids {
            done.push(match queue.cancel(*id, place.now_ms).await {
                Ok(Recorded::Stored) => Ok(()),
                Ok(Recorded::AlreadyFinal(state)) => {
                    Err(Failure::new(Exit::Found, format!("request {id} is {state} already")))
                }
                Err(error) => Err(of_queue(&error)),
            });
        }
        queue.close().await.map_err(|error| of_queue(&error))?;
        Ok(done)
    })
}
