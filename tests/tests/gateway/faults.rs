//! Destinations that break every rule of the wire: each costs a typed error, and never half an answer
//! that looks like a whole one.

use std::time::Duration;

use holdfast_tests::vendors::{Fake, Vendor};
use serde_json::json;
use tokio::time::Instant;

use super::desk::{Desk, openai, vendor};
use super::raw::{Raw, Then};

const SOON: Duration = Duration::from_secs(30);

fn head(kind: &str, rest: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n{rest}").into_bytes()
}

/// The response of a stream, with these events in it.
pub(crate) fn sse(rest: &str) -> Vec<u8> {
    head("text/event-stream", &format!("connection: close\r\n\r\n{rest}"))
}

/// A piece of an answer that says `half`.
pub(crate) const PIECE: &str = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\
    \"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"half\"},\
    \"finish_reason\":null}]}\n\n";

#[tokio::test]
async fn an_answer_in_one_piece_that_is_none_is_an_error_of_its_kind() {
    let json = |rest: &str| head("application/json", rest);
    for (case, bytes, then, status, code) in [
        ("reset before a word", vec![], Then::Reset, 502, "interrupted"),
        ("closed before a word", vec![], Then::Close, 502, "interrupted"),
        ("not HTTP", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), Then::Close, 502, "interrupted"),
        ("too short", json("content-length: 90\r\n\r\n{\"id\":"), Then::Close, 502, "interrupted"),
        (
            "reset in it",
            json("content-length: 90\r\n\r\n{\"id\":"),
            Then::Reset,
            502,
            "interrupted",
        ),
        (
            "stalled in it",
            json("content-length: 90\r\n\r\n{\"id\":"),
            Then::Stall,
            502,
            "interrupted",
        ),
        ("truncated", json("content-length: 6\r\n\r\n{\"id\":"), Then::Close, 502, "unusable"),
        ("no JSON", json("content-length: 5\r\n\r\nhello"), Then::Close, 502, "unusable"),
        ("endless", json("\r\n"), Then::Flood, 502, "unusable"),
        ("a page", head("text/html", "content-length: 2\r\n\r\n{}"), Then::Close, 502, "unusable"),
    ] {
        let raw = Raw::start(bytes, then).await;
        let desk = Desk::start(|_| openai("near", &raw.url, "timeout_ms = 1000\n")).await;
        let reply = desk.ask("near", "hello", false).await;
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{case}: {}", reply.text);
    }
}

#[tokio::test]
async fn a_credential_that_is_not_there_is_told_at_the_start_and_to_who_asks() {
    let fake = Fake::start(Vendor::OpenAi).await.unwrap();
    let mut key = None;
    let desk = Desk::start(|dir| {
        let section = vendor("near", "site", &fake, Vendor::OpenAi, dir);
        let path = dir.join("near.key");
        key = Some((path.clone(), std::fs::read(&path).unwrap()));
        std::fs::remove_file(path).unwrap();
        section
    });
    let (desk, (path, credential)) = (desk.await, key.unwrap());
    for is_streamed in [false, true] {
        let reply = desk.ask("near", "hello", is_streamed).await;
        assert_eq!((reply.status, reply.code().as_str()), (502, "credential"), "{}", reply.text);
        let message = &reply.json()["error"]["message"];
        assert_eq!(message, "near failed: no credential for near: the agent's log says why");
    }
    assert_eq!(fake.asked(), 0);
    // Nobody has to ask first for the log to say it.
    let said = |line: &&str| line.contains("no credential: nothing goes there until it is there");
    let until = Instant::now() + SOON;
    let line = loop {
        let log = desk.node.log_tail();
        if let Some(line) = log.lines().find(said) {
            break line.to_owned();
        }
        assert!(Instant::now() < until, "{log}");
        tokio::task::yield_now().await;
    };
    let place = path.display().to_string();
    for word in ["WARN", "near", &place, "put the key on its first line"] {
        assert!(line.contains(word), "{word}: {line}");
    }
    std::fs::write(path, credential).unwrap();
    assert_eq!(desk.ask("near", "hello", false).await.status, 200, "it is read anew");
}

#[tokio::test]
async fn the_code_of_a_provider_that_refuses_is_what_its_callers_see() {
    for (code, want) in [
        ("\"context_length_exceeded\"", "context_length_exceeded"),
        ("null", "refused_by_destination"),
        ("400", "refused_by_destination"),
        ("\"Not a plain one\"", "refused_by_destination"),
    ] {
        let body = format!(
            "{{\"error\": {{\"message\": \"too long\", \"type\": \"invalid_request_error\", \
             \"param\": \"messages\", \"code\": {code}}}}}"
        );
        let bytes = format!(
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let raw = Raw::start(bytes, Then::Close).await;
        let desk = Desk::start(|_| openai("near", &raw.url, "")).await;
        for is_streamed in [false, true] {
            let reply = desk.ask("near", "hello", is_streamed).await;
            assert_eq!((reply.status, reply.code().as_str()), (400, want), "{}", reply.text);
        }
    }
}

#[tokio::test]
async fn a_body_in_an_encoding_is_refused_by_its_name() {
    let fake = Fake::start(Vendor::OpenAi).await.unwrap();
    let desk = Desk::start(|dir| vendor("near", "site", &fake, Vendor::OpenAi, dir)).await;
    let body = json!({ "model": "near", "messages": [{ "role": "user", "content": "hello" }] });
    for path in ["/v1/chat/completions", "/v1/responses", "/v1/embeddings"] {
        for encoding in ["gzip", "br", "gzip, deflate"] {
            let reply = desk.post(path, &body, &[("content-encoding", encoding)]).await;
            assert_eq!((reply.status, reply.code().as_str()), (415, "wrong_media"), "{path}");
            let message = reply.json()["error"]["message"].to_string();
            assert!(message.contains(&format!("Content-Encoding {encoding} is not")), "{message}");
        }
    }
    let plain = desk.post("/v1/chat/completions", &body, &[("content-encoding", "identity")]).await;
    assert_eq!(plain.status, 200, "{}", plain.text);
}

#[tokio::test]
async fn a_stream_that_breaks_off_ends_with_an_error_in_it() {
    for (case, rest, then, code) in [
        ("closed", String::new(), Then::Close, "interrupted"),
        ("reset", "data: ".to_owned(), Then::Reset, "interrupted"),
        ("stalled", String::new(), Then::Stall, "interrupted"),
        ("half an event", "data: {\"id\":".to_owned(), Then::Close, "interrupted"),
        ("no JSON", "data: hello\n\n".to_owned(), Then::Stall, "unusable"),
        (
            "what nobody knows, then nothing",
            "data: {\"a\": 1}\n\n".to_owned(),
            Then::Stall,
            "interrupted",
        ),
        (
            "its own error",
            "data: {\"error\": {\"message\": \"no\", \"type\": \"server_error\", \"code\": null, \
             \"param\": null}}\n\n"
                .to_owned(),
            Then::Stall,
            "failed",
        ),
    ] {
        let raw = Raw::in_two(sse(PIECE), rest, then).await;
        let desk = Desk::start(|_| openai("near", &raw.url, "timeout_ms = 1000\n")).await;
        let reply = desk.ask("near", "hello", true).await;
        assert_eq!(reply.status, 200, "{case}: {}", reply.text);
        assert!(reply.text.contains("half"), "{case}: {}", reply.text);
        let last = reply.text.trim_end().rsplit("\n\n").next().unwrap_or_default();
        let last: serde_json::Value =
            serde_json::from_str(last.trim_start_matches("data: ")).unwrap();
        assert_eq!(last["error"]["code"], code, "{case}: {}", reply.text);
        let is_told = last["error"]["message"].as_str().unwrap().contains("failed in mid-stream");
        assert_eq!(is_told, code == "failed", "{case}: {}", reply.text);
        assert!(!reply.text.contains("[DONE]"), "{case}: {}", reply.text);
        assert!(desk.metrics().await.contains(&format!("outcome=\"{code}\"")), "{case}");
    }
}

#[tokio::test]
async fn an_endless_event_is_not_gathered() {
    let mut bytes = sse(PIECE);
    bytes.extend(b"data: ");
    bytes.extend(vec![b'x'; 3 << 20]);
    let raw = Raw::start(bytes, Then::Stall).await;
    let desk = Desk::start(|_| openai("near", &raw.url, "timeout_ms = 10000\n")).await;
    let reply = desk.ask("near", "hello", true).await;
    assert!(reply.text.contains("\"unusable\""), "{}", reply.text);
}

#[tokio::test]
async fn a_redirect_to_another_host_is_never_followed() {
    let elsewhere = Fake::start(Vendor::OpenAi).await.unwrap();
    for status in [301, 302, 307, 308] {
        let location = format!("{}/v1/chat/completions", elsewhere.url);
        let bytes =
            format!("HTTP/1.1 {status} Moved\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
        let raw = Raw::start(bytes, Then::Close).await;
        let desk = Desk::start(|_| openai("near", &raw.url, "")).await;
        for is_streamed in [false, true] {
            let reply = desk.ask("near", "hello", is_streamed).await;
            let got = (reply.status, reply.code());
            assert_eq!(got, (502, "unusable".to_owned()), "{status}: {}", reply.text);
        }
    }
    assert_eq!(elsewhere.asked(), 0);
}

#[tokio::test]
async fn a_portal_that_answers_first_is_no_destination_that_is_broken() {
    for (case, bytes) in [
        ("sent elsewhere", "302 Found\r\nlocation: http://login.portal.example/\r\n"),
        ("told", "511 Network Authentication Required\r\n"),
    ] {
        let raw =
            Raw::start(format!("HTTP/1.1 {bytes}content-length: 0\r\n\r\n"), Then::Close).await;
        for is_streamed in [false, true] {
            let desk = Desk::start(|_| openai("near", &raw.url, "")).await;
            let reply = desk.ask("near", "hello", is_streamed).await;
            let got = (reply.status, reply.code());
            assert_eq!(got, (503, "unreachable".to_owned()), "{case}: {}", reply.text);
            assert!(reply.headers.contains_key("retry-after"), "{case}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_by_its_place() {
    let desk = Desk::start(|_| openai("near", "http://127.0.0.1:9", "")).await;
    let turn = json!([{ "role": "user", "content": "hello" }]);
    let mut nested = json!(1);
    for _ in 0..200 {
        nested = json!([nested]);
    }
    for (case, path, body) in [
        ("no model", "/v1/chat/completions", json!({ "messages": turn })),
        ("no turns", "/v1/chat/completions", json!({ "model": "near", "messages": [] })),
        (
            "a field of nobody's",
            "/v1/chat/completions",
            json!({ "model": "near", "messages": turn, "colour": 1 }),
        ),
        ("deep", "/v1/chat/completions", json!({ "model": "near", "messages": nested })),
        ("no prompt", "/v1/completions", json!({ "model": "near" })),
        ("no input", "/v1/responses", json!({ "model": "near" })),
        ("no texts", "/v1/embeddings", json!({ "model": "near", "input": [] })),
    ] {
        let reply = desk.post(path, &body, &[]).await;
        assert_eq!(reply.status, 400, "{case}: {}", reply.text);
        assert_eq!(reply.json()["error"]["type"], "invalid_request_error", "{case}");
        assert!(reply.headers.contains_key("x-request-id"), "{case}");
    }
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30));
    let http = http.build().unwrap();
    let url = format!("{}/v1/chat/completions", desk.url);
    for (case, kind, body, status) in [
        ("no JSON", "application/json", "{\"model\":".to_owned(), 400),
        ("a form", "application/x-www-form-urlencoded", "model=near".to_owned(), 415),
        ("too large", "application/json", " ".repeat(21 << 20), 413),
    ] {
        let request = http.post(&url).header("content-type", kind).body(body);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{case}");
        let error: serde_json::Value = response.json().await.unwrap();
        assert!(error["error"]["message"].is_string(), "{case}: {error}");
    }
}
