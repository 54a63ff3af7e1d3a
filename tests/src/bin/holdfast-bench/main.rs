//! The benchmarks behind the README's table; `tests/bench` builds this and the agent for release.
//!
//! Each benchmark prints its rows (value, bar, value over bar), writes them to
//! `target/bench/NAME.json`, and fails when a bar is missed. `readme` puts the written ones into the
//! README.
//!
//! **Invariant:** a number that is printed was measured in this run, on the machine that is named.

mod agent;
mod clock;
mod footprint;
mod gateway;
mod holding;
mod machine;
mod models;
mod queue;
mod readme;
mod report;
mod runtimes;
mod serving;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::report::Report;

#[derive(Parser)]
#[command(name = "bench", about = "Measures Holdfast against its bars")]
struct Arguments {
    /// Where the results are written
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// The day of the run, as it stands in the results
    #[arg(long, default_value = "")]
    date: String,
    /// The profile of the build, as it stands in the results
    #[arg(long, default_value = "dev")]
    build: String,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// The agent idle: size, memory, time until it is ready
    Footprint(footprint::Options),
    /// Bundles on one core: compute for one input, by variant
    Models(models::Options),
    /// The graphs of the reference folder on each runtime, side by side
    Runtimes,
    /// Chat completions through the agent, beside Portkey and LiteLLM
    Gateway(gateway::Options),
    /// A part of `gateway`: the provider
    #[command(hide = true)]
    GatewayUpstream { address: std::net::SocketAddr },
    /// A part of `gateway`: a relay that does nothing
    #[command(hide = true)]
    GatewayRelay { address: std::net::SocketAddr, upstream: std::net::SocketAddr, record: PathBuf },
    /// Requests accepted and held through the API, without a link
    Holding(holding::Options),
    /// Models served to callers, beside ONNX Runtime by itself and other servers
    Serving(serving::Options),
    /// A part of `serving`: models in a process of its own
    #[command(hide = true)]
    ServingPart(serving::bare::Part),
    /// A part of `serving`: a server that does nothing
    #[command(hide = true)]
    ServingNothing { address: std::net::SocketAddr },
    /// Durable requests a second, beside the disk's own limit
    Queue(queue::Options),
    /// A part of `queue` that needs a process of its own
    #[command(hide = true)]
    QueuePart(queue::Part),
    /// Measure every reference model on every runtime, and put the table into the docs
    Table {
        /// The file with the two markers
        #[arg(long, default_value = "models/RUNTIMES.md")]
        file: PathBuf,
    },
    /// A part of `table` that needs a process of its own
    #[command(hide = true)]
    TablePart(table::Part),
    /// Refresh the table in README.md from the written results
    Readme {
        /// The file with the two markers
        #[arg(long, default_value = "README.md")]
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("bench: a bar was missed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every bar was held.
fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let report: Report = match &arguments.what {
        What::Footprint(options) => footprint::measure(options)?,
        What::Models(options) => models::measure(options)?,
        What::Runtimes => runtimes::measure()?,
        What::Gateway(options) => gateway::measure(options, &arguments.out)?,
        What::GatewayUpstream { address } => {
            gateway::upstream::serve(*address)?;
            return Ok(true);
        }
        What::GatewayRelay { address, upstream, record } => {
            gateway::relay::serve(*address, *upstream, record)?;
            return Ok(true);
        }
        What::Holding(options) => holding::measure(options, &arguments.out)?,
        What::Queue(options) => queue::measure(options, &arguments.out)?,
        What::Serving(options) => serving::measure(options, &arguments.out)?,
        What::ServingPart(part) => {
            serving::bare::run_part(part)?;
            return Ok(true);
        }
        What::ServingNothing { address } => {
            serving::peers::serve_nothing(*address)?;
            return Ok(true);
        }
        What::QueuePart(part) => {
            println!("{}", queue::run_part(part)?);
            return Ok(true);
        }
        What::Table { file } => {
            table::refresh(file, &arguments.date, &arguments.build)?;
            return Ok(true);
        }
        What::TablePart(part) => {
            println!("{}", table::run_part(part)?);
            return Ok(true);
        }
        What::Readme { file } => {
            readme::refresh(file, &arguments.out)?;
            return Ok(true);
        }
    };
    anyhow::ensure!(
        !report.rows.is_empty(),
        "nothing could be measured; what was measured before stands"
    );
    let report = report.on(&arguments.date, &arguments.build);
    println!("{}", report.table());
    let written = report.write(&arguments.out)?;
    println!("written to {}", written.display());
    Ok(report.holds())
}
