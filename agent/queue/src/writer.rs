//! The one thread that writes: it takes what callers want, appends it, syncs once for all of them,
//! answers, and brings the index up to date before anybody who was answered looks into it.
//!
//! **Invariant:** no caller is answered before its record, and every record that its answer rests on,
//! is durable; a batch that fails is answered with its error as a whole and leaves no trace.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::mpsc, time::Instant};
use tracing::{error, warn};

use super::{
    Accepted, NewEntry, QueueError, Recorded, RequestId,
    begin::{Purpose, path_of},
    command::{Ack, Command, Finish, Reply},
    entry::{Attempts, GivenBack, cut_reason},
    journal::{AcceptMeta, FinalMeta, FinalState, Meta, RetryMeta, Wait, span},
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
    /// Segments that were tried to be emptied since the opening.
    pub(super) stuck: BTreeSet<u64>,
    /// The disk has room for few segments more, or for none.
    is_tight: bool,
    /// Bytes that were free when there was no room to move anything.
    pub(super) no_room_with: Option<u64>,
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
            stuck: BTreeSet::new(),
            is_tight: false,
            no_room_with: None,
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
        if std::mem::take(&mut self.is_tight) {
            self.compact_if_room_grew();
        }
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

    fn accept(
        &mut self,
        new: &NewEntry,
        crc: u32,
        answer: Option<(Bytes, u32)>,
    ) -> Result<Accepted, QueueError> {
        let index = self.shared.index()?;
        if let Some(name) = &new.idempotency
            && let Some(id) = self.ledger.named(&index, &name.key)?
            && let Some(entry) = self.ledger.entry(&index, id)?
        {
            let same = entry.key.as_ref().is_some_and(|(_, digest)| *digest == name.digest);
            return if same {
                Ok(Accepted::Known { id, state: self.shared.state_of(id, &entry) })
            } else {
                Err(QueueError::KeyConflict { key: name.key.clone(), id })
            };
        }
        if self.ledger.entry(&index, new.id)?.is_some() {
            return Err(QueueError::IdTaken { id: new.id });
        }
        if answer.is_none() {
            self.make_room(new)?;
        }
        let oldest = new.accepted_at_ms.checked_add(self.shared.config.max_age_ms);
        let meta = AcceptMeta {
            idempotency: new.idempotency.clone(),
            priority: new.priority.min(9),
            order: self.journal.next_sequence(),
            accepted_at_ms: new.accepted_at_ms,
            not_before_ms: if new.not_before_ms > new.accepted_at_ms {
                new.not_before_ms
            } else {
                0
            },
            expires_at_ms: new.expires_at_ms.into_iter().chain(oldest).min(),
            attempts: 0,
            reason: None,
            wait: Wait::Turn,
            envelope: new.envelope.clone(),
        };
        match answer {
            None => {
                self.write(new.id, None, &Meta::Accept(meta), &new.body, crc, Purpose::Accept)?;
            }
            Some((answer, crc)) => {
                let meta = FinalMeta {
                    state: FinalState::Answered,
                    finished_at_ms: new.accepted_at_ms,
                    number: self.journal.next_sequence(),
                    request: meta,
                    accepts_in: Vec::new(),
                };
                self.write(new.id, None, &Meta::Final(meta), &answer, crc, Purpose::Accept)?;
            }
        }
        Ok(Accepted::New)
    }

    pub(super) fn finish(&mut self, finish: &Finish) -> Result<Option<Recorded>, QueueError> {
        let id = finish.id;
        let index = self.shared.index()?;
        let entry = self.ledger.entry(&index, id)?.ok_or(QueueError::Unknown { id })?;
        if entry.ended.is_some() {
            return Ok(Some(Recorded::AlreadyFinal(entry.state())));
        }
        // From here on nobody leases it; whoever has it already is overtaken, or left alone.
        if !self.shared.in_flight.take(id, finish.spare_in_flight) {
            return Ok(None);
        }
        let written = self.write_final(id, entry, finish);
        self.took(id, &written);
        written.map(|()| Some(Recorded::Stored))
    }

    fn write_final(
        &mut self,
        id: RequestId,
        entry: Entry,
        finish: &Finish,
    ) -> Result<(), QueueError> {
        let mut request = match self.accepted_as(id, &entry) {
            Err(QueueError::Damaged { .. }) => {
                error!(%id, "queue: a request's envelope is damaged; it ends without it");
                accept_meta(&entry, Bytes::new())
            }
            read => read?,
        };
        if finish.reason.is_some() {
            request.reason = finish.reason.as_deref().map(cut_reason);
        }
        let meta = Meta::Final(FinalMeta {
            state: finish.state,
            finished_at_ms: finish.now_ms,
            number: self.journal.next_sequence(),
            request,
            accepts_in: entry.accepts_in.clone(),
        });
        self.write(id, Some(entry), &meta, &finish.answer, finish.answer_crc, Purpose::Progress)
    }

    /// The accept's meta as of now.
    pub(super) fn accepted_as(
        &mut self,
        id: RequestId,
        entry: &Entry,
    ) -> Result<AcceptMeta, QueueError> {
        self.envelope(id, entry).map(|envelope| accept_meta(entry, envelope))
    }

    fn envelope(&mut self, id: RequestId, entry: &Entry) -> Result<Bytes, QueueError> {
        if let Some(known) = self.shared.in_flight.envelope(id) {
            return Ok(known);
        }
        if let Err(failed) = self.journal.write_out(&entry.place) {
            // What was in the buffer is not on its way to the disk any more.
            self.failure = Some(failed.clone());
            return Err(failed);
        }
        match self.shared.read_meta(id, &entry.place)?.0 {
            Meta::Accept(meta) => Ok(meta.envelope),
            Meta::Retry(_) | Meta::Final(_) | Meta::Tombstone(_) => Ok(Bytes::new()),
        }
    }

    fn retry(
        &mut self,
        id: RequestId,
        back: GivenBack,
        spare_in_flight: bool,
    ) -> Result<Recorded, QueueError> {
        let index = self.shared.index()?;
        let entry = self.ledger.entry(&index, id)?.ok_or(QueueError::Unknown { id })?;
        if !self.shared.in_flight.take(id, spare_in_flight) {
            return Ok(Recorded::Stored);
        }
        if entry.ended.is_some() {
            self.acks.settled.push(id);
            return Ok(Recorded::AlreadyFinal(entry.state()));
        }
        let meta = Meta::Retry(RetryMeta {
            attempts: match back.attempts {
                Attempts::Counted => entry.attempts.saturating_add(1),
                Attempts::Kept => entry.attempts,
                Attempts::Reset => 0,
            },
            not_before_ms: back.not_before_ms,
            reason: back.reason.as_deref().map(cut_reason).or_else(|| entry.reason.clone()),
            wait: back.wait,
        });
        let written = self.write(id, Some(entry), &meta, &[], 0, Purpose::Progress);
        self.took(id, &written);
        written.map(|()| Recorded::Stored)
    }

    /// What was taken is given up when the batch is durable, or at once when nothing was written.
    fn took(&mut self, id: RequestId, written: &Result<(), QueueError>) {
        match written {
            Ok(()) => self.acks.settled.push(id),
            Err(_) => self.shared.in_flight.hand_back(&[id]),
        }
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
                self.is_tight |= begun.is_err() || self.has_little_room();
            }
            begun?;
            self.ledger.add_segment(self.journal.active());
        }
        self.acks.bytes += bytes;
        let written = self.append(id, known, meta, &encoded, body, crc);
        if let Err(failed) = &written {
            self.failure = Some(failed.clone());
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
        let Acks { waiting, settled, .. } = std::mem::take(&mut self.acks);
        let shared = Arc::clone(&self.shared);
        let catching_up = shared.catch_up();
        shared.publish(&self.ledger);
        shared.notify();
        for ack in waiting {
            ack.send(&synced);
        }
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
            index
                .apply([(super::keys::MARK.to_vec(), Some(super::keys::encode(&mark)?))].into())?;
            index.sync()?;
            replay::write_clean(&*self.shared.disk, &self.place.dir, &mark)?;
            replay::wait_until_free(index);
        }
        drop(self.journal);
        drop(self.lock);
        Ok(())
    }
}

fn accept_meta(entry: &Entry, envelope: Bytes) -> AcceptMeta {
    AcceptMeta {
        idempotency: entry.key.clone().map(|(key, digest)| super::Idempotency { key, digest }),
        priority: entry.priority,
        order: entry.order,
        accepted_at_ms: entry.accepted_at_ms,
        not_before_ms: entry.not_before_ms,
        expires_at_ms: entry.expires_at_ms,
        attempts: entry.attempts,
        reason: entry.reason.clone(),
        wait: entry.wait,
        envelope,
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
