//! How responses end: by themselves, by what answers, by who asks, or with a token; and the log of it.

use std::fmt::Debug;
use std::str::FromStr;
use std::time::Duration;

use holdfast_tests::vendors::{Fake, Vendor};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::desk::{Desk, openai, vendor};
use super::faults::{PIECE, sse};
use super::gate::Gate;
use super::raw::{Raw, Then};

/// Longer than anything here takes.
const PLENTY: Duration = Duration::from_secs(20);
const CHAT: &str = "/v1/chat/completions";

fn question(model: &str) -> Value {
    let messages = json!([{ "role": "user", "content": "hello" }]);
    json!({ "model": model, "messages": messages, "stream": true })
}

/// A line of the log with all of these.
async fn line(desk: &Desk, parts: &[&str]) -> String {
    let until = Instant::now() + PLENTY;
    loop {
        let log = desk.node.log_tail();
        let found = log.lines().find(|line| parts.iter().all(|part| line.contains(part)));
        if let Some(found) = found {
            return found.to_owned();
        }
        assert!(Instant::now() < until, "{parts:?}: {log}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// The number under a key of a line.
fn number<T: FromStr<Err: Debug>>(line: &str, key: &str) -> T {
    let rest = line.split(&format!(" {key}=")).nth(1).unwrap_or_else(|| panic!("{key}: {line}"));
    rest.split(' ').next().unwrap().parse().unwrap()
}

/// A stream to its end: whether that is in order.
async fn is_whole(mut response: reqwest::Response) -> bool {
    let read = async {
        loop {
            match response.chunk().await {
                Ok(Some(_)) => {}
                Ok(None) => break true,
                Err(_) => break false,
            }
        }
    };
    timeout(PLENTY, read).await.unwrap()
}

/// Asks once more over a connection that is kept: the status.
async fn ask_again(stream: &mut TcpStream, bearer: &str) -> String {
    let asked =
        format!("GET /v1/models HTTP/1.1\r\nhost: localhost\r\nauthorization: {bearer}\r\n\r\n");
    stream.write_all(asked.as_bytes()).await.unwrap();
    let mut got = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&got).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_lowercase().split("content-length: ").nth(1).unwrap().to_owned();
            let length: usize = length.lines().next().unwrap().trim().parse().unwrap();
            if body.len() >= length {
                return head.split(' ').nth(1).unwrap().to_owned();
            }
        }
        let mut more = [0; 4096];
        let count = timeout(PLENTY, stream.read(&mut more)).await.unwrap().unwrap();
        assert!(count > 0, "it was closed: {text}");
        got.extend_from_slice(&more[..count]);
    }
}

#[tokio::test]
async fn a_revoked_token_ends_its_streams_and_no_others() {
    let raw = Raw::start(sse(PIECE), Then::Stall).await;
    let desk = Desk::guarded(|_| openai("near", &raw.url, "concurrency = 16")).await;
    let bearer = |name: &str| format!("Bearer {}", desk.token(&[name, "--admin"]));
    let (gone, stays) = (bearer("gone"), bearer("stays"));
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let follow = async |path: &str, bearer: &str| {
        let request = http.get(format!("{}{path}", desk.url)).header("authorization", bearer);
        request.header("accept", "text/event-stream").send().await.unwrap()
    };
    let begin = async |path: &str, body: &Value, bearer: &str| {
        let mut response = desk.begin(path, body, &[("authorization", bearer)]).await;
        assert_eq!(response.status(), 200, "{path}");
        timeout(PLENTY, response.chunk()).await.unwrap().unwrap().unwrap();
        response
    };
    let later = json!({ "model": "near", "input": "hello", "background": true, "stream": true });
    let mut ending = vec![begin(CHAT, &question("near"), &gone).await];
    let mut going = vec![begin(CHAT, &question("near"), &stays).await];
    let asked = raw.asked();
    ending.push(begin("/v1/responses", &later, &gone).await);
    for (bearer, streams) in [(&gone, &mut ending), (&stays, &mut going)] {
        streams.push(follow("/v1/results", bearer).await);
        streams.push(follow("/v1/requests", bearer).await);
    }
    assert_eq!(asked, 2);
    let address = desk.url.trim_start_matches("http://");
    let mut kept = TcpStream::connect(address).await.unwrap();
    assert_eq!(ask_again(&mut kept, &gone).await, "200");

    desk.command("token", &["revoke", "gone"]);
    for response in ending {
        let url = response.url().clone();
        assert!(!is_whole(response).await, "{url}: what was cut is no whole answer");
    }
    assert!(raw.is_left(1, PLENTY).await, "and the call to the destination with it");
    assert_eq!(ask_again(&mut kept, &gone).await, "401", "the connection has no right of its own");
    for route in [CHAT, "/v1/responses", "/v1/results", "/v1/requests"] {
        let parts = ["caller=\"gone\"", &format!("route=\"{route}\""), "outcome=\"revoked\""];
        line(&desk, &parts).await;
    }
    // Longer than it took the others to end.
    for response in &mut going {
        let more = timeout(Duration::from_millis(700), async {
            while response.chunk().await.unwrap().is_some() {}
        });
        assert!(more.await.is_err(), "{}: it goes on", response.url());
    }
}

#[tokio::test]
async fn who_waits_with_a_revoked_token_is_told_so_and_no_answer() {
    let (slow, quick) = (Gate::saying("late").await, Gate::saying("late").await);
    let desk = Desk::guarded(|_| {
        openai("slow", &slow.url, "timeout_ms = 60000") + &openai("quick", &quick.url, "")
    })
    .await;
    let bearer = |name: &str| format!("Bearer {}", desk.token(&[name, "--admin"]));
    let (gone, stays) = (bearer("gone"), bearer("stays"));
    let whole = |model: &str| json!({ "model": model, "messages": [{ "role": "user", "content": "hello" }] });
    let (of_slow, of_quick) = (whole("slow"), whole("quick"));
    let (gone, stays) = ([("authorization", gone.as_str())], [("authorization", stays.as_str())]);
    let poll = "/v1/results?wait_ms=60000";
    let revoked = async {
        slow.is_asked(1).await;
        quick.is_asked(1).await;
        desk.command("token", &["revoke", "gone"]);
        // Longer than it takes until that is known.
        sleep(Duration::from_millis(1500)).await;
        quick.open();
    };
    let (asked, polled, other, ()) = timeout(PLENTY, async {
        tokio::join!(
            desk.post(CHAT, &of_slow, &gone),
            desk.get_with(poll, &gone),
            desk.post(CHAT, &of_quick, &stays),
            revoked,
        )
    })
    .await
    .expect("they are told within a second, not at their deadline");
    assert_eq!((asked.status, polled.status), (401, 401), "{} {}", asked.text, polled.text);
    assert_eq!(other.status, 200, "{}", other.text);
}

#[tokio::test]
async fn the_log_says_how_each_response_ended() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let cut = Raw::in_two(sse(PIECE), PIECE, Then::Close).await;
    let silent = Raw::start(sse(PIECE), Then::Stall).await;
    let desk = Desk::guarded(|dir| {
        vendor("near", "site", &near, Vendor::OpenAi, dir)
            + &openai("cut", &cut.url, "")
            + &openai("silent", &silent.url, "")
    })
    .await;
    for (model, want, status) in
        [("near", "answered", 200), ("cut", "broke_off", 200), ("none", "refused", 404)]
    {
        let bearer = format!("Bearer {}", desk.token(&[model]));
        let reply = desk.post(CHAT, &question(model), &[("authorization", &bearer)]).await;
        assert_eq!(reply.status, status, "{model}: {}", reply.text);
        let told = line(&desk, &[&format!("caller=\"{model}\""), CHAT]).await;
        assert!(told.contains(&format!("outcome=\"{want}\"")), "{told}");
        assert!(told.contains(&format!("status={status}")), "{told}");
        assert_eq!(number::<usize>(&told, "bytes_out"), reply.text.len(), "{told}");
        if model == "cut" {
            assert!(reply.text.contains("\"interrupted\""), "{}", reply.text);
            // Between its parts the destination waits so long.
            assert!(number::<f64>(&told, "ms") >= 200.0, "it is logged at its end: {told}");
        }
    }
    let bearer = format!("Bearer {}", desk.token(&["silent"]));
    let mut response = desk.begin(CHAT, &question("silent"), &[("authorization", &bearer)]).await;
    let piece = timeout(PLENTY, response.chunk()).await.unwrap().unwrap().unwrap();
    drop(response);
    let told = line(&desk, &["caller=\"silent\"", CHAT]).await;
    assert!(told.contains("outcome=\"cut\""), "{told}");
    assert_eq!(number::<usize>(&told, "bytes_out"), piece.len(), "{told}");
}
