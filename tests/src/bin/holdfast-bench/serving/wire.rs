//! One connection of the load: HTTP/1.1 as it stands on the wire, so that the client costs next to
//! nothing beside what it measures.
//!
//! **Invariant:** every answer that is counted was read whole and said 200.

use std::net::SocketAddr;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::grpc;

/// A request that is sent again and again.
#[derive(Clone)]
pub(crate) enum Question {
    /// HTTP/1.1: the whole request.
    Http(Vec<u8>),
    /// gRPC: the path of the method, and the message.
    Grpc(&'static str, Vec<u8>),
}

/// A POST of these bytes.
pub(crate) fn post(path: &str, headers: &[(&str, &str)], body: &[u8]) -> Question {
    let mut head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("content-length: {}\r\n\r\n", body.len());
    Question::Http([head.as_bytes(), body].concat())
}

/// A connection that is kept.
pub(crate) enum Connection {
    Http(Http),
    Grpc(grpc::Connection),
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr, question: &Question) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(match question {
            Question::Http(_) => Self::Http(Http { stream, buffer: vec![0; 64 << 10] }),
            Question::Grpc(path, message) => {
                Self::Grpc(grpc::Connection::open(stream, path, message).await?)
            }
        })
    }

    /// Asks and waits for the answer; returns the length of its body.
    pub(crate) async fn ask(&mut self, question: &Question) -> anyhow::Result<usize> {
        match (self, question) {
            (Self::Http(http), Question::Http(request)) => http.ask(request).await,
            (Self::Grpc(grpc), Question::Grpc(..)) => grpc.ask().await,
            _ => bail!("the connection speaks another protocol"),
        }
    }
}

pub(crate) struct Http {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Http {
    async fn ask(&mut self, request: &[u8]) -> anyhow::Result<usize> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        let head = loop {
            filled += self.more(filled).await?;
            if let Some(at) = find(self.read(filled), b"\r\n\r\n") {
                break at + 4;
            }
        };
        let text = std::str::from_utf8(self.read(head))?;
        let length = text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
        });
        let length = length.context("an answer without a length")??;
        let is_ok = text.get(9..12) == Some("200");
        self.buffer.resize(self.buffer.len().max(head + length), 0);
        while filled < head + length {
            filled += self.more(filled).await?;
        }
        ensure!(is_ok, "{}", String::from_utf8_lossy(self.read(filled)));
        ensure!(filled == head + length, "more than an answer came");
        Ok(length)
    }

    fn read(&self, filled: usize) -> &[u8] {
        self.buffer.get(..filled).unwrap_or_default()
    }

    async fn more(&mut self, filled: usize) -> anyhow::Result<usize> {
        let room = self.buffer.get_mut(filled..).unwrap_or_default();
        ensure!(!room.is_empty(), "an answer whose head has no end");
        let got = self.stream.read(room).await?;
        ensure!(got > 0, "the connection was closed");
        Ok(got)
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}
