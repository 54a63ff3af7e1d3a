//! One connection of the load in gRPC: HTTP/2 as it stands on the wire, with nothing that one small
//! call after the other does not need.
//!
//! **Invariant:** an answer that is counted brought a message, and its stream ended in good order.

use anyhow::{bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Frames of HTTP/2 (RFC 9113, section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
/// Flags: the end of a stream, an acknowledgement, the end of the headers.
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
/// Length, kind, flags and stream of a frame.
const HEAD: usize = 9;
/// What a connection may be sent before it says more.
const WINDOW: u32 = 65_535;
/// The largest frame that everybody takes.
const LARGEST: usize = 16_384;

pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
    /// Headers and message; the number of the stream stands in both.
    call: Vec<u8>,
    message_at: usize,
    number: u32,
}

impl Connection {
    pub(crate) async fn open(
        mut stream: TcpStream,
        path: &str,
        message: &[u8],
    ) -> anyhow::Result<Self> {
        let length = u32::try_from(message.len())?;
        ensure!(message.len() + 5 <= LARGEST, "only a small message is sent here");
        let mut begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        frame(&mut begin, SETTINGS, 0, &[]);
        frame(&mut begin, WINDOW_UPDATE, 0, &(u32::MAX / 2 - WINDOW).to_be_bytes());
        stream.write_all(&begin).await?;
        let mut call = Vec::new();
        frame(&mut call, HEADERS, END_HEADERS, &headers(path)?);
        let message_at = call.len();
        let data = [&[0], &length.to_be_bytes()[..], message].concat();
        frame(&mut call, DATA, END_STREAM, &data);
        Ok(Self { stream, buffer: vec![0; 64 << 10], filled: 0, call, message_at, number: 1 })
    }

    /// Calls and waits for the answer; returns the length of its message.
    pub(crate) async fn ask(&mut self) -> anyhow::Result<usize> {
        let number = self.number.to_be_bytes();
        self.number += 2;
        for at in [0, self.message_at] {
            if let Some(place) = self.call.get_mut(at + 5..at + HEAD) {
                place.copy_from_slice(&number);
            }
        }
        self.stream.write_all(&self.call).await?;
        let mut got = 0;
        loop {
            let (kind, flags, payload) = self.frame().await?;
            match kind {
                DATA => got += payload.len(),
                SETTINGS | PING if flags & ACK == 0 => {
                    let mut answer = Vec::new();
                    let echoed = if kind == PING { &payload[..] } else { &[] };
                    frame(&mut answer, kind, ACK, echoed);
                    self.stream.write_all(&answer).await?;
                }
                SETTINGS | PING | WINDOW_UPDATE | HEADERS => {}
                _ => bail!("the call was broken off (frame {kind})"),
            }
            if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                ensure!(got > 5, "the call brought no message");
                return Ok(got - 5);
            }
        }
    }

    /// The next frame: its kind, its flags and its payload.
    async fn frame(&mut self) -> anyhow::Result<(u8, u8, Vec<u8>)> {
        loop {
            let read = self.buffer.get(..self.filled).unwrap_or_default();
            if let Some(([a, b, c, kind, flags], _)) = read.split_first_chunk() {
                let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
                if let Some(payload) = read.get(HEAD..HEAD + length) {
                    let frame = (*kind, *flags, payload.to_vec());
                    self.buffer.copy_within(HEAD + length..self.filled, 0);
                    self.filled -= HEAD + length;
                    return Ok(frame);
                }
            }
            let room = self.buffer.get_mut(self.filled..).unwrap_or_default();
            let got = self.stream.read(room).await?;
            ensure!(got > 0, "the connection was closed, or a frame is too long");
            self.filled += got;
        }
    }
}

/// A frame; its stream is written in later.
fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags, 0, 0, 0, 0]);
    out.extend_from_slice(payload);
}

/// The headers of a call (RFC 7541): those with a place in the static table by that, all as they are.
fn headers(path: &str) -> anyhow::Result<Vec<u8>> {
    /// `:method: POST` and `:scheme: http`
    const POST_HTTP: [u8; 2] = [0x83, 0x86];
    const PATH: &[u8] = &[4];
    const AUTHORITY: &[u8] = &[1];
    /// Place 31, in two bytes.
    const CONTENT_TYPE: &[u8] = &[15, 16];
    const TE: &[u8] = b"\x00\x02te";
    let mut out = POST_HTTP.to_vec();
    for (name, value) in [
        (PATH, path),
        (AUTHORITY, "localhost"),
        (CONTENT_TYPE, "application/grpc"),
        (TE, "trailers"),
    ] {
        out.extend_from_slice(name);
        let length = u8::try_from(value.len())?;
        ensure!(length < 127, "a header is too long");
        out.push(length);
        out.extend_from_slice(value.as_bytes());
    }
    Ok(out)
}
