//! Results reach everybody who takes them, in their order, also across a kill.

use std::net::SocketAddr;
use std::time::Duration;

use holdfast_tests::client::Client;
use holdfast_tests::node::Node;
use holdfast_tests::site::{Agent, DEVICE, bundles, start_agent_with};
use reqwest::StatusCode;
use serde_json::Value;
use tokio::time::timeout;

/// A device on its own: what is asked under a key is a result at once.
async fn device(dir: &std::path::Path) -> Node {
    device_with(dir, "").await
}

/// The same, with more in its section of the queue.
async fn device_with(dir: &std::path::Path, queue: &str) -> Node {
    let agent =
        Agent { name: DEVICE, bundles: bundles(&["voice-commands"]), site: None, broker: None };
    let toml = agent.toml(dir).replace("[queue]\n", &format!("[queue]\n{queue}"));
    start_agent_with(super::program(), dir, DEVICE, &toml).await.unwrap()
}

fn client(device: &Node) -> Client {
    Client::new(device.address("api").unwrap()).unwrap()
}

/// Asks under keys; the requests' ids, in the order of their results.
async fn ask(client: &Client, keys: impl IntoIterator<Item = usize>) -> Vec<String> {
    let wav = super::sample("voice-commands", |_| true);
    let mut ids = Vec::new();
    for key in keys {
        let terms = [("idempotency-key", &*format!("key-{key}")), ("holdfast-escalate", "never")];
        ids.push(client.ask("voice-commands", wav.clone(), &terms).await.unwrap().id);
    }
    ids
}

async fn json(client: &Client, path: &str) -> Value {
    let (status, text) = client.get(path).await.unwrap();
    assert_eq!(status, StatusCode::OK, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// The numbers and the ids of a page.
fn listed(page: &Value) -> Vec<(u64, String)> {
    let results = page["results"].as_array().unwrap().iter();
    let row = |row: &Value| (row["number"].as_u64().unwrap(), row["id"].as_str().unwrap().into());
    results.map(row).collect()
}

/// One event of a stream.
#[derive(Debug)]
struct Event {
    name: String,
    id: Option<u64>,
    data: Value,
}

/// A stream of server-sent events, as a program would read it.
struct Events {
    response: reqwest::Response,
    text: String,
}

impl Events {
    async fn open(address: SocketAddr, path: &str, last_event: Option<u64>) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut request =
            http.get(format!("http://{address}{path}")).header("accept", "text/event-stream");
        if let Some(last) = last_event {
            request = request.header("last-event-id", last.to_string());
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new() }
    }

    /// The next event; `None` when the stream has ended.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let mut lines = block.lines();
                    lines.find_map(|line| Some(line.strip_prefix(name)?.trim_start().to_owned()))
                };
                let event = field("event:").map(|name| Event {
                    name,
                    id: field("id:").map(|id| id.parse().unwrap()),
                    data: serde_json::from_str(&field("data:").unwrap()).unwrap(),
                });
                self.text = rest.to_owned();
                // What is no event is a heartbeat.
                match event {
                    Some(event) => return Some(event),
                    None => continue,
                }
            }
            let chunk = timeout(super::SOON, self.response.chunk()).await.expect("an event");
            self.text += std::str::from_utf8(&chunk.ok()??).unwrap();
        }
    }

    async fn result(&mut self) -> (u64, String) {
        let event = self.next().await.expect("a result");
        assert_eq!(event.name, "result", "{event:?}");
        assert_eq!(event.data["number"], event.id.unwrap());
        (event.id.unwrap(), event.data["id"].as_str().unwrap().to_owned())
    }
}

#[tokio::test]
async fn results_are_streamed_in_their_order_and_resumed_behind_the_last_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut device = device(dir.path()).await;
    let ids = ask(&client(&device), 0..3).await;
    let address = device.address("api").unwrap();
    let mut events = Events::open(address, "/v1/results", None).await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(events.result().await);
    }
    let got: Vec<_> = seen.iter().map(|(_, id)| id.clone()).collect();
    assert_eq!(got, ids);
    assert!(seen.is_sorted(), "{seen:?}");
    // One more arrives while the stream waits.
    let more = ask(&client(&device), 3..4).await;
    let fourth = events.result().await;
    assert_eq!(fourth.1, more[0]);
    assert_eq!(
        listed(&json(&client(&device), "/v1/results").await),
        [&seen[..], std::slice::from_ref(&fourth)].concat()
    );
    let page = json(&client(&device), "/v1/results?limit=2").await;
    assert_eq!((listed(&page), &page["next"]), (seen[..2].to_vec(), &seen[1].0.into()));
    let other = json(&client(&device), "/v1/results?task=part-inspection").await;
    assert_eq!((listed(&other).len(), &other["next"]), (0, &fourth.0.into()));
    // A long poll ends with the next result, or without one.
    let path = format!("/v1/results?after={}&wait_ms=60000", fourth.0);
    let (page, ids) =
        tokio::join!(json_of(client(&device), path), async { ask(&client(&device), 4..5).await });
    assert_eq!(listed(&page)[0].1, ids[0]);
    let fifth = listed(&page)[0].clone();
    assert_eq!(events.result().await, fifth);

    // After a kill the numbers are the same, and a stream goes on where it was.
    device.kill().unwrap();
    assert!(events.next().await.is_none(), "the stream ended with the agent");
    device = self::device(dir.path()).await;
    let address = device.address("api").unwrap();
    let mut events = Events::open(address, "/v1/results", Some(seen[1].0)).await;
    for want in [&seen[2], &fourth, &fifth] {
        assert_eq!(events.result().await, *want);
    }
    // A stop does not wait for listeners.
    assert_eq!(device.stop().await.unwrap().code(), Some(0), "{}", device.log_tail());
    assert!(events.next().await.is_none());
}

async fn json_of(client: Client, path: String) -> Value {
    json(&client, &path).await
}

#[tokio::test]
async fn a_taker_goes_on_where_it_acknowledged_also_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut device = device(dir.path()).await;
    let ids = ask(&client(&device), 0..4).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let acknowledge = async |device: &Node, number: u64| {
        let address = device.address("api").unwrap();
        let url = format!("http://{address}/v1/results/{number}/ack?taker=mes");
        let response = http.post(url).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    let all = listed(&json(&client(&device), "/v1/results?taker=mes").await);
    assert_eq!(all.len(), 4);
    // Nothing was acknowledged: the same again.
    assert_eq!(listed(&json(&client(&device), "/v1/results?taker=mes").await), all);
    let (status, body) = acknowledge(&device, all[1].0).await;
    assert_eq!((status, &body["cursor"]), (200, &all[1].0.into()), "{body}");
    let (status, body) = acknowledge(&device, all[0].0).await;
    assert_eq!((status, &body["cursor"]), (200, &all[1].0.into()), "it only goes forward: {body}");
    let (status, body) = acknowledge(&device, all[3].0 + 1000).await;
    assert_eq!((status, &body["code"]), (404, &"unknown_result".into()), "{body}");
    device.kill().unwrap();
    device = self::device(dir.path()).await;
    let rest = listed(&json(&client(&device), "/v1/results?taker=mes").await);
    assert_eq!(rest, all[2..]);
    assert_eq!(rest[0].1, ids[2]);
    let mut events =
        Events::open(device.address("api").unwrap(), "/v1/results?taker=mes", None).await;
    assert_eq!(events.result().await, all[2]);
    let takers = json(&client(&device), "/v1/takers").await;
    assert_eq!(takers["takers"][0], serde_json::json!({"taker": "mes", "cursor": all[1].0}));
    let url = format!("http://{}/v1/takers/mes", device.address("api").unwrap());
    assert_eq!(http.delete(&url).send().await.unwrap().status(), StatusCode::NO_CONTENT);
    assert_eq!(http.delete(&url).send().await.unwrap().status(), StatusCode::NOT_FOUND);
    for (path, code) in [
        ("/v1/results?taker=mes&after=3", "bad_parameter"),
        ("/v1/results?taker=../mes", "bad_parameter"),
        ("/v1/results?limit=0", "bad_parameter"),
        ("/v1/results?sort=down", "bad_parameter"),
    ] {
        let (status, text) = client(&device).get(path).await.unwrap();
        assert!(status == StatusCode::BAD_REQUEST && text.contains(code), "{path}: {text}");
    }
}

#[tokio::test]
async fn a_taker_that_was_away_for_too_long_is_told_what_it_missed() {
    let dir = tempfile::tempdir().unwrap();
    let device = device_with(dir.path(), "keep_answers_s = 1\n").await;
    let address = device.address("api").unwrap();
    ask(&client(&device), 0..4).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let acknowledge = async |number: u64| {
        let url = format!("http://{address}/v1/results/{number}/ack?taker=mes");
        assert_eq!(http.post(url).send().await.unwrap().status(), StatusCode::OK);
    };
    let all = listed(&json(&client(&device), "/v1/results?taker=mes").await);
    acknowledge(all[0].0).await;
    let is_whole = |page: &Value| {
        let is_gone = page["results"].as_array().is_some_and(Vec::is_empty);
        (is_gone && page["gap"]["missed"] == 3).then(|| page["gap"].clone())
    };
    let path = "/v1/results?taker=mes";
    let gap = client(&device).until(path, super::SOON, is_whole).await.unwrap();
    assert_eq!(gap["after"], all[0].0, "{gap}");
    let mut events = Events::open(address, path, None).await;
    let first = events.next().await.unwrap();
    assert_eq!((&*first.name, &first.data), ("gap", &gap));
    let (_, metrics) = client(&device).get("/metrics").await.unwrap();
    assert!(metrics.contains("holdfast_results_missed_total{taker=\"mes\"} 3"), "{metrics}");
    acknowledge(gap["up_to"].as_u64().unwrap()).await;
    let page = json(&client(&device), path).await;
    assert!(page.get("gap").is_none(), "{page}");
}

#[tokio::test]
async fn the_states_of_one_request_are_streamed_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let site = Some(format!("http://{nobody}"));
    let agent = Agent { name: DEVICE, bundles: bundles(&["voice-commands"]), site, broker: None };
    let toml = agent.toml(dir.path());
    let device = start_agent_with(super::program(), dir.path(), DEVICE, &toml).await.unwrap();
    let wav = super::sample("voice-commands", |_| true);
    let terms = [("holdfast-escalate", "always")];
    let held = client(&device).ask("voice-commands", wav, &terms).await.unwrap();
    let path = format!("/v1/requests/{}/events", held.id);
    let address = device.address("api").unwrap();
    let mut events = Events::open(address, &path, None).await;
    let first = events.next().await.unwrap();
    assert_eq!((&*first.name, &first.data["state"]), ("state", &"held".into()), "{first:?}");
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{address}/v1/requests/{}", held.id);
    assert!(http.delete(url).send().await.unwrap().status().is_success());
    let mut last = events.next().await.unwrap();
    while last.data["state"] != "cancelled" {
        // It may have been tried meanwhile.
        last = events.next().await.unwrap_or_else(|| panic!("it ended without the end: {last:?}"));
    }
    assert!(events.next().await.is_none(), "the stream ends with the request");
    let reply = client(&device).look_up(&held.id, Duration::ZERO).await.unwrap();
    assert_eq!(reply.state, "cancelled");
}
