//! The queue on a disk that loses power, against a model of what was promised.
//!
//! Each seed is a schedule: requests are put in, leased, answered, given back, cancelled, forgotten;
//! writes and syncs fail; the process is killed and the power goes, also in the middle of a write, a sync, a
//! roll-over or an opening. The writer is driven by hand, so that a seed always gives the same
//! schedule. After every opening each request must be where its caller was told that it is; what was
//! not acknowledged may be there or not, but what was once seen stays; nothing has two answers.
//!
//! `HOLDFAST_CASES=20000 cargo test --lib queue::sim` runs more of them; `HOLDFAST_SEED=7` one.

mod dice;
mod disk;
mod model;

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use tokio::sync::oneshot;

use self::{
    dice::Dice,
    disk::SimDisk,
    model::{End, Model, Stage},
};
use super::{
    Accepted, Forgotten, Idempotency, NEVER, NewEntry, QueueConfig, QueueError, Recorded,
    RequestId, State,
    command::{Command, Finish},
    disk::Disk,
    entry::{Attempts, GivenBack},
    journal::{FinalState, Wait},
    line::{LINE, Walk},
    opening,
    pick::Wanted,
    shared::Shared,
    writer::Writer,
};

/// Schedules that are run when nobody says how many.
const CASES: u64 = 1500;
/// Steps of a schedule.
const STEPS: usize = 60;

#[test]
fn what_was_promised_is_kept_whatever_the_disk_loses() {
    let from_env = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = from_env("HOLDFAST_SEED") {
        schedule(seed);
        return;
    }
    let cases = from_env("HOLDFAST_CASES").unwrap_or(CASES);
    let first = 1_000_000;
    let mut moved = 0;
    for seed in first..first + cases {
        match std::panic::catch_unwind(|| schedule(seed)) {
            Ok(bytes) => moved += bytes,
            Err(_) => panic!("run this one alone with HOLDFAST_SEED={seed}"),
        }
    }
    assert!(moved > 0 || cases < 100, "no schedule came to moving records");
}

#[test]
fn an_index_in_memory_goes_back_to_the_disk_when_there_is_room() {
    let mut world = World::new(Dice::new(1), false);
    world.reopen(false);
    world.accept();
    assert!(world.shared().stats().expect("numbers").index_in_memory);
    world.disk.set_has_index(true);
    world.forget();
    assert!(!world.shared().stats().expect("numbers").index_in_memory);
    world.accept();
    world.reopen(false);
    world.drain();
}

#[test]
fn a_segment_whose_header_the_disk_does_not_give_now_is_not_given_up() {
    let mut world = World::new(Dice::new(2), false);
    world.reopen(false);
    for _ in 0..40 {
        world.accept();
    }
    assert!(world.shared().stats().expect("numbers").segments > 2);
    world.stop();
    world.disk.restart();
    let disk: Arc<dyn Disk> = Arc::new(world.disk.clone());
    let names = || disk.names(&world.dir().join("journal")).expect("it lists");
    let before = names();
    world.disk.fail_headers(1);
    let failed = opening::open_on(&disk, &world.dir(), config(), None).map(|_| ()).unwrap_err();
    assert!(failed.is_unreadable(), "{failed:?}");
    let said = failed.to_string();
    assert!(said.contains(&before[0]) && said.contains("try again"), "{said}");
    assert_eq!(names(), before, "nothing was set aside");
    world.disk.fail_headers(0);
    world.reopen(false);
    world.drain();
}

/// Returns how many bytes were moved out of nearly dead segments.
fn schedule(seed: u64) -> u64 {
    let mut dice = Dice::new(seed);
    // sled is slow to open; what it holds is the same as what memory holds.
    let has_index = dice.one_in(40);
    let mut world = World::new(dice, has_index);
    for _ in 0..STEPS {
        world.step();
    }
    world.disk.fail_syncs(0);
    world.disk.fail_writes(0);
    world.disk.set_free(u64::MAX / 2);
    world.reopen(false);
    world.drain();
    world.moved
}

struct World {
    dice: Dice,
    disk: SimDisk,
    folder: tempfile::TempDir,
    open: Option<(Arc<Shared>, Writer)>,
    model: Model,
    now_ms: u64,
    moved: u64,
}

fn config() -> QueueConfig {
    QueueConfig {
        headroom_bytes: 0,
        headroom_inodes: 0,
        segment_bytes: 256 * 1024,
        max_finals: 50,
        ..QueueConfig::default()
    }
}

impl World {
    fn new(mut dice: Dice, has_index: bool) -> Self {
        World {
            disk: SimDisk::new(dice.next(), has_index),
            folder: tempfile::tempdir().expect("a folder"),
            open: None,
            model: Model::default(),
            now_ms: 1,
            moved: 0,
            dice,
        }
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("queue")
    }

    fn step(&mut self) {
        self.now_ms += 1;
        if self.open.is_none() {
            // The power may go while it opens, too.
            if self.dice.one_in(3) {
                let after = self.dice.below(25);
                self.disk.stop_after(after as u64);
            }
            self.disk.fail_headers([0, 0, 2][self.dice.below(3)]);
            self.reopen(true);
            return self.disk.fail_headers(0);
        }
        match self.dice.below(24) {
            0..=7 => self.accept(),
            8..=12 => self.work(),
            13 => self.cancel(),
            14 => self.retry_now(),
            15 => self.forget(),
            16 => self.disk.fail_syncs([0, 0, 0, 6][self.dice.below(4)]),
            17 => self.disk.set_free([u64::MAX / 2, u64::MAX / 2, 300_000][self.dice.below(3)]),
            18 => {
                let after = self.dice.below(40);
                self.disk.stop_after(after as u64);
            }
            19 | 20 => self.mix(),
            21 => self.come_again(),
            22 => self.disk.fail_writes([0, 0, 0, 8][self.dice.below(4)]),
            _ => self.stop(),
        }
        if self.disk.has_stopped() {
            self.stop();
        }
    }

    /// Ends the process: in good order, killed, or with the machine.
    fn stop(&mut self) {
        let Some((shared, writer)) = self.open.take() else { return };
        if self.dice.one_in(4) && !self.disk.has_stopped() {
            writer.close().ok();
        } else {
            self.disk.stop_after(0);
            drop(writer);
        }
        drop(shared);
        if self.dice.one_in(2) { self.disk.cut_power() } else { self.disk.restart() }
    }

    /// Opens the queue and looks whether all is there.
    fn reopen(&mut self, may_fail: bool) {
        self.stop();
        if !may_fail {
            self.disk.restart();
        }
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        match opening::open_on(&disk, &self.dir(), config(), None) {
            Ok((shared, writer, report)) => {
                let is_index = |path: &PathBuf| path.to_string_lossy().contains("/index.bad-");
                assert!(report.bad.iter().all(is_index), "given up: {:?}", report.bad);
                self.open = Some((shared, writer));
                self.look();
            }
            Err(failed) => {
                assert!(may_fail, "it does not open: {failed}");
                if self.dice.one_in(2) { self.disk.cut_power() } else { self.disk.restart() }
            }
        }
    }

    fn shared(&self) -> &Shared {
        &self.open.as_ref().expect("it is open").0
    }

    /// Compares all that the queue says with the model, which learns what was left open.
    fn look(&mut self) {
        let (shared, _) = self.open.as_ref().expect("it is open");
        let mut held = 0;
        for id in self.model.ids() {
            let stage = match self.see(shared, id) {
                Ok(stage) => stage,
                // The machine went off while it was looked at.
                Err(_) if self.disk.has_stopped() => return,
                Err(failed) => panic!("{id} cannot be read: {failed}"),
            };
            held += u64::from(matches!(stage, Stage::Held { .. }));
            self.model.seen(id, stage);
        }
        let Ok(stats) = shared.stats() else {
            return assert!(self.disk.has_stopped(), "no numbers");
        };
        let counted = stats.held + stats.in_flight + stats.waiting_for_budget + stats.set_aside;
        assert_eq!(counted, held, "{stats:?}");
        let results = shared.results_after(0, usize::MAX).expect("the index reads");
        assert!(results.is_sorted_by_key(|(number, _)| *number));
        for (number, summary) in results {
            self.model.number_seen(summary.id, number);
        }
    }

    fn see(&self, shared: &Shared, id: RequestId) -> Result<Stage, QueueError> {
        let Some(record) = shared.record(id)? else { return Ok(Stage::Gone) };
        let summary = record.summary;
        assert_eq!(record.envelope, self.model.envelope(id), "{id}");
        Ok(match summary.state {
            State::Held | State::InFlight | State::WaitingForBudget | State::SetAside => {
                let body = shared.body(id)?.expect("it is held");
                assert_eq!(body, self.model.body(id), "the body of {id}");
                let is_aside = summary.state == State::SetAside;
                Stage::Held { attempts: summary.attempts, is_aside }
            }
            State::Answered => Stage::Ended(End::Answered(record.answer.expect("its answer"))),
            State::Failed => Stage::Ended(End::Failed),
            State::Expired => Stage::Ended(End::Expired),
            State::Cancelled => Stage::Ended(End::Cancelled),
        })
    }

    /// Hands these commands to the writer as one batch; the model hears what they came to.
    fn serve(&mut self, asks: Vec<Ask>) {
        let (_, writer) = self.open.as_mut().expect("it is open");
        let (commands, heard): (Vec<Command>, Vec<Heard>) = asks.into_iter().unzip();
        let mut commands = commands.into_iter();
        let first = commands.next().expect("a command");
        let closer = writer.turn(first, || commands.next());
        assert!(closer.is_none());
        for heard in heard {
            heard(&mut self.model);
        }
    }

    fn accept(&mut self) {
        let count = [1, 1, 2, 5][self.dice.below(4)];
        let asks = (0..count).map(|_| accepts(self.request())).collect();
        self.serve(asks);
    }

    /// A batch of many kinds, more than one of them about the same request.
    fn mix(&mut self) {
        let ids = self.model.ids();
        let some: Vec<RequestId> = (0..2).filter_map(|_| self.dice.pick(&ids).copied()).collect();
        let count = 2 + self.dice.below(5);
        let asks = (0..count).map(|_| {
            let Some(id) = self.dice.pick(&some).copied() else { return accepts(self.request()) };
            match self.dice.below(6) {
                0 | 1 => accepts(self.request()),
                2 => gives_back(id, Attempts::Counted, Wait::Turn),
                3 => gives_back(id, Attempts::Reset, Wait::Turn),
                4 => forgets(id),
                _ => finishes(id, FinalState::Cancelled, Bytes::new(), self.now_ms),
            }
        });
        let asks = asks.collect();
        self.serve(asks);
    }

    /// Forgets one, and puts one in again that was forgotten: as an export is imported again.
    fn come_again(&mut self) {
        if let Some(id) = self.dice.pick(&self.model.ids()).copied() {
            self.serve(vec![forgets(id)]);
        }
        let Some(gone) = self.dice.pick(&self.model.forgotten()).cloned() else { return };
        let (reply, mut told) = oneshot::channel();
        let again = NewEntry {
            idempotency: None,
            accepted_at_ms: self.now_ms,
            expires_at_ms: None,
            ..gone
        };
        let (id, crc) = (again.id, crc32c::crc32c(&again.body));
        let command = Command::Accept { entry: Box::new(again), crc, answer: None, reply };
        let heard = move |model: &mut Model| match told.try_recv().expect("it is answered") {
            Ok(Accepted::New) => model.accepted_again(id, true),
            Ok(Accepted::Known { .. }) => panic!("{id} has no key"),
            Err(QueueError::IdTaken { .. }) => {}
            Err(_) => model.accepted_again(id, false),
        };
        self.serve(vec![(command, Box::new(heard))]);
    }

    fn request(&mut self) -> NewEntry {
        let bytes = match self.dice.below(12) {
            0 => 70_000 + self.dice.below(100_000),
            1 => 300_000,
            2 | 3 => 0,
            _ => self.dice.below(3000),
        };
        let seed = self.dice.next().to_le_bytes();
        let body: Bytes = seed.iter().copied().cycle().take(bytes).collect();
        let key = self.dice.one_in(3).then(|| format!("key-{}", self.dice.below(6)));
        let idempotency = key.map(|key| Idempotency { key, digest: [7; 32] });
        NewEntry {
            id: RequestId::new(),
            idempotency,
            priority: u8::try_from(self.dice.below(10)).expect("0..=9"),
            accepted_at_ms: self.now_ms,
            not_before_ms: 0,
            expires_at_ms: self.dice.one_in(8).then_some(self.now_ms + 20),
            envelope: Bytes::copy_from_slice(&seed),
            body,
        }
    }

    /// Leases something and answers it, fails it, gives it back, sets it aside or lets it expire.
    fn work(&mut self) {
        let line = self.dice.one_in(2).then(Walk::default);
        let wanted = Wanted { now_ms: self.now_ms, least_priority: 0, most: 1, line };
        let picked = match self.shared().pick(&wanted) {
            Ok(mut picked) => picked.pop(),
            Err(_) => return assert!(self.disk.has_stopped()),
        };
        let Some(id) = picked.map(|picked| picked.id) else { return };
        assert!(self.model.may_be_leased(id), "{id} was leased, and is not held");
        match self.dice.below(9) {
            0..=3 => {
                let answer = Bytes::from(self.dice.next().to_le_bytes().to_vec());
                let count = 1 + self.dice.below(2);
                self.finish(id, FinalState::Answered, answer, count);
            }
            4 => self.finish(id, FinalState::Failed, Bytes::new(), 1),
            5 => self.finish(id, FinalState::Expired, Bytes::new(), 1),
            6 => self.give_back(id, Attempts::Counted, Wait::Turn),
            7 => self.serve(vec![gives_back_at(id, Attempts::Kept, Wait::Turn, LINE)]),
            _ => self.give_back(id, Attempts::Counted, Wait::Operator),
        }
    }

    /// Ends a request; with a count of two, a second time with another answer in the same batch.
    fn finish(&mut self, id: RequestId, state: FinalState, answer: Bytes, count: usize) {
        let answers = [answer, Bytes::from_static(b"too late")].into_iter().take(count);
        let asks = answers.map(|answer| finishes(id, state, answer, self.now_ms)).collect();
        self.serve(asks);
    }

    fn give_back(&mut self, id: RequestId, attempts: Attempts, wait: Wait) {
        self.serve(vec![gives_back(id, attempts, wait)]);
    }

    fn cancel(&mut self) {
        if let Some(id) = self.dice.pick(&self.model.ids()).copied() {
            self.finish(id, FinalState::Cancelled, Bytes::new(), 1);
        }
    }

    fn retry_now(&mut self) {
        if let Some(id) = self.dice.pick(&self.model.ids()).copied() {
            self.give_back(id, Attempts::Reset, Wait::Turn);
        }
    }

    fn forget(&mut self) {
        let to_ms = self.now_ms.checked_sub(self.dice.below(40) as u64);
        self.forget_to(to_ms).ok();
        self.moved += self.shared().stats().map_or(0, |stats| stats.moved_bytes);
        self.look();
    }

    fn forget_to(&mut self, to_ms: Option<u64>) -> Result<Forgotten, QueueError> {
        let (reply, mut told) = oneshot::channel();
        let heard = |model: &mut Model| model.finals_may_be_forgotten();
        self.serve(vec![(Command::Forget { to_ms, most: u64::MAX, reply }, Box::new(heard))]);
        told.try_recv().expect("every command is answered")
    }

    /// In the end everything can be worked off, and its space comes back.
    fn drain(&mut self) {
        for id in self.model.ids() {
            if self.model.may_be_leased(id) {
                self.finish(id, FinalState::Answered, Bytes::from_static(b"at last"), 1);
            }
        }
        self.look();
        self.forget_to(Some(u64::MAX)).expect("nothing fails any more");
        let stats = self.shared().stats().expect("the index reads");
        assert_eq!((stats.held, stats.answered, stats.live_bytes), (0, 0, 0), "{stats:?}");
        assert!(stats.segments <= 1, "{stats:?}");
    }
}

/// What the model takes from an answer.
type Heard = Box<dyn FnOnce(&mut Model)>;

/// A command, and who hears what it came to.
type Ask = (Command, Heard);

fn accepts(new: NewEntry) -> Ask {
    let (reply, mut told) = oneshot::channel();
    let (entry, crc) = (Box::new(new.clone()), crc32c::crc32c(&new.body));
    let heard = move |model: &mut Model| {
        let id = new.id;
        match told.try_recv().expect("every command is answered") {
            Ok(Accepted::New) => model.accepted(new, true),
            Ok(Accepted::Known { id: known, .. }) => model.known(&new, known),
            // A refusal before anything was written, or a batch that failed.
            Err(_) => model.accepted(new, false),
        }
        assert!(model.has(id) || model.key_is_taken(id));
    };
    (Command::Accept { entry, crc, answer: None, reply }, Box::new(heard))
}

fn finishes(id: RequestId, state: FinalState, answer: Bytes, now_ms: u64) -> Ask {
    let (reply, mut told) = oneshot::channel();
    let finish = Finish {
        id,
        state,
        answer_crc: crc32c::crc32c(&answer),
        answer: answer.clone(),
        reason: None,
        now_ms,
        spare_in_flight: false,
    };
    let heard = move |model: &mut Model| {
        let end = match state {
            FinalState::Answered => End::Answered(answer),
            FinalState::Failed => End::Failed,
            FinalState::Expired => End::Expired,
            FinalState::Cancelled => End::Cancelled,
        };
        match told.try_recv().expect("every command is answered") {
            Ok(Some(Recorded::Stored)) => model.ended(id, end, true),
            Ok(Some(Recorded::AlreadyFinal(_))) => model.was_final(id),
            Ok(None) => {}
            Err(QueueError::Unknown { .. }) => model.seen(id, Stage::Gone),
            Err(_) => model.ended(id, end, false),
        }
    };
    (Command::Finish { finish: Box::new(finish), reply }, Box::new(heard))
}

fn gives_back(id: RequestId, attempts: Attempts, wait: Wait) -> Ask {
    let not_before_ms = if wait == Wait::Operator { NEVER } else { 0 };
    gives_back_at(id, attempts, wait, not_before_ms)
}

fn gives_back_at(id: RequestId, attempts: Attempts, wait: Wait, not_before_ms: u64) -> Ask {
    let is_aside = wait == Wait::Operator;
    let back = GivenBack { attempts, not_before_ms, reason: Some("so".into()), wait };
    let (reply, mut told) = oneshot::channel();
    let heard = move |model: &mut Model| match told.try_recv().expect("every command is answered") {
        Ok(Recorded::Stored) => model.given_back(id, attempts, is_aside, true),
        Ok(Recorded::AlreadyFinal(_)) => model.was_final(id),
        Err(QueueError::Unknown { .. }) => model.seen(id, Stage::Gone),
        Err(_) => model.given_back(id, attempts, is_aside, false),
    };
    (Command::Retry { id, back, spare_in_flight: false, reply }, Box::new(heard))
}

fn forgets(id: RequestId) -> Ask {
    let (reply, mut told) = oneshot::channel();
    let heard = move |model: &mut Model| match told.try_recv().expect("every command is answered") {
        Ok(false) => {}
        Ok(true) => model.is_forgotten(id),
        Err(_) => model.may_be_forgotten(id),
    };
    (Command::ForgetOne { id, reply }, Box::new(heard))
}
