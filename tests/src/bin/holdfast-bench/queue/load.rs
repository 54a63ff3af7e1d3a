//! Callers that each put one record after the other, and wait until it is durable.
//!
//! One caller calls a store directly. Many share its syncs: they hand their records to one thread,
//! which takes all that wait and stores them together. The limit is measured in the same way, since a
//! hand-over costs everybody the same.
//!
//! **Invariant:** every record that is counted was durable when it was.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_agent::queue::{NewEntry, Queue, QueueConfig, RequestId};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

use super::engines::{Engine, Kind, Record};
use crate::clock::now;

/// Records taken together at most.
const BATCH: usize = 1024;

/// What is to be put.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Callers at once.
    pub(super) callers: u32,
    /// Bytes of a record.
    pub(super) bytes: usize,
    /// For so long.
    pub(super) time: Duration,
}

impl Load {
    fn body(self) -> Bytes {
        // Neither zeros nor one byte: a store may compress.
        let noise = (0..self.bytes).scan(1u32, |state, _| {
            *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            Some(state.to_le_bytes()[3])
        });
        noise.collect()
    }
}

/// Records a second that a store takes.
pub(super) fn engine(runtime: &Runtime, kind: Kind, dir: &Path, load: Load) -> anyhow::Result<f64> {
    let store = kind.open(dir)?;
    if load.callers == 1 { alone(store, load) } else { runtime.block_on(together(store, load)) }
}

fn alone(mut store: Box<dyn Engine>, load: Load) -> anyhow::Result<f64> {
    let body = load.body();
    let mut number = 0;
    let start = now();
    while start.elapsed() < load.time {
        number += 1;
        store.put(&[(number, body.clone())])?;
    }
    Ok(rate(number, start))
}

type Waiting = (Record, oneshot::Sender<()>);

async fn together(mut store: Box<dyn Engine>, load: Load) -> anyhow::Result<f64> {
    let (hand_over, mut waiting) = mpsc::channel::<Waiting>(BATCH);
    let writer = std::thread::spawn(move || -> anyhow::Result<()> {
        while let Some(first) = waiting.blocking_recv() {
            let mut batch = vec![first];
            while let Some(next) = waiting.try_recv().ok().filter(|_| batch.len() < BATCH) {
                batch.push(next);
            }
            let (records, callers): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            store.put(&records)?;
            for caller in callers {
                caller.send(()).ok();
            }
        }
        Ok(())
    });
    let body = load.body();
    let start = now();
    let mut tasks = tokio::task::JoinSet::new();
    for caller in 0..u64::from(load.callers) {
        let (hand_over, body) = (hand_over.clone(), body.clone());
        tasks.spawn(async move {
            let mut put = 0;
            while start.elapsed() < load.time {
                put += 1;
                let (done, stored) = oneshot::channel();
                hand_over.send((((caller << 32) + put, body.clone()), done)).await?;
                stored.await?;
            }
            anyhow::Ok(put)
        });
    }
    drop(hand_over);
    let put = sum(tasks).await;
    let rate = put.map(|put| rate(put, start));
    writer.join().map_err(|_| anyhow::anyhow!("the store panicked"))??;
    rate
}

/// Requests a second that the queue accepts in `place`.
pub(super) async fn queue(place: &Path, load: Load) -> anyhow::Result<f64> {
    std::fs::create_dir_all(place)?;
    let opened = place.to_owned();
    let (queue, _) =
        tokio::task::spawn_blocking(move || Queue::open(&opened, QueueConfig::default())).await??;
    let body = load.body();
    let start = now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..load.callers {
        let (queue, body) = (queue.clone(), body.clone());
        tasks.spawn(async move {
            let mut accepted = 0;
            while start.elapsed() < load.time {
                queue.accept(entry(body.clone())).await?;
                accepted += 1;
            }
            anyhow::Ok(accepted)
        });
    }
    let accepted = sum(tasks).await?;
    let rate = rate(accepted, start);
    queue.close().await?;
    Ok(rate)
}

/// A request that asks for nothing special.
pub(super) fn entry(body: Bytes) -> NewEntry {
    NewEntry {
        id: RequestId::new(),
        idempotency: None,
        priority: 5,
        accepted_at_ms: 1,
        not_before_ms: 0,
        expires_at_ms: None,
        envelope: Bytes::new(),
        body,
    }
}

async fn sum(mut tasks: tokio::task::JoinSet<anyhow::Result<u64>>) -> anyhow::Result<u64> {
    let mut all = 0;
    while let Some(done) = tasks.join_next().await {
        all += done??;
    }
    Ok(all)
}

#[expect(clippy::cast_precision_loss, reason = "a count of some seconds")]
pub(super) fn rate(count: u64, start: Instant) -> f64 {
    count as f64 / start.elapsed().as_secs_f64()
}
