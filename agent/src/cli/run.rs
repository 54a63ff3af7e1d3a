//! `holdfast-agent run`

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{ConfigArgs, Exit, Failure, output};
use crate::run::{Addresses, RunError};
use crate::tune::probe::Program;

#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Write {"api": "http://...", "grpc": "..."} to this file when the agent answers
    #[arg(long)]
    ready_file: Option<PathBuf>,
}

/// A note that the disk did not take is tried again after this time.
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(5);

pub(super) fn run(args: &RunArgs, program: Option<Program>) -> Result<Exit, Failure> {
    let config = args.config.load()?;
    // Where a running agent is found by `queue` and `doctor`, whatever port it got.
    let address_file = config.state_dir.join("api.json");
    let runtime = super::runtime()?;
    let result = runtime.block_on(async {
        let stop = CancellationToken::new();
        let (on_signal, announcing) = (stop.clone(), stop.clone());
        tokio::spawn(async move {
            stop_signal().await;
            on_signal.cancel();
        });
        let ready = |addresses: Addresses| {
            if let Err(error) = announce(&address_file, &addresses) {
                tracing::warn!(file = %address_file.display(), %error, "the API's address cannot be noted yet: `queue` and `doctor` look for it at api.listen");
                tokio::spawn(announce_when_possible(address_file.clone(), addresses.clone(), announcing.clone()));
            }
            if let Some(path) = &args.ready_file {
                announce(path, &addresses)
                    .map_err(|source| RunError::ReadyFile { path: path.clone(), source })?;
            }
            // Nobody may be reading; the agent runs all the same.
            drop(output::print(&format!("ready: {}", url(&addresses))));
            Ok(())
        };
        crate::run::run(config, program, stop, ready).await
    });
    // A thread that still infers is not waited for.
    runtime.shutdown_background();
    result.map(|()| Exit::Fine).map_err(|error| {
        let exit = match &error {
            RunError::Listen { .. }
            | RunError::Socket { .. }
            | RunError::Queue(_)
            | RunError::Audit(_)
            | RunError::Random(_) => Exit::Unavailable,
            RunError::Escalate(_) | RunError::Tls(_) => Exit::Config,
            RunError::ReadyFile { .. } => Exit::Storage,
            RunError::Metrics(_) => Exit::Bug,
        };
        Failure::new(exit, crate::error_chain(&error))
    })
}

/// Written beside and renamed, so that a reader never sees half of it. Where that fails, what an earlier
/// agent wrote is of no use to anybody.
fn announce(path: &Path, addresses: &Addresses) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    let mut note = serde_json::json!({ "api": url(addresses) });
    if let Some(grpc) = addresses.grpc {
        note["grpc"] = grpc.to_string().into();
    }
    if let Some(socket) = &addresses.socket {
        note["socket"] = std::path::absolute(socket)?.display().to_string().into();
    }
    let written =
        std::fs::write(&beside, format!("{note}\n")).and_then(|()| std::fs::rename(&beside, path));
    written.inspect_err(|_| {
        drop(std::fs::remove_file(beside));
        drop(std::fs::remove_file(path));
    })
}

fn url(addresses: &Addresses) -> String {
    let scheme = if addresses.is_tls { "https" } else { "http" };
    format!("{scheme}://{}", addresses.api)
}

/// Tries until the disk takes it.
async fn announce_when_possible(path: PathBuf, addresses: Addresses, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(ANNOUNCE_AGAIN) => {}
        }
        let (at, addresses) = (path.clone(), addresses.clone());
        let announced = tokio::task::spawn_blocking(move || announce(&at, &addresses)).await;
        if matches!(announced, Ok(Ok(()))) {
            return tracing::info!(file = %path.display(), "the API's address is noted");
        }
    }
}

async fn stop_signal() {
    let terminate = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate => {}
    }
}
