//! The queue's bounds, and what happens when one is reached.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

mod queue_kit;

use std::time::Duration;

use holdfast_queue::{
    Accepted, FullRule, NewEntry, Queue, QueueConfig, QueueError, State, WhenFull,
};
use queue_kit::{entry, small};

#[tokio::test]
async fn full_queue_drops_the_oldest_of_the_lowest_priority_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let config = QueueConfig { max_requests: 4, when_full: WhenFull::DropOldest, ..small() };
    let (queue, _) = Queue::open(dir.path(), config).unwrap();
    let mut ids = Vec::new();
    for (priority, at) in [(9, 1), (3, 2), (3, 3), (5, 4)] {
        let new = entry(priority, at, b"body");
        ids.push(new.id);
        queue.accept(new).await.unwrap();
    }
    assert_eq!(queue.accept(entry(4, 10, b"new")).await.unwrap(), Accepted::New);
    let dropped = queue.get(ids[1]).await.unwrap().unwrap().summary;
    assert_eq!((dropped.state, dropped.finished_at_ms), (State::Failed, Some(10)));
    assert!(dropped.last_reason.unwrap().contains("dropped: the queue was full"));
    assert_eq!(queue.stats().await.unwrap().dropped, 1);

    let refused = queue.accept(entry(2, 11, b"less urgent than all")).await.unwrap_err();
    assert!(matches!(refused, QueueError::Full { rule: FullRule::Count, limit: 4 }), "{refused}");
    // What somebody works on is not dropped: the next one of its priority, or above, is.
    assert!(queue.retry_now(ids[2]).await.is_ok());
    let mut leases = queue.lease_many(20, 9).await.unwrap();
    leases.retain(|lease| lease.id() == ids[2]);
    assert_eq!(leases.len(), 1);
    queue.accept(entry(9, 12, b"urgent")).await.unwrap();
    assert_eq!(queue.get(ids[2]).await.unwrap().unwrap().summary.state, State::InFlight);
    assert_eq!(queue.stats().await.unwrap().dropped, 2);
    assert_eq!(queue.get(ids[0]).await.unwrap().unwrap().summary.state, State::Held);
}

#[tokio::test]
async fn bytes_are_bounded_too_and_what_never_fits_drops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = QueueConfig { max_bytes: 30_000, when_full: WhenFull::DropOldest, ..small() };
    let (queue, _) = Queue::open(dir.path(), config).unwrap();
    for at in 0..3 {
        queue.accept(entry(5, at, &[1; 9000])).await.unwrap();
    }
    let refused = queue.accept(entry(9, 5, &[2; 40_000])).await.unwrap_err();
    assert!(matches!(refused, QueueError::TooLarge { limit: 30_000, .. }), "{refused}");
    assert_eq!(queue.stats().await.unwrap().dropped, 0);
    queue.accept(entry(5, 6, &[2; 16_000])).await.unwrap();
    let stats = queue.stats().await.unwrap();
    assert_eq!((stats.held, stats.dropped), (2, 2), "two make room for a larger one");
}

#[tokio::test]
async fn request_expires_at_the_age_limit_at_the_latest() {
    let dir = tempfile::tempdir().unwrap();
    let config = QueueConfig { max_age_ms: 100, ..small() };
    let (queue, _) = Queue::open(dir.path(), config).unwrap();
    let long = NewEntry { expires_at_ms: Some(9000), ..entry(5, 10, b"") };
    let short = NewEntry { expires_at_ms: Some(50), ..entry(5, 10, b"") };
    let (long_id, short_id) = (long.id, short.id);
    queue.accept(long).await.unwrap();
    queue.accept(short).await.unwrap();
    assert_eq!(queue.expire(109).await.unwrap(), [short_id]);
    assert_eq!(queue.expire(110).await.unwrap(), [long_id]);
}

#[tokio::test]
async fn files_are_left_to_be_made_by_others() {
    let dir = tempfile::tempdir().unwrap();
    let config = QueueConfig { headroom_inodes: u64::MAX, ..small() };
    let (queue, _) = Queue::open(dir.path(), config).unwrap();
    // The first segment is there; a second one would take a file from the others.
    queue.accept(entry(5, 1, &[1; 100_000])).await.unwrap();
    queue.accept(entry(5, 1, &[1; 100_000])).await.unwrap();
    let refused = queue.accept(entry(5, 1, &[1; 100_000])).await.unwrap_err();
    assert!(matches!(refused, QueueError::NoInodes { .. }) && refused.is_no_space(), "{refused}");
    let held = queue.lease_many(2, 9).await.unwrap();
    for lease in &held {
        let answer = vec![7; 100_000];
        queue.answer(lease.id(), answer, 3).await.expect("what is held may come to its end");
    }
}

#[tokio::test]
async fn an_urgent_request_does_not_wait_for_others_to_share_its_sync() {
    let dir = tempfile::tempdir().unwrap();
    let config = QueueConfig { commit_delay: Duration::from_secs(3600), ..small() };
    let (queue, _) = Queue::open(dir.path(), config).unwrap();
    let patient = tokio::spawn({
        let queue = queue.clone();
        async move { queue.accept(entry(6, 1, b"patient")).await }
    });
    let urgent = queue.accept(entry(7, 1, b"urgent"));
    let waited = tokio::time::timeout(Duration::from_secs(30), urgent).await;
    assert_eq!(waited.expect("it is not held up").unwrap(), Accepted::New);
    // Whatever came before it shares its sync; one that came after waits for the next urgent one.
    if !patient.is_finished() {
        queue.accept(entry(9, 1, b"urgent")).await.unwrap();
    }
    assert_eq!(patient.await.unwrap().unwrap(), Accepted::New);
}

#[tokio::test]
async fn what_shares_a_sync_and_does_not_fit_into_it_is_served_with_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let config = QueueConfig {
        commit_delay: Duration::from_millis(300),
        segment_bytes: 64 << 20,
        ..small()
    };
    let (queue, _) = Queue::open(dir.path(), config).unwrap();
    let mut callers = tokio::task::JoinSet::new();
    for size in [9 << 20, 9 << 20, 9 << 20, 10, 10, 10] {
        let queue = queue.clone();
        callers.spawn(async move { queue.accept(entry(5, 1, &vec![1; size])).await });
    }
    while let Some(accepted) = callers.join_next().await {
        assert_eq!(accepted.unwrap().unwrap(), Accepted::New);
    }
    assert_eq!(queue.stats().await.unwrap().held, 6);
}
