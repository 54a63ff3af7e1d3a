//! A bad bundle is refused with every fault, and the others serve.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use holdfast_tests::client::Client;
use holdfast_tests::reference;
use holdfast_tests::site::{Agent, DEVICE, start_agent};

/// A copy of a shipped bundle, to be damaged.
pub(super) fn copy(name: &str, to: &Path) -> PathBuf {
    let target = to.join(name);
    copy_folder(&reference::bundles().join(name), &target);
    target
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap().path();
        let target = to.join(entry.file_name().unwrap());
        if entry.is_dir() {
            copy_folder(&entry, &target);
        } else {
            std::fs::copy(&entry, &target).unwrap();
        }
    }
}

fn infer(bundles: &Path, file: &Path) -> Output {
    Command::new(super::program())
        .args(["agent", "infer", "voice-commands"])
        .arg(file)
        .args(["--json", "--bundles"])
        .arg(bundles)
        .output()
        .unwrap()
}

fn a_sample() -> PathBuf {
    let dir = reference::bundles().join("voice-commands");
    holdfast_tests::samples::of_bundle(&dir).unwrap().remove(0).path
}

#[test]
fn infer_answers_without_a_server_and_says_what_is_wrong_with_a_file() {
    let output = infer(&reference::bundles().join("voice-commands"), &a_sample());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(rows[0]["confidence"].as_f64().is_some_and(|c| (0.0..=1.0).contains(&c)), "{rows}");
    let output = infer(&reference::bundles().join("voice-commands"), Path::new("no-such.wav"));
    assert_eq!(output.status.code(), Some(1));
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(rows[0]["error"].as_str().unwrap().contains("cannot read it"), "{rows}");
}

#[test]
fn each_damage_is_refused_with_a_sentence_that_names_it() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage, &[&str]); 5] = [
        ("a model with other bytes", |dir| damage_model(dir), &["sha256"]),
        ("a missing file", |dir| std::fs::remove_file(model_of(dir)).unwrap(), &[".onnx"]),
        ("an unknown key", |dir| prepend(dir, "colour = \"blue\"\n"), &["colour"]),
        (
            "no TOML at all",
            |dir| std::fs::write(dir.join("bundle.toml"), "= =").unwrap(),
            &["bundle.toml"],
        ),
        (
            "two faults",
            |dir| {
                prepend(dir, "colour = \"blue\"\n");
                damage_model(dir)
            },
            &["colour", "sha256"],
        ),
    ];
    for (case, damage, expected) in damages {
        let dir = tempfile::tempdir().unwrap();
        damage(&copy("voice-commands", dir.path()));
        let output = infer(dir.path(), &a_sample());
        assert_eq!(output.status.code(), Some(69), "{case}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(expected.iter().all(|part| said.contains(part)), "{case}: {said}");
        assert!(!said.contains("panicked"), "{case}: {said}");
    }
}

fn model_of(dir: &Path) -> PathBuf {
    let models = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut models: Vec<_> =
        models.filter(|path| path.extension().is_some_and(|e| e == "onnx")).collect();
    models.sort();
    models.remove(0)
}

fn damage_model(dir: &Path) {
    let file = model_of(dir);
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

fn prepend(dir: &Path, line: &str) {
    let file = dir.join("bundle.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(file, format!("{line}{text}")).unwrap();
}

#[tokio::test]
async fn a_bad_bundle_leaves_the_others_in_service() {
    let dir = tempfile::tempdir().unwrap();
    let bad = copy("voice-commands", dir.path());
    damage_model(&bad);
    let good = reference::bundles().join("part-inspection");
    let agent = Agent { name: DEVICE, bundles: vec![bad, good], site: None, broker: None };
    let device = start_agent(super::program(), dir.path(), &agent).await.unwrap();
    let client = Client::new(device.address("api").unwrap()).unwrap();
    let (status, ready) = client.get("/readyz").await.unwrap();
    assert_eq!(status, 200, "{ready}");
    let json: serde_json::Value = serde_json::from_str(&ready).unwrap();
    let why = json["refused"][0]["why"].as_str().unwrap();
    assert!(why.contains("sha256"), "the refused bundle is reported: {ready}");
    let picture = super::sample("part-inspection", |_| true);
    client.ask("part-inspection", picture, &[]).await.unwrap();
}
