//! How fast and how large the queue is here, against the limit: writing over a preallocated file with
//! fdatasync. Not part of the tests; run with
//! `cargo test --release -p holdfast-agent --test queue_speed -- --ignored --nocapture --test-threads=1`.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test's helpers fail like the test"
)]

mod queue_kit;

use std::{fs::File, os::unix::fs::FileExt, path::Path, time::Duration};

use bytes::Bytes;
use holdfast_agent::queue::{NewEntry, Queue, QueueConfig};
use queue_kit::entry;
use tokio::time::Instant;

fn config() -> QueueConfig {
    QueueConfig { headroom_bytes: 0, max_bytes: 64 << 30, ..QueueConfig::default() }
}

/// How long each rate is measured.
const SPAN: Duration = Duration::from_secs(4);

/// Writes per second over a preallocated file, `sharing` of them to one fdatasync.
fn limit(dir: &Path, size: usize, sharing: usize) -> f64 {
    const FILE: usize = 64 << 20;
    let path = dir.join("limit");
    let file = File::create(&path).unwrap();
    let bytes = vec![1; size];
    file.write_all_at(&vec![1; FILE], 0).unwrap();
    file.sync_all().unwrap();
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < SPAN {
        for _ in 0..sharing {
            file.write_all_at(&bytes, (count * size % (FILE - size)) as u64).unwrap();
            count += 1;
        }
        rustix::fs::fdatasync(&file).unwrap();
    }
    let rate = count as f64 / start.elapsed().as_secs_f64();
    std::fs::remove_file(path).unwrap();
    rate
}

/// Accepts per second, for so long or so many.
async fn accepts(queue: &Queue, size: usize, callers: usize, span: Duration, most: usize) -> f64 {
    let body = Bytes::from(vec![1; size]);
    let start = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (queue, body) = (queue.clone(), body.clone());
            tokio::spawn(async move {
                let mut count = 0;
                while count < most / callers && start.elapsed() < span {
                    let new = NewEntry { body: body.clone(), ..entry(5, count as u64, b"") };
                    queue.accept(new).await.unwrap();
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut count = 0;
    for task in tasks {
        count += task.await.unwrap();
    }
    count as f64 / start.elapsed().as_secs_f64()
}

/// Leases, bodies read and answers stored per second.
async fn drains(queue: &Queue, workers: usize) -> f64 {
    let start = Instant::now();
    let tasks: Vec<_> = (0..workers)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move {
                let mut count = 0;
                while start.elapsed() < SPAN
                    && let Some(lease) = queue.lease_next(u64::MAX).await.unwrap()
                {
                    lease.body().await.unwrap();
                    queue.answer(lease.id(), "an answer", 1).await.unwrap();
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut count = 0;
    for task in tasks {
        count += task.await.unwrap();
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a benchmark"]
async fn durable_accepts() {
    for (size, callers) in [(1024, 1), (1024, 64), (100 << 10, 1), (100 << 10, 64)] {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let before = limit(dir.path(), size, callers);
        let (queue, _) = Queue::open(&dir.path().join("queue"), config()).unwrap();
        let rate = accepts(&queue, size, callers, SPAN, usize::MAX).await;
        let stats = queue.stats().await.unwrap();
        let after = limit(dir.path(), size, callers);
        let drained = drains(&queue, callers).await;
        println!(
            "{size:6} B, {callers:2} callers: {rate:7.0} accepts/s ({:.2} of the limit, {before:.0} \
             before and {after:.0} after), {drained:7.0} lease+answer/s; {:.1} accepts a sync, {:.2} \
             bytes written per byte",
            rate * 2.0 / (before + after),
            stats.appended as f64 / stats.syncs as f64,
            stats.written_bytes as f64 / (stats.appended * size as u64) as f64,
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
    let rate = accepts(&queue, 100 << 10, 8, Duration::MAX, 10_000).await;
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
    let rate = accepts(&queue, 1024, 64, Duration::MAX, count).await;
    let filled = rss_kib();
    queue.close().await.unwrap();
    drop(queue);
    let start = Instant::now();
    let (queue, report) = Queue::open(dir.path(), config()).unwrap();
    let opened = start.elapsed();
    println!(
        "{} x 1 KiB at {rate:.0}/s: RSS {} MiB, opened in {opened:?}",
        report.held,
        filled >> 10
    );
    queue.close().await.unwrap();
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let start = Instant::now();
    let (_, report) = Queue::open(dir.path(), config()).unwrap();
    println!("index made anew in {:?} ({} held)", start.elapsed(), report.held);
}
