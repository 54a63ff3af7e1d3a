//! A caller is told how full the queue is, and when to come back.

use holdfast_tests::client::Client;
use holdfast_tests::node::Node;
use holdfast_tests::site::{Agent, DEVICE, bundles, start_agent_with};
use serde_json::Value;

/// A device whose site does not answer, and whose queue takes two requests.
async fn device(dir: &std::path::Path, api: &str) -> Node {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let site = Some(format!("http://{nobody}"));
    let agent = Agent { name: DEVICE, bundles: bundles(&["voice-commands"]), site, broker: None };
    let toml = agent.toml(dir).replace("[queue]\n", "[queue]\nmax_requests = 2\n");
    let toml = toml.replace("[api]\n", &format!("[api]\n{api}"));
    start_agent_with(super::program(), dir, DEVICE, &toml).await.unwrap()
}

#[tokio::test]
async fn a_full_queue_refuses_with_its_length_and_when_to_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let device = device(dir.path(), "").await;
    let address = device.address("api").unwrap();
    let wav = super::sample("voice-commands", |_| true);
    // The client of the tests installs what TLS needs.
    let client = Client::new(address).unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let ask = async || {
        let url = format!("http://{address}/v1/tasks/voice-commands");
        let request = http.post(url).header("holdfast-escalate", "always").body(wav.clone());
        let response = request.send().await.unwrap();
        let retry_after = response.headers().get("retry-after").cloned();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, retry_after, serde_json::from_str::<Value>(&text).unwrap())
    };
    for length in [1, 2] {
        let (status, _, held) = ask().await;
        assert_eq!((status, &held["state"]), (202, &"held".into()), "{held}");
        assert_eq!(held["queue"]["length"], length, "{held}");
        assert_eq!(held["queue"]["expected_wait_s"], Value::Null, "nothing was finished yet");
    }
    let (status, retry_after, problem) = ask().await;
    assert_eq!((status, &problem["code"]), (429, &"queue_full".into()), "{problem}");
    assert_eq!(problem["queue_length"], 2);
    assert!(problem.get("expected_wait_s").is_some_and(Value::is_null), "{problem}");
    assert_eq!(retry_after.unwrap(), "30", "the stated default, as nothing was measured");
    // Who takes the local answer is not refused.
    let reply = client.ask("voice-commands", wav.clone(), &[]).await.unwrap();
    assert_eq!(reply.state, "answered");
}

/// The model takes longer than a millisecond, which the device knows after the first answer; nobody
/// else could answer.
#[tokio::test]
async fn who_cannot_be_answered_in_time_is_told_at_once_when_to_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let task = "part-inspection";
    let bundles = bundles(&["part-inspection-large"]);
    let agent = Agent { name: DEVICE, bundles, site: None, broker: None };
    let toml = agent.toml(dir.path());
    let device = start_agent_with(super::program(), dir.path(), DEVICE, &toml).await.unwrap();
    let address = device.address("api").unwrap();
    let client = Client::new(address).unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let picture = super::sample("part-inspection-large", |_| true);
    let until = tokio::time::Instant::now() + super::SOON;
    // What was measured counts for a second: a machine that is slower than that tries again.
    let (retry_after, problem) = loop {
        assert!(tokio::time::Instant::now() < until, "it is never told");
        client.ask(task, picture.clone(), &[]).await.unwrap();
        let request = http.post(format!("http://{address}/v1/tasks/{task}"));
        let request = request.header("holdfast-deadline-ms", "1").body(picture.clone());
        let response = request.send().await.unwrap();
        assert_eq!(response.status().as_u16(), 503);
        let retry_after = response.headers().get("retry-after").cloned();
        let problem: Value = response.json().await.unwrap();
        if problem["code"] == "busy" {
            break (retry_after, problem);
        }
    };
    assert_eq!(retry_after.unwrap(), "1", "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("ms now"), "{problem}");
    let (_, metrics) = client.get("/metrics").await.unwrap();
    let turned = r#"holdfast_turned_away_total{model="part-inspection-large",why="deadline"}"#;
    assert!(metrics.contains(turned), "{metrics}");
    for name in ["model_loaded", "model_waiting", "model_workers", "model_runs_total", "batch_rows"]
    {
        assert!(metrics.contains(&format!("\nholdfast_{name}")), "{name}: {metrics}");
    }
    let (_, tasks) = client.get("/v1/tasks").await.unwrap();
    let tasks: Value = serde_json::from_str(&tasks).unwrap();
    assert!(tasks["tasks"][0]["runs"].as_u64().unwrap() > 0, "{tasks}");
    assert_eq!(tasks["tasks"][0]["waiting"], 0, "{tasks}");
}

#[tokio::test]
async fn only_so_many_callers_wait_for_results() {
    let dir = tempfile::tempdir().unwrap();
    let device = device(dir.path(), "max_waiting = 1\n").await;
    let client = Client::new(device.address("api").unwrap()).unwrap();
    let wav = super::sample("voice-commands", |_| true);
    let held = client.ask("voice-commands", wav, &[("holdfast-escalate", "always")]).await.unwrap();
    let path = format!("/v1/requests/{}", held.id);
    let waits = tokio::spawn({
        let (client, path) = (client.clone(), format!("{path}?wait_ms=60000"));
        // One that asks below may have been quicker.
        async move { while client.get(&path).await.unwrap().0 == 503 {} }
    });
    // As soon as the first waits, the second is refused.
    let busy = |json: &Value| (json["code"] == "busy").then(|| json["status"].clone());
    let status = client.until(&format!("{path}?wait_ms=1"), super::SOON, busy).await.unwrap();
    assert_eq!(status, 503);
    assert_eq!(client.get(&path).await.unwrap().0, 200, "asking without waiting goes on");
    let (status, said) = client.get(&format!("{path}?wait_ms=60001")).await.unwrap();
    assert!(status == 400 && said.contains("60000"), "a longer wait is refused: {said}");
    waits.abort();
}

#[tokio::test]
async fn what_is_larger_than_the_whole_queue_is_413() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let site = Some(format!("http://{nobody}"));
    let agent = Agent { name: DEVICE, bundles: bundles(&["voice-commands"]), site, broker: None };
    let small = "segment_mib = 1\nmax_mib = 1\n";
    let toml = agent.toml(dir.path()).replace("segment_mib = 4\n", small);
    let toml = toml + "tasks = [\"weld-seams\", \"voice-commands\"]\n";
    let device = start_agent_with(super::program(), dir.path(), DEVICE, &toml).await.unwrap();
    let client = Client::new(device.address("api").unwrap()).unwrap();
    let mut wav = super::sample("voice-commands", |_| true);
    let (status, said) = client.post("weld-seams", wav.clone(), &[]).await.unwrap();
    assert_eq!(status.as_u16(), 202, "{said}");
    wav.resize((1 << 20) + 1, 0);
    let (status, said) = client.post("weld-seams", wav, &[]).await.unwrap();
    let problem: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((status.as_u16(), &problem["code"]), (413, &"body_too_large".into()), "{said}");
    assert!(said.contains("over the limit of 1048576 bytes"), "{said}");
    let (_, stats) = client.get("/v1/queue/stats").await.unwrap();
    assert_eq!(serde_json::from_str::<Value>(&stats).unwrap()["held"], 1, "{stats}");
}

/// One key has one answer, also when the queue has no room to ask for a better one.
#[tokio::test]
async fn what_stands_because_the_queue_is_full_is_kept_under_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let device = device(dir.path(), "").await;
    let client = Client::new(device.address("api").unwrap()).unwrap();
    let unsure = super::sample("voice-commands", |name| name.contains("go-noisy"));
    for _ in 0..2 {
        let always = [("holdfast-escalate", "always")];
        client.ask("voice-commands", unsure.clone(), &always).await.unwrap();
    }
    let key = [("idempotency-key", "press-7/41")];
    let first = client.ask("voice-commands", unsure.clone(), &key).await.unwrap();
    assert!(first.state == "answered" && first.has("not_held"), "{first:?}");
    let again = client.ask("voice-commands", unsure.clone(), &key).await.unwrap();
    assert_eq!((&again.id, again.state.as_str()), (&first.id, "answered"));
    let known = client.look_up(&first.id, std::time::Duration::ZERO).await.unwrap();
    assert_eq!(known.answer.unwrap().label, first.answer.unwrap().label);
    let other = super::sample("voice-commands", |name| name.contains("off-noisy"));
    let (status, said) = client.post("voice-commands", other, &key).await.unwrap();
    assert_eq!(status, 409, "{said}");
}
