//! Real agents and controllers, as processes of their own.
//!
//! **Invariant:** a node that goes out of scope leaves no process behind.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::time::{Instant, sleep};

/// A node that is not ready after this time never will be.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// A node that was asked to stop does so within this time.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// One running process.
#[derive(Debug)]
pub struct Node {
    child: Child,
    ready: serde_json::Value,
    log: PathBuf,
}

/// How to start a node.
#[derive(Debug)]
pub struct Spec<'a> {
    /// A program that takes `agent` or `fleet` as its first argument.
    pub program: &'a Path,
    /// What follows, `agent run --config ...`.
    pub args: Vec<String>,
    /// Folder for the log and the ready file.
    pub dir: &'a Path,
    /// Name of the node in that folder.
    pub name: &'a str,
}

impl Node {
    /// Starts a node and waits until it says that it is ready.
    ///
    /// # Errors
    /// When it ends or is not ready in time; the error holds the end of its log.
    pub async fn start(spec: &Spec<'_>) -> Result<Self> {
        let ready_file = spec.dir.join(format!("{}.ready.json", spec.name));
        let log = spec.dir.join(format!("{}.log", spec.name));
        // One of an earlier process under this name would be believed.
        drop(std::fs::remove_file(&ready_file));
        let output = std::fs::OpenOptions::new().create(true).append(true).open(&log)?;
        let child = Command::new(spec.program)
            .args(&spec.args)
            .arg("--ready-file")
            .arg(&ready_file)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {}", spec.name))?;
        let mut node = Self { child, ready: serde_json::Value::Null, log };
        let until = Instant::now() + READY_WITHIN;
        loop {
            if let Ok(text) = std::fs::read_to_string(&ready_file)
                && let Ok(ready) = serde_json::from_str(&text)
            {
                node.ready = ready;
                return Ok(node);
            }
            if let Some(status) = node.child.try_wait()? {
                bail!("{} ended with {status}:\n{}", spec.name, node.log_tail());
            }
            ensure!(Instant::now() < until, "{} is not ready:\n{}", spec.name, node.log_tail());
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// An address from the ready file, such as that of `api`.
    ///
    /// # Errors
    /// When the file does not have it.
    pub fn address(&self, key: &str) -> Result<SocketAddr> {
        let text = self.ready.get(key).and_then(|value| value.as_str());
        let text = text.with_context(|| format!("no {key} in the ready file"))?;
        let bare = text.split("://").last().unwrap_or(text).trim_end_matches('/');
        bare.parse().with_context(|| format!("{text} is not an address"))
    }

    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
    }

    /// Kills it at once, as a power cut would.
    ///
    /// # Errors
    /// When the process cannot be killed.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to stop, and waits.
    ///
    /// # Errors
    /// When it does not stop in time.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status()?;
        let until = Instant::now() + STOP_WITHIN;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(Instant::now() < until, "did not stop:\n{}", self.log_tail());
            sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
