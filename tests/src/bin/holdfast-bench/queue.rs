//! Requests that are durably accepted in a second, beside what the disk can do.
//!
//! The limit is a plain write over a preallocated file with `fdatasync`: one record a sync for one
//! caller, as many records a sync as there are callers for more. Limit and queue take turns on the
//! same file system, because a shared disk's speed changes from second to second.
//!
//! **Invariant:** both sides write bodies of the same size, and every one counted was synced.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use holdfast_agent::queue::{NewEntry, Queue, QueueConfig, RequestId};

use crate::clock::now;
use crate::report::Report;

const BODY: usize = 1024;
/// The preallocated file is written round and round.
const FILE_BYTES: u64 = 16 * 1024 * 1024;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Seconds for each measurement
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Turns of limit and queue
    #[arg(long, default_value_t = 3)]
    turns: usize,
}

pub(crate) fn measure(options: &Options, out: &Path) -> anyhow::Result<Report> {
    let mut report = Report::new("queue", "Durable requests of 1 KiB");
    std::fs::create_dir_all(out)?;
    let folder = tempfile::tempdir_in(out).context("cannot make a folder for the queue")?;
    let time = Duration::from_secs_f64(options.seconds);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for callers in [1, 64] {
        let mut turns = Vec::new();
        for turn in 0..options.turns.max(1) {
            let limit = disk(&folder.path().join("limit"), callers, time)?;
            let place = folder.path().join(format!("queue-{callers}-{turn}"));
            let queue = runtime.block_on(accepts(&place, callers, time))?;
            std::fs::remove_dir_all(&place)?;
            turns.push((queue / limit, queue, limit));
        }
        turns.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (share, queue, limit) = turns[turns.len() / 2];
        let who = if callers == 1 { "1 caller".to_owned() } else { format!("{callers} callers") };
        report.add(format!("accepted, {who}"), queue, "/s");
        report.add(format!("the disk's limit, {who}"), limit, "/s");
        report.add(format!("accepted of the limit, {who}"), 100.0 * share, "%");
    }
    Ok(report)
}

/// Records a second, `batch` of them to a sync.
fn disk(path: &Path, batch: u32, time: Duration) -> anyhow::Result<f64> {
    let file = preallocated(path).with_context(|| format!("cannot write {}", path.display()))?;
    let record = vec![0xa5; BODY];
    let step = u64::try_from(BODY)?;
    let (mut at, mut written) = (0, 0.0);
    let start = now();
    while start.elapsed() < time {
        for _ in 0..batch {
            file.write_all_at(&record, at)?;
            at = (at + step) % FILE_BYTES;
        }
        file.sync_data()?;
        written += f64::from(batch);
    }
    Ok(written / start.elapsed().as_secs_f64())
}

fn preallocated(path: &Path) -> std::io::Result<File> {
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
    let zeros = vec![0; 1024 * 1024];
    let mut at = 0;
    while at < FILE_BYTES {
        file.write_all_at(&zeros, at)?;
        at += 1024 * 1024;
    }
    file.sync_all()?;
    Ok(file)
}

/// Requests a second that the queue accepted from this many callers, each waiting for its own.
async fn accepts(place: &Path, callers: u32, time: Duration) -> anyhow::Result<f64> {
    std::fs::create_dir_all(place)?;
    let opened = place.to_owned();
    let (queue, _) =
        tokio::task::spawn_blocking(move || Queue::open(&opened, QueueConfig::default())).await??;
    let body = Bytes::from(vec![0xa5; BODY]);
    let start = now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..callers {
        let (queue, body) = (queue.clone(), body.clone());
        tasks.spawn(async move {
            let mut accepted = 0.0;
            while start.elapsed() < time {
                let entry = NewEntry {
                    id: RequestId::new(),
                    idempotency: None,
                    priority: 5,
                    accepted_at_ms: 1,
                    not_before_ms: 0,
                    expires_at_ms: None,
                    envelope: Bytes::new(),
                    body: body.clone(),
                };
                queue.accept(entry).await?;
                accepted += 1.0;
            }
            anyhow::Ok(accepted)
        });
    }
    let mut accepted = 0.0;
    while let Some(done) = tasks.join_next().await {
        accepted += done??;
    }
    let rate = accepted / start.elapsed().as_secs_f64();
    queue.close().await?;
    Ok(rate)
}
