//! gRPC calls that are open when the agent is told to stop.

use std::process::Command;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::program;
use super::made::Made;

const SETTINGS: u8 = 4;
const HEADERS: u8 = 1;
const PING: u8 = 6;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), body].concat()
}

/// A header that is not kept in the table of the connection (RFC 7541, 6.2.2).
fn header(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

/// The next frame: its kind, flags and stream.
async fn next(stream: &mut TcpStream) -> Option<(u8, u8, u32)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut body = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut body).await.ok()?;
    let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    Some((head[3], head[4], id))
}

#[tokio::test]
async fn a_call_that_is_open_when_the_agent_stops_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let bundles = dir.path().join("bundles");
    Made::of("table", "1.0.0", 0.25).write(&bundles);
    let text = format!(
        "[device]\nstate_dir = {:?}\n[api]\nlisten = \"127.0.0.1:0\"\ngrpc_listen = \"127.0.0.1:0\"\n\
         [models]\nbundles = [{bundles:?}]\nonnxruntime = \"off\"\ntune = false\n",
        dir.path().join("state")
    );
    let start = holdfast_tests::site::start_agent_with(program(), dir.path(), "agent", &text);
    let mut node = start.await.unwrap();
    let mut stream = TcpStream::connect(node.address("grpc").unwrap()).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    // A call whose message does not come.
    let headers = [
        header(":method", "POST"),
        header(":scheme", "http"),
        header(":path", "/inference.GRPCInferenceService/ModelInfer"),
        header(":authority", "device"),
        header("content-type", "application/grpc"),
        header("te", "trailers"),
    ];
    stream.write_all(&frame(HEADERS, END_HEADERS, 1, &headers.concat())).await.unwrap();
    // Frames are taken in their order: it is under way when what was sent behind it is acknowledged.
    stream.write_all(&frame(PING, 0, 0, &[0; 8])).await.unwrap();
    while next(&mut stream).await.unwrap() != (PING, ACK, 0) {}
    let pid = node.pid().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let mut answered = false;
    while let Some((kind, flags, id)) = next(&mut stream).await {
        answered |= (kind, id) == (HEADERS, 1) && flags & END_STREAM != 0;
    }
    assert!(answered, "the status of the call comes before the connection ends");
    node.stop().await.unwrap();
}
