//! What every runtime promises: right answers, and a reason when it has none.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use holdfast_models::runtime::onnx_runtime::Provider;
use holdfast_models::runtime::{Graph, TensorSpec};
use holdfast_models::tensor::Elements;
use holdfast_models::{Dtype, Library, OnnxRuntime, Runtime, RuntimeError, Tensor, Tract};

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
    let spec = |(name, shape): (&str, &[usize])| TensorSpec::pinned(name, Dtype::F32, shape);
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

/// Pairs that are read twice, moved before they are undone, or left whole are right all the same.
#[test]
fn pairs_are_taken_out_wherever_that_is_right() {
    fn q<'a>(from: &'a [&'a str], to: &'a [&'a str]) -> onnx::Node<'a> {
        ("QuantizeLinear", from, to, &[])
    }
    fn dq<'a>(from: &'a [&'a str], to: &'a [&'a str]) -> onnx::Node<'a> {
        ("DequantizeLinear", from, to, &[])
    }
    type Nodes<'a> = Vec<onnx::Node<'a>>;
    let values = [-1.0, 0.25, 0.5, 1.0];
    let step = 0.25;
    let cases: [(&str, Nodes<'_>, [f32; 4]); 6] = [
        (
            "read by two that restore",
            vec![
                q(&["x", "s", "i8zero"], &["q"]),
                dq(&["q", "s", "i8zero"], &["a"]),
                dq(&["q", "s", "i8zero"], &["b"]),
                ("Add", &["a", "b"], &["y"], &[]),
            ],
            [-2.0, 0.5, 1.0, 2.0],
        ),
        (
            "moved about in between",
            vec![
                q(&["x", "s", "i8zero"], &["q"]),
                ("Identity", &["q"], &["moved"], &[]),
                dq(&["moved", "s", "i8zero"], &["a"]),
                ("Neg", &["a"], &["y"], &[]),
            ],
            [1.0, -0.25, -0.5, -1.0],
        ),
        (
            "one behind the other",
            vec![
                q(&["x", "s", "i8zero"], &["q"]),
                dq(&["q", "s", "i8zero"], &["a"]),
                q(&["a", "s", "i8zero"], &["r"]),
                dq(&["r", "s", "i8zero"], &["b"]),
                ("Neg", &["b"], &["y"], &[]),
            ],
            [1.0, -0.25, -0.5, -1.0],
        ),
        (
            "restored as the graph's output",
            vec![q(&["x", "s", "i8zero"], &["q"]), dq(&["q", "s", "i8zero"], &["y"])],
            values,
        ),
        (
            "a Relu that is nothing but a range, without a zero point",
            vec![q(&["x", "s"], &["q"]), dq(&["q", "s"], &["a"]), ("Neg", &["a"], &["y"], &[])],
            [0.0, -0.25, -0.5, -1.0],
        ),
        (
            "another scale behind",
            vec![
                q(&["x", "s", "i8zero"], &["q"]),
                dq(&["q", "twice", "i8zero"], &["a"]),
                ("Neg", &["a"], &["y"], &[]),
            ],
            [2.0, -0.5, -1.0, -2.0],
        ),
    ];
    let onnx_runtime = onnx_runtime("quantised graphs");
    for (name, nodes, want) in cases {
        let constants: [(&str, &[u64], &[f32]); 3] =
            [("s", &[], &[step]), ("twice", &[], &[2.0 * step]), ("i8zero", &[], &[0.0])];
        let graph = onnx::graph(&[1, 4], &nodes, &constants);
        let io = (("x", &[1, 4][..]), ("y", &[1, 4][..]));
        let mut engines: Vec<&dyn Runtime> = vec![&Tract];
        engines.extend(onnx_runtime.as_ref().map(|runtime| runtime as &dyn Runtime));
        for engine in engines {
            let got = run_on(engine, &graph, io.0, io.1, &values);
            let got = got.unwrap_or_else(|error| panic!("{name}: {error}"));
            let is_near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-6;
            assert!(got.iter().zip(&want).all(is_near), "{name} on {}: {got:?}", engine.name());
        }
    }
}

#[test]
fn a_graph_that_goes_in_circles_is_refused() {
    let constants: [(&str, &[u64], &[f32]); 2] = [("s", &[], &[0.1]), ("i8zero", &[], &[0.0])];
    let twice = onnx::graph(
        &[1, 4],
        &[
            ("QuantizeLinear", &["x", "s", "i8zero"], &["q"], &[]),
            ("Identity", &["q"], &["q"], &[]),
            ("DequantizeLinear", &["q", "s", "i8zero"], &["y"], &[]),
        ],
        &constants,
    );
    let circle = onnx::graph(
        &[1, 4],
        &[
            ("Add", &["x", "b"], &["a"], &[]),
            ("Neg", &["a"], &["b"], &[]),
            ("Neg", &["a"], &["y"], &[]),
        ],
        &[],
    );
    for (graph, said) in [(&twice, "made by two"), (&circle, "in a circle")] {
        let error = run(graph, ("x", &[1, 4]), ("y", &[1, 4]), &[0.0; 4]).unwrap_err();
        let RuntimeError::Malformed { why, .. } = &error else { panic!("{error:?}") };
        assert!(why.contains(said), "{why}");
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
    let onnx_runtime = onnx_runtime("bad graphs");
    for (name, onnx, input, output, shape, is_right) in cases {
        let (input, output) = ((input, &[1, 4][..]), (output, shape));
        let error = run(onnx, input, output, &[0.0; 4]).unwrap_err();
        assert!(is_right(&error), "{name}: {error:?}");
        println!("{name}: {error}");
        if let Some(runtime) = &onnx_runtime {
            let error = run_on(runtime, onnx, input, output, &[0.0; 4]).unwrap_err();
            // It says of a tensor whose type is wrong that the graph is.
            assert!(is_right(&error) || name == "another type", "{name}: {error:?}");
            println!("{name}: {error}");
        }
    }
}

/// A graph that would have the engine read a file of the machine never gets to an engine.
#[test]
fn a_graph_whose_data_lies_elsewhere_is_refused() {
    let outside = |place: &str| onnx::with_data_in(place, &[1, 4]);
    let onnx_runtime = onnx_runtime("graphs with data elsewhere");
    for place in ["weights.bin", "../../etc/passwd", "/etc/passwd"] {
        let (onnx, io) = (outside(place), (("x", &[1, 4][..]), ("y", &[1, 4][..])));
        let mut engines: Vec<&dyn Runtime> = vec![&Tract];
        engines.extend(onnx_runtime.as_ref().map(|runtime| runtime as &dyn Runtime));
        for engine in engines {
            let error = run_on(engine, &onnx, io.0, io.1, &[0.0; 4]).unwrap_err();
            let RuntimeError::Malformed { why, .. } = &error else { panic!("{error:?}") };
            assert!(why.contains("another file"), "{why}");
        }
    }
}

/// ONNX Runtime as `./tests/run` fetches it, or nothing after saying what is left out.
pub(crate) fn onnx_runtime(what: &str) -> Option<OnnxRuntime> {
    let named = std::env::var_os("HOLDFAST_ONNXRUNTIMES").map(PathBuf::from);
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"));
    let folder = named.unwrap_or_else(|| target.join("onnxruntime")).join("newest");
    if !folder.is_dir() {
        println!("LEFT OUT: {what} on ONNX Runtime (not fetched: ./tests/run does)");
        return None;
    }
    let library = Library::open(Some(&folder)).unwrap_or_else(|error| panic!("{error}"));
    Some(OnnxRuntime::new(library, Provider::Cpu))
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

/// y = relu(x) of any number of rows.
fn any_rows(runtime: &dyn Runtime, rows: usize) -> Result<Vec<f32>, RuntimeError> {
    let graph = onnx::graph(&[0, 4], &[("Relu", &["x"], &["y"], &[])], &[]);
    let free = |name: &str| TensorSpec {
        free_batch: true,
        ..TensorSpec::pinned(name, Dtype::F32, &[1, 4])
    };
    let graph = Graph { onnx: &graph, inputs: &[free("x")], outputs: &[free("y")] };
    let mut session = runtime.load(&graph, NonZeroUsize::MIN)?;
    let values: Vec<f32> = (0..rows * 4).map(|i| i as f32 - 3.0).collect();
    let input = Tensor::new(vec![rows, 4], Elements::F32(values)).unwrap();
    // Room of another size and type: it becomes what is given.
    let mut outputs = [Tensor::zeros(&[7], Dtype::I8)];
    session.run(&[input], &mut outputs)?;
    assert_eq!(outputs[0].shape(), [rows, 4]);
    Ok(outputs[0].of().unwrap().to_vec())
}

#[test]
fn a_free_batch_is_whatever_the_caller_sends() {
    let mut runtimes: Vec<Box<dyn Runtime>> = vec![Box::new(Tract)];
    runtimes.extend(onnx_runtime("a free batch").map(|runtime| Box::new(runtime) as _));
    for runtime in runtimes {
        for rows in [1, 2, 5] {
            let want: Vec<f32> = (0..rows * 4).map(|i| (i as f32 - 3.0).max(0.0)).collect();
            assert_eq!(any_rows(&*runtime, rows), Ok(want), "{} of {rows}", runtime.name());
        }
        let error = any_rows(&*runtime, 5000).unwrap_err();
        assert!(error.to_string().contains("f32 [batch, 4]"), "{error}");
    }
}
