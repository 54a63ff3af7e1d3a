//! Servers of the Open Inference Protocol: Triton and MLServer run the graphs of this device's own bundles, so
//! that what they answer is known.

use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_models::Bundle;
use holdfast_tests::bundle::Made;
use holdfast_tests::client::Reply;
use holdfast_tests::reference;
use holdfast_tests::servers::{Kind, Server};
use holdfast_tests::site::DEVICE;
use holdfast_tests::tiny;

use super::desk::{Desk, destination};

/// One recording, one picture, one tensor.
const SHIPPED: [&str; 2] = ["voice-commands", "part-inspection"];
/// A server is back, and a link seen to be up again, within this time.
const BACK_WITHIN: Duration = Duration::from_secs(60);

/// The task that takes a tensor: its bundle's folder, and something to ask.
fn tiny_bundle(dir: &Path) -> (PathBuf, Vec<u8>) {
    let labels: Vec<String> = (0..tiny::CLASSES).map(|class| class.to_string()).collect();
    let tables = format!(
        "[[input]]\nname = \"x\"\ndtype = \"f32\"\nshape = {:?}\n[input.tensor]\n[[output]]\n\
         name = \"y\"\ndtype = \"f32\"\nshape = [1, {}]\nmeaning = \"probabilities\"\n\
         labels = {labels:?}\nthreshold = 0.0\n",
        tiny::INPUT,
        tiny::CLASSES,
    );
    let count: usize = tiny::INPUT.map(usize::from).iter().product();
    let sample: Vec<u8> = (0..count)
        .flat_map(|at| {
            (f32::from(u16::try_from(at * 7919 % 20_000).unwrap()) / 1e4 - 1.0).to_le_bytes()
        })
        .collect();
    let own = dir.join("tiny");
    std::fs::create_dir(&own).unwrap();
    let made = Made {
        onnx: &tiny::network(),
        kind: "classification",
        tables: &tables,
        label: "label = \"0\"",
        sample: ("sample.f32", &sample),
        // Every distribution is within 1 of it.
        golden: &[0.1; tiny::CLASSES as usize],
        tolerance: 1.0,
    };
    made.write_as("tiny", &own).unwrap();
    (own, sample)
}

/// What is asked of each task.
pub(crate) fn samples(dir: &Path) -> (Vec<PathBuf>, Vec<(&'static str, Vec<u8>)>) {
    let (tiny, numbers) = tiny_bundle(dir);
    let mut bundles: Vec<PathBuf> =
        SHIPPED.iter().map(|name| reference::bundles().join(name)).collect();
    let shipped = SHIPPED.iter().zip(&bundles).flat_map(|(name, folder)| {
        let bundle = Bundle::open(folder).unwrap();
        let files = bundle.samples().iter().take(3);
        files.map(|file| (*name, bundle.read(&file.file).unwrap())).collect::<Vec<_>>()
    });
    let samples = shipped.chain([("tiny", numbers)]).collect();
    bundles.push(tiny);
    (bundles, samples)
}

pub(crate) async fn ask(desk: &Desk, task: &str, body: &[u8], escalate: &str) -> Reply {
    let mut terms = vec![("holdfast-escalate", escalate), ("holdfast-deadline-ms", "20000")];
    if task == "tiny" {
        terms.push(("content-type", "application/octet-stream"));
    }
    desk.client.ask(task, body.to_vec(), &terms).await.unwrap()
}

async fn answers_as_the_bundles_here_do(kind: Kind) {
    let dir = tempfile::tempdir().unwrap();
    let (bundles, samples) = samples(dir.path());
    let graph = |(name, folder): (&str, &PathBuf)| {
        let file = if name == "tiny" { "model.onnx" } else { "model.fp32.onnx" };
        format!("{name}={}", folder.join(file).display())
    };
    let names = SHIPPED.iter().copied().chain(["tiny"]);
    let models: Vec<String> = names.zip(&bundles).map(graph).collect();
    let started = Server::start(kind, &dir.path().join("server"), &models).await.unwrap();
    let Some(mut server) = started else { return };
    let more = "protocol = \"oip\"\ntasks = [\"voice-commands\", \"part-inspection\", \"tiny\"]";
    let section = destination("server", &server.url(), more);
    let desk = Desk::start(DEVICE, dir.path(), bundles, &section).await;
    for (task, body) in &samples {
        let own = ask(&desk, task, body, "never").await.answer.unwrap();
        let reply = ask(&desk, task, body, "always").await;
        let there = reply.answer.as_ref().unwrap_or_else(|| panic!("{kind:?}: {}", reply.why()));
        assert_eq!(
            (own.place.as_str(), there.place.as_str()),
            ("device", "server"),
            "{}",
            reply.why()
        );
        assert_eq!((&there.label, there.provisional), (&own.label, false), "{kind:?} {task}");
        let off = (there.confidence - own.confidence).abs();
        assert!(off < 0.01, "{kind:?} {task}: {there:?} and not {own:?}");
        assert!(there.model.starts_with(task), "{there:?}");
    }
    server.kill();
    let mut held = Vec::new();
    for (task, body) in &samples {
        let reply = ask(&desk, task, body, "always").await;
        assert_eq!(reply.state, "held", "{kind:?} {task}: {}", reply.why());
        held.push((task, reply.id));
    }
    server.restart().await.unwrap();
    for (task, id) in held {
        let reply = desk.client.settled(&id, BACK_WITHIN).await.unwrap();
        let answer = reply.answer.as_ref().unwrap_or_else(|| panic!("{task}: {}", reply.why()));
        assert_eq!((reply.state.as_str(), answer.place.as_str()), ("answered", "server"), "{task}");
    }
}

#[tokio::test]
async fn triton_answers_as_the_bundles_here_do_and_what_was_held_when_it_is_back() {
    answers_as_the_bundles_here_do(Kind::Triton).await;
}

#[tokio::test]
async fn mlserver_answers_as_the_bundles_here_do_and_what_was_held_when_it_is_back() {
    answers_as_the_bundles_here_do(Kind::MlServer).await;
}
