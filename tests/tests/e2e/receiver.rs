//! Somebody who takes webhooks, over bare sockets, so that a test decides every answer.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use holdfast_agent::results::signature;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

/// What the receiver does with a post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Takes it.
    Take,
    /// Takes it, and the connection breaks before it says so.
    TakeAndBreak,
    /// Answers with a status and does not take it.
    Refuse(u16),
}

/// One post whose signature was right.
#[derive(Debug, Clone)]
pub(super) struct Post {
    pub(super) id: String,
    pub(super) body: Value,
    pub(super) answer: Answer,
}

/// A receiver that runs.
pub(super) struct Receiver {
    pub(super) address: SocketAddr,
    script: Arc<Mutex<Script>>,
}

struct Script {
    secret: String,
    /// The first answers, in their order.
    first: Vec<Answer>,
    /// What follows.
    then: Answer,
    posts: Vec<Post>,
    faults: Vec<String>,
}

impl Receiver {
    /// Listens on a free port.
    pub(super) async fn start(secret: &str, first: &[Answer], then: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut first = first.to_vec();
        first.reverse();
        let (secret, posts, faults) = (secret.to_owned(), Vec::new(), Vec::new());
        let script = Arc::new(Mutex::new(Script { secret, first, then, posts, faults }));
        let for_all = script.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, for_all.clone()));
            }
        });
        Self { address, script }
    }

    /// From now on it does this.
    pub(super) fn set(&self, then: Answer) {
        let mut script = self.script.lock().unwrap();
        script.first.clear();
        script.then = then;
    }

    /// Every post so far.
    pub(super) fn posts(&self) -> Vec<Post> {
        let script = self.script.lock().unwrap();
        assert_eq!(script.faults, Vec::<String>::new(), "posts that are not as they must be");
        script.posts.clone()
    }

    /// What it took: the ids in the order in which each was taken first.
    pub(super) fn taken(&self) -> Vec<String> {
        let mut ids = Vec::new();
        for post in self.posts() {
            if !matches!(post.answer, Answer::Refuse(_)) && !ids.contains(&post.id) {
                ids.push(post.id);
            }
        }
        ids
    }

    /// Waits until the posts are as `wanted`.
    pub(super) async fn until(&self, what: &str, wanted: impl Fn(&Self) -> bool) {
        let until = Instant::now() + super::SOON;
        while !wanted(self) {
            assert!(Instant::now() < until, "waited in vain for {what}: {:?}", self.posts());
            sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

/// One connection to its end.
async fn serve(mut stream: TcpStream, script: Arc<Mutex<Script>>) {
    let mut bytes = Vec::new();
    loop {
        let Some((headers, body)) = read(&mut stream, &mut bytes).await else { return };
        let answer = script.lock().unwrap().take(&headers, &body);
        let status = match answer {
            Answer::TakeAndBreak => return,
            Answer::Take => 204,
            Answer::Refuse(status) => status,
        };
        let head = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n");
        if stream.write_all(head.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read(
    stream: &mut TcpStream,
    bytes: &mut Vec<u8>,
) -> Option<(HashMap<String, String>, Vec<u8>)> {
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
            assert!(head.starts_with("POST /results HTTP/1.1"), "{head}");
            let headers: HashMap<_, _> = head
                .lines()
                .skip(1)
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
                .collect();
            let length: usize = headers.get("content-length")?.parse().ok()?;
            if bytes.len() >= end + 4 + length {
                let body = bytes[end + 4..end + 4 + length].to_vec();
                bytes.drain(..end + 4 + length);
                return Some((headers, body));
            }
        }
        if stream.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
    }
}

impl Script {
    fn take(&mut self, headers: &HashMap<String, String>, body: &[u8]) -> Answer {
        let answer = self.first.pop().unwrap_or(self.then);
        let header = |name: &str| headers.get(name).cloned().unwrap_or_default();
        let (id, at) = (header("webhook-id"), header("webhook-timestamp"));
        let key = signature::key(&self.secret).unwrap();
        let signed = signature::sign(&key, &id, at.parse().unwrap_or(0), body);
        if header("webhook-signature") != signed {
            self.faults.push(format!("{headers:?} is not signed with {signed}"));
        }
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        if body["id"] != *id || header("content-type") != "application/json" {
            self.faults.push(format!("{headers:?} with {body}"));
        }
        self.posts.push(Post { id, body, answer });
        answer
    }
}
