//! An index that is missing, damaged or old: the journal makes another.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use holdfast_queue::{Accepted, NewEntry, Queue, repair};

use crate::queue_kit::{copy_dir, entry, open, small};
use crate::{filled, held_in};

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
