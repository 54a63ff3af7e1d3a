//! A conversation that is held goes where everything that is held goes: into the commands of the queue,
//! to another queue, and to webhooks.

use std::path::Path;

use holdfast_tests::client::Client;
use holdfast_tests::link::{Link, Weather};
use holdfast_tests::node::Node;
use holdfast_tests::site::{Agent, DEVICE, start_agent_with};
use holdfast_tests::vendors::{Fake, MODEL, Vendor};
use serde_json::{Value, json};

use super::receiver::{Answer, Receiver};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The configuration of a device without models, with a provider at this address.
fn toml(dir: &Path, url: &str, more: &str) -> String {
    let agent = Agent { name: DEVICE, bundles: Vec::new(), site: None, broker: None };
    let key = dir.join("key");
    std::fs::write(&key, Vendor::OpenAi.credential(url)).unwrap();
    format!(
        "{}\n[[destination]]\nname = \"near\"\nzone = \"site\"\nprotocol = \"openai\"\nmodel = \
         {MODEL:?}\nurl = {url:?}\napi_key_file = {:?}\n{more}",
        agent.toml(dir),
        key.display().to_string(),
    )
}

async fn start(dir: &Path, url: &str, more: &str) -> Node {
    let toml = toml(dir, url, more);
    start_agent_with(super::program(), dir, DEVICE, &toml).await.unwrap()
}

/// Asks in the background; the request's id.
async fn hold(device: &Node, class: &str, key: &str) -> String {
    let url = format!("http://{}/v1/responses", device.address("api").unwrap());
    let body = json!({ "model": "near", "input": "hello", "background": true });
    let request = super::client().build().unwrap().post(url).json(&body);
    let request = request.header("holdfast-class", class).header("idempotency-key", key);
    let response = request.send().await.unwrap();
    let (status, text) = (response.status(), response.text().await.unwrap());
    assert_eq!(status, 200, "{text}");
    let body: Value = serde_json::from_str(&text).unwrap();
    body["id"].as_str().unwrap().strip_prefix("resp_").unwrap().to_owned()
}

fn json_of(dir: &Path, args: &[&str]) -> Value {
    let (went_well, said) = super::command(dir, &[&["queue"], args, &["--json"]].concat());
    assert!(went_well, "{args:?}: {said}");
    serde_json::from_str(&said).unwrap()
}

async fn answered(device: &Node, id: &str) -> Value {
    let client = Client::new(device.address("api").unwrap()).unwrap();
    let path = format!("/v1/requests/{id}");
    let is_over = |body: &Value| (body["state"] == "answered").then(|| body.clone());
    client.until(&path, super::SOON, is_over).await.unwrap()
}

#[tokio::test]
async fn a_webhook_gets_the_text_of_what_its_zone_may_know() {
    let dir = tempfile::tempdir().unwrap();
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let receiver = Receiver::start(SECRET, &[], Answer::Take).await;
    let secret = dir.path().join("secret");
    std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
    let webhook = format!(
        "\n[[webhook]]\nname = \"mes\"\nurl = \"http://{}/results\"\nsecret_file = {:?}\nzone = \
         \"private\"\ntasks = [\"near\"]\n",
        receiver.address,
        secret.display().to_string(),
    );
    let device = start(dir.path(), &near.url, &webhook).await;
    let kept = hold(&device, "confidential", "a").await;
    answered(&device, &kept).await;
    let told = hold(&device, "internal", "b").await;
    receiver.until("the second", |receiver| !receiver.taken().is_empty()).await;
    let posts = receiver.posts();
    let body = &posts.first().unwrap().body;
    assert_eq!((posts.len(), &body["id"], &body["model"]), (1, &json!(told), &json!("near")));
    assert_eq!(body["answer"]["message"]["text"], "openai says hello", "{body}");
    assert_eq!(body["answer"]["label"], "openai says hello");
}

#[tokio::test]
async fn the_commands_of_the_queue_know_it_and_another_queue_takes_it_in() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let link = Link::to(near.url.strip_prefix("http://").unwrap().parse().unwrap()).await.unwrap();
    link.set(Weather::Cut);
    let cut = format!("http://{}", link.address());
    let mut device = start(dir.path(), &cut, "").await;
    let ids = [hold(&device, "internal", "a").await, hold(&device, "internal", "b").await];
    let file = dir.path().join("export.jsonl");
    let file = file.to_str().unwrap();
    for running in [true, false] {
        if !running {
            device.stop().await.unwrap();
        }
        let listed = json_of(dir.path(), &["ls"]);
        let row = &listed["requests"][0];
        assert_eq!((&row["model"], row.get("task")), (&json!("near"), None), "{listed}");
        let shown = json_of(dir.path(), &["show", &ids[0]]);
        assert_eq!((&shown["model"], &shown["class"]), (&json!("near"), &json!("internal")));
        let (went_well, said) = super::command(dir.path(), &["queue", "show", &ids[0]]);
        assert!(went_well && said.contains("model       near"), "{said}");
        let (went_well, said) = super::command(dir.path(), &["queue", "ls"]);
        assert!(went_well && said.contains("near"), "{said}");
        assert_eq!(json_of(dir.path(), &["export", "--output", file])["requests"], 2);
        std::fs::remove_file(file).unwrap();
    }
    json_of(dir.path(), &["export", "--output", file]);
    let dropped = json_of(dir.path(), &["drop", "--yes", &ids[1]]);
    assert_eq!((&dropped[0]["model"], dropped[0].get("task")), (&json!("near"), None), "{dropped}");
    let mut device = start(other.path(), &cut, "").await;
    assert_eq!(json_of(other.path(), &["import", file])["imported"], 2);
    assert_eq!(json_of(other.path(), &["import", file])["known"], 2);
    // It is the same under its key here.
    assert_eq!(hold(&device, "internal", "a").await, ids[0]);
    let cancelled = json_of(other.path(), &["cancel", &ids[1]]);
    assert_eq!(cancelled[0]["cancelled"], true, "{cancelled}");
    device.stop().await.unwrap();
    link.set(Weather::Up);
    let device = start(other.path(), &cut, "").await;
    let body = answered(&device, &ids[0]).await;
    assert_eq!(body["answer"]["message"]["text"], "openai says hello", "{body}");
    assert_eq!(near.asked(), 1);
}
