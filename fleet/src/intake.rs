//! Takes what the link brings into the roster, puts it on record, acknowledges it, and tells who watches.
//!
//! Hellos and goodbyes are on disk before they are acknowledged. Health is gathered and written once a second, in one
//! transaction; after a kill the controller may therefore know the health of a second ago.
//!
//! **Invariant:** only this module changes the roster.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use holdfast_wire::id::{DeviceId, Shard};
use holdfast_wire::message::{Down, HelloAck};
use holdfast_wire::sign::Signer;
use holdfast_wire::topic::{Kind, Topic};
use tokio::sync::{broadcast, mpsc};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Now};
use crate::device::{Device, Presence};
use crate::link::{Incoming, Link};
use crate::quiet::Quiet;
use crate::roster::{Refused, Roster, Taken, What};
use crate::store::{Results, Store, StoreError};

/// Messages taken before the disk is asked.
const BATCH: usize = 512;
/// How often health goes to disk and silence is looked for.
const TICK: Duration = Duration::from_secs(1);
/// Changes that a slow watcher may lag behind; after that it gets everything anew.
const WATCHERS_LAG: usize = 1024;
const SEQUENCE_BLOCK: u64 = 4096;

/// What the API reads.
pub(crate) struct State {
    roster: RwLock<Roster>,
    changes: broadcast::Sender<DeviceId>,
    refused: [AtomicU64; Refused::ALL.len()],
    store_works: AtomicBool,
    pub(crate) clock: Clock,
    pub(crate) started: Now,
}

impl State {
    pub(crate) fn new(roster: Roster, clock: Clock) -> Self {
        Self {
            roster: RwLock::new(roster),
            changes: broadcast::Sender::new(WATCHERS_LAG),
            refused: Default::default(),
            store_works: AtomicBool::new(true),
            clock,
            started: clock.now(),
        }
    }

    /// The roster as it is now; not to be held across an await.
    pub(crate) fn roster(&self) -> RwLockReadGuard<'_, Roster> {
        self.roster.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every device that changes from now on.
    pub(crate) fn watch(&self) -> broadcast::Receiver<DeviceId> {
        self.changes.subscribe()
    }

    /// How many messages were refused, by reason.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (Refused, u64)> {
        Refused::ALL.into_iter().zip(self.refused.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    /// Whether the last write to the registry succeeded.
    pub(crate) fn store_works(&self) -> bool {
        self.store_works.load(Ordering::Relaxed)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Roster) -> T) -> T {
        change(&mut self.roster.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The task that owns every change.
pub(crate) struct Intake {
    pub(crate) state: Arc<State>,
    pub(crate) store: Store,
    pub(crate) link: Link,
    pub(crate) signer: Signer,
    sequences: Sequences,
    unsaved: BTreeSet<DeviceId>,
    /// What devices reported and is not on disk; nothing of it was acknowledged.
    results: Vec<Results>,
    quiet: Quiet<Refused>,
}

/// Sequences of the controller, from blocks that the store reserved.
struct Sequences {
    next: u64,
    end: u64,
}

impl Intake {
    pub(crate) fn new(state: Arc<State>, store: Store, link: Link, signer: Signer) -> Self {
        let sequences = Sequences { next: 0, end: 0 };
        Self {
            state,
            store,
            link,
            signer,
            sequences,
            unsaved: BTreeSet::new(),
            results: Vec::new(),
            quiet: Quiet::new(),
        }
    }

    /// Runs until it is cancelled, then writes what is unsaved.
    pub(crate) async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Incoming>,
        cancel: CancellationToken,
    ) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                count = inbox.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        break;
                    }
                    self.take(std::mem::take(&mut batch)).await;
                }
                _ = tick.tick() => self.tick().await,
            }
        }
        let _saved = self.save().await;
        self.store.close().await;
    }

    async fn take(&mut self, batch: Vec<Incoming>) {
        let now = self.state.clock.now();
        let mut promised = Vec::new();
        for incoming in batch {
            match incoming {
                Incoming::Subscribed => self.announce(now).await,
                Incoming::Message { topic, payload } => {
                    match self.state.change(|roster| roster.take(&topic, &payload, now)) {
                        Ok(taken) => self.taken(taken, &mut promised),
                        Err(reason) => self.refuse(reason, &topic, now),
                    }
                }
            }
        }
        if promised.is_empty() && self.unsaved.len() < BATCH {
            return;
        }
        if self.save().await {
            for (device, message) in promised {
                self.send(&Topic::Device(device, Kind::Down), &message).await;
            }
        }
    }

    fn taken(&mut self, taken: Taken, promised: &mut Vec<(DeviceId, Down)>) {
        let Taken { device, sequence, what } = taken;
        match what {
            What::Appeared | What::Hello => {
                if what == What::Appeared {
                    tracing::info!(%device, "new device");
                }
                let ack = HelloAck { sequence, time: crate::clock::date() };
                promised.push((device.clone(), Down::HelloAck(ack)));
            }
            What::Bye => {
                tracing::info!(%device, "device stopped");
                promised.push((device.clone(), Down::Ack { sequence }));
            }
            What::Lost => tracing::warn!(%device, "device lost: its connection broke"),
            What::Results(reports) => {
                promised.push((device.clone(), Down::Ack { sequence }));
                let received = crate::clock::date();
                self.results.push(Results { device: device.clone(), received, reports });
            }
            What::Health => {}
        }
        self.changed(device);
    }

    fn refuse(&mut self, reason: Refused, topic: &str, now: Now) {
        let count = Refused::ALL
            .iter()
            .position(|other| *other == reason)
            .and_then(|at| self.state.refused.get(at));
        if let Some(count) = count {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(left_out) = self.quiet.may_log(reason, now.span) {
            let topic: String = topic.chars().filter(|c| !c.is_control()).take(128).collect();
            tracing::warn!(?reason, topic, left_out, "{}", reason.sentence());
        }
    }

    async fn tick(&mut self) {
        let now = self.state.clock.now();
        for device in self.state.change(|roster| roster.tick(now)) {
            tracing::warn!(%device, "device silent: it missed three health reports");
            self.changed(device);
        }
        let _saved = self.save().await;
    }

    fn changed(&mut self, device: DeviceId) {
        // Nobody watching is fine.
        let _watchers = self.state.changes.send(device.clone());
        self.unsaved.insert(device);
    }

    /// Writes what is unsaved; keeps it for the next time if that fails.
    async fn save(&mut self) -> bool {
        if self.unsaved.is_empty() {
            return true;
        }
        let devices: Vec<Device> = {
            let roster = self.state.roster();
            self.unsaved.iter().filter_map(|id| roster.get(id).cloned()).collect()
        };
        // Results that are not saved now come again: they are not acknowledged.
        let results = std::mem::take(&mut self.results);
        let saved = self.store.save(&devices, &results).await;
        self.note(&saved);
        if saved.is_ok() {
            self.unsaved.clear();
        }
        saved.is_ok()
    }

    fn note<T>(&self, result: &Result<T, StoreError>) {
        let works = result.is_ok();
        let worked = self.state.store_works.swap(works, Ordering::Relaxed);
        match result {
            Err(error) if worked => {
                tracing::error!(%error, cause = cause(error), "registry not written, nothing is acknowledged until it is");
            }
            Ok(_) if !worked => tracing::warn!("registry is written again"),
            Ok(_) | Err(_) => {}
        }
    }

    /// Asks every device for its hello.
    async fn announce(&mut self, now: Now) {
        for shard in Shard::all() {
            let started = self.state.started.date.min(now.date);
            self.send(&Topic::Announce(shard), &Down::Announce { started }).await;
        }
    }

    async fn send(&mut self, topic: &Topic, message: &Down) {
        let Some(sequence) = self.next_sequence().await else { return };
        match message.encode() {
            Ok(payload) => {
                if self.link.send(topic, self.signer.seal(topic, sequence, &payload)).is_err() {
                    tracing::debug!(%topic, "not sent, the device will ask again");
                }
            }
            Err(error) => tracing::error!(%topic, %error, "message cannot be encoded"),
        }
    }

    async fn next_sequence(&mut self) -> Option<u64> {
        if self.sequences.next == self.sequences.end {
            let first = self.store.reserve_sequences(SEQUENCE_BLOCK, crate::clock::date()).await;
            self.note(&first);
            let first = first.ok()?;
            self.sequences = Sequences { next: first, end: first.saturating_add(SEQUENCE_BLOCK) };
        }
        let sequence = self.sequences.next;
        self.sequences.next += 1;
        Some(sequence)
    }
}

/// The innermost cause of an error, as text.
fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// How many devices are online and offline.
pub(crate) fn tally(roster: &Roster) -> (usize, usize) {
    let online = roster.iter().filter(|device| device.presence == Presence::Online).count();
    (online, roster.len() - online)
}
