//! The processes of a server: where they run, and what memory they take.
//!
//! **Invariant:** a server goes with the value that stands for it, and its children with it.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::machine::tree;

/// A server that was started here.
pub(crate) struct Server {
    pub(crate) child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        let tree = tree(self.child.id()).unwrap_or_default();
        for pid in tree.into_iter().rev() {
            // It may be gone already.
            signal(pid, Signal::KILL).ok();
        }
        self.child.wait().ok();
    }
}

impl Server {
    /// Starts a command that writes its log into a file.
    pub(crate) fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let log = std::fs::File::create(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Self { child })
    }
}

/// What a process and its children take of the memory, in MiB; pages that others have too are shared.
pub(crate) fn pss_mib(pid: u32) -> anyhow::Result<f64> {
    let mut kib = 0.0;
    for pid in tree(pid)? {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        kib += number.with_context(|| format!("{path} has no Pss"))?.parse::<f64>()?;
    }
    Ok(kib / 1024.0)
}

/// Lets a process and its children run on these cores only: `0`, or `0,1`.
pub(crate) fn pin(pid: u32, cores: &str) -> anyhow::Result<()> {
    for pid in tree(pid)? {
        let mut taskset = Command::new("taskset");
        taskset.args(["-a", "-p", "-c", cores, &pid.to_string()]).stdout(Stdio::null());
        let status = taskset.status().context("taskset is missing: install util-linux")?;
        ensure!(status.success(), "{pid} cannot be put on core {cores}");
    }
    Ok(())
}

/// Stops a process and its children, or lets them go on.
pub(crate) fn hold(pid: u32, is_held: bool) -> anyhow::Result<()> {
    let what = if is_held { Signal::STOP } else { Signal::CONT };
    tree(pid)?.into_iter().try_for_each(|pid| signal(pid, what))
}

fn signal(pid: u32, signal: Signal) -> anyhow::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no process")?;
    Ok(kill_process(pid, signal)?)
}

/// Lets this program alone run on these cores only.
pub(crate) fn pin_self(cores: &str) -> anyhow::Result<()> {
    let mut taskset = Command::new("taskset");
    let own = std::process::id().to_string();
    taskset.args(["-a", "-p", "-c", cores, &own]).stdout(Stdio::null());
    ensure!(taskset.status()?.success(), "this program cannot be put on core {cores}");
    Ok(())
}
