//! `holdfast-agent cache`: answers that are kept for who asks the same again.
//!
//! **Invariant:** nothing of an answer is shown; a running agent goes on, and finds what was removed
//! missing at once.

use super::{Common, Exit, Failure, output};
use crate::cache::{Stats, clear, stats};

#[derive(Debug, clap::Args)]
pub(super) struct CacheArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// How many answers are kept, and what they take on disk
    Stats(Common),
    /// Remove all of them
    Clear(Common),
}

/// Runs the command.
///
/// # Errors
/// A folder that cannot be read, or files that cannot be removed.
pub(super) fn cache(args: &CacheArgs) -> Result<Exit, Failure> {
    let (common, is_clearing) = match &args.command {
        Command::Stats(common) => (common, false),
        Command::Clear(common) => (common, true),
    };
    let config = common.config.load()?;
    let done = if is_clearing { clear(&config.state_dir) } else { stats(&config.state_dir) };
    let Stats { entries, bytes } = done.map_err(|error| {
        let folder = config.state_dir.display();
        let text = format!("the answers kept under {folder}: {error}; run it as the agent's user");
        Failure::new(Exit::Storage, text)
    })?;
    if common.json {
        output::print_json(&serde_json::json!({ "entries": entries, "bytes": bytes }))?;
        return Ok(Exit::Fine);
    }
    let what = if is_clearing { "removed" } else { "kept" };
    output::print(&format!("{entries} answers {what}, {bytes} bytes"))?;
    Ok(Exit::Fine)
}
