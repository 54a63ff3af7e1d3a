//! Everything that can go wrong on the wire.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::super::fakes::{Fake, Raw, Recorder, Then};
use super::super::http::LONGEST_RETRY_AFTER;
use super::super::{EscalateError, Escalator, Next, SendError};
use super::{PLENTY, destination, escalator, hints, purse, request, send};
use crate::audit::Audit;
use crate::destination::{Destination, Protocol, Zone};
use crate::policy::Policy;
use crate::request::DataClass;

const RETRY: Next = Next::Retry;

fn head(rest: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{rest}").into_bytes()
}

#[tokio::test]
async fn a_server_without_manners_costs_a_retry_at_most() {
    let huge = format!("content-length: {}\r\n\r\n", u64::from(u32::MAX));
    for (case, bytes, then, code) in [
        ("reset before a word", vec![], Then::Reset, "interrupted"),
        ("closed before a word", vec![], Then::Close, "interrupted"),
        ("not HTTP", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), Then::Close, "interrupted"),
        ("truncated head", b"HTTP/1.1 200 OK\r\ncontent-".to_vec(), Then::Close, "interrupted"),
        ("truncated body", head("content-length: 90\r\n\r\n{\"id\":"), Then::Close, "interrupted"),
        (
            "reset in the body",
            head("content-length: 90\r\n\r\n{\"id\":"),
            Then::Reset,
            "interrupted",
        ),
        ("truncated JSON", head("content-length: 6\r\n\r\n{\"id\":"), Then::Close, "unusable"),
        ("empty body", head("content-length: 0\r\n\r\n"), Then::Close, "unusable"),
        ("endless body", head("\r\n"), Then::Flood, "unusable"),
        ("huge by its own word", head(&huge), Then::Stall, "unusable"),
        ("bad chunk", head("transfer-encoding: chunked\r\n\r\nzz\r\n"), Then::Stall, "interrupted"),
    ] {
        let raw = Raw::new(bytes, then).await;
        let destination = destination(Protocol::Holdfast, raw.url());
        let request = request(DataClass::Internal);
        let error = send(&escalator(&destination), &destination, &request).await.expect_err(case);
        // What is longer than any answer would be so again.
        let is_too_long = case == "endless body" || case == "huge by its own word";
        let next = if is_too_long { Next::NotHere } else { RETRY };
        assert_eq!((error.code(), error.next()), (code, next), "{case}: {error}");
    }
}

#[tokio::test]
async fn a_server_that_stalls_costs_its_timeout() {
    for (case, bytes, code, next) in [
        ("before a word", vec![], "timed_out", RETRY),
        ("in the head", b"HTTP/1.1 200".to_vec(), "timed_out", RETRY),
        ("in the body", head("content-length: 90\r\n\r\n{"), "interrupted", RETRY),
    ] {
        let raw = Raw::new(bytes, Then::Stall).await;
        let mut destination = destination(Protocol::Holdfast, raw.url());
        destination.timeout = Duration::from_millis(300);
        let escalator = escalator(&destination);
        let request = request(DataClass::Internal);
        let error = send(&escalator, &destination, &request).await.expect_err(case);
        assert_eq!((error.code(), error.next()), (code, next), "{case}: {error}");
        assert_eq!(escalator.is_reachable("site"), code != "timed_out", "{case}");
    }
}

#[tokio::test]
async fn a_caller_in_a_hurry_says_little_about_the_link() {
    let raw = Raw::new(vec![], Then::Stall).await;
    let destination = destination(Protocol::Holdfast, raw.url());
    let escalator = escalator(&destination);
    let request = request(DataClass::Internal);
    let cleared = Policy::default().clear(&request, &destination).unwrap();
    let error = escalator.send(cleared, Duration::from_millis(100)).await.unwrap_err();
    assert_eq!((error.code(), error.next()), ("interrupted", RETRY), "{error}");
    assert!(escalator.is_reachable("site"));
}

#[tokio::test]
async fn every_status_is_acted_on_by_its_class() {
    let problem = || json!({ "title": "No", "detail": "not this one" });
    let wait = |after| Next::Later { after: Duration::from_secs(after) };
    let after = |text: &str| vec![("retry-after", text.to_owned())];
    let dated = || {
        let date = ("date", "Fri, 20 Nov 2026 12:00:00 GMT".to_owned());
        vec![("retry-after", "Fri, 20 Nov 2026 12:00:42 GMT".to_owned()), date]
    };
    for (status, headers, code, next) in [
        (400, vec![], "refused", Next::NotHere),
        (401, vec![], "unauthorised", Next::AwaitOperator { after: Duration::from_secs(60) }),
        (402, vec![], "out_of_credit", Next::AwaitOperator { after: Duration::from_secs(60) }),
        (403, vec![], "unauthorised", Next::AwaitOperator { after: Duration::from_secs(60) }),
        (404, vec![], "refused", Next::NotHere),
        (408, vec![], "failed", RETRY),
        (409, vec![], "refused", Next::NotHere),
        (413, vec![], "refused", Next::NotHere),
        (422, vec![], "refused", Next::NotHere),
        (429, vec![], "throttled", wait(5)),
        (429, after("17"), "throttled", wait(17)),
        (429, dated(), "throttled", wait(42)),
        (429, after("86400"), "throttled", wait(LONGEST_RETRY_AFTER.as_secs())),
        (500, vec![], "failed", RETRY),
        (502, vec![], "failed", RETRY),
        (503, vec![], "failed", RETRY),
        (503, after("3"), "throttled", wait(3)),
        (507, vec![], "failed", RETRY),
    ] {
        let fake = Fake::holdfast(vec![(status, headers, problem())], None).await;
        let destination = destination(Protocol::Holdfast, fake.url.clone());
        let escalator = escalator(&destination);
        let request = request(DataClass::Internal);
        let error = send(&escalator, &destination, &request).await.unwrap_err();
        assert_eq!((error.code(), error.next()), (code, next), "{status}: {error}");
        assert!(escalator.is_reachable("site"), "{status}: any status is a link that is up");
        if ["refused", "failed"].contains(&code) {
            assert!(error.to_string().contains("not this one"), "{status}: {error}");
        }
    }
}

#[tokio::test]
async fn a_throttled_destination_is_left_alone() {
    let throttle = (429, vec![("retry-after", "60".to_owned())], Value::Null);
    let fake = Fake::holdfast(vec![throttle], None).await;
    let destination = destination(Protocol::Holdfast, fake.url.clone());
    let escalator = escalator(&destination);
    let request = request(DataClass::Internal);
    for _ in 0..3 {
        let error = send(&escalator, &destination, &request).await.unwrap_err();
        assert!(matches!(error, SendError::Throttled { .. }), "{error}");
    }
    assert_eq!(fake.seen().len(), 1);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Recorder::new().await;
    for status in [301, 302, 303, 307, 308] {
        let location = vec![("location", format!("{}/v1/tasks/voice-commands", elsewhere.url))];
        let fake = Fake::holdfast(vec![(status, location, Value::Null)], None).await;
        let destination = destination(Protocol::Holdfast, fake.url.clone());
        let request = request(DataClass::Internal);
        let error = send(&escalator(&destination), &destination, &request).await.unwrap_err();
        assert_eq!((error.code(), error.next()), ("unusable", RETRY), "{status}: {error}");
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn a_page_instead_of_json_is_no_answer() {
    let page =
        b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\n{}".to_vec();
    let raw = Raw::new(page, Then::Close).await;
    let destination = destination(Protocol::Holdfast, raw.url());
    let request = request(DataClass::Internal);
    let error = send(&escalator(&destination), &destination, &request).await.unwrap_err();
    assert_eq!((error.code(), error.next()), ("unusable", RETRY), "{error}");
    assert!(error.to_string().contains("text/html"), "{error}");
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_brings_the_link_down() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let destination = destination(Protocol::Holdfast, url);
    let escalator = escalator(&destination);
    let request = request(DataClass::Internal);
    let first = send(&escalator, &destination, &request).await.unwrap_err();
    let second = send(&escalator, &destination, &request).await.unwrap_err();
    assert_eq!((first.code(), second.code()), ("unreachable", "link_down"));
    assert_eq!((first.next(), second.next()), (Next::AwaitLink, Next::AwaitLink));
}

#[tokio::test]
async fn tls_is_spoken_where_the_url_says_so() {
    // Whoever answers a TLS greeting with plain text is nobody to send data to.
    let raw = Raw::new(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec(), Then::Close).await;
    let destination = destination(Protocol::Holdfast, format!("https://{}", raw.address));
    let escalator = match Escalator::new(
        std::slice::from_ref(&destination),
        hints(),
        purse(),
        Audit::default(),
    ) {
        Ok(escalator) => escalator,
        Err(EscalateError::Setup { cause, .. }) => {
            // A machine without CA certificates; the error has to say so.
            return assert!(cause.contains("CA"), "{cause}");
        }
        Err(error) => panic!("{error}"),
    };
    let request = request(DataClass::Internal);
    let error = send(&escalator, &destination, &request).await.unwrap_err();
    assert!(matches!(error, SendError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn what_the_policy_keeps_here_never_becomes_a_connection() {
    let recorder = Recorder::new().await;
    let mut sent = 0;
    for zone in [Zone::Site, Zone::Private, Zone::Public] {
        let mut destination = destination(Protocol::Holdfast, recorder.url.clone());
        destination.zone = zone;
        let escalator = escalator(&destination);
        for class in DataClass::ALL {
            let request = request(class);
            if let Ok(cleared) = Policy::default().clear(&request, &destination) {
                sent += 1;
                assert_ne!(class, DataClass::Restricted);
                let short = Duration::from_millis(50);
                assert!(escalator.send(cleared, short).await.is_err());
            }
        }
    }
    // Confidential, internal and public to the site; internal and public to private; public.
    assert_eq!(sent, 6);
    assert!(recorder.connections() <= sent, "a connection for what was cleared, at most");
}

#[tokio::test]
async fn a_permission_for_another_address_sends_nothing() {
    let recorder = Recorder::new().await;
    let configured = destination(Protocol::Holdfast, recorder.url.clone());
    let escalator = escalator(&configured);
    let mut other: Destination = configured.clone();
    other.url = "http://127.0.0.1:9".to_owned();
    let mut nearer = configured.clone();
    nearer.zone = Zone::Private;
    for seen in [other, nearer] {
        let error = send(&escalator, &seen, &request(DataClass::Internal)).await.unwrap_err();
        assert!(matches!(error, SendError::NotConfigured { .. }), "{error}");
    }
    assert_eq!(recorder.connections(), 0);
}

#[tokio::test]
async fn no_more_than_its_concurrency_is_under_way_at_a_destination() {
    let raw = Raw::new(vec![], Then::Stall).await;
    let mut destination = destination(Protocol::Holdfast, raw.url());
    destination.concurrency = 1;
    let escalator = escalator(&destination);
    let request = request(DataClass::Internal);
    let policy = Policy::default();
    let cleared = policy.clear(&request, &destination).unwrap();
    let hog = escalator.send(cleared, PLENTY);
    tokio::pin!(hog);
    tokio::select! {
        biased;
        done = &mut hog => panic!("{done:?}"),
        error = escalator.send(cleared, Duration::from_millis(100)) => {
            let error = error.unwrap_err();
            assert_eq!((error.code(), error.next()), ("busy", Next::Later { after: Duration::from_secs(1) }), "{error}");
        }
    }
}

#[test]
fn unfit_destinations_are_refused_with_a_sentence() {
    for (url, shown) in [
        ("ftp://host", "ftp://host"),
        ("host:80", "host:80"),
        ("", "is not an http or https address"),
        ("http://user:secret@host", "its url"),
    ] {
        let destination = destination(Protocol::Holdfast, url.to_owned());
        let error =
            Escalator::new(std::slice::from_ref(&destination), hints(), purse(), Audit::default())
                .unwrap_err()
                .to_string();
        assert!(error.contains(shown) && !error.contains("secret"), "{url}: {error}");
    }
    let twice = destination(Protocol::Holdfast, "http://host".to_owned());
    let error =
        Escalator::new(&[twice.clone(), twice], hints(), purse(), Audit::default()).unwrap_err();
    assert!(matches!(error, EscalateError::Twice { .. }), "{error}");
}
