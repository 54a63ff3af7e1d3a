//! Segments that are cut, deleted, unreadable or no files, and folders that are not there.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use holdfast_queue::{Queue, RequestId, State, read_only, repair};

use crate::queue_kit::{copy_dir, entry, open, segments, small};
use crate::{filled, held_in, used};

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
