//! An answer of another kind than classes: from the request over the API, another agent and the disk,
//! and by hand.

use std::path::Path;
use std::process::Command;

use holdfast_tests::bundle::Made;
use holdfast_tests::client::Client;
use holdfast_tests::reference;
use holdfast_tests::site::{Agent, DEVICE, SITE, start_agent, start_agent_with};
use serde_json::{Value, json};

/// Anomalies of pumps; the numbers are normalised by whoever sends them.
const PUMPS: &str = "[[input]]\nname = \"window_norm\"\ndtype = \"f32\"\nshape = [\"batch\", 128]\n\
    [input.tensor]\n[[output]]\nname = \"recon\"\ndtype = \"f32\"\nshape = [\"batch\", 128]\n\
    of = \"window_norm\"\nerror = \"squared\"\nthreshold = 0.5\n";

/// Writes the bundle into a folder of its own; nothing without the reference folder.
fn pumps(dir: &Path) -> Option<()> {
    let reference = reference::reference("answers of other kinds over the API")?;
    let onnx = std::fs::read(reference.join("models/pump_ae_fp32.onnx")).unwrap();
    let sample =
        serde_json::to_vec(&json!({ "inputs": { "window_norm": vec![0.0; 128] } })).unwrap();
    let made = Made {
        onnx: &onnx,
        kind: "reconstruction",
        tables: PUMPS,
        label: "label = \"normal\"",
        sample: ("sample.json", &sample),
        golden: &[0.0; 128],
        tolerance: 100.0,
    };
    std::fs::create_dir_all(dir).unwrap();
    made.write(dir).unwrap();
    Some(())
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[tokio::test]
async fn numbers_are_asked_about_in_every_form_and_the_score_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("pumps");
    if pumps(&bundle).is_none() {
        return;
    }
    let agent = Agent { name: DEVICE, bundles: vec![bundle], site: None, broker: None };
    let mut device = start_agent(super::program(), dir.path(), &agent).await.unwrap();
    let client = Client::new(device.address("api").unwrap()).unwrap();
    let (_, tasks) = client.get("/v1/tasks").await.unwrap();
    let task = &json_of(&tasks)["tasks"][0];
    assert_eq!((&task["kind"], &task["takes"]), (&json!("reconstruction"), &json!("tensor")));
    let input = json!([{ "name": "window_norm", "dtype": "f32", "shape": [1, 128] }]);
    assert_eq!(task["inputs"], input);
    assert!(task.get("threshold").is_none(), "{task}");

    // Far off, and the same in each form.
    let far = 9.0f32;
    let json = json!({ "inputs": { "window_norm": [vec![far; 128]] } }).to_string();
    let csv = vec!["9"; 128].join(",");
    let raw = far.to_le_bytes().repeat(128);
    let mut told = Vec::new();
    for (body, said) in [
        (json.into_bytes(), "application/json"),
        (csv.into_bytes(), "text/csv"),
        (raw, "application/octet-stream"),
    ] {
        let (status, text) =
            client.post("reference", body, &[("content-type", said)]).await.unwrap();
        assert!(status.is_success(), "{said}: {text}");
        let reply = json_of(&text);
        assert_eq!(reply["reasons"][0]["code"], "no_confidence", "{text}");
        let answer = &reply["answer"];
        assert_eq!(
            (&answer["label"], &answer["anomaly"]["is_anomaly"]),
            (&json!("anomaly"), &json!(true))
        );
        assert!(answer.get("confidence").is_none() && answer.get("classes").is_none(), "{text}");
        told.push(answer["anomaly"].clone());
    }
    assert!(told.windows(2).all(|pair| pair[0] == pair[1]), "{told:?}");
    for (case, body, want, text) in [
        ("too few", json!({ "inputs": { "window_norm": [1, 2] } }), 422, "input window_norm is 2"),
        ("no such input", json!({ "inputs": { "x": [1] } }), 422, "send window_norm"),
        ("no inputs", json!({ "data": 1 }), 422, "inputs"),
    ] {
        let said = [("content-type", "application/json")];
        let (status, told) =
            client.post("reference", body.to_string().into_bytes(), &said).await.unwrap();
        assert_eq!(status.as_u16(), want, "{case}: {told}");
        assert!(json_of(&told)["detail"].as_str().unwrap().contains(text), "{case}: {told}");
    }

    // What was asked under a key is answered from disk, also by the next process.
    let keyed = [("content-type", "text/csv"), ("idempotency-key", "pump-7")];
    let csv = || vec!["9"; 256].join(",").into_bytes();
    let (_, first) = client.post("reference", csv(), &keyed).await.unwrap();
    assert_eq!(json_of(&first)["answer"]["recorded"]["windows"], 2, "{first}");
    device.kill().unwrap();
    let device = start_agent(super::program(), dir.path(), &agent).await.unwrap();
    let client = Client::new(device.address("api").unwrap()).unwrap();
    let (_, later) = client.post("reference", csv(), &keyed).await.unwrap();
    assert_eq!(json_of(&later)["answer"], json_of(&first)["answer"]);
}

#[tokio::test]
async fn another_agent_is_asked_for_what_is_no_class() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("pumps");
    if pumps(&bundle).is_none() {
        return;
    }
    let above = Agent { name: SITE, bundles: vec![bundle], site: None, broker: None };
    let site = start_agent(super::program(), dir.path(), &above).await.unwrap();
    let url = format!("http://{}", site.address("api").unwrap());
    let below = Agent { name: DEVICE, bundles: Vec::new(), site: None, broker: None };
    let toml = below.toml(dir.path())
        + &format!(
            "\n[[destination]]\nname = \"site\"\nzone = \"site\"\nurl = \"{url}\"\n\
             tasks = [\"reference\"]\n"
        );
    let device = start_agent_with(super::program(), dir.path(), DEVICE, &toml).await.unwrap();
    let client = Client::new(device.address("api").unwrap()).unwrap();
    let said = [("content-type", "text/csv"), ("holdfast-class", "internal")];
    let body = vec!["9"; 256].join(",").into_bytes();
    let (status, text) = client.post("reference", body, &said).await.unwrap();
    assert_eq!(status.as_u16(), 200, "{text}");
    let answer = &json_of(&text)["answer"];
    assert_eq!((&answer["place"], &answer["label"]), (&json!("site"), &json!("anomaly")), "{text}");
    assert_eq!(answer["recorded"]["values"].as_array().unwrap().len(), 2, "{text}");
}

#[test]
fn files_of_numbers_are_answered_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("pumps");
    if pumps(&bundle).is_none() {
        return;
    }
    let file = dir.path().join("window.csv");
    std::fs::write(&file, vec!["9"; 128].join(",")).unwrap();
    let infer = |args: &[&str]| {
        let mut command = Command::new(super::program());
        command.args(["agent", "infer", "reference"]).arg(&file).arg("--bundles").arg(&bundle);
        command.args(args).output().unwrap()
    };
    let told = infer(&["--json"]);
    let rows = json_of(&String::from_utf8_lossy(&told.stdout));
    assert_eq!(rows[0]["anomaly"]["is_anomaly"], true, "{rows}");
    assert!(rows[0].get("sure").is_none() && rows[0].get("confidence").is_none(), "{rows}");
    let told = infer(&[]);
    let (out, err) = (String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
    assert!(out.contains("anomaly"), "{out}");
    assert!(err.contains("which tells no confidence"), "{err}");
}
