//! Owns the command line.
//!
//! **Invariant:** results go to stdout, everything else to stderr; exit codes are those of
//! [`Exit`] and nothing else.

mod annotated;
mod audit;
mod cache;
mod completions;
mod doctor;
mod infer;
mod models;
mod nearest;
mod output;
mod queue;
mod run;
mod running;
mod runtime;
mod table;
mod token;

use std::ffi::OsString;
use std::fmt;
use std::io::{ErrorKind, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use clap_complete::Shell;
use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::prelude::*;

use crate::config::{Config, ConfigError};
use crate::install::store;
use crate::tune::probe::{CHILD_WITHIN_S, Program};

/// What the process tells its caller by its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All went well.
    Fine = 0,
    /// The command did its work and found something wrong (a failed check, a file without answer).
    Found = 1,
    /// The command line is wrong.
    Usage = 64,
    /// Something that is needed is not there: a port, a server, a model.
    Unavailable = 69,
    /// A fault of the program.
    Bug = 70,
    /// The disk or a file on it.
    Storage = 74,
    /// The configuration is wrong.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        // The discriminants are all below 256.
        Self::from(u8::try_from(exit as i32).unwrap_or(70))
    }
}

/// A failure with the sentence that the operator reads.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    sentence: String,
}

impl Failure {
    /// A failure that ends the process with `exit`.
    pub fn new(exit: Exit, sentence: impl Into<String>) -> Self {
        Self { exit, sentence: sentence.into() }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(Exit::Config, crate::error_chain(&error))
    }
}

/// Runs models on this device, holds what it cannot answer well, and escalates what it may.
#[derive(Debug, Parser)]
#[command(name = "holdfast-agent", version, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Args {
    /// How much to log on stderr: error, warn, info, debug, or a filter such as
    /// holdfast_agent=debug [default: info for run, warn for the rest]
    #[arg(long, global = true, env = "HOLDFAST_LOG")]
    log: Option<String>,
    /// Log one JSON object a line
    #[arg(long, global = true)]
    log_json: bool,
    /// Seconds after which a process that tries a model hangs
    #[arg(long, global = true, hide = true, env = "HOLDFAST_CHILD_WITHIN_S",
        default_value_t = CHILD_WITHIN_S, value_parser = clap::value_parser!(u64).range(1..=3600))]
    child_within_s: u64,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 fine, 1 something was found wrong, 64 usage, 69 something \
needed is not there, 70 bug, 74 storage, 78 configuration";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent
    Run(run::RunArgs),
    /// Answer files here and now; no running agent is needed
    Infer(infer::InferArgs),
    /// Check configuration, bundles, storage, links and clock, and say what to do
    Doctor(doctor::DoctorArgs),
    /// List, load, unload, add and measure models
    Models(models::ModelsArgs),
    /// Put ONNX Runtime in place, for models to run faster than on the built-in runtime
    Runtime(runtime::RuntimeArgs),
    /// Look at the requests on disk
    Queue(queue::QueueArgs),
    /// Look at the record of what left the device, and check it
    Audit(audit::AuditArgs),
    /// Count or remove the answers that are kept for who asks the same again
    Cache(cache::CacheArgs),
    /// Make, list and revoke the tokens with which others call the API
    Token(token::TokenArgs),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Which configuration a command uses.
#[derive(Debug, clap::Args)]
struct ConfigArgs {
    /// Configuration file (TOML); HOLDFAST_<TABLE>__<KEY> in the environment overrides it
    #[arg(long, short, env = "HOLDFAST_CONFIG")]
    config: Option<PathBuf>,
}

impl ConfigArgs {
    fn load(&self) -> Result<Config, ConfigError> {
        let environment = std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        let mut config = Config::load(self.config.as_deref(), environment)?;
        let installed = store::current(&store::folder(&config.state_dir));
        config.models.onnxruntime = config.models.onnxruntime.or_installed(installed);
        Ok(config)
    }
}

/// What most commands have.
#[derive(Debug, clap::Args)]
struct Common {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// Folders that were searched, each with what is wrong with it.
struct Places<'a>(&'a [PathBuf]);

impl fmt::Display for Places<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, place) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{}", place.display())?;
            match std::fs::read_dir(place) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => write!(f, " (is not there)")?,
                Err(error) => write!(f, " ({error})")?,
            }
        }
        Ok(())
    }
}

/// Runs the command line `args`, the program's name first.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    crate::heap::begin();
    let args: Vec<OsString> = args.into_iter().collect();
    let program = Program::this(args.len());
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            // Nothing can be done about a closed terminal.
            drop(error.print());
            return if error.use_stderr() { Exit::Usage } else { Exit::Fine }.into();
        }
    };
    let within = Duration::from_secs(args.child_within_s);
    let program = program.map(|program| program.within(within));
    let is_server = matches!(args.command, Command::Run(_));
    let log = args.log.as_deref().unwrap_or(if is_server { "info" } else { "warn" });
    if let Err(error) = log_to_stderr(log, args.log_json) {
        eprintln!("error: --log {log}: {error}");
        return Exit::Usage.into();
    }
    let result = match args.command {
        Command::Run(args) => run::run(&args, program),
        Command::Infer(args) => infer::infer(&args, program),
        Command::Doctor(args) => doctor::doctor(&args, program),
        Command::Models(args) => models::models(args, program),
        Command::Runtime(args) => runtime::runtime(args, program),
        Command::Queue(args) => queue::queue(&args),
        Command::Audit(args) => audit::audit(&args),
        Command::Cache(args) => cache::cache(&args),
        Command::Token(args) => token::token(&args),
        Command::Completions { shell } => {
            output::print(&completions::script(shell)).map(|()| Exit::Fine)
        }
    };
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("error: {}", failure.sentence);
            failure.exit.into()
        }
    }
}

fn log_to_stderr(filter: &str, json: bool) -> Result<(), ParseError> {
    let filter = format!("{filter},tract=warn,tract_core=error,rumqttc=off,sled=error");
    let filter: Targets = filter.parse()?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    let log = tracing_subscriber::registry().with(filter);
    // A second call in one process (tests) keeps the first one's logger.
    let set = if json { log.with(lines.json()).try_init() } else { log.with(lines).try_init() };
    drop(set);
    Ok(())
}

/// A runtime for one command.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| {
        Failure::new(Exit::Unavailable, format!("cannot start threads: {error}; free some memory"))
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn exit_codes_are_those_of_the_table() {
        for (args, want) in [
            (&["holdfast-agent", "--version"][..], Exit::Fine),
            (&["holdfast-agent", "fly"], Exit::Usage),
            (&["holdfast-agent", "run", "--config", "no-such-file.toml"], Exit::Config),
            (&["holdfast-agent", "--log", "agent=loud", "completions", "bash"], Exit::Usage),
        ] {
            let got = main(args.iter().map(OsString::from));
            assert_eq!(format!("{got:?}"), format!("{:?}", ExitCode::from(want)), "{args:?}");
        }
    }
}
