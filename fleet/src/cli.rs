//! The command line.
//!
//! **Invariant:** every way out is one of the codes of the `exit` module, and every failure prints one sentence that
//! says what, which, and what now.

use std::error::Error;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use holdfast_wire::id::DeviceId;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

use crate::config::{Config, ConfigError};
use crate::devices::{self, DevicesError};
use crate::exit::Exit;
use crate::serve::{self, ServeError};

/// The controller of a fleet of Holdfast devices.
#[derive(Debug, Parser)]
#[command(
    name = "holdfast-fleet",
    version,
    disable_help_subcommand = true,
    arg_required_else_help = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the fleet: broker, registry, API and page in one process
    Serve(Serve),
    /// List the devices of a running controller
    Devices(Devices),
    /// List the newest results of a device
    Results(Results),
    /// Print the completions of a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
}

#[derive(Debug, clap::Args)]
struct Serve {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the registry and the controller's key lie
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Address of the page and the API [default: 127.0.0.1:8480]
    #[arg(long, value_name = "ADDR")]
    http: Option<String>,
    /// Address of the embedded broker [default: 127.0.0.1:1883]
    #[arg(long, value_name = "ADDR", conflicts_with = "broker")]
    mqtt: Option<String>,
    /// An external broker, instead of the embedded one
    #[arg(long, value_name = "HOST:PORT")]
    broker: Option<String>,
    /// Write the addresses there, as JSON, when ready
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Devices {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Address of the controller
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8480")]
    server: String,
}

#[derive(Debug, clap::Args)]
struct Results {
    /// Name of the device
    #[arg(value_parser = |text: &str| DeviceId::parse(text))]
    device: DeviceId,
    /// At most so many
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    limit: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Address of the controller
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8480")]
    server: String,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("configuration file {path} cannot be read; check the path")]
    ConfigFile { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Devices(#[from] DevicesError),
    #[error("the runtime cannot be started")]
    Runtime(#[source] io::Error),
    #[error("the output cannot be written")]
    Output(#[source] io::Error),
}

fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "holdfast-fleet", &mut script);
    // clap_complete 4.6 spells a name with a hyphen in two ways for bash, which meets none of its cases.
    String::from_utf8_lossy(&script).replace("holdfast__subcmd__fleet", "holdfast__fleet")
}

impl Failure {
    fn exit(&self) -> Exit {
        match self {
            Self::ConfigFile { .. } | Self::Config(_) => Exit::Config,
            Self::Serve(error) => error.exit(),
            Self::Devices(DevicesError::Address { .. } | DevicesError::Unknown { .. }) => {
                Exit::Usage
            }
            Self::Devices(_) => Exit::Unavailable,
            Self::Runtime(_) => Exit::Bug,
            Self::Output(_) => Exit::Storage,
        }
    }
}

/// Runs the command with these arguments, the first of which is the program's name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Fine };
            // If not even this can be printed, the code says enough.
            let _printed = error.print();
            return exit.into();
        }
    };
    let done = match arguments.command {
        Command::Serve(arguments) => serve_command(&arguments),
        Command::Devices(arguments) => devices_command(&arguments),
        Command::Results(arguments) => results_command(&arguments),
        Command::Completions { shell } => {
            io::stdout().write_all(completions(shell).as_bytes()).map_err(Failure::Output)
        }
    };
    match done {
        Ok(()) => Exit::Fine.into(),
        Err(failure) => {
            report(&failure);
            failure.exit().into()
        }
    }
}

/// Prints an error and its causes, each once.
fn report(failure: &Failure) {
    let mut text = failure.to_string();
    let mut cause = failure.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}\n  because: {more}");
        }
        cause = error.source();
    }
    // Standard error is the last resort.
    let _printed = writeln!(io::stderr(), "holdfast-fleet: {text}");
}

fn serve_command(arguments: &Serve) -> Result<(), Failure> {
    let file = arguments
        .config
        .as_ref()
        .map(|path| {
            std::fs::read_to_string(path)
                .map_err(|source| Failure::ConfigFile { path: path.clone(), source })
        })
        .transpose()?;
    let text = |path: &PathBuf| path.to_string_lossy().into_owned();
    let given = [
        ("data_dir", arguments.data.as_ref().map(text)),
        ("http.listen", arguments.http.clone()),
        ("mqtt.listen", arguments.mqtt.clone()),
        ("mqtt.broker", arguments.broker.clone()),
    ];
    let given = given.into_iter().filter_map(|(key, value)| Some((key, value?)));
    let environment = std::env::vars_os().map(|(name, value)| {
        (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
    });
    let config = Config::new(data_dir()).over(file.as_deref(), environment, given)?;
    log_to_stderr();
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::Runtime)?;
    runtime.block_on(serve::serve(config, arguments.ready_file.as_deref().map(Path::new)))?;
    Ok(())
}

fn devices_command(arguments: &Devices) -> Result<(), Failure> {
    let list = client_runtime()?.block_on(devices::fetch(&arguments.server))?;
    if arguments.json { print_json(&list) } else { print(&devices::table(&list)) }
}

fn results_command(arguments: &Results) -> Result<(), Failure> {
    let Results { device, limit, server, json } = arguments;
    let list = client_runtime()?.block_on(devices::fetch_results(server, device, *limit))?;
    if *json { print_json(&list) } else { print(&devices::results_table(&list)) }
}

fn client_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    // The client is built for TLS too and wants to know with which library; a second installation changes nothing.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Runtime)
}

fn print_json(list: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(list);
    print(&text.map_err(|error| Failure::Output(error.into()))?)
}

fn print(text: &str) -> Result<(), Failure> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Output(error)),
        _ => Ok(()),
    }
}

/// Where data goes unless told otherwise: systemd's choice, then the user's.
fn data_dir() -> PathBuf {
    let directory =
        |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    directory("STATE_DIRECTORY")
        .or_else(|| Some(directory("XDG_DATA_HOME")?.join("holdfast-fleet")))
        .or_else(|| Some(directory("HOME")?.join(".local/share/holdfast-fleet")))
        .unwrap_or_else(|| PathBuf::from("holdfast-fleet-data"))
}

fn log_to_stderr() {
    let wanted = std::env::var("HOLDFAST_FLEET_LOG").ok();
    let filter = wanted.map_or_else(usual_log, |wanted| {
        wanted.parse().unwrap_or_else(|error| {
            eprintln!("warning: HOLDFAST_FLEET_LOG={wanted}: {error}; the log is the usual one");
            usual_log()
        })
    });
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    // Already set when the process serves in another role as well.
    let _set = tracing_subscriber::registry().with(filter).with(lines).try_init();
}

/// What is logged unless told otherwise. The embedded broker logs every connection that comes and goes;
/// what matters of it is in our own lines.
fn usual_log() -> Targets {
    Targets::new()
        .with_default(LevelFilter::INFO)
        .with_targets([("rumqttd", LevelFilter::OFF), ("rumqttc", LevelFilter::OFF)])
        .with_targets([("sqlx", LevelFilter::WARN), ("hyper", LevelFilter::WARN)])
}
