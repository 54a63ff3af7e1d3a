use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::queue::{NewEntry, QueueConfig, RequestId};

fn name(text: &str) -> TakerName {
    TakerName::parse(text).unwrap()
}

/// A queue with `count` answered requests, each a millisecond later than the one before.
async fn queue(count: u64) -> (TempDir, Queue, Vec<u64>) {
    let dir = tempfile::tempdir().unwrap();
    let config = QueueConfig { headroom_bytes: 0, max_finals: 100, ..QueueConfig::default() };
    let (queue, _) = Queue::open(&dir.path().join("queue"), config).unwrap();
    answer(&queue, 1..=count).await;
    let numbers = queue.results_after(0, 1000).await.unwrap();
    let numbers: Vec<u64> = numbers.into_iter().map(|(number, _)| number).collect();
    assert_eq!(numbers.len() as u64, count);
    (dir, queue, numbers)
}

async fn answer(queue: &Queue, at: std::ops::RangeInclusive<u64>) {
    for at_ms in at {
        let id = RequestId::new();
        let entry = NewEntry {
            id,
            idempotency: None,
            priority: 4,
            accepted_at_ms: at_ms,
            not_before_ms: 0,
            expires_at_ms: None,
            envelope: Bytes::from_static(b"envelope"),
            body: Bytes::from_static(b"body"),
        };
        queue.accept(entry).await.unwrap();
        queue.answer(id, Bytes::from_static(b"answer"), at_ms).await.unwrap();
    }
}

async fn forget(takers: &Takers, queue: &Queue, to_ms: u64) {
    let foreseen = takers.before_forgetting(queue, Some(to_ms), 100).await.unwrap();
    let forgotten = queue.forget_before(to_ms, 0).await.unwrap();
    takers.after_forgetting(foreseen, forgotten).await.unwrap();
}

#[tokio::test]
async fn a_cursor_only_goes_forward_and_survives_a_restart() {
    let (dir, queue, numbers) = queue(3).await;
    let takers = Takers::load(dir.path(), 2);
    let plc = name("plc");
    for (number, want) in [(numbers[1], numbers[1]), (numbers[0], numbers[1])] {
        let cursor = takers.acknowledge(&queue, &plc, number).await.unwrap();
        assert_eq!(cursor.number, want);
    }
    let beyond = takers.acknowledge(&queue, &plc, numbers[2] + 1).await;
    assert!(matches!(beyond, Err(TakerError::Unknown { .. })), "{beyond:?}");
    let again = Takers::load(dir.path(), 2);
    assert_eq!(again.cursor(&plc).await.number, numbers[1]);
    again.ensure(&name("mes")).await.unwrap();
    let third = again.ensure(&name("third")).await;
    assert!(matches!(third, Err(TakerError::TooMany { limit: 2 })), "{third:?}");
    // The agent's own takers do not count.
    again.ensure(&TakerName::fleet()).await.unwrap();
    again.ensure(&TakerName::webhook(&name("mes"))).await.unwrap();
    assert!(again.remove(&plc).await.unwrap() && !again.remove(&plc).await.unwrap());
    again.ensure(&name("third")).await.unwrap();
    let known = Takers::load(dir.path(), 2).list().await;
    let known: Vec<_> = known.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(known, ["fleet.controller", "mes", "third", "webhook.mes"]);
    again.keep_webhooks(&[&name("mes")]).await;
    assert_eq!(again.list().await.len(), 4);
    again.keep_webhooks(&[]).await;
    assert_eq!(Takers::load(dir.path(), 2).list().await.len(), 3, "no webhook is configured");
}

#[tokio::test]
async fn results_that_came_since_nobody_looked_are_not_forgotten() {
    let (dir, queue, _) = queue(99).await;
    let takers = Takers::load(dir.path(), 8);
    takers.ensure(&name("slow")).await.unwrap();
    // The queue keeps a hundred.
    answer(&queue, 100..=102).await;
    let foreseen = takers.before_forgetting(&queue, None, 100).await.unwrap();
    answer(&queue, 103..=110).await;
    let forgotten = queue.forget_foreseen(0, 1, foreseen.surplus).await.unwrap();
    assert_eq!(forgotten.by_count, 2, "of ten that are too many");
    takers.after_forgetting(foreseen, forgotten).await.unwrap();
    let cursor = takers.cursor(&name("slow")).await;
    let first = queue.results_after(0, 1).await.unwrap()[0].0;
    assert_eq!(cursor.gap(Some(first)).unwrap().missed, Some(2));
}

#[tokio::test]
async fn results_that_a_taker_never_acknowledged_leave_a_gap_that_is_told() {
    let (dir, queue, numbers) = queue(10).await;
    let takers = Takers::load(dir.path(), 8);
    let (slow, quick, new) = (name("slow"), name("quick"), name("new"));
    takers.acknowledge(&queue, &slow, numbers[1]).await.unwrap();
    takers.acknowledge(&queue, &quick, numbers[7]).await.unwrap();
    takers.ensure(&new).await.unwrap();
    forget(&takers, &queue, 6).await;
    let first = async |takers: &Takers, name: &TakerName| {
        let cursor = takers.cursor(name).await;
        let page = queue.results_after(cursor.number, 1).await.unwrap();
        cursor.gap(page.first().map(|(number, _)| *number))
    };
    let up_to = numbers[6] - 1;
    let takers = Takers::load(dir.path(), 8);
    for (name, after, missed) in [(&slow, numbers[1], 4), (&new, 0, 6)] {
        let gap = first(&takers, name).await;
        assert_eq!(gap, Some(Gap { after, up_to, missed: Some(missed) }), "{name}");
    }
    assert_eq!(first(&takers, &quick).await, None);
    // More is forgotten while the gap is open: it grows.
    forget(&takers, &queue, 7).await;
    let gap = first(&takers, &slow).await.unwrap();
    assert_eq!((gap.up_to, gap.missed), (numbers[7] - 1, Some(5)));
    takers.acknowledge(&queue, &slow, gap.up_to).await.unwrap();
    assert_eq!(first(&takers, &slow).await, None);
    // Everything is gone: the gap is there without a result behind it, and can be acknowledged.
    forget(&takers, &queue, 10).await;
    let gap = first(&takers, &slow).await.unwrap();
    assert_eq!(gap.missed, Some(3));
    takers.acknowledge(&queue, &slow, gap.up_to).await.unwrap();
    assert_eq!(first(&takers, &slow).await, None);
}

#[tokio::test]
async fn a_crash_between_noting_and_forgetting_hides_no_gap() {
    let (dir, queue, numbers) = queue(4).await;
    let takers = Takers::load(dir.path(), 8);
    let slow = name("slow");
    takers.acknowledge(&queue, &slow, numbers[0]).await.unwrap();
    let _foreseen = takers.before_forgetting(&queue, Some(3), 100).await.unwrap();
    // Noted, and not forgotten yet: there is no gap.
    let cursor = Takers::load(dir.path(), 8).cursor(&slow).await;
    assert_eq!(cursor.gap(Some(numbers[1])), None);
    queue.forget_before(3, 0).await.unwrap();
    let cursor = Takers::load(dir.path(), 8).cursor(&slow).await;
    let gap = cursor.gap(Some(numbers[3])).unwrap();
    assert_eq!((gap.up_to, gap.missed), (numbers[3] - 1, None), "told, but not counted");
}

#[tokio::test]
async fn a_damaged_cursor_means_everything_again() {
    let (dir, queue, numbers) = queue(2).await;
    let takers = Takers::load(dir.path(), 8);
    takers.acknowledge(&queue, &name("plc"), numbers[1]).await.unwrap();
    std::fs::write(dir.path().join("takers/plc.toml"), "number = soon").unwrap();
    assert_eq!(Takers::load(dir.path(), 8).cursor(&name("plc")).await, Cursor::default());
}
