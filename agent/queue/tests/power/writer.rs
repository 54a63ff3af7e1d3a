//! The processes on the disk whose power is cut. Everything they say goes to stdout, one line at a
//! time, and is kept by the process that cuts.

use std::{
    collections::BTreeSet,
    env,
    fs::File,
    io::Write,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use holdfast_queue::{
    NewEntry, OpenReport, Queue, QueueConfig, Recorded, RequestId, State, Summary,
};
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

/// The folder to work in.
pub(crate) const DIR: &str = "HOLDFAST_POWER_DIR";
/// Size of a plain writer's record.
pub(crate) const PLAIN: usize = 512;

/// Before a request that found no room is followed by another.
const FULL_WAIT: std::time::Duration = std::time::Duration::from_millis(2);

/// What one run works with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work {
    /// Its name.
    pub(crate) name: &'static str,
    /// Bytes of a body at most; the least is half of it.
    pub(crate) body: usize,
    /// Size of the disk.
    pub(crate) disk_mib: u64,
    segment: u64,
    /// Requests held at most, so that the disk never fills.
    held: u64,
}

impl Work {
    /// By its name.
    pub(crate) fn of(name: &str) -> Option<Self> {
        const KIB: u64 = 1024;
        let (name, body, disk_mib, segment, held) = match name {
            "1k" => ("1k", 1 << 10, 192, 256 * KIB, 3000),
            "100k" => ("100k", 100 << 10, 256, 1024 * KIB, 300),
            "5m" => ("5m", 5_000_000, 512, 16 * 1024 * KIB, 12),
            _ => return None,
        };
        Some(Work { name, body, disk_mib, segment, held })
    }

    fn open(self) -> (Queue, OpenReport) {
        let dir = PathBuf::from(env::var_os(DIR).unwrap()).join("queue");
        let config = QueueConfig {
            segment_bytes: self.segment,
            headroom_bytes: 0,
            max_finals: u64::MAX,
            ..QueueConfig::default()
        };
        match Queue::open(&dir, config) {
            Ok(opened) => opened,
            Err(failed) => {
                say(format!("fault it does not open: {failed}"));
                panic!("{failed}");
            }
        }
    }
}

fn say(line: String) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).unwrap();
}

/// Numbers that a seed repeats (xorshift64*); a seed of 0 gives none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // What is drawn of the low bits alone would otherwise follow from what was drawn before.
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).rotate_left(32)
    }

    fn bytes(&mut self, len: usize) -> Bytes {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend(self.next().to_le_bytes());
        }
        bytes.truncate(len);
        bytes.into()
    }
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Opens the queue, says what is in it, and works until it is stopped.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
pub(crate) async fn work(work: Work) {
    let (queue, report) = work.open();
    tell(&queue, &report).await;
    // What was set aside before the cut goes on.
    for summary in queue.list(Some(State::SetAside), 100).await.unwrap() {
        say(format!("again {}", summary.id));
        queue.retry_now(summary.id).await.unwrap();
    }
    let seed: u64 = env::var("HOLDFAST_SEED").unwrap().parse().unwrap();
    let held = Arc::new(AtomicU64::new(report.held));
    let mut workers = Vec::new();
    for worker in 0..8u64 {
        let random = Random((seed ^ (worker + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1);
        workers.push(tokio::spawn(turn_by_turn(queue.clone(), work, random, held.clone())));
    }
    for worker in workers {
        worker.await.unwrap();
    }
}

/// Says what is in the queue, and no more.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn look() {
    let (queue, report) = Work::of("1k").unwrap().open();
    tell(&queue, &report).await;
}

async fn tell(queue: &Queue, report: &OpenReport) {
    say(format!(
        "report held {} replayed {} damaged {} rebuilt {:?}",
        report.held, report.replayed, report.damaged, report.rebuilt
    ));
    for bad in report.bad.iter().filter(|path| !path.to_string_lossy().contains("index.bad-")) {
        say(format!("fault {} is taken for no segment", bad.display()));
    }
    for summary in queue.list(None, usize::MAX).await.unwrap() {
        let id = summary.id;
        match what_is(queue, &summary).await {
            Ok(what) => say(format!("found {id} {what}")),
            Err(failed) => say(format!("fault {id}: {failed}")),
        }
    }
    say("looked".to_owned());
}

async fn what_is(queue: &Queue, summary: &Summary) -> Result<String, holdfast_queue::QueueError> {
    if !summary.state.is_final() {
        let body = queue.body(summary.id).await?.unwrap_or_default();
        return Ok(format!("held {} {}", digest(&body), summary.attempts));
    }
    let record = queue.get(summary.id).await?;
    let answer = record.and_then(|record| record.answer);
    let answer = answer.map(|answer| String::from_utf8_lossy(&answer).into_owned());
    Ok(match answer {
        Some(answer) => format!("{} {answer}", summary.state),
        None => summary.state.to_string(),
    })
}

async fn turn_by_turn(queue: Queue, work: Work, mut random: Random, held: Arc<AtomicU64>) {
    loop {
        if held.load(Ordering::Relaxed) < work.held && put_in(&queue, work, &mut random).await {
            held.fetch_add(1, Ordering::Relaxed);
        }
        if !random.next().is_multiple_of(3) || held.load(Ordering::Relaxed) >= work.held {
            work_on(&queue, &mut random, &held).await;
        }
    }
}

/// False: there was no room.
async fn put_in(queue: &Queue, work: Work, random: &mut Random) -> bool {
    let size = work.body / 2 + random.next() as usize % (work.body / 2 + 1);
    let body = random.bytes(size);
    let id = RequestId::new();
    say(format!("begin {id} {}", digest(&body)));
    let entry = NewEntry {
        id,
        idempotency: None,
        priority: (random.next() % 10) as u8,
        accepted_at_ms: 1,
        not_before_ms: 0,
        expires_at_ms: None,
        envelope: random.bytes(200),
        body,
    };
    let accepted = queue.accept(entry).await;
    match &accepted {
        Ok(_) => say(format!("accepted {id}")),
        // The image is small; what is worked off makes room.
        Err(failed) if failed.is_no_space() => tokio::time::sleep(FULL_WAIT).await,
        Err(failed) => say(format!("fault {id} is refused: {failed}")),
    }
    accepted.is_ok()
}

async fn work_on(queue: &Queue, random: &mut Random, held: &AtomicU64) {
    let Some(lease) = queue.lease_next(10).await.unwrap() else { return };
    let id = lease.id();
    let end = match random.next() % 12 {
        0 => return,
        1 => {
            queue.retry_at(id, 0, "again").await.unwrap();
            say(format!("tried {id}"));
            return;
        }
        2 if random.next().is_multiple_of(4) => {
            queue.set_aside(id, "for later").await.unwrap();
            return;
        }
        3 => State::Failed,
        4 => State::Cancelled,
        _ => State::Answered,
    };
    let answer = hex::encode(random.bytes(20));
    let (name, recorded) = match end {
        State::Failed => {
            say(format!("ending {id} failed"));
            ("failed".to_owned(), queue.fail(id, "no", 5).await)
        }
        State::Cancelled => {
            say(format!("ending {id} cancelled"));
            ("cancelled".to_owned(), queue.cancel(id, 5).await)
        }
        _ => {
            say(format!("ending {id} answered {answer}"));
            (format!("answered {answer}"), queue.answer(id, answer, 5).await)
        }
    };
    match recorded {
        Ok(Recorded::Stored) => {
            say(format!("ended {id} {name}"));
            held.fetch_sub(1, Ordering::Relaxed);
        }
        other => say(format!("fault {id} is not ended: {other:?}")),
    }
}

/// How a plain writer's records are written before each is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Care {
    /// To the disk, and flushed.
    Synced,
    /// To the disk's cache.
    Direct,
    /// To the page cache.
    Careless,
}

impl Care {
    /// By its name.
    pub(crate) fn of(name: &str) -> Option<Self> {
        [Care::Synced, Care::Direct, Care::Careless].into_iter().find(|care| care.name() == name)
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Care::Synced => "synced",
            Care::Direct => "direct",
            Care::Careless => "careless",
        }
    }
}

/// Writes records over a preallocated file and acknowledges each; says first how many are there, and
/// no more than that if there is such a file.
pub(crate) fn plain(care: Option<Care>) {
    let path = PathBuf::from(env::var_os(DIR).unwrap()).join("plain");
    let is_there = |block: &&[u8]| block.iter().all(|byte| *byte == 7);
    if let Ok(bytes) = std::fs::read(&path) {
        let there: BTreeSet<usize> = bytes
            .chunks(PLAIN)
            .enumerate()
            .filter_map(|(at, block)| is_there(&block).then_some(at))
            .collect();
        for at in there {
            say(format!("found {at} there"));
        }
        say("looked".to_owned());
        return;
    }
    let file = File::create(&path).unwrap();
    file.write_all_at(&vec![0; 4 << 20], 0).unwrap();
    file.sync_all().unwrap();
    say("looked".to_owned());
    let flags = if care == Some(Care::Direct) { OFlags::DIRECT } else { OFlags::empty() };
    let file = File::options().write(true).custom_flags(flags.bits().cast_signed()).open(&path);
    let file = file.unwrap();
    // Past the page cache only what lies in memory as on the disk can be written.
    let records = vec![7; 2 * PLAIN];
    let aligned = records.as_ptr().align_offset(PLAIN);
    for at in 0..(4 << 20) / PLAIN {
        file.write_all_at(&records[aligned..aligned + PLAIN], (at * PLAIN) as u64).unwrap();
        if care == Some(Care::Synced) {
            file.sync_data().unwrap();
        }
        say(format!("accepted {at}"));
    }
    say("all written".to_owned());
    loop {
        std::thread::park();
    }
}
