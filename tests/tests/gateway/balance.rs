//! Which of a route's destinations comes first, and when a second one is asked, over real sockets.

use std::time::Duration;

use holdfast_tests::vendors::{Fake, Vendor};
use tokio::time::Instant;

use super::desk::{Desk, Reply, openai, vendor};
use super::raw::{Raw, Then};

fn place(reply: &Reply) -> &str {
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.headers["holdfast-destination"].to_str().unwrap()
}

fn route(more: &str) -> String {
    format!("\n[[routes]]\nname = \"any\"\ndestinations = [\"first\", \"second\"]\n{more}\n")
}

#[tokio::test]
async fn a_spent_rate_is_waited_for_when_nobody_else_is_left() {
    let first = Fake::start(Vendor::OpenAi).await.unwrap();
    let second = Fake::start(Vendor::OpenAi).await.unwrap();
    let desk = Desk::start(|dir| {
        vendor("first", "site", &first, Vendor::OpenAi, dir)
            + "max_requests_per_min = 6\ntimeout_ms = 20000\n"
            + &vendor("second", "site", &second, Vendor::OpenAi, dir)
            + &route("")
    })
    .await;
    let begun = Instant::now();
    for is_streamed in [false, true] {
        let asked = (0..8).map(|_| desk.ask("any", "hello", is_streamed));
        for reply in futures_util::future::join_all(asked).await {
            place(&reply);
        }
    }
    // The first lets one in every ten seconds.
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert!(first.asked() >= 1 && first.asked() + second.asked() == 16, "{}", first.asked());
    // Alone it is waited for.
    assert_eq!(place(&desk.ask("first", "hello", false).await), "first");
    assert!(begun.elapsed() > Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn by_weight_each_has_its_part() {
    let first = Fake::start(Vendor::OpenAi).await.unwrap();
    let second = Fake::start(Vendor::OpenAi).await.unwrap();
    let desk = Desk::start(|dir| {
        vendor("first", "site", &first, Vendor::OpenAi, dir)
            + &vendor("second", "site", &second, Vendor::OpenAi, dir)
            + &route("balance = \"weight\"\nweights = { second = 3 }")
    })
    .await;
    for _ in 0..120 {
        place(&desk.ask("any", "hello", false).await);
    }
    assert_eq!(first.asked() + second.asked(), 120);
    // Three in four, give or take six standard deviations.
    assert!((62..=118).contains(&second.asked()), "{} of 120", second.asked());
}

#[tokio::test]
async fn by_price_the_cheapest_comes_first_and_the_next_is_there_when_it_fails() {
    let dear = Fake::start(Vendor::OpenAi).await.unwrap();
    let cheap = Fake::start(Vendor::OpenAi).await.unwrap();
    let desk = Desk::start(|dir| {
        let cheaper =
            vendor("second", "site", &cheap, Vendor::OpenAi, dir).replace("000000", "00000");
        vendor("first", "site", &dear, Vendor::OpenAi, dir)
            + &cheaper
            + &route("balance = \"price\"")
    })
    .await;
    for is_streamed in [false, true] {
        assert_eq!(place(&desk.ask("any", "hello", is_streamed).await), "second");
    }
    drop(cheap);
    assert_eq!(place(&desk.ask("any", "hello", false).await), "first");
}

#[tokio::test]
async fn by_latency_the_one_comes_first_whose_first_byte_did() {
    let quick = Fake::start(Vendor::OpenAi).await.unwrap();
    let body = "{\"id\":\"c\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"m\",\"choices\":\
                [{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"slow\",\"refusal\":\
                null},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1,\
                \"completion_tokens\":1,\"total_tokens\":2}}";
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let slow = Raw::in_two("", answer, Then::Close).await;
    let desk = Desk::start(|dir| {
        openai("first", &slow.url, "")
            + &vendor("second", "site", &quick, Vendor::OpenAi, dir)
            + &route("balance = \"latency\"")
    })
    .await;
    for name in ["first", "second"] {
        assert_eq!(place(&desk.ask(name, "hello", false).await), name);
    }
    for _ in 0..30 {
        assert_eq!(place(&desk.ask("any", "hello", false).await), "second");
    }
    assert_eq!(slow.asked(), 1);
}

/// What is left of the budget of `name`, in millionths.
async fn left(desk: &Desk, name: &str) -> Option<u64> {
    let start = format!("holdfast_budget_left_micros{{destination=\"{name}\"}} ");
    let metrics = desk.metrics().await;
    metrics.lines().find_map(|line| line.strip_prefix(&start)?.parse().ok())
}

const BUDGET: &str = "price_per_request_micros = 7\nbudget_per_day_micros = 100\n";

#[tokio::test]
async fn the_next_is_asked_beside_one_that_is_slow_and_both_are_paid() {
    let silent = Raw::start("", Then::Stall).await;
    let quick = Fake::start(Vendor::OpenAi).await.unwrap();
    let desk = Desk::start(|dir| {
        openai("first", &silent.url, BUDGET)
            + &vendor("second", "site", &quick, Vendor::OpenAi, dir)
            + &route("hedge_after_ms = 100")
    })
    .await;
    let begun = Instant::now();
    assert_eq!(place(&desk.ask("any", "hello", false).await), "second");
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(100) && took < Duration::from_secs(20), "{took:?}");
    assert!(silent.is_left(1, Duration::from_secs(20)).await, "the slow call ends");
    assert_eq!((silent.asked(), quick.asked()), (1, 1));
    assert_eq!(left(&desk, "first").await, Some(93), "what was sent may be charged");
    let metrics = desk.metrics().await;
    for line in [
        "holdfast_hedges_total{outcome=\"won\"} 1",
        "holdfast_escalations_total{destination=\"first\",outcome=\"left\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

#[tokio::test]
async fn a_second_attempt_is_made_for_no_stream_and_never_beyond_a_budget() {
    let slow = Raw::in_two("", "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", Then::Close).await;
    let poor = Fake::start(Vendor::OpenAi).await.unwrap();
    let last = Fake::start(Vendor::OpenAi).await.unwrap();
    let desk = Desk::start(|dir| {
        let budget = "budget_per_day_micros = 100000\n";
        let mut text = openai("slow", &slow.url, "");
        text += &vendor("poor", "site", &poor, Vendor::OpenAi, dir);
        text += budget;
        text += &vendor("last", "site", &last, Vendor::OpenAi, dir);
        text += "\n[[routes]]\nname = \"any\"\ndestinations = [\"slow\", \"poor\", \"last\"]\n\
                 hedge_after_ms = 20\n";
        text
    })
    .await;
    // 90,000 are set apart for the answer's 6,000 tokens, and 8,192 tokens in for 24,576: too much.
    let messages = serde_json::json!([{ "role": "user", "content": "hello" }]);
    let body = serde_json::json!({ "model": "any", "messages": messages, "max_tokens": 6000 });
    let reply = desk.post("/v1/chat/completions", &body, &[]).await;
    assert_eq!(place(&reply), "last", "the second attempt was too dear, and the first failed");
    assert_eq!((poor.asked(), last.asked()), (0, 1));
    let metrics = desk.metrics().await;
    assert!(metrics.contains("holdfast_hedges_total{outcome=\"failed\"} 1"), "{metrics}");
    let asked = slow.asked();
    assert_eq!(
        place(&desk.ask("any", "hello", true).await),
        "poor",
        "a stream goes on after a failure"
    );
    assert_eq!((slow.asked(), last.asked()), (asked + 1, 1));
}
