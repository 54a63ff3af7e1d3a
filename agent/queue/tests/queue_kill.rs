//! kill -9 at random moments: a child process accepts and answers and prints what was acknowledged;
//! after each kill the queue is opened and held against what was printed.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test's helpers fail like the test"
)]

mod queue_kit;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use holdfast_queue::{NewEntry, RequestId, State};
use queue_kit::{entry, keyed, open};

const CHILD: &str = "HOLDFAST_QUEUE_KILL_CHILD";

/// How often it is killed: `HOLDFAST_KILLS`, or 20 times.
fn kills() -> usize {
    std::env::var("HOLDFAST_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(20)
}

/// What the child said was done.
#[derive(Default)]
struct Printed {
    accepted: BTreeSet<RequestId>,
    answered: BTreeMap<RequestId, String>,
    failed: BTreeSet<RequestId>,
}

impl Printed {
    fn take(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let (Some(what), Some(id)) = (words.next(), words.next()) else { return };
        let Ok(id) = RequestId::parse(id) else { return };
        match what {
            "accepted" => drop(self.accepted.insert(id)),
            "answered" => {
                let answer = words.next().unwrap_or_default().to_owned();
                let before = self.answered.insert(id, answer.clone());
                assert!(before.is_none_or(|was| was == answer), "{id} was answered twice");
            }
            "failed" => drop(self.failed.insert(id)),
            _ => {}
        }
    }
}

/// Works until it is killed, as the child of the test below; does nothing when run by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let (queue, _) = open(Path::new(&dir));
    let say = |line: String| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush()).ok();
    };
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..6u64 {
        let queue = queue.clone();
        tasks.spawn(async move {
            for turn in 0.. {
                let size = [10, 900, 30_000, 150_000][((turn + worker) % 4) as usize];
                let new = if turn % 3 == 0 {
                    NewEntry {
                        body: vec![turn as u8; size].into(),
                        ..keyed(&format!("{worker}-{turn}-{}", RequestId::new()), 1)
                    }
                } else {
                    entry((turn % 10) as u8, turn, &vec![turn as u8; size])
                };
                let id = new.id;
                queue.accept(new).await.unwrap();
                say(format!("accepted {id}"));
                let Some(lease) = queue.lease_next(u64::MAX).await.unwrap() else { continue };
                let (id, body) = (lease.id(), lease.body().await.unwrap());
                assert!(body.iter().all(|byte| *byte == body[0]));
                match turn % 5 {
                    0 => queue.retry_at(id, 0, "again").await.unwrap(),
                    1 => {
                        queue.fail(id, "no", turn).await.unwrap();
                        say(format!("failed {id}"));
                    }
                    _ => {
                        let answer = format!("{worker}/{turn}/{}", RequestId::new());
                        queue.answer(id, answer.clone(), turn).await.unwrap();
                        say(format!("answered {id} {answer}"));
                    }
                }
            }
        });
    }
    // None ends by itself; the first that panics ends all.
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn killed_queue_keeps_everything_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut printed = Printed::default();
    // Every final state ever seen, which must stay as it is.
    let mut seen: BTreeMap<RequestId, (State, Option<Vec<u8>>)> = BTreeMap::new();
    let given = std::env::var("HOLDFAST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| RequestId::new().uuid().as_u128() as u64);
    println!("HOLDFAST_SEED={seed}");
    let kills = kills();
    let mut random = seed | 1;
    for kill in 0..kills {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        run_and_kill(dir.path(), &mut printed, 1 + random % 400);
        let (queue, report) = open(dir.path());
        assert_eq!(
            report.bad,
            Vec::<std::path::PathBuf>::new(),
            "kill {kill}: {:?}",
            report.rebuilt
        );
        for id in &printed.accepted {
            let record = queue.get(*id).await.unwrap();
            let record = record.unwrap_or_else(|| panic!("kill {kill}: {id} is lost"));
            let state = record.summary.state;
            let answer = record.answer.map(|answer| answer.to_vec());
            if let Some(want) = printed.answered.get(id) {
                assert_eq!(answer.as_deref(), Some(want.as_bytes()), "kill {kill}: {id}");
            }
            if printed.failed.contains(id) {
                assert_eq!(state, State::Failed, "kill {kill}: {id}");
            }
            if state.is_final() {
                let now = (state, answer);
                let before = seen.entry(*id).or_insert_with(|| now.clone());
                assert_eq!(*before, now, "kill {kill}: {id} ended twice");
            } else {
                assert!(!seen.contains_key(id), "kill {kill}: {id} came back to life");
            }
        }
        queue.close().await.unwrap();
    }
    let (accepted, answered) = (printed.accepted.len(), printed.answered.len());
    println!(
        "FAULTS | queue, kill -9 | {kills} kills | {accepted} accepted, {answered} answered | 0 lost"
    );
    assert!(accepted > 100 && answered > 20, "{accepted} accepted, {answered} answered");
}

fn run_and_kill(dir: &Path, printed: &mut Printed, lines: u64) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CHILD, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    let mut said = 0;
    while said < lines {
        line.clear();
        assert!(out.read_line(&mut line).unwrap() > 0, "the child ended by itself");
        printed.take(&line);
        said += 1;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What it printed before it died counts; a line without its end was not printed.
    line.clear();
    while out.read_line(&mut line).unwrap() > 0 {
        if line.ends_with('\n') {
            printed.take(&line);
        }
        line.clear();
    }
}
