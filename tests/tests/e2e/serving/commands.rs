//! `models ls`, `load` and `unload`, while an agent runs.

use std::process::{Command, Output};

use holdfast_tests::client::Client;
use holdfast_tests::site::start_agent_with;
use serde_json::{Value, json};

use super::super::program;
use super::made::Made;

#[tokio::test]
async fn the_operator_lists_loads_and_unloads() {
    let dir = tempfile::tempdir().unwrap();
    let bundles = dir.path().join("bundles");
    Made::of("table", "1.0.0", 0.25).write(&bundles);
    let text = format!(
        "[device]\nstate_dir = {:?}\n[api]\nlisten = \"127.0.0.1:0\"\n\
         [models]\nbundles = [{bundles:?}]\nonnxruntime = \"off\"\ntune = false\n",
        dir.path().join("state")
    );
    let node = start_agent_with(program(), dir.path(), "agent", &text).await.unwrap();
    let client = Client::new(node.address("api").unwrap()).unwrap();
    let run = |args: &[&str]| -> Output {
        let mut command = Command::new(program());
        command.args(["agent", "models"]).args(args).arg("--config");
        command.arg(dir.path().join("agent.toml")).output().unwrap()
    };
    let fine = |args: &[&str]| {
        let output = run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let refused = |args: &[&str]| {
        let output = run(args);
        assert_eq!(output.stdout, b"", "{args:?}");
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let states = || -> Vec<Value> {
        let listed: Vec<Value> = serde_json::from_str(&fine(&["ls", "--json"])).unwrap();
        listed.into_iter().map(|entry| json!([entry["version"], entry["state"]])).collect()
    };
    assert_eq!(states(), [json!(["1.0.0", "READY"])]);
    Made::of("table", "1.1.0", 0.125).write(&bundles);
    let said = fine(&["load", "table"]);
    let first = "table 1.1.0 is in service for look-up: fp32, tract, memory not measured yet";
    assert!(said.starts_with(first) && said.contains("table 1.0.0 is unavailable"), "{said}");
    let said: Value = serde_json::from_str(&fine(&["load", "table", "--json"])).unwrap();
    let want = json!({
        "version": "1.1.0", "task": "look-up", "variant": "fp32", "runtime": "tract",
        "threads": 1, "memory_kib": null,
    });
    assert_eq!(said["in_service"], json!([want]), "{said}");
    assert_eq!(
        (&said["bundle"], &said["others"][0]["version"]),
        (&json!("table"), &json!("1.0.0"))
    );
    assert_eq!(states(), [json!(["1.1.0", "READY"]), json!(["1.0.0", "UNAVAILABLE"])]);
    let table = fine(&["ls"]);
    assert!(
        table.trim_start().starts_with("MODEL") && table.contains("the first who names it"),
        "{table}"
    );

    Made::of("table", "1.2.0", 1.0).write_graph(&bundles, b"no graph");
    let (code, said) = refused(&["load", "table"]);
    assert!(code != Some(0) && said.contains("table@1.1.0 fp32 tract goes on"), "{said}");
    let (code, said) = refused(&["load", "chair"]);
    assert!(code == Some(1) && said.contains("chair"), "{code:?}: {said}");
    assert_eq!(refused(&["load", "../table"]).0, Some(64));

    let (_, tasks) = client.get("/v1/tasks").await.unwrap();
    assert!(tasks.contains("\"version\":\"1.1.0\""), "{tasks}");
    let said = fine(&["unload", "table"]);
    assert!(said.starts_with("table is out of service\ntable 1.2.0 is unavailable"), "{said}");
    let said: Value = serde_json::from_str(&fine(&["unload", "table", "--json"])).unwrap();
    assert_eq!(said["in_service"], json!([]), "{said}");
    let (_, tasks) = client.get("/v1/tasks").await.unwrap();
    assert_eq!(serde_json::from_str::<Value>(&tasks).unwrap(), json!({ "tasks": [] }));
    drop(node);
    let (code, said) = refused(&["ls"]);
    assert!(code == Some(69) && said.contains("is it running?"), "{code:?}: {said}");
}
