//! `queue ls|show|cancel|stats|verify`: the same with the agent running and stopped.

use std::path::Path;
use std::process::Command;

use holdfast_tests::client::Client;
use holdfast_tests::node::Node;
use holdfast_tests::site::{Agent, DEVICE, bundles, start_agent};
use serde_json::Value;

/// A device that holds three requests for a site that is not there.
pub(super) struct Holding {
    pub(super) dir: tempfile::TempDir,
    pub(super) device: Node,
    pub(super) ids: Vec<String>,
}

impl Holding {
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (bundles, site) = (bundles(&["voice-commands"]), Some(format!("http://{nobody}")));
        let agent = Agent { name: DEVICE, bundles, site, broker: None };
        let device = start_agent(super::program(), dir.path(), &agent).await.unwrap();
        let client = Client::new(device.address("api").unwrap()).unwrap();
        let mut ids = Vec::new();
        for _ in 0..3 {
            let wav = super::sample("voice-commands", |_| true);
            let terms = [("holdfast-escalate", "always")];
            ids.push(client.ask("voice-commands", wav, &terms).await.unwrap().id);
        }
        Self { dir, device, ids }
    }

    /// Runs `queue ARGS`; returns its exit code and everything it said.
    pub(super) fn queue(&self, args: &[&str]) -> (i32, String) {
        let mut command = Command::new(super::program());
        let config = self.dir.path().join(format!("{DEVICE}.toml"));
        command.args(["agent", "queue"]).args(args).arg("--config").arg(config);
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(said).unwrap())
    }

    pub(super) fn json(&self, args: &[&str]) -> Value {
        let (code, said) = self.queue(&[args, &["--json"]].concat());
        assert_eq!(code, 0, "{args:?}: {said}");
        serde_json::from_str(&said).unwrap()
    }

    pub(super) fn segment(&self) -> std::path::PathBuf {
        let journal = self.dir.path().join(DEVICE).join("queue/journal");
        let mut files = std::fs::read_dir(journal).unwrap().map(|file| file.unwrap().path());
        files.find(|path| path.extension().is_some_and(|end| end == "seg")).unwrap()
    }
}

#[tokio::test]
async fn the_queue_is_looked_at_and_changed_with_the_agent_running_and_stopped() {
    let mut held = Holding::new().await;
    for (at, running) in [(0, true), (1, false)] {
        if !running {
            held.device.stop().await.unwrap();
        }
        let id = held.ids[at].clone();
        assert_eq!(held.json(&["stats"])["held"], 3 - at, "running: {running}");
        assert!(held.json(&["stats"])["oldest_age_ms"].is_u64());
        let shown = held.json(&["show", &id]);
        assert_eq!((&shown["state"], &shown["class"]), (&"held".into(), &"confidential".into()));
        assert_eq!(shown["answer"]["provisional"], true);
        let (code, said) = held.queue(&["cancel", &id]);
        assert_eq!((code, said.trim()), (0, format!("{id}  cancelled").as_str()));
        assert_eq!(held.json(&["show", &id])["state"], "cancelled");
        let (code, said) = held.queue(&["cancel", "the-last-one"]);
        assert_eq!(code, 64, "{said}");
        let unknown = "01890a5d-ac96-774b-bcce-b302099a8057";
        let (code, said) = held.queue(&["cancel", &id, unknown]);
        assert!(code == 1 && said.contains("is cancelled already"), "{said}");
        assert!(said.contains(unknown) && said.contains("not cancelled"), "{said}");
        let (code, said) = held.queue(&["show", "zzz"]);
        assert!(code == 64 && said.contains("see queue ls"), "{code}: {said}");
        let (code, said) = held.queue(&["show", unknown]);
        assert!(code == 1 && said.contains(unknown), "running: {running}, {code}: {said}");
        assert_eq!(held.json(&["ls"])["held"], 2 - at);
    }
}

#[tokio::test]
async fn verify_reads_every_byte_and_names_whose_are_damaged() {
    let mut held = Holding::new().await;
    let (code, said) = held.queue(&["verify"]);
    assert!(code == 69 && said.contains("in use"), "{said}");
    held.device.stop().await.unwrap();
    let found = held.json(&["verify"]);
    assert_eq!((&found["requests"], found["damage"].as_array().unwrap().len()), (&3.into(), 0));
    damage_the_last_body(&held.segment());
    let (code, said) = held.queue(&["verify"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(&held.ids[2]) && !said.contains(&held.ids[0]), "{said}");
    // Who asks for that one is told where it is and what to do.
    let (code, said) = held.queue(&["show", &held.ids[2]]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(&format!("request {} is damaged on disk", held.ids[2])), "{said}");
    assert!(said.contains("segment 1, offset ") && said.contains("`queue repair`"), "{said}");
    let (code, said) = held.queue(&["show", "01890a5d-ac96-774b-bcce-b302099a8057"]);
    assert!(code == 1 && said.contains("is not known here"), "{said}");
    assert!(said.contains("in one of the damaged parts"), "{said}");
    assert_eq!(held.queue(&["show", &held.ids[0]]).0, 0);
}

/// Flips a bit in the middle of what was written last.
pub(super) fn damage_the_last_body(segment: &Path) {
    let mut bytes = std::fs::read(segment).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end - 1000] ^= 1;
    std::fs::write(segment, bytes).unwrap();
}
