//! Results are sent to webhooks and to the controller, at least once, in order, and only where their
//! class may go.

use std::path::Path;

use holdfast_tests::client::Client;
use holdfast_tests::node::{Node, Spec};
use holdfast_tests::site::{Agent, DEVICE, bundles, start_agent_with};
use serde_json::Value;

use super::receiver::{Answer, Receiver};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A device on its own, with more configuration: what is asked under a key is a result at once.
async fn device(dir: &Path, more: &str) -> Node {
    let agent =
        Agent { name: DEVICE, bundles: bundles(&["voice-commands"]), site: None, broker: None };
    let toml = agent.toml(dir) + more;
    start_agent_with(super::program(), dir, DEVICE, &toml).await.unwrap()
}

fn webhook(dir: &Path, receiver: &Receiver, more: &str) -> String {
    let secret = dir.join("secret");
    std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
    format!(
        "\n[[webhook]]\nname = \"mes\"\nurl = \"http://{}/results\"\nsecret_file = {:?}\n{more}\n",
        receiver.address,
        secret.display().to_string(),
    )
}

fn client(device: &Node) -> Client {
    Client::new(device.address("api").unwrap()).unwrap()
}

/// Asks under a key; the request's id.
async fn ask(device: &Node, key: &str, class: &str) -> String {
    let wav = super::sample("voice-commands", |_| true);
    let terms =
        [("idempotency-key", key), ("holdfast-escalate", "never"), ("holdfast-class", class)];
    client(device).ask("voice-commands", wav, &terms).await.unwrap().id
}

async fn metric(device: &Node, name: &str) -> String {
    let (_, text) = client(device).get("/metrics").await.unwrap();
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.rsplit_once(' '))
        .map(|(_, value)| value.to_owned())
        .unwrap_or_default()
}

#[tokio::test]
async fn a_webhook_gets_every_result_in_order_through_failures_and_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let first = [
        Answer::Refuse(500),
        Answer::TakeAndBreak,
        Answer::Refuse(503),
        Answer::Take,
        Answer::Take,
    ];
    let receiver = Receiver::start(SECRET, &first, Answer::Refuse(500)).await;
    let more = webhook(dir.path(), &receiver, "zone = \"site\"\n");
    let mut device = device(dir.path(), &more).await;
    let mut allowed = Vec::new();
    for key in ["a", "b", "c"] {
        allowed.push(ask(&device, key, "confidential").await);
    }
    let secret = ask(&device, "d", "restricted").await;
    // The first came twice, since its taking was never said; the third is refused again and again.
    receiver.until("the third", |receiver| receiver.posts().len() >= 6).await;
    assert_eq!(receiver.taken(), allowed[..2]);
    device.kill().unwrap();
    device = self::device(dir.path(), &more).await;
    allowed.push(ask(&device, "e", "public").await);
    receiver.set(Answer::Take);
    receiver.until("all", |receiver| receiver.taken().len() == 4).await;
    assert_eq!(receiver.taken(), allowed, "each once at least, in their order");
    let posts = receiver.posts();
    assert!(posts.iter().all(|post| post.id != secret), "a class was broken: {posts:?}");
    assert!(posts.iter().any(|post| post.body["answer"]["label"].is_string()), "{posts:?}");
    let withheld = metric(&device, "holdfast_results_withheld_total").await;
    assert_eq!(withheld, "1", "what the class keeps back is counted");
    // The cursor is on disk: after another start nothing comes again.
    let count = receiver.posts().len();
    assert_eq!(device.stop().await.unwrap().code(), Some(0));
    device = self::device(dir.path(), &more).await;
    let last = ask(&device, "f", "internal").await;
    receiver.until("one more", |receiver| receiver.taken().last() == Some(&last)).await;
    assert_eq!(receiver.posts().len(), count + 1);
}

#[tokio::test]
async fn a_result_that_is_refused_for_too_long_does_not_block_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(SECRET, &[], Answer::Refuse(422)).await;
    let more = webhook(dir.path(), &receiver, "zone = \"public\"\ngive_up_s = 1\n");
    let device = device(dir.path(), &more).await;
    let poison = ask(&device, "a", "public").await;
    receiver.until("a refusal", |receiver| !receiver.posts().is_empty()).await;
    let next = ask(&device, "b", "public").await;
    let given_up = |receiver: &Receiver| receiver.posts().iter().any(|post| post.id == next);
    receiver.until("the next one", given_up).await;
    receiver.set(Answer::Take);
    receiver.until("the next one, taken", |receiver| receiver.taken() == [next.clone()]).await;
    assert!(receiver.posts().iter().any(|post| post.id == poison));
    let (_, metrics) = client(&device).get("/metrics").await.unwrap();
    assert!(metrics.contains("# HELP holdfast_queue_requests Requests in the queue, by state\n"));
    let given_up = "holdfast_webhook_posts_total{webhook=\"mes\",outcome=\"given_up\"} 1";
    assert!(metrics.contains(given_up), "{metrics}");
}

async fn controller(dir: &Path, http: &str, mqtt: &str) -> Node {
    let data = dir.join("controller").display().to_string();
    let args = ["fleet", "serve", "--data", &data, "--http", http, "--mqtt", mqtt];
    let args = args.map(String::from).to_vec();
    let program = super::program();
    Node::start(&Spec { program, args, dir, name: "controller" }).await.unwrap()
}

#[tokio::test]
async fn the_controller_gets_every_result_over_mqtt_through_its_own_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut controller = controller(dir.path(), "127.0.0.1:0", "127.0.0.1:0").await;
    let mqtt = controller.address("mqtt").unwrap().to_string();
    let http = controller.address("http").unwrap().to_string();
    let more =
        format!("\n[fleet]\nbroker = \"mqtt://{mqtt}\"\ninterval_ms = 500\nresults = true\n");
    let mut device = device(dir.path(), &more).await;
    let path = format!("/api/v1/devices/{DEVICE}/results");
    let shown = |want: usize| {
        move |json: &Value| {
            let results = json["results"].as_array()?;
            let id = |result: &Value| result["id"].as_str().unwrap().to_owned();
            (results.len() == want).then(|| results.iter().rev().map(id).collect::<Vec<_>>())
        }
    };
    let mut asked = Vec::new();
    for key in ["a", "b", "c"] {
        asked.push(ask(&device, key, "confidential").await);
    }
    ask(&device, "d", "restricted").await;
    let fleet = Client::new(controller.address("http").unwrap()).unwrap();
    assert_eq!(fleet.until(&path, super::SOON, shown(3)).await.unwrap(), asked);
    controller.kill().unwrap();
    asked.push(ask(&device, "e", "public").await);
    // The device is killed as well: what the controller has is known from the cursor on disk alone.
    device.kill().unwrap();
    device = self::device(dir.path(), &more).await;
    asked.push(ask(&device, "f", "internal").await);
    controller = self::controller(dir.path(), &http, &mqtt).await;
    assert_eq!(fleet.until(&path, super::SOON, shown(5)).await.unwrap(), asked);
    let (_, text) = fleet.get(&format!("{path}?limit=1")).await.unwrap();
    let newest: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(newest["results"][0]["state"], "answered", "{text}");
    assert_eq!(newest["results"][0]["answer"]["place"], "device", "{text}");
    let args = ["fleet", "results", DEVICE, "--server", &format!("http://{http}")];
    let output = std::process::Command::new(super::program()).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains(&asked[4]), "{said}");
    assert_eq!(device.stop().await.unwrap().code(), Some(0), "{}", device.log_tail());
    assert_eq!(controller.stop().await.unwrap().code(), Some(0));
}
