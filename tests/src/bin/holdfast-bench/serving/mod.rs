//! The agent as a server of models, beside ONNX Runtime by itself and beside other servers, in one run.
//!
//! The servers take turns in rounds, each at rest while another is measured; what is quoted are medians
//! over the rounds. With one caller, client and server have a core each. A turn in which other work used
//! the machine is taken again.
//!
//! **Invariant:** every ratio and difference is of turns of the same round.

mod agents;
pub(crate) mod bare;
mod grpc;
mod load;
mod models;
pub(crate) mod peers;
pub(crate) mod processes;
mod rounds;
mod wire;

use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_tests::{onnxruntime, reference};

use self::agents::{Kept, Way};
use self::load::Figures;
use self::models::Models;
use self::peers::Python;
use self::rounds::{Results, Rounds};
use crate::report::Report;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The agent's binary
    #[arg(long)]
    agent: PathBuf,
    /// The Python environment of the peers
    #[arg(long, default_value = "target/bench/peers")]
    peers: PathBuf,
    /// Rounds in which everybody has a turn
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Seconds of a turn
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,
    /// Starts to measure
    #[arg(long, default_value_t = 11)]
    starts: usize,
    /// Requests after which the memory is looked at again
    #[arg(long, default_value_t = 1_000_000)]
    requests: usize,
}

pub(crate) fn measure(options: &Options, out: &Path) -> anyhow::Result<Report> {
    let mut report = Report::new("serving", "Serving models on ONNX Runtime, beside other servers");
    let Some(reference) = reference::reference("serving the reference models") else {
        return Ok(report);
    };
    let Some(library) = onnxruntime::found("newest") else { return Ok(report) };
    // Only an earlier call can make this fail, and that one did the same.
    rustls::crypto::ring::default_provider().install_default().ok();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::fs::create_dir_all(out)?;
    let folder = tempfile::tempdir_in(out)?;
    let folder = folder.path().canonicalize()?;
    let models = Models::write(&reference, &folder)?;
    let python = Python::in_folder(&options.peers)?;
    let place = |name: &str| folder.join(name);
    let onnx = Kept { agent: &options.agent, place: place("onnx"), way: Way::Onnx(&library) };
    runtime.block_on(async {
        let rounds =
            Rounds { count: options.rounds, time: Duration::from_secs_f64(options.seconds) };
        let results = rounds.run(&onnx, &models, python.as_ref(), &library).await?;
        rows(&mut report, &results);
        onnx.memory(&mut report, &models, options.requests).await?;
        let tract = Kept { agent: &options.agent, place: place("tract"), way: Way::Tract };
        let tiny = Kept { agent: &options.agent, place: place("tiny"), way: Way::Onnx(&library) };
        for (agent, what, bar) in [(&tiny, "ONNX Runtime", 150.0), (&tract, "tract", 50.0)] {
            let p50 = agent.first_answer(&models, options.starts).await?;
            let what = format!("tiny net, {what}: from start to the first answer, p50");
            report.at_most(what, p50, "ms", bar);
        }
        anyhow::Ok(())
    })?;
    Ok(report)
}

/// The rows on speed, in the order of the bars.
fn rows(report: &mut Report, results: &Results) {
    let p50 = |figures: &Figures| figures.p50;
    let p99 = |figures: &Figures| figures.p99;
    let rate = |figures: &Figures| figures.rate;
    let ms = |figures: &Figures| figures.p50 / 1000.0;

    for (name, what, bar) in [
        ("tiny", "tiny net", 1.0),
        ("mobilenet-fp32", "MobileNetV2 fp32", 1.05),
        ("mobilenet-int8", "MobileNetV2 int8", 1.05),
    ] {
        let (own, bare) = (format!("{name}: in process"), format!("{name}: bare"));
        report.detail(
            format!("{what}: ONNX Runtime from Python, p50"),
            results.of(&bare, p50),
            "us",
        );
        report.detail(format!("{what}: in process, p50"), results.of(&own, p50), "us");
        let ratio = results.ratio(&own, &bare, p50);
        report.at_most(format!("{what}: in process / from Python, p50"), ratio, "x", bar);
    }

    let added = |name: &str, of: fn(&Figures) -> f64| results.difference(name, "tiny: bare", of);
    report.at_most("tiny net, 1 caller: added, p50", added("tiny: agent", p50), "us", 120.0);
    report.at_most("tiny net, 1 caller: added, p99", added("tiny: agent", p99), "us", 400.0);
    for (name, what) in [
        ("tiny: nothing", "by the client and a server that does nothing"),
        ("tiny: agent, JSON", "by the agent in JSON"),
        ("tiny: FastAPI", "by FastAPI"),
        ("tiny: MLServer", "by MLServer in JSON"),
        ("tiny: LitServe", "by LitServe in JSON"),
    ] {
        report.add(format!("tiny net, 1 caller: added {what}, p50"), added(name, p50), "us");
    }
    let grpc = results.ratio("tiny: agent, gRPC", "tiny: agent", p50);
    report.at_most("tiny net, 1 caller: gRPC / binary REST, p50", grpc, "x", 1.5);

    report.add("tiny net, 16 callers", results.of("tiny x 16: agent", rate), "/s");
    let faster = results.ratio("tiny x 16: agent", "tiny x 16: FastAPI x 2", rate);
    report.at_least("tiny net, 16 callers: the agent / FastAPI with 2 workers", faster, "x", 3.0);
    for (name, what) in [
        ("tiny x 16: nothing", "a server that does nothing"),
        ("tiny x 16: agent, gRPC", "the agent over gRPC"),
        ("tiny x 16: FastAPI x 2", "FastAPI with 2 workers"),
        ("tiny x 16: MLServer", "MLServer in JSON"),
        ("tiny x 16: LitServe", "LitServe in JSON"),
    ] {
        report.add(format!("tiny net, 16 callers: {what}"), results.of(name, rate), "/s");
    }

    for (name, what) in
        [("mobilenet-fp32", "MobileNetV2 fp32"), ("mobilenet-int8", "MobileNetV2 int8")]
    {
        let (bare, agent) = (format!("{name}: bare"), format!("{name}: agent"));
        report.detail(format!("{what}, 1 caller, p50"), results.of(&agent, ms), "ms");
        let served = results.ratio(&agent, &bare, p50);
        report.at_most(format!("{what}, 1 caller: the agent / bare, p50"), served, "x", 1.05);
        let fastapi = results.ratio(&format!("{name}: FastAPI"), &bare, p50);
        report.add(format!("{what}, 1 caller: FastAPI / bare, p50"), fastapi, "x");
        let both = format!("{name} x 2: bare");
        for callers in [4, 16] {
            let of =
                |server: &str| results.ratio(&format!("{name} x {callers}: {server}"), &both, rate);
            let what = format!("{what}, {callers} callers");
            report.at_least(
                format!("{what}: the agent / two bare processes"),
                of("agent"),
                "x",
                0.93,
            );
            let fastapi = of("FastAPI x 2");
            report.add(
                format!("{what}: FastAPI with 2 workers / two bare processes"),
                fastapi,
                "x",
            );
        }
    }

    let over = |name: &str| results.difference(name, "mobilenet-fp32: bare", ms);
    report.at_most("1.1 MB of JSON: added, p50", over("JSON: agent"), "ms", 2.0);
    report.add("1.1 MB of JSON: added by MLServer, p50", over("JSON: MLServer"), "ms");
    report.at_most("JPEG 640x480 to label: added, p50", over("JPEG: agent"), "ms", 1.2);
    report.add(
        "JPEG 640x480 to label: added by FastAPI with Pillow, p50",
        over("JPEG: FastAPI"),
        "ms",
    );
    for (name, memory) in &results.memory {
        // Pages that the peers have in common count for each by its share: alone each takes more.
        report.add(format!("{name} beside the others: memory (PSS)"), *memory, "MiB");
    }
    report.detail("turns in which others used the machine all the same", results.noisy, "");
}
