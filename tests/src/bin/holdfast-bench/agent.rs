//! An agent that a benchmark starts.
//!
//! **Invariant:** it ends with the value that stands for it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use crate::clock::now;

/// No start takes longer, or something is wrong.
const DEADLINE: Duration = Duration::from_secs(30);

/// What the ready file says.
#[derive(Deserialize)]
struct Ready {
    api: String,
    grpc: Option<SocketAddr>,
}

/// A running agent; it ends with this value.
pub(crate) struct Agent {
    child: Child,
    /// The API's URL.
    pub(crate) api: String,
    /// Where gRPC is served, if it is.
    pub(crate) grpc: Option<SocketAddr>,
    /// From its start to the first answer of `/readyz`.
    pub(crate) ready_after: Duration,
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is over.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Agent {
    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A number of KiB out of the process's own files, in bytes.
    pub(crate) fn memory(&self, file: &str, key: &str) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/{file}", self.child.id());
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let line = text.lines().find(|line| line.starts_with(key));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        let kib: u64 = kib.with_context(|| format!("{path} has no {key}"))?.parse()?;
        Ok(kib * 1024)
    }
}

/// Starts the agent with this configuration in `place`, and waits until it says that it is ready.
pub(crate) async fn started(
    binary: &Path,
    place: &Path,
    configuration: &str,
    client: &reqwest::Client,
) -> anyhow::Result<Agent> {
    std::fs::create_dir_all(place)?;
    let config = place.join("agent.toml");
    std::fs::write(&config, configuration)?;
    let ready_file = place.join("ready.json");
    std::fs::remove_file(&ready_file).ok();
    let log = std::fs::File::create(place.join("log"))?;
    let begun = now();
    let child = Command::new(binary)
        .args(["run", "--config"])
        .arg(&config)
        .arg("--ready-file")
        .arg(&ready_file)
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start {}", binary.display()))?;
    let mut agent = Agent { child, api: String::new(), grpc: None, ready_after: Duration::ZERO };
    loop {
        if agent.api.is_empty() {
            let written = std::fs::read(&ready_file).unwrap_or_default();
            // Half a file is not ready yet.
            if let Ok(ready) = serde_json::from_slice::<Ready>(&written) {
                (agent.api, agent.grpc) = (ready.api, ready.grpc);
            }
        }
        if !agent.api.is_empty() {
            let answer = client.get(format!("{}/readyz", agent.api)).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                agent.ready_after = begun.elapsed();
                return Ok(agent);
            }
        }
        if let Some(status) = agent.child.try_wait()? {
            let log = std::fs::read_to_string(place.join("log")).unwrap_or_default();
            bail!("the agent ended with {status} before it was ready:\n{log}");
        }
        ensure!(begun.elapsed() < DEADLINE, "the agent was not ready after {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
