//! The promises, proved on real processes.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on ends; its numbers are small"
)]

mod access;
mod access_tls;
mod annotate;
mod answers;
mod audit;
mod bad_input;
mod bad_models;
mod bundles;
mod by_name;
mod classes;
mod damage;
mod delivery;
mod disk;
mod doors;
mod faults;
mod held_conversation;
mod help;
mod kill;
mod main_job;
mod models_add;
mod models_golden;
mod network;
mod no_queue;
mod not_before;
mod oip;
#[path = "../../../models/tests/models/onnx.rs"]
#[allow(dead_code, reason = "the tests of the models use the rest of it")]
mod onnx;
mod openai;
mod openapi;
mod portal;
mod pressure;
mod queue_changes;
mod queue_commands;
mod receiver;
mod reference_accuracy;
mod reference_kinds;
mod reference_models;
mod results;
mod runtime_install;
mod same_key;
mod serving;
mod stopping;
mod transport;
mod tuning;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use holdfast_tests::reference;
use holdfast_tests::site::DEVICE;

/// A program that is the agent and the controller.
fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_holdfast-demo"))
}

/// A command of the agent whose state is under this folder: whether it went well, and what it said.
fn command(dir: &Path, args: &[&str]) -> (bool, String) {
    let config = dir.join(format!("{DEVICE}.toml"));
    let mut command = Command::new(program());
    let output = command.arg("agent").args(args).arg("--config").arg(config).output().unwrap();
    let text = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.success(), String::from_utf8(text).unwrap())
}

/// A client without a proxy, to be told more.
fn client() -> reqwest::ClientBuilder {
    // The first of several clients in one process installs it.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder().no_proxy()
}

/// For everything that happens by itself.
const SOON: Duration = Duration::from_secs(60);

/// A sample of a shipped bundle, as bytes.
fn sample(bundle: &str, surely: impl Fn(&str) -> bool) -> Vec<u8> {
    let dir = reference::bundles().join(bundle);
    let samples = holdfast_tests::samples::of_bundle(&dir).expect("the shipped bundle opens");
    let found = samples.iter().find(|sample| surely(&sample.name()));
    found.expect("there is such a sample").read().expect("the sample can be read")
}
