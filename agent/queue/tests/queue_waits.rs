//! What held requests wait for, and in which order results are handed out; the same after a rebuild of
//! the index.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

mod queue_kit;

use bytes::Bytes;
use holdfast_queue::{Queue, Recorded, RequestId, State, Walk, read_only};
use queue_kit::{entry, open};

async fn accepted(queue: &Queue, priority: u8) -> RequestId {
    let new = entry(priority, 1, b"body");
    let id = new.id;
    queue.accept(new).await.unwrap();
    id
}

async fn state(queue: &Queue, id: RequestId) -> State {
    queue.get(id).await.unwrap().unwrap().summary.state
}

async fn reopened(queue: Queue, dir: &std::path::Path, rebuild: bool) -> Queue {
    queue.close().await.unwrap();
    if rebuild {
        std::fs::remove_dir_all(dir.join("index")).unwrap();
    }
    let (queue, report) = open(dir);
    assert_eq!(report.rebuilt.is_some(), rebuild);
    queue
}

#[tokio::test]
async fn request_set_aside_keeps_its_body_and_goes_on_when_it_is_retried() {
    let dir = tempfile::tempdir().unwrap();
    let (mut queue, _) = open(dir.path());
    let (poison, other) = (accepted(&queue, 9).await, accepted(&queue, 1).await);
    let lease = queue.lease_next(2).await.unwrap().unwrap();
    assert_eq!(lease.id(), poison);
    queue.set_aside(poison, "tried 20 times").await.unwrap();
    drop(lease);
    for rebuild in [false, true] {
        queue = reopened(queue, dir.path(), rebuild).await;
        assert_eq!(state(&queue, poison).await, State::SetAside);
        let stats = queue.stats().await.unwrap();
        assert_eq!((stats.held, stats.set_aside), (1, 1));
        let lease = queue.lease_next(u64::MAX - 1).await.unwrap().unwrap();
        assert_eq!(lease.id(), other, "the rest is not blocked");
        assert_eq!(queue.next_due(2).await.unwrap(), None, "and nobody waits for it");
        assert_eq!(queue.body(poison).await.unwrap(), Some(Bytes::from_static(b"body")));
    }
    assert_eq!(queue.retry_now(poison).await.unwrap(), Recorded::Stored);
    assert_eq!(queue.stats().await.unwrap().set_aside, 0);
    let lease = queue.lease_next(2).await.unwrap().unwrap();
    assert_eq!((lease.id(), lease.attempts()), (poison, 0));
    assert_eq!(lease.last_reason(), Some("tried 20 times"));
    // Whoever has it goes on undisturbed.
    assert_eq!(queue.retry_now(poison).await.unwrap(), Recorded::Stored);
    assert_eq!(state(&queue, poison).await, State::InFlight);
    queue.answer(poison, "at last", 3).await.unwrap();
    let late = queue.retry_now(poison).await.unwrap();
    assert_eq!(late, Recorded::AlreadyFinal(State::Answered));
    assert_eq!(queue.body(poison).await.unwrap(), None);
}

#[tokio::test]
async fn request_waits_for_budget_without_an_attempt_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (mut queue, _) = open(dir.path());
    let id = accepted(&queue, 5).await;
    drop(queue.lease_next(2).await.unwrap().unwrap());
    queue.wait_for_budget(id, 1000, "today's budget is spent").await.unwrap();
    for rebuild in [false, true] {
        queue = reopened(queue, dir.path(), rebuild).await;
        assert_eq!(state(&queue, id).await, State::WaitingForBudget);
        assert_eq!(queue.stats().await.unwrap().waiting_for_budget, 1);
        assert_eq!(queue.next_due(2).await.unwrap(), Some(1000));
        assert!(queue.lease_next(999).await.unwrap().is_none());
    }
    let lease = queue.lease_next(1000).await.unwrap().unwrap();
    assert_eq!(lease.attempts(), 0);
    queue.retry_at(id, 2000, "no link").await.unwrap();
    assert_eq!(state(&queue, id).await, State::Held);
    assert_eq!(queue.stats().await.unwrap().waiting_for_budget, 0);
}

#[tokio::test]
async fn what_stands_in_line_is_leased_only_along_the_line_and_costs_one_record() {
    let dir = tempfile::tempdir().unwrap();
    let (mut queue, _) = open(dir.path());
    let mut ids = Vec::new();
    for priority in [2, 7, 2] {
        let id = accepted(&queue, priority).await;
        queue.put_in_line(id, "many others wait before it").await.unwrap();
        ids.push(id);
    }
    let in_order = [ids[1], ids[0], ids[2]];
    let written = queue.stats().await.unwrap().appended;
    for rebuild in [false, true] {
        queue = reopened(queue, dir.path(), rebuild).await;
        let now = queue.lease_next(u64::MAX - 2).await.unwrap();
        assert!(now.is_none(), "no time is its time");
        assert_eq!(queue.next_due(2).await.unwrap(), None);
        let record = queue.get(ids[0]).await.unwrap().unwrap().summary;
        assert_eq!((record.state, record.not_before_ms, record.attempts), (State::Held, 0, 0));
        let (mut walk, mut seen) = (Walk::default(), Vec::new());
        while let Some(lease) = queue.lease_along(2, 0, &walk).await.unwrap() {
            assert!(lease.is_in_line());
            walk.pass(&lease);
            seen.push(lease.id());
        }
        assert_eq!(seen, in_order, "each is passed once");
        let first = queue.lease_along(2, 0, &Walk::default()).await.unwrap().unwrap();
        walk.back_to(&first);
        drop(first);
        let again = queue.lease_along(2, 0, &walk).await.unwrap().unwrap();
        assert_eq!(again.id(), in_order[0], "what was gone back to is next");
    }
    assert_eq!(queue.stats().await.unwrap().appended, 0, "of {written}, none since it was opened");
    // What is due goes before what is less urgent in line.
    let due = accepted(&queue, 5).await;
    let walk = Walk::default();
    let mut order = Vec::new();
    while let Some(lease) = queue.lease_along(2, 0, &walk).await.unwrap() {
        order.push(lease.id());
        queue.answer(lease.id(), "done", 3).await.unwrap();
    }
    assert_eq!(order, [ids[1], due, ids[0], ids[2]]);
}

#[tokio::test]
async fn a_lease_that_rests_is_told_as_held_and_stays_nobody_elses() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    let (first, second) = (accepted(&queue, 5).await, accepted(&queue, 5).await);
    let told = async || {
        let stats = queue.stats().await.unwrap();
        (stats.held, stats.in_flight)
    };
    let mut lease = queue.lease_next(2).await.unwrap().unwrap();
    assert_eq!((state(&queue, first).await, told().await), (State::InFlight, (1, 1)));
    lease.rest();
    lease.rest();
    assert_eq!((state(&queue, first).await, told().await), (State::Held, (2, 0)));
    let other = queue.lease_next(2).await.unwrap().unwrap();
    assert_eq!((other.id(), told().await), (second, (1, 1)), "it is in a hand all the same");
    assert!(queue.lease_next(2).await.unwrap().is_none());
    // Who gives it back, or ends it in between, counts it out.
    drop(lease);
    let mut again = queue.lease_next(2).await.unwrap().unwrap();
    assert_eq!((again.id(), told().await), (first, (0, 2)));
    again.rest();
    queue.cancel(first, 3).await.unwrap();
    drop(again);
    assert_eq!((state(&queue, first).await, told().await), (State::Cancelled, (0, 1)));
    drop(other);
    assert_eq!(told().await, (1, 0));
}

#[tokio::test]
async fn urgent_requests_can_be_leased_past_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    accepted(&queue, 6).await;
    assert!(queue.lease_urgent(2, 7).await.unwrap().is_none());
    let urgent = accepted(&queue, 7).await;
    let lease = queue.lease_urgent(2, 7).await.unwrap().unwrap();
    assert_eq!(lease.id(), urgent);
}

#[tokio::test]
async fn results_come_in_the_order_they_were_recorded_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let (mut queue, _) = open(dir.path());
    let (a, b, c) =
        (accepted(&queue, 1).await, accepted(&queue, 2).await, accepted(&queue, 3).await);
    // Times may be equal or go back; the order is that of the recording.
    queue.answer(b, "b", 50).await.unwrap();
    queue.fail(c, "no", 40).await.unwrap();
    queue.cancel(a, 40).await.unwrap();
    let first = queue.results_after(0, 10).await.unwrap();
    let ids: Vec<RequestId> = first.iter().map(|(_, summary)| summary.id).collect();
    assert_eq!(ids, [b, c, a]);
    for rebuild in [false, true] {
        queue = reopened(queue, dir.path(), rebuild).await;
        assert_eq!(queue.results_after(0, 10).await.unwrap(), first);
        let second = queue.results_after(first[0].0, 1).await.unwrap();
        assert_eq!(second, first[1..2], "from behind a number");
    }
    assert!(queue.forget(c).await.unwrap());
    assert!(!queue.forget(c).await.unwrap(), "it is gone");
    let d = accepted(&queue, 1).await;
    assert!(!queue.forget(d).await.unwrap(), "it has no end yet");
    queue.answer(d, "d", 1).await.unwrap();
    let now = queue.results_after(first[0].0, 10).await.unwrap();
    let ids: Vec<RequestId> = now.iter().map(|(_, summary)| summary.id).collect();
    assert_eq!(ids, [a, d]);
    queue.close().await.unwrap();
    let (stopped, _) = read_only(dir.path()).unwrap();
    assert_eq!(stopped.body(d).unwrap(), None);
}
