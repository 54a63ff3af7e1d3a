//! The record: written, read, altered, cut off, and on a disk that fails.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::destination::Zone;
use crate::queue::RequestId;
use crate::request::DataClass;

struct Device {
    dir: tempfile::TempDir,
}

impl Device {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn audit(&self, max_bytes: u64, required: bool) -> Audit {
        let clock = Clock::resume(self.dir.path());
        Audit::open(self.dir.path(), AuditConfig { max_bytes, required }, clock).unwrap()
    }

    fn folder(&self) -> PathBuf {
        folder(self.dir.path())
    }

    fn read(&self) -> (Chain, Vec<Event>) {
        let mut events = Vec::new();
        let chain = read(&self.folder(), |entry, _| events.push(entry.event.clone())).unwrap();
        (chain, events)
    }

    fn files(&self) -> Vec<PathBuf> {
        reader::files(&self.folder()).unwrap().into_iter().map(|part| part.path).collect()
    }
}

fn sent(request: RequestId) -> Sent {
    Sent {
        request,
        asked: "voice-commands".to_owned(),
        class: DataClass::Internal,
        destination: "cloud".to_owned(),
        zone: Zone::Private,
        bytes: 32_044,
        most_micros: 10,
    }
}

fn ended(request: RequestId) -> Ended {
    Ended {
        request,
        destination: "cloud".to_owned(),
        outcome: "answered".to_owned(),
        tokens_in: 7,
        tokens_out: 3,
        cost_micros: 9,
        took_ms: 0,
    }
}

/// Sends and ends so many.
async fn send(audit: &Audit, count: usize) {
    for _ in 0..count {
        let request = RequestId::new();
        audit.sent(sent(request)).await.unwrap().ended("answered", (7, 3), 9);
    }
    // What follows a line is behind it.
    std::mem::forget(audit.sent(sent(RequestId::new())).await.unwrap());
}

#[tokio::test]
async fn a_record_goes_on_over_restarts_and_is_one_chain() {
    let device = Device::new();
    for _ in 0..3 {
        send(&device.audit(1 << 20, true), 10).await;
    }
    let (chain, events) = device.read();
    assert_eq!((chain.lines, chain.first, chain.breaks.len()), (1 + 3 * 21, 1, 0), "{chain:?}");
    assert!(matches!(events[0], Event::Begun { .. }));
    let Event::Sent(first) = &events[1] else { panic!("{:?}", events[1]) };
    assert_eq!(first, &sent(first.request));
    let is_its_end =
        |event: &&Event| matches!(event, Event::Ended(end) if end.request == first.request);
    let Some(Event::Ended(end)) = events.iter().find(is_its_end) else { panic!("{events:?}") };
    assert_eq!(&Ended { took_ms: 0, ..end.clone() }, &ended(first.request));
    assert_eq!(device.files().len(), 1, "a restart goes on in the same file");
    let mode = fs::metadata(&device.files()[0]).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn what_is_altered_shows_where_it_is() {
    let device = Device::new();
    send(&device.audit(1 << 20, true), 5).await;
    let path = device.files().remove(0);
    let whole = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let without = |at: usize| {
        let mut lines = lines.clone();
        lines.remove(at);
        lines.join("\n") + "\n"
    };
    let swapped = {
        let mut lines = lines.clone();
        lines.swap(3, 5);
        lines.join("\n") + "\n"
    };
    for (case, text, line) in [
        ("a value", whole.replacen("\"bytes\":32044", "\"bytes\":1", 1), 2),
        ("a class", whole.replacen("\"internal\"", "\"public\"", 1), 2),
        ("a line out", without(4), 5),
        ("the first line out", without(0), 1),
        ("lines in another order", swapped, 4),
        ("no line at all", whole.replacen(lines[2], "nothing", 1), 3),
    ] {
        fs::write(&path, text).unwrap();
        let (chain, _) = device.read();
        assert_eq!(chain.breaks.first().map(|found| found.line), Some(line), "{case}: {chain:?}");
    }
}

#[tokio::test]
async fn what_a_power_failure_cut_off_is_no_alteration() {
    let device = Device::new();
    send(&device.audit(1 << 20, true), 2).await;
    let path = device.files().remove(0);
    let whole = fs::read(&path).unwrap();
    for cut in [1, 40, 200] {
        fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        let (before, _) = device.read();
        assert_eq!((before.lines, before.breaks.len()), (5, 0), "{cut}: {before:?}");
        send(&device.audit(1 << 20, true), 1).await;
        let (after, _) = device.read();
        assert_eq!((after.lines, after.breaks.len()), (5 + 1 + 3, 0), "{cut}: {after:?}");
        assert_eq!(device.files().len(), 2, "what was cut off is not written to");
        fs::remove_file(&device.files()[1]).unwrap();
    }
}

#[tokio::test]
async fn the_oldest_goes_when_there_is_too_much() {
    let device = Device::new();
    let audit = device.audit(512 << 10, true);
    for _ in 0..8 {
        send(&audit, 400).await;
    }
    let (chain, _) = device.read();
    assert!(chain.first > 1 && chain.breaks.is_empty(), "{chain:?}");
    let bytes: u64 = device.files().iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(bytes <= (512 << 10) + (64 << 10), "{bytes}");
    // What goes on after a restart is of the same chain.
    drop(audit);
    send(&device.audit(512 << 10, true), 1).await;
    assert_eq!(device.read().0.breaks, []);
}

#[tokio::test]
async fn a_disk_that_takes_no_line_stops_what_must_be_on_record_and_nothing_else() {
    let device = Device::new();
    // A file where the folder should be fails for root too.
    fs::write(device.folder(), "in the way").unwrap();
    let strict = device.audit(1 << 20, true);
    let refused = strict.sent(sent(RequestId::new())).await.unwrap_err();
    assert!(!refused.0.is_empty());
    fs::remove_file(device.folder()).unwrap();
    send(&strict, 1).await;
    assert_eq!(device.read().0.breaks, []);

    let device = Device::new();
    fs::write(device.folder(), "in the way").unwrap();
    drop(device.audit(1 << 20, false).sent(sent(RequestId::new())).await.unwrap());
}

#[tokio::test]
async fn nobody_waits_for_the_disk_before_a_send_unless_a_record_is_required() {
    let device = Device::new();
    fs::create_dir(device.folder()).unwrap();
    // Who reads it waits until somebody writes.
    let newest = device.folder().join(format!("{:020}.jsonl", 1));
    rustix::fs::mkfifoat(rustix::fs::CWD, &newest, rustix::fs::Mode::RWXU).unwrap();
    let lax = device.audit(1 << 20, false);
    let mut sending = lax.sent(sent(RequestId::new())).await.unwrap();
    sending.goes_out();
    let mut on_disk = Box::pin(sending.on_disk());
    let at_once = futures_util::poll!(&mut on_disk);
    assert!(at_once.is_pending(), "nobody hears of an answer before its line is on disk");
    // The disk goes on: there was nothing.
    drop(fs::OpenOptions::new().write(true).open(&newest).unwrap());
    on_disk.await;
    sending.ended("answered", (7, 3), 9);
    lax.flush().await;
    let (chain, events) = device.read();
    let words: Vec<bool> = events.iter().map(|event| matches!(event, Event::Sent(_))).collect();
    assert_eq!((words, chain.breaks), (vec![false, true, false], vec![]), "{events:?}");
}

#[tokio::test]
async fn an_end_is_on_record_soon_although_nobody_waits_for_it() {
    let device = Device::new();
    let audit = device.audit(1 << 20, true);
    for _ in 0..100 {
        audit.sent(sent(RequestId::new())).await.unwrap().ended("answered", (7, 3), 9);
    }
    // A send would hang on the writer's word for as long as this.
    let until = Instant::now() + WITHIN;
    while device.read().1.len() < 201 {
        assert!(Instant::now() < until, "an end stays unwritten: {:?}", device.read().0);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(device.read().0.breaks, []);
}

#[tokio::test]
async fn without_a_record_nothing_is_written() {
    let device = Device::new();
    for audit in [device.audit(0, false), Audit::default()] {
        send(&audit, 1).await;
    }
    assert!(!device.folder().exists());
}

#[tokio::test]
async fn many_at_once_are_one_chain() {
    let device = Device::new();
    let audit = device.audit(8 << 20, true);
    let all = (0..64).map(|_| {
        let audit = audit.clone();
        tokio::spawn(async move { send(&audit, 20).await })
    });
    for one in all.collect::<Vec<_>>() {
        one.await.unwrap();
    }
    let (chain, _) = device.read();
    assert_eq!((chain.lines, chain.breaks.len()), (1 + 64 * 41, 0));
}

#[tokio::test]
async fn what_its_caller_left_is_on_record_as_such() {
    let device = Device::new();
    let audit = device.audit(1 << 20, true);
    for (is_out, outcome, cost) in [(true, "left", 10), (false, "kept", 0)] {
        let mut sending = audit.sent(sent(RequestId::new())).await.unwrap();
        if is_out {
            sending.goes_out();
        }
        drop(sending);
        audit.flush().await;
        let (_, events) = device.read();
        let Some(Event::Ended(end)) = events.last() else { panic!("{events:?}") };
        assert_eq!((end.outcome.as_str(), end.cost_micros), (outcome, cost));
    }
}

#[tokio::test]
async fn every_file_but_the_last_is_on_disk_before_the_next_begins() {
    // What a power failure leaves of a file that was not synced is anything: all but the last one are.
    let device = Device::new();
    let audit = device.audit(1 << 20, true);
    for _ in 0..600 {
        let mut sending = audit.sent(sent(RequestId::new())).await.unwrap();
        sending.goes_out();
        sending.ended("answered", (1, 1), 1);
    }
    audit.flush().await;
    assert!(device.files().len() > 1);
    let (chain, _) = device.read();
    assert_eq!(chain.breaks, []);
    // The end of the first file gone, as where it had not been synced: that is what would show.
    let first = device.files().remove(0);
    let text = fs::read_to_string(&first).unwrap();
    let kept = text.trim_end().rsplit_once('\n').unwrap().0;
    fs::write(&first, format!("{kept}\n")).unwrap();
    assert_eq!(device.read().0.breaks.len(), 1, "{:?}", device.read().0);
}

#[tokio::test]
async fn a_record_that_is_taken_away_goes_on_and_shows_it() {
    let device = Device::new();
    let audit = device.audit(1 << 20, true);
    send(&audit, 2).await;
    fs::remove_dir_all(device.folder()).unwrap();
    send(&audit, 1).await;
    let (chain, events) = device.read();
    assert_eq!((chain.first, events.len(), chain.breaks.len()), (7, 4, 0), "{chain:?}");

    // Another file in its place, with the same words.
    let path = device.files().remove(0);
    let text = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, text).unwrap();
    send(&audit, 1).await;
    assert_eq!((device.read().0.lines, device.files().len()), (4 + 4, 2));

    // Nothing goes out where there can be no record.
    fs::remove_dir_all(device.folder()).unwrap();
    fs::write(device.folder(), "in the way").unwrap();
    audit.sent(sent(RequestId::new())).await.unwrap_err();
}
