//! Each bundle runs in the way that is fastest on this board, and a bad library harms nobody.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use holdfast_tests::client::Client;
use holdfast_tests::node::Node;
use holdfast_tests::onnxruntime;
use holdfast_tests::reference;
use holdfast_tests::site::start_agent_with;
use serde_json::Value;

use super::{SOON, program, sample};

const BUNDLE: &str = "voice-commands";
/// What it is remembered by.
const KEY: &str = "voice-commands@1.0.0";

/// The configuration of an agent that measures, with ONNX Runtime at a path.
fn configuration(dir: &Path, onnxruntime: &str) -> String {
    let bundle = reference::bundles().join(BUNDLE);
    format!(
        "[device]\nstate_dir = {:?}\n[api]\nlisten = \"127.0.0.1:0\"\n\
         [models]\nbundles = [{bundle:?}]\nonnxruntime = {onnxruntime:?}\n",
        dir.join("state")
    )
}

async fn start(dir: &Path, onnxruntime: &str) -> (Node, Client) {
    let text = configuration(dir, onnxruntime);
    let node = start_agent_with(program(), dir, "agent", &text).await.unwrap();
    let client = Client::new(node.address("api").unwrap()).unwrap();
    (node, client)
}

/// The folder of a version, if it was fetched.
pub(super) fn version(name: &str) -> Option<PathBuf> {
    let folder = onnxruntime::folder().join(name);
    let required = std::env::var("HOLDFAST_REQUIRE_REFERENCE").is_ok_and(|value| value == "1");
    assert!(folder.is_dir() || !required, "{} is not there", folder.display());
    if !folder.is_dir() {
        println!("LEFT OUT: ONNX Runtime {name} (not fetched: ./tests/run does)");
    }
    Some(folder).filter(|folder| folder.is_dir())
}

async fn served(client: &Client) -> Value {
    let (_, text) = client.get("/v1/tasks").await.unwrap();
    let tasks: Value = serde_json::from_str(&text).unwrap();
    tasks["tasks"][0].clone()
}

/// What tuning found out, once it has.
async fn tuned(client: &Client, dir: &Path) -> Value {
    let file = dir.join("state/tuning.json");
    let read = |_: &Value| {
        let found: Value = serde_json::from_slice(&std::fs::read(&file).ok()?).ok()?;
        found["bundles"].get(KEY).cloned()
    };
    client.until("/v1/tasks", SOON, read).await.unwrap()
}

/// It answers from the first moment, swaps without a failure, and remembers over a restart.
#[tokio::test]
async fn the_fastest_way_is_put_in_service_and_remembered() {
    let Some(library) = version("newest") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (mut node, client) = start(dir.path(), library.to_str().unwrap()).await;
    assert_eq!(served(&client).await["runtime"], "tract", "a safe default serves at first");
    let body = sample(BUNDLE, |name| name.contains("yes"));
    // Some callers keep asking until the choice is in service, over the swap.
    let asking = async || {
        loop {
            let answer = client.ask(BUNDLE, body.clone(), &[]).await.unwrap().answer.unwrap();
            assert_eq!((answer.label.as_str(), answer.zone.as_str()), ("yes", "device"));
        }
    };
    let in_service = async {
        let tuned = tuned(&client, dir.path()).await;
        let chosen = &tuned["choice"];
        let is_served = |tasks: &Value| {
            let task = &tasks["tasks"][0];
            ["variant", "runtime", "threads"]
                .iter()
                .all(|key| task[key] == chosen[key])
                .then_some(())
        };
        client.until("/v1/tasks", SOON, is_served).await.unwrap();
        tuned
    };
    let tuned = tokio::select! {
        tuned = in_service => tuned,
        () = asking() => unreachable!(),
        () = asking() => unreachable!(),
        () = asking() => unreachable!(),
    };
    let tried = tuned["tried"].as_array().unwrap();
    let runs = |tried: &&Value| tried["measured"]["p50_ms"].as_f64().is_some_and(|ms| ms > 0.0);
    for runtime in ["tract", "onnxruntime"] {
        for variant in ["int8", "fp32"] {
            let is = |tried: &&Value| tried["runtime"] == runtime && tried["variant"] == variant;
            assert!(
                tried.iter().filter(runs).any(|tried| is(&tried)),
                "{variant} {runtime}: {tuned}"
            );
        }
    }
    let chosen = &tuned["choice"];
    let reply = client.ask(BUNDLE, body.clone(), &[]).await.unwrap();
    assert!(reply.answer.unwrap().model.contains(chosen["runtime"].as_str().unwrap()));

    node.stop().await.unwrap();
    let (_node, client) = start(dir.path(), library.to_str().unwrap()).await;
    let task = served(&client).await;
    assert_eq!(task["runtime"], chosen["runtime"], "known from the first moment");
    let reply = client.ask(BUNDLE, body, &[]).await.unwrap();
    assert_eq!(reply.answer.unwrap().label, "yes");
}

#[test]
fn models_bench_shows_every_way_and_its_choice() {
    let Some(library) = version("1.23") else { return };
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("agent.toml");
    std::fs::write(&config, configuration(dir.path(), library.to_str().unwrap())).unwrap();
    let bench = |more: &[&str]| {
        let mut command = agent();
        command.args(["models", "bench", "--config"]).arg(&config).args(more);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let shown: Value = serde_json::from_str(&bench(&["--json"])).unwrap();
    let measured = &shown[0];
    assert!(measured["chosen"]["runtime"].is_string(), "{shown}");
    for tried in measured["tried"].as_array().unwrap() {
        let tolerance = if tried["variant"] == "int8" { 0.5 } else { 0.001 };
        assert!(tried["measured"]["off"].as_f64().unwrap() <= tolerance, "{tried}");
        assert!(tried["measured"]["peak_kib"].as_u64().unwrap() > 0, "{tried}");
    }
    let text = bench(&[]);
    assert!(text.contains("ONNX Runtime 1.23") && text.contains("VARIANT"), "{text}");
    assert!(text.lines().any(|line| line.trim_start().starts_with('*')), "{text}");
}

fn agent() -> Command {
    let mut command = Command::new(program());
    command.arg("agent");
    command
}

/// Makes a shared library of C text.
pub(super) fn compile(text: &str, to: &Path) {
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-x", "c", "-", "-o"]).arg(to).stdin(Stdio::piped());
    let mut child = cc.spawn().expect("a C compiler");
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

fn doctor(config: &Path) -> Output {
    agent().args(["doctor", "--json", "--config"]).arg(config).output().unwrap()
}

/// Whatever the library is, the agent answers, and `doctor` says what is wrong.
#[tokio::test]
async fn a_library_that_cannot_be_used_is_told_and_tract_serves() {
    let dir = tempfile::tempdir().unwrap();
    let good = dir.path().join("good.so");
    compile("int nothing;", &good);
    let bytes = std::fs::read(&good).unwrap();
    let mut foreign = bytes.clone();
    foreign[18] = 243;
    let constructor = |body: &str| {
        format!(
            "#include <stdlib.h>\n#include <unistd.h>\n__attribute__((constructor)) static void go(void) {{ {body} }}"
        )
    };
    let crashing = dir.path().join("crashing.so");
    compile(&constructor("abort();"), &crashing);
    let hanging = dir.path().join("hanging.so");
    compile(&constructor("for (;;) pause();"), &hanging);
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let cases = [
        (dir.path().join("absent.so"), "No such file"),
        (
            write("text.so", b"this is no library, whatever it is called, and it is long enough"),
            "no shared library",
        ),
        (write("cut.so", &bytes[..bytes.len() / 3]), "cut off"),
        (write("foreign.so", &foreign), "another machine"),
        (good, "OrtGetApiBase"),
        (crashing, "ended the process"),
        (hanging, "hung"),
    ];
    for (library, said) in cases {
        let folder = tempfile::tempdir().unwrap();
        let (_node, client) = start(folder.path(), library.to_str().unwrap()).await;
        let body = sample(BUNDLE, |name| name.contains("yes"));
        let reply = client.ask(BUNDLE, body.clone(), &[]).await.unwrap();
        assert_eq!(reply.answer.unwrap().label, "yes", "{}", library.display());
        let output = doctor(&folder.path().join("agent.toml"));
        let findings: Value = serde_json::from_slice(&output.stdout).unwrap();
        let finding = findings.as_array().unwrap().iter().find(|f| f["check"] == "onnxruntime");
        let finding = finding.expect("doctor looks at ONNX Runtime");
        assert_eq!(finding["health"], "warn", "{finding}");
        assert!(finding["found"].as_str().unwrap().contains(said), "{said}: {finding}");
        // A library that hangs may be there the next time: nothing is remembered.
        if said != "hung" {
            let tuned = tuned(&client, folder.path()).await;
            assert_eq!(tuned["choice"]["runtime"], "tract", "{}", library.display());
        }
        let reply = client.ask(BUNDLE, body, &[]).await.unwrap();
        assert_eq!(reply.answer.unwrap().label, "yes", "{}", library.display());
    }
}

/// What ended an agent while it was being loaded is not loaded again before a process of its own did.
#[tokio::test]
async fn a_bundle_that_was_being_loaded_when_the_agent_ended_is_tried_again() {
    let Some(library) = version("1.22") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (mut node, client) = start(dir.path(), library.to_str().unwrap()).await;
    tuned(&client, dir.path()).await;
    node.stop().await.unwrap();
    let state = dir.path().join("state");
    std::fs::create_dir_all(state.join("loading")).unwrap();
    std::fs::write(state.join("loading").join(KEY), "").unwrap();
    let (_node, client) = start(dir.path(), library.to_str().unwrap()).await;
    assert_eq!(served(&client).await["runtime"], "tract", "the safe way serves");
    let again = tuned(&client, dir.path()).await;
    assert!(again["choice"]["runtime"].is_string(), "{again}");
    let is_gone =
        |_: &Value| std::fs::read_dir(state.join("loading")).ok()?.next().is_none().then_some(());
    client.until("/v1/tasks", SOON, is_gone).await.unwrap();
}

/// A pinned runtime is tried and used although nothing else is measured.
#[tokio::test]
async fn what_is_pinned_serves_also_without_measuring() {
    let Some(library) = version("newest") else { return };
    let dir = tempfile::tempdir().unwrap();
    let text = configuration(dir.path(), library.to_str().unwrap())
        + "tune = false\nruntime = \"onnxruntime\"\nvariant = \"fp32\"\nthreads = 1\n";
    let node = start_agent_with(program(), dir.path(), "agent", &text).await.unwrap();
    let client = Client::new(node.address("api").unwrap()).unwrap();
    let is_served = |tasks: &Value| {
        let task = &tasks["tasks"][0];
        (task["runtime"] == "onnxruntime" && task["variant"] == "fp32").then_some(())
    };
    client.until("/v1/tasks", SOON, is_served).await.unwrap();
    let tuned = tuned(&client, dir.path()).await;
    assert_eq!(tuned["tried"].as_array().unwrap().len(), 1, "{tuned}");
}
