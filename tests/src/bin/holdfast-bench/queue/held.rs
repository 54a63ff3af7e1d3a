//! What many held requests cost: memory, the time to open, to make the index anew, and to work them off.
//!
//! Each part runs in a process of its own, so that its memory is its own.
//!
//! **Invariant:** memory is the most that the process had at any time, as the kernel counts it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use bytes::Bytes;
use holdfast_agent::queue::{Queue, QueueConfig};
use serde::{Deserialize, Serialize};

use super::load;
use crate::clock::now;
use crate::report::ms;

/// Workers that lease and answer, and the requests that each works on together.
const WORKERS: usize = 4;
const TOGETHER: usize = 64;

/// What a process of its own does.
#[derive(clap::Args)]
pub(crate) struct Part {
    /// The queue's folder
    #[arg(long)]
    dir: PathBuf,
    /// What is done
    #[arg(long, value_enum)]
    what: What,
    /// Requests put in
    #[arg(long, default_value_t = 0)]
    count: u64,
    /// Bytes of each
    #[arg(long, default_value_t = 0)]
    bytes: usize,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum What {
    /// Put requests in and close
    Fill,
    /// Open and ask for the next request
    Open,
    /// Lease, read and answer everything, then forget it
    Drain,
}

/// What came of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Found {
    /// The most memory that the process had.
    pub(super) peak_mib: f64,
    /// Until the queue was open and the first request at hand.
    pub(super) ready_ms: f64,
    /// Requests a second.
    pub(super) rate: f64,
    /// Bytes of the journal on disk, at the end.
    pub(super) allocated: u64,
    /// Bytes of the index on disk, at the end.
    pub(super) index: u64,
    /// Bytes written to the journal.
    pub(super) written: u64,
    /// Bytes of the process on their way to the disk, the index with them.
    pub(super) all_written: u64,
}

/// Runs a part in a process of its own.
pub(super) fn in_own_process(
    dir: &Path,
    what: What,
    count: u64,
    bytes: usize,
) -> anyhow::Result<Found> {
    let program = std::env::current_exe()?;
    let output = Command::new(program)
        .arg("queue-part")
        .arg("--dir")
        .arg(dir)
        .args(["--what", &format!("{what:?}").to_lowercase()])
        .args(["--count", &count.to_string(), "--bytes", &bytes.to_string()])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{what:?} of the queue failed: {said}");
    serde_json::from_slice(&output.stdout).context("a part of the benchmark said nothing")
}

/// Does a part in this process.
pub(crate) fn run(part: &Part) -> anyhow::Result<String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let found = runtime.block_on(async {
        let start = now();
        let dir = part.dir.clone();
        let config = QueueConfig { max_requests: 10_000_000, ..QueueConfig::default() };
        let (queue, _) = tokio::task::spawn_blocking(move || Queue::open(&dir, config)).await??;
        let mut found = Found::default();
        match part.what {
            What::Fill => found.rate = fill(&queue, part.count, part.bytes).await?,
            What::Open => {
                drop(queue.lease_next(2).await?.context("nothing is held")?);
                found.ready_ms = ms(start.elapsed());
            }
            What::Drain => found.rate = drain(&queue).await?,
        }
        let stats = queue.stats().await?;
        (found.allocated, found.index, found.written) =
            (stats.allocated_bytes, stats.index_bytes, stats.written_bytes);
        found.peak_mib = peak_mib()?;
        queue.close().await?;
        found.all_written = written_by_process()?;
        anyhow::Ok(found)
    })?;
    Ok(serde_json::to_string(&found)?)
}

async fn fill(queue: &Queue, count: u64, bytes: usize) -> anyhow::Result<f64> {
    let body = Bytes::from(vec![0x5a; bytes]);
    let start = now();
    let mut tasks = tokio::task::JoinSet::new();
    for caller in 0..64 {
        let (queue, body) = (queue.clone(), body.clone());
        tasks.spawn(async move {
            for _ in (caller..count).step_by(64) {
                queue.accept(load::entry(body.clone())).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(load::rate(count, start))
}

async fn drain(queue: &Queue) -> anyhow::Result<f64> {
    let start = now();
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..WORKERS {
        workers.spawn(work_off(queue.clone()));
    }
    let mut done = 0;
    while let Some(worker) = workers.join_next().await {
        done += worker??;
    }
    let rate = load::rate(done, start);
    queue.forget_before(10, 0).await?;
    queue.forget_before(10, 0).await?;
    Ok(rate)
}

/// Leases, reads and answers until nothing is left; returns how many.
async fn work_off(queue: Queue) -> anyhow::Result<u64> {
    let mut done = 0;
    loop {
        let leases = queue.lease_many(2, TOGETHER).await?;
        if leases.is_empty() {
            return Ok(done);
        }
        done += u64::try_from(leases.len())?;
        let answers = leases.iter().map(|lease| async {
            let body = lease.body().await?;
            queue.answer(lease.id(), body.slice(..body.len().min(16)), 3).await
        });
        futures_util::future::try_join_all(answers).await?;
    }
}

/// The most memory that this process had.
fn peak_mib() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).context("no VmHWM")?;
    Ok(kib.parse::<f64>()? / 1024.0)
}

/// Bytes that this process had written to the block layer.
fn written_by_process() -> anyhow::Result<u64> {
    let io = std::fs::read_to_string("/proc/self/io")?;
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.context("no write_bytes")?.trim().parse()?)
}
