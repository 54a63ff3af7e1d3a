//! `holdfast-agent queue`

use super::{ConfigArgs, Exit, Failure, output, table};
use crate::clock::Clock;
use crate::config::Config;
use crate::listing::{self, Listing};
use crate::queue::{self, QueueError};
use crate::run::queue_dir;

#[derive(Debug, clap::Args)]
pub(super) struct QueueArgs {
    #[command(subcommand)]
    command: QueueCommand,
}

#[derive(Debug, clap::Subcommand)]
enum QueueCommand {
    /// List the requests on disk, what waits first
    Ls {
        #[command(flatten)]
        config: ConfigArgs,
        /// Print JSON instead of a table
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn queue(args: &QueueArgs) -> Result<Exit, Failure> {
    let QueueCommand::Ls { config, json } = &args.command;
    let config = config.load()?;
    let listing = list(&config)?;
    if *json {
        output::print_json(&listing)?;
    } else {
        print(&listing)?;
    }
    Ok(Exit::Fine)
}

/// From the running agent, or else from the disk.
fn list(config: &Config) -> Result<Listing, Failure> {
    let dir = queue_dir(&config.state_dir);
    if !dir.exists() {
        return Ok(Listing::default());
    }
    let now_ms = Clock::resume(&config.state_dir).now_ms();
    let listing = match queue::read_only(&dir) {
        Ok((stopped, _)) => listing::of_stopped_queue(&stopped, now_ms),
        Err(QueueError::InUse { .. }) => return from_agent(config),
        Err(error) => Err(error),
    };
    listing.map_err(|error| Failure::new(Exit::Storage, crate::error_chain(&error)))
}

fn from_agent(config: &Config) -> Result<Listing, Failure> {
    let noted = std::fs::read_to_string(config.state_dir.join("api.json")).ok();
    let noted: Option<serde_json::Value> = noted.and_then(|text| serde_json::from_str(&text).ok());
    let noted = noted.and_then(|value| value.get("api")?.as_str().map(str::to_owned));
    let api = noted.unwrap_or_else(|| format!("http://{}", config.api.listen));
    let runtime = super::runtime()?;
    runtime.block_on(crate::escalate::get_json(&format!("{api}/v1/queue"))).map_err(|error| {
        let why = crate::error_chain(&error);
        Failure::new(
            Exit::Unavailable,
            format!("the agent that has the queue does not answer: {why}"),
        )
    })
}

fn print(listing: &Listing) -> Result<(), Failure> {
    let Listing { held, in_flight, answered, failed, expired, cancelled, requests } = listing;
    output::print(&format!(
        "{held} held, {in_flight} in flight, {answered} answered, {failed} failed, {expired} expired, \
         {cancelled} cancelled"
    ))?;
    if requests.is_empty() {
        return Ok(());
    }
    let mut table = table::table(&[
        "ID", "STATE", "TASK", "CLASS", "PRIORITY", "TRIES", "AGE", "BYTES", "NOTE",
    ]);
    for row in requests {
        table.add_row([
            row.id.clone(),
            row.state.clone(),
            row.task.clone(),
            row.class.clone(),
            row.priority.to_string(),
            row.attempts.to_string(),
            age(row.age_ms),
            row.bytes.to_string(),
            row.note.clone().unwrap_or_default(),
        ]);
    }
    output::print(&table::lines(&table))
}

fn age(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}
