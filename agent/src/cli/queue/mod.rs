//! `holdfast-agent queue`: looks at the requests on disk, and changes them.
//!
//! **Invariant:** while an agent has the queue, everything goes through its API; nobody else writes
//! beside it.

mod change;
mod export;
mod import;
mod nameless;
mod place;
mod print;
mod repair;
mod verify;

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::Value;

use self::change::{Change, Which};
use self::place::{Holder, Place, of_queue, unknown};
use super::{Common, Exit, Failure, output};
use crate::listing::{self, Listing, Numbers};
use crate::queue::{RequestId, State};
use crate::reply::{ReplyBody, reply_of};

#[derive(Debug, clap::Args)]
pub(super) struct QueueArgs {
    #[command(subcommand)]
    command: QueueCommand,
}

#[derive(Debug, clap::Subcommand)]
enum QueueCommand {
    /// List the requests on disk, what waits first
    Ls {
        /// Only those in one state
        #[arg(long, value_parser = states())]
        state: Option<State>,
        #[command(flatten)]
        common: Common,
    },
    /// Show one request with its answer and the reasons of its way
    Show {
        /// The request
        #[arg(value_parser = request_id)]
        id: RequestId,
        #[command(flatten)]
        common: Common,
    },
    /// Take requests back; an answer that is under way then comes too late
    Cancel {
        /// The requests
        #[arg(required = true, value_parser = request_id)]
        ids: Vec<RequestId>,
        #[command(flatten)]
        common: Common,
    },
    /// Let requests that wait or were set aside go at once, as if they had not been tried
    Retry {
        /// The requests
        #[arg(required_unless_present = "all_set_aside", value_parser = request_id)]
        ids: Vec<RequestId>,
        /// All that were set aside
        #[arg(long, conflicts_with = "ids")]
        all_set_aside: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Remove requests with everything that is kept of them; what waits is lost without an answer
    Drop {
        /// The requests
        #[arg(required_unless_present = "state", value_parser = request_id)]
        ids: Vec<RequestId>,
        /// All in one state
        #[arg(long, value_parser = states(), conflicts_with = "ids")]
        state: Option<State>,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Write the requests that have no end yet as JSON Lines, for `import` on this or another device
    Export {
        /// Where to; stdout if there is none. Only its owner can read the file
        #[arg(long, short)]
        output: Option<PathBuf>,
        /// Only those in one state
        #[arg(long, value_parser = open_states())]
        state: Option<State>,
        #[command(flatten)]
        common: Common,
    },
    /// Take in what `export` wrote; what is there already is left as it is
    Import {
        /// The file; `-` is stdin
        file: PathBuf,
        #[command(flatten)]
        common: Common,
    },
    /// Show the queue in numbers: requests, bytes, writes
    Stats(Common),
    /// Read every byte of a queue that no agent has, and name what is damaged
    Verify(Common),
    /// Make a queue that no agent has good again: take out what is damaged, make the index anew
    Repair(Common),
}

/// What stands before an id where OpenAI's clients have it from.
const PREFIXES: [&str; 3] = ["resp_", "chatcmpl-", "cmpl-"];

/// A request's id, also as OpenAI's clients know it.
fn request_id(text: &str) -> Result<RequestId, &'static str> {
    let bare = PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix));
    let id = bare.unwrap_or(text).parse();
    id.map_err(|_| {
        "an id is as in 0192f0c1-2b3c-7d4e-8f90-a1b2c3d4e5f6 (see queue ls), also behind resp_, \
         chatcmpl- or cmpl-"
    })
}

fn states() -> impl TypedValueParser<Value = State> {
    of_names(State::ALL.to_vec())
}

fn open_states() -> impl TypedValueParser<Value = State> {
    of_names(State::ALL.into_iter().filter(|state| !state.is_final()).collect())
}

fn of_names(states: Vec<State>) -> impl TypedValueParser<Value = State> {
    let names: Vec<_> = states.iter().map(|state| state.name()).collect();
    PossibleValuesParser::new(names).try_map(move |name| {
        states.iter().copied().find(|state| state.name() == name).ok_or("no such state")
    })
}

pub(super) fn queue(args: &QueueArgs) -> Result<Exit, Failure> {
    match &args.command {
        QueueCommand::Ls { state, common } => {
            let listing = ls(&Place::of(common)?, *state)?;
            if listing.requests.len() == listing::MAX_LISTED {
                let most = listing::MAX_LISTED;
                eprintln!(
                    "note: the first {most} are listed; --state narrows it, `queue export` has all that wait"
                );
            }
            show(common, &listing, print::listing)
        }
        QueueCommand::Show { id, common } => {
            show(common, &request(&Place::of(common)?, *id)?, print::request)
        }
        QueueCommand::Stats(common) => show(common, &numbers(&Place::of(common)?)?, print::numbers),
        QueueCommand::Cancel { ids, common } => {
            change(common, Which::Ids(ids.clone()), Change::Cancel)
        }
        QueueCommand::Retry { ids, all_set_aside, common } => {
            let which =
                if *all_set_aside { Which::All(State::SetAside) } else { Which::Ids(ids.clone()) };
            change(common, which, Change::Retry)
        }
        QueueCommand::Drop { ids, state, yes, common } => {
            let which = state.map_or_else(|| Which::Ids(ids.clone()), Which::All);
            if !yes {
                change::confirm_drop(&which)?;
            }
            change(common, which, Change::Drop)
        }
        QueueCommand::Export { output, state, common } => export(common, *state, output.as_deref()),
        QueueCommand::Import { file, common } => {
            let done = import::import(&Place::of(common)?, file)?;
            show(common, &done, print::imported)?;
            Ok(if done.refused.is_empty() { Exit::Fine } else { Exit::Found })
        }
        QueueCommand::Verify(common) => {
            let found = verify::verify(Place::of(common)?.existing()?)?;
            show(common, &found, print::verified)?;
            Ok(if found.is_intact() { Exit::Fine } else { Exit::Found })
        }
        QueueCommand::Repair(common) => {
            let repaired = repair::repair(&Place::of(common)?)?;
            show(common, &repaired, print::repaired)?;
            Ok(if repaired.was_intact() { Exit::Fine } else { Exit::Found })
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

fn change(common: &Common, which: Which, change: Change) -> Result<Exit, Failure> {
    let rows = change::change(&Place::of(common)?, which, change)?;
    if common.json {
        output::print_json(&rows.iter().map(change::Changed::json).collect::<Vec<_>>())?;
    } else {
        output::print(&print::changed(&rows))?;
    }
    let all = rows.iter().all(|row| row.problem.is_none());
    Ok(if all { Exit::Fine } else { Exit::Found })
}

fn export(
    common: &Common,
    state: Option<State>,
    to: Option<&std::path::Path>,
) -> Result<Exit, Failure> {
    let done = export::export(&Place::of(common)?, state, to)?;
    if to.is_some() {
        show(common, &done, print::exported)?;
    } else {
        // Stdout is the export itself.
        eprintln!("{}", print::exported(&done));
    }
    Ok(if done.is_damaged { Exit::Found } else { Exit::Fine })
}

fn ls(place: &Place, state: Option<State>) -> Result<Listing, Failure> {
    match place.holder()? {
        Holder::Nobody => Ok(Listing::default()),
        Holder::Agent(agent) => {
            let only = state.map(|state| format!("?state={state}")).unwrap_or_default();
            agent.get(&format!("/v1/queue{only}"))
        }
        Holder::Stopped { queue, .. } => {
            listing::of_stopped_queue(&queue, state, place.now_ms).map_err(|error| of_queue(&error))
        }
    }
}

fn numbers(place: &Place) -> Result<Numbers, Failure> {
    match place.holder()? {
        Holder::Nobody => Ok(Numbers::default()),
        Holder::Agent(agent) => agent.get("/v1/queue/stats"),
        Holder::Stopped { queue, .. } => {
            let stats = queue.stats().map_err(|error| of_queue(&error))?;
            Ok(Numbers::of(stats, place.now_ms))
        }
    }
}

/// A request, as the API shows it.
fn request(place: &Place, id: RequestId) -> Result<Value, Failure> {
    let (queue, damage) = match place.holder()? {
        Holder::Nobody => return Err(unknown(id)),
        Holder::Agent(agent) => return agent.get(&format!("/v1/requests/{id}")),
        Holder::Stopped { queue, damage } => (queue, damage),
    };
    let record = queue.get(id).map_err(|error| of_queue(&error))?;
    let record = record.ok_or_else(|| damage.why_not_there(id))?;
    let unreadable = |error: &dyn std::error::Error| {
        Failure::new(Exit::Storage, format!("request {id}: {}", crate::error_chain(error)))
    };
    let reply = reply_of(record).map_err(|error| unreadable(&error))?;
    serde_json::to_value(ReplyBody::at(&reply, place.now_ms)).map_err(|error| unreadable(&error))
}
