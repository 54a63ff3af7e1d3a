//! `holdfast-agent models`

mod add;
mod golden;
mod probe;
mod served;
mod staging;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Subcommand;
use holdfast_models::Bundle;
use indicatif::ProgressBar;
use serde::Serialize;

use super::{ConfigArgs, Exit, Failure, Places, output, table};
use crate::config::Config;
use crate::engine::bundle_folders;
use crate::tune::Tuning;
use crate::tune::candidates::choose;
use crate::tune::choice::{Choice, Outcome, Tried};
use crate::tune::probe::{Looked, Program};

#[derive(Debug, clap::Args)]
pub(super) struct ModelsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the models of the running agent, with their versions
    Ls(served::LsArgs),
    /// Have the running agent look for a bundle again and bring its default version into service
    Load(served::ChangeArgs),
    /// Have the running agent take a bundle out of service
    Unload(served::ChangeArgs),
    /// Make a first bundle of a plain ONNX file
    Add(add::AddArgs),
    /// Make the golden outputs of a bundle anew, from its samples
    Golden(golden::GoldenArgs),
    /// Measure every way to run each bundle on this board, and show which is the best
    Bench(BenchArgs),
    /// Try one way in this process, which may not survive it
    #[command(hide = true)]
    Probe(probe::ProbeArgs),
}

#[derive(Debug, clap::Args)]
struct BenchArgs {
    /// Bundle folders, or folders of bundle folders, instead of the configured ones
    bundles: Vec<PathBuf>,
    #[command(flatten)]
    config: ConfigArgs,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

/// What was found out about one bundle.
#[derive(Debug, Serialize)]
struct Measurement {
    bundle: String,
    version: String,
    /// What would be put in service.
    chosen: Option<Choice>,
    tried: Vec<Tried>,
}

pub(super) fn models(args: ModelsArgs, program: Option<Program>) -> Result<Exit, Failure> {
    match args.command {
        Command::Ls(args) => served::ls(&args),
        Command::Load(args) => served::load(&args),
        Command::Unload(args) => served::unload(&args),
        Command::Add(args) => add::add(&args, program),
        Command::Golden(args) => golden::golden(&args, program),
        Command::Bench(args) => bench(&args, program),
        Command::Probe(args) => probe::probe(args),
    }
}

fn bench(args: &BenchArgs, program: Option<Program>) -> Result<Exit, Failure> {
    let mut config = args.config.load()?;
    if !args.bundles.is_empty() {
        config.models.bundles.clone_from(&args.bundles);
    }
    let folders = bundle_folders(&config.models.bundles);
    if folders.is_empty() {
        let places = Places(&config.models.bundles);
        let sentence = format!("no bundle in {places}; name a folder that holds one");
        return Err(Failure::new(Exit::Unavailable, sentence));
    }
    let tuning = Arc::new(Tuning::open(program, &config.state_dir));
    let runtime = super::runtime()?;
    let mut exit = Exit::Fine;
    let mut all = Vec::new();
    if !args.json {
        report_library(&runtime, &tuning, &config)?;
    }
    for folder in folders {
        let Some((bundle, measured)) = measure(&runtime, &tuning, &config, &folder) else {
            exit = Exit::Found;
            continue;
        };
        if measured.chosen.is_none() {
            exit = Exit::Found;
        }
        if !args.json {
            show(&bundle, &measured)?;
        }
        all.push(measured);
    }
    if args.json {
        output::print_json(&all)?;
    }
    Ok(exit)
}

fn report_library(
    runtime: &tokio::runtime::Runtime,
    tuning: &Tuning,
    config: &Config,
) -> Result<(), Failure> {
    let line = match runtime.block_on(tuning.look(&config.models)) {
        Ok(Looked::Found(found)) => {
            let version = found.version.unwrap_or_default();
            format!("ONNX Runtime {version}: {}", found.path.display())
        }
        Ok(Looked::Absent) => "without ONNX Runtime: there is no libonnxruntime".to_owned(),
        Ok(Looked::Broken(why)) | Err(why) => format!("without ONNX Runtime: {why}"),
    };
    output::print(&line)
}

/// Every way to run the bundle in this folder; a folder that is no bundle is told on stderr.
fn measure(
    runtime: &tokio::runtime::Runtime,
    tuning: &Arc<Tuning>,
    config: &Config,
    folder: &Path,
) -> Option<(Bundle, Measurement)> {
    let bundle = Bundle::open(folder)
        .inspect_err(|error| eprintln!("error: {}", crate::error_chain(error)))
        .ok()?;
    let bar = match std::io::stderr().is_terminal() {
        true => ProgressBar::new_spinner(),
        false => ProgressBar::hidden(),
    };
    bar.enable_steady_tick(std::time::Duration::from_millis(100));
    let tell = |choice: &Choice| bar.set_message(format!("{} {choice}", bundle.name()));
    let tried = runtime.block_on(tuning.try_all(&bundle, &config.models, tell));
    bar.finish_and_clear();
    let chosen = choose(&tried, bundle.variants(), config.models.limits);
    let measurement = Measurement {
        bundle: bundle.name().to_owned(),
        version: bundle.version().to_owned(),
        chosen: chosen.map(|tried| tried.choice.clone()),
        tried,
    };
    Some((bundle, measurement))
}

fn show(bundle: &Bundle, measured: &Measurement) -> Result<(), Failure> {
    output::print(&format!("\n{} {}", measured.bundle, measured.version))?;
    let header =
        ["", "VARIANT", "RUNTIME", "THREADS", "P50", "P99", "LOAD", "MEMORY", "OFF", "ACCURACY"];
    let mut table = table::table(&header);
    let mut refused = Vec::new();
    for tried in &measured.tried {
        let choice = &tried.choice;
        match &tried.outcome {
            Outcome::Measured(m) => {
                let mark = if measured.chosen.as_ref() == Some(choice) { "*" } else { "" };
                let accuracy = bundle.variant(Some(&choice.variant)).map_or(0.0, |v| v.accuracy);
                table.add_row([
                    mark.to_owned(),
                    choice.variant.clone(),
                    choice.runtime.clone(),
                    choice.threads.to_string(),
                    format!("{:.2} ms", m.p50_ms),
                    format!("{:.2} ms", m.p99_ms),
                    format!("{:.0} ms", m.load_ms),
                    format!("{:.1} MiB", m.peak_kib as f64 / 1024.0),
                    format!("{:.1e}", m.off),
                    format!("{:.1} %", accuracy * 100.0),
                ]);
            }
            Outcome::Refused(why) | Outcome::Unclear(why) => {
                refused.push(format!("{choice}: {why}"))
            }
        }
    }
    output::print(&table::lines(&table))?;
    refused.iter().try_for_each(|line| output::print(&format!("cannot run {line}")))
}

/// This program, as what tries a file in a process of its own.
fn itself(program: Option<Program>) -> Result<Program, Failure> {
    program.ok_or_else(|| {
        let sentence = "this program cannot start itself to try a model in a process of its own";
        Failure::new(Exit::Unavailable, sentence)
    })
}
