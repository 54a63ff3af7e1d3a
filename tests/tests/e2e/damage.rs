//! An agent whose store is damaged, or cannot be written: it runs, answers, and says what is wrong.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use holdfast_tests::client::Client;
use holdfast_tests::node::Node;
use holdfast_tests::site::{Agent, DEVICE, bundles, start_agent_with};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::disk::SmallDisk;
use super::queue_commands::Holding;

/// How many damaged states are started.
fn cases() -> u64 {
    let given = std::env::var("HOLDFAST_DAMAGED_AGENTS").ok().and_then(|given| given.parse().ok());
    given.unwrap_or(6)
}

fn wav() -> Vec<u8> {
    super::sample("voice-commands", |_| true)
}

async fn start(dir: &Path, toml: &str) -> anyhow::Result<Node> {
    start_agent_with(super::program(), dir, DEVICE, toml).await
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// Cuts, overwrites or deletes one file.
fn harm(path: &Path, random: &mut StdRng) -> String {
    let mut bytes = std::fs::read(path).unwrap();
    let at = random.random_range(0..=bytes.len());
    let what = random.random_range(0..4);
    match what {
        0 => bytes.truncate(at),
        1 => bytes.iter_mut().skip(at).take(700).for_each(|byte| *byte = random.random()),
        2 => random.fill_bytes(&mut bytes),
        _ => {
            std::fs::remove_file(path).unwrap();
            return format!("{} deleted", path.display());
        }
    }
    std::fs::write(path, bytes).unwrap();
    format!("{} harmed in way {what} at {at}", path.display())
}

#[tokio::test]
async fn agent_with_damaged_state_runs_and_answers() {
    let given = std::env::var("HOLDFAST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = given.unwrap_or_else(rand::random);
    println!("HOLDFAST_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut held = Holding::new().await;
    held.device.stop().await.unwrap();
    let state = held.dir.path().join(DEVICE);
    let good = held.dir.path().join("good");
    copy(&state, &good);
    let toml = std::fs::read_to_string(held.dir.path().join(format!("{DEVICE}.toml"))).unwrap();
    for case in 0..cases() {
        std::fs::remove_dir_all(&state).unwrap();
        copy(&good, &state);
        let all = files(&state);
        let mut done = Vec::new();
        for _ in 0..=random.random_range(0..3) {
            let path = &all[random.random_range(0..all.len())];
            if path.exists() {
                done.push(harm(path, &mut random));
            }
        }
        let name = format!("HOLDFAST_SEED={seed}, case {case}: {done:#?}");
        let mut device =
            start(held.dir.path(), &toml).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let client = Client::new(device.address("api").unwrap()).unwrap();
        let never = [("holdfast-escalate", "never")];
        let local = client.ask("voice-commands", wav(), &never).await;
        assert_eq!(local.unwrap_or_else(|error| panic!("{name}: {error}")).state, "answered");
        let always = [("holdfast-escalate", "always")];
        let more = client.ask("voice-commands", wav(), &always).await;
        let more = more.unwrap_or_else(|error| panic!("{name}: {error}\n{}", device.log_tail()));
        assert_eq!(more.state, "held", "{name}");
        assert_eq!(device.stop().await.unwrap().code(), Some(0), "{name}");
        assert!(!device.log_tail().contains("panicked"), "{name}: {}", device.log_tail());
        // Whatever is still wrong with it can be repaired, and then nothing is.
        let (code, said) = held.queue(&["repair"]);
        assert!(matches!(code, 0 | 1), "{name}: {code}: {said}");
        let (code, said) = held.queue(&["verify"]);
        assert_eq!(code, 0, "{name}: {said}");
        let (code, said) = held.queue(&["show", &more.id]);
        assert_eq!(code, 0, "{name}: {said}");
    }
    println!("FAULTS | agent, damaged state | {} starts | all ran, answered, held", cases());
}

#[tokio::test]
async fn on_a_read_only_disk_the_agent_answers_and_holds_again_when_it_can() {
    let Some(disk) = SmallDisk::of_bytes("an agent on a read-only disk", 24) else { return };
    let dir = tempfile::tempdir().unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let site = Some(format!("http://{nobody}"));
    let agent = Agent { name: DEVICE, bundles: bundles(&["voice-commands"]), site, broker: None };
    let state = disk.path().join("state").display().to_string();
    let toml = agent
        .toml(dir.path())
        .replace(&dir.path().join(DEVICE).display().to_string(), &state)
        .replace("segment_mib = 4", "segment_mib = 4\nheadroom_mib = 1\nheadroom_inodes = 4");
    let always = [("holdfast-escalate", "always")];
    let mut device = start(dir.path(), &toml).await.unwrap();
    let client = Client::new(device.address("api").unwrap()).unwrap();
    let held = client.ask("voice-commands", wav(), &always).await.unwrap();
    device.stop().await.unwrap();
    assert!(disk.remount("remount,ro"));

    // What is there can be looked at, and taken elsewhere, but not changed.
    let config = dir.path().join(format!("{DEVICE}.toml"));
    let queue = |args: &[&str]| -> Output {
        let mut command = Command::new(super::program());
        command.args(["agent", "queue"]).args(args).arg("--config").arg(&config);
        command.output().unwrap()
    };
    for (args, want) in [
        (&["ls"][..], 0),
        (&["show", &held.id], 0),
        (&["verify"], 0),
        (&["export"], 0),
        (&["cancel", &held.id], 74),
        (&["repair"], 74),
    ] {
        let output = queue(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(want), "{args:?}: {said}");
        assert!(want == 0 || said.contains("mount it writable"), "{args:?}: {said}");
    }
    let note = disk.path().join("state/api.json");
    let is_noted = |device: &Node| {
        let address = device.address("api").unwrap().to_string();
        std::fs::read_to_string(&note).is_ok_and(|text| text.contains(&address))
    };
    let mut device = start(dir.path(), &toml).await.unwrap();
    assert!(!is_noted(&device), "nothing can be written");
    let client = Client::new(device.address("api").unwrap()).unwrap();
    let reply = client.ask("voice-commands", wav(), &[("holdfast-escalate", "never")]).await;
    assert_eq!(reply.unwrap().state, "answered");
    let (status, text) = client.post("voice-commands", wav(), &always).await.unwrap();
    assert_eq!(status.as_u16(), 503, "{text}");
    assert!(text.contains("no_queue") && text.contains("mount it writable"), "{text}");
    assert!(disk.remount("remount,rw"));
    let until = tokio::time::Instant::now() + super::SOON;
    while client.post("voice-commands", wav(), &always).await.unwrap().0.as_u16() != 202 {
        assert!(tokio::time::Instant::now() < until, "it does not hold again");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let reply = client.look_up(&held.id, std::time::Duration::ZERO).await.unwrap();
    assert_eq!(reply.state, "held");
    // The commands find it, as soon as it could be noted where it is.
    while !is_noted(&device) {
        assert!(tokio::time::Instant::now() < until, "its address is not noted");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let output = queue(&["show", &held.id]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(device.stop().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_request_whose_record_is_damaged_is_410() {
    let mut held = Holding::new().await;
    held.device.stop().await.unwrap();
    // In the meta, behind the id in the record's header.
    let id = holdfast_agent::queue::RequestId::parse(&held.ids[1]).unwrap().uuid();
    let segment = held.segment();
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(16).position(|window| window == id.as_bytes()).unwrap();
    bytes[at + 24 + 40] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let toml = std::fs::read_to_string(held.dir.path().join(format!("{DEVICE}.toml"))).unwrap();
    held.device = start(held.dir.path(), &toml).await.unwrap();
    let client = Client::new(held.device.address("api").unwrap()).unwrap();
    for path in ["", "?wait_ms=1"] {
        let (status, said) =
            client.get(&format!("/v1/requests/{}{path}", held.ids[1])).await.unwrap();
        let problem: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!((status.as_u16(), &problem["code"]), (410, &"damaged".into()), "{said}");
        assert!(said.contains("send it again under a new key"), "{said}");
    }
    let (code, said) = held.queue(&["show", &held.ids[1]]);
    assert!(code == 1 && said.contains("damaged"), "{code}: {said}");
    for id in [&held.ids[0], &held.ids[2]] {
        let reply = client.look_up(id, std::time::Duration::ZERO).await.unwrap();
        assert_eq!(reply.state, "held", "no other is any the worse for it");
    }
}
