//! `models golden`: the golden outputs of a bundle, made anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use holdfast_models::Bundle;
use holdfast_tests::reference;
use serde_json::Value;

/// Runs the agent without ONNX Runtime; its exit code, stdout and stderr.
fn agent(args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(super::program());
    command.arg("agent").args(args).env("HOLDFAST_MODELS__ONNXRUNTIME", "off");
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn made(dir: &Path) -> Value {
    let (code, said, told) = agent(&["models", "golden", dir.to_str().unwrap(), "--json"]);
    assert_eq!(code, 0, "{said}{told}");
    serde_json::from_str(&said).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

fn whole(dir: &Path) -> Bundle {
    Bundle::open(dir).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn goldens_follow_a_bundle_that_was_edited() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = super::bundles::copy("voice-commands", dir.path());
    let manifest = bundle.join("bundle.toml");
    let before = names(&bundle);
    let said = made(&bundle);
    let goldens = said["goldens"].as_array().unwrap();
    assert_eq!(goldens.len(), 2 * whole(&bundle).samples().len(), "{said}");
    // The same front end on another runtime: near, and not over the tolerance.
    for golden in goldens {
        let (off, tolerance) = (golden["off"].as_f64(), golden["tolerance"].as_f64().unwrap());
        assert!(off.is_some_and(|off| off <= tolerance), "{golden}");
        assert_eq!(golden["runtime"], "tract");
    }
    assert_eq!(names(&bundle), before, "every other file is still there");

    // Another front end gives other outputs; what a person wrote beside it stays.
    let text = fs::read_to_string(&manifest).unwrap();
    let line = text.lines().find(|line| line.starts_with("mel_high_hz")).unwrap();
    let edited = text.replace(line, "# as of today\nmel_high_hz = 2000.0");
    fs::write(&manifest, &edited).unwrap();
    let (code, _, told) = agent(&["models", "bench", bundle.to_str().unwrap(), "--json"]);
    assert_eq!(code, 1, "its goldens are not those of this front end: {told}");
    let said = made(&bundle);
    let offs = said["goldens"].as_array().unwrap().iter().map(|golden| &golden["off"]);
    assert!(offs.clone().any(|off| off.as_f64().unwrap() > 0.001), "{said}");
    let after = fs::read_to_string(&manifest).unwrap();
    let differs: Vec<_> = after.lines().zip(edited.lines()).filter(|(a, b)| a != b).collect();
    assert!(differs.len() <= 2, "only size and hash follow: {differs:?}");
    assert!(after.contains("# as of today\n"), "{after}");
    whole(&bundle);
    let again = made(&bundle);
    for golden in again["goldens"].as_array().unwrap() {
        assert_eq!(golden["off"], 0.0, "the same again: {golden}");
    }
    let (code, said, _) = agent(&["models", "golden", bundle.to_str().unwrap()]);
    assert!(code == 0 && said.contains("CHANGED BY") && said.contains("its hash in"), "{said}");
    assert_eq!(names(dir.path()), ["voice-commands"], "nothing is left beside it");
}

#[test]
fn goldens_that_are_damaged_or_gone_are_made() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = super::bundles::copy("voice-commands", dir.path());
    let golden = bundle.join("golden.toml");
    fs::write(&golden, "golden = 7").unwrap();
    Bundle::open(&bundle).unwrap_err();
    let said = made(&bundle);
    assert_eq!(said["goldens"][0]["off"], Value::Null, "there was nothing to compare: {said}");
    whole(&bundle);
    // Not even listed, as after a first draft.
    fs::remove_file(&golden).unwrap();
    let manifest = bundle.join("bundle.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    let at = text.find("path = \"golden.toml\"").unwrap();
    let begin = text[..at].rfind("[[file]]").unwrap();
    let end = text[at..].find("[[").map_or(text.len(), |next| at + next);
    fs::write(&manifest, [&text[..begin], &text[end..]].concat()).unwrap();
    made(&bundle);
    whole(&bundle);
    // A golden of a file that is no sample any more is told to be gone.
    let text = fs::read_to_string(&golden).unwrap();
    assert!(text.starts_with("# Made by"), "{text}");
}

#[test]
fn a_bundle_that_does_not_check_otherwise_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    type Damage = fn(&Path);
    let damages: [(&str, Damage, i32, &str); 5] = [
        ("a key", |dir| edit(dir, "format = 1", "format = 1\ncolour = 1"), 1, "colour"),
        ("a model", |dir| fs::write(dir.join("model.int8.onnx"), "short").unwrap(), 1, "int8.onnx"),
        ("no sample", |dir| fs::remove_dir_all(dir.join("samples")).unwrap(), 1, "samples/"),
        ("a shape", |dir| edit(dir, "mel_bands = 40", "mel_bands = 39"), 1, "input[0]"),
        ("nothing", |dir| fs::remove_dir_all(dir).unwrap(), 69, "name a bundle's folder"),
    ];
    for (case, damage, want, why) in damages {
        let bundle = super::bundles::copy("voice-commands", &dir.path().join(case));
        damage(&bundle);
        let golden = fs::read(bundle.join("golden.toml")).ok();
        let (code, said, told) = agent(&["models", "golden", bundle.to_str().unwrap()]);
        assert_eq!(code, want, "{case}: {said}{told}");
        assert!(told.contains(why) && said.is_empty(), "{case}: {told}");
        assert_eq!(fs::read(bundle.join("golden.toml")).ok(), golden, "{case}");
        assert!(names(&dir.path().join(case)).len() <= 1, "{case}: nothing is left beside it");
    }
    let bundle = super::bundles::copy("voice-commands", dir.path());
    let path = bundle.to_str().unwrap();
    let (code, _, told) = agent(&["models", "golden", path, "--runtime", "torch"]);
    assert!(code == 64 && told.contains("onnxruntime"), "{code} {told}");
    let (code, _, told) = agent(&["models", "golden", path, "--runtime", "onnxruntime"]);
    assert!(code == 1 && told.contains("nothing is changed"), "{code} {told}");
}

fn edit(dir: &Path, from: &str, to: &str) {
    let manifest = dir.join("bundle.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    assert!(text.contains(from), "{from}");
    fs::write(&manifest, text.replacen(from, to, 1)).unwrap();
}

/// A recording is a sample of a model that takes features of it, as soon as somebody has written how
/// they are made.
#[test]
fn a_recording_for_a_model_of_features_serves_once_its_front_end_is_written() {
    let Some(reference) = reference::reference("a bundle of features, finished by hand") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("words");
    let path = |name: &str| reference.join(name).to_str().unwrap().to_owned();
    let wav = path("data/kws_wav/down__8ec6dab6_nohash_0.wav");
    let (model, labels) = (path("models/kws_dscnn_fp32.onnx"), path("models/kws_labels.txt"));
    let folder = to.to_str().unwrap();
    let more = ["--labels", &labels, "--sample", &wav, "--label", "down", "--json"];
    let (code, said, told) =
        agent(&[&["models", "add", &model, "--to", folder, "--task", "words"], &more[..]].concat());
    assert_eq!(code, 0, "{said}{told}");
    let added: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(added["serves"], false, "{added}");
    let to_write = added["to_write"].as_array().unwrap();
    for part in ["[input.audio] in the place of", "holdfast-agent models golden"] {
        let is_told = to_write.iter().any(|line| line.as_str().unwrap().contains(part));
        assert!(is_told, "{part}: {added}");
    }
    assert!(to.join("samples").join(PathBuf::from(&wav).file_name().unwrap()).is_file());
    // Not before it is written, with a reason.
    let (code, _, told) = agent(&["models", "golden", folder]);
    assert!(code == 1 && told.contains("send tensor"), "{code} {told}");
    let front = "[input.audio]\nsample_rate_hz = 16000\nclip_samples = 16000\nfit = \"start\"\n\
                 normalise = \"max\"\nframe_samples = 480\nstep_samples = 320\nwindow = \"hann\"\n\
                 fft = 512\nspectrum = \"magnitude\"\nmel_bands = 40\nmel_low_hz = 20.0\n\
                 mel_high_hz = 4000.0\nmel_scale = \"htk\"\nlog_floor = 1e-6\nfeatures = \"mfcc\"\n\
                 mfcc = 10\n";
    edit(&to, "[input.tensor]\n", front);
    let said = made(&to);
    let golden = &said["goldens"][0];
    assert!(golden["says"].is_string() && golden["label"] == "down", "{golden}");
    let (code, out, told) = agent(&["infer", "words", &wav, "--bundles", folder, "--json"]);
    assert_eq!(code, 0, "{out}{told}");
    let rows: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(rows[0]["label"], golden["says"], "{rows}");
}
