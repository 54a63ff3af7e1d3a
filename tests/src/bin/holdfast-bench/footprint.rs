//! The agent as a guest on the board: how big, how soon ready, how much memory when idle.
//!
//! **Invariant:** every number is of the binary that is named, started anew with both small bundles.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::agent::{Agent, started};
use crate::report::{Report, ms, quantile};

/// The agent idle, both small bundles loaded.
const RSS_MIB: f64 = 40.0;
/// From its start to the first answer of `/readyz`.
const READY_MS: f64 = 200.0;
const SMALL: [&str; 2] = ["voice-commands", "part-inspection"];

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The agent's binary
    #[arg(long)]
    agent: PathBuf,
    /// The folder of bundles
    #[arg(long, default_value = "models/bundles")]
    bundles: PathBuf,
    /// Starts to measure
    #[arg(long, default_value_t = 10)]
    starts: usize,
    /// Seconds after which an agent that was asked nothing counts as idle
    #[arg(long, default_value_t = 3)]
    idle_s: u64,
}

pub(crate) fn measure(options: &Options) -> anyhow::Result<Report> {
    let mut report = Report::new("footprint", "The agent with both small bundles");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Only an earlier call can make this fail, and that one did the same.
    rustls::crypto::ring::default_provider().install_default().ok();
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
    let folder = tempfile::tempdir()?;
    let bundles = folder.path().join("bundles");
    for name in SMALL {
        copy(&options.bundles.join(name), &bundles.join(name))?;
    }
    let start = |state: &str| {
        let place = folder.path().join(state);
        let text = configuration(&place, &bundles);
        runtime.block_on(started(&options.agent, &place, &text, &client))
    };

    let size = std::fs::metadata(&options.agent)
        .with_context(|| format!("{}: no agent", options.agent.display()))?
        .len();
    #[allow(clippy::cast_precision_loss, reason = "far under 2^53")]
    report.at_most("binary", size as f64 / 1e6, "MB", 16.0);

    let mut ready = Vec::new();
    for _ in 0..options.starts.max(1) {
        // The same state every time: the first start also makes keys, as on a new device.
        ready.push(start("state")?.ready_after);
    }
    report.at_most("from start to ready, p50", ms(quantile(&ready, 0.5)), "ms", READY_MS);
    report.at_most("from start to ready, slowest", ms(quantile(&ready, 1.0)), "ms", READY_MS);

    let agent = start("state")?;
    std::thread::sleep(Duration::from_secs(options.idle_s));
    report.at_most("resident when idle", mib(agent.memory("status", "VmRSS:")?), "MiB", RSS_MIB);
    report.add("of it its own share (PSS)", mib(agent.memory("smaps_rollup", "Pss:")?), "MiB");
    let asked = runtime.block_on(ask(&agent, &client, &options.bundles))?;
    let after = mib(agent.memory("status", "VmRSS:")?);
    report.at_most(format!("resident after {asked} requests"), after, "MiB", RSS_MIB);
    Ok(report)
}

fn configuration(place: &Path, bundles: &Path) -> String {
    format!(
        "[device]\nstate_dir = {:?}\n[api]\nlisten = \"127.0.0.1:0\"\n[models]\nbundles = [{bundles:?}]\ntune = false\n",
        place.join("data"),
    )
}

/// Sends every committed sample of the small bundles, several times; says how many that were.
async fn ask(agent: &Agent, client: &reqwest::Client, bundles: &Path) -> anyhow::Result<usize> {
    let mut asked = 0;
    for task in SMALL {
        let mut samples = Vec::new();
        for entry in std::fs::read_dir(bundles.join(task).join("samples"))? {
            let path = entry?.path();
            let media = match path.extension().and_then(|end| end.to_str()) {
                Some("wav") => "audio/wav",
                Some("jpg" | "jpeg") => "image/jpeg",
                Some("png") => "image/png",
                Some("webp") => "image/webp",
                _ => continue,
            };
            samples.push((media, std::fs::read(&path)?));
        }
        ensure!(!samples.is_empty(), "bundle {task} has no samples to send");
        for (media, body) in samples.iter().cycle().take(100) {
            let request = client.post(format!("{}/v1/tasks/{task}", agent.api));
            let request = request.header("content-type", *media).body(body.clone());
            let answer = request.send().await?;
            ensure!(answer.status().is_success(), "{task}: {}", answer.text().await?);
            asked += 1;
        }
    }
    Ok(asked)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1024 * 1024)
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    let entries =
        std::fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))?;
    for entry in entries {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
