//! A server that says the rest of its answer when it is told to.
//!
//! **Invariant:** what is counted is counted before anything is written.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::raw::read_request;

/// A server on a port of its own; it ends when it is dropped.
pub(crate) struct Gate {
    pub(crate) url: String,
    open: watch::Sender<bool>,
    asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Gate {
    /// One that writes `first` at once and `rest` when it is open.
    pub(crate) async fn start(first: Vec<u8>, rest: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (open, asked) = (watch::Sender::new(false), Arc::<AtomicUsize>::default());
        let (door, count) = (open.subscribe(), asked.clone());
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (mut door, count) = (door.clone(), count.clone());
                let (first, rest) = (first.clone(), rest.clone());
                tokio::spawn(async move {
                    if read_request(&mut stream).await != Some(true) {
                        // What only looks whether anybody is there is told so.
                        drop(stream.write_all(&response(404, "{}")).await);
                        return;
                    }
                    count.fetch_add(1, Ordering::SeqCst);
                    drop(stream.write_all(&first).await);
                    if door.wait_for(|open| *open).await.is_ok() {
                        drop(stream.write_all(&rest).await);
                        drop(stream.shutdown().await);
                    }
                });
            }
        });
        Self { url, open, asked, task }
    }

    /// One whose answer has these words.
    pub(crate) async fn saying(words: &str) -> Self {
        Self::start(Vec::new(), response(200, &body(words))).await
    }

    pub(crate) fn open(&self) {
        self.open.send_replace(true);
    }

    /// Requests that came whole.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Waits until so many came.
    pub(crate) async fn is_asked(&self, times: usize) {
        while self.asked() < times {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// A completion with these words.
pub(crate) fn body(words: &str) -> String {
    format!(
        "{{\"id\":\"c\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"m\",\"choices\":[{{\
         \"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":\"{words}\"}},\
         \"finish_reason\":\"stop\"}}],\"usage\":{{\"prompt_tokens\":1,\"completion_tokens\":1,\
         \"total_tokens\":2}}}}"
    )
}

/// A whole response of JSON.
pub(crate) fn response(status: u16, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} Said\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{body}"
    )
    .into_bytes()
}
