//! Which of a route's destinations comes first, over real sockets.

use holdfast_tests::vendors::{Fake, Vendor};

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
