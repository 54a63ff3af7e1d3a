//! The limits of a destination, as the direct path and the drain share them.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::super::fakes::{Fake, Raw, Scripted, Then};
use super::super::{Escalator, Next, Purse, Share, Standing};
use super::{destination, hints, request, send};
use crate::audit::Audit;
use crate::clock::Clock;
use crate::destination::{Destination, Limits, Prices, Protocol};
use crate::request::{DataClass, TaskName};
use crate::subject::Subject;

fn answer() -> Scripted {
    let class = json!({ "label": "stop", "confidence": 0.9 });
    let answer = json!({ "label": "stop", "confidence": 0.9, "classes": [class], "zone": "device",
        "place": "device", "model": "large@1", "took_ms": 2.0, "provisional": false });
    let id = uuid::Uuid::now_v7();
    let told = json!({ "id": id, "task": "voice-commands", "state": "answered", "class": "internal",
        "reasons": [], "answer": answer });
    (200, vec![], told)
}

fn task() -> Subject {
    Subject::Task(TaskName::parse("voice-commands").unwrap())
}

fn limited(url: &str, limits: Limits) -> Destination {
    Destination { limits, ..destination(Protocol::Holdfast, url.to_owned()) }
}

fn with_purse(destination: &Destination, state_dir: &Path) -> Escalator {
    let destinations = std::slice::from_ref(destination);
    let purse = Purse::open(state_dir, Clock::resume(state_dir), destinations);
    Escalator::new(destinations, hints(), purse, Audit::default()).unwrap()
}

const PRICED: Limits = Limits {
    requests_per_min: None,
    bytes_per_s: None,
    price_micros: 2_500,
    prices: Prices { million_tokens_in: 0, million_tokens_out: 0, image: 0, audio_second: 0 },
    budget_micros: Some(6_000),
};

#[tokio::test]
async fn a_caller_who_cannot_wait_for_the_rate_is_told_at_once() {
    let fake = Fake::holdfast(vec![answer()], None).await;
    let limits = Limits { requests_per_min: Some(1), ..Limits::default() };
    let destination = limited(&fake.url, limits);
    let dir = tempfile::tempdir().unwrap();
    let escalator = with_purse(&destination, dir.path());
    let request = request(DataClass::Internal);
    send(&escalator, &destination, &request).await.unwrap();
    let error = send(&escalator, &destination, &request).await.unwrap_err();
    let Next::Later { after } = error.next() else { panic!("{error}") };
    assert_eq!(error.code(), "limited");
    assert!(after > Duration::from_secs(30) && after <= Duration::from_secs(60), "{after:?}");
    assert_eq!(fake.seen().len(), 1);
    assert!(matches!(escalator.standing("site", None, Share::First), Standing::Limited(_)));
}

#[tokio::test]
async fn a_spent_budget_keeps_requests_back_across_restarts() {
    let fake = Fake::holdfast(vec![answer(), answer(), answer()], None).await;
    let destination = limited(&fake.url, PRICED);
    let dir = tempfile::tempdir().unwrap();
    let request = request(DataClass::Internal);
    for run in 0..2 {
        let escalator = with_purse(&destination, dir.path());
        if run == 0 {
            for _ in 0..2 {
                send(&escalator, &destination, &request).await.unwrap();
            }
        }
        let error = send(&escalator, &destination, &request).await.unwrap_err();
        assert_eq!(error.code(), "over_budget", "run {run}");
        let standing = escalator.standing("site", None, Share::Backlog);
        assert!(matches!(standing, Standing::OverBudget(_)), "run {run}: {standing:?}");
        assert_eq!(fake.seen().len(), 2, "run {run}");
    }
}

#[tokio::test]
async fn a_note_that_cannot_be_read_counts_as_all_spent() {
    let fake = Fake::holdfast(vec![answer()], None).await;
    let destination = limited(&fake.url, PRICED);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("spending.toml"), "destination = 3").unwrap();
    let request = request(DataClass::Internal);
    let error = send(&with_purse(&destination, dir.path()), &destination, &request).await;
    assert_eq!(error.unwrap_err().code(), "over_budget");
    assert!(fake.seen().is_empty());
}

#[tokio::test]
async fn what_cannot_be_noted_is_not_spent() {
    let fake = Fake::holdfast(vec![answer()], None).await;
    let destination = limited(&fake.url, PRICED);
    let dir = tempfile::tempdir().unwrap();
    let request = request(DataClass::Internal);
    let escalator = with_purse(&destination, &dir.path().join("not there"));
    let error = send(&escalator, &destination, &request).await.unwrap_err();
    assert_eq!(error.code(), "unnoted", "{error}");
    assert!(fake.seen().is_empty());
}

#[tokio::test]
async fn what_was_not_worked_on_costs_nothing_and_what_may_have_been_does() {
    let throttle: Scripted = (429, vec![("retry-after", "0".to_owned())], json!({}));
    for (case, replies, error_code, is_paid) in [
        ("throttled", vec![throttle], "throttled", false),
        ("broken", vec![(500, vec![], json!({}))], "failed", true),
        ("refused", vec![(422, vec![], json!({}))], "refused", false),
    ] {
        let fake = Fake::holdfast(replies, None).await;
        let limits = Limits { budget_micros: Some(2_500), ..PRICED };
        let destination = limited(&fake.url, limits);
        let dir = tempfile::tempdir().unwrap();
        let escalator = with_purse(&destination, dir.path());
        let request = request(DataClass::Internal);
        let error = send(&escalator, &destination, &request).await.unwrap_err();
        assert_eq!(error.code(), error_code, "{case}");
        let is_spent =
            matches!(escalator.standing("site", None, Share::First), Standing::OverBudget(_));
        assert_eq!(is_spent, is_paid, "{case}");
    }
}

#[tokio::test]
async fn the_backlog_leaves_a_place_to_who_waits() {
    let raw = Raw::new(vec![], Then::Stall).await;
    let mut destination = limited(&raw.url(), Limits::default());
    for (concurrency, backlog) in [(1, 1), (2, 1), (4, 3)] {
        destination.concurrency = concurrency;
        let dir = tempfile::tempdir().unwrap();
        let escalator = with_purse(&destination, dir.path());
        let mut turns = Vec::new();
        while let Ok(turn) = escalator.try_turn("site", &task(), Share::Backlog, 1) {
            turns.push(turn);
        }
        assert_eq!(turns.len(), backlog, "{concurrency} places");
        let kept = escalator.try_turn("site", &task(), Share::First, 1);
        assert_eq!(kept.is_ok(), concurrency > 1);
        assert_eq!(escalator.standing("site", None, Share::First), Standing::Full);
        let mut freed = escalator.turns();
        freed.borrow_and_update();
        turns.clear();
        assert!(freed.has_changed().unwrap());
    }
}
