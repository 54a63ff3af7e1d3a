//! The queue against a model: random operations, reopenings and crashes.
//!
//! A crash is a copy of the directory at that moment. What was not acknowledged yet may then be on
//! disk sector by sector, or not; the index may be anything.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test's helpers fail like the test"
)]

mod queue_kit;

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use holdfast_queue::{
    Accepted, Idempotency, NewEntry, OpenReport, Queue, QueueConfig, QueueError, Recorded,
    RequestId, State,
};
use proptest::prelude::*;
use queue_kit::{copy_dir, segments, small};

#[derive(Debug, Clone)]
enum Op {
    Accept {
        priority: u8,
        size: u16,
        key: Option<u8>,
        delay: u8,
        ttl: Option<u8>,
    },
    AcceptAnswered {
        key: u8,
    },
    LeaseAndAnswer,
    LeaseAndRetry {
        delay: u8,
    },
    LeaseAndDrop,
    AnswerAny {
        nth: u8,
    },
    Cancel {
        nth: u8,
    },
    Expire,
    Forget {
        keep: u8,
    },
    Wait {
        ms: u8,
    },
    Reopen,
    /// The process dies; with it the index, when `index` says so.
    Kill {
        index: IndexFate,
    },
    /// The power goes while these operations are under way.
    PowerCut {
        accepts: u8,
        answers: u8,
        sectors: u64,
        index: IndexFate,
    },
}

#[derive(Debug, Clone, Copy)]
enum IndexFate {
    Kept,
    Lost,
    Garbled,
}

fn op() -> impl Strategy<Value = Op> {
    let index = prop_oneof![Just(IndexFate::Kept), Just(IndexFate::Lost), Just(IndexFate::Garbled)];
    let size = prop_oneof![4 => 0u16..2000, 1 => 20_000u16..65_000];
    let key = proptest::option::weighted(0.3, 0u8..6);
    let ttl = proptest::option::weighted(0.2, 1u8..60);
    let delay = prop_oneof![3 => Just(0u8), 1 => 1u8..40];
    prop_oneof![
        12 => (0u8..10, size, key, delay.clone(), ttl).prop_map(|(priority, size, key, delay, ttl)| {
            Op::Accept { priority, size, key, delay, ttl }
        }),
        2 => (0u8..6).prop_map(|key| Op::AcceptAnswered { key }),
        8 => Just(Op::LeaseAndAnswer),
        3 => delay.prop_map(|delay| Op::LeaseAndRetry { delay }),
        1 => Just(Op::LeaseAndDrop),
        2 => any::<u8>().prop_map(|nth| Op::AnswerAny { nth }),
        2 => any::<u8>().prop_map(|nth| Op::Cancel { nth }),
        2 => Just(Op::Expire),
        2 => (0u8..60).prop_map(|keep| Op::Forget { keep }),
        4 => (1u8..30).prop_map(|ms| Op::Wait { ms }),
        1 => Just(Op::Reopen),
        1 => index.clone().prop_map(|index| Op::Kill { index }),
        2 => (0u8..12, 0u8..6, any::<u64>(), index).prop_map(|(accepts, answers, sectors, index)| {
            Op::PowerCut { accepts, answers, sectors, index }
        }),
    ]
}

#[derive(Debug, Clone, PartialEq)]
struct Known {
    order: u64,
    accepted: u64,
    priority: u8,
    not_before: u64,
    expires: Option<u64>,
    key: Option<String>,
    body: Vec<u8>,
    attempts: u32,
    end: Option<(State, u64, Option<Vec<u8>>)>,
}

struct Run {
    root: tempfile::TempDir,
    generation: u32,
    queue: Queue,
    now: u64,
    counter: u64,
    model: BTreeMap<RequestId, Known>,
    /// Forgotten finals, which a rebuild may bring back until they are forgotten again.
    forgotten: BTreeMap<RequestId, Known>,
}

/// So short that it matters within a run.
const AGEING_MS: u64 = 40;

fn open(dir: &Path) -> (Queue, OpenReport) {
    Queue::open(dir, QueueConfig { ageing_ms: AGEING_MS, ..small() }).unwrap()
}

fn body(seed: u64, size: usize) -> Vec<u8> {
    (0..size).map(|at| (seed as usize * 31 + at * 7) as u8).collect()
}

impl Run {
    fn start() -> Self {
        // Syncs are counted on, not tested, here: where there is memory that looks like a disk, use it.
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() {
            tempfile::tempdir_in(memory).unwrap()
        } else {
            tempfile::tempdir().unwrap()
        };
        let (queue, _) = open(&root.path().join("0"));
        Run {
            root,
            generation: 0,
            queue,
            now: 1000,
            counter: 0,
            model: BTreeMap::new(),
            forgotten: BTreeMap::new(),
        }
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join(self.generation.to_string())
    }

    fn new_entry(&mut self, size: usize) -> (NewEntry, Known) {
        self.counter += 1;
        let body = body(self.counter, size);
        let new = NewEntry {
            id: RequestId::new(),
            idempotency: None,
            priority: 5,
            accepted_at_ms: self.now,
            not_before_ms: 0,
            expires_at_ms: None,
            envelope: Bytes::from(self.counter.to_string()),
            body: body.clone().into(),
        };
        let known = Known {
            order: self.counter,
            accepted: self.now,
            priority: 5,
            not_before: 0,
            expires: None,
            key: None,
            body,
            attempts: 0,
            end: None,
        };
        (new, known)
    }

    fn owner_of(&self, key: &str) -> Option<RequestId> {
        let owners = self.model.iter().filter(|(_, known)| known.key.as_deref() == Some(key));
        owners.map(|(id, _)| *id).next()
    }

    /// What the model says comes next: of each priority the oldest that never waits and the first due
    /// of those that do; of these, the first by priority and age.
    fn next(&self) -> Option<RequestId> {
        let waiting = self.model.iter().filter(|(_, known)| known.end.is_none());
        let may: Vec<_> = waiting.filter(|(_, known)| known.not_before <= self.now).collect();
        let head = |priority: u8, timed: bool| {
            may.iter()
                .filter(|(_, known)| known.priority == priority)
                .filter(|(_, known)| (known.not_before > 0) == timed)
                .min_by_key(|(_, known)| (known.not_before, known.order))
        };
        let heads = (0..=9).flat_map(|priority| [head(priority, false), head(priority, true)]);
        let urgency =
            |known: &Known| u64::from(known.priority) * AGEING_MS + self.now - known.accepted;
        let first =
            heads.flatten().max_by_key(|(_, known)| (urgency(known), Reverse(known.order)))?;
        Some(*first.0)
    }

    async fn step(&mut self, op: &Op) {
        match op {
            Op::Accept { priority, size, key, delay, ttl } => {
                let (mut new, mut known) = self.new_entry(usize::from(*size));
                new.priority = *priority;
                known.priority = *priority;
                new.expires_at_ms = ttl.map(|ttl| self.now + u64::from(ttl));
                known.expires = new.expires_at_ms;
                if *delay > 0 {
                    new.not_before_ms = self.now + u64::from(*delay);
                    known.not_before = new.not_before_ms;
                }
                self.accept(new, known, key.map(|key| key.to_string())).await;
            }
            Op::AcceptAnswered { key } => {
                let (new, mut known) = self.new_entry(0);
                known.end = Some((State::Answered, self.now, Some(b"at once".to_vec())));
                self.accept(new, known, Some(key.to_string())).await;
            }
            Op::LeaseAndAnswer | Op::LeaseAndRetry { .. } | Op::LeaseAndDrop => {
                self.lease(op).await;
            }
            Op::AnswerAny { nth } | Op::Cancel { nth } => self.end_any(op, *nth).await,
            Op::Expire => {
                let now = self.now;
                let mut expired = self.queue.expire(now).await.unwrap();
                expired.sort_unstable();
                let mut want = Vec::new();
                for (id, known) in &mut self.model {
                    if known.end.is_none() && known.expires.is_some_and(|at| at <= now) {
                        known.end = Some((State::Expired, now, None));
                        want.push(*id);
                    }
                }
                assert_eq!(expired, want);
            }
            Op::Forget { keep } => {
                let keep = u64::from(*keep);
                self.queue.forget_before(self.now, keep).await.unwrap();
                let to = self.now - keep;
                let gone = |known: &Known| known.end.as_ref().is_some_and(|(_, at, _)| *at <= to);
                let ids: Vec<_> =
                    self.model.iter().filter(|(_, known)| gone(known)).map(|(id, _)| *id).collect();
                for id in ids {
                    let known = self.model.remove(&id).unwrap();
                    self.forgotten.insert(id, known);
                }
            }
            Op::Wait { ms } => self.now += u64::from(*ms),
            Op::Reopen => {
                self.queue.close().await.unwrap();
                self.queue = open(&self.dir()).0;
            }
            Op::Kill { index } => {
                let to = self.next_dir();
                copy_dir(&self.dir(), &to);
                self.crash(to, *index).await;
            }
            Op::PowerCut { accepts, answers, sectors, index } => {
                self.power_cut(*accepts, *answers, *sectors, *index).await;
            }
        }
    }

    async fn accept(&mut self, mut new: NewEntry, mut known: Known, key: Option<String>) {
        let id = new.id;
        if let Some(key) = &key {
            // Half of the keys come with another digest the second time.
            let digest = [(self.counter % 2) as u8; 32];
            new.idempotency = Some(Idempotency { key: key.clone(), digest });
        }
        let answered = known.end.is_some();
        let result = if answered {
            self.queue.accept_answered(new.clone(), "at once").await
        } else {
            self.queue.accept(new.clone()).await
        };
        let owner = key.as_ref().and_then(|key| self.owner_of(key));
        match (owner, result) {
            (None, Ok(Accepted::New)) => {
                known.key = key;
                self.model.insert(id, known);
            }
            (Some(owner), Ok(Accepted::Known { id, state })) => {
                assert_eq!((id, state.is_final()), (owner, self.model[&owner].end.is_some()));
            }
            (Some(owner), Err(QueueError::KeyConflict { id, .. })) => assert_eq!(id, owner),
            (owner, result) => panic!("key owned by {owner:?}: {result:?}"),
        }
    }

    async fn lease(&mut self, op: &Op) {
        let want = self.next();
        let lease = self.queue.lease_next(self.now).await.unwrap();
        assert_eq!(lease.as_ref().map(|lease| lease.id()), want, "next at {}", self.now);
        let due = self.queue.next_due(self.now).await.unwrap();
        assert!(due.is_none_or(|due| due >= self.now));
        let Some(lease) = lease else { return };
        let id = lease.id();
        let known = self.model.get_mut(&id).unwrap();
        assert_eq!(lease.body().await.unwrap().as_ref(), known.body);
        assert_eq!(lease.attempts(), known.attempts);
        assert_eq!(lease.envelope().as_ref(), known.order.to_string().as_bytes());
        match op {
            Op::LeaseAndAnswer => {
                let answer = format!("answer to {}", known.order);
                let recorded = self.queue.answer(id, answer.clone(), self.now).await.unwrap();
                assert_eq!(recorded, Recorded::Stored);
                known.end = Some((State::Answered, self.now, Some(answer.into_bytes())));
            }
            Op::LeaseAndRetry { delay } => {
                known.not_before = if *delay > 0 { self.now + u64::from(*delay) } else { 0 };
                known.attempts += 1;
                self.queue.retry_at(id, known.not_before, "try again").await.unwrap();
            }
            _ => drop(lease),
        }
    }

    async fn end_any(&mut self, op: &Op, nth: u8) {
        if self.model.is_empty() {
            return;
        }
        let nth = usize::from(nth) % self.model.len();
        let (id, known) = self.model.iter_mut().nth(nth).unwrap();
        let (state, answer) = match op {
            Op::Cancel { .. } => (State::Cancelled, None),
            _ => (State::Answered, Some(b"out of turn".to_vec())),
        };
        let recorded = match &answer {
            Some(answer) => self.queue.answer(*id, answer.clone(), self.now).await.unwrap(),
            None => self.queue.cancel(*id, self.now).await.unwrap(),
        };
        match &known.end {
            Some((was, ..)) => assert_eq!(recorded, Recorded::AlreadyFinal(*was)),
            None => {
                assert_eq!(recorded, Recorded::Stored);
                known.end = Some((state, self.now, answer));
            }
        }
    }

    fn next_dir(&self) -> PathBuf {
        self.root.path().join((self.generation + 1).to_string())
    }

    async fn crash(&mut self, to: PathBuf, index: IndexFate) {
        match index {
            IndexFate::Kept => {}
            IndexFate::Lost => fs::remove_dir_all(to.join("index")).unwrap_or_default(),
            IndexFate::Garbled => {
                if let Ok(bytes) = fs::read(to.join("index/db")) {
                    let kept: Vec<u8> = bytes.iter().map(|byte| byte ^ 0x11).collect();
                    fs::write(to.join("index/db"), kept).unwrap();
                }
            }
        }
        self.queue.close().await.unwrap();
        fs::remove_dir_all(self.dir()).unwrap();
        self.generation += 1;
        self.queue = open(&to).0;
    }

    /// Operations are under way when the power goes: of what they wrote, any sectors may be there.
    async fn power_cut(&mut self, accepts: u8, answers: u8, sectors: u64, index: IndexFate) {
        let before = self.root.path().join("before");
        copy_dir(&self.dir(), &before);
        let mut maybe_new = Vec::new();
        let mut maybe_answered = Vec::new();
        for at in 0..accepts {
            let (new, known) = self.new_entry(usize::from(at) * 700);
            maybe_new.push((new.id, known));
            self.queue.accept(new).await.unwrap();
        }
        let open: Vec<RequestId> =
            self.model.iter().filter(|(_, known)| known.end.is_none()).map(|(id, _)| *id).collect();
        for id in open.into_iter().take(usize::from(answers)) {
            self.queue.answer(id, "in the dark", self.now).await.unwrap();
            maybe_answered.push(id);
        }
        let to = self.next_dir();
        copy_dir(&self.dir(), &to);
        // Segments deleted meanwhile were deleted after a sync, which this cut is before: all of it.
        if segments(&before)
            .iter()
            .all(|path| to.join("journal").join(path.file_name().unwrap()).exists())
        {
            mix(&before, &to, sectors);
        }
        fs::remove_dir_all(&before).unwrap();
        // What the machine had not written when it stopped is not in the index either.
        let index = if matches!(index, IndexFate::Kept) { IndexFate::Lost } else { index };
        self.crash(to, index).await;
        for (id, known) in maybe_new {
            if self.queue.get(id).await.unwrap().is_some() {
                self.model.insert(id, known);
            }
        }
        for id in maybe_answered {
            let record = self.queue.get(id).await.unwrap().expect("it was acknowledged");
            if record.summary.state == State::Answered {
                assert_eq!(record.answer.unwrap().as_ref(), b"in the dark");
                let end = (State::Answered, self.now, Some(b"in the dark".to_vec()));
                self.model.get_mut(&id).unwrap().end = Some(end);
            }
        }
    }

    /// Everything that was acknowledged is there, and nothing else.
    async fn check(&mut self) {
        // What a rebuild brought back is forgotten again.
        let mut back = Vec::new();
        for summary in self.queue.list(None, usize::MAX).await.unwrap() {
            if let Some(known) = self.forgotten.get(&summary.id) {
                assert!(known.end.is_some() && summary.state.is_final(), "{summary:?}");
                back.push((summary.id, known.clone()));
            } else {
                assert!(self.model.contains_key(&summary.id), "never accepted: {summary:?}");
            }
        }
        // The newest first: of several that had a key one after the other, the last one has it again.
        for (id, known) in back.into_iter().rev() {
            self.forgotten.remove(&id);
            // A request that is not forgotten may have the key by now; this one lives without it then.
            let key = known.key.clone().filter(|key| self.owner_of(key).is_none());
            self.model.insert(id, Known { key, ..known });
        }
        for (id, known) in &self.model {
            let record = self.queue.get(*id).await.unwrap();
            let record = record.unwrap_or_else(|| panic!("lost: {id} {known:?}"));
            let (state, at, answer) = match &known.end {
                Some((state, at, answer)) => (*state, Some(*at), answer.clone()),
                None => (State::Held, None, None),
            };
            assert_eq!(record.summary.state, state);
            assert_eq!(record.summary.finished_at_ms, at);
            assert_eq!(record.summary.attempts, known.attempts);
            assert_eq!(record.answer.map(|answer| answer.to_vec()), answer);
            assert_eq!(record.envelope.as_ref(), known.order.to_string().as_bytes());
        }
        let stats = self.queue.stats().await.unwrap();
        let held = self.model.values().filter(|known| known.end.is_none()).count() as u64;
        assert_eq!((stats.held, stats.in_flight, stats.damaged), (held, 0, stats.damaged));
        let finals = stats.answered + stats.failed + stats.expired + stats.cancelled;
        assert_eq!(finals, self.model.len() as u64 - held);
        if held == 0 && finals == 0 {
            assert_eq!(stats.segments, 1, "{stats:?}");
        }
    }
}

/// Makes every 512-byte sector of the journal in `to` that differs from `before` be either, by chance.
fn mix(before: &Path, to: &Path, seed: u64) {
    let mut random = seed | 1;
    let mut coin = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random & 1 == 0
    };
    for path in segments(to) {
        let was = fs::read(before.join("journal").join(path.file_name().unwrap()));
        let Ok(was) = was else {
            // A new segment: its name may not be on disk yet.
            if coin() {
                fs::remove_file(&path).unwrap();
            }
            continue;
        };
        let mut now = fs::read(&path).unwrap();
        now.resize(now.len().max(was.len()), 0);
        for (at, sector) in now.chunks_mut(512).enumerate() {
            let old =
                was.get(at * 512..(at * 512 + sector.len()).min(was.len())).unwrap_or_default();
            if old.len() == sector.len() && sector != old && coin() {
                sector.copy_from_slice(old);
            }
        }
        fs::write(&path, now).unwrap();
    }
}

fn cases() -> u32 {
    std::env::var("HOLDFAST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(40)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn queue_does_what_its_model_says(ops in proptest::collection::vec(op(), 1..120)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut run = Run::start();
            for op in &ops {
                run.step(op).await;
                if matches!(op, Op::Reopen | Op::Kill { .. } | Op::PowerCut { .. }) {
                    run.check().await;
                }
            }
            run.check().await;
            run.queue.close().await.unwrap();
        });
    }
}
