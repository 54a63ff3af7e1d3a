//! The models that lie beside the repository, each on every runtime that is there, against the
//! outputs that their own reference gave.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use holdfast_models::runtime::onnx_runtime::Provider;
use holdfast_models::{OnnxRuntime, Runtime, Tensor, Tract};
use holdfast_tests::golden::{self, Golden};
use holdfast_tests::{onnxruntime, reference};

/// A model, and how far an output may be off: whole steps for int8, else a difference.
struct Case {
    name: &'static str,
    /// In f32 the largest difference of any output; for whole numbers the largest number of steps.
    tolerance: f32,
    /// Why tract cannot run it.
    not_in_tract: Option<&'static str>,
}

impl Case {
    fn is_classifier(&self) -> bool {
        // Of the int8 ResNet, reference kernels themselves agree on 93 % of the answers only.
        let doubtful = self.name == "ic_resnet8_cifar10_int8_qdq";
        let classifiers = ["ic_", "intent_", "kws_", "mobilenet_", "pump_state", "vww_"];
        !doubtful && classifiers.iter().any(|name| self.name.starts_with(name))
    }
}

const fn case(name: &'static str, tolerance: f32) -> Case {
    Case { name, tolerance, not_in_tract: None }
}

/// Each model of the folder. The int8 tolerances are the differences that PROVENANCE.md itself states
/// between reference kernels of one model (18, 13 and 63 steps), or a few steps of the output's scale.
const CASES: [Case; 27] = [
    case("ad_toycar_autoencoder_fp32", 1e-2),
    case("ad_toycar_autoencoder_int8_qdq", 18.0),
    case("face_ultralight_rfb_320_fp32", 1e-4),
    case("face_ultralight_rfb_320_int8_qdq", 0.1),
    case("face_ultralight_rfb_320_opset9_fp32", 1e-4),
    case("ic_resnet8_cifar10_fp32", 1e-4),
    case("ic_resnet8_cifar10_int8_qdq", 63.0),
    case("intent_hashbow_fp32", 1e-4),
    case("intent_hashbow_int8_qdq", 0.02),
    case("kws_dscnn_fp32", 1e-4),
    case("kws_dscnn_hybrid_w8f32", 1e-4),
    case("kws_dscnn_int8_qdq", 18.0),
    case("kws_dscnn_ortq_int8_qdq", 0.05),
    case("mobilenet_v1_025_128_fp32", 1e-4),
    case("mobilenet_v1_025_128_int8_qdq", 13.0),
    case("mobilenet_v2_100_224_fp32", 1e-4),
    case("mobilenet_v2_100_224_int8_qdq", 13.0),
    case("pump_ae_fp32", 1e-3),
    case("pump_ae_int8_qdq", 0.5),
    case("pump_state_fp32", 1e-4),
    case("pump_state_int8_qdq", 0.05),
    Case { name: "silero_vad", tolerance: 1e-4, not_in_tract: Some("If") },
    Case { name: "silero_vad_16k_convq_int8_qdq", tolerance: 0.1, not_in_tract: Some("If") },
    Case { name: "silero_vad_16k_op15", tolerance: 1e-4, not_in_tract: Some("If") },
    case("silero_vad_op18_ifless", 1e-4),
    case("vww_mobilenetv1_fp32", 1e-4),
    case("vww_mobilenetv1_int8_qdq", 13.0),
];

fn models() -> Option<PathBuf> {
    reference::reference("golden outputs of the reference models").map(|dir| dir.join("models"))
}

/// The largest difference, and whether the greatest element of the first output is the same one, which
/// for a classifier is its answer.
fn off(golden: &Golden, runtime: &dyn Runtime) -> Result<(f32, bool), String> {
    let loaded = runtime.load(&golden.graph(), NonZeroUsize::MIN);
    let mut session = loaded.map_err(|error| error.to_string())?;
    let mut got = golden.room();
    // Twice: what a run leaves behind changes nothing.
    for _ in 0..2 {
        session.run(&golden.given, &mut got).map_err(|error| error.to_string())?;
    }
    let top = |tensor: &Tensor| {
        let values = tensor.to_f32();
        // Of equal ones the first, as everywhere.
        let top = values.iter().enumerate().rev().max_by(|a, b| a.1.total_cmp(b.1));
        top.map(|(at, _)| at)
    };
    Ok((golden.off(&got), top(&golden.wanted[0]) == top(&got[0])))
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
            (Ok((off, same_top)), None)
                if *off <= case.tolerance.min(most) && (*same_top || !case.is_classifier()) => {}
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
