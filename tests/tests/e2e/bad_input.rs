//! Bad input gets a clear error and changes nothing.

use std::io::{Cursor, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use holdfast_tests::client::Client;
use holdfast_tests::node::Node;
use holdfast_tests::site::{Agent, DEVICE, bundles, start_agent, start_agent_with};
use reqwest::StatusCode;

async fn device(dir: &std::path::Path) -> Node {
    let bundles = bundles(&["voice-commands", "part-inspection"]);
    let agent = Agent { name: DEVICE, bundles, site: None, broker: None };
    start_agent(super::program(), dir, &agent).await.unwrap()
}

fn wav() -> Vec<u8> {
    super::sample("voice-commands", |_| true)
}

fn jpeg() -> Vec<u8> {
    super::sample("part-inspection", |name| name.ends_with(".jpg"))
}

/// A WAV header that promises `seconds` of audio and has none.
fn hollow_wav(seconds: u32) -> Vec<u8> {
    let data = seconds * 32_000;
    let mut bytes = Vec::new();
    for part in [&b"RIFF"[..], &(36 + data).to_le_bytes(), b"WAVEfmt ", &16_u32.to_le_bytes()] {
        bytes.extend_from_slice(part);
    }
    for part in
        [&[1, 0, 1, 0][..], &16_000_u32.to_le_bytes(), &32_000_u32.to_le_bytes(), &[2, 0, 16, 0]]
    {
        bytes.extend_from_slice(part);
    }
    bytes.extend_from_slice(b"data");
    bytes.extend_from_slice(&data.to_le_bytes());
    bytes
}

/// A PNG of a few bytes that says it is 60,000 by 60,000 pixels.
fn bomb() -> Vec<u8> {
    let mut small = Cursor::new(Vec::new());
    image::RgbImage::new(1, 1).write_to(&mut small, image::ImageFormat::Png).unwrap();
    let mut bytes = small.into_inner();
    bytes[16..20].copy_from_slice(&60_000_u32.to_be_bytes());
    bytes[20..24].copy_from_slice(&60_000_u32.to_be_bytes());
    let crc = crc32(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// The CRC of PNG chunks (ISO 3309).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

#[tokio::test]
async fn every_bad_request_is_refused_with_a_problem_and_the_agent_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let device = device(dir.path()).await;
    let client = Client::new(device.address("api").unwrap()).unwrap();
    let voice = "voice-commands";
    let parts = "part-inspection";
    let cut = |bytes: Vec<u8>, keep: usize| bytes[..keep.min(bytes.len())].to_vec();
    for (case, task, body, terms, want) in [
        ("unknown task", "make-coffee", wav(), &[][..], 404),
        ("a task that is no name", "..%2F..%2Fetc", wav(), &[], 404),
        ("empty body", voice, vec![], &[], 422),
        ("not a medium at all", voice, b"hello".to_vec(), &[], 415),
        ("a picture for the voice task", voice, jpeg(), &[], 415),
        ("a recording for the vision task", parts, wav(), &[], 415),
        ("a type that the bytes are not", voice, wav(), &[("content-type", "image/png")], 415),
        ("a type that nobody takes", voice, wav(), &[("content-type", "text/csv")], 415),
        ("WAV cut in its header", voice, cut(wav(), 20), &[], 422),
        ("WAV that promises more than it has", voice, hollow_wav(10), &[], 422),
        ("WAV that promises a day", voice, hollow_wav(86_400), &[], 422),
        ("JPEG cut in its header", parts, cut(jpeg(), 200), &[], 422),
        ("decompression bomb", parts, bomb(), &[], 422),
        ("unknown class", voice, wav(), &[("holdfast-class", "secret")], 400),
        ("priority out of range", voice, wav(), &[("holdfast-priority", "11")], 400),
        ("deadline that is no number", voice, wav(), &[("holdfast-deadline-ms", "soon")], 400),
        ("key with a space", voice, wav(), &[("idempotency-key", "a b")], 400),
        ("body over the limit", voice, vec![0; 21 << 20], &[], 413),
    ] {
        let (status, text) = client.post(task, body, terms).await.unwrap();
        assert_eq!(status.as_u16(), want, "{case}: {text}");
        let problem: serde_json::Value = serde_json::from_str(&text).expect(case);
        assert_eq!(problem["status"], want, "{case}");
        assert!(
            problem["detail"].as_str().is_some_and(|detail| detail.len() > 10),
            "{case}: {text}"
        );
        assert!(problem["code"].is_string(), "{case}: {text}");
    }
    for (task, body) in [(voice, wav()), (parts, jpeg())] {
        client.ask(task, body, &[]).await.expect("the agent goes on");
    }
}

#[tokio::test]
async fn a_task_that_nobody_names_does_not_wait_for_somebody_who_knows_it() {
    let dir = tempfile::tempdir().unwrap();
    let bundles = bundles(&["voice-commands"]);
    let agent = Agent { name: DEVICE, bundles, site: None, broker: None };
    let site = "name = \"site\"\nzone = \"site\"\nurl = \"http://127.0.0.1:9\"";
    let other = site.replace("\"site\"\nz", "\"other\"\nz") + "\ntasks = [\"part-inspection\"]";
    let toml =
        agent.toml(dir.path()) + &format!("\n[[destination]]\n{site}\n[[destination]]\n{other}\n");
    let device = start_agent_with(super::program(), dir.path(), DEVICE, &toml).await.unwrap();
    let client = Client::new(device.address("api").unwrap()).unwrap();
    for (task, want) in [("voice-comands", 404), ("part-inspection", 202)] {
        let (status, text) = client.post(task, jpeg(), &[]).await.unwrap();
        assert_eq!(status.as_u16(), want, "{task}: {text}");
    }
}

#[tokio::test]
async fn one_key_is_one_request() {
    let dir = tempfile::tempdir().unwrap();
    let mut device = device(dir.path()).await;
    let client = Client::new(device.address("api").unwrap()).unwrap();
    let key = [("idempotency-key", "shift-1-part-9")];
    let first = client.ask("voice-commands", wav(), &key).await.unwrap();
    let again = client.ask("voice-commands", wav(), &key).await.unwrap();
    assert_eq!((&first.id, &first.answer), (&again.id, &again.answer));
    let (status, text) = client.post("part-inspection", jpeg(), &key).await.unwrap();
    assert_eq!(status, StatusCode::CONFLICT, "{text}");
    // The answer outlives the process.
    device.kill().unwrap();
    let device = self::device(dir.path()).await;
    let client = Client::new(device.address("api").unwrap()).unwrap();
    let later = client.ask("voice-commands", wav(), &key).await.unwrap();
    assert_eq!((&first.id, &first.answer), (&later.id, &later.answer));
}

#[tokio::test]
async fn a_body_that_stops_halfway_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let device = device(dir.path()).await;
    let address = device.address("api").unwrap();
    let mut cut = TcpStream::connect(address).unwrap();
    cut.write_all(
        b"POST /v1/tasks/voice-commands HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9999\r\n\r\nRIFF",
    )
    .unwrap();
    let client = Client::new(address).unwrap();
    client.ask("voice-commands", wav(), &[]).await.expect("others are served meanwhile");
    cut.shutdown(std::net::Shutdown::Write).unwrap();
    cut.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut reply = Vec::new();
    cut.read_to_end(&mut reply).unwrap();
    let reply = String::from_utf8_lossy(&reply);
    assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 400"), "{reply}");
}

#[tokio::test]
async fn connections_that_do_nothing_are_closed() {
    let dir = tempfile::tempdir().unwrap();
    let agent =
        Agent { name: DEVICE, bundles: bundles(&["voice-commands"]), site: None, broker: None };
    let limits = "[api]\nmax_connections = 8\nheader_timeout_ms = 500\n";
    let toml = agent.toml(dir.path()).replace("[api]\n", limits);
    let device = start_agent_with(super::program(), dir.path(), DEVICE, &toml).await.unwrap();
    let address = device.address("api").unwrap();
    let mut idle: Vec<TcpStream> = (0..7).map(|_| TcpStream::connect(address).unwrap()).collect();
    for stream in &mut idle {
        stream.write_all(b"POST /v1/tasks/voice-commands HTTP/1.1\r\nHost: localhost\r\n").unwrap();
    }
    let client = Client::new(address).unwrap();
    client.ask("voice-commands", wav(), &[]).await.expect("others are served meanwhile");
    for stream in &mut idle {
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.read_to_end(&mut Vec::new()).expect("closed, not left open");
    }
}
