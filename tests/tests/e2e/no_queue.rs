//! A queue whose place on disk cannot be used, or whose journal has something else in it: said where
//! operators look, and mended by the commands.

use std::process::Command;

use holdfast_tests::client::Client;
use holdfast_tests::site::{Agent, DEVICE, bundles, start_agent};
use serde_json::Value;

use super::queue_commands::Holding;

#[tokio::test]
async fn an_agent_without_its_queue_is_ready_and_says_that_it_cannot_hold() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join(DEVICE);
    std::fs::create_dir(&state).unwrap();
    std::fs::write(state.join("queue"), b"in its place").unwrap();
    let small = bundles(&["voice-commands"]);
    let agent = Agent { name: DEVICE, bundles: small, site: None, broker: None };
    let device = start_agent(super::program(), dir.path(), &agent).await.unwrap();
    let client = Client::new(device.address("api").unwrap()).unwrap();
    let (status, said) = client.get("/readyz").await.unwrap();
    let ready: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((status.as_u16(), &ready["ready"]), (200, &true.into()), "it answers: {said}");
    assert_eq!(ready["queue"]["open"], false, "{said}");
    let why = ready["queue"]["why"].as_str().unwrap();
    assert!(why.contains("something else is in its place"), "{why}");
    let (_, metrics) = client.get("/metrics").await.unwrap();
    assert!(metrics.contains("\nholdfast_queue_open 0\n"), "{metrics}");
    let queue = || {
        let config = dir.path().join(format!("{DEVICE}.toml"));
        let mut doctor = Command::new(super::program());
        let doctor = doctor.args(["agent", "doctor", "--json", "--config"]).arg(config);
        let findings: Vec<Value> =
            serde_json::from_slice(&doctor.output().unwrap().stdout).unwrap();
        findings.into_iter().find(|finding| finding["check"] == "queue").unwrap()
    };
    let found = queue();
    assert_eq!(found["health"], "fault", "{found}");
    assert!(found["found"].as_str().unwrap().contains("nothing can be held"), "{found}");

    std::fs::remove_file(state.join("queue")).unwrap();
    let open = |ready: &Value| (ready["queue"]["open"] == true).then_some(());
    client.until("/readyz", super::SOON, open).await.unwrap();
    let (_, metrics) = client.get("/metrics").await.unwrap();
    assert!(metrics.contains("\nholdfast_queue_open 1\n"), "{metrics}");
    assert_eq!(queue()["health"], "fine");
}

#[tokio::test]
async fn what_is_no_segment_is_named_set_aside_and_stops_nothing() {
    let mut held = Holding::new().await;
    held.device.stop().await.unwrap();
    let pipe = held.segment().with_file_name("0000000000000009.seg");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let (code, said) = held.queue(&["ls"]);
    assert!(code == 0 && held.ids.iter().all(|id| said.contains(id)), "{said}");
    let (code, said) = held.queue(&["verify"]);
    assert!(code == 1 && said.contains("0000000000000009.seg is no segment"), "{said}");
    let (code, said) = held.queue(&["repair"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("0000000000000009.seg.bad-1 is no segment"), "{said}");
    assert!(said.contains("3 requests wait") && !pipe.exists(), "{said}");
    assert_eq!(held.queue(&["verify"]).0, 0);

    std::fs::remove_dir_all(held.segment().parent().unwrap()).unwrap();
    for look in ["ls", "stats", "verify"] {
        let (code, said) = held.queue(&[look]);
        assert!(code == 74 && said.contains("no folder `journal`"), "{look}: {code}, {said}");
        assert!(said.contains("queue repair"), "{look}: {said}");
    }
    let (code, said) = held.queue(&["repair"]);
    assert!(code == 1 && said.contains("the folder `journal` was gone"), "{said}");
    let lost = held.ids.iter().all(|id| said.contains(&format!("lost: request {id}")));
    assert!(lost, "{said}");
    assert_eq!(held.json(&["ls"])["held"], 0);
}
