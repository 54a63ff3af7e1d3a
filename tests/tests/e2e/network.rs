//! What the agent says that it sent and fetched is what went over the wire; what a metered link may not
//! carry waits, and the count outlives the process.

use std::path::Path;
use std::time::Duration;

use holdfast_tests::authority::Authority;
use holdfast_tests::client::Client;
use holdfast_tests::link::Link;
use holdfast_tests::node::Node;
use holdfast_tests::site::{Agent, DEVICE, Site, bundles, start_agent_with};
use tokio::time::{Instant, sleep};

use super::receiver::{Answer, Receiver};
use super::{SOON, program, sample};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Bytes that the agent counted for one purpose: sent and received.
async fn counted(client: &Client, purpose: &str) -> (u64, u64) {
    let (_, text) = client.get("/metrics").await.unwrap();
    let of = |direction: &str| {
        let has = |line: &&str| {
            line.starts_with("holdfast_network_bytes_total")
                && line.contains(&format!("purpose=\"{purpose}\""))
                && line.contains(&format!("direction=\"{direction}\""))
        };
        let values = text.lines().filter(has).filter_map(|line| line.rsplit(' ').next());
        values.filter_map(|value| value.parse::<u64>().ok()).sum()
    };
    (of("sent"), of("received"))
}

fn seen(link: &Link) -> (u64, u64) {
    let seen = link.seen();
    (seen.upward.len() as u64, seen.downward as u64)
}

fn sum(all: &[(u64, u64)]) -> (u64, u64) {
    all.iter().fold((0, 0), |(sent, received), each| (sent + each.0, received + each.1))
}

/// Waits until what was counted for these purposes is what the link saw, to the byte.
async fn until_equal(client: &Client, purposes: &[&str], link: &Link) {
    let until = Instant::now() + SOON;
    loop {
        let before = seen(link);
        let mut counts = Vec::new();
        for purpose in purposes {
            counts.push(counted(client, purpose).await);
        }
        let (counted, after) = (sum(&counts), seen(link));
        if before == after && counted == after && after.0 > 0 {
            return;
        }
        assert!(Instant::now() < until, "{purposes:?}: counted {counted:?}, it saw {after:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_is_counted_is_what_went_over_plain_http_and_mqtt_to_the_byte() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(SECRET, &[], Answer::Take).await;
    std::fs::write(dir.path().join("secret"), SECRET).unwrap();
    let mut parts = Site::start(program(), dir.path()).await.unwrap();
    parts.device.stop().await.unwrap();
    let to_controller = Link::to(parts.controller.address("mqtt").unwrap()).await.unwrap();
    let to_site = Link::to(parts.site.address("api").unwrap()).await.unwrap();
    let to_hook = Link::to(receiver.address).await.unwrap();
    let agent = Agent {
        name: DEVICE,
        bundles: bundles(&["voice-commands"]),
        site: Some(format!("http://{}", to_site.address())),
        broker: Some(to_controller.address().to_string()),
    };
    let hook = format!(
        "results = true\n\n[[webhook]]\nname = \"mes\"\nurl = \"http://{}/results\"\nzone = \"site\"\nsecret_file = {:?}\n",
        to_hook.address(),
        dir.path().join("secret")
    );
    let toml = agent.toml(dir.path()) + &hook;
    let device = start_agent_with(program(), dir.path(), DEVICE, &toml).await.unwrap();
    let client = Client::new(device.address("api").unwrap()).unwrap();
    for number in 0..10 {
        let key = number.to_string();
        let terms = [("holdfast-escalate", "always"), ("idempotency-key", key.as_str())];
        let wav = sample("voice-commands", |_| true);
        let reply = client.ask("voice-commands", wav, &terms).await.unwrap();
        assert_eq!(reply.state, "answered", "{}", reply.why());
    }
    receiver.until("every result", |receiver| receiver.taken().len() == 10).await;
    until_equal(&client, &["escalation", "probe"], &to_site).await;
    until_equal(&client, &["webhook"], &to_hook).await;
    until_equal(&client, &["mqtt"], &to_controller).await;
    let (sent, _) = counted(&client, "escalation").await;
    assert!(sent > 10 * 30_000, "recordings went up: {sent}");
}

#[tokio::test]
async fn over_tls_the_count_is_within_three_percent() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new().unwrap();
    let root = dir.path().join("root.pem");
    std::fs::write(&root, authority.root()).unwrap();
    let (certificate, key) =
        authority.sign("localhost").unwrap().write(dir.path(), "site").unwrap();
    let name = "site-1";
    let site = Agent { name, bundles: bundles(&["voice-commands"]), site: None, broker: None };
    let toml = site.toml(dir.path())
        + &format!("\n[api.tls]\ncertificate = {certificate:?}\nkey = {key:?}\n");
    let site = start_agent_with(program(), dir.path(), name, &toml).await.unwrap();
    let link = Link::to(site.address("api").unwrap()).await.unwrap();
    let agent = Agent { name: DEVICE, bundles: Vec::new(), site: None, broker: None };
    let toml = agent.toml(dir.path())
        + &format!(
            "\n[[destination]]\nname = \"site\"\nzone = \"site\"\nurl = \"https://localhost:{}\"\n\
             tasks = [\"voice-commands\"]\nca_file = {root:?}\n",
            link.address().port()
        );
    let device = start_agent_with(program(), dir.path(), DEVICE, &toml).await.unwrap();
    let client = Client::new(device.address("api").unwrap()).unwrap();
    let ask = async |count: usize| {
        for _ in 0..count {
            let wav = sample("voice-commands", |_| true);
            let reply = client.ask("voice-commands", wav, &[]).await.unwrap();
            assert_eq!(reply.state, "answered", "{}", reply.why());
        }
    };
    ask(40).await;
    let counted = sum(&[counted(&client, "escalation").await, counted(&client, "probe").await]);
    let saw = seen(&link);
    let (counted, saw) = ((counted.0 + counted.1) as f64, (saw.0 + saw.1) as f64);
    println!("counted {counted}, it saw {saw} in {} connections", link.seen().connections);
    assert!((counted / saw - 1.0).abs() < 0.03, "counted {counted}, it saw {saw}");
}

/// A device whose every link is metered, with a MiB for the day.
async fn metered(dir: &Path, link: &Link, hook: &Receiver) -> Node {
    let site = Some(format!("http://{}", link.address()));
    let agent = Agent { name: DEVICE, bundles: Vec::new(), site, broker: None };
    let tasks =
        "tasks = [\"voice-commands\"]\n\n[network]\nmetered = \"always\"\nbudget_per_day_mib = 1\n";
    std::fs::write(dir.join("secret"), SECRET).unwrap();
    let hook = format!(
        "\n[[webhook]]\nname = \"mes\"\nurl = \"http://{}/results\"\nzone = \"site\"\nsecret_file = {:?}\n",
        hook.address,
        dir.join("secret")
    );
    let toml = agent.toml(dir) + tasks + &hook;
    start_agent_with(program(), dir, DEVICE, &toml).await.unwrap()
}

#[tokio::test]
async fn beyond_the_budget_callers_are_held_what_is_urgent_goes_and_a_kill_forgets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let name = "site-1";
    let site = Agent { name, bundles: bundles(&["voice-commands"]), site: None, broker: None };
    let site = start_agent_with(program(), dir.path(), name, &site.toml(dir.path())).await.unwrap();
    let link = Link::to(site.address("api").unwrap()).await.unwrap();
    let receiver = Receiver::start(SECRET, &[], Answer::Take).await;
    let mut device = metered(dir.path(), &link, &receiver).await;
    let wav = sample("voice-commands", |_| true);
    let ask = async |device: &Node, priority: &str| {
        let client = Client::new(device.address("api").unwrap()).unwrap();
        let key = format!("of-{priority}");
        let terms = [("holdfast-priority", priority), ("idempotency-key", &key)];
        let terms = if priority == "8" { &terms[..] } else { &terms[..1] };
        client.ask("voice-commands", wav.clone(), terms).await.unwrap()
    };
    let mut held = None;
    for number in 0..60 {
        let reply = ask(&device, "4").await;
        match reply.state.as_str() {
            "answered" => assert!(number < 40, "a MiB does not end"),
            "held" => {
                held = Some(reply);
                break;
            }
            other => panic!("{other}: {}", reply.why()),
        }
    }
    let held = held.expect("the budget ends");
    assert!(
        held.why().contains("data budget of the metered link is used up until"),
        "{}",
        held.why()
    );
    let used = seen(&link);
    assert!(used.0 + used.1 < 1 << 20, "{used:?}");
    let urgent = ask(&device, "8").await;
    assert_eq!(urgent.state, "answered", "{}", urgent.why());

    // Its result waits with the rest.
    let log = dir.path().join(format!("{DEVICE}.log"));
    let until = Instant::now() + SOON;
    while !std::fs::read_to_string(&log).unwrap().contains("used up: results wait") {
        assert!(Instant::now() < until, "the result does not wait: {:?}", receiver.posts());
        sleep(Duration::from_millis(20)).await;
    }
    assert!(receiver.posts().is_empty(), "{:?}", receiver.posts());

    // What waits is on disk as that; the count is too, whether it stops or is killed.
    for is_killed in [true, false] {
        let client = Client::new(device.address("api").unwrap()).unwrap();
        let path = format!("/v1/requests/{}", held.id);
        let waits =
            |json: &serde_json::Value| (json["state"] == "waiting_for_budget").then_some(());
        client.until(&path, SOON, waits).await.unwrap();
        let used_up = |json: &serde_json::Value| {
            let bytes = json["day"]["metered_bytes"].as_u64()?;
            let date = json["used_up_until"].as_str()?.to_owned();
            (json["state"] == "metered" && date.ends_with("T00:00:00Z")).then_some(bytes)
        };
        let bytes = client.until("/v1/network", SOON, used_up).await.unwrap();
        // The note follows within seconds.
        let noted = dir.path().join(DEVICE).join("network.toml");
        let until = Instant::now() + SOON;
        while !std::fs::read_to_string(&noted).is_ok_and(|text| at_least(&text, bytes)) {
            assert!(Instant::now() < until, "{bytes} were never noted");
            sleep(Duration::from_millis(50)).await;
        }
        let (url, digest) = ("http://127.0.0.1:9/library.whl", "0".repeat(64));
        let install = ["runtime", "install", url, "--sha256", &digest];
        let (is_done, said) = super::command(dir.path(), &install);
        assert!(!is_done && said.contains("nothing is fetched: the data budget"), "{said}");
        if is_killed {
            device.kill().unwrap();
        } else {
            assert_eq!(device.stop().await.unwrap().code(), Some(0));
        }
        device = metered(dir.path(), &link, &receiver).await;
        let reply = ask(&device, "4").await;
        assert_eq!(reply.state, "held", "killed: {is_killed}: {}", reply.why());
    }
}

/// Whether the note has so many metered bytes of the day.
fn at_least(text: &str, bytes: u64) -> bool {
    let table: toml::Table = text.parse().unwrap_or_default();
    let noted = table.get("day").and_then(|day| day.get("metered_bytes"));
    noted.and_then(toml::Value::as_integer).is_some_and(|noted| noted as u64 >= bytes)
}
