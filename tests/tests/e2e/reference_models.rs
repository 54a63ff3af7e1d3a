//! The models that lie beside the repository, each on every runtime that is there, against the
//! outputs that their own reference gave.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use holdfast_models::runtime::onnx_runtime::Provider;
use holdfast_models::{OnnxRuntime, Runtime, Tract};
use holdfast_tests::agreement::{self, CASES, Case, Off};
use holdfast_tests::golden::{self, Golden};
use holdfast_tests::{onnxruntime, reference};

fn models() -> Option<PathBuf> {
    reference::reference("golden outputs of the reference models").map(|dir| dir.join("models"))
}

/// How far a runtime is off, or why it does not run the model.
fn off(golden: &Golden, runtime: &dyn Runtime) -> Result<Off, String> {
    let loaded = runtime.load(&golden.graph(), NonZeroUsize::MIN);
    let mut session = loaded.map_err(|error| error.to_string())?;
    agreement::off(golden, &mut *session)
}

/// Runs every model and says which are off, or fail for another reason than is known.
fn check(runtime: &dyn Runtime, most: f32, missing: fn(&Case) -> Option<&'static str>) {
    let Some(models) = models() else { return };
    let mut wrong = Vec::new();
    for case in &CASES {
        let golden = Golden::read(&models, case.name).unwrap();
        let off = off(&golden, runtime);
        println!("{} on {}: {off:?}", case.name, runtime.name());
        match (&off, missing(case)) {
            (Ok(off), None) if case.agrees(*off) && off.by <= most => {}
            (Err(why), Some(operator)) if why.contains(operator) => {}
            _ => wrong.push((case.name, off)),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_model_of_the_folder_is_here() {
    let Some(models) = models() else { return };
    assert_eq!(golden::names(&models).unwrap(), CASES.map(|case| case.name));
}

#[test]
fn tract_gives_the_golden_outputs() {
    check(&Tract, f32::MAX, |case| case.not_in_tract);
}

fn check_version(version: &str) {
    let Some(library) = onnxruntime::library(version) else { return };
    let found = library.version().expect("the file tells its version").to_owned();
    assert!(version == "newest" || found.starts_with(version), "{found} is not {version}");
    // The goldens are ONNX Runtime's own: another version, or another processor, is off by little.
    check(&OnnxRuntime::new(library, Provider::Cpu), 4.0, |_| None);
}

#[test]
fn onnx_runtime_1_22_gives_the_golden_outputs() {
    check_version("1.22");
}

#[test]
fn onnx_runtime_1_23_gives_the_golden_outputs() {
    check_version("1.23");
}

#[test]
fn the_newest_onnx_runtime_gives_the_golden_outputs() {
    check_version("newest");
}
