//! What is to be sent later waits on disk, and is sent then and not before.

use std::time::Duration;

use holdfast_tests::client::Client;
use holdfast_tests::link::Link;
use holdfast_tests::site::{Agent, DEVICE, SITE, bundles, start_agent, start_agent_with};
use serde_json::Value;
use tokio::time::Instant;

const ALWAYS: (&str, &str) = ("holdfast-escalate", "always");

fn wav() -> Vec<u8> {
    super::sample("voice-commands", |_| true)
}

#[tokio::test]
async fn a_request_is_not_sent_before_its_time_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let site =
        Agent { name: SITE, bundles: bundles(&["voice-commands-large"]), site: None, broker: None };
    let site = start_agent(super::program(), dir.path(), &site).await.unwrap();
    let link = Link::to(site.address("api").unwrap()).await.unwrap();
    let url = Some(format!("http://{}", link.address()));
    let device =
        Agent { name: DEVICE, bundles: bundles(&["voice-commands"]), site: url, broker: None };
    let toml = device.toml(dir.path());
    let start = || start_agent_with(super::program(), dir.path(), DEVICE, &toml);
    let mut device = start().await.unwrap();
    let client = Client::new(device.address("api").unwrap()).unwrap();

    for (term, value) in [
        ("holdfast-not-before-ms", "soon"),
        ("holdfast-not-before-ms", "2030-01-01T00:00:00Z"),
        ("holdfast-not-before-ms", "-5"),
        ("holdfast-not-before-ms", "31536000001"),
        ("holdfast-not-before-ms", "604800000"),
    ] {
        let (status, said) =
            client.post("voice-commands", wav(), &[ALWAYS, (term, value)]).await.unwrap();
        let problem: Value = serde_json::from_str(&said).unwrap();
        assert_eq!((status.as_u16(), &problem["code"]), (400, &"bad_parameter".into()), "{said}");
        assert!(said.contains("not-before-ms") && said.contains(value), "{said}");
    }

    let begun = Instant::now();
    let ask = async |ms: &str| {
        let terms = [ALWAYS, ("holdfast-not-before-ms", ms)];
        let (status, said) = client.post("voice-commands", wav(), &terms).await.unwrap();
        assert_eq!(status.as_u16(), 202, "{said}");
        serde_json::from_str::<Value>(&said).unwrap()
    };
    let soon = ask("2500").await;
    assert_eq!((&soon["state"], &soon["due_in_ms"]), (&"held".into(), &2500.into()), "{soon}");
    assert_eq!(soon["answer"]["provisional"], true, "the device's own answer comes at once");
    let codes: Vec<_> = soon["reasons"].as_array().unwrap().iter().map(|r| &r["code"]).collect();
    assert!(codes.contains(&&"not_before".into()), "{soon}");
    let late = ask("3600000").await;
    let late = late["id"].as_str().unwrap().to_owned();
    // Whom the local answer satisfies need not wait.
    let never = [("holdfast-escalate", "never"), ("holdfast-not-before-ms", "3600000")];
    assert_eq!(client.ask("voice-commands", wav(), &never).await.unwrap().state, "answered");

    device.kill().unwrap();
    let device = start().await.unwrap();
    let client = Client::new(device.address("api").unwrap()).unwrap();
    let reply = client.settled(soon["id"].as_str().unwrap(), super::SOON).await.unwrap();
    assert_eq!(reply.state, "answered", "{}", reply.why());
    assert_eq!(reply.answer.unwrap().zone, "site");
    // The device's count goes back by no more than some milliseconds in a restart.
    assert!(begun.elapsed() >= Duration::from_millis(2400), "{:?}", begun.elapsed());
    let (_, said) = client.get(&format!("/v1/requests/{late}")).await.unwrap();
    let shown: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(shown["state"], "held");
    let due = shown["due_in_ms"].as_u64().unwrap();
    assert!((3_000_000..=3_600_000).contains(&due), "{shown}");
    let (_, line) = client.get(&format!("/v1/requests/{late}/record")).await.unwrap();
    let line: Value = serde_json::from_str(&line).unwrap();
    assert!(line["due_in_ms"].as_u64().is_some_and(|exported| exported <= due), "it goes along");
}
