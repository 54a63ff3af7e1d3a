//! Bundles that are damaged, pinned to what is not there, or taken out of service: what is told of them.

use std::path::Path;
use std::time::Duration;

use holdfast_agent::engine::{EngineError, Readiness};
use holdfast_agent::request::TaskName;
use holdfast_tests::client::Client;
use holdfast_tests::node::Node;
use holdfast_tests::site::start_agent_with;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::super::{SOON, program};
use super::made::{Made, places};
use super::{request, start, version_of};

#[tokio::test]
async fn a_version_is_ready_by_its_number_or_label_when_it_answers_itself() {
    let dir = tempfile::tempdir().unwrap();
    for (version, step) in [("1.0.0", 0.25), ("1.1.0", 0.125)] {
        Made::of("table", version, step).write(dir.path());
    }
    let labels = "[models.versions.table]\nlabels = { stable = \"1.0.0\", next = \"1.1.0\" }\n";
    let engine = start(dir.path(), dir.path(), labels).await;
    let (ready, not) = (Readiness::Ready, Readiness::Unavailable);
    let is = async |version| engine.readiness("table", version).await.unwrap();
    for (version, want) in [(None, ready), (Some("next"), ready), (Some("1.1.0"), ready)] {
        assert_eq!(is(version).await, want, "{version:?}");
    }
    for version in ["stable", "1.0.0"] {
        assert_eq!(is(Some(version)).await, not, "{version}: nobody asked for it yet");
    }
    version_of(&engine, Some("stable")).await.unwrap();
    assert_eq!(is(Some("stable")).await, ready);
    let error = engine.readiness("table", Some("best")).await.unwrap_err();
    assert!(matches!(error, EngineError::NoVersion { .. }), "{error}");
    let error = engine.readiness("chair", None).await.unwrap_err();
    assert!(matches!(error, EngineError::NoBundle { .. }), "{error}");
}

#[tokio::test]
async fn a_bundle_that_was_damaged_while_it_rested_is_told_until_it_is_whole_again() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Made::of("table", "1.0.0", 0.25).write(dir.path());
    let engine = start(dir.path(), dir.path(), "idle_unload_s = 1\n").await;
    let lane = engine.lane(&TaskName::parse("look-up").unwrap()).unwrap();
    let resting = async {
        while !lane.load().is_resting {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, resting).await.expect("nobody asks, so it rests");
    assert_eq!((engine.index()[0].state, lane.fault()), (Readiness::Ready, None));
    let graph = std::fs::read(folder.join("model.onnx")).unwrap();
    std::fs::write(folder.join("model.onnx"), b"no graph").unwrap();
    let error = engine.infer_tensors(request("table", None, &[places(1)])).await.unwrap_err();
    assert!(matches!(error, EngineError::NotReady { .. }), "{error}");
    let entry = engine.index().remove(0);
    assert_eq!(entry.state, Readiness::Unavailable);
    assert!(entry.reason.contains("model.onnx"), "{}", entry.reason);
    let refused = engine.refused();
    assert!(refused.len() == 1 && !refused[0].is_spare && refused[0].path == folder, "{refused:?}");
    std::fs::write(folder.join("model.onnx"), graph).unwrap();
    assert_eq!(version_of(&engine, None).await.unwrap(), "1.0.0");
    assert_eq!((engine.index()[0].state, engine.refused().len()), (Readiness::Ready, 0));
}

async fn agent(dir: &Path, more: &str) -> (Node, Client) {
    let text = format!(
        "[device]\nstate_dir = {:?}\n[api]\nlisten = \"127.0.0.1:0\"\ngrpc_listen = \"127.0.0.1:0\"\n\
         [models]\nbundles = [{:?}]\nonnxruntime = \"off\"\n{more}",
        dir.join("state"),
        dir.join("bundles")
    );
    let node = start_agent_with(program(), dir, "agent", &text).await.unwrap();
    let client = Client::new(node.address("api").unwrap()).unwrap();
    (node, client)
}

/// Has the agent load or unload a bundle; what it says of it.
async fn change(client: &Client, what: &str, model: &str) -> (StatusCode, String) {
    let path = format!("/v2/repository/models/{model}/{what}");
    client.post_to(&path, Vec::new(), &[]).await.unwrap()
}

async fn asked(client: &Client) -> (StatusCode, String) {
    client.post("look-up", b"no picture".to_vec(), &[]).await.unwrap()
}

#[tokio::test]
async fn a_task_whose_bundle_is_not_in_service_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let bundles = dir.path().join("bundles");
    std::fs::create_dir_all(&bundles).unwrap();
    let (_node, client) = agent(dir.path(), "tune = false\n").await;
    let (status, said) = asked(&client).await;
    assert!(status == 404 && said.contains("unknown_task"), "{said}");
    let folder = Made::of("table", "1.0.0", 0.25).write(&bundles);
    let told = async |want: &str| {
        let (status, said) = asked(&client).await;
        assert!(status == 503 && said.contains("not_in_service") && said.contains(want), "{said}");
        assert!(said.contains("holdfast-agent models load table"), "{said}");
    };
    told("bundle table is on disk").await;
    let (status, said) = client.get("/v2/models/table").await.unwrap();
    assert!(status == 503 && said.contains("on disk"), "{said}");
    assert_eq!(change(&client, "load", "table").await.0, 200);
    assert_eq!(asked(&client).await.0, 415, "there it is");
    assert_eq!(change(&client, "unload", "table").await.0, 200);
    told("bundle table@1.0.0 was unloaded").await;
    std::fs::write(folder.join("model.onnx"), b"no graph").unwrap();
    let (status, said) = change(&client, "load", "table").await;
    assert!(status == 503 && said.contains("model.onnx"), "{said}");
    let (status, said) = client.get("/readyz").await.unwrap();
    assert!(status == 503 && said.contains("model.onnx"), "{said}");
}

#[tokio::test]
async fn a_damaged_version_is_told_by_load_and_in_the_list_while_the_one_before_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let bundles = dir.path().join("bundles");
    Made::of("table", "1.0.0", 0.25).write(&bundles);
    let (_node, client) = agent(dir.path(), "tune = false\n").await;
    let new = Made::of("table", "1.1.0", 0.125).write(&bundles);
    std::fs::write(new.join("golden.toml"), b"no golden").unwrap();
    let broken = Made::of("chair", "2.0.0", 0.125).write(&bundles);
    std::fs::write(broken.join("bundle.toml"), b"name = \"chair\"\nversion = \"2.0.0\"\n").unwrap();
    let (status, said) = change(&client, "load", "table").await;
    let wants = ["table@1.1.0", "golden.toml", "table@1.0.0 fp32 tract goes on"];
    assert!(status == 503 && wants.iter().all(|want| said.contains(want)), "{said}");
    let (status, said) = change(&client, "load", "chair").await;
    assert!(status == 503 && said.contains("chair@2.0.0"), "{said}");
    let (_, said) = client.post_to("/v2/repository/index", Vec::new(), &[]).await.unwrap();
    let index: Vec<Value> = serde_json::from_str(&said).unwrap();
    let told: Vec<_> = index.iter().map(|e| json!([e["name"], e["version"], e["state"]])).collect();
    let want = [
        json!(["table", "1.0.0", "READY"]),
        json!(["chair", "2.0.0", "UNAVAILABLE"]),
        json!(["table", "1.1.0", "UNAVAILABLE"]),
    ];
    assert_eq!(told, want, "{said}");
    // What is damaged by now and serves from memory is not given up for an older one.
    Made::of("table", "0.9.0", 0.125).write(&bundles);
    std::fs::write(bundles.join("table-1.0.0/golden.toml"), b"no golden").unwrap();
    let (status, said) = change(&client, "load", "table").await;
    assert!(status == 503 && said.contains("table@1.0.0 fp32 tract goes on"), "{said}");
}

/// The lines of a metric, without its name.
async fn metric(client: &Client, name: &str) -> Vec<String> {
    let (_, text) = client.get("/metrics").await.unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix(name));
    lines.map(str::to_owned).collect()
}

#[tokio::test]
async fn metrics_of_a_model_end_with_it_and_its_runs_are_counted_on() {
    let dir = tempfile::tempdir().unwrap();
    let bundles = dir.path().join("bundles");
    let folder = Made::of("table", "1.0.0", 0.25).write(&bundles);
    let picture = std::fs::read(folder.join("a.png")).unwrap();
    let (_node, client) = agent(dir.path(), "tune = false\n").await;
    let ask = async || {
        let (status, said) = client.post("look-up", picture.clone(), &[]).await.unwrap();
        assert_eq!(status, 200, "{said}");
    };
    let labels = "{model=\"table\",version=\"1.0.0\"";
    let runs = async || metric(&client, "holdfast_model_runs_total").await;
    ask().await;
    ask().await;
    assert_eq!(runs().await, [format!("{labels}}} 2")]);
    assert_eq!(metric(&client, "holdfast_model_loaded").await, [format!("{labels}}} 1")]);
    assert_eq!(metric(&client, "holdfast_model_waiting").await, [format!("{labels}}} 0")]);
    // Its worker is free a moment after its answer is told.
    let is_free = async {
        let free = format!("{labels},state=\"busy\"}} 0");
        while !metric(&client, "holdfast_model_workers").await.contains(&free) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, is_free).await.expect("it is free again");
    assert_eq!(change(&client, "unload", "table").await.0, 200);
    assert_eq!(metric(&client, "holdfast_model_loaded").await, [format!("{labels}}} 0")]);
    assert_eq!(metric(&client, "holdfast_model_waiting").await, [""; 0]);
    assert_eq!(metric(&client, "holdfast_model_workers").await, [""; 0]);
    assert_eq!(change(&client, "load", "table").await.0, 200);
    ask().await;
    assert_eq!(runs().await, [format!("{labels}}} 3")], "it goes on where it was");
}

/// The real measuring, of a bundle that came later.
#[tokio::test]
async fn a_bundle_that_was_loaded_at_run_time_is_measured() {
    let dir = tempfile::tempdir().unwrap();
    let bundles = dir.path().join("bundles");
    Made::of("table", "1.0.0", 0.25).write(&bundles);
    let (_node, client) = agent(dir.path(), "").await;
    let file = dir.path().join("state/tuning.json");
    let measured = async |key: &str| {
        let read = |_: &Value| {
            let found: Value = serde_json::from_slice(&std::fs::read(&file).ok()?).ok()?;
            found["bundles"].get(key).cloned()
        };
        client.until("/v1/tasks", SOON, read).await.unwrap()
    };
    measured("table@1.0.0").await;
    Made::of("zebra", "1.0.0", 0.125).write(&bundles);
    assert_eq!(change(&client, "load", "zebra").await.0, 200);
    let found = measured("zebra@1.0.0").await;
    assert_eq!(found["choice"]["runtime"], "tract", "{found}");
}
