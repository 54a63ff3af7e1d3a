//! The record of what left the device, on a real device below a real site.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use holdfast_tests::client::Client;
use holdfast_tests::node::Node;
use holdfast_tests::site::{Agent, DEVICE, bundles, start_agent, start_agent_with};
use serde_json::{Value, json};

const TASK: &str = "voice-commands";

struct Pair {
    dir: tempfile::TempDir,
    site: Option<Node>,
    device: Option<Node>,
    toml: String,
}

impl Pair {
    async fn start(audit: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bundles = || bundles(&[TASK]);
        let above = Agent { name: "site-1", bundles: bundles(), site: None, broker: None };
        let site = start_agent(super::program(), dir.path(), &above).await.unwrap();
        let url = format!("http://{}", site.address("api").unwrap());
        let below = Agent { name: DEVICE, bundles: bundles(), site: Some(url), broker: None };
        let toml = below.toml(dir.path()) + audit;
        let mut pair = Self { dir, site: Some(site), device: None, toml };
        pair.restart().await;
        pair
    }

    async fn restart(&mut self) {
        // It is killed.
        self.device = None;
        let started = start_agent_with(super::program(), self.dir.path(), DEVICE, &self.toml);
        self.device = Some(started.await.unwrap());
    }

    fn client(&self) -> Client {
        Client::new(self.device.as_ref().unwrap().address("api").unwrap()).unwrap()
    }

    async fn ask(&self, class: &str) -> holdfast_tests::client::Reply {
        let sample = super::sample(TASK, |_| true);
        let terms = [("holdfast-class", class), ("holdfast-escalate", "always")];
        self.client().ask(TASK, sample, &terms).await.unwrap()
    }

    fn audit(&self, args: &[&str]) -> (bool, Value) {
        // What was found wrong is printed all the same.
        let output = self.run(&[args, &["--json"]].concat());
        let said = serde_json::from_slice(&output.stdout);
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), said.unwrap_or_else(|error| panic!("{error}: {why}")))
    }

    fn run(&self, args: &[&str]) -> Output {
        let config = self.dir.path().join(format!("{DEVICE}.toml"));
        let mut command = Command::new(super::program());
        command.args(["agent", "audit"]).args(args).arg("--config").arg(config).output().unwrap()
    }

    /// What `audit ls` prints as text, and what it says beside that.
    fn list(&self, args: &[&str]) -> (String, String) {
        let output = self.run(&[&["ls"], args].concat());
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    fn file(&self) -> PathBuf {
        let folder = self.dir.path().join(DEVICE).join("audit");
        fs::read_dir(folder).unwrap().next().unwrap().unwrap().path()
    }
}

fn policy(dir: &Path, text: &str) -> String {
    let path = dir.join("other.toml");
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn what_left_is_listed_checked_and_held_against_another_policy() {
    let mut pair = Pair::start("").await;
    for class in ["internal", "confidential"] {
        assert_eq!(pair.ask(class).await.state, "answered");
    }
    let kept = pair.ask("restricted").await;
    assert_eq!(kept.state, "answered", "on the device");
    // The ends are written behind the answers.
    let listed = loop {
        let (_, listed) = pair.audit(&["ls"]);
        if listed.as_array().unwrap().iter().all(|row| !row["ended"].is_null()) {
            break listed;
        }
    };
    let rows = listed.as_array().unwrap();
    let classes: Vec<_> = rows.iter().map(|row| &row["class"]).collect();
    assert_eq!(classes, ["internal", "confidential"], "{listed}");
    let sample = super::sample(TASK, |_| true);
    for row in rows {
        assert_eq!((&row["asked"], &row["zone"]), (&json!(TASK), &json!("site")), "{row}");
        assert_eq!(row["bytes"], sample.len(), "{row}");
        assert_eq!(row["ended"]["outcome"], "answered", "{row}");
    }
    // A list that is not all of it says so.
    let (newest, beside) = pair.list(&["--limit", "1"]);
    assert!(newest.contains("confidential") && !newest.contains("internal"), "{newest}");
    assert_eq!(beside, "the newest 1 of 2; --limit N shows more, --limit 0 all\n");
    for all in [&[][..], &["--limit", "2"], &["--limit", "0"]] {
        let (listed, beside) = pair.list(all);
        assert!(listed.contains("confidential") && listed.contains("internal"), "{listed}");
        assert_eq!(beside, "", "{all:?}");
    }
    let (is_whole, before) = pair.audit(&["verify"]);
    assert!(is_whole && before["breaks"] == json!([]), "{before}");

    pair.restart().await;
    pair.ask("confidential").await;
    let (is_whole, after) =
        pair.audit(&["verify", "--seal", before["last_seal"].as_str().unwrap()]);
    assert!(is_whole && after["has_seal"] == true, "{after}");
    assert!(after["lines"].as_u64() > before["lines"].as_u64(), "{after}");

    let stricter = "[policy.farthest_zone]\nconfidential = \"device\"\n";
    let other = policy(pair.dir.path(), stricter);
    let (is_fine, would_stay) = pair.audit(&["replay", "--policy", &other]);
    assert!(!is_fine);
    assert_eq!(would_stay.as_array().unwrap().len(), 2, "{would_stay}");
    let other = policy(pair.dir.path(), "");
    assert_eq!(pair.audit(&["replay", "--policy", &other]), (true, json!([])));

    let path = pair.file();
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("\"confidential\"", "\"public\"", 1)).unwrap();
    let (is_whole, verdict) = pair.audit(&["verify"]);
    assert!(!is_whole && !verdict["breaks"].as_array().unwrap().is_empty(), "{verdict}");
}

#[tokio::test]
async fn where_a_record_is_required_nothing_goes_out_without_it() {
    let mut pair = Pair::start("\n[audit]\nrequired = true\n").await;
    assert_eq!(pair.ask("internal").await.state, "answered");
    let folder = pair.dir.path().join(DEVICE).join("audit");
    // A file in the folder's place takes no line, from root neither.
    pair.device = None;
    fs::remove_dir_all(&folder).unwrap();
    fs::write(&folder, "in the way").unwrap();
    pair.restart().await;
    let held = pair.ask("internal").await;
    assert_eq!(held.state, "held", "{}", held.why());
    assert!(held.why().contains("cannot be put on record"), "{}", held.why());
    fs::remove_file(&folder).unwrap();
    // It would go by itself within a minute.
    let again = format!("/v1/requests/{}/retry", held.id);
    pair.client().post_to(&again, Vec::new(), &[]).await.unwrap();
    let settled = pair.client().settled(&held.id, super::SOON).await.unwrap();
    assert_eq!(settled.state, "answered", "{}", settled.why());
    let (_, listed) = pair.audit(&["ls"]);
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    drop(pair.site.take());
}
