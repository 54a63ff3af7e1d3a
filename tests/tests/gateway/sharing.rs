//! Sends under way that several wait for.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::cache::{found, rule, settled};
use super::desk::{Desk, Reply, openai};
use super::faults::{PIECE, sse};
use super::gate::{Gate, response};
use super::raw::{Raw, Then};

/// Longer than anything here takes.
const PLENTY: Duration = Duration::from_secs(30);

fn question() -> Value {
    json!({ "model": "near", "messages": [{ "role": "user", "content": "hello" }] })
}

async fn ask(desk: &Desk, terms: &[(&str, &str)]) -> Reply {
    desk.post("/v1/chat/completions", &question(), terms).await
}

async fn behind(gate: &Gate, ttl_s: Option<u32>) -> Desk {
    let rule = ttl_s.map(rule).unwrap_or_default();
    Desk::start(|_| openai("near", &gate.url, "concurrency = 64\n") + &rule).await
}

/// Waits until so many share the sends of others.
async fn are_sharing(desk: &Desk, count: usize) {
    let want = format!("holdfast_cache_lookups_total{{outcome=\"shared\"}} {count}\n");
    let seen = async {
        while !desk.metrics().await.contains(&want) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PLENTY, seen).await.unwrap_or_else(|_| panic!("{}", desk.node.log_tail()));
}

#[tokio::test]
async fn twenty_who_ask_the_same_at_once_share_one_send() {
    let gate = Gate::saying("gated").await;
    let desk = behind(&gate, Some(0)).await;
    let asking = join_all((0..20).map(|_| ask(&desk, &[])));
    let opening = async {
        are_sharing(&desk, 19).await;
        gate.open();
    };
    let (replies, ()) = tokio::join!(asking, opening);
    for reply in &replies {
        assert!(reply.text.contains("gated"), "{}", reply.text);
    }
    let from = |word: &str| replies.iter().filter(|reply| found(reply) == word).count();
    assert_eq!((from("miss"), from("shared"), gate.asked()), (1, 19, 1));
    for reply in replies.iter().filter(|reply| found(reply) == "shared") {
        assert_eq!(reply.headers["holdfast-cost-micros"], "0", "one pays");
    }
    // Nothing is kept with a time to live of nothing.
    assert_eq!((found(&ask(&desk, &[]).await), gate.asked()), ("miss", 2));
    assert!(!desk.state().join("cache").exists());
}

#[tokio::test]
async fn without_a_rule_and_on_other_terms_each_sends_its_own() {
    for (ttl_s, terms) in [
        (None, [&[][..], &[]]),
        (Some(60), [&[][..], &[("holdfast-cost-limit-micros", "5")]]),
        (Some(60), [&[][..], &[("holdfast-class", "internal")]]),
        (Some(60), [&[][..], &[("holdfast-priority", "9")]]),
        (Some(60), [&[][..], &[("cache-control", "no-cache")]]),
        (Some(60), [&[][..], &[("cache-control", "no-store")]]),
    ] {
        let gate = Gate::saying("gated").await;
        let desk = behind(&gate, ttl_s).await;
        let opening = async {
            timeout(PLENTY, gate.is_asked(2)).await.unwrap();
            gate.open();
        };
        let [first, second] = terms;
        let (one, two, ()) = tokio::join!(ask(&desk, first), ask(&desk, second), opening);
        let want = if ttl_s.is_some() { "miss" } else { "" };
        assert_eq!((found(&one), found(&two)), (want, want), "{second:?}");
    }
}

#[tokio::test]
async fn a_failure_is_told_to_all_who_share_it() {
    let error = "{\"error\":{\"message\":\"no\",\"type\":\"invalid_request_error\"}}";
    let gate = Gate::start(Vec::new(), response(400, error)).await;
    let desk = behind(&gate, Some(60)).await;
    let asking = join_all((0..5).map(|_| ask(&desk, &[])));
    let opening = async {
        are_sharing(&desk, 4).await;
        gate.open();
    };
    let (replies, ()) = tokio::join!(asking, opening);
    for reply in replies {
        let told = (reply.status, reply.code());
        assert_eq!(told, (400, "refused_by_destination".to_owned()), "{}", reply.text);
    }
    assert_eq!(gate.asked(), 1);
}

#[tokio::test]
async fn a_send_goes_on_without_its_first_caller_and_ends_with_its_last() {
    let gate = Gate::saying("gated").await;
    let desk = behind(&gate, Some(60)).await;
    let mut first = Box::pin(ask(&desk, &[]));
    tokio::select! {
        reply = &mut first => panic!("{reply:?}"),
        () = gate.is_asked(1) => {}
    }
    let second = ask(&desk, &[]);
    let leaving = async {
        tokio::select! {
            reply = &mut first => panic!("{reply:?}"),
            () = are_sharing(&desk, 1) => {}
        }
        drop(first);
        gate.open();
    };
    let (reply, ()) = tokio::join!(second, leaving);
    assert_eq!((found(&reply), gate.asked()), ("shared", 1), "{}", reply.text);
    assert_eq!(found(&settled(|| ask(&desk, &[])).await), "hit", "and it was kept");

    let silent = Raw::start("", Then::Stall).await;
    let desk = Desk::start(|_| openai("near", &silent.url, "") + &rule(60)).await;
    for (times, is_streamed) in [(1, false), (2, true)] {
        let asking = desk.ask("near", "hello", is_streamed);
        tokio::select! {
            reply = asking => panic!("{reply:?}"),
            is_asked = silent.is_asked(times, PLENTY) => assert!(is_asked, "streamed: {is_streamed}"),
        }
        assert!(silent.is_left(times, PLENTY).await, "streamed: {is_streamed}");
    }
    let stalled = Raw::start(sse(PIECE), Then::Stall).await;
    let desk = Desk::start(|_| openai("near", &stalled.url, "") + &rule(60)).await;
    let mut stream = desk.open("near", "hello").await;
    assert!(timeout(PLENTY, stream.chunk()).await.unwrap().unwrap().is_some());
    assert_eq!(stalled.left(), 0);
    drop(stream);
    assert!(stalled.is_left(1, PLENTY).await, "in the middle of a stream, too");
}

#[tokio::test]
async fn nobody_waits_beyond_its_own_time_and_nobody_ends_with_anothers() {
    let gate = Gate::saying("gated").await;
    let desk = behind(&gate, Some(60)).await;
    // One with less time gives up alone.
    let short = async {
        timeout(PLENTY, gate.is_asked(1)).await.unwrap();
        let reply = ask(&desk, &[("holdfast-deadline-ms", "200")]).await;
        assert_eq!((reply.status, reply.code()), (504, "timed_out".to_owned()), "{}", reply.text);
        assert!(reply.text.contains("the 200 ms that this call waits"), "{}", reply.text);
        gate.open();
    };
    let (long, ()) = tokio::join!(ask(&desk, &[]), short);
    assert_eq!((found(&long), gate.asked()), ("miss", 1));

    // One with more asks for itself when the time of the first is over.
    let gate = Gate::saying("gated").await;
    let desk = behind(&gate, Some(60)).await;
    let first = ask(&desk, &[("holdfast-deadline-ms", "6000")]);
    let second = async {
        timeout(PLENTY, gate.is_asked(1)).await.unwrap();
        ask(&desk, &[("holdfast-deadline-ms", "60000")]).await
    };
    let opening = async {
        timeout(PLENTY, gate.is_asked(2)).await.unwrap();
        gate.open();
    };
    let (first, second, ()) = tokio::join!(first, second, opening);
    assert_eq!((first.status, first.code()), (504, "timed_out".to_owned()), "{}", first.text);
    assert_eq!((found(&second), gate.asked()), ("miss", 2), "{}", second.text);
    assert!(desk.metrics().await.contains("{outcome=\"shared\"} 1\n"), "it had waited");
}

const REST: &str = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\
    \"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" and whole\"},\
    \"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

#[tokio::test]
async fn who_joins_a_stream_hears_it_from_the_beginning() {
    let gate = Gate::start(sse(PIECE), REST.as_bytes().to_vec()).await;
    let desk = behind(&gate, Some(60)).await;
    let mut first = desk.open("near", "hello").await;
    let mut heard = String::new();
    while !heard.contains("half") {
        let chunk = timeout(PLENTY, first.chunk()).await.unwrap().unwrap().unwrap();
        heard += std::str::from_utf8(&chunk).unwrap();
    }
    let mut second = desk.open("near", "hello").await;
    assert_eq!(second.headers()["holdfast-cache"], "shared");
    let mut joined = String::new();
    while !joined.contains("half") {
        let chunk = timeout(PLENTY, second.chunk()).await.unwrap().unwrap().unwrap();
        joined += std::str::from_utf8(&chunk).unwrap();
    }
    // The first one goes, and the second hears the rest.
    drop(first);
    gate.open();
    joined += &timeout(PLENTY, second.text()).await.unwrap().unwrap();
    assert!(joined.contains(" and whole") && joined.ends_with("data: [DONE]\n\n"), "{joined}");
    assert_eq!(gate.asked(), 1);
    let again = settled(|| desk.ask("near", "hello", false)).await;
    assert_eq!(found(&again), "hit", "it came whole");
    assert!(again.text.contains("half and whole"), "{}", again.text);
}

#[tokio::test]
async fn a_question_joins_the_very_same_in_the_other_form() {
    // In one piece, while it comes piece by piece to another one, who then leaves.
    let gate = Gate::start(sse(PIECE), REST.as_bytes().to_vec()).await;
    let desk = behind(&gate, Some(0)).await;
    let mut first = desk.open("near", "hello").await;
    assert_eq!(first.headers()["holdfast-cache"], "miss");
    assert!(timeout(PLENTY, first.chunk()).await.unwrap().unwrap().is_some());
    let opening = async {
        are_sharing(&desk, 1).await;
        drop(first);
        gate.open();
    };
    let (whole, ()) = tokio::join!(desk.ask("near", "hello", false), opening);
    assert_eq!((found(&whole), gate.asked()), ("shared", 1));
    let said = &whole.json()["choices"][0];
    assert_eq!(said["message"]["content"], "half and whole", "{}", whole.text);
    assert_eq!(said["finish_reason"], "stop");
    assert_eq!(whole.headers["holdfast-cost-micros"], "0", "one pays");

    // As a stream, while it comes in one piece.
    let gate = Gate::saying("gated").await;
    let desk = behind(&gate, Some(0)).await;
    let joining = async {
        timeout(PLENTY, gate.is_asked(1)).await.unwrap();
        let opening = async {
            are_sharing(&desk, 1).await;
            gate.open();
        };
        let (stream, ()) = tokio::join!(desk.ask("near", "hello", true), opening);
        stream
    };
    let (whole, stream) = tokio::join!(desk.ask("near", "hello", false), joining);
    assert_eq!((found(&whole), found(&stream), gate.asked()), ("miss", "shared", 1));
    assert!(stream.text.contains("gated"), "{}", stream.text);
    assert!(stream.text.ends_with("data: [DONE]\n\n"), "{}", stream.text);

    // A stream that breaks off is a failure to both.
    let gate = Gate::start(sse(PIECE), Vec::new()).await;
    let desk = behind(&gate, Some(0)).await;
    let mut first = desk.open("near", "hello").await;
    assert!(timeout(PLENTY, first.chunk()).await.unwrap().unwrap().is_some());
    let opening = async {
        are_sharing(&desk, 1).await;
        gate.open();
    };
    let (whole, ()) = tokio::join!(desk.ask("near", "hello", false), opening);
    assert_eq!((whole.status, whole.code().as_str()), (502, "interrupted"), "{}", whole.text);
}

#[tokio::test]
async fn who_wants_it_in_one_piece_asks_itself_when_the_time_of_the_stream_is_over() {
    let gate = Gate::start(sse(PIECE), REST.as_bytes().to_vec()).await;
    let desk = behind(&gate, Some(0)).await;
    let body = json!({ "stream": true, "model": question()["model"], "messages":
        question()["messages"] });
    let short = [("holdfast-deadline-ms", "3000")];
    let mut first = desk.begin("/v1/chat/completions", &body, &short).await;
    assert!(timeout(PLENTY, first.chunk()).await.unwrap().unwrap().is_some());
    let opening = async {
        timeout(PLENTY, gate.is_asked(2)).await.unwrap();
        gate.open();
    };
    let (whole, ()) = tokio::join!(ask(&desk, &[("holdfast-deadline-ms", "60000")]), opening);
    // What the gate says is a stream; that it was asked again is what counts.
    assert_eq!(gate.asked(), 2, "{}", whole.text);
    assert!(desk.metrics().await.contains("{outcome=\"shared\"} 1\n"), "it had waited");
}
