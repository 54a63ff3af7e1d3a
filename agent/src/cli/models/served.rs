//! `holdfast-agent models ls`, `load` and `unload`: the models of the agent that runs.
//!
//! **Invariant:** the agent does it, through the API that every client has, and what is printed is what
//! it says of itself afterwards.

use std::time::Duration;

use clap::Args;
use holdfast_models::Bundle;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cli::{ConfigArgs, Exit, Failure, output, running, table};
use crate::config::Config;
use crate::engine::bundle_folders;
use crate::escalate::{LocalError, Method};
use crate::tune::Tuning;
use crate::tune::choice::Choice;

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
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
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
    let listed: Vec<Listed> = ask(&args.config.load()?, Method::Post, "/v2/repository/index")?;
    if args.json {
        return output::print_json(&listed).map(|()| Exit::Fine);
    }
    let mut table = table::table(&["MODEL", "VERSION", "STATE", "WHY"]);
    for Listed { name, version, state, reason } in listed {
        table.add_row([name, version, state.to_lowercase(), reason]);
    }
    output::print(&table::lines(&table)).map(|()| Exit::Fine)
}

/// A bundle after it was loaded or unloaded.
#[derive(Debug, Serialize)]
struct Standing {
    bundle: String,
    /// What answers, the default version first; nothing where nothing does.
    in_service: Vec<InService>,
    /// Every other version that is there, and why it does not answer.
    others: Vec<Listed>,
}

/// A version that answers.
#[derive(Debug, Serialize)]
struct InService {
    version: String,
    /// The task that it does; nothing where another bundle does it, or another version.
    task: Option<String>,
    /// The variant and runtime that answer for the task.
    variant: Option<String>,
    runtime: Option<String>,
    threads: Option<usize>,
    /// What it was measured to take at most, in KiB; nothing where it was not measured.
    memory_kib: Option<u64>,
}

/// A task, as the agent lists it.
#[derive(Debug, Deserialize)]
struct Task {
    task: String,
    bundle: String,
    version: String,
    #[serde(flatten)]
    choice: Choice,
}

#[derive(Debug, Deserialize)]
struct Tasks {
    tasks: Vec<Task>,
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
    let config = args.config.load()?;
    let path = format!("/v2/repository/models/{}/{what}", args.model);
    ask::<Value>(&config, Method::Post, &path)?;
    let standing = standing(&config, &args.model)?;
    match args.json {
        true => output::print_json(&standing)?,
        false => output::print(&lines(&standing))?,
    }
    Ok(Exit::Fine)
}

/// What the agent has of a bundle now.
fn standing(config: &Config, bundle: &str) -> Result<Standing, Failure> {
    let listed: Vec<Listed> = ask(config, Method::Post, "/v2/repository/index")?;
    let Tasks { tasks } = ask(config, Method::Get, "/v1/tasks")?;
    let own = listed.into_iter().filter(|listed| listed.name == bundle);
    let (ready, others): (Vec<_>, Vec<_>) = own.partition(|listed| listed.state == "READY");
    let mut in_service: Vec<InService> = ready
        .into_iter()
        .map(|Listed { version, .. }| {
            let is_it = |task: &&Task| task.bundle == bundle && task.version == version;
            let task = tasks.iter().find(is_it);
            InService {
                task: task.map(|task| task.task.clone()),
                variant: task.map(|task| task.choice.variant.clone()),
                runtime: task.map(|task| task.choice.runtime.clone()),
                threads: task.map(|task| task.choice.threads.get()),
                memory_kib: task.and_then(|task| memory_kib(config, task)),
                version,
            }
        })
        .collect();
    in_service.sort_by_key(|version| version.task.is_none());
    Ok(Standing { bundle: bundle.to_owned(), in_service, others })
}

/// What a task's model was measured to take, where its bundle lies as it did then.
fn memory_kib(config: &Config, task: &Task) -> Option<u64> {
    let folders = bundle_folders(&config.models.bundles).into_iter();
    let bundle = folders
        .filter_map(|folder| Bundle::open(&folder).ok())
        .find(|bundle| bundle.name() == task.bundle && bundle.version() == task.version)?;
    let tuning = Tuning::open(None, &config.state_dir);
    tuning.peak_kib(&bundle, &config.models, &task.choice)
}

fn lines(standing: &Standing) -> String {
    let Standing { bundle, in_service, others } = standing;
    let mut lines: Vec<String> = in_service
        .iter()
        .map(|InService { version, task, variant, runtime, threads, memory_kib }| {
            let memory = memory_kib.map_or("memory not measured yet".to_owned(), |kib| {
                format!("{:.1} MiB", kib as f64 / 1024.0)
            });
            let threads = match threads {
                Some(1) | None => String::new(),
                Some(threads) => format!(" on {threads} threads"),
            };
            match (task, variant, runtime) {
                (Some(task), Some(variant), Some(runtime)) => format!(
                    "{bundle} {version} is in service for {task}: {variant}, {runtime}{threads}, {memory}"
                ),
                _ => format!("{bundle} {version} answers who names it; another one does its task"),
            }
        })
        .collect();
    if lines.is_empty() {
        lines.push(format!("{bundle} is out of service"));
    }
    lines.extend(others.iter().map(|Listed { version, state, reason, .. }| {
        format!("{bundle} {version} is {}: {reason}", state.to_lowercase())
    }));
    lines.join("\n")
}

fn ask<T: serde::de::DeserializeOwned>(
    config: &Config,
    method: Method,
    path: &str,
) -> Result<T, Failure> {
    let agent = running::agent(config);
    let runtime = crate::cli::runtime()?;
    let asked = async { agent?.ask_within(method, path, Vec::new(), LOAD_WITHIN).await };
    runtime.block_on(asked).map_err(|error| match error {
        LocalError::Refused { status: 503, detail, .. } => Failure::new(Exit::Unavailable, detail),
        LocalError::Refused { detail, .. } => Failure::new(Exit::Found, detail),
        error => Failure::new(Exit::Unavailable, crate::error_chain(&error)),
    })
}
