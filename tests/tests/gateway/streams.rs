//! What streams promise beside their words.

use std::time::Duration;

use holdfast_tests::vendors::{Fake, Next, Reply, Trouble, Vendor};
use tokio::time::timeout;

use super::desk::{Desk, openai, vendor};
use super::raw::{Raw, Then};

/// Longer than anything here takes.
const PLENTY: Duration = Duration::from_secs(20);

fn stream_head() -> String {
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n".to_owned()
}

fn piece(word: &str) -> String {
    format!(
        "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\
         \"choices\":[{{\"index\":0,\"delta\":{{\"role\":\"assistant\",\"content\":\"{word}\"}},\
         \"finish_reason\":null}}]}}\n\n"
    )
}

#[tokio::test]
async fn a_piece_is_there_before_the_next_one_is_sent() {
    // Behind the first piece the server waits for ever: whoever gathers pieces would too.
    let raw = Raw::start(stream_head() + &piece("first"), Then::Stall).await;
    let desk = Desk::start(|_| openai("near", &raw.url, "")).await;
    let mut response = desk.open("near", "hello").await;
    assert_eq!(response.status(), 200);
    let mut text = String::new();
    while !text.contains("first") {
        let chunk = timeout(PLENTY, response.chunk()).await.unwrap().unwrap().unwrap();
        text += std::str::from_utf8(&chunk).unwrap();
    }
    assert_eq!(raw.left(), 0);
    drop(response);
    assert!(raw.is_left(1, PLENTY).await, "who goes away ends the call at once");
}

#[tokio::test]
async fn who_does_not_wait_for_an_answer_ends_the_call() {
    let raw = Raw::start("", Then::Stall).await;
    let desk = Desk::start(|_| openai("near", &raw.url, "")).await;
    for (times, is_streamed) in [(1, false), (2, true)] {
        let asked = raw.asked();
        let asking = desk.ask("near", "hello", is_streamed);
        tokio::select! {
            reply = asking => panic!("{reply:?}"),
            () = async { while raw.asked() == asked { tokio::task::yield_now().await } } => {}
        }
        assert!(raw.is_left(times, PLENTY).await, "streamed: {is_streamed}");
    }
}

#[tokio::test]
async fn a_route_goes_on_until_a_piece_is_out_and_never_after() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let broken = Fake::start(Vendor::Anthropic).await.unwrap();
    let cut = Raw::start(stream_head() + &piece("half"), Then::Close).await;
    let empty = Raw::start(stream_head(), Then::Close).await;
    let desk = Desk::start(|dir| {
        let mut text = vendor("near", "site", &near, Vendor::OpenAi, dir);
        text += &vendor("broken", "site", &broken, Vendor::Anthropic, dir);
        text += &openai("cut", &cut.url, "");
        text += &openai("empty", &empty.url, "");
        for first in ["broken", "empty", "cut"] {
            text += &format!(
                "\n[[routes]]\nname = \"by-{first}\"\ndestinations = [{first:?}, \"near\"]\n"
            );
        }
        text
    })
    .await;
    for is_streamed in [false, true] {
        broken.next(Next::Fails(Trouble::Transient));
        let reply = desk.ask("by-broken", "hello", is_streamed).await;
        assert_eq!(
            (reply.status, &reply.headers["holdfast-destination"]),
            (200, &"near".parse().unwrap())
        );
    }
    let page = Reply {
        status: 200,
        headers: vec![("content-type", "text/html".to_owned())],
        body: "<html>sign in</html>".into(),
    };
    broken.next(Next::Sends(page));
    let reply = desk.ask("by-broken", "hello", true).await;
    assert_eq!(reply.headers["holdfast-destination"], "near", "a captive portal is no answer");
    let reply = desk.ask("by-empty", "hello", true).await;
    assert_eq!(reply.headers["holdfast-destination"], "near", "nothing was out yet");
    let asked = near.asked();
    let reply = desk.ask("by-cut", "hello", true).await;
    assert_eq!(reply.headers["holdfast-destination"], "cut");
    assert!(
        reply.text.contains("half") && reply.text.contains("\"interrupted\""),
        "{}",
        reply.text
    );
    assert!(!reply.text.contains("[DONE]"), "{}", reply.text);
    assert_eq!(near.asked(), asked, "half an answer is not begun again");
}

#[tokio::test]
async fn a_stream_that_is_cut_is_paid_as_what_was_set_apart() {
    let cut = Raw::start(stream_head() + &piece("half"), Then::Close).await;
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    // Set apart for one are 8192 and 4096 tokens.
    let budget = "price_per_million_tokens_in_micros = 1000000\n\
                  price_per_million_tokens_out_micros = 1000000\nbudget_per_day_micros = 12400\n";
    let desk = Desk::start(|dir| {
        openai("cut", &cut.url, budget)
            + &vendor("near", "site", &near, Vendor::OpenAi, dir).replace("= 3000000", "= 1000000")
    })
    .await;
    let reply = desk.ask("cut", "hello", true).await;
    assert!(reply.text.contains("\"interrupted\""), "{}", reply.text);
    let reply = desk.ask("cut", "hello", true).await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (429, "insufficient_quota"),
        "{}",
        reply.text
    );
    assert_eq!(cut.asked(), 1);
    let metrics = desk.metrics().await;
    let left = "holdfast_budget_left_micros{destination=\"cut\"} 112";
    assert!(metrics.contains(left), "{metrics}");
}

#[tokio::test]
async fn what_is_asked_sets_apart_what_its_size_may_cost() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let budget = "price_per_million_tokens_in_micros = 1000000\nbudget_per_day_micros = 20000\n";
    let desk = Desk::start(|dir| {
        let key = dir.join("near.key");
        std::fs::write(&key, Vendor::OpenAi.credential(&near.url)).unwrap();
        let key = format!("api_key_file = {:?}\n", key.display().to_string());
        openai("near", &near.url, &(key + budget))
    })
    .await;
    let long = "a word ".repeat(20_000);
    let reply = desk.ask("near", &long, false).await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (429, "insufficient_quota"),
        "{}",
        reply.text
    );
    assert_eq!(near.asked(), 0);
    assert_eq!(desk.ask("near", "hello", false).await.status, 200);
}
