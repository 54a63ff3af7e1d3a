//! The one thread that writes: it takes what callers want, appends it, syncs once for all of them,
//! answers, and brings the index up to date before anybody who was answered looks into it.
//!
//! **Invariant:** no caller is answered before its record, and every record that its answer rests on,
//! is durable; a batch that fails is answered with its error as a whole and leaves no trace.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};
use tracing::warn;

use super::{
    QueueError, RequestId,
    begin::{Purpose, path_of},
    command::{Ack, Command, Reply},
    compact::Compaction,
    journal::{Meta, span},
    keys::{Entry, Mark},
    ledger::Ledger,
    lock::DirLock,
    replay::{self, Place},
    segments::Journal,
    shared::Shared,
    wear,
};

/// Commands taken into one batch at most.
const BATCH: usize = 1024;
/// Bytes appended in one batch at most (and one record more).
const BATCH_BYTES: u64 = 16 * 1024 * 1024;
/// While it gathers, the writer looks for more this often.
const GATHER_STEP: Duration = Duration::from_millis(1);
/// So often the writer looks for a command before it sleeps.
const LOOKS: u32 = 50;

/// The writer's state.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) place: Place,
    pub(super) shared: Arc<Shared>,
    pub(super) journal: Journal,
    pub(super) ledger: Ledger,
    store: [u8; 16],
    acks: Acks,
    /// Why the batch in hand fails, or why the journal cannot be written at all.
    failure: Option<QueueError>,
    lock: Option<DirLock>,
    /// When the day of the budget for the flash began, and the bytes written before it.
    day: (Instant, u64),
    pub(super) tries_to_return: u32,
    pub(super) compaction: Compaction,
}

/// Who waits for the batch, and whose leases it ends.
#[derive(Debug, Default)]
struct Acks {
    waiting: Vec<Ack>,
    settled: Vec<RequestId>,
    bytes: u64,
}

impl Writer {
    /// A writer over what was opened.
    pub(super) fn new(
        place: Place,
        shared: Arc<Shared>,
        opened: (Journal, Ledger),
        store: [u8; 16],
        lock: Option<DirLock>,
    ) -> Self {
        let (journal, ledger) = opened;
        let acks = Acks::default();
        Writer {
            place,
            shared,
            journal,
            ledger,
            store,
            acks,
            failure: None,
            lock,
            day: (Instant::now(), 0),
            tries_to_return: 0,
            compaction: Compaction::default(),
        }
    }

    /// Brings the index up to the journal's end and deletes what is finished.
    pub(super) fn start(&mut self) -> Result<(), QueueError> {
        self.commit_index()?;
        let index = self.shared.index()?;
        self.ledger.clear_tombstones(&index)?;
        drop(index);
        self.commit_index()?;
        // A new index has its mark from here on. Whoever changes an index that failed is told.
        self.shared.index()?.flush().ok();
        self.collect_garbage();
        self.shared.publish(&self.ledger);
        Ok(())
    }

    /// Serves commands until the queue is closed or nobody holds it any more.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut closer = None;
        // What was gathered for one batch and found no room in it comes first in the next.
        let mut gathered = VecDeque::new();
        while let Some(first) = gathered.pop_front().or_else(|| next(&mut commands)) {
            self.gather(&first, &mut gathered, &mut commands);
            let mut more = || gathered.pop_front().or_else(|| commands.try_recv().ok());
            closer = self.turn(first, &mut more);
            if closer.is_some() {
                break;
            }
        }
        commands.close();
        let closed = self.close();
        if let Err(failed) = &closed {
            warn!(%failed, "queue: not closed in good order; the index is checked on the next open");
        }
        if let Some(reply) = closer {
            drop(reply.send(closed));
        }
    }

    /// Waits for more commands, as long as one sync for many is wanted and none is urgent.
    fn gather(
        &mut self,
        first: &Command,
        gathered: &mut VecDeque<Command>,
        commands: &mut mpsc::Receiver<Command>,
    ) {
        let config = &self.shared.config;
        let written = self.shared.meter.written.load(Ordering::Relaxed);
        if self.day.0.elapsed() >= wear::DAY {
            // What was not used of a day's budget is not for the next.
            self.day = (Instant::now(), written);
        }
        let (open, written) = (self.day.0.elapsed(), written.saturating_sub(self.day.1));
        let delay = wear::delay(config.commit_delay, config.wear_per_day, written, open);
        let mut is_urgent = first.is_urgent() || gathered.iter().any(Command::is_urgent);
        let begun = Instant::now();
        while !is_urgent && begun.elapsed() < delay && gathered.len() + 1 < BATCH {
            match commands.try_recv() {
                Ok(next) => {
                    is_urgent = next.is_urgent();
                    gathered.push_back(next);
                }
                Err(mpsc::error::TryRecvError::Empty) => std::thread::sleep(GATHER_STEP),
                Err(mpsc::error::TryRecvError::Disconnected) => break,
            }
        }
    }

    /// Serves one batch: this command and those that wait behind it. Returns whoever asks to close.
    pub(super) fn turn(
        &mut self,
        first: Command,
        mut more: impl FnMut() -> Option<Command>,
    ) -> Option<Reply<()>> {
        self.restore_index();
        let mut closer = None;
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(command) = next.take() {
            match command {
                Command::Close { reply } => closer = Some(reply),
                other => self.take(other),
            }
            taken += 1;
            if closer.is_none() && taken < BATCH && self.acks.bytes < BATCH_BYTES {
                next = more();
            }
        }
        // Whoever waits for a batch that fails is told by it.
        self.commit().ok();
        self.collect_garbage();
        self.compact_if_tight();
        closer
    }

    fn take(&mut self, command: Command) {
        if self.failure.is_some() {
            // The batch before this command is undone first: what it said must not be looked up.
            self.commit().ok();
        }
        // A refusal too waits for the batch: what it goes by may be undone with it.
        let ack = match command {
            Command::Accept { entry, crc, answer, reply } => {
                Ack::Accepted(reply, self.accept(&entry, crc, answer))
            }
            Command::Finish { finish, reply } => Ack::Finished(reply, self.finish(&finish)),
            Command::Retry { id, back, spare_in_flight, reply } => {
                Ack::Retried(reply, self.retry(id, back, spare_in_flight))
            }
            Command::Forget { to_ms, most, reply } => Ack::Forgot(reply, self.forget(to_ms, most)),
            Command::ForgetOne { id, reply } => Ack::ForgotOne(reply, self.forget_one(id)),
            Command::Close { .. } => return,
        };
        self.acks.waiting.push(ack);
    }

    /// The batch in hand fails with this, as a whole.
    pub(super) fn fail_batch(&mut self, failed: &QueueError) {
        self.failure = Some(failed.clone());
    }

    /// This request is in nobody's hand any more when the batch is done.
    pub(super) fn settle_later(&mut self, id: RequestId) {
        self.acks.settled.push(id);
    }

    /// Appends a record of a request, as it is known now, and takes it into the ledger; a batch that
    /// fills its segment is committed first, so that a batch lies in one segment.
    pub(super) fn write(
        &mut self,
        id: RequestId,
        known: Option<Entry>,
        meta: &Meta,
        body: &[u8],
        crc: u32,
        purpose: Purpose,
    ) -> Result<(), QueueError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let encoded = meta
            .encode()
            .map_err(|error| QueueError::Index { detail: format!("meta of {id}: {error}") })?;
        let meta_len = u32::try_from(encoded.len()).unwrap_or(u32::MAX);
        let bytes = span(meta_len, body.len() as u64);
        if !self.journal.has_room(bytes) {
            self.commit()?;
            let begun = self.journal.roll(bytes, purpose);
            if purpose != Purpose::Compaction {
                self.compaction.is_due |= begun.is_err() || self.has_little_room();
            }
            begun?;
            self.ledger.add_segment(self.journal.active());
        }
        self.acks.bytes += bytes;
        let written = self.append(id, known, meta, &encoded, body, crc);
        if let Err(failed) = &written {
            self.fail_batch(failed);
        }
        written
    }

    fn append(
        &mut self,
        id: RequestId,
        known: Option<Entry>,
        meta: &Meta,
        encoded: &[u8],
        body: &[u8],
        crc: u32,
    ) -> Result<(), QueueError> {
        let index = self.shared.index()?;
        let place = self.journal.append(id, meta.kind(), encoded, body, crc)?;
        self.ledger.apply_to(&index, id, known, meta, place)
    }

    /// One sync for all who wait, then the answers, then the index. Who begins to look something up
    /// after an answer was sent waits for the index, and so finds what he was told.
    pub(super) fn commit(&mut self) -> Result<(), QueueError> {
        let synced = self.make_durable();
        let Acks { mut waiting, settled, .. } = std::mem::take(&mut self.acks);
        let shared = Arc::clone(&self.shared);
        let catching_up = shared.catch_up();
        shared.publish(&self.ledger);
        shared.notify();
        for ack in waiting.drain(..) {
            ack.send(&synced);
        }
        // The next batch needs as much room.
        self.acks.waiting = waiting;
        if let Err(failed) = synced {
            // A worker whose answer could not be stored keeps its lease.
            shared.in_flight.hand_back(&settled);
            return Err(failed);
        }
        let indexed = self.index_changes();
        if indexed.is_err() {
            // Nobody is to see what it lacks, nor to wait until it is made anew.
            drop(shared.replace_index(None));
        }
        shared.in_flight.settle(&settled);
        drop(catching_up);
        indexed.or_else(|failed| self.make_index_anew(&failed))
    }

    fn make_durable(&mut self) -> Result<(), QueueError> {
        let failed = match self.failure.take() {
            Some(failure) => failure,
            None if self.journal.is_dirty() => match self.journal.commit() {
                Ok(()) => return Ok(()),
                Err(failed) => failed,
            },
            None => return Ok(()),
        };
        self.ledger.roll_back();
        if let Err(unrepaired) = self.journal.repair() {
            self.failure = Some(unrepaired);
        }
        Err(failed)
    }

    fn commit_index(&mut self) -> Result<(), QueueError> {
        self.index_changes().or_else(|failed| self.make_index_anew(&failed))
    }

    fn index_changes(&mut self) -> Result<(), QueueError> {
        if self.ledger.is_clean() {
            return Ok(());
        }
        let index = self.shared.index()?;
        let mark = self.mark();
        self.ledger.commit(&index, &mark)
    }

    fn make_index_anew(&mut self, failed: &QueueError) -> Result<(), QueueError> {
        warn!(%failed, "queue: the index failed; rebuilding it from the journal");
        self.rebuild_index()
    }

    fn mark(&self) -> Mark {
        let position = self.journal.position();
        Mark {
            store: self.store,
            boot: self.place.boot.clone(),
            segment: position.segment,
            end: position.end,
            next_sequence: position.next_sequence,
            last: position.last,
            totals: self.ledger.totals,
            newest: self.ledger.newest(),
        }
    }

    /// Deletes segments of which nothing counts, until there are none: each may free others.
    pub(super) fn collect_garbage(&mut self) {
        self.journal.keep_reserve();
        if let Err(failed) = self.try_collect() {
            warn!(%failed, "queue: finished segments stay for now");
        }
    }

    fn try_collect(&mut self) -> Result<(), QueueError> {
        loop {
            let dead = self.ledger.dead_segments(self.journal.active());
            if dead.is_empty() || !self.ledger.is_clean() {
                return Ok(());
            }
            let index = self.shared.index()?;
            // The index must not fall behind what the deleted segments said.
            index.flush()?;
            for number in &dead {
                self.shared.disk.delete(&path_of(&self.shared.journal_dir, *number))?;
            }
            self.shared.disk.sync_entries(&self.shared.journal_dir)?;
            for number in dead {
                self.ledger.segment_gone(&index, number)?;
            }
            self.ledger.clear_tombstones(&index)?;
            self.commit_index()?;
            self.shared.publish(&self.ledger);
        }
    }

    /// Closes in good order.
    pub(super) fn close(mut self) -> Result<(), QueueError> {
        self.commit()?;
        let mark = self.mark();
        let index = self.shared.close();
        if let Some(index) = index.filter(|index| index.is_on_disk()) {
            index.apply([(super::keys::MARK.into(), Some(super::keys::encode(&mark)?))].into())?;
            index.sync()?;
            replay::write_clean(&*self.shared.disk, &self.place.dir, &mark)?;
            replay::wait_until_free(index);
        }
        drop(self.journal);
        drop(self.lock);
        Ok(())
    }
}

/// The next command. Whoever was told of the last commit often has more, and comes sooner than a
/// thread that sleeps is woken.
fn next(commands: &mut mpsc::Receiver<Command>) -> Option<Command> {
    for _ in 0..LOOKS {
        match commands.try_recv() {
            Ok(command) => return Some(command),
            Err(_none_yet) => std::thread::yield_now(),
        }
    }
    commands.blocking_recv()
}
