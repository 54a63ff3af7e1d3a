//! `holdfast-agent models ls`, `load` and `unload`: the models of the agent that runs.
//!
//! **Invariant:** the agent does it, through the API that every client has.

use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cli::{ConfigArgs, Exit, Failure, output, running, table};
use crate::escalate::{LocalAgent, LocalError, Method};

/// A new version is measured and loaded within this time.
const LOAD_WITHIN: Duration = Duration::from_secs(600);

#[derive(Debug, Args)]
pub(super) struct LsArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ChangeArgs {
    /// The bundle's name, such as voice-commands
    model: String,
    #[command(flatten)]
    config: ConfigArgs,
}

/// A version, as the repository lists it.
#[derive(Debug, Deserialize, Serialize)]
struct Listed {
    name: String,
    version: String,
    state: String,
    reason: String,
}

pub(super) fn ls(args: &LsArgs) -> Result<Exit, Failure> {
    let listed: Vec<Listed> = ask(&args.config, "/v2/repository/index")?;
    if args.json {
        return output::print_json(&listed).map(|()| Exit::Fine);
    }
    let mut table = table::table(&["MODEL", "VERSION", "STATE", "WHY"]);
    for Listed { name, version, state, reason } in listed {
        table.add_row([name, version, state.to_lowercase(), reason]);
    }
    output::print(&table::lines(&table)).map(|()| Exit::Fine)
}

pub(super) fn load(args: &ChangeArgs) -> Result<Exit, Failure> {
    change(args, "load")
}

pub(super) fn unload(args: &ChangeArgs) -> Result<Exit, Failure> {
    change(args, "unload")
}

fn change(args: &ChangeArgs, what: &str) -> Result<Exit, Failure> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !args.model.bytes().all(fits) || args.model.is_empty() {
        let sentence = format!("\"{}\" is not the name of a bundle", args.model);
        return Err(Failure::new(Exit::Usage, sentence));
    }
    let path = format!("/v2/repository/models/{}/{what}", args.model);
    ask::<Value>(&args.config, &path).map(|_| Exit::Fine)
}

fn ask<T: serde::de::DeserializeOwned>(config: &ConfigArgs, path: &str) -> Result<T, Failure> {
    let base = running::address(&config.load()?);
    let runtime = crate::cli::runtime()?;
    let asked = async {
        LocalAgent::at(&base)?.ask_within(Method::Post, path, Vec::new(), LOAD_WITHIN).await
    };
    runtime.block_on(asked).map_err(|error| match error {
        LocalError::Refused { status: 503, detail, .. } => Failure::new(Exit::Unavailable, detail),
        LocalError::Refused { detail, .. } => Failure::new(Exit::Found, detail),
        error => Failure::new(Exit::Unavailable, crate::error_chain(&error)),
    })
}
