//! The main job: a device that answers on its own, a site that it asks when it is not sure, a link
//! that is cut and comes back, and a controller that sees it all.
//!
//! The same program is every part of it: `holdfast-demo agent ...` is the agent, `holdfast-demo
//! fleet ...` the controller.

mod story;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Starts a controller, a site agent and a device agent, cuts the link between them, restores it,
/// and shows what became of every request.
#[derive(Debug, Parser)]
#[command(name = "cargo demo", version)]
struct Args {
    /// End when all is shown, with exit code 0 if all of it happened
    #[arg(long)]
    once: bool,
    /// Folder of recordings (.wav) and pictures (.jpg, .png, .webp) to ask about, instead of those
    /// that the bundles carry
    #[arg(long)]
    samples: Option<PathBuf>,
    /// Keep all state and logs in this folder
    #[arg(long)]
    keep: Option<PathBuf>,
}

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    args.next();
    let role = args.next().unwrap_or_default();
    if role == "agent" || role == "fleet" {
        end_with_parent();
        // What it is called by, so that its help says what works here.
        let mut program = OsString::from("holdfast-demo ");
        program.push(&role);
        let rest = || std::iter::once(program.clone()).chain(std::env::args_os().skip(2));
        return if role == "agent" {
            holdfast_agent::cli::main(rest())
        } else {
            holdfast_fleet::cli::main(rest())
        };
    }
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Nothing can be done about a closed terminal.
            drop(error.print());
            return if error.use_stderr() { ExitCode::from(64) } else { ExitCode::SUCCESS };
        }
    };
    match tell(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nthe demo did not go as it should: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A part does not outlive the demo or the test that started it, however that ended.
fn end_with_parent() {
    let signal = rustix::process::Signal::TERM;
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(signal)) {
        eprintln!("cannot be told of the parent's end: {error}");
    }
}

fn tell(args: &Args) -> anyhow::Result<()> {
    let temporary = tempfile::Builder::new().prefix("holdfast-demo-").tempdir()?;
    let dir = match &args.keep {
        Some(dir) => {
            std::fs::create_dir_all(dir)?;
            std::fs::canonicalize(dir)?
        }
        None => temporary.path().to_owned(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(story::tell(&dir, args.samples.as_deref(), args.once))
}
