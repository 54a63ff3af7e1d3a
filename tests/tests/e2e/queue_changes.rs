//! `queue ls --state|retry|drop|export|import|repair`: the same with the agent running and stopped.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use holdfast_agent::queue::{Queue, QueueConfig, State};
use holdfast_tests::client::Client;
use holdfast_tests::link::{Link, Weather};
use holdfast_tests::site::{Agent, DEVICE, SITE, bundles, start_agent};
use serde_json::Value;

use super::queue_commands::{Holding, damage_the_last_body};

const UNKNOWN: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

fn state_of(held: &Holding, id: &str) -> Value {
    held.json(&["show", id])["state"].clone()
}

/// Sets a request of a stopped queue aside, as one that was tried too often is.
async fn set_aside(held: &Holding) -> String {
    let dir = held.dir.path().join(DEVICE).join("queue");
    let (queue, _) = Queue::open(&dir, QueueConfig::default()).unwrap();
    let lease = queue.lease_next(u64::MAX).await.unwrap().unwrap();
    queue.set_aside(lease.id(), "tried too often").await.unwrap();
    queue.close().await.unwrap();
    lease.id().to_string()
}

async fn restart(held: &mut Holding) {
    let toml = std::fs::read_to_string(held.dir.path().join(format!("{DEVICE}.toml"))).unwrap();
    let started = holdfast_tests::site::start_agent_with;
    held.device = started(super::program(), held.dir.path(), DEVICE, &toml).await.unwrap();
}

#[tokio::test]
async fn requests_that_were_set_aside_are_retried() {
    let mut held = Holding::new().await;
    held.device.stop().await.unwrap();
    for running in [false, true] {
        let id = set_aside(&held).await;
        if running {
            restart(&mut held).await;
        }
        assert_eq!(state_of(&held, &id), "set_aside", "running: {running}");
        let listed = held.json(&["ls", "--state", "set_aside"]);
        assert_eq!(listed["requests"].as_array().unwrap().len(), 1, "{listed}");
        assert_eq!(listed["requests"][0]["id"], *id);
        assert_eq!(listed["set_aside"], 1, "{listed}");
        let (code, said) = held.queue(&["retry", UNKNOWN]);
        assert!(code == 1 && said.contains(UNKNOWN), "{code}: {said}");
        let done = held.json(&["retry", "--all-set-aside"]);
        assert_eq!(done, serde_json::json!([{ "id": id, "retried": true }]));
        assert_eq!(state_of(&held, &id), "held", "running: {running}");
        let (code, said) = held.queue(&["retry", "--all-set-aside"]);
        assert_eq!((code, said.trim()), (0, "there is none"));
        let (code, said) = held.queue(&["retry", &id]);
        assert_eq!((code, said.trim()), (0, format!("{id}  retried").as_str()));
    }
    let (code, said) = held.queue(&["retry"]);
    assert_eq!(code, 64, "{said}");
    let (code, said) = held.queue(&["ls", "--state", "lost"]);
    assert!(code == 64 && said.contains("waiting_for_budget"), "{said}");
}

#[tokio::test]
async fn what_is_dropped_is_named_and_gone() {
    let mut held = Holding::new().await;
    for (at, running) in [(0, true), (1, false)] {
        if !running {
            held.device.stop().await.unwrap();
        }
        let id = held.ids[at].clone();
        // Nobody can be asked here.
        let (code, said) = held.queue(&["drop", &id]);
        assert!(code == 64 && said.contains("--yes"), "{code}: {said}");
        assert_eq!(state_of(&held, &id), "held");
        let (code, said) = held.queue(&["drop", "--yes", &id, UNKNOWN]);
        assert_eq!(code, 1, "{said}");
        let lost = "dropped: it was held, task voice-commands, class confidential";
        assert!(said.contains(&format!("{id}  {lost}")), "{said}");
        assert!(said.contains(&format!("{UNKNOWN}  not dropped")), "{said}");
        let (code, said) = held.queue(&["show", &id]);
        assert!(code == 1 && said.contains(&id), "{code}: {said}");
        assert_eq!(held.json(&["ls"])["held"], 2 - at);
    }
    restart(&mut held).await;
    let id = held.ids[2].clone();
    held.json(&["cancel", &id]);
    let done = held.json(&["drop", "--state", "cancelled", "--yes"]);
    assert_eq!((&done[0]["id"], &done[0]["was"]), (&id.into(), &"cancelled".into()));
    let stats = held.json(&["stats"]);
    assert_eq!((&stats["held"], &stats["cancelled"]), (&0.into(), &0.into()), "{stats}");
}

/// A device with its own state beside the one that holds, which knows the site at `url`.
fn other_device(held: &Holding, url: String) -> PathBuf {
    let dir = held.dir.path().join("other");
    std::fs::create_dir_all(&dir).unwrap();
    let bundles = bundles(&["voice-commands"]);
    let agent = Agent { name: DEVICE, bundles, site: Some(url), broker: None };
    std::fs::write(dir.join(format!("{DEVICE}.toml")), agent.toml(&dir)).unwrap();
    dir
}

fn queue_of(dir: &Path, args: &[&str]) -> (i32, String) {
    queue_with(dir, args, Stdio::null())
}

fn queue_with(dir: &Path, args: &[&str], stdin: Stdio) -> (i32, String) {
    let config = dir.join(format!("{DEVICE}.toml"));
    let mut command = std::process::Command::new(super::program());
    command.args(["agent", "queue"]).args(args).arg("--config").arg(config);
    let output = command.stdin(stdin).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn what_is_exported_is_imported_once_and_answered_under_its_id() {
    let mut held = Holding::new().await;
    let sample = super::sample("voice-commands", |_| true);
    let mut exports = Vec::new();
    for running in [true, false] {
        if !running {
            held.device.stop().await.unwrap();
        }
        let file = held.dir.path().join(format!("export-{running}.jsonl"));
        let done = held.json(&["export", "--output", file.to_str().unwrap()]);
        assert_eq!(done["requests"], 3, "{done}");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&file).unwrap();
        let lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.first().unwrap(), &serde_json::json!({ "holdfast_export": 1 }));
        assert_eq!(lines.last().unwrap(), &serde_json::json!({ "requests": 3 }));
        for (line, id) in lines[1..4].iter().zip(&held.ids) {
            assert_eq!(line["id"], **id);
            assert_eq!(STANDARD.decode(line["body"].as_str().unwrap()).unwrap(), sample);
        }
        // A link leads to where it is to be.
        let link = held.dir.path().join(format!("link-{running}"));
        std::os::unix::fs::symlink(&file, &link).unwrap();
        std::fs::write(&file, "older").unwrap();
        held.json(&["export", "--output", link.to_str().unwrap()]);
        assert!(link.is_symlink(), "it is not replaced");
        assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 5);
        let left = std::fs::read_dir(held.dir.path()).unwrap().flatten();
        let left: Vec<_> = left.map(|entry| entry.file_name().into_string().unwrap()).collect();
        assert!(!left.iter().any(|name| name.contains(".part")), "{left:?}");
        exports.push(file);
        let (code, said) = held.queue(&["export", "--state", "set_aside"]);
        assert!(code == 0 && said.starts_with("{\"holdfast_export\":1}\n{\"requests\":0}\n"));
    }
    // It is all there already.
    let (code, said) = held.queue(&["import", exports[0].to_str().unwrap()]);
    assert!(code == 0 && said.contains("0 requests imported, 3 were there already"), "{said}");

    let site =
        Agent { name: SITE, bundles: bundles(&["voice-commands-large"]), site: None, broker: None };
    let site = start_agent(super::program(), held.dir.path(), &site).await.unwrap();
    let link = Link::to(site.address("api").unwrap()).await.unwrap();
    link.set(Weather::Cut);
    let dir = other_device(&held, format!("http://{}", link.address()));
    // Two into a queue that is not there yet, the others into a running agent.
    let file = exports[0].to_str().unwrap();
    let (code, said) = queue_of(&dir, &["import", file]);
    assert!(code == 0 && said.contains("3 requests imported, 0 were there already"), "{said}");
    let (code, said) = queue_of(&dir, &["drop", "--yes", &held.ids[0]]);
    assert_eq!(code, 0, "{said}");
    let toml = std::fs::read_to_string(dir.join(format!("{DEVICE}.toml"))).unwrap();
    let start = holdfast_tests::site::start_agent_with;
    let device = start(super::program(), &dir, DEVICE, &toml).await.unwrap();
    // Through a pipe, as from another machine.
    let mut cat = std::process::Command::new("cat");
    let mut cat = cat.arg(&exports[1]).stdout(Stdio::piped()).spawn().unwrap();
    let pipe = Stdio::from(cat.stdout.take().unwrap());
    let (code, said) = queue_with(&dir, &["import", "-"], pipe);
    assert!(cat.wait().unwrap().success());
    assert!(code == 0 && said.contains("1 requests imported, 2 were there already"), "{said}");
    link.set(Weather::Up);
    let client = Client::new(device.address("api").unwrap()).unwrap();
    for id in &held.ids {
        let reply = client.settled(id, super::SOON).await.unwrap();
        assert_eq!(reply.state, "answered", "{}", reply.why());
        assert_eq!(reply.answer.unwrap().zone, "site");
    }
}

#[tokio::test]
async fn an_export_that_does_not_read_whole_is_not_imported_at_all() {
    let mut held = Holding::new().await;
    held.device.stop().await.unwrap();
    let file = held.dir.path().join("export.jsonl");
    held.json(&["export", "-o", file.to_str().unwrap()]);
    let whole = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let dir = other_device(&held, "http://127.0.0.1:1".to_owned());
    let altered = |at: usize, from: &str, to: &str| {
        let mut lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
        lines[at] = lines[at].replacen(from, to, 1);
        lines.join("\n") + "\n"
    };
    let with = |field: &str, value: &str| {
        let at = lines[2].find(field).unwrap() + field.len() + 2;
        let old = lines[2][at..].split(',').next().unwrap();
        altered(2, &format!("\"{field}\":{old}"), &format!("\"{field}\":{value}"))
    };
    let without = |at: usize| {
        let mut lines = lines.clone();
        lines.remove(at);
        lines.join("\n") + "\n"
    };
    for (name, text, line) in [
        ("empty", String::new(), "line 1: the file ends"),
        ("no export", "{}\n".to_owned(), "line 1: this is no export"),
        ("of tomorrow", altered(0, ":1", ":2"), "line 1: this is an export of version 2"),
        ("cut in a line", whole[..whole.len() * 2 / 3].to_owned(), "the line has no end"),
        ("cut between lines", without(4), "line 5: the file ends"),
        ("a line less", without(2), "line 4: 3 requests were exported, 2 are here"),
        ("another body", altered(3, "\"body\":\"UklG", "\"body\":\"VklG"), "line 4: its bytes"),
        ("no base64", altered(3, "\"body\":\"UklG", "\"body\":\"*klG"), "line 4: its body"),
        (
            "another field",
            altered(2, "\"priority\"", "\"class\":\"public\",\"priority\""),
            "line 3: unknown field `class`",
        ),
        ("a priority beyond", with("priority", "99"), "line 3: its priority is 99, must be 0..=9"),
        (
            "a priority far beyond",
            with("priority", "1e30"),
            "line 3: its priority is 1e+30, must be 0..=9",
        ),
        (
            "a priority in words",
            with("priority", "\"high\""),
            "line 3: its priority is \"high\", must be 0",
        ),
        (
            "no priority",
            altered(2, "\"priority\"", "\"priorty\""),
            "line 3: unknown field `priorty`",
        ),
        (
            "an age near the end of time",
            with("age_ms", "18446744073709551615"),
            "line 3: its age_ms is 18446",
        ),
        (
            "an age beyond it",
            with("age_ms", "18446744073709551616"),
            "line 3: its age_ms is 1.8446",
        ),
        ("an age before its birth", with("age_ms", "-1"), "line 3: its age_ms is -1, must be 0..="),
        (
            "much time left",
            with("left_ms", "18446744073709551000"),
            "line 3: its left_ms is 18446744073709551000",
        ),
        ("an id that is none", altered(2, "\"id\":\"", "\"id\":\"x"), "line 3: its id is \"x"),
        ("a line that is no JSON", altered(2, ":", ";"), "line 3: "),
    ] {
        std::fs::write(&file, text).unwrap();
        let (code, said) = queue_of(&dir, &["import", file.to_str().unwrap()]);
        assert!(code == 1 && said.contains(line), "{name}: {code}: {said}");
        assert!(said.contains("nothing was imported"), "{name}: {said}");
        assert!(!said.contains(" at line "), "one line is named, that of the file: {name}: {said}");
        assert!(!dir.join(DEVICE).join("queue").exists(), "{name}");
    }
    let (code, said) = queue_of(&dir, &["import", "no-such-file"]);
    assert!(code == 69 && said.contains("no-such-file"), "{code}: {said}");
    let (code, said) = held.queue(&["export", "-o", "/proc/no-such-folder/export"]);
    assert!(code == 74 && said.contains("cannot write"), "{code}: {said}");
}

#[tokio::test]
async fn an_export_goes_into_a_pipe_with_a_name() {
    let mut held = Holding::new().await;
    let pipe = held.dir.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    if !made.is_ok_and(|status| status.success()) {
        return println!("LEFT OUT: an export into a pipe with a name (mkfifo does not work here)");
    }
    for running in [true, false] {
        if !running {
            held.device.stop().await.unwrap();
        }
        let read = std::thread::spawn({
            let pipe = pipe.clone();
            move || std::fs::read_to_string(pipe).unwrap()
        });
        let done = held.json(&["export", "--output", pipe.to_str().unwrap()]);
        let text = read.join().unwrap();
        assert_eq!(done["requests"], 3, "running: {running}");
        assert_eq!(done["bytes"], text.len(), "running: {running}");
        assert_eq!((text.lines().count(), text.lines().last()), (5, Some("{\"requests\":3}")));
        let kind = std::fs::symlink_metadata(&pipe).unwrap().file_type();
        assert!(std::os::unix::fs::FileTypeExt::is_fifo(&kind), "it is still a pipe");
    }
}

#[tokio::test]
async fn a_record_that_is_posted_to_a_running_agent_is_taken_in_or_refused_by_its_field() {
    let held = Holding::new().await;
    let client = Client::new(held.device.address("api").unwrap()).unwrap();
    let (_, line) = client.get(&format!("/v1/requests/{}/record", held.ids[0])).await.unwrap();
    let line: Value = serde_json::from_str(&line).unwrap();
    let other = |field: &str, value: Value| {
        let mut line = line.clone();
        line[field] = value;
        line.to_string()
    };
    for (body, status, want) in [
        (other("priority", 99.into()), 422, "its priority is 99, must be 0..=9"),
        (other("age_ms", u64::MAX.into()), 422, "its age_ms is 18446744073709551615"),
        (other("left_ms", "soon".into()), 422, "its left_ms is \\\"soon\\\""),
        (other("sha256", "00".into()), 422, "its bytes do not match"),
        ("{".to_owned(), 422, "EOF while parsing"),
        (line.to_string(), 200, "\"known\":true"),
    ] {
        let (got, said) = client.post_to("/v1/queue/records", body.into(), &[]).await.unwrap();
        assert!(got.as_u16() == status && said.contains(want), "{want}: {got}: {said}");
        assert!(!said.contains(" at line "), "{said}");
    }
    assert_eq!(held.json(&["stats"])["held"], 3, "nothing was changed");
    held.json(&["drop", "--yes", &held.ids[0]]);
    let (got, said) =
        client.post_to("/v1/queue/records", line.to_string().into(), &[]).await.unwrap();
    assert!(got.as_u16() == 200 && said.contains("\"known\":false"), "{said}");
    assert_eq!(state_of(&held, &held.ids[0]), "held");
}

#[tokio::test]
async fn repair_names_what_is_lost_and_leaves_a_good_queue() {
    let mut held = Holding::new().await;
    let (code, said) = held.queue(&["repair"]);
    assert!(code == 69 && said.contains("in use"), "{code}: {said}");
    held.device.stop().await.unwrap();
    let (code, said) = held.queue(&["repair"]);
    assert!(code == 0 && said.contains("3 requests wait"), "{code}: {said}");
    damage_the_last_body(&held.segment());
    let was = std::fs::read(held.segment()).unwrap();
    assert_eq!(held.queue(&["verify"]).0, 1);
    // Of what is damaged there is nothing whole to export.
    let file = held.dir.path().join("export.jsonl");
    let (code, said) = held.queue(&["export", "-o", file.to_str().unwrap()]);
    assert!(said.contains("2 requests exported"), "{code}: {said}");
    let (code, said) = held.queue(&["repair"]);
    assert!(code == 1 && said.contains(&format!("lost: request {}", held.ids[2])), "{said}");
    assert!(said.contains("2 requests wait"), "{said}");
    let kept = held.segment().with_extension("seg.bad-1");
    assert_eq!(std::fs::read(kept).unwrap(), was, "the segment as it was");
    let found = held.json(&["verify"]);
    assert_eq!((&found["requests"], found["damage"].as_array().unwrap().len()), (&2.into(), 0));
    for id in &held.ids[..2] {
        assert_eq!(state_of(&held, id), "held");
    }
    restart(&mut held).await;
    assert_eq!(held.json(&["stats"])["held"], 2);
    let listed = held.json(&["ls"]);
    assert!(
        listed["requests"].as_array().unwrap().iter().all(|row| row["state"] == State::Held.name())
    );
}

#[test]
fn completions_know_the_commands() {
    let mut command = std::process::Command::new(super::program());
    let output = command.args(["agent", "completions", "bash"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    for word in ["set_aside", "export", "import", "repair", "all-set-aside"] {
        assert!(said.contains(word), "{word}");
    }
}
