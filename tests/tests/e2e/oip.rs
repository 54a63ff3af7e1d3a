//! `tritonclient`, unmodified, against a real agent; the same checks pass on Triton (`tests/triton`).

use std::path::Path;

use holdfast_tests::client::Client;
use holdfast_tests::identity::{Through, bundle};
use holdfast_tests::node::Node;
use holdfast_tests::site::start_agent_with;
use holdfast_tests::{onnxruntime, tritonclient};
use serde_json::Value;

use super::{SOON, program};

/// The protocol's types, and how `bundle.toml` calls them.
const TYPES: [(&str, &str); 13] = [
    ("bool", "bool"),
    ("uint8", "u8"),
    ("uint16", "u16"),
    ("uint32", "u32"),
    ("uint64", "u64"),
    ("int8", "i8"),
    ("int16", "i16"),
    ("int32", "i32"),
    ("int64", "i64"),
    ("fp16", "f16"),
    ("fp32", "f32"),
    ("fp64", "f64"),
    ("bytes", "string"),
];

/// An agent with the models of tests/oip/models.py, on a runtime.
async fn start(dir: &Path, runtime: &str, library: &str) -> Node {
    let bundles = dir.join("bundles");
    for (name, dtype) in TYPES {
        let through = Through { input: "x", output: "y", dtype, size: 4 };
        bundle(&bundles, &format!("identity-{name}"), &[through]).unwrap();
    }
    let through = |input, output, dtype, size| Through { input, output, dtype, size };
    let pair = [through("a", "a2", "f32", 3), through("b", "b2", "i64", 2)];
    bundle(&bundles, "pair", &pair).unwrap();
    let text = format!(
        "[device]\nstate_dir = {:?}\n[api]\nlisten = \"127.0.0.1:0\"\ngrpc_listen = \"127.0.0.1:0\"\n\
         [models]\nbundles = [{bundles:?}]\ntune = false\nruntime = {runtime:?}\n\
         onnxruntime = {library:?}\n",
        dir.join("state")
    );
    start_agent_with(program(), dir, "agent", &text).await.unwrap()
}

async fn check_on(runtime: &str, library: &str) {
    let Some(mut check) = tritonclient::check() else { return };
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), runtime, library).await;
    let address = node.address("api").unwrap();
    let client = Client::new(address).unwrap();
    for (name, _) in TYPES {
        let path = format!("/v2/models/identity-{name}");
        let runs = |about: &Value| (about["platform"] == runtime).then_some(());
        client.until(&path, SOON, runs).await.unwrap();
    }
    let grpc = node.address("grpc").unwrap();
    check.args([address.to_string(), grpc.to_string()]);
    let output = tokio::task::spawn_blocking(move || check.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}\n{}", node.log_tail());
}

#[tokio::test]
async fn tritonclient_works_unmodified_with_onnx_runtime() {
    let Some(library) = onnxruntime::found("newest") else { return };
    check_on("onnxruntime", library.to_str().unwrap()).await;
}

#[tokio::test]
async fn tritonclient_works_unmodified_with_tract() {
    check_on("tract", "off").await;
}
