//! The device keeps answering through faults, and says what is wrong.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use holdfast_tests::client::Client;
use holdfast_tests::site::{Agent, DEVICE, SITE, Site, bundles, start_agent_with};

fn device_toml(dir: &Path, site: Option<String>, broker: Option<String>) -> String {
    Agent { name: DEVICE, bundles: bundles(&["voice-commands"]), site, broker }.toml(dir)
}

fn agent(args: &[&str]) -> Output {
    Command::new(super::program()).arg("agent").args(args).output().unwrap()
}

fn wav() -> Vec<u8> {
    super::sample("voice-commands", |_| true)
}

#[tokio::test]
async fn a_broker_that_is_not_there_disturbs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // A port that was free a moment ago.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let toml = device_toml(dir.path(), Some(format!("http://{nobody}")), Some(nobody.to_string()));
    let mut device = start_agent_with(super::program(), dir.path(), DEVICE, &toml).await.unwrap();
    let client = Client::new(device.address("api").unwrap()).unwrap();
    let reply =
        client.ask("voice-commands", wav(), &[("holdfast-escalate", "never")]).await.unwrap();
    assert_eq!(reply.state, "answered");
    assert_eq!(device.stop().await.unwrap().code(), Some(0), "{}", device.log_tail());
}

#[tokio::test]
async fn a_port_in_use_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let toml = device_toml(dir.path(), None, None).replace("127.0.0.1:0", &address);
    let file = dir.path().join("agent.toml");
    std::fs::write(&file, toml).unwrap();
    let output = agent(&["run", "--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(69));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&address) && said.contains("api.listen"), "{said}");
}

#[tokio::test]
async fn a_second_agent_on_the_same_state_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let toml = device_toml(dir.path(), None, None);
    let _first = start_agent_with(super::program(), dir.path(), DEVICE, &toml).await.unwrap();
    let file = dir.path().join(format!("{DEVICE}.toml"));
    let output = agent(&["run", "--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(69));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("in use"), "{said}");
    // The list is asked of the running agent.
    let output = agent(&["queue", "ls", "--json", "--config", file.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_configuration_with_several_faults_lists_them_all() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("agent.toml");
    std::fs::write(
        &file,
        "[api]\nlisten = 3\nmax_body_mib = 9999\n[policy]\ndefault_class = \"x\"\n",
    )
    .unwrap();
    for command in ["run", "doctor"] {
        let output = agent(&[command, "--config", file.to_str().unwrap()]);
        let said =
            String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        for key in ["api.listen", "api.max_body_mib", "1..=64", "policy.default_class"] {
            assert!(said.contains(key), "{command}: {key} is not in {said}");
        }
        let want = if command == "run" { 78 } else { 1 };
        assert_eq!(output.status.code(), Some(want), "{command}");
    }
}

#[tokio::test]
async fn a_time_to_live_follows_the_devices_count_and_not_the_date() {
    const DAY_MS: u64 = 86_400_000;
    let dir = tempfile::tempdir().unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let toml = device_toml(dir.path(), Some(format!("http://{nobody}")), None);
    let mut device = start_agent_with(super::program(), dir.path(), DEVICE, &toml).await.unwrap();
    let client = Client::new(device.address("api").unwrap()).unwrap();
    let terms = [("holdfast-escalate", "always"), ("holdfast-ttl-ms", "8640000000")];
    let held = client.ask("voice-commands", wav(), &terms).await.unwrap();
    // The count is noted when the agent stops.
    assert_eq!(device.stop().await.unwrap().code(), Some(0));
    let path = dir.path().join(DEVICE).join("clock.toml");
    let noted = std::fs::read_to_string(&path).unwrap();
    let count = noted.lines().find_map(|line| line.strip_prefix("count_ms = "));
    let count: u64 = count.unwrap().parse().unwrap();
    // The machine was restarted with a date of 1970, after the count lost a year, after half of the
    // hundred days, after two hundred.
    for (count_ms, want) in [
        (count, "held"),
        (count - 365 * DAY_MS, "held"),
        (count + 50 * DAY_MS, "held"),
        (count + 200 * DAY_MS, "expired"),
    ] {
        let note = format!(
            "count_ms = {count_ms}\n[at]\nboot = \"one before\"\nsince_boot_ms = 1000\n\
             date_ms = 1000\ntrusted = false\n"
        );
        std::fs::write(&path, note).unwrap();
        device = start_agent_with(super::program(), dir.path(), DEVICE, &toml).await.unwrap();
        let client = Client::new(device.address("api").unwrap()).unwrap();
        // What is past its time ends within a second.
        let reply = client.look_up(&held.id, Duration::from_secs(2)).await.unwrap();
        assert_eq!(reply.state, want, "{count_ms} {}", device.log_tail());
        device.kill().unwrap();
    }
}

#[tokio::test]
async fn held_requests_are_listed_while_the_agent_runs_and_when_it_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let toml = device_toml(dir.path(), Some(format!("http://{nobody}")), None);
    let mut device = start_agent_with(super::program(), dir.path(), DEVICE, &toml).await.unwrap();
    let client = Client::new(device.address("api").unwrap()).unwrap();
    let reply =
        client.ask("voice-commands", wav(), &[("holdfast-escalate", "always")]).await.unwrap();
    assert_eq!(reply.state, "held", "{}", reply.why());
    assert!(reply.answer.is_some_and(|answer| answer.provisional));
    let file = dir.path().join(format!("{DEVICE}.toml"));
    for is_running in [true, false] {
        if !is_running {
            assert_eq!(device.stop().await.unwrap().code(), Some(0));
        }
        let output = agent(&["queue", "ls", "--json", "--config", file.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&output.stdout);
        let listing: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(listing["requests"][0]["id"], *reply.id, "running: {is_running}: {said}");
        assert_eq!(listing["requests"][0]["class"], "confidential");
    }
}

#[tokio::test]
async fn a_device_says_goodbye_and_a_killed_one_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::start(super::program(), dir.path()).await.unwrap();
    let fleet = site.fleet().unwrap();
    let is =
        |want: &'static str| move |json: &serde_json::Value| (json["state"] == want).then_some(());
    let device = format!("/api/v1/devices/{DEVICE}");
    let other = format!("/api/v1/devices/{SITE}");
    fleet.until(&device, super::SOON, is("online")).await.unwrap();
    fleet.until(&other, super::SOON, is("online")).await.unwrap();
    site.device.kill().unwrap();
    fleet.until(&device, super::SOON, is("offline")).await.unwrap();
    site.kill_and_restart_device().await.unwrap();
    fleet.until(&device, super::SOON, is("online")).await.unwrap();
    assert_eq!(site.site.stop().await.unwrap().code(), Some(0));
    fleet.until(&other, super::SOON, is("offline")).await.unwrap();
}
