//! One connection of the load: HTTP/1.1 as it stands on the wire, whatever way the length of the body is
//! told, so that the client costs next to nothing beside what it measures.
//!
//! **Invariant:** every answer that is counted was read to its end and said 200.

use std::net::SocketAddr;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The longest line of a chunk's length, and the longest head.
const MAX_HEAD: usize = 16 << 10;

/// A POST of JSON with these headers.
pub(crate) fn post(path: &str, headers: &[(String, String)], body: &str) -> Vec<u8> {
    let mut head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    (head + "\r\n" + body).into_bytes()
}

/// A connection that is kept, or opened again where the server closed it between two requests.
pub(crate) struct Caller {
    address: SocketAddr,
    stream: TcpStream,
    /// What was received and not looked at yet.
    received: Vec<u8>,
    room: Vec<u8>,
}

/// How the end of a body is told.
enum End {
    Length(usize),
    Chunks,
}

impl Caller {
    pub(crate) async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = connected(address).await?;
        Ok(Self { address, stream, received: Vec::new(), room: vec![0; 64 << 10] })
    }

    /// Asks, and gives each piece of the answer's body to `piece` as it comes.
    pub(crate) async fn ask(
        &mut self,
        request: &[u8],
        mut piece: impl FnMut(&[u8]),
    ) -> anyhow::Result<()> {
        if self.begin(request).await.is_err() {
            self.stream = connected(self.address).await?;
            self.begin(request).await?;
        }
        let head = self.line_up_to(b"\r\n\r\n").await?;
        let head = String::from_utf8(head)?;
        let end = end(&head)?;
        let is_ok = head.get(9..12) == Some("200");
        if !is_ok {
            let mut told = Vec::new();
            self.body(end, |bytes| told.extend_from_slice(bytes)).await?;
            bail!("{head}{}", String::from_utf8_lossy(&told));
        }
        self.body(end, |bytes| piece(bytes)).await
    }

    /// Sends the request, and waits for the first bytes of its answer.
    async fn begin(&mut self, request: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(request).await?;
        self.more().await
    }

    async fn body(&mut self, end: End, mut piece: impl FnMut(&[u8])) -> anyhow::Result<()> {
        let End::Length(length) = end else { return self.chunks(piece).await };
        self.exactly(length, &mut piece).await?;
        ensure!(self.received.is_empty(), "more than an answer came");
        Ok(())
    }

    async fn chunks(&mut self, mut piece: impl FnMut(&[u8])) -> anyhow::Result<()> {
        loop {
            let line = self.line_up_to(b"\r\n").await?;
            let line = std::str::from_utf8(&line)?;
            let digits = line.split([';', '\r']).next().unwrap_or_default();
            let length = usize::from_str_radix(digits.trim(), 16)
                .with_context(|| format!("no length of a chunk: {line:?}"))?;
            if length == 0 {
                while self.line_up_to(b"\r\n").await? != b"\r\n" {}
                ensure!(self.received.is_empty(), "more than an answer came");
                return Ok(());
            }
            self.exactly(length, &mut piece).await?;
            ensure!(self.line_up_to(b"\r\n").await? == b"\r\n", "a chunk is longer than it says");
        }
    }

    async fn exactly(
        &mut self,
        mut left: usize,
        piece: &mut impl FnMut(&[u8]),
    ) -> anyhow::Result<()> {
        loop {
            let here = left.min(self.received.len());
            if here > 0 {
                piece(self.received.get(..here).unwrap_or_default());
                self.received.drain(..here);
                left -= here;
            }
            if left == 0 {
                return Ok(());
            }
            self.more().await?;
        }
    }

    /// Everything up to the next of these bytes, and they too.
    async fn line_up_to(&mut self, last: &[u8]) -> anyhow::Result<Vec<u8>> {
        loop {
            let found = self.received.windows(last.len()).position(|window| window == last);
            if let Some(at) = found {
                return Ok(self.received.drain(..at + last.len()).collect());
            }
            ensure!(self.received.len() < MAX_HEAD, "a head without an end");
            self.more().await?;
        }
    }

    async fn more(&mut self) -> anyhow::Result<()> {
        let got = self.stream.read(&mut self.room).await?;
        ensure!(got > 0, "the connection was closed");
        self.received.extend_from_slice(self.room.get(..got).unwrap_or_default());
        Ok(())
    }
}

async fn connected(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn end(head: &str) -> anyhow::Result<End> {
    let header = |wanted: &str| {
        head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim().to_owned())
        })
    };
    if let Some(length) = header("content-length") {
        return Ok(End::Length(length.parse()?));
    }
    let is_chunked =
        header("transfer-encoding").is_some_and(|how| how.eq_ignore_ascii_case("chunked"));
    ensure!(is_chunked, "an answer without a length: {head}");
    Ok(End::Chunks)
}
