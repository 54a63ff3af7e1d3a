//! `holdfast-agent token`: who may call the API, and for what.
//!
//! **Invariant:** a token's text is printed once, when it is made, and is nowhere else; a running agent
//! goes by a change within a second. Every command says which file it reads or changes.

use std::collections::BTreeSet;

use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser, TypedValueParser};
use holdfast_models::Bundle;
use serde::Serialize;

use super::nearest::nearest;
use super::{Common, Exit, Failure, output, table};
use crate::access::{Grant, StoreError, Tokens, tokens_path};
use crate::clock::Clock;
use crate::config::Config;
use crate::engine::bundle_folders;
use crate::gateway::plan;
use crate::request::DataClass;

const DAY_MS: u64 = 24 * 3600 * 1000;

#[derive(Debug, clap::Args)]
pub(super) struct TokenArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a token; it is shown once
    Add(AddArgs),
    /// List the tokens, without their texts
    Ls(Common),
    /// Take tokens back; who shows one is refused within a second
    Revoke {
        /// The names
        #[arg(required = true)]
        names: Vec<String>,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, clap::Args)]
struct AddArgs {
    /// What it is called in the log and in lists: 1 to 64 of letters, digits, `.`, `_`, `-`
    name: String,
    /// A task or model that it may ask; may be repeated [default: all]
    #[arg(long = "task", value_name = "TASK", value_parser = NonEmptyStringValueParser::new())]
    tasks: Vec<String>,
    /// A data class that it may put on requests; may be repeated [default: all]
    #[arg(long = "class", value_name = "CLASS", value_parser = classes())]
    classes: Vec<DataClass>,
    /// It may operate the agent: the queue, everybody's results, loading of models
    #[arg(long)]
    admin: bool,
    /// Requests that it may make in a minute
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    per_minute: Option<u32>,
    /// Requests that it may have under way at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    concurrent: Option<u32>,
    /// It ends after so many days of the device's own count
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(1..=36_500))]
    days: Option<u64>,
    #[command(flatten)]
    common: Common,
}

fn classes() -> impl TypedValueParser<Value = DataClass> {
    let names = DataClass::ALL.map(DataClass::as_str);
    PossibleValuesParser::new(names).try_map(|text| text.parse().map_err(|()| "no data class"))
}

/// Runs the command.
///
/// # Errors
/// A name that is taken or not there, and a file that cannot be read or written.
pub(super) fn token(args: &TokenArgs) -> Result<Exit, Failure> {
    match &args.command {
        Command::Add(args) => add(args),
        Command::Ls(common) => list(common),
        Command::Revoke { names, common } => revoke(names, common),
    }
}

fn add(args: &AddArgs) -> Result<Exit, Failure> {
    let config = args.common.config.load()?;
    let grant = Grant {
        tasks: args.tasks.clone(),
        classes: args.classes.clone(),
        admin: args.admin,
        per_min: args.per_minute,
        concurrent: args.concurrent,
    };
    let lasts_ms = args.days.map(|days| days.saturating_mul(DAY_MS));
    let now_ms = now_ms(&config);
    let added =
        Tokens::change(&config.state_dir, |tokens| tokens.add(&args.name, grant, now_ms, lasts_ms));
    let token = added.map_err(|error| failure(&config, error))?;
    if args.common.json {
        output::print_json(&serde_json::json!({ "name": args.name, "token": token.text() }))?;
    } else {
        eprintln!("{} is made in {}; it is not shown again:", args.name, file(&config));
        output::print(token.text())?;
    }
    warn_of_unknown(&args.tasks, &config);
    if !config.api.require_token {
        eprintln!(
            "note: api.listen is {}, where nobody is asked for a token; api.require_token = true asks",
            config.api.listen
        );
    }
    Ok(Exit::Fine)
}

/// Says of what the token is for, and nothing here is called. A bundle may come later.
fn warn_of_unknown(tasks: &[String], config: &Config) {
    if tasks.is_empty() {
        return;
    }
    let known = known(config);
    for task in tasks.iter().filter(|task| !known.contains(*task)) {
        let shown: String = task.chars().take(64).collect();
        let meant = nearest(task, known.iter().map(String::as_str));
        let meant = meant.map(|meant| format!("; is {meant} meant?")).unwrap_or_default();
        eprintln!(
            "warning: no task, model or route of the configuration and its bundles is called \
             \"{shown}\"{meant}"
        );
    }
}

/// Everything that can be asked by its name, as far as the configuration and the bundles tell.
fn known(config: &Config) -> BTreeSet<String> {
    let bundles = bundle_folders(&config.models.bundles).into_iter();
    let bundles = bundles.filter_map(|folder| Bundle::open(&folder).ok());
    let mut known: BTreeSet<String> =
        bundles.flat_map(|bundle| [bundle.name().to_owned(), bundle.task().to_owned()]).collect();
    let tasks = config.destinations.iter().flat_map(|destination| &destination.tasks);
    known.extend(tasks.map(ToString::to_string));
    known.extend(plan::names(&config.destinations, &config.routes).into_iter().map(|it| it.id));
    known
}

/// The file of the tokens.
fn file(config: &Config) -> String {
    tokens_path(&config.state_dir).display().to_string()
}

/// A token, as it is listed.
#[derive(Debug, Serialize)]
struct Listed<'a> {
    name: &'a str,
    #[serde(flatten)]
    grant: &'a Grant,
    age_s: u64,
    /// Seconds that it still counts; nothing for one that does not end.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_s: Option<u64>,
}

fn list(common: &Common) -> Result<Exit, Failure> {
    let config = common.config.load()?;
    let tokens = Tokens::read(&config.state_dir).map_err(|error| failure(&config, error))?;
    let now_ms = now_ms(&config);
    let listed: Vec<Listed<'_>> = tokens
        .iter()
        .map(|(name, entry)| Listed {
            name,
            grant: &entry.grant,
            age_s: now_ms.saturating_sub(entry.made_at_ms) / 1000,
            left_s: entry.expires_at_ms.map(|end| end.saturating_sub(now_ms) / 1000),
        })
        .collect();
    if common.json {
        output::print_json(&listed)?;
        return Ok(Exit::Fine);
    }
    if listed.is_empty() {
        eprintln!("no tokens in {}; `holdfast-agent token add NAME` makes one", file(&config));
        return Ok(Exit::Fine);
    }
    eprintln!("tokens in {}:", file(&config));
    let header = ["NAME", "TASKS", "CLASSES", "ADMIN", "A MINUTE", "AT ONCE", "AGE", "LEFT"];
    let mut table = table::table(&header);
    for Listed { name, grant, age_s, left_s } in &listed {
        let number = |number: Option<u32>| number.map_or("-".to_owned(), |n| n.to_string());
        let classes: Vec<&str> = grant.classes.iter().map(|class| class.as_str()).collect();
        table.add_row([
            (*name).to_owned(),
            all_or(&grant.tasks.join(",")),
            all_or(&classes.join(",")),
            if grant.admin { "yes" } else { "no" }.to_owned(),
            number(grant.per_min),
            number(grant.concurrent),
            span(*age_s),
            left_s.map_or(
                "-".to_owned(),
                |left| if left == 0 { "over".to_owned() } else { span(left) },
            ),
        ]);
    }
    output::print(&table::lines(&table))?;
    Ok(Exit::Fine)
}

fn revoke(names: &[String], common: &Common) -> Result<Exit, Failure> {
    let config = common.config.load()?;
    let revoked = Tokens::change(&config.state_dir, |tokens| {
        names.iter().try_for_each(|name| tokens.revoke(name).map(drop))
    });
    revoked.map_err(|error| failure(&config, error))?;
    if common.json {
        output::print_json(&serde_json::json!({ "revoked": names }))?;
    } else {
        output::print(&format!("revoked in {}: {}", file(&config), names.join(", ")))?;
    }
    Ok(Exit::Fine)
}

fn all_or(list: &str) -> String {
    if list.is_empty() { "all".to_owned() } else { list.to_owned() }
}

/// Seconds, as people say them.
fn span(seconds: u64) -> String {
    match seconds {
        s if s >= 2 * 86_400 => format!("{} days", s / 86_400),
        s if s >= 2 * 3600 => format!("{} h", s / 3600),
        s if s >= 120 => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}

fn now_ms(config: &Config) -> u64 {
    Clock::resume(&config.state_dir).now_ms()
}

fn failure(config: &Config, error: StoreError) -> Failure {
    let exit = match &error {
        StoreError::File { .. } => Exit::Storage,
        StoreError::Foreign { .. } => Exit::Config,
        StoreError::Taken(_) | StoreError::Unknown(_) => Exit::Found,
        StoreError::Name(_) => Exit::Usage,
        StoreError::Random(_) => Exit::Unavailable,
    };
    let why = crate::error_chain(&error);
    match exit {
        Exit::Found => Failure::new(exit, format!("{why} ({})", file(config))),
        _ => Failure::new(exit, why),
    }
}
