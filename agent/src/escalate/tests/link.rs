//! The link as sends and probes see it.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::super::fakes::{Fake, Raw, Recorder, Then};
use super::super::link::LinkState;
use super::super::{Method, ask_agent, probe};
use super::{PLENTY, destination, escalator, request, send};
use crate::destination::Protocol;
use crate::request::DataClass;

#[tokio::test]
async fn while_the_link_is_down_a_send_is_refused_at_once_and_a_probe_brings_it_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let destination = destination(Protocol::Holdfast, format!("http://{address}"));
    let escalator = Arc::new(escalator(&destination));
    let request = request(DataClass::Internal);
    let cancel = CancellationToken::new();
    let mut links = escalator.links();
    let story = async {
        links.wait_for(|states| states.get("site").is_down()).await.unwrap();
        // Nobody listens; with this destination's 20 s timeouts only a refusal can be this quick.
        let refused = send(&escalator, &destination, &request);
        let error = tokio::time::timeout(Duration::from_secs(1), refused).await.unwrap();
        assert_eq!(error.unwrap_err().code(), "link_down");
        let listener = TcpListener::bind(address).await.unwrap();
        let router = axum::Router::new(); // answers 404 to everything: an answer all the same
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        links.wait_for(|states| states.get("site") == LinkState::Up).await.unwrap();
        assert!(escalator.is_reachable("site"));
        server.abort();
        cancel.cancel();
    };
    let (ended, ()) = tokio::join!(
        tokio::time::timeout(PLENTY, escalator.clone().probe_task(cancel.clone())),
        story
    );
    ended.expect("the probes end when they are cancelled");
}

#[tokio::test]
async fn a_link_in_doubt_is_probed_and_a_link_that_is_up_is_not() {
    let fake = Fake::holdfast(vec![], None).await;
    let destination = destination(Protocol::Holdfast, fake.url.clone());
    let escalator = Arc::new(escalator(&destination));
    let mut links = escalator.links();
    let cancel = CancellationToken::new();
    let story = async {
        links.wait_for(|states| states.get("site") == LinkState::Up).await.unwrap();
        // A send gets an answer (of the wrong kind), and the link stays up without a probe.
        assert!(send(&escalator, &destination, &request(DataClass::Internal)).await.is_err());
        cancel.cancel();
    };
    tokio::join!(escalator.clone().probe_task(cancel.clone()), story);
    let seen = fake.seen();
    let probes: Vec<_> = seen.iter().filter(|seen| seen.what == "GET /healthz").collect();
    assert_eq!(probes.len(), 1);
    assert!(probes[0].body.is_empty() && !probes[0].headers.contains_key("authorization"));
}

#[tokio::test]
async fn setting_up_and_a_refused_send_open_no_connection() {
    let recorder = Recorder::new().await;
    let destination = destination(Protocol::Holdfast, recorder.url.clone());
    let escalator = Arc::new(escalator(&destination));
    escalator.links.note("site", super::super::link::Event::Unreachable);
    let error = send(&escalator, &destination, &request(DataClass::Internal)).await.unwrap_err();
    assert_eq!(error.code(), "link_down");
    assert_eq!(recorder.connections(), 0);
}

#[tokio::test]
async fn a_single_probe_tells_who_is_there() {
    let fake = Fake::holdfast(vec![], None).await;
    let there = destination(Protocol::Holdfast, fake.url.clone());
    probe(&there, PLENTY).await.unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let gone = destination(Protocol::Holdfast, format!("http://{nobody}"));
    let error = probe(&gone, PLENTY).await.unwrap_err().to_string();
    assert!(error.starts_with("site does not answer: "), "{error}");
    let recorder = Recorder::new().await;
    let mute = destination(Protocol::Holdfast, recorder.url.clone());
    let error = probe(&mute, Duration::from_millis(50)).await.unwrap_err().to_string();
    assert!(error.ends_with("nothing within 50 ms"), "{error}");
}

#[tokio::test]
async fn the_local_agent_is_read_and_anything_else_is_named() {
    let page = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{\"n\":\"x\"}".to_vec();
    let body = b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{\"n\":7}".to_vec();
    let busy = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n".to_vec();
    for (case, bytes, want) in [
        ("an agent", body, Ok(7)),
        ("another program", page, Err("is not what an agent of this version says")),
        ("a busy agent", busy, Err("status 503")),
        ("one that says nothing", vec![], Err("took the connection and gave no whole answer")),
    ] {
        let raw = Raw::new(bytes, Then::Close).await;
        let url = format!("{}/v1/requests", raw.url());
        let got = ask_agent::<std::collections::BTreeMap<String, u8>>(Method::Get, &url).await;
        match (got, want) {
            (Ok(got), Ok(want)) => assert_eq!(got["n"], want, "{case}"),
            (Err(error), Err(want)) => assert!(error.to_string().contains(want), "{case}: {error}"),
            (got, want) => panic!("{case}: {got:?}, not {want:?}"),
        }
    }
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let got = ask_agent::<u8>(Method::Get, &format!("http://{closed}/v1/requests")).await;
    let said = got.unwrap_err().to_string();
    assert!(said.contains("is it running?"), "{said}");
}
