//! The reference classifiers from file to label, as accurate as the folder's PROVENANCE.md states for
//! its reference pipeline.

use holdfast_models::runtime::onnx_runtime::Provider;
use holdfast_models::{OnnxRuntime, Runtime, Tract};
use holdfast_tests::classifiers::{CASES, Case};
use holdfast_tests::{onnxruntime, reference};

/// Within one percentage point of what the reference pipeline gets right, or within so many files.
fn check(runtime: &dyn Runtime, files: fn(&Case) -> usize) {
    let Some(reference) = reference::reference("accuracy of the reference models") else { return };
    let mut wrong = Vec::new();
    for case in &CASES {
        let (right, all) = case.count(&reference, runtime).unwrap();
        let line =
            format!("{} {}: {right}/{all}, the reference {}", case.model, case.fit(), case.right);
        println!("{line} on {}", runtime.name());
        if right.abs_diff(case.right) > files(case).max(all / 100) {
            wrong.push(line);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn tract_is_as_accurate_as_the_reference() {
    // Without the rounding of its activations a quantised network is nearer to the one it was made
    // from: of 96 recordings one comes out otherwise, and the small MobileNet gets as many photos
    // right as its own fp32 form does (13 and 9).
    check(&Tract, |case| match case.model {
        "kws_dscnn_ortq_int8_qdq" => 1,
        "mobilenet_v1_025_128_int8_qdq" => 2,
        _ => 0,
    });
}

#[test]
fn onnx_runtime_is_as_accurate_as_the_reference() {
    let Some(library) = onnxruntime::library("newest") else { return };
    // The small MobileNet is torn between classes on most photos, in steps of 1/256; one step of a
    // JPEG decoder decides. Pillow's decoder gives it 15, the same crop without rounding its corner 14.
    check(&OnnxRuntime::new(library, Provider::Cpu), |case| match case.model {
        "mobilenet_v1_025_128_int8_qdq" => 3,
        _ => 0,
    });
}
