//! Completions that are held where nobody answers them now, and responses in the background as events.

use std::path::Path;
use std::time::Duration;

use holdfast_tests::link::{Link, Weather};
use holdfast_tests::vendors::{Fake, Next, Trouble, Vendor};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::cache::{found, rule};
use super::desk::{Desk, openai, vendor};
use super::gate::{Gate, response};

const SOON: Duration = Duration::from_secs(60);
const CHAT: &str = "/v1/chat/completions";

async fn link_to(fake: &Fake) -> Link {
    Link::to(fake.url.strip_prefix("http://").unwrap().parse().unwrap()).await.unwrap()
}

/// The stand-in as a destination, behind a link.
fn behind(link: &Link, fake: &Fake, dir: &Path) -> String {
    let text = vendor("near", "site", fake, Vendor::OpenAi, dir);
    text.replace(&fake.url, &format!("http://{}", link.address()))
}

fn conversation(model: &str, words: &str) -> Value {
    json!({ "model": model, "messages": [{ "role": "user", "content": words }] })
}

fn location(reply: &super::desk::Reply) -> String {
    reply.headers["location"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_completion_that_nobody_answers_now_is_held_where_its_caller_says_so() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let link = link_to(&near).await;
    link.set(Weather::Cut);
    let mut desk = Desk::start(|dir| behind(&link, &near, dir)).await;
    let body = conversation("near", "hello");
    let refused = desk.post(CHAT, &body, &[]).await;
    assert_eq!(refused.status, 503, "nothing is held where nobody says so: {}", refused.text);
    let hold = [("holdfast-hold", "true"), ("idempotency-key", "k"), ("holdfast-ttl-ms", "900000")];
    let held = desk.post(CHAT, &body, &hold).await;
    assert_eq!(held.status, 202, "{}", held.text);
    let (location, told) = (location(&held), held.json());
    assert_eq!((&told["model"], &told["state"]), (&json!("near"), &json!("held")), "{told}");
    assert_eq!(told["queue"]["length"], 1, "{told}");
    let codes: Vec<&str> =
        told["reasons"].as_array().unwrap().iter().filter_map(|why| why["code"].as_str()).collect();
    assert_eq!(codes, ["send_failed", "held"], "{told}");
    desk.restart().await;
    let again = desk.post(CHAT, &body, &hold).await;
    assert_eq!((again.status, self::location(&again)), (202, location.clone()), "{}", again.text);
    link.set(Weather::Up);
    let done = desk.get(&format!("{location}?wait_ms=60000")).await.json();
    assert_eq!(done["answer"]["message"]["text"], "openai says hello", "{done}");
    let again = desk.post(CHAT, &body, &hold).await;
    assert_eq!(again.status, 200, "{}", again.text);
    assert_eq!(again.headers["holdfast-destination"], "near");
    let completion = again.json();
    assert_eq!(completion["choices"][0]["message"]["content"], "openai says hello");
    let id = location.rsplit('/').next().unwrap();
    assert_eq!(completion["id"], format!("chatcmpl-{id}"));
    assert_eq!(desk.post(CHAT, &body, &hold).await.json(), completion, "the same every time");
    assert_eq!(desk.queue(&["show", &format!("chatcmpl-{id}")])["state"], "answered");
    assert_eq!(near.asked(), 1);
    let public = [hold[0], hold[1], ("holdfast-class", "public")];
    let other = desk.post(CHAT, &body, &public).await;
    assert_eq!((other.status, other.code().as_str()), (409, "idempotency_key_conflict"));
    assert!(other.text.contains("class is public, was confidential"), "{}", other.text);
}

#[tokio::test]
async fn what_is_answered_in_the_call_is_answered_once_under_its_key() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let desk = Desk::start(|dir| vendor("near", "site", &near, Vendor::OpenAi, dir)).await;
    let body = conversation("near", "hello");
    let hold = [("holdfast-hold", "true"), ("idempotency-key", "k")];
    let asked = (0..8).map(|_| desk.post(CHAT, &body, &hold));
    let replies = futures_util::future::join_all(asked).await;
    for reply in &replies {
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert_eq!(reply.json(), replies[0].json());
        assert_eq!(
            reply.headers["holdfast-cost-micros"],
            replies[0].headers["holdfast-cost-micros"]
        );
    }
    assert_eq!(near.asked(), 1, "the others waited for the first one");
    let results = desk.get("/v1/results").await.json();
    assert_eq!(results["results"][0]["model"], "near", "{results}");
    // Without a key each is another one, and nothing of it is kept.
    let without = desk.post(CHAT, &body, &hold[..1]).await;
    assert_eq!((without.status, near.asked()), (200, 2));
    let id = without.json()["id"].as_str().unwrap().strip_prefix("chatcmpl-").unwrap().to_owned();
    assert_eq!(desk.get(&format!("/v1/requests/{id}")).await.status, 404);
    // A prompt is a conversation, too.
    let prompt = json!({ "model": "near", "prompt": "hello" });
    let reply = desk.post("/v1/completions", &prompt, &hold[..1]).await;
    assert_eq!((reply.status, &reply.json()["object"]), (200, &json!("text_completion")));
}

#[tokio::test]
async fn what_may_pass_is_held_and_what_may_not_is_refused() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let desk = Desk::start(|dir| {
        vendor("near", "site", &near, Vendor::OpenAi, dir)
            + "\n[[routes]]\nname = \"any\"\ndestinations = [\"near\"]\n"
    })
    .await;
    let with = |field: &str, value: Value| {
        let mut body = conversation("near", "hello");
        body[field] = value;
        body
    };
    let metadata = json!({ "holdfast_hold": "true", "holdfast_not_before_ms": "600000" });
    let later = desk.post(CHAT, &with("metadata", metadata), &[]).await;
    assert_eq!((later.status, near.asked()), (202, 0), "{}", later.text);
    assert!(later.json()["due_in_ms"].as_u64().unwrap() > 500_000, "{}", later.text);
    let hold = [("holdfast-hold", "true")];
    near.next(Next::Fails(Trouble::Transient));
    let held = desk.post(CHAT, &conversation("any", "hello"), &hold).await;
    assert_eq!((held.status, &held.json()["model"]), (202, &json!("any")), "{}", held.text);
    let done = desk.get(&format!("{}?wait_ms=60000", location(&held))).await.json();
    assert_eq!(done["answer"]["message"]["text"], "openai says hello", "{done}");
    let prompt = json!({ "model": "near", "prompt": "hello" });
    let later = [hold[0], ("holdfast-not-before-ms", "600000")];
    let restricted = [hold[0], ("holdfast-class", "restricted")];
    let no_hold = [("holdfast-ttl-ms", "9000")];
    for (case, path, body, terms, status, code) in [
        ("streamed", CHAT, with("stream", json!(true)), &hold[..], 400, "unsupported_value"),
        ("nobody's", CHAT, with("model", json!("nobody")), &hold, 404, "model_not_found"),
        ("the class", CHAT, with("user", json!("me")), &restricted, 403, "class_forbids"),
        (
            "no word",
            CHAT,
            with("user", json!("me")),
            &[("holdfast-hold", "yes")],
            400,
            "bad_parameter",
        ),
        ("no hold", CHAT, with("user", json!("me")), &no_hold, 400, "bad_parameter"),
        (
            "never",
            CHAT,
            conversation("near", "fail bad request"),
            &hold,
            400,
            "refused_by_destination",
        ),
        ("a prompt", "/v1/completions", prompt, &later, 202, ""),
        (
            "not of responses",
            "/v1/responses",
            json!({ "model": "near", "input": "hello", "background": true }),
            &hold,
            400,
            "bad_parameter",
        ),
    ] {
        let reply = desk.post(path, &body, terms).await;
        let got = reply.json()["error"]["code"].as_str().unwrap_or_default().to_owned();
        assert_eq!((reply.status, got.as_str()), (status, code), "{case}: {}", reply.text);
    }
}

#[tokio::test]
async fn who_asks_again_for_what_is_over_without_an_answer_is_told_so() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let link = link_to(&near).await;
    link.set(Weather::Cut);
    let desk = Desk::start(|dir| behind(&link, &near, dir)).await;
    let body = conversation("near", "fail bad request");
    for (key, code, why) in
        [("one", "cancelled", "over without an answer"), ("two", "failed", "refused the request")]
    {
        let hold = [("holdfast-hold", "true"), ("idempotency-key", key)];
        let held = desk.post(CHAT, &body, &hold).await;
        assert_eq!(held.status, 202, "{}", held.text);
        if code == "cancelled" {
            assert_eq!(desk.delete(&location(&held)).await.status, 200);
        } else {
            link.set(Weather::Up);
            desk.get(&format!("{}?wait_ms=60000", location(&held))).await;
        }
        let over = desk.post(CHAT, &body, &hold).await;
        assert_eq!((over.status, over.code().as_str()), (410, code), "{}", over.text);
        assert!(over.text.contains(why), "{}", over.text);
    }
    assert_eq!(near.asked(), 1);
}

/// What came of a stream of typed events: their numbers and types, and their data.
#[derive(Debug, Default)]
struct Heard {
    text: String,
    events: Vec<(u64, String)>,
}

impl Heard {
    fn read(&mut self, bytes: &[u8]) {
        self.text.push_str(std::str::from_utf8(bytes).unwrap());
        let whole = self.text.rsplit_once("\n\n").map_or("", |(whole, _)| whole);
        self.events = whole
            .split("\n\n")
            .filter_map(|event| event.split_once("\ndata: "))
            .map(|(_, data)| {
                let data: Value = serde_json::from_str(data).unwrap();
                let kind = data["type"].as_str().unwrap().to_owned();
                (data["sequence_number"].as_u64().unwrap(), kind)
            })
            .collect();
    }

    /// Reads until an event of this type came.
    async fn until(&mut self, response: &mut reqwest::Response, kind: &str) {
        while self.events.iter().all(|(_, each)| each != kind) {
            let chunk = timeout(SOON, response.chunk()).await.unwrap().unwrap();
            self.read(&chunk.unwrap_or_else(|| panic!("it ended: {}", self.text)));
        }
    }

    fn of(text: &str) -> Self {
        let mut heard = Self::default();
        heard.read(text.as_bytes());
        heard
    }

    /// Where the response is found, as its first event says.
    fn path(&self) -> String {
        let data = self.text.lines().nth(1).unwrap().strip_prefix("data: ").unwrap();
        let created: Value = serde_json::from_str(data).unwrap();
        format!("/v1/responses/{}", created["response"]["id"].as_str().unwrap())
    }
}

#[tokio::test]
async fn a_response_in_the_background_is_told_as_it_comes_and_again_with_the_same_numbers() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let link = link_to(&near).await;
    link.set(Weather::Cut);
    let mut desk = Desk::start(|dir| behind(&link, &near, dir)).await;
    let body = json!({ "model": "near", "input": "hello", "background": true, "stream": true });
    let mut response = desk.begin("/v1/responses", &body, &[]).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut heard = Heard::default();
    heard.until(&mut response, "response.queued").await;
    assert_eq!(heard.events[0], (0, "response.created".to_owned()));
    let data = heard.text.lines().nth(1).unwrap().strip_prefix("data: ").unwrap();
    let created: Value = serde_json::from_str(data).unwrap();
    assert_eq!(created["response"]["status"], "queued");
    let path = format!("/v1/responses/{}", created["response"]["id"].as_str().unwrap());
    // Who goes away takes nothing back, nor does a kill.
    drop(response);
    desk.restart().await;
    let mut response = desk.follow(&format!("{path}?stream=true&starting_after=1")).await;
    link.set(Weather::Up);
    let mut rest = Heard::default();
    rest.until(&mut response, "response.completed").await;
    assert_eq!(timeout(SOON, response.chunk()).await.unwrap().unwrap(), None, "then it ends");
    assert_eq!(rest.events[0], (2, "response.in_progress".to_owned()));
    let whole = Heard::of(&desk.get(&format!("{path}?stream=true")).await.text);
    assert_eq!([heard.events[..2].to_vec(), rest.events.clone()].concat(), whole.events);
    let numbers: Vec<u64> = whole.events.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
    let kinds: Vec<&str> = whole.events.iter().map(|(_, kind)| kind.as_str()).collect();
    for kind in ["response.output_item.added", "response.output_text.delta"] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    desk.restart().await;
    for after in [0, 2, numbers.len() - 2, numbers.len() - 1, 999] {
        let told = desk.get(&format!("{path}?stream=true&starting_after={after}")).await.text;
        let (at, _) =
            whole.text.match_indices("event: ").nth(after + 1).unwrap_or((whole.text.len(), ""));
        assert_eq!(told, whole.text[at..], "from {after} on");
    }
    assert_eq!(near.asked(), 1);
}

#[tokio::test]
async fn a_stream_in_the_background_ends_as_its_response_does() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let desk = Desk::start(|dir| vendor("near", "site", &near, Vendor::OpenAi, dir)).await;
    let body = |input: &str| json!({ "model": "near", "input": input, "background": true, "stream": true });
    let later = [("holdfast-not-before-ms", "600000")];
    for (case, input, terms, end) in [
        ("refused", "fail bad request", &[][..], "response.failed"),
        ("cut", "hello", &[], "response.incomplete"),
        ("taken back", "hello", &later, "response.cancelled"),
        ("removed", "hello", &later, ""),
    ] {
        if case == "cut" {
            near.next(Next::Says(holdfast_tests::vendors::Says::Cut("he".to_owned())));
        }
        let mut response = desk.begin("/v1/responses", &body(input), terms).await;
        let mut heard = Heard::default();
        heard.until(&mut response, "response.queued").await;
        let path = heard.path();
        match case {
            "taken back" => {
                assert_eq!(desk.post(&format!("{path}/cancel"), &json!({}), &[]).await.status, 200)
            }
            "removed" => assert_eq!(desk.delete(&path).await.status, 200),
            _ => {}
        }
        while let Some(chunk) = timeout(SOON, response.chunk()).await.unwrap().unwrap() {
            heard.read(&chunk);
        }
        let last = heard.events.last().unwrap();
        if case == "removed" {
            // That it was taken back may have been seen before.
            assert!(last.0 == 1 || last.1 == "response.cancelled", "{heard:?}");
            continue;
        }
        assert_eq!(last.1, end, "{case}: {}", heard.text);
        if end != "response.incomplete" {
            assert_eq!(last.0, 3, "{case}");
        }
        let again = Heard::of(&desk.get(&format!("{path}?stream=true")).await.text);
        assert_eq!(again.events.last(), Some(last), "{case}");
    }
}

#[tokio::test]
async fn a_stream_of_what_waits_ends_when_the_agent_stops() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let mut desk = Desk::start(|dir| vendor("near", "site", &near, Vendor::OpenAi, dir)).await;
    let body = json!({ "model": "near", "input": "hello", "background": true, "stream": true });
    let later = [("holdfast-not-before-ms", "600000")];
    let mut response = desk.begin("/v1/responses", &body, &later).await;
    let mut heard = Heard::default();
    heard.until(&mut response, "response.queued").await;
    let begun = Instant::now();
    desk.node.stop().await.unwrap();
    assert_eq!(timeout(SOON, response.chunk()).await.unwrap().unwrap(), None);
    assert!(begun.elapsed() < SOON, "{}", desk.node.log_tail());
}

#[tokio::test]
async fn a_stream_whose_response_cannot_be_read_says_so_and_can_be_gone_on_with() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let desk = Desk::start(|dir| vendor("near", "site", &near, Vendor::OpenAi, dir)).await;
    let body = json!({ "model": "near", "input": "hello", "background": true, "stream": true });
    let later = [("holdfast-not-before-ms", "600000")];
    let mut response = desk.begin("/v1/responses", &body, &later).await;
    let mut heard = Heard::default();
    heard.until(&mut response, "response.queued").await;
    let path = heard.path();
    // The disk does not give what it took.
    let journal = desk.journal();
    let segments: Vec<_> =
        std::fs::read_dir(&journal).unwrap().map(|entry| entry.unwrap().path()).collect();
    let away = |path: &Path| desk.state().join(path.file_name().unwrap());
    segments.iter().for_each(|path| std::fs::rename(path, away(path)).unwrap());
    let mut other = body.clone();
    other["stream"] = json!(false);
    let news = desk.post("/v1/responses", &other, &later).await;
    assert_eq!(news.status, 200, "{}", news.text);
    heard.until(&mut response, "error").await;
    assert_eq!(timeout(SOON, response.chunk()).await.unwrap().unwrap(), None, "then it ends");
    let (number, _) = heard.events.last().unwrap();
    assert_eq!(*number, 1, "whoever goes on behind it misses nothing");
    assert!(heard.text.contains("\"code\":\"storage_failed\""), "{}", heard.text);
    assert!(desk.node.log_tail().contains("the queue failed"), "{}", desk.node.log_tail());
    segments.iter().for_each(|path| std::fs::rename(away(path), path).unwrap());
    let mut response = desk.follow(&format!("{path}?stream=true&starting_after={number}")).await;
    assert_eq!(desk.post(&format!("{path}/cancel"), &json!({}), &[]).await.status, 200);
    let mut rest = Heard::default();
    rest.until(&mut response, "response.cancelled").await;
    assert_eq!(rest.events, [(3, "response.cancelled".to_owned())]);
}

#[tokio::test]
async fn another_content_hears_of_the_conflict_while_the_first_is_under_way() {
    let gate = Gate::saying("gated").await;
    let desk = Desk::start(|_| openai("near", &gate.url, "")).await;
    let hold = [("holdfast-hold", "true"), ("idempotency-key", "k")];
    let (first, other) = (conversation("near", "hello"), conversation("near", "bye"));
    let others = async {
        timeout(SOON, gate.is_asked(1)).await.unwrap();
        let held = json!({ "model": "near", "input": "bye", "background": true });
        for reply in [
            desk.post(CHAT, &other, &hold).await,
            desk.post("/v1/responses", &held, &hold[1..]).await,
        ] {
            assert_eq!((reply.status, reply.code().as_str()), (409, "idempotency_key_conflict"));
            assert!(reply.text.contains("the conversation, or a setting"), "{}", reply.text);
        }
        gate.open();
    };
    let (reply, ()) = tokio::join!(desk.post(CHAT, &first, &hold), others);
    assert_eq!((reply.status, gate.asked()), (200, 1), "{}", reply.text);
}

#[tokio::test]
async fn what_may_be_held_has_an_answer_that_was_given_before() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let link = link_to(&near).await;
    let desk = Desk::start(|dir| behind(&link, &near, dir) + &rule(3600)).await;
    let hold = ("holdfast-hold", "true");
    let (body, other) = (conversation("near", "hello"), conversation("near", "count 2"));
    // Its own answer is kept, too.
    assert_eq!(found(&desk.post(CHAT, &body, &[hold]).await), "miss");
    link.set(Weather::Cut);
    let (key, later) = (("idempotency-key", "k"), ("holdfast-not-before-ms", "600000"));
    for terms in [&[][..], &[hold], &[hold, later], &[hold, key]] {
        let reply = desk.post(CHAT, &body, terms).await;
        assert_eq!(found(&reply), "hit", "{terms:?}");
        assert!(reply.headers.contains_key("age"), "{terms:?}");
        assert_eq!(reply.json()["choices"][0]["message"]["content"], "openai says hello");
    }
    // Under its key it is the answer from now on, whatever else is there.
    let cleared = desk.command("cache", &["clear"]);
    assert_eq!(cleared["entries"], 1, "{cleared}");
    let again = desk.post(CHAT, &body, &[hold, key]).await;
    assert_eq!((again.status, found(&again)), (200, ""), "{}", again.text);
    let no_answer = [("cache-control", "no-cache")];
    for (body, terms) in [(&body, &[hold, later][..]), (&other, &[hold])] {
        let held = desk.post(CHAT, body, &[terms, &no_answer].concat()).await;
        assert_eq!(held.status, 202, "{terms:?}: {}", held.text);
        assert!(!held.headers.contains_key("holdfast-cache"), "{terms:?}");
    }
    assert_eq!(near.asked(), 1);
}

#[tokio::test]
async fn what_was_answered_before_the_queue_opened_is_not_asked_again() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let link = link_to(&near).await;
    link.set(Weather::Cut);
    let mut desk = Desk::start(|dir| behind(&link, &near, dir)).await;
    let body = conversation("near", "hello");
    let hold = [("holdfast-hold", "true"), ("idempotency-key", "k")];
    let held = desk.post(CHAT, &body, &hold).await;
    assert_eq!(held.status, 202, "{}", held.text);
    // The disk comes late: the device answers without it.
    desk.node.kill().unwrap();
    let (queue, away) = (desk.state().join("queue"), desk.state().join("away"));
    std::fs::rename(&queue, &away).unwrap();
    std::fs::write(&queue, b"in its place").unwrap();
    link.set(Weather::Up);
    desk.restart().await;
    let answered = desk.post(CHAT, &body, &hold).await;
    assert_eq!((answered.status, near.asked()), (200, 1), "{}", answered.text);
    // It has the answer in memory until then.
    let again = desk.post(CHAT, &body, &hold).await;
    assert_eq!((again.status, near.asked()), (200, 1), "{}", again.text);
    let told = |reply: &super::desk::Reply| reply.json()["choices"].clone();
    assert_eq!((&again.json()["id"], told(&again)), (&answered.json()["id"], told(&answered)));
    let other = desk.post(CHAT, &conversation("near", "count 3"), &hold).await;
    let code = other.code();
    assert_eq!((other.status, code.as_str()), (409, "idempotency_key_conflict"), "{}", other.text);
    assert!(other.text.contains("the conversation, or a setting of it"), "{}", other.text);
    std::fs::remove_file(&queue).unwrap();
    std::fs::rename(&away, &queue).unwrap();
    let until = Instant::now() + SOON;
    while desk.get("/readyz").await.json()["queue"]["open"] != true {
        assert!(Instant::now() < until, "{}", desk.node.log_tail());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let done = desk.get(&format!("{}?wait_ms=60000", location(&held))).await.json();
    assert_eq!(done["answer"]["message"]["text"], "openai says hello", "{done}");
    let again = desk.post(CHAT, &body, &hold).await;
    assert_eq!((again.status, near.asked()), (200, 1), "{}", again.text);
}

#[tokio::test]
async fn what_its_caller_left_is_held_all_the_same_and_found_under_its_key() {
    let gate = Gate::start(Vec::new(), response(503, "{}")).await;
    let desk = Desk::start(|_| openai("near", &gate.url, "")).await;
    let body = conversation("near", "hello");
    let hold = [("holdfast-hold", "true"), ("idempotency-key", "k")];
    tokio::select! {
        reply = desk.post(CHAT, &body, &hold) => panic!("{reply:?}"),
        () = gate.is_asked(1) => {}
    }
    gate.open();
    let found = desk.post(CHAT, &body, &hold).await;
    assert_eq!(found.status, 202, "{}", found.text);
    let again = desk.post(CHAT, &body, &hold).await;
    assert_eq!((again.status, location(&again)), (202, location(&found)), "{}", again.text);
    let all = desk.get("/v1/requests").await.json();
    assert_eq!(all["requests"].as_array().map(Vec::len), Some(1), "{all}");
}

#[tokio::test]
async fn numbers_of_events_go_on_when_what_was_set_aside_is_let_go_again() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    near.next(Next::Fails(Trouble::Transient));
    // The sections follow that of the queue.
    let desk = Desk::start(|dir| {
        "max_attempts = 1\n".to_owned() + &vendor("near", "site", &near, Vendor::OpenAi, dir)
    })
    .await;
    let body = json!({ "model": "near", "input": "hello", "background": true, "stream": true });
    let mut response = desk.begin("/v1/responses", &body, &[]).await;
    let mut heard = Heard::default();
    heard.until(&mut response, "response.queued").await;
    let path = heard.path();
    let id = path.rsplit('/').next().unwrap();
    let until = Instant::now() + SOON;
    while desk.queue(&["show", id])["state"] != "set_aside" {
        assert!(Instant::now() < until, "{}", desk.node.log_tail());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Who begins meanwhile, and who goes on behind the second event, hear the rest as the first one does.
    let mut from_now = desk.follow(&format!("{path}?stream=true")).await;
    let mut behind = desk.follow(&format!("{path}?stream=true&starting_after=1")).await;
    assert_eq!(desk.queue(&["retry", id])[0]["retried"], true);
    let (mut whole, mut rest) = (Heard::default(), Heard::default());
    for (heard, response) in
        [(&mut heard, &mut response), (&mut whole, &mut from_now), (&mut rest, &mut behind)]
    {
        heard.until(response, "response.completed").await;
    }
    let numbers: Vec<u64> = heard.events.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
    assert_eq!((&whole.events, &rest.events[..]), (&heard.events, &heard.events[2..]));
    assert_eq!(near.asked(), 2);
}
