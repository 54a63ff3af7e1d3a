//! Owns the queue's life in a running agent: it is opened, tried again, emptied upward and kept tidy.
//!
//! **Invariant:** a disk that does not let it be opened ends nothing: the agent answers without it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Parts, RunError};
use crate::config::Config;
use crate::drain::Drain;
use crate::queue::{Forgotten, Queue, QueueError};
use crate::results::takers::{Foreseen, TakerError, Takers};
use crate::service::Service;
use crate::slot::Slot;

/// Lost requests that are named in one line of the log.
const NAMED: usize = 100;
/// The queue's disk is tried again after this time.
const REOPEN_AFTER: Duration = Duration::from_secs(5);
/// Answers past their time are looked for this often.
const TIDY_EVERY: Duration = Duration::from_secs(10);

/// Opens the queue; a disk that does not let it is tried again by [`hold_task`].
pub(super) async fn open_queue(config: &Config) -> Result<Slot, RunError> {
    let slot = Slot::default();
    match open(config).await {
        Ok(queue) => slot.fill(queue),
        Err(error @ QueueError::InUse { .. }) => return Err(RunError::Queue(error)),
        Err(error) => slot.refuse(&error),
    }
    Ok(slot)
}

async fn open(config: &Config) -> Result<Queue, QueueError> {
    let (dir, limits) = (queue_dir(&config.state_dir), config.queue.clone());
    let opening = tokio::task::spawn_blocking(move || Queue::open(&dir, limits));
    let (queue, report) = opening.await.map_err(|_| QueueError::Closed)??;
    tracing::info!(held = report.held, replayed = report.replayed, "queue opened");
    if let Some(why) = &report.rebuilt {
        tracing::warn!(%why, "the queue's index was made anew from its journal");
    }
    if report.damaged > 0 {
        tracing::error!(damaged = report.damaged, damage = ?report.damage, "damaged records in the queue");
    }
    for path in &report.bad {
        tracing::warn!(path = %path.display(), "set aside: it could not be read as a part of the queue");
    }
    if let Some(why) = &report.untold {
        tracing::warn!(%why, "what is lost with a part of the journal cannot be named by the old index");
    }
    if !report.lost.is_empty() {
        for ids in report.lost.chunks(NAMED) {
            let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
            tracing::error!(ids = ids.join(" "), "lost with a part of the journal");
        }
        tracing::error!(lost = report.lost.len(), "requests are lost with a part of the journal");
    }
    Ok(queue)
}

/// Where the queue is kept under a state folder.
pub fn queue_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("queue")
}

/// Empties the queue upward, and forgets answers past their time.
pub(super) async fn hold_task(parts: Arc<Parts>, stop: CancellationToken) {
    let Parts { config, service, takers, .. } = &*parts;
    let queue = loop {
        if let Some(queue) = service.queue.get() {
            break queue.clone();
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(REOPEN_AFTER) => {}
        }
        match open(config).await {
            // What was answered before is not sent again.
            Ok(queue) => service.queue.fill_behind(queue, service.clock.now_ms()).await,
            Err(error) => service.queue.refuse(&error),
        }
    };
    let drain = Drain {
        queue: queue.clone(),
        escalator: service.escalator.clone(),
        destinations: service.destinations.clone(),
        balancing: service.balancing.clone(),
        routes: config.routes.clone().into(),
        policy: service.policy.clone(),
        clock: service.clock.clone(),
        max_attempts: config.max_attempts,
    };
    let tidy = async {
        let webhooks: Vec<_> = config.results.webhooks.iter().map(|hook| &hook.name).collect();
        takers.keep_webhooks(&webhooks).await;
        for name in &config.results.takers {
            if let Err(error) = takers.ensure(name).await {
                let error = crate::error_chain(&error);
                tracing::warn!(taker = %name, %error, "a taker of results could not be made");
            }
        }
        let mut every = tokio::time::interval(TIDY_EVERY);
        loop {
            every.tick().await;
            match tidy(&queue, config, takers, service.clock.now_ms()).await {
                Ok(forgotten) => note_forgotten(forgotten),
                Err(error) => {
                    let error = crate::error_chain(&error);
                    tracing::warn!(%error, "kept answers could not be removed");
                }
            }
        }
    };
    tokio::select! {
        () = drain.run(stop.clone()) => {}
        () = tidy => {}
    }
}

/// Forgets answers past their time; takers that did not have them are told of the gap.
async fn tidy(
    queue: &Queue,
    config: &Config,
    takers: &Takers,
    now_ms: u64,
) -> Result<Forgotten, TakerError> {
    let keep_ms = config.keep_answers_ms;
    let to_ms = now_ms.checked_sub(keep_ms);
    let foreseen = takers.before_forgetting(queue, to_ms, config.queue.max_finals).await;
    // A disk that is too full to note it must not keep the queue from shrinking.
    let foreseen = foreseen.or_else(|error| match error {
        TakerError::File { .. } => {
            let error = crate::error_chain(&error);
            tracing::error!(%error, "what takers of results are about to miss cannot be noted");
            Ok(Foreseen::nothing())
        }
        error => Err(error),
    })?;
    let forgotten = queue.forget_foreseen(now_ms, keep_ms, foreseen.surplus).await?;
    takers.after_forgetting(foreseen, forgotten).await?;
    Ok(forgotten)
}

fn note_forgotten(Forgotten { by_age, by_count }: Forgotten) {
    let forgotten =
        |rule: &'static str| metrics::counter!("holdfast_forgotten_total", "rule" => rule);
    forgotten("age").increment(by_age);
    forgotten("count").increment(by_count);
    if by_count > 0 {
        let limit = "queue.max_answers";
        tracing::warn!(
            by_count,
            limit,
            "answers were removed before their time: too many are kept"
        );
    }
}

/// The queue, as soon as it is open; `None` when the agent stops first.
pub(super) async fn queue_of(service: &Service, stop: &CancellationToken) -> Option<Queue> {
    loop {
        if let Some(queue) = service.queue.get() {
            return Some(queue.clone());
        }
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(REOPEN_AFTER) => {}
        }
    }
}
