//! A store with requests in every state, and what must be left of it after damage.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use holdfast_queue::{Queue, QueueError, Recorded, RequestId, State};

use super::{
    harm::Random,
    queue_kit::{copy_dir, entry, keyed, open, segments},
    reader::{self, Kind, Record},
};

/// What is known of one request.
#[derive(Debug, Clone)]
struct Fact {
    state: State,
    attempts: u32,
    body: Vec<u8>,
    answer: Option<Vec<u8>>,
}

/// A good store, as it was closed, as it would be after a kill, and as it was some time before.
pub(crate) struct Store {
    dir: PathBuf,
    facts: BTreeMap<RequestId, Fact>,
}

/// What was seen in all cases.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) requests: u64,
    /// Requests one of whose records was damaged.
    pub(crate) touched: u64,
    /// Of these, those that were not as before.
    pub(crate) lost: u64,
}

/// What damage left of one request's records.
#[derive(Debug, Default, Clone, Copy)]
struct Left {
    accept_damaged: bool,
    retry_damaged: bool,
    has_final: bool,
    final_damaged: bool,
    /// A damaged record whose header, and with it the id, can still be read.
    readable: bool,
}

impl Left {
    fn is_intact(self) -> bool {
        !(self.accept_damaged || self.retry_damaged || self.final_damaged)
    }
}

impl Store {
    pub(crate) fn closed(&self) -> PathBuf {
        self.dir.join("closed")
    }

    pub(crate) fn killed(&self) -> PathBuf {
        self.dir.join("killed")
    }

    pub(crate) fn older(&self) -> PathBuf {
        self.dir.join("older")
    }

    /// Makes one, the same for the same random numbers but for its ids.
    pub(crate) async fn make(dir: &Path, random: &mut Random) -> Self {
        let mut store = Store { dir: dir.to_owned(), facts: BTreeMap::new() };
        let live = dir.join("live");
        for half in 0..2 {
            let (queue, _) = open(&live);
            for number in 0..40 {
                store.one_more(&queue, number, random).await;
            }
            if half == 1 {
                copy_dir(&live, &store.killed());
            }
            queue.close().await.unwrap();
            copy_dir(&live, &if half == 0 { store.older() } else { store.closed() });
        }
        assert!(segments(&store.closed()).len() >= 4, "too few segments");
        store
    }

    async fn one_more(&mut self, queue: &Queue, number: u64, random: &mut Random) {
        let size = [40, 900, 9_000, 60_000][random.below(4) as usize] + random.below(500);
        let body = random.bytes(size);
        let new = if number.is_multiple_of(4) {
            let key = format!("key-{number}-{}", RequestId::new());
            holdfast_queue::NewEntry { body: body.clone().into(), ..keyed(&key, 1) }
        } else {
            entry((number % 10) as u8, 1 + number, &body)
        };
        let id = new.id;
        queue.accept(new).await.unwrap();
        let mut fact = Fact { state: State::Held, attempts: 0, body, answer: None };
        for _ in 0..random.below(3) {
            queue.retry_at(id, 0, "again").await.unwrap();
            fact.attempts += 1;
        }
        match random.below(8) {
            0 | 1 => {
                let size = 30 + random.below(3) * 2000;
                let answer = random.bytes(size);
                let stored = queue.answer(id, answer.clone(), 50).await.unwrap();
                assert_eq!(stored, Recorded::Stored);
                (fact.state, fact.answer) = (State::Answered, Some(answer));
            }
            2 => {
                queue.fail(id, "no", 50).await.unwrap();
                fact.state = State::Failed;
            }
            3 => {
                queue.cancel(id, 50).await.unwrap();
                fact.state = State::Cancelled;
            }
            4 => {
                queue.set_aside(id, "too often").await.unwrap();
                (fact.state, fact.attempts) = (State::SetAside, fact.attempts + 1);
            }
            _ => {}
        }
        self.facts.insert(id, fact);
    }

    /// Opens the damaged `copy` of `pristine` and holds it against what must be left of it; then the
    /// queue must work, and be the same once more.
    pub(crate) async fn check(&self, pristine: &Path, copy: &Path, name: &str, tally: &mut Tally) {
        let left = self.left_of(pristine, copy);
        let (queue, report) = Queue::open(copy, super::queue_kit::small())
            .unwrap_or_else(|error| panic!("{name}: it does not open: {error}"));
        let named: Vec<RequestId> = report.damage.iter().filter_map(|place| place.id).collect();
        for (id, fact) in &self.facts {
            let left = left.get(id).copied().unwrap_or_default();
            let seen = see(&queue, *id).await;
            let wrong = compare(*id, fact, left, &seen, &named);
            assert!(wrong.is_none(), "{name}: {id} {}\n{left:?}\n{report:?}", wrong.unwrap());
            tally.requests += 1;
            tally.touched += u64::from(!left.is_intact());
            tally.lost += u64::from(!is_same(fact, &seen));
        }
        let new = entry(9, 1, b"after the damage");
        let id = new.id;
        queue.accept(new).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let stored = queue.answer(id, "yes", 60).await;
        assert_eq!(stored.unwrap(), Recorded::Stored, "{name}");
        queue.close().await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let (queue, _) = open(copy);
        for (id, fact) in &self.facts {
            if left.get(id).is_none_or(|left| left.is_intact()) {
                let seen = see(&queue, *id).await;
                assert!(is_same(fact, &seen), "{name}: {id} was good at first: {seen:?}");
            }
        }
        let answer = queue.get(id).await.unwrap().and_then(|record| record.answer);
        assert_eq!(answer.as_deref(), Some(&b"yes"[..]), "{name}");
        queue.close().await.unwrap();
    }

    /// What the damage left, by comparing the bytes of every record with those of the good store.
    fn left_of(&self, pristine: &Path, copy: &Path) -> BTreeMap<RequestId, Left> {
        let mut left: BTreeMap<RequestId, Left> = BTreeMap::new();
        for path in segments(pristine) {
            let good = fs::read(&path).unwrap();
            let now = fs::read(copy.join(path.strip_prefix(pristine).unwrap())).unwrap_or_default();
            let is_segment =
                reader::header(&now).is_some_and(|now| Some(now) == reader::header(&good));
            for Record { kind, id, bytes } in reader::records(&path) {
                let same = is_segment && now.get(bytes.clone()) == good.get(bytes.clone());
                let header = bytes.start..bytes.start + 64;
                let left = left.entry(uuid::Uuid::from_bytes(id).into()).or_default();
                left.has_final |= kind == Kind::Final;
                if !same {
                    left.readable |= is_segment && now.get(header.clone()) == good.get(header);
                    match kind {
                        Kind::Accept => left.accept_damaged = true,
                        Kind::Retry => left.retry_damaged = true,
                        Kind::Final => left.final_damaged = true,
                    }
                }
            }
        }
        left
    }
}

/// What the queue says of a request.
#[derive(Debug)]
enum Seen {
    Nothing,
    Damaged,
    There { state: State, attempts: u32, body: Option<Vec<u8>>, answer: Option<Vec<u8>> },
    Other(QueueError),
}

async fn see(queue: &Queue, id: RequestId) -> Seen {
    let read = async {
        let Some(record) = queue.get(id).await? else { return Ok(Seen::Nothing) };
        let body = queue.body(id).await?.map(|body| body.to_vec());
        let (state, attempts) = (record.summary.state, record.summary.attempts);
        let answer = record.answer.map(|answer| answer.to_vec());
        Ok(Seen::There { state, attempts, body, answer })
    };
    match read.await {
        Ok(seen) => seen,
        Err(QueueError::Damaged { id: named, .. }) if named == id => Seen::Damaged,
        Err(other) => Seen::Other(other),
    }
}

fn is_same(fact: &Fact, seen: &Seen) -> bool {
    let Seen::There { state, attempts, body, answer } = seen else { return false };
    let body_is_same = fact.state.is_final() || body.as_ref() == Some(&fact.body);
    *state == fact.state && *attempts == fact.attempts && *answer == fact.answer && body_is_same
}

/// What is wrong with what was seen, given what the damage left.
fn compare(
    id: RequestId,
    fact: &Fact,
    left: Left,
    seen: &Seen,
    named: &[RequestId],
) -> Option<String> {
    if is_same(fact, seen) {
        return None;
    }
    if left.is_intact() || (left.has_final && !left.final_damaged) {
        return Some(format!("has no damage of its own and is not as before: {seen:?}"));
    }
    match seen {
        Seen::Other(error) => Some(format!("cannot be read: {error}")),
        Seen::Damaged => None,
        Seen::Nothing if !left.accept_damaged => Some("is lost with a good accept".to_owned()),
        Seen::Nothing if left.readable && !named.contains(&id) => {
            Some("is lost and not named".to_owned())
        }
        Seen::Nothing => None,
        // Whatever is there must be of the request's own bytes.
        Seen::There { body, answer, attempts, .. } => {
            let other = body.as_ref().is_some_and(|body| *body != fact.body)
                || answer.as_ref().is_some_and(|answer| fact.answer.as_ref() != Some(answer))
                || *attempts > fact.attempts;
            other.then(|| format!("has other bytes: {seen:?}"))
        }
    }
}
