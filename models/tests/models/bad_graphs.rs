//! Models that were made to do harm, or came to be so on the way: each is refused with a reason, in a
//! moment, and without taking the memory that it asks for.

use std::num::NonZeroUsize;
use std::time::Duration;

use holdfast_models::runtime::{Graph, TensorSpec};
use holdfast_models::{Bundle, Dtype, LoadError, Model, Runtime, Tract};

use crate::counted::largest_allocation;
use crate::onnx::{Constant, Node, graph, graph_of, with_data_in};
use crate::{bundles, made, runtimes};

/// What loading may take at once beyond the file itself: the largest tensor that a graph may have in it.
const MOST: usize = (1 << 26) * 4 + (16 << 20);
/// Loading takes moments; what takes this long never ends.
const WITHIN: Duration = Duration::from_secs(20);

/// One element each.
const BILLION: f32 = 1e9;

/// A graph from `x`, f32 [1, 4], to `y`, f32 [1, 4], and what the refusal says.
struct Case {
    name: &'static str,
    onnx: Vec<u8>,
    /// What tract's refusal says, and what ONNX Runtime's does; nothing where that one may take it.
    tract: &'static str,
    onnxruntime: Option<&'static str>,
}

fn whole() -> Vec<u8> {
    graph(&[1, 4], &[("Relu", &["x"], &["y"], &[])], &[])
}

/// x + what `nodes` make of the constants, under the name `h`.
fn with(nodes: &[Node<'_>], constants: &[Constant<'_>]) -> Vec<u8> {
    let mut all = nodes.to_vec();
    all.push(("ReduceMax", &["h"], &["m"], &[("keepdims", 0)]));
    all.push(("Add", &["x", "m"], &["y"], &[]));
    graph(&[1, 4], &all, constants)
}

fn cases() -> Vec<Case> {
    let relu = whole();
    let case = |name, onnx, tract, onnxruntime| Case { name, onnx, tract, onnxruntime };
    let outside = |place| with_data_in(place, &[1, 4]);
    let billion: Constant<'_> = ("i64size", &[1], &[BILLION]);
    vec![
        case("nothing", Vec::new(), "no graph in it", Some("no graph in it")),
        case("text", b"this is no model\n".to_vec(), "cannot read", Some("cannot read")),
        case("cut off", relu[..relu.len() - 9].to_vec(), "cannot read", Some("cannot read")),
        case("half of it", relu[..relu.len() / 2].to_vec(), "cannot read", Some("cannot read")),
        case(
            "operators of a later day",
            graph_of(999, &[1, 4], &[("Relu", &["x"], &["y"], &[])], &[]),
            "opset 999",
            Some("999"),
        ),
        case(
            "an operator that nobody has",
            graph(&[1, 4], &[("Frobnicate", &["x"], &["y"], &[])], &[]),
            "Frobnicate",
            Some("Frobnicate"),
        ),
        case(
            "an operator of a domain that nobody has",
            graph(&[1, 4], &[("org.example.Relu", &["x"], &["y"], &[])], &[]),
            "Relu",
            Some("org.example"),
        ),
        case("data above it", outside("../secret.bin"), "another file", Some("another file")),
        case("data of the machine", outside("/etc/passwd"), "another file", Some("another file")),
        // It may be a link to anything.
        case("data beside it", outside("weights.bin"), "another file", Some("another file")),
        case(
            "an input of absurd shape",
            graph(&[1, 1 << 40], &[("Relu", &["x"], &["y"], &[])], &[]),
            "",
            Some(""),
        ),
        case(
            "sizes that overflow",
            graph(&[1 << 40, 1 << 40], &[("Relu", &["x"], &["y"], &[])], &[]),
            "",
            Some(""),
        ),
        case(
            "a constant that is shorter than its shape",
            graph(&[1, 4], &[("Add", &["x", "w"], &["y"], &[])], &[("w", &[1 << 30], &[1.0; 4])]),
            "and has 4 elements",
            Some("and has 4 elements"),
        ),
        case(
            "a billion zeros",
            with(&[("ConstantOfShape", &["i64size"], &["h"], &[])], &[billion]),
            "1000000000",
            None,
        ),
        case(
            "one number a billion times",
            with(
                &[("Expand", &["one", "i64size"], &["h"], &[])],
                &[billion, ("one", &[1], &[1.0])],
            ),
            "1000000000",
            None,
        ),
        case(
            "a thousand tiles of a million",
            with(
                &[("Tile", &["many", "i64size"], &["h"], &[])],
                &[("i64size", &[1], &[1e6]), ("many", &[1000], &[1.0; 1000])],
            ),
            "1000000000",
            None,
        ),
        case(
            "numbers up to a billion",
            with(
                &[
                    ("Range", &["i64from", "i64to", "i64step"], &["r"], &[]),
                    ("Cast", &["r"], &["h"], &[("to", 1)]),
                ],
                &[("i64from", &[], &[0.0]), ("i64to", &[], &[BILLION]), ("i64step", &[], &[1.0])],
            ),
            "1000000000",
            None,
        ),
        case(
            "a size among others",
            with(
                &[
                    ("Gather", &["i64sizes", "i64at"], &["s"], &[("axis", 0)]),
                    ("ConstantOfShape", &["s"], &["h"], &[]),
                ],
                &[("i64sizes", &[3], &[7.0, BILLION, 3.0]), ("i64at", &[1], &[-2.0])],
            ),
            "1000000000",
            None,
        ),
        case(
            "a part of some sizes",
            with(
                &[
                    ("Slice", &["i64sizes", "i64from", "i64to"], &["s"], &[]),
                    ("ConstantOfShape", &["s"], &["h"], &[]),
                ],
                &[
                    ("i64sizes", &[3], &[7.0, BILLION, 3.0]),
                    ("i64from", &[1], &[1.0]),
                    ("i64to", &[1], &[-1.0]),
                ],
            ),
            "1000000000",
            None,
        ),
        case(
            "the product of some sizes",
            with(
                &[
                    ("ReduceProd", &["i64sizes"], &["s"], &[("keepdims", 1)]),
                    ("ConstantOfShape", &["s"], &["h"], &[]),
                ],
                &[("i64sizes", &[2], &[40_000.0, 25_000.0])],
            ),
            "1000000000",
            None,
        ),
        case(
            "a square of a long constant that is put upright",
            with(
                &[
                    ("Reshape", &["flat", "i64to"], &["tall"], &[]),
                    ("Unsqueeze", &["flat", "i64zero"], &["wide"], &[]),
                    ("MatMul", &["tall", "wide"], &["h"], &[]),
                ],
                &[
                    ("flat", &[40_000], &vec![1.0; 40_000]),
                    ("i64to", &[2], &[-1.0, 1.0]),
                    ("i64zero", &[1], &[0.0]),
                ],
            ),
            "[40000, 40000]",
            None,
        ),
        case(
            "a square of two long constants",
            with(
                &[("MatMul", &["tall", "wide"], &["h"], &[])],
                &[
                    ("tall", &[40_000, 1], &vec![1.0; 40_000]),
                    ("wide", &[1, 40_000], &vec![1.0; 40_000]),
                ],
            ),
            "[40000, 40000]",
            None,
        ),
    ]
}

/// Loads a graph on a thread of its own: whether it can be run, and the largest piece of memory that was
/// asked for on the way.
fn load(runtime: impl Runtime + 'static, onnx: Vec<u8>) -> (Result<(), String>, usize) {
    let (done, waiting) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let spec = |name: &str| TensorSpec::pinned(name, Dtype::F32, &[1, 4]);
        let graph = Graph { onnx: &onnx, inputs: &[spec("x")], outputs: &[spec("y")] };
        let mut loaded = Ok(());
        let largest = largest_allocation(|| {
            let session = runtime.load(&graph, NonZeroUsize::MIN);
            loaded = session.map(drop).map_err(|error| error.to_string());
        });
        // Nobody waits any more where it took too long.
        drop(done.send((loaded, largest)));
    });
    waiting.recv_timeout(WITHIN).expect("it ends")
}

#[test]
fn each_bad_graph_is_refused_with_a_reason() {
    let onnx_runtime = runtimes::onnx_runtime("bad models");
    let (loaded, _) = load(Tract, whole());
    assert_eq!(loaded, Ok(()), "what is not bad is taken");
    for Case { name, onnx, tract, onnxruntime } in cases() {
        let (loaded, largest) = load(Tract, onnx.clone());
        let error = loaded.expect_err(name);
        println!("{name}: {error}");
        assert!(error.contains(tract), "{name}: {error}, not {tract}");
        assert!(largest < MOST, "{name}: {largest} bytes at once");
        if let (Some(runtime), Some(want)) = (&onnx_runtime, onnxruntime) {
            let (loaded, _) = load(runtime.clone(), onnx);
            let error = loaded.expect_err(name);
            println!("{name}: {error}");
            assert!(error.contains(want), "{name}: {error}, not {want}");
        }
    }
}

/// What is no number is not near any golden, however large the tolerance.
#[test]
fn outputs_that_are_no_numbers_are_no_model() {
    for (name, nodes, constant) in [
        (
            "not a number",
            [("Div", &["x", "w"][..], &["h"][..], &[][..]), ("Sub", &["h", "h"], &["y"], &[])],
            0.0,
        ),
        ("infinite", [("Neg", &["x"], &["h"], &[]), ("Div", &["h", "w"], &["y"], &[])], 0.0),
    ] as [(&str, [Node<'_>; 2], f32); 2]
    {
        let onnx = graph(&[1, 1, 4, 4], &nodes, &[("w", &[1], &[constant])]);
        let dir = tempfile::tempdir().unwrap();
        let manifest = bundles::MANIFEST.replace("tolerance = 0.001", "tolerance = 100.0");
        bundles::write_with(dir.path(), &manifest, &bundles::golden(), &onnx);
        let bundle = Bundle::open(dir.path()).unwrap();
        let error = Model::load(&bundle, None, &Tract).unwrap_err();
        let LoadError::Golden { off, .. } = &error else { panic!("{name}: {error:?}") };
        assert!(off.is_infinite() && error.to_string().contains("off by inf"), "{name}: {error}");
        // And no golden is made of it.
        let unproven = holdfast_models::bundle::Unproven::open(dir.path()).unwrap();
        let error = Model::references(&unproven, "fp32", &Tract).unwrap_err();
        assert!(matches!(error, LoadError::Sample { .. }), "{name}: {error:?}");
    }
}

/// The hash of a file in the text of a manifest follows, and nothing else changes.
#[test]
fn a_listing_follows_its_file_and_nothing_else() {
    let listed = |text: &str| holdfast_models::bundle::relisted(text, "golden.toml", b"new");
    let hash = made::sha256(b"new");
    let text = "a = 1 # one\n[[file]] # first\npath = \"x\"\nbytes = 7\nsha256 = \"00\"\n\n[[file]]\n\
                # ours\nbytes = 1\n  sha256 = 'ff'\npath = 'golden.toml'\n[[variant]]\nbytes = 9\n";
    let want = text.replace("bytes = 1\n", "bytes = 3\n");
    let want = want.replace("  sha256 = 'ff'", &format!("sha256 = \"{hash}\""));
    assert_eq!(listed(text).as_deref(), Some(&*want));
    // Not there yet: at the end, whether that ends its line or not.
    for text in ["a = 1\n", "a = 1", "[[file]]\npath = \"x\"\nbytes = 7\nsha256 = \"00\"\n"] {
        let now = listed(text).unwrap();
        assert!(
            now.starts_with(text) && now.contains("path = \"golden.toml\"\nbytes = 3\n"),
            "{now}"
        );
        assert!(now.parse::<toml::Table>().is_ok(), "{now}");
    }
    for text in ["file = [{ path = \"golden.toml\", bytes = 1, sha256 = \"0\" }]", "= ="] {
        assert_eq!(listed(text), None, "{text}");
    }
}
