//! Destinations that fail on every conversation, over real sockets.

use std::time::Duration;

use holdfast_tests::vendors::{Fake, Next, Reply, Trouble, Vendor};
use serde_json::json;

use super::desk::{Desk, vendor};

fn fail(fake: &Fake, times: usize) {
    for _ in 0..times {
        fake.next(Next::Fails(Trouble::Transient));
    }
}

#[tokio::test]
async fn a_destination_that_fails_is_not_touched_until_a_try_shows_that_it_is_well() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let far = Fake::start(Vendor::Anthropic).await.unwrap();
    let desk = Desk::start(|dir| {
        vendor("near", "site", &near, Vendor::OpenAi, dir)
            + &vendor("far", "private", &far, Vendor::Anthropic, dir)
            + "\n[[routes]]\nname = \"any\"\ndestinations = [\"near\", \"far\"]\n"
    })
    .await;
    let internal = [("holdfast-class", "internal")];
    let body = json!({ "model": "any", "messages": [{ "role": "user", "content": "hello" }] });
    let ask = || desk.post("/v1/chat/completions", &body, &internal);
    // One try fails, too.
    fail(&near, 5);
    let mut asked = 0;
    while near.asked() < 5 {
        let reply = ask().await;
        asked += 1;
        assert_eq!(
            (reply.status, &reply.headers["holdfast-destination"]),
            (200, &"far".parse().unwrap())
        );
        assert!(far.asked() == asked && near.asked() >= asked.min(4));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let metric = |value: u8| {
        format!("holdfast_destination_circuit{{destination=\"near\",model=\"model-1:0\"}} {value}")
    };
    let metrics = desk.metrics().await;
    assert!(metrics.contains(&metric(2)), "{metrics}");
    // Then one of these is the one that tries.
    let mut untouched = 0;
    let reply = loop {
        let reply = ask().await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        if reply.headers["holdfast-destination"] == "near" {
            break reply;
        }
        untouched += 1;
        assert_eq!(near.asked(), 5, "it is left alone");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(untouched > 0, "{reply:?}");
    assert_eq!((near.asked(), far.asked()), (6, asked + untouched));
    let metrics = desk.metrics().await;
    assert!(metrics.contains(&metric(0)), "{metrics}");
    assert_eq!(ask().await.headers["holdfast-destination"], "near");
}

#[tokio::test]
async fn a_conversation_with_the_only_destination_is_told_at_once_when_to_come_again() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let desk = Desk::start(|dir| vendor("near", "site", &near, Vendor::OpenAi, dir)).await;
    fail(&near, 99);
    for _ in 0..4 {
        assert_eq!(desk.ask("near", "hello", false).await.status, 502);
    }
    // What it rests grows with every try that fails: soon enough these find it resting.
    let mut told = 0;
    while told < 4 {
        let (before, reply) = (near.asked(), desk.ask("near", "hello", told % 2 == 0).await);
        if reply.status == 502 {
            assert_eq!(near.asked(), before + 1, "{}", reply.text);
            continue;
        }
        let got = (reply.status, reply.code(), near.asked());
        assert_eq!(got, (503, "circuit_open".to_owned(), before), "{}", reply.text);
        let seconds: u64 = reply.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=30).contains(&seconds), "{seconds}");
        told += 1;
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_counts_as_a_failure_and_one_that_begins_as_an_answer() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let desk = Desk::start(|dir| vendor("near", "site", &near, Vendor::OpenAi, dir)).await;
    let head = vec![("content-type", "text/event-stream".to_owned())];
    let event = "data: {\"error\": {\"message\": \"no\", \"type\": \"server_error\", \"code\": \
                 null, \"param\": null}}\n\n";
    for _ in 0..5 {
        let body = event.into();
        near.next(Next::Sends(Reply { status: 200, headers: head.clone(), body }));
    }
    for _ in 0..4 {
        assert_eq!(desk.ask("near", "hello", true).await.status, 502);
    }
    // One try at most comes before it rests for longer than anything here takes.
    let mut reply = desk.ask("near", "hello", true).await;
    while reply.status == 502 {
        reply = desk.ask("near", "hello", true).await;
    }
    assert_eq!((reply.status, reply.code().as_str()), (503, "circuit_open"), "{}", reply.text);
    // A stream without an end closes it with its first piece, for everybody.
    let response = loop {
        let response = desk.open("near", "talk on").await;
        if response.status() == 200 {
            break response;
        }
        assert!([502, 503].contains(&response.status().as_u16()));
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(desk.ask("near", "hello", false).await.status, 200);
    drop(response);
}
