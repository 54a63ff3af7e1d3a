//! One pair of a model and a runtime, in this process.
//!
//! **Invariant:** memory is looked at before anything else is loaded; the test files come last.

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use holdfast_models::runtime::onnx_runtime::Provider;
use holdfast_models::{OnnxRuntime, Runtime, Session, Tract};
use holdfast_tests::agreement::{self, CASES};
use holdfast_tests::golden::Golden;
use holdfast_tests::{classifiers, kinds};
use holdfast_tests::{onnxruntime, reference};
use serde::{Deserialize, Serialize};

use crate::clock::timed;
use crate::machine::status_kib;
use crate::report::quantile;

/// Runs that are measured take this long together.
const TIME: Duration = Duration::from_millis(800);

#[derive(clap::Args)]
pub(crate) struct Part {
    /// `tract`, or a version of ONNX Runtime
    runtime: String,
    /// The model
    model: String,
}

/// What came of a pair.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Measured(Measured),
    /// Why it cannot run.
    Refused(String),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// With its version.
    pub(crate) runtime: String,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// What loading and running took at most, the runtime's library with it.
    pub(crate) peak_kib: f64,
    /// The largest difference from the golden outputs.
    pub(crate) off: f32,
    /// Whether that is within the tolerance.
    pub(crate) agrees: bool,
    /// What it gets right of the test files, from file to answer.
    pub(crate) right: Vec<String>,
}

/// Measures one pair.
pub(crate) fn run_part(part: &Part) -> anyhow::Result<String> {
    let folder = reference::reference("the reference models").context("no reference folder")?;
    Ok(serde_json::to_string(&outcome(part, &folder)?)?)
}

fn outcome(part: &Part, folder: &Path) -> anyhow::Result<Outcome> {
    let case = CASES.iter().find(|case| case.name == part.model);
    let case = case.with_context(|| format!("there is no model {}", part.model))?;
    let golden = Golden::read(&folder.join("models"), case.name)?;
    let before = status_kib("VmRSS:")?;
    let (runtime, name): (Box<dyn Runtime>, String) = match part.runtime.as_str() {
        "tract" => (Box::new(Tract), "tract".into()),
        version => {
            let library = onnxruntime::library(version).context("no library")?;
            let known = library.version().unwrap_or(version).to_owned();
            let runtime = OnnxRuntime::new(library, Provider::Cpu);
            (Box::new(runtime), format!("ONNX Runtime {known}"))
        }
    };
    let mut session = match runtime.load(&golden.graph(), NonZeroUsize::MIN) {
        Ok(session) => session,
        Err(error) => return Ok(Outcome::Refused(error.to_string())),
    };
    let off = match agreement::off(&golden, &mut *session) {
        Ok(off) => off,
        Err(why) => return Ok(Outcome::Refused(why)),
    };
    let times = run(&golden, &mut *session)?;
    let peak_kib = status_kib("VmHWM:")? - before;
    drop(session);
    let us = |share| quantile(&times, share).as_secs_f64() * 1e6;
    Ok(Outcome::Measured(Measured {
        runtime: name,
        p50_us: us(0.5),
        p99_us: us(0.99),
        peak_kib,
        off: off.by,
        agrees: case.agrees(off),
        right: right(case.name, folder, &*runtime)?,
    }))
}

fn run(golden: &Golden, session: &mut dyn Session) -> anyhow::Result<Vec<Duration>> {
    let mut outputs = golden.room();
    let (mut times, mut spent) = (Vec::new(), Duration::ZERO);
    while spent < TIME {
        let (took, ran) = timed(|| session.run(&golden.given, &mut outputs));
        ran?;
        spent += took;
        times.push(took);
    }
    Ok(times)
}

/// What it gets right, where there are files to test it with.
fn right(model: &str, folder: &Path, runtime: &dyn Runtime) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for case in classifiers::CASES.iter().filter(|case| case.model == model) {
        let (right, all) = case.count(folder, runtime)?;
        found.push(format!("{right} of {all} {}", case.fit()).trim_end().to_owned());
    }
    found.extend(kinds::found(model, folder, runtime)?);
    Ok(found)
}
