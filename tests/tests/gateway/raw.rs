//! Servers without manners: they read a request whole and then write what they were told, as it is.
//!
//! **Invariant:** what is counted is counted before anything is written.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Between two parts: what is there by then was read.
const PAUSE: Duration = Duration::from_millis(200);

/// What follows the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// Ends the connection in order.
    Close,
    /// Ends it with a reset.
    Reset,
    /// Keeps it open and says nothing more.
    Stall,
    /// Writes for ever.
    Flood,
}

/// A server on a port of its own; it ends when it is dropped.
pub(crate) struct Raw {
    pub(crate) url: String,
    asked: Arc<AtomicUsize>,
    left: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Raw {
    pub(crate) async fn start(bytes: impl Into<Vec<u8>>, then: Then) -> Self {
        Self::in_two(bytes, Vec::new(), then).await
    }

    /// One that writes the second part when the first is long there.
    pub(crate) async fn in_two(
        first: impl Into<Vec<u8>>,
        second: impl Into<Vec<u8>>,
        then: Then,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (asked, left) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let parts = [first.into(), second.into()];
        let counts = (asked.clone(), left.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(misbehave(stream, parts.clone(), then, counts.clone()));
            }
        });
        Self { url, asked, left, task }
    }

    /// Requests that came whole.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Waits until so many came; false if they do not.
    pub(crate) async fn is_asked(&self, times: usize, within: Duration) -> bool {
        let until = tokio::time::Instant::now() + within;
        while self.asked() < times && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.asked() >= times
    }

    /// Connections that the other side has ended by now.
    pub(crate) fn left(&self) -> usize {
        self.left.load(Ordering::SeqCst)
    }

    /// Whether the other side ends so many connections in time.
    pub(crate) async fn is_left(&self, times: usize, within: Duration) -> bool {
        let until = tokio::time::Instant::now() + within;
        while self.left() < times && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.left() >= times
    }
}

async fn misbehave(
    mut stream: TcpStream,
    [first, second]: [Vec<u8>; 2],
    then: Then,
    (asked, left): (Arc<AtomicUsize>, Arc<AtomicUsize>),
) {
    let Some(is_post) = read_request(&mut stream).await else { return };
    if !is_post {
        // What only looks whether anybody is there is told so.
        let told = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        drop(stream.write_all(told).await);
        return;
    }
    asked.fetch_add(1, Ordering::SeqCst);
    if stream.write_all(&first).await.is_err() {
        return;
    }
    if !second.is_empty() {
        tokio::time::sleep(PAUSE).await;
        if stream.write_all(&second).await.is_err() {
            return;
        }
    }
    match then {
        Then::Close => stream.shutdown().await.unwrap_or_default(),
        Then::Reset => drop(stream.set_zero_linger()),
        Then::Stall => {
            let mut rest = [0; 64];
            // Nobody says anything more until the connection ends.
            if !stream.read(&mut rest).await.is_ok_and(|read| read > 0) {
                left.fetch_add(1, Ordering::SeqCst);
            }
        }
        Then::Flood => {
            let piece = format!("data: {}\n\n", " ".repeat(16 * 1024));
            while stream.write_all(piece.as_bytes()).await.is_ok() {}
        }
    }
}

/// Reads a whole request; whether it is a post.
pub(crate) async fn read_request(stream: &mut TcpStream) -> Option<bool> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&buffer[..read]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        if bytes.len() >= end + 4 + length {
            return Some(head.starts_with("post"));
        }
    }
}
