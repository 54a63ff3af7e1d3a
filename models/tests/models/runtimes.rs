//! The embedded runtime: right answers, and a reason when it has none.

use std::fs;

use holdfast_models::runtime::{Graph, TensorSpec};
use holdfast_models::{Runtime, RuntimeError, Tract};

use crate::onnx;
use crate::reference;

/// Runs a graph with one input and one output.
pub(crate) fn run(
    onnx: &[u8],
    input: (&str, &[usize]),
    output: (&str, &[usize]),
    values: &[f32],
) -> Result<Vec<f32>, RuntimeError> {
    let spec = |(name, shape): (&str, &[usize])| TensorSpec {
        name: name.to_owned(),
        shape: shape.to_vec(),
    };
    let graph = Graph { onnx, inputs: &[spec(input)], outputs: &[spec(output)] };
    let mut session = Tract.load(&graph)?;
    let mut outputs = vec![Vec::new()];
    session.run(&[values], &mut outputs)?;
    Ok(outputs.remove(0))
}

/// x, quantised and back, through a Softmax, quantised and back.
fn quantised_softmax() -> Vec<u8> {
    onnx::graph(
        &[1, 4],
        &[
            ("QuantizeLinear", &["x", "scale", "i8zero"], &["xq"], &[]),
            ("DequantizeLinear", &["xq", "scale", "i8zero"], &["xd"], &[]),
            ("Softmax", &["xd"], &["s"], &[("axis", 1)]),
            ("QuantizeLinear", &["s", "fine", "i8low"], &["sq"], &[]),
            ("DequantizeLinear", &["sq", "fine", "i8low"], &["y"], &[]),
        ],
        &[
            ("scale", &[], &[0.1]),
            ("fine", &[], &[1.0 / 256.0]),
            ("i8zero", &[], &[0.0]),
            ("i8low", &[], &[-128.0]),
        ],
    )
}

#[test]
fn a_quantised_softmax_is_right() {
    let got = run(&quantised_softmax(), ("x", &[1, 4]), ("y", &[1, 4]), &[0.0, 3.0, 1.0, -5.0]);
    let got = got.unwrap();
    for (got, want) in got.iter().zip([0.041_959_6, 0.842_733_1, 0.114_058_1, 0.000_282_7]) {
        assert!((got - want).abs() < 1.0 / 256.0, "{got}, not {want}");
    }
}

#[test]
fn a_softmax_whose_steps_leave_the_graph_is_refused() {
    let graph = onnx::graph(
        &[1, 4],
        &[
            ("QuantizeLinear", &["x", "scale", "i8zero"], &["xq"], &[]),
            ("DequantizeLinear", &["xq", "scale", "i8zero"], &["xd"], &[]),
            ("Softmax", &["xd"], &["s"], &[("axis", 1)]),
            ("QuantizeLinear", &["s", "scale", "i8zero"], &["y"], &[]),
        ],
        &[("scale", &[], &[0.1]), ("i8zero", &[], &[0.0])],
    );
    let error = run(&graph, ("x", &[1, 4]), ("y", &[1, 4]), &[0.0; 4]).unwrap_err();
    let RuntimeError::Unsupported { why, .. } = &error else { panic!("{error:?}") };
    assert!(why.contains("Softmax-of-s"), "{why}");
}

#[test]
fn the_reference_models_give_their_golden_outputs() {
    let Some(dir) = reference::folder("golden outputs of the reference models") else { return };
    let floats = |name: &str| -> Vec<f32> {
        let bytes = fs::read(dir.join("models/golden").join(name)).unwrap();
        bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    type Io<'a> = (&'a str, &'a [usize]);
    let cases: [(&str, Io<'_>, Io<'_>, f32); 8] = [
        ("kws_dscnn_fp32", ("input_1", &[1, 49, 10, 1]), ("Identity", &[1, 12]), 1e-4),
        ("kws_dscnn_ortq_int8_qdq", ("input_1", &[1, 49, 10, 1]), ("Identity", &[1, 12]), 0.05),
        ("kws_dscnn_hybrid_w8f32", ("input_1", &[1, 49, 10, 1]), ("Identity", &[1, 12]), 1e-4),
        ("intent_hashbow_fp32", ("bow", &[1, 512]), ("prob", &[1, 10]), 1e-4),
        ("intent_hashbow_int8_qdq", ("bow", &[1, 512]), ("prob", &[1, 10]), 0.02),
        ("pump_state_fp32", ("window", &[1, 128]), ("prob", &[1, 5]), 1e-4),
        ("pump_ae_fp32", ("window_norm", &[1, 128]), ("recon", &[1, 128]), 1e-3),
        ("vww_mobilenetv1_fp32", ("input_1", &[1, 96, 96, 3]), ("Identity", &[1, 2]), 1e-4),
    ];
    for (name, input, output, tolerance) in cases {
        let onnx = fs::read(dir.join(format!("models/{name}.onnx"))).unwrap();
        let values = floats(&format!("{name}.in.{}.bin", input.0));
        let want = floats(&format!("{name}.out.{}.bin", output.0));
        let got = run(&onnx, input, output, &values).unwrap();
        let off = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("{name}: largest difference {off:e}");
        assert!(off <= tolerance, "{name}: off by {off}");
    }
}

#[test]
fn a_graph_that_is_not_as_it_is_said_to_be_is_refused() {
    let relu = onnx::graph(&[1, 4], &[("Relu", &["x"], &["y"], &[])], &[]);
    assert_eq!(run(&relu, ("x", &[1, 4]), ("y", &[1, 4]), &[-1.0, 2.0, 0.0, 3.0]), {
        Ok(vec![0.0, 2.0, 0.0, 3.0])
    });
    let interface = |error: &RuntimeError| matches!(error, RuntimeError::Interface { .. });
    let malformed = |error: &RuntimeError| matches!(error, RuntimeError::Malformed { .. });
    let unsupported = |error: &RuntimeError| matches!(error, RuntimeError::Unsupported { .. });
    let odd = onnx::graph(&[1, 4], &[("Frobnicate", &["x"], &["y"], &[])], &[]);
    let loose = onnx::graph(&[1, 4], &[("Relu", &["x"], &["z"], &[])], &[]);
    let wrong_type = onnx::graph(
        &[1, 4],
        &[("QuantizeLinear", &["x", "scale", "i8zero"], &["y"], &[])],
        &[("scale", &[], &[0.1]), ("i8zero", &[], &[0.0])],
    );
    let misfit =
        onnx::graph(&[1, 4], &[("MatMul", &["x", "w"], &["y"], &[])], &[("w", &[3, 2], &[0.0; 6])]);
    type Check<'a> = &'a dyn Fn(&RuntimeError) -> bool;
    let any = |_: &RuntimeError| true;
    let cases: [(&str, &[u8], &str, &str, &[usize], Check<'_>); 10] = [
        ("another input name", &relu, "z", "y", &[1, 4], &interface),
        ("another output name", &relu, "x", "z", &[1, 4], &interface),
        ("another shape", &relu, "x", "y", &[1, 5], &interface),
        ("another type", &wrong_type, "x", "y", &[1, 4], &interface),
        ("nothing", &[], "x", "y", &[1, 4], &malformed),
        ("no ONNX", b"this is text, not a graph", "x", "y", &[1, 4], &malformed),
        ("cut off", &relu[..relu.len() - 5], "x", "y", &[1, 4], &malformed),
        ("an output that nothing makes", &loose, "x", "y", &[1, 4], &malformed),
        ("an unknown operator", &odd, "x", "y", &[1, 4], &unsupported),
        ("shapes that do not fit", &misfit, "x", "y", &[1, 2], &any),
    ];
    for (name, onnx, input, output, shape, is_right) in cases {
        let error = run(onnx, (input, &[1, 4]), (output, shape), &[0.0; 4]).unwrap_err();
        assert!(is_right(&error), "{name}: {error:?}");
        println!("{name}: {error}");
    }
}

#[test]
fn a_graph_with_an_absurd_tensor_is_refused() {
    // 100,000 x 100,000 from two small vectors.
    let graph = onnx::graph(
        &[1, 100_000],
        &[
            ("Transpose", &["x"], &["t"], &[]),
            ("MatMul", &["t", "x"], &["huge"], &[]),
            ("ReduceSum", &["huge"], &["y"], &[("keepdims", 1)]),
        ],
        &[],
    );
    let shape = [1, 100_000];
    let error = run(&graph, ("x", &shape), ("y", &[1, 1]), &vec![0.0; 100_000]).unwrap_err();
    assert!(matches!(error, RuntimeError::Unsupported { .. }), "{error:?}");
}
