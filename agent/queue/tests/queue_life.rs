//! A request's life in the queue: accepted, leased, given back, ended once, forgotten; and all of it
//! again after reopening.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test's helpers fail like the test"
)]

mod queue_kit;

use bytes::Bytes;
use futures_util::future::join_all;
use holdfast_queue::{
    Accepted, Forgotten, FullRule, NewEntry, Queue, QueueConfig, QueueError, Recorded, RequestId,
    State, read_only,
};
use queue_kit::{copy_dir, entry, keyed, open, segments, small};

#[tokio::test]
async fn request_is_answered_once_and_its_answer_kept_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, report) = open(dir.path());
    assert_eq!((report.held, report.rebuilt), (0, None));
    let new = entry(5, 10, b"what is this");
    let id = new.id;
    assert_eq!(queue.accept(new).await.unwrap(), Accepted::New);
    queue.close().await.unwrap();

    let (queue, report) = open(dir.path());
    assert_eq!((report.held, report.replayed, report.rebuilt), (1, 0, None));
    let lease = queue.lease_next(11).await.unwrap().expect("it is held");
    assert_eq!((lease.id(), lease.attempts(), lease.priority()), (id, 0, 5));
    assert_eq!(lease.envelope().as_ref(), b"envelope");
    assert_eq!(lease.body().await.unwrap().as_ref(), b"what is this");
    assert_eq!(queue.get(id).await.unwrap().unwrap().summary.state, State::InFlight);
    assert!(queue.lease_next(11).await.unwrap().is_none(), "leased twice");
    assert_eq!(queue.answer(id, "a cat", 12).await.unwrap(), Recorded::Stored);
    let late = queue.answer(id, "a dog", 13).await.unwrap();
    assert_eq!(late, Recorded::AlreadyFinal(State::Answered));
    drop(lease);
    queue.close().await.unwrap();

    let (queue, report) = open(dir.path());
    assert_eq!(report.held, 0);
    let record = queue.get(id).await.unwrap().unwrap();
    assert_eq!(record.summary.state, State::Answered);
    assert_eq!(record.summary.finished_at_ms, Some(12));
    assert_eq!(record.answer, Some(Bytes::from_static(b"a cat")));
    assert_eq!(record.envelope.as_ref(), b"envelope");
    assert!(queue.lease_next(100).await.unwrap().is_none());
    let early = queue.forget_before(20, 9).await.unwrap();
    assert_eq!(early, Forgotten::default(), "its keep time is not over");
    assert_eq!(queue.forget_before(20, 8).await.unwrap(), Forgotten { by_age: 1, by_count: 0 });
    assert_eq!(queue.get(id).await.unwrap(), None);
    assert!(matches!(queue.answer(id, "x", 30).await, Err(QueueError::Unknown { .. })));
}

#[tokio::test]
async fn leases_come_by_priority_then_age_and_not_before_their_time() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    // (name, priority, not before), in the order of acceptance
    let table = [("c", 5, 0), ("d", 5, 0), ("e", 0, 0), ("a", 9, 50), ("b", 7, 0), ("f", 12, 70)];
    for (name, priority, not_before_ms) in table {
        let new = NewEntry { not_before_ms, ..entry(priority, 1, name.as_bytes()) };
        queue.accept(new).await.unwrap();
    }
    let mut leases = Vec::new();
    for (now, want) in [(2, "b"), (49, "c"), (50, "a"), (71, "f"), (71, "d"), (71, "e")] {
        let lease = queue.lease_next(now).await.unwrap().expect(want);
        assert_eq!(lease.body().await.unwrap().as_ref(), want.as_bytes(), "at {now}");
        leases.push(lease);
    }
    assert!(queue.lease_next(1000).await.unwrap().is_none());
    drop(leases);
    assert!(queue.lease_next(1000).await.unwrap().is_some(), "dropped leases come back");
}

#[tokio::test]
async fn waiting_makes_urgent_so_that_nothing_starves() {
    let dir = tempfile::tempdir().unwrap();
    let config = QueueConfig { ageing_ms: 100, ..small() };
    let (queue, _) = Queue::open(dir.path(), config).unwrap();
    queue.accept(entry(2, 1000, b"patient")).await.unwrap();
    let mut served = Vec::new();
    for round in 0..8 {
        let now = 1000 + round * 100 + 1;
        queue.accept(entry(7, now, b"urgent")).await.unwrap();
        let lease = queue.lease_next(now).await.unwrap().unwrap();
        served.push(lease.body().await.unwrap() == b"patient".as_slice());
        queue.answer(lease.id(), "done", now).await.unwrap();
    }
    // Five priorities lower: after five times the ageing.
    assert_eq!(served, [false, false, false, false, false, true, false, false]);
}

#[tokio::test]
async fn request_given_back_waits_and_counts_its_attempts() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    let new = entry(5, 1, b"x");
    let id = new.id;
    queue.accept(new).await.unwrap();
    let lease = queue.lease_next(1).await.unwrap().unwrap();
    queue.retry_at(id, 100, "no link").await.unwrap();
    drop(lease);
    assert!(queue.lease_next(99).await.unwrap().is_none());
    assert_eq!(queue.next_due(2).await.unwrap(), Some(100));
    queue.close().await.unwrap();
    let (queue, _) = open(dir.path());
    assert_eq!(queue.next_due(2).await.unwrap(), Some(100));
    let lease = queue.lease_next(100).await.unwrap().unwrap();
    assert_eq!((lease.attempts(), lease.last_reason()), (1, Some("no link")));
    assert_eq!(queue.next_due(100).await.unwrap(), None, "the only one is in flight");
}

#[tokio::test]
async fn idempotency_key_names_one_request() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    let first = keyed("order-7", 1);
    let id = first.id;
    assert_eq!(queue.accept(first).await.unwrap(), Accepted::New);
    for reopened in [false, true] {
        let again = queue.accept(keyed("order-7", 1)).await.unwrap();
        assert_eq!(again, Accepted::Known { id, state: State::Held }, "reopened: {reopened}");
        let other = queue.accept(keyed("order-7", 2)).await;
        assert!(matches!(other, Err(QueueError::KeyConflict { id: has, .. }) if has == id));
    }
    let answered = keyed("order-8", 3);
    let answered_id = answered.id;
    let stored = queue.accept_answered(answered, "yes").await.unwrap();
    assert_eq!(stored, Accepted::New);
    queue.close().await.unwrap();
    let (queue, _) = open(dir.path());
    let known = queue.accept_answered(keyed("order-8", 3), "no").await.unwrap();
    assert_eq!(known, Accepted::Known { id: answered_id, state: State::Answered });
    let found = queue.find_key(&keyed("order-8", 3).idempotency.unwrap()).await.unwrap().unwrap();
    assert_eq!(found.id, answered_id);
    let record = queue.get(answered_id).await.unwrap().unwrap();
    assert_eq!(record.answer.unwrap().as_ref(), b"yes");
    // A forgotten key can be used again.
    queue.forget_before(1000, 0).await.unwrap();
    assert_eq!(queue.accept(keyed("order-8", 9)).await.unwrap(), Accepted::New);
}

#[tokio::test]
async fn same_request_sent_by_many_at_once_is_taken_once() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move { queue.accept(keyed("one", 1)).await.unwrap() })
        })
        .collect();
    let mut new = 0;
    for task in tasks {
        new += usize::from(task.await.unwrap() == Accepted::New);
    }
    assert_eq!((new, queue.stats().await.unwrap().held), (1, 1));
}

#[tokio::test]
async fn requests_expire_fail_and_are_cancelled_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    let soon = NewEntry { expires_at_ms: Some(50), ..entry(5, 1, b"soon") };
    let later = NewEntry { expires_at_ms: Some(500), ..entry(4, 1, b"later") };
    let busy = NewEntry { expires_at_ms: Some(50), ..entry(9, 1, b"busy") };
    let (soon_id, later_id, busy_id) = (soon.id, later.id, busy.id);
    for new in [soon, later, busy] {
        queue.accept(new).await.unwrap();
    }
    let lease = queue.lease_next(2).await.unwrap().unwrap();
    assert_eq!(lease.id(), busy_id);
    assert_eq!(queue.expire(49).await.unwrap(), []);
    assert_eq!(queue.expire(50).await.unwrap(), [soon_id], "not the one in flight");
    drop(lease);
    assert_eq!(queue.expire(60).await.unwrap(), [busy_id]);
    assert_eq!(queue.cancel(later_id, 61).await.unwrap(), Recorded::Stored);
    let failed = queue.fail(later_id, "too late", 62).await.unwrap();
    assert_eq!(failed, Recorded::AlreadyFinal(State::Cancelled));
    let poison = entry(5, 1, b"poison");
    let poison_id = poison.id;
    queue.accept(poison).await.unwrap();
    queue.fail(poison_id, "refused by the site", 70).await.unwrap();
    queue.close().await.unwrap();
    let (queue, _) = open(dir.path());
    let stats = queue.stats().await.unwrap();
    assert_eq!((stats.held, stats.expired, stats.cancelled, stats.failed), (0, 2, 1, 1));
    let record = queue.get(poison_id).await.unwrap().unwrap();
    assert_eq!(record.summary.last_reason.as_deref(), Some("refused by the site"));
    assert_eq!(record.answer, None);
    let expired = queue.list(Some(State::Expired), 10).await.unwrap();
    assert_eq!(expired.len(), 2);
}

#[tokio::test]
async fn full_queue_refuses_new_requests_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let config = QueueConfig { max_requests: 2, max_bytes: 4096, ..small() };
    let (queue, _) = Queue::open(dir.path(), config).unwrap();
    let big = queue.accept(entry(5, 1, &[7; 5000])).await;
    assert!(matches!(big, Err(QueueError::TooLarge { limit: 4096, .. })), "it never fits");
    queue.accept(entry(5, 1, &[1; 3000])).await.unwrap();
    let second = queue.accept(entry(5, 1, &[2; 3000])).await;
    assert!(matches!(second, Err(QueueError::Full { rule: FullRule::Bytes, limit: 4096 })));
    queue.accept(entry(5, 1, b"2")).await.unwrap();
    let third = queue.accept(entry(5, 1, b"3")).await;
    assert!(matches!(third, Err(QueueError::Full { rule: FullRule::Count, limit: 2 })));
    let lease = queue.lease_next(2).await.unwrap().unwrap();
    queue.answer(lease.id(), "done", 3).await.unwrap();
    assert_eq!(queue.accept(entry(5, 1, b"3")).await.unwrap(), Accepted::New);
    let huge = NewEntry { envelope: vec![0; 70_000].into(), ..entry(5, 1, b"") };
    assert!(matches!(queue.accept(huge).await, Err(QueueError::TooLarge { .. })));
}

#[tokio::test]
async fn disk_headroom_is_left_free() {
    let dir = tempfile::tempdir().unwrap();
    let config = QueueConfig { headroom_bytes: u64::MAX / 2, ..small() };
    let (queue, _) = Queue::open(dir.path(), config).unwrap();
    // The first segment is there, and as small as can be; what does not fit into it is refused.
    let refused = queue.accept(entry(5, 1, &vec![1; 300 * 1024])).await.unwrap_err();
    assert!(refused.is_no_space(), "{refused}");
    assert_eq!(queue.accept(entry(5, 1, b"small")).await.unwrap(), Accepted::New);
    let stats = queue.stats().await.unwrap();
    let reserve = 1024 * 1024;
    assert!(stats.allocated_bytes <= 256 * 1024 + reserve, "{stats:?}");
}

#[tokio::test]
async fn of_too_many_answers_the_oldest_are_forgotten_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = Queue::open(dir.path(), QueueConfig { max_finals: 3, ..small() }).unwrap();
    let held = entry(5, 1, b"waits");
    queue.accept(held.clone()).await.unwrap();
    let mut ids = Vec::new();
    for at in 0..5 {
        let new = entry(5, at, b"");
        ids.push(new.id);
        queue.accept_answered(new, "at once").await.unwrap();
    }
    let forgotten = queue.forget_before(10, 100).await.unwrap();
    assert_eq!(forgotten, Forgotten { by_age: 0, by_count: 2 });
    for (at, id) in ids.iter().enumerate() {
        assert_eq!(queue.get(*id).await.unwrap().is_some(), at >= 2, "{at}");
    }
    assert!(queue.get(held.id).await.unwrap().is_some(), "what waits is not an answer");
    assert_eq!(queue.forget_before(10, 100).await.unwrap(), Forgotten::default());
}

#[tokio::test]
async fn space_comes_back_as_requests_are_done() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    let body = vec![3; 50_000];
    for at in 0..40 {
        queue.accept(entry(5, at, &body)).await.unwrap();
    }
    let full = queue.stats().await.unwrap();
    assert!(full.segments >= 8 && full.held_bytes > 2_000_000, "{full:?}");
    while let Some(lease) = queue.lease_next(100).await.unwrap() {
        assert_eq!(lease.body().await.unwrap().len(), body.len());
        queue.answer(lease.id(), "ok", 101).await.unwrap();
    }
    let drained = queue.stats().await.unwrap();
    assert_eq!((drained.held, drained.answered), (0, 40));
    assert!(drained.segments <= 2, "{drained:?}");
    queue.forget_before(1000, 0).await.unwrap();
    let empty = queue.stats().await.unwrap();
    assert_eq!((empty.segments, empty.live_bytes, empty.held_bytes), (1, 0, 0), "{empty:?}");
    assert!(segments(dir.path()).len() == 1);
}

#[tokio::test]
async fn long_lived_requests_do_not_keep_their_segments() {
    let dir = tempfile::tempdir().unwrap();
    let (mut queue, _) = open(dir.path());
    let mut kept = Vec::new();
    for round in 0..12_u8 {
        let long = NewEntry { not_before_ms: 1_000_000, ..entry(5, 1, &[round; 5000]) };
        kept.push(long.id);
        queue.accept(long).await.unwrap();
        for _ in 0..24 {
            let short = entry(5, 1, &[0xff; 10_000]);
            let id = short.id;
            queue.accept(short).await.unwrap();
            queue.answer(id, "done", 2).await.unwrap();
        }
    }
    queue.retry_at(kept[0], 2_000_000, "not now").await.unwrap();
    assert!(segments(dir.path()).len() > 10);
    for _ in 0..10 {
        queue.forget_before(10, 1).await.unwrap();
    }
    assert!(segments(dir.path()).len() <= 3, "{:?}", segments(dir.path()));
    let stats = queue.stats().await.unwrap();
    assert!(stats.moved_bytes >= 8 * 5000, "{stats:?}");
    queue.close().await.unwrap();
    for rebuild in [false, true] {
        if rebuild {
            std::fs::remove_dir_all(dir.path().join("index")).unwrap();
        }
        (queue, _) = open(dir.path());
        for (round, id) in (0..).zip(&kept) {
            assert_eq!(queue.body(*id).await.unwrap().unwrap(), vec![round; 5000]);
        }
        let first = queue.get(kept[0]).await.unwrap().unwrap().summary;
        assert_eq!((first.attempts, first.last_reason.as_deref()), (1, Some("not now")));
        assert_eq!(queue.stats().await.unwrap().held, 12);
        queue.close().await.unwrap();
    }
}

#[tokio::test]
async fn index_that_has_grown_is_made_small_again() {
    let dir = tempfile::tempdir().unwrap();
    let config = QueueConfig { max_finals: 10, segment_bytes: 16 << 20, ..small() };
    let (queue, _) = Queue::open(dir.path(), config.clone()).unwrap();
    let kept = entry(5, 1, b"kept");
    queue.accept(kept.clone()).await.unwrap();
    let mut grown = 0;
    for round in 0..6 {
        // More than is kept in memory, with large entries; each round leaves its entries behind.
        let mut ids = Vec::new();
        for batch in 0..30 {
            let key = |n| format!("{round}-{batch}-{n}-{}", "k".repeat(200));
            let new: Vec<_> = (0..2000).map(|n| keyed(&key(n), 1)).collect();
            ids.extend(new.iter().map(|new| new.id));
            let accepted = join_all(new.into_iter().map(|new| queue.accept(new))).await;
            assert!(accepted.iter().all(Result::is_ok));
        }
        for ids in ids.chunks(2000) {
            let ended = ids.iter().map(|id| queue.answer(*id, "", 2));
            assert!(join_all(ended).await.iter().all(Result::is_ok));
        }
        let before = queue.stats().await.unwrap().index_bytes;
        queue.forget_before(10, 0).await.unwrap();
        let after = queue.stats().await.unwrap().index_bytes;
        grown = grown.max(before);
        if after < before / 4 {
            assert!(before > 32 << 20, "{before}");
            assert_eq!(queue.body(kept.id).await.unwrap().unwrap(), kept.body);
            queue.close().await.unwrap();
            let (queue, report) = Queue::open(dir.path(), config).unwrap();
            assert_eq!((report.held, report.rebuilt), (1, None));
            assert_eq!(queue.body(kept.id).await.unwrap().unwrap(), kept.body);
            return;
        }
    }
    panic!("the index grew to {grown} bytes and was never copied");
}

#[tokio::test]
async fn record_larger_than_a_segment_gets_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    let body: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    let before = entry(9, 1, b"before");
    queue.accept(before).await.unwrap();
    let big = entry(5, 1, &body);
    let id = big.id;
    queue.accept(big).await.unwrap();
    queue.accept(entry(4, 1, b"after")).await.unwrap();
    queue.close().await.unwrap();
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let (queue, report) = open(dir.path());
    assert_eq!((report.held, report.damaged), (3, 0));
    let first = queue.lease_next(2).await.unwrap().unwrap();
    assert_eq!(first.body().await.unwrap().as_ref(), b"before");
    let lease = queue.lease_next(2).await.unwrap().unwrap();
    assert_eq!((lease.id(), lease.body().await.unwrap().as_ref()), (id, body.as_slice()));
}

#[tokio::test]
async fn callers_share_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    let before = queue.stats().await.unwrap().syncs;
    let tasks: Vec<_> = (0..400)
        .map(|at| {
            let queue = queue.clone();
            tokio::spawn(async move { queue.accept(entry(5, at, &[1; 64])).await.unwrap() })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), Accepted::New);
    }
    let stats = queue.stats().await.unwrap();
    let syncs = stats.syncs - before;
    assert_eq!(stats.appended, 400);
    assert!(syncs < 100, "{syncs} syncs for 400 accepts of 400 callers");
}

#[tokio::test]
async fn second_process_is_told_who_has_the_queue() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    queue.accept(entry(5, 1, b"x")).await.unwrap();
    let pid = std::process::id().to_string();
    for refused in [Queue::open(dir.path(), small()).err(), read_only(dir.path()).err()] {
        let refused = refused.expect("it is in use");
        assert!(matches!(refused, QueueError::InUse { .. }), "{refused}");
        assert!(refused.to_string().contains(&pid), "{refused}");
    }
    queue.close().await.unwrap();
    assert!(matches!(queue.accept(entry(5, 1, b"y")).await, Err(QueueError::Closed)));
    let (stopped, report) = read_only(dir.path()).unwrap();
    assert_eq!((report.held, stopped.stats().unwrap().held), (1, 1));
    assert_eq!(stopped.list(Some(State::Held), 10).unwrap().len(), 1);
    assert!(Queue::open(dir.path(), small()).is_err(), "a reader keeps the queue as it is");
    drop(stopped);
    open(dir.path());
}

#[tokio::test]
async fn waiter_is_told_of_changes() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    let new = entry(5, 1, b"x");
    let id = new.id;
    queue.accept(new).await.unwrap();
    let mut changes = queue.changes();
    let waiter = tokio::spawn({
        let queue = queue.clone();
        async move {
            loop {
                let record = queue.get(id).await.unwrap().unwrap();
                if record.summary.state.is_final() {
                    return record.answer;
                }
                changes.changed().await.unwrap();
            }
        }
    });
    queue.answer(id, "here", 2).await.unwrap();
    assert_eq!(waiter.await.unwrap().unwrap().as_ref(), b"here");
    assert_eq!(queue.get(RequestId::new()).await.unwrap(), None);
}

#[tokio::test]
async fn id_that_was_forgotten_comes_again_and_is_kept_through_a_crash() {
    let (dir, crashed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (queue, _) = open(dir.path());
    let new = entry(5, 1, b"first");
    let id = new.id;
    queue.accept(new).await.unwrap();
    queue.cancel(id, 2).await.unwrap();
    assert!(queue.forget(id).await.unwrap());
    let again = NewEntry { id, ..entry(5, 3, b"again") };
    assert_eq!(queue.accept(again).await.unwrap(), Accepted::New);
    for has_index in [true, false] {
        let place = crashed.path().join(if has_index { "killed" } else { "power cut" });
        copy_dir(dir.path(), &place);
        if !has_index {
            std::fs::remove_dir_all(place.join("index")).unwrap();
        }
        let (copy, report) = open(&place);
        assert_eq!(report.held, 1, "{report:?}");
        let lease = copy.lease_next(9).await.unwrap().expect("it is held");
        assert_eq!((lease.id(), &lease.body().await.unwrap()[..]), (id, &b"again"[..]));
        copy.answer(id, "done", 4).await.unwrap();
        copy.close().await.unwrap();
        std::fs::remove_dir_all(place.join("index")).unwrap();
        let (copy, report) = open(&place);
        assert_eq!(report.held, 0, "{report:?}");
        let record = copy.get(id).await.unwrap().unwrap();
        assert_eq!(record.answer.as_deref(), Some(&b"done"[..]));
        assert_eq!(copy.stats().await.unwrap().cancelled, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_was_answered_finds_what_he_was_told() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let queue = queue.clone();
        callers.spawn(async move {
            for _ in 0..60 {
                let new = entry(5, 1, b"body");
                let id = new.id;
                queue.accept(new).await.unwrap();
                assert!(!queue.get(id).await.unwrap().unwrap().summary.state.is_final());
                queue.answer(id, "answer", 2).await.unwrap();
                let told = queue.get(id).await.unwrap().unwrap();
                assert_eq!(told.answer.unwrap().as_ref(), b"answer");
                assert!(queue.forget(id).await.unwrap());
                assert_eq!(queue.get(id).await.unwrap(), None);
            }
        });
    }
    while let Some(done) = callers.join_next().await {
        done.unwrap();
    }
    let stats = queue.stats().await.unwrap();
    assert_eq!((queue.waiting(), stats.held, stats.answered), (0, 0, 0), "{stats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_lease_at_once_everybody_gets_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    for _ in 0..20 {
        for _ in 0..32 {
            queue.accept(entry(5, 1, b"body")).await.unwrap();
        }
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..32 {
            let queue = queue.clone();
            workers.spawn(async move {
                let lease = queue.lease_next(2).await.unwrap().expect("there is one for each");
                let id = lease.id();
                assert_eq!(queue.answer(id, "answer", 3).await.unwrap(), Recorded::Stored);
                drop(lease);
                id
            });
        }
        let mut seen = std::collections::BTreeSet::new();
        while let Some(id) = workers.join_next().await {
            assert!(seen.insert(id.unwrap()), "it was leased twice");
        }
        assert_eq!(seen.len(), 32);
    }
    assert_eq!(queue.stats().await.unwrap().in_flight, 0);
}
