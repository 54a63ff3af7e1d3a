//! The graphs of the reference folder on each runtime, on one core, side by side.
//!
//! **Invariant:** the runtimes take turns on one model, so that whatever else the machine does weighs
//! on both; only running is counted, and a runtime whose answer is off is not measured.

use std::num::NonZeroUsize;
use std::time::Duration;

use holdfast_models::runtime::onnx_runtime::Provider;
use holdfast_models::{OnnxRuntime, Runtime, Session, Tensor, Tract};
use holdfast_tests::golden::{self, Golden};
use holdfast_tests::{onnxruntime, reference};

use crate::clock::timed;
use crate::report::{Report, quantile};

/// Turns that each runtime has.
const TURNS: usize = 12;
/// One turn lasts about this long.
const TURN: Duration = Duration::from_millis(60);

/// A graph that is ready to run on one runtime.
struct Ready {
    session: Box<dyn Session>,
    outputs: Vec<Tensor>,
    times: Vec<Duration>,
}

pub(crate) fn measure() -> anyhow::Result<Report> {
    let mut report = Report::new("runtimes", "The reference models, one core");
    let Some(folder) = reference::reference("the reference models on each runtime") else {
        return Ok(report);
    };
    let models = folder.join("models");
    let onnx = onnxruntime::library("newest").map(|lib| OnnxRuntime::new(lib, Provider::Cpu));
    let mut tract_times: Vec<(String, f64)> = Vec::new();
    let mut ratios = Vec::new();
    for name in golden::names(&models)? {
        eprintln!("measuring {name}");
        let golden = Golden::read(&models, &name)?;
        let mut tract = ready(&golden, &Tract);
        let mut onnx = onnx.as_ref().and_then(|onnx| ready(&golden, onnx));
        for _ in 0..TURNS {
            for ready in tract.iter_mut().chain(&mut onnx) {
                turn(&golden, ready)?;
            }
        }
        let p50 = |ready: &Option<Ready>| {
            ready.as_ref().map(|ready| quantile(&ready.times, 0.5).as_secs_f64() * 1e6)
        };
        let (tract, onnx) = (p50(&tract), p50(&onnx));
        if let Some(tract) = tract {
            report.detail(format!("{name}: tract, p50"), tract, "us");
            tract_times.push((name.clone(), tract));
        }
        if let Some(onnx) = onnx {
            report.detail(format!("{name}: ONNX Runtime, p50"), onnx, "us");
        }
        if let (Some(tract), Some(onnx)) = (tract, onnx) {
            report.detail(format!("{name}: tract / ONNX Runtime"), tract / onnx, "x");
            ratios.push((tract / onnx).ln());
        }
    }
    if !ratios.is_empty() {
        let mean = (ratios.iter().sum::<f64>() / ratios.len() as f64).exp();
        let what = format!("tract / ONNX Runtime, geometric mean of {} models", ratios.len());
        report.add(what, mean, "x");
    }
    for (name, time) in &tract_times {
        let plain = |(other, _): &&(String, f64)| {
            name.strip_suffix("_int8_qdq").is_some_and(|stem| *other == format!("{stem}_fp32"))
        };
        if let Some((_, fp32)) = tract_times.iter().find(plain) {
            report.at_most(format!("{name}: tract, int8 / fp32"), time / fp32, "x", 1.0);
        }
    }
    Ok(report)
}

/// The model on a runtime; none where it does not run.
fn ready(golden: &Golden, runtime: &dyn Runtime) -> Option<Ready> {
    let loaded = runtime.load(&golden.graph(), NonZeroUsize::MIN);
    let session = loaded.inspect_err(|error| eprintln!("  not on {}: {error}", runtime.name()));
    Some(Ready { session: session.ok()?, outputs: golden.room(), times: Vec::new() })
}

fn turn(golden: &Golden, ready: &mut Ready) -> anyhow::Result<()> {
    let mut spent = Duration::ZERO;
    while spent < TURN {
        let (took, ran) = timed(|| ready.session.run(&golden.given, &mut ready.outputs));
        ran?;
        spent += took;
        ready.times.push(took);
    }
    Ok(())
}
