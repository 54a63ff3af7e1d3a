//! A model that cannot be used is refused with a reason by an agent that runs, and the version before it
//! goes on.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use holdfast_tests::client::Client;
use holdfast_tests::node::Node;
use holdfast_tests::site::start_agent_as;
use serde_json::Value;

use super::serving::made::Made;
use super::{SOON, onnx, program, tuning};

/// What tries a model hangs after so many seconds; what does not hang takes a part of one.
const HANGS: &str = "--child-within-s=10";

/// An agent that serves version 1.0.0 of the bundle `table`, and its folder of bundles.
async fn serving(dir: &Path, models: &str) -> (Node, Client, PathBuf) {
    let bundles = dir.join("bundles");
    Made::of("table", "1.0.0", 0.25).write(&bundles);
    let text = format!(
        "[device]\nstate_dir = {:?}\n[api]\nlisten = \"127.0.0.1:0\"\n\
         [models]\nbundles = [{bundles:?}]\n{models}",
        dir.join("state")
    );
    let node = start_agent_as(program(), dir, ("agent", &text), &[HANGS]).await.unwrap();
    let client = Client::new(node.address("api").unwrap()).unwrap();
    (node, client, bundles)
}

fn load(dir: &Path) -> Output {
    let mut command = Command::new(program());
    command.args(["agent", "models", "load", "table", "--config"]).arg(dir.join("agent.toml"));
    command.output().unwrap()
}

/// The version that answers.
async fn version(client: &Client) -> String {
    let (_, text) = client.get("/v1/tasks").await.unwrap();
    let tasks: Value = serde_json::from_str(&text).unwrap();
    tasks["tasks"][0]["version"].as_str().unwrap_or_default().to_owned()
}

/// The graph is refused, with these words, and version 1.0.0 answers as before.
async fn refused(dir: &Path, bundles: &Path, client: &Client, onnx: &[u8], why: &[&str]) {
    let folder = Made::of("table", "1.1.0", 0.5).write_graph(bundles, onnx);
    let output = load(dir);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{why:?}: {said}");
    for why in why {
        assert!(said.contains(why), "{said}, not {why}");
    }
    assert!(said.contains("table@1.0.0") && said.contains("goes on"), "{said}");
    assert_eq!(version(client).await, "1.0.0", "{why:?}");
    let picture = std::fs::read(folder.join("a.png")).unwrap();
    let reply = client.ask("look-up", picture, &[]).await.unwrap();
    assert!(reply.answer.is_some(), "{why:?}");
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn a_bad_model_leaves_the_version_before_it_in_service() {
    let dir = tempfile::tempdir().unwrap();
    let (_node, client, bundles) =
        serving(dir.path(), "onnxruntime = \"off\"\ntune = false\n").await;
    let shape = [0, 1, 4, 4];
    let relu: [onnx::Node<'_>; 1] = [("Relu", &["x"], &["y"], &[])];
    let odd: [onnx::Node<'_>; 1] = [("Frobnicate", &["x"], &["y"], &[])];
    let nan: [onnx::Node<'_>; 2] = [("Neg", &["x"], &["h"], &[]), ("Log", &["h"], &["y"], &[])];
    let huge: [onnx::Node<'_>; 3] = [
        ("ConstantOfShape", &["i64size"], &["h"], &[]),
        ("ReduceMax", &["h"], &["m"], &[("keepdims", 0)]),
        ("Add", &["x", "m"], &["y"], &[]),
    ];
    let whole = onnx::graph(&shape, &relu, &[]);
    for (onnx, why) in [
        (whole[..whole.len() / 2].to_vec(), "cannot read the graph"),
        (b"this is no model".to_vec(), "cannot read the graph"),
        (onnx::graph_of(999, &shape, &relu, &[]), "opset 999"),
        (onnx::graph(&shape, &odd, &[]), "Frobnicate"),
        (onnx::with_data_in("../../secret", &shape), "another file"),
        (onnx::graph(&shape, &huge, &[("i64size", &[1], &[1e9])]), "1000000000"),
        (onnx::graph(&shape, &nan, &[]), "off by inf"),
    ] {
        refused(dir.path(), &bundles, &client, &onnx, &[why]).await;
    }
    // And what is not bad comes in.
    Made::of("table", "1.2.0", 0.5).write(&bundles);
    assert!(load(dir.path()).status.success());
    assert_eq!(version(&client).await, "1.2.0");
}

/// ONNX Runtime, but for what it does with graphs that have a mark in them.
fn marked_library(real: &Path, to: &Path) {
    // Slots 7 and 8 of its table of functions load a graph, out of a file and out of memory.
    let text = format!(
        r#"
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <stdlib.h>
        #include <string.h>
        #include <unistd.h>
        typedef struct {{ const void *(*api)(unsigned); const char *(*version)(void); }} Base;
        typedef void *(*Create)(const void *, const void *, size_t, const void *, void **);
        static void *table[290];
        static const Base *real;
        static Create create;
        static void *load(const void *e, const void *data, size_t size, const void *o, void **s) {{
            if (memmem(data, size, "CrashMark", 9)) abort();
            if (memmem(data, size, "HangMark", 8)) for (;;) pause();
            return create(e, data, size, o, s);
        }}
        static const void *api(unsigned version) {{
            const void *own = real->api(version);
            if (!own) return 0;
            memcpy(table, own, sizeof table);
            create = (Create)table[8];
            table[8] = (void *)load;
            return table;
        }}
        const Base *OrtGetApiBase(void) {{
            static Base base;
            void *library = dlopen({real:?}, RTLD_NOW | RTLD_LOCAL);
            if (!library) return 0;
            real = ((const Base *(*)(void))dlsym(library, "OrtGetApiBase"))();
            base.api = api;
            base.version = real->version;
            return &base;
        }}
        "#
    );
    tuning::compile(&text, to);
}

/// What only ONNX Runtime may have, with a mark in it.
fn marked(kind: &str) -> Vec<u8> {
    onnx::graph(&[0, 1, 4, 4], &[(kind, &["x"], &["y"], &[])], &[])
}

async fn on_a_marked_library(kind: &str, why: &str) {
    let Some(folder) = tuning::version("newest") else { return };
    let dir = tempfile::tempdir().unwrap();
    let real = holdfast_models::Library::find(Some(&folder)).unwrap();
    let library = dir.path().join("libonnxruntime.so");
    marked_library(&real, &library);
    let models = format!("onnxruntime = {library:?}\ntune = false\nthreads = 1\n");
    let (mut node, client, bundles) = serving(dir.path(), &models).await;
    refused(dir.path(), &bundles, &client, &marked(kind), &["onnxruntime", why]).await;
    // The same library does its work on other graphs.
    let output = Command::new(program())
        .args(["agent", "models", "bench", "--json", "--config"])
        .arg(dir.path().join("agent.toml"))
        .output()
        .unwrap();
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    let tried = shown[0]["tried"].as_array().unwrap();
    let runs = |tried: &&Value| tried["runtime"] == "onnxruntime" && tried["measured"].is_object();
    assert!(tried.iter().any(|tried| runs(&tried)), "{shown}");
    node.stop().await.unwrap();
}

#[tokio::test]
async fn a_model_that_crashes_the_runtime_is_refused() {
    on_a_marked_library("com.microsoft.CrashMark", "it ended the process that tried it").await;
}

#[tokio::test]
async fn a_model_that_hangs_the_runtime_is_refused() {
    on_a_marked_library("com.microsoft.HangMark", "it hung for").await;
}

/// A graph whose input is of a shape with a name: so many opening brackets that whoever reads them as an
/// expression, one inside of the other, has no stack left.
fn crashing() -> Vec<u8> {
    onnx::with_shape_named(&"(".repeat(200_000))
}

/// A graph that multiplies constants, so many and so large that nobody waits for the end of it.
fn hanging() -> Vec<u8> {
    let names: Vec<String> = (0..60).map(|at| format!("h{at}")).collect();
    let mut nodes: Vec<onnx::Node<'_>> = vec![
        ("ConstantOfShape", &["i64size"], &["zeros"], &[]),
        // Whose zeros are of another type in tract.
        ("Cast", &["zeros"], &["h"], &[("to", 1)]),
    ];
    let before = std::iter::once("h").chain(names.iter().map(String::as_str));
    let inputs: Vec<[&str; 2]> = before.map(|name| [name, "h"]).collect();
    let outputs: Vec<[&str; 1]> = names.iter().map(|name| [name.as_str()]).collect();
    for (input, output) in inputs.iter().zip(&outputs) {
        nodes.push(("MatMul", input, output, &[]));
    }
    let last = [names.last().map_or("h", String::as_str)];
    nodes.push(("ReduceMax", &last, &["m"], &[("keepdims", 0)]));
    nodes.push(("Add", &["x", "m"], &["y"], &[]));
    onnx::graph(&[0, 1, 4, 4], &nodes, &[("i64size", &[2], &[4096.0, 4096.0])])
}

/// What crashes or hangs tract does so in a process of its own: when it is brought in while the agent
/// runs, and at a start, where nothing of it serves yet. It is not tried again by itself.
#[tokio::test]
async fn a_model_that_crashes_or_hangs_tract_harms_nobody() {
    for (graph, why) in
        [(crashing(), "it ended the process that tried it"), (hanging(), "it hung for 10 s")]
    {
        let dir = tempfile::tempdir().unwrap();
        let models = "onnxruntime = \"off\"\ntune = false\n";
        let (mut node, client, bundles) = serving(dir.path(), models).await;
        refused(dir.path(), &bundles, &client, &graph, &["tract", why]).await;
        node.stop().await.unwrap();
        // The one that answers is known; the other is alone in its task.
        let bad = Made { task: "look-down", ..Made::of("chair", "1.0.0", 0.5) };
        bad.write_graph(&bundles, &graph);
        for start in 0..2 {
            let (mut node, client, _) = serving(dir.path(), models).await;
            assert_eq!(version(&client).await, "1.0.0", "{why}: it serves from the first moment");
            let is_told = |health: &Value| {
                let text = health.to_string();
                (text.contains(why) && text.contains("models load chair")).then_some(())
            };
            client.until("/readyz", SOON, is_told).await.unwrap();
            let log = std::fs::read_to_string(dir.path().join("agent.log")).unwrap_or_default();
            assert!(!log.contains("panicked"), "{start}: {log}");
            node.stop().await.unwrap();
        }
    }
}
