//! How fast and how large the queue is here, against the limit: writing over a preallocated file with
//! fdatasync. Not part of the tests; run with
//! `cargo test --release -p holdfast-agent --test queue_speed -- --ignored --nocapture --test-threads=1`.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test's helpers fail like the test"
)]

mod queue_kit;

use std::{fs::File, os::unix::fs::FileExt, path::Path};

use bytes::Bytes;
use holdfast_agent::queue::{NewEntry, Queue, QueueConfig};
use queue_kit::entry;
use tokio::time::Instant;

fn config() -> QueueConfig {
    QueueConfig { headroom_bytes: 0, max_bytes: 64 << 30, ..QueueConfig::default() }
}

/// Writes per second over a preallocated file, `sharing` of them to one fdatasync.
fn limit(dir: &Path, size: usize, count: usize, sharing: usize) -> f64 {
    let path = dir.join("limit");
    let file = File::create(&path).unwrap();
    let bytes = vec![1; size];
    for at in 0..count {
        file.write_all_at(&bytes, (at * size) as u64).unwrap();
    }
    file.sync_all().unwrap();
    let start = Instant::now();
    for at in 0..count {
        file.write_all_at(&bytes, (at * size) as u64).unwrap();
        if (at + 1) % sharing == 0 {
            rustix::fs::fdatasync(&file).unwrap();
        }
    }
    let rate = count as f64 / start.elapsed().as_secs_f64();
    std::fs::remove_file(path).unwrap();
    rate
}

async fn accepts(queue: &Queue, size: usize, count: usize, callers: usize) -> f64 {
    let body = Bytes::from(vec![1; size]);
    let start = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (queue, body) = (queue.clone(), body.clone());
            tokio::spawn(async move {
                for at in 0..count / callers {
                    let new = NewEntry { body: body.clone(), ..entry(5, at as u64, b"") };
                    queue.accept(new).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    count as f64 / start.elapsed().as_secs_f64()
}

async fn drains(queue: &Queue, count: usize, workers: usize) -> f64 {
    let start = Instant::now();
    let tasks: Vec<_> = (0..workers)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move {
                while let Some(lease) = queue.lease_next(u64::MAX).await.unwrap() {
                    lease.body().await.unwrap();
                    queue.answer(lease.id(), "an answer", 1).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    count as f64 / start.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a benchmark"]
async fn durable_accepts() {
    for (size, callers, count) in
        [(1024, 1, 3000), (1024, 64, 60_000), (100 << 10, 1, 1000), (100 << 10, 64, 4000)]
    {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let limit = limit(dir.path(), size, count, callers);
        let (queue, _) = Queue::open(&dir.path().join("queue"), config()).unwrap();
        let rate = accepts(&queue, size, count, callers).await;
        let stats = queue.stats().await.unwrap();
        let drained = drains(&queue, count, callers).await;
        println!(
            "{size:6} B, {callers:2} callers: {rate:8.0} accepts/s, limit {limit:8.0} (ratio {:.2}), \
             {drained:8.0} lease+answer/s, {} syncs, {:.2} bytes written per byte",
            rate / limit,
            stats.syncs,
            stats.written_bytes as f64 / (count * size) as f64,
        );
        queue.close().await.unwrap();
    }
}

fn rss_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a benchmark"]
async fn memory_with_10_000_held_requests_of_100_kib() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (queue, _) = Queue::open(dir.path(), config()).unwrap();
    let before = rss_kib();
    let rate = accepts(&queue, 100 << 10, 10_000, 8).await;
    let filled = rss_kib();
    queue.close().await.unwrap();
    drop(queue);
    let start = Instant::now();
    let (queue, report) = Queue::open(dir.path(), config()).unwrap();
    let opened = start.elapsed();
    println!(
        "10,000 x 100 KiB: RSS {} MiB before, {} MiB filled at {rate:.0}/s; reopened in {opened:?} \
         ({report:?}), RSS {} MiB; {:?}",
        before >> 10,
        filled >> 10,
        rss_kib() >> 10,
        queue.stats().await.unwrap(),
    );
    queue.close().await.unwrap();
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let start = Instant::now();
    let (_, report) = Queue::open(dir.path(), config()).unwrap();
    println!("index made anew in {:?} ({:?})", start.elapsed(), report.rebuilt);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a benchmark"]
async fn open_with_many_small_held_requests() {
    let count = 200_000;
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (queue, _) = Queue::open(dir.path(), config()).unwrap();
    let rate = accepts(&queue, 1024, count, 64).await;
    let filled = rss_kib();
    queue.close().await.unwrap();
    drop(queue);
    let start = Instant::now();
    let (queue, _) = Queue::open(dir.path(), config()).unwrap();
    let opened = start.elapsed();
    println!("{count} x 1 KiB at {rate:.0}/s: RSS {} MiB, opened in {opened:?}", filled >> 10);
    queue.close().await.unwrap();
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let start = Instant::now();
    let (_, report) = Queue::open(dir.path(), config()).unwrap();
    println!("index made anew in {:?} ({} held)", start.elapsed(), report.held);
}
