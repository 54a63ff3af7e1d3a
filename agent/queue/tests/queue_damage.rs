//! Damage of every kind: torn ends, flipped bits, a broken or old index, broken segments. The queue
//! opens, loses only what is itself damaged, and names it.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test's helpers fail like the test"
)]

mod queue_kit;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
};

use holdfast_queue::{
    Accepted, NewEntry, OpenReport, Queue, QueueError, RequestId, State, read_only, repair,
};
use queue_kit::{copy_dir, entry, open, segments, small};

/// A closed queue with these bodies held, in this order.
async fn filled(dir: &Path, bodies: &[&[u8]]) -> Vec<RequestId> {
    let (queue, _) = open(dir);
    let mut ids = Vec::new();
    for body in bodies {
        let new = entry(5, 1, body);
        ids.push(new.id);
        queue.accept(new).await.unwrap();
    }
    queue.close().await.unwrap();
    ids
}

fn held_in(dir: &Path) -> (BTreeSet<RequestId>, OpenReport) {
    let (stopped, report) = read_only(dir).unwrap();
    let held = stopped.list(Some(State::Held), usize::MAX).unwrap();
    (held.into_iter().map(|summary| summary.id).collect(), report)
}

/// Offset behind the last byte of a file that is not zero.
fn used(path: &Path) -> u64 {
    let bytes = fs::read(path).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1)
}

#[tokio::test]
async fn end_torn_at_any_byte_loses_only_the_last_record() {
    let dir = tempfile::tempdir().unwrap();
    let ids = filled(dir.path(), &[b"first", b"second"]).await;
    let segment = segments(dir.path()).pop().unwrap();
    let start = used(&segment).next_multiple_of(64);
    let third = filled(dir.path(), &[&[0xab; 100]]).await;
    let whole = fs::read(&segment).unwrap();
    let end = used(&segment);
    let file = OpenOptions::new().write(true).open(&segment).unwrap();
    for at in start..=end {
        for how in ["zeroed", "truncated", "garbled"] {
            match how {
                "zeroed" => file.write_all_at(&vec![0; (end - at) as usize], at).unwrap(),
                "garbled" => file.write_all_at(&vec![0x5a; (end - at) as usize], at).unwrap(),
                _ => file.set_len(at).unwrap(),
            }
            let (held, report) = held_in(dir.path());
            let mut want: BTreeSet<_> = ids.iter().copied().collect();
            if at == end {
                want.extend(&third);
            }
            assert_eq!(held, want, "{how} from byte {at} of {start}..{end}");
            // Where nothing is left of the record, nothing is damaged.
            let traces = at != end && !(at == start && how != "garbled");
            assert_eq!(report.damaged > 0, traces, "{how} from byte {at}: {report:?}");
            file.write_all_at(&whole, 0).unwrap();
        }
    }
}

#[tokio::test]
async fn a_cut_through_the_filling_of_the_last_record_costs_nothing() {
    for cut in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let mut want = BTreeSet::from_iter(filled(dir.path(), &[b"first", &[0xcd; 90]]).await);
        let segment = segments(dir.path()).pop().unwrap();
        let end = used(&segment);
        let filling = end.next_multiple_of(64) - end;
        assert!(filling > 3, "the record fills its last line: {filling}");
        let file = OpenOptions::new().write(true).open(&segment).unwrap();
        file.set_len(end + [0, 1, filling - 1][cut]).unwrap();

        let (queue, report) = open(dir.path());
        assert_eq!((report.held, report.damaged), (2, 0), "{report:?}");
        let new = entry(5, 1, b"third");
        want.insert(new.id);
        queue.accept(new).await.unwrap();
        queue.close().await.unwrap();
        let (held, report) = held_in(dir.path());
        assert_eq!((held, report.damaged), (want, 0), "{report:?}");
    }
}

#[tokio::test]
async fn torn_end_is_written_over_and_the_queue_goes_on() {
    for cut in [1, 30, 64, 100, 150] {
        let dir = tempfile::tempdir().unwrap();
        let ids = filled(dir.path(), &[b"first"]).await;
        let segment = segments(dir.path()).pop().unwrap();
        let start = used(&segment).next_multiple_of(64);
        filled(dir.path(), &[&[0xcd; 300]]).await;
        let len = fs::metadata(&segment).unwrap().len();
        let file = OpenOptions::new().write(true).open(&segment).unwrap();
        file.set_len(start + cut).unwrap();
        file.set_len(len).unwrap();
        // As after a power cut, when the index counts for nothing.
        fs::remove_dir_all(dir.path().join("index")).unwrap();

        let (queue, report) = open(dir.path());
        assert_eq!((report.held, report.damaged), (1, 1), "cut {cut}: {report:?}");
        let new = entry(5, 1, b"third");
        let third = new.id;
        queue.accept(new).await.unwrap();
        queue.close().await.unwrap();
        let (held, report) = held_in(dir.path());
        assert_eq!(report.damaged, 0, "cut {cut}: the torn end is gone: {report:?}");
        assert_eq!(held, BTreeSet::from([ids[0], third]));
    }
}

#[tokio::test]
async fn every_flipped_bit_is_noticed_and_costs_one_record() {
    let dir = tempfile::tempdir().unwrap();
    let bodies: [&[u8]; 3] = [b"left", &[0x77; 150], b"right"];
    let ids = filled(dir.path(), &bodies).await;
    let segment = segments(dir.path()).pop().unwrap();
    let whole = fs::read(&segment).unwrap();
    let (good, _) = held_in(dir.path());
    assert_eq!(good, ids.iter().copied().collect());
    let file = OpenOptions::new().write(true).open(&segment).unwrap();
    let mut costs: BTreeMap<usize, usize> = BTreeMap::new();
    for at in 4096..used(&segment) {
        let byte = whole[at as usize];
        file.write_all_at(&[byte ^ (1 << (at % 8))], at).unwrap();
        let (held, report) = held_in(dir.path());
        let lost: Vec<_> = ids.iter().filter(|id| !held.contains(id)).collect();
        assert!(lost.len() <= 1, "byte {at} cost {}", lost.len());
        // Padding between records carries nothing.
        assert_eq!(lost.is_empty(), report.damaged == 0, "byte {at}: {report:?}");
        if let (Some(id), Some(named)) = (lost.first(), report.damage[..].first()) {
            assert!(named.id.is_none_or(|named| named == **id), "byte {at}: wrong name");
        }
        *costs.entry(lost.len()).or_default() += 1;
        file.write_all_at(&[byte], at).unwrap();
    }
    assert!(costs[&1] > 390, "hardly anything was flipped: {costs:?}");
}

#[tokio::test]
async fn body_damaged_behind_an_intact_index_is_set_aside_when_its_turn_comes() {
    let dir = tempfile::tempdir().unwrap();
    // Too large to be read with the lease.
    let ids = filled(dir.path(), &[&[1; 100_000], b"good"]).await;
    let segment = segments(dir.path()).pop().unwrap();
    let file = OpenOptions::new().write(true).open(&segment).unwrap();
    file.write_all_at(&[0xff; 8], 4096 + 3000).unwrap();
    let (queue, report) = open(dir.path());
    assert_eq!((report.rebuilt, report.held), (None, 2), "payloads are not read on opening");
    let lease = queue.lease_next(2).await.unwrap().unwrap();
    let damaged = lease.body().await.unwrap_err();
    assert!(matches!(damaged, QueueError::Damaged { id, .. } if id == ids[0]), "{damaged}");
    drop(lease);
    // Damage in the envelope's record shows before the lease is given.
    file.write_all_at(&[0xff; 8], 4096 + 70).unwrap();
    let lease = queue.lease_next(2).await.unwrap().unwrap();
    assert_eq!(lease.id(), ids[1]);
    let failed = queue.list(Some(State::Failed), 9).await.unwrap();
    assert_eq!(failed[0].id, ids[0]);
    assert!(failed[0].last_reason.as_deref().unwrap().contains("damaged"));
}

#[tokio::test]
async fn index_that_is_missing_damaged_or_old_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), &[b"a", b"b"]).await;
    let old = tempfile::tempdir().unwrap();
    copy_dir(&dir.path().join("index"), old.path());
    let ids = filled(dir.path(), &[b"c", b"d"]).await;
    {
        let (queue, _) = open(dir.path());
        queue.answer(ids[0], "done", 5).await.unwrap();
        queue.close().await.unwrap();
    }
    type Damage = fn(&Path, &Path);
    let table: [(&str, Damage); 6] = [
        ("missing", |index, _| fs::remove_dir_all(index).unwrap()),
        ("empty file", |index, _| fs::write(index.join("db"), b"").unwrap()),
        ("noise", |index, _| fs::write(index.join("db"), vec![0x9c; 600_000]).unwrap()),
        ("noise in the middle", |index, _| {
            let file = OpenOptions::new().write(true).open(index.join("db")).unwrap();
            file.write_all_at(&[0x9c; 5000], 300).unwrap();
        }),
        ("an older copy", |index, old| {
            fs::remove_dir_all(index).unwrap();
            copy_dir(old, index);
        }),
        ("a file in its place", |index, _| {
            fs::remove_dir_all(index).unwrap();
            fs::write(index, b"what").unwrap();
        }),
    ];
    for (name, damage) in table {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), copy.path());
        damage(&copy.path().join("index"), old.path());
        let (queue, report) = open(copy.path());
        assert_eq!(report.held, 3, "{name}: {report:?}");
        let stats = queue.stats().await.unwrap();
        assert_eq!((stats.held, stats.answered), (3, 1), "{name}");
        let answer = queue.get(ids[0]).await.unwrap().unwrap().answer.unwrap();
        assert_eq!(answer.as_ref(), b"done", "{name}");
        let bodies: BTreeSet<_> = bodies(&queue).await;
        assert_eq!(bodies, [b"a".to_vec(), b"b".to_vec(), b"d".to_vec()].into(), "{name}");
        queue.close().await.unwrap();
        let (_, report) = open(copy.path());
        assert_eq!((report.rebuilt, report.held), (None, 3), "{name}: good again");
    }
}

async fn bodies(queue: &Queue) -> BTreeSet<Vec<u8>> {
    let mut leases = Vec::new();
    let mut found = BTreeSet::new();
    while let Some(lease) = queue.lease_next(1000).await.unwrap() {
        found.insert(lease.body().await.unwrap().to_vec());
        leases.push(lease);
    }
    found
}

#[tokio::test]
async fn bad_indexes_are_kept_up_to_a_limit() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), &[b"a"]).await;
    for round in 1..=5 {
        fs::write(dir.path().join("index/db"), vec![0x3c; 600_000]).unwrap();
        let (queue, report) = open(dir.path());
        assert!(report.rebuilt.is_some(), "round {round}");
        assert_eq!((report.held, report.bad.len()), (1, 1), "round {round}: {report:?}");
        assert!(report.bad[0].ends_with(format!("index.bad-{round}")));
        queue.close().await.unwrap();
    }
    let kept = fs::read_dir(dir.path()).unwrap().filter(|found| {
        found.as_ref().unwrap().file_name().to_string_lossy().starts_with("index.bad-")
    });
    assert_eq!(kept.count(), small().keep_bad);
}

#[tokio::test]
async fn unreadable_segment_is_renamed_and_the_others_serve() {
    let dir = tempfile::tempdir().unwrap();
    let big = vec![9; 200 * 1024];
    let ids = filled(dir.path(), &[&big, &big, &big]).await;
    let all = segments(dir.path());
    assert!(all.len() >= 3, "{all:?}");
    let file = OpenOptions::new().write(true).open(&all[1]).unwrap();
    // One copy of the header is enough.
    file.write_all_at(&[0; 64], 0).unwrap();
    assert_eq!(held_in(dir.path()).0.len(), 3);
    file.write_all_at(&[0; 64], 2048).unwrap();
    let (queue, report) = open(dir.path());
    assert_eq!((report.held, report.bad.len()), (2, 2), "segment and index: {report:?}");
    assert!(report.bad[0].to_string_lossy().ends_with(".seg.bad-1") && report.bad[0].exists());
    assert!(report.rebuilt.is_some());
    assert_eq!(report.lost, [ids[1]], "the old index names it");
    assert_eq!(queue.get(ids[1]).await.unwrap(), None);
    assert!(queue.get(ids[2]).await.unwrap().is_some());
}

#[tokio::test]
async fn requests_of_a_deleted_or_cut_segment_are_named() {
    let big = vec![9; 200 * 1024];
    for (at, cut_to) in [(0, None), (1, None), (2, None), (2, Some(4096)), (2, Some(100_000))] {
        for by_repair in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let ids = filled(dir.path(), &[&big, &big, &big]).await;
            let segment = &segments(dir.path())[at];
            match cut_to {
                None => fs::remove_file(segment).unwrap(),
                Some(bytes) => {
                    OpenOptions::new().write(true).open(segment).unwrap().set_len(bytes).unwrap();
                }
            }
            let looked = read_only(dir.path()).unwrap().0.lost().unwrap();
            assert_eq!(looked, Some(vec![ids[at]]), "segment {at}, {cut_to:?}, looked at");
            let lost = if by_repair {
                repair(dir.path(), small()).await.unwrap().lost
            } else {
                open(dir.path()).1.lost
            };
            assert_eq!(lost, [ids[at]], "segment {at}, {cut_to:?}, by repair: {by_repair}");
        }
    }
}

#[tokio::test]
async fn a_segment_that_was_cut_while_the_index_is_whole_is_noticed_and_costs_what_was_cut() {
    // Of a segment that is full and one that is written, each cut at every record.
    let dir = tempfile::tempdir().unwrap();
    let bodies: Vec<Vec<u8>> = (0..14).map(|nth| vec![nth; 30_000]).collect();
    let bodies: Vec<&[u8]> = bodies.iter().map(Vec::as_slice).collect();
    let ids = filled(dir.path(), &bodies).await;
    let all = segments(dir.path());
    assert_eq!(all.len(), 2, "{all:?}");
    let mut seen = BTreeSet::new();
    for (nth, segment) in all.iter().enumerate() {
        let end = used(segment);
        for cut_to in (4096..end).step_by(15_000).chain([end.next_multiple_of(64)]) {
            let copy = tempfile::tempdir().unwrap();
            copy_dir(dir.path(), copy.path());
            let segment = copy.path().join(segment.strip_prefix(dir.path()).unwrap());
            OpenOptions::new().write(true).open(&segment).unwrap().set_len(cut_to).unwrap();
            let (queue, report) = open(copy.path());
            let case = format!("segment {nth} of {end} bytes cut to {cut_to}: {report:?}");
            assert_eq!(report.rebuilt.is_some(), cut_to < end, "{case}");
            let there: BTreeSet<_> = bodies_by_id(&queue).await;
            let want: BTreeSet<_> = ids.iter().copied().filter(|id| !there.contains(id)).collect();
            assert_eq!(report.lost.iter().copied().collect::<BTreeSet<_>>(), want, "{case}");
            assert_eq!(report.held as usize, there.len(), "{case}");
            assert_eq!(want.is_empty(), cut_to >= end, "{case}");
            assert!(want.iter().all(|id| ids.iter().position(|one| one == id) >= Some(nth * 8)));
            seen.insert(want.len());
            queue.close().await.unwrap();
            let (_, report) = open(copy.path());
            assert_eq!(report.rebuilt, None, "once: {case}");
        }
    }
    assert!(seen.contains(&0) && seen.contains(&1) && seen.contains(&8), "{seen:?}");
}

/// The ids of requests that are held, each with the body that it came with.
async fn bodies_by_id(queue: &Queue) -> BTreeSet<RequestId> {
    let mut found = BTreeSet::new();
    for id in queue.ids(Some(State::Held)).await.unwrap() {
        assert_eq!(queue.body(id).await.unwrap().unwrap().len(), 30_000);
        found.insert(id);
    }
    found
}

#[tokio::test]
async fn a_repair_keeps_a_bad_index_and_not_a_good_one() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), &[b"a", b"b"]).await;
    let kept = || {
        let names = fs::read_dir(dir.path()).unwrap();
        let names = names.map(|found| found.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("index.")).collect::<BTreeSet<_>>()
    };
    for _ in 0..3 {
        let repaired = repair(dir.path(), small()).await.unwrap();
        assert_eq!((repaired.report.held, repaired.aside.len()), (2, 0), "{repaired:?}");
        assert_eq!(repaired.untold, None);
        assert_eq!(kept(), BTreeSet::from(["index.clean".to_owned()]));
    }
    // One that a killed agent left behind is not bad either.
    fs::remove_file(dir.path().join("index.clean")).unwrap();
    assert_eq!(repair(dir.path(), small()).await.unwrap().aside.len(), 0);
    for round in 1..=5 {
        fs::write(dir.path().join("index/db"), vec![0x3c; 600_000]).unwrap();
        let repaired = repair(dir.path(), small()).await.unwrap();
        let bad = format!("index.bad-{round}");
        assert!(repaired.aside.len() == 1 && repaired.aside[0].ends_with(&bad), "{repaired:?}");
        assert_eq!(repaired.report.held, 2);
        let repaired = repair(dir.path(), small()).await.unwrap();
        assert!(repaired.aside.is_empty(), "{repaired:?}");
    }
    assert_eq!(kept().len(), small().keep_bad + 1, "{:?}", kept());
}

#[tokio::test]
async fn what_was_forgotten_for_good_stays_away_from_a_rebuilt_index() {
    let dir = tempfile::tempdir().unwrap();
    let stuck = filled(dir.path(), &[b"stuck"]).await;
    let dropped = filled(dir.path(), &[b"dropped"]).await[0];
    let (queue, _) = open(dir.path());
    queue.cancel(dropped, 2).await.unwrap();
    assert!(queue.forget(dropped).await.unwrap());
    assert!(!queue.forget(dropped).await.unwrap(), "there is nothing to forget now");
    assert!(!queue.forget(stuck[0]).await.unwrap(), "it has no end");
    queue.close().await.unwrap();
    assert_eq!(held_in(dir.path()).0, BTreeSet::from([stuck[0]]));
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    let (queue, report) = open(dir.path());
    assert_eq!(report.held, 1);
    assert_eq!(queue.get(dropped).await.unwrap(), None);
    assert_eq!(queue.list(None, 10).await.unwrap().len(), 1);
    // The same request may come again, and is a new one.
    let again = NewEntry { id: dropped, ..entry(5, 3, b"again") };
    assert_eq!(queue.accept(again).await.unwrap(), Accepted::New);
    queue.close().await.unwrap();
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    let (queue, _) = open(dir.path());
    assert_eq!(queue.body(dropped).await.unwrap().unwrap().as_ref(), b"again");
}

#[tokio::test]
async fn finished_requests_stay_finished_whatever_was_deleted_since() {
    // The accepts of `done` lie beside that of `stuck`, so their segment stays; their finals lie in
    // segments that would be free, but must outlive the accepts.
    let dir = tempfile::tempdir().unwrap();
    let stuck = filled(dir.path(), &[b"stuck"]).await;
    // Few enough that nothing is moved out of nearly dead segments.
    let done = filled(dir.path(), &[b"1", b"2"]).await;
    let (queue, _) = open(dir.path());
    let filler = vec![5; 200 * 1024];
    for id in &done {
        let new = entry(1, 1, &filler);
        let filler_id = new.id;
        queue.accept(new).await.unwrap();
        queue.answer(*id, "once", 5).await.unwrap();
        queue.answer(filler_id, "", 5).await.unwrap();
    }
    queue.forget_before(100, 0).await.unwrap();
    let stats = queue.stats().await.unwrap();
    assert!(stats.segments > 1, "finals pinned: {stats:?}");
    queue.close().await.unwrap();
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    let (queue, report) = open(dir.path());
    assert_eq!(report.held, 1, "nothing came back to life: {report:?}");
    queue.forget_before(100, 0).await.unwrap();
    queue.answer(stuck[0], "at last", 6).await.unwrap();
    queue.forget_before(100, 0).await.unwrap();
    let stats = queue.stats().await.unwrap();
    assert_eq!(stats.segments, 1, "with the last accept gone, all is: {stats:?}");
}

#[test]
fn directory_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("queue");
    fs::write(&path, b"a file").unwrap();
    let refused = Queue::open(&path, small()).unwrap_err().to_string();
    assert!(refused.contains("queue cannot create the directory"), "{refused}");
    assert!(refused.contains("/queue"), "{refused}");
    let refused = read_only(&dir.path().join("none")).unwrap_err().to_string();
    assert!(refused.contains("none/journal"), "{refused}");
}

#[tokio::test]
async fn results_after_a_lost_segment_have_numbers_that_none_had_before() {
    let dir = tempfile::tempdir().unwrap();
    let answered = async |queue: &Queue| {
        let new = entry(5, 1, b"question");
        let id = new.id;
        queue.accept(new).await.unwrap();
        queue.answer(id, "answer", 2).await.unwrap();
        queue.results_after(0, 1000).await.unwrap().last().unwrap().0
    };
    let (queue, _) = open(dir.path());
    let mut last = 0;
    for _ in 0..20 {
        last = answered(&queue).await;
    }
    queue.close().await.unwrap();
    for segment in segments(dir.path()) {
        let file = OpenOptions::new().write(true).open(segment).unwrap();
        file.write_all_at(&[0; 4096], 0).unwrap();
    }
    let (queue, report) = open(dir.path());
    assert!(!report.bad.is_empty());
    let next = answered(&queue).await;
    assert!(next > last, "{next} after {last}");
}

#[tokio::test]
async fn what_was_ended_forgotten_or_dropped_is_not_called_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    let mut ids = Vec::new();
    for _ in 0..4 {
        let new = entry(5, 1, &[9; 1000]);
        ids.push(new.id);
        queue.accept(new).await.unwrap();
    }
    queue.answer(ids[0], "answer", 2).await.unwrap();
    queue.answer(ids[1], "answer", 3).await.unwrap();
    queue.forget_before(2, 0).await.unwrap();
    queue.cancel(ids[2], 3).await.unwrap();
    assert!(queue.forget(ids[2]).await.unwrap());
    queue.close().await.unwrap();
    let repaired = repair(dir.path(), small()).await.unwrap();
    assert_eq!((repaired.lost, repaired.untold), (vec![], None));
    let repaired = repair(dir.path(), small()).await.unwrap();
    assert_eq!((repaired.lost, repaired.report.held), (vec![], 1));
}

#[tokio::test]
async fn a_damaged_record_is_counted_once_however_often_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let ids = filled(dir.path(), &[&[1; 5000], &[2; 5000], &[3; 5000]]).await;
    let segment = &segments(dir.path())[0];
    let file = OpenOptions::new().write(true).open(segment).unwrap();
    for nth in [0, 2] {
        file.write_all_at(b"damage", 4096 + nth * 5184 + 1000).unwrap();
    }
    let (queue, report) = open(dir.path());
    assert_eq!(report.rebuilt, None, "nobody has noticed yet");
    for _ in 0..3 {
        for (nth, id) in ids.iter().enumerate() {
            let read = queue.body(*id).await;
            assert_eq!(matches!(read, Err(QueueError::Damaged { .. })), nth != 1, "{nth}");
        }
        assert_eq!(queue.stats().await.unwrap().damaged, 2);
    }
}

/// What can lie in a segment's place and is no file.
fn put_in_place(kind: &str, path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    fs::remove_file(path).unwrap();
    match kind {
        "a pipe" => mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap(),
        "a folder" => fs::create_dir(path).unwrap(),
        "a link to nothing" => std::os::unix::fs::symlink("/nowhere/at/all", path).unwrap(),
        "a link to itself" => std::os::unix::fs::symlink(path, path).unwrap(),
        "a link to a device" => std::os::unix::fs::symlink("/dev/zero", path).unwrap(),
        "a socket" => drop(std::os::unix::net::UnixListener::bind(path).unwrap()),
        kind => unreachable!("{kind}"),
    }
}

#[tokio::test]
async fn what_is_no_file_in_a_segments_place_is_set_aside_unopened() {
    let big = vec![9; 200 * 1024];
    let kinds = [
        "a pipe",
        "a folder",
        "a link to nothing",
        "a link to itself",
        "a link to a device",
        "a socket",
    ];
    for kind in kinds {
        for by_repair in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let ids = filled(dir.path(), &[&big, &big, &big]).await;
            let segment = &segments(dir.path())[1];
            put_in_place(kind, segment);
            let aside = segment.with_extension("seg.bad-1");
            let (stopped, report) = read_only(dir.path()).unwrap();
            assert_eq!(report.bad, std::slice::from_ref(segment), "{kind}, looked at");
            assert_eq!(stopped.lost().unwrap(), Some(vec![ids[1]]), "{kind}, looked at");
            drop(stopped);
            let (lost, bad) = if by_repair {
                let repaired = repair(dir.path(), small()).await.unwrap();
                (repaired.lost, repaired.aside)
            } else {
                let (queue, report) = open(dir.path());
                assert_eq!(queue.body(ids[2]).await.unwrap().unwrap().len(), big.len());
                (report.lost, report.bad)
            };
            assert_eq!(lost, [ids[1]], "{kind}, by repair: {by_repair}");
            assert!(bad.contains(&aside), "{kind}, by repair: {by_repair}: {bad:?}");
            assert!(fs::symlink_metadata(&aside).is_ok(), "{kind}: it is kept");
        }
    }
}

#[tokio::test]
async fn without_its_journals_folder_a_queue_says_what_to_do_and_repair_names_what_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut ids = filled(dir.path(), &[b"a", b"b"]).await;
    fs::remove_dir_all(dir.path().join("journal")).unwrap();
    let said = read_only(dir.path()).unwrap_err().to_string();
    assert!(said.contains("`journal`") && said.contains("queue repair"), "{said}");
    let mut repaired = repair(dir.path(), small()).await.unwrap();
    ids.sort_unstable();
    repaired.lost.sort_unstable();
    assert_eq!((repaired.lost, repaired.journal_was_gone), (ids, true));
    let again = repair(dir.path(), small()).await.unwrap();
    assert_eq!((again.lost, again.journal_was_gone), (vec![], false));
    fs::remove_dir_all(dir.path().join("journal")).unwrap();
    fs::write(dir.path().join("journal"), b"in its place").unwrap();
    for said in [
        read_only(dir.path()).unwrap_err().to_string(),
        repair(dir.path(), small()).await.unwrap_err().to_string(),
    ] {
        assert!(said.contains("something else is in its place"), "{said}");
    }
}
