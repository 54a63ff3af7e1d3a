//! What every runtime promises: right answers, and a reason when it has none.

use std::num::NonZeroUsize;

use holdfast_models::runtime::{Graph, TensorSpec};
use holdfast_models::tensor::Elements;
use holdfast_models::{Dtype, Runtime, RuntimeError, Tensor, Tract};

use crate::onnx;

/// Runs a graph with one f32 input and one f32 output on the embedded runtime.
pub(crate) fn run(
    onnx: &[u8],
    input: (&str, &[usize]),
    output: (&str, &[usize]),
    values: &[f32],
) -> Result<Vec<f32>, RuntimeError> {
    run_on(&Tract, onnx, input, output, values)
}

fn run_on(
    runtime: &dyn Runtime,
    onnx: &[u8],
    input: (&str, &[usize]),
    output: (&str, &[usize]),
    values: &[f32],
) -> Result<Vec<f32>, RuntimeError> {
    let spec = |(name, shape): (&str, &[usize])| TensorSpec {
        name: name.to_owned(),
        dtype: Dtype::F32,
        shape: shape.to_vec(),
    };
    let graph = Graph { onnx, inputs: &[spec(input)], outputs: &[spec(output)] };
    let mut session = runtime.load(&graph, NonZeroUsize::MIN)?;
    let mut outputs = [Tensor::zeros(output.1, Dtype::F32)];
    let input = Tensor::new(input.1.to_vec(), Elements::F32(values.to_vec())).unwrap();
    session.run(&[input], &mut outputs)?;
    Ok(outputs[0].of().unwrap().to_vec())
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
fn a_softmax_that_stays_between_steps_is_refused() {
    // Quantised by one scale and restored by another is no pair, and so it stays.
    let graph = onnx::graph(
        &[1, 4],
        &[
            ("QuantizeLinear", &["x", "scale", "i8zero"], &["xq"], &[]),
            ("DequantizeLinear", &["xq", "fine", "i8zero"], &["xd"], &[]),
            ("Softmax", &["xd"], &["s"], &[("axis", 1)]),
            ("QuantizeLinear", &["s", "scale", "i8zero"], &["y"], &[]),
        ],
        &[("scale", &[], &[0.1]), ("fine", &[], &[0.01]), ("i8zero", &[], &[0.0])],
    );
    let error = run(&graph, ("x", &[1, 4]), ("y", &[1, 4]), &[0.0; 4]).unwrap_err();
    let RuntimeError::Unsupported { why, .. } = &error else { panic!("{error:?}") };
    assert!(why.contains("Softmax-of-s"), "{why}");
}

/// A pair behind values that leave its range holds them inside of it, as quantising does.
#[test]
fn a_range_that_only_quantising_gives_is_kept() {
    let graph = onnx::graph(
        &[1, 4],
        &[
            ("QuantizeLinear", &["x", "scale", "i8low"], &["xq"], &[]),
            ("DequantizeLinear", &["xq", "scale", "i8low"], &["xd"], &[]),
            ("MatMul", &["xd", "w"], &["y"], &[]),
        ],
        &[
            ("scale", &[], &[6.0 / 255.0]),
            ("i8low", &[], &[-128.0]),
            ("w", &[4, 4], &std::array::from_fn::<_, 16, _>(|i| f32::from(u8::from(i % 5 == 0)))),
        ],
    );
    let got = run(&graph, ("x", &[1, 4]), ("y", &[1, 4]), &[-3.0, 0.5, 5.9, 80.0]).unwrap();
    for (got, want) in got.iter().zip([0.0, 0.5, 5.9, 6.0]) {
        assert!((got - want).abs() <= 6.0 / 255.0, "{got}, not {want}");
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
