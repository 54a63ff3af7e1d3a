//! ONNX files to throw: small ones of every kind that is read in a way of its own.
//!
//! **Invariant:** each is shorter than what is thrown at most.

#[path = "../../../models/tests/models/onnx.rs"]
#[allow(dead_code, clippy::cast_possible_truncation, reason = "what is written there is small")]
mod onnx;

use self::onnx::{Constant, Node, graph, with_data_in};
use super::mutate::MOST_BYTES;

/// Files that pass every check.
pub(super) fn whole() -> Vec<Vec<u8>> {
    let mut all = shipped();
    all.extend(FAMILIES.iter().map(|(nodes, constants)| graph(&[1, 4], nodes, constants)));
    all.extend([tiny(), with_subgraphs(), with_a_sparse_constant(), with_a_function()]);
    all
}

/// Files that pass, but for one thing that must be seen.
pub(super) fn refused() -> Vec<Vec<u8>> {
    let mut all: Vec<_> =
        ["weights.bin", "../../secret"].map(|place| with_data_in(place, &[1, 4])).into();
    all.push(graph(&[1, 4], &[("Add", &["x", "w"], &["y"], &[])], &[("w", &[8], &[1.0; 4])]));
    all
}

fn shipped() -> Vec<Vec<u8>> {
    let models = crate::reference::bundles();
    let mut all = Vec::new();
    for bundle in ["voice-commands", "part-inspection"] {
        let folder = std::fs::read_dir(models.join(bundle)).into_iter().flatten().flatten();
        let files = folder.map(|entry| entry.path());
        let onnx = files.filter(|path| path.extension().is_some_and(|ending| ending == "onnx"));
        all.extend(onnx.filter_map(|path| std::fs::read(path).ok()));
    }
    all.retain(|file: &Vec<u8>| file.len() <= MOST_BYTES);
    all
}

/// From x, f32 [1, 4], to y.
type Family<'a> = (&'a [Node<'a>], &'a [Constant<'a>]);

/// Operators by what is done with them before an engine sees them.
const FAMILIES: [Family<'static>; 10] = [
    (
        &[("MatMul", &["x", "w"], &["h"], &[]), ("Softmax", &["h"], &["y"], &[("axis", 1)])],
        &[("w", &[4, 3], &[0.5; 12])],
    ),
    (
        &[
            ("Reshape", &["x", "i64to"], &["h"], &[]),
            ("Conv", &["h", "w", "b"], &["c"], &[("group", 1)]),
            ("MaxPool", &["c"], &["p"], &[("ceil_mode", 0)]),
            ("Flatten", &["p"], &["y"], &[("axis", 1)]),
        ],
        &[
            ("i64to", &[4], &[1.0, 1.0, 2.0, 2.0]),
            ("w", &[1, 1, 1, 1], &[2.0]),
            ("b", &[1], &[0.5]),
        ],
    ),
    // Sizes that follow from constants.
    (
        &[
            ("Shape", &["w"], &["s"], &[]),
            ("Gather", &["s", "i64at"], &["g"], &[("axis", 0)]),
            ("Unsqueeze", &["g", "i64at"], &["u"], &[]),
            ("Concat", &["u", "i64two"], &["c"], &[("axis", 0)]),
            ("ConstantOfShape", &["c"], &["z"], &[]),
            ("ReduceMax", &["z"], &["m"], &[("keepdims", 0)]),
            ("Add", &["x", "m"], &["y"], &[]),
        ],
        &[("w", &[3, 2], &[0.5; 6]), ("i64at", &[], &[0.0]), ("i64two", &[1], &[2.0])],
    ),
    (
        &[
            ("Slice", &["i64sizes", "i64one", "i64three"], &["s"], &[]),
            ("ReduceProd", &["s"], &["p"], &[("keepdims", 1)]),
            ("Expand", &["w", "p"], &["e"], &[]),
            ("Reshape", &["e", "i64to"], &["r"], &[]),
            ("Squeeze", &["r", "i64one"], &["q"], &[]),
            ("ReduceSum", &["q"], &["m"], &[("keepdims", 0)]),
            ("Mul", &["x", "m"], &["y"], &[]),
        ],
        &[
            ("i64sizes", &[4], &[9.0, 2.0, 3.0, 9.0]),
            ("i64one", &[1], &[1.0]),
            ("i64three", &[1], &[3.0]),
            ("w", &[1], &[0.5]),
            ("i64to", &[2], &[-1.0, 1.0]),
        ],
    ),
    (
        &[
            ("Range", &["i64zero", "i64many", "i64one"], &["r"], &[]),
            ("Cast", &["r"], &["f"], &[("to", 1)]),
            ("Tile", &["f", "i64two"], &["t"], &[]),
            ("Pad", &["t", "i64pads"], &["p"], &[]),
            ("ReduceMin", &["p"], &["m"], &[("keepdims", 0)]),
            ("Sub", &["x", "m"], &["y"], &[]),
        ],
        &[
            ("i64zero", &[], &[0.0]),
            ("i64many", &[], &[5.0]),
            ("i64one", &[], &[1.0]),
            ("i64two", &[1], &[2.0]),
            ("i64pads", &[2], &[1.0, 1.0]),
        ],
    ),
    // Quantisation that is taken out, with an activation and with operators between.
    (
        &[
            ("QuantizeLinear", &["x", "s", "i8z"], &["q"], &[]),
            ("DequantizeLinear", &["q", "s", "i8z"], &["d"], &[]),
            ("Relu", &["d"], &["r"], &[]),
            ("QuantizeLinear", &["r", "s", "i8low"], &["q2"], &[]),
            ("Reshape", &["q2", "i64to"], &["q3"], &[]),
            ("DequantizeLinear", &["q3", "s", "i8low"], &["y"], &[]),
        ],
        &[
            ("s", &[], &[0.1]),
            ("i8z", &[], &[0.0]),
            ("i8low", &[], &[-128.0]),
            ("i64to", &[2], &[2.0, 2.0]),
        ],
    ),
    (
        &[
            ("DequantizeLinear", &["i8w", "s", "i8z"], &["w"], &[]),
            ("MatMul", &["x", "w"], &["h"], &[]),
            ("QuantizeLinear", &["h", "s", "i8z"], &["q"], &[]),
            ("DequantizeLinear", &["q", "s", "i8z"], &["d"], &[]),
            ("Softmax", &["d"], &["p"], &[("axis", 1)]),
            ("QuantizeLinear", &["p", "s", "i8z"], &["q2"], &[]),
            ("DequantizeLinear", &["q2", "s", "i8z"], &["y"], &[]),
        ],
        &[("i8w", &[4, 2], &[1.0; 8]), ("s", &[], &[0.1]), ("i8z", &[], &[0.0])],
    ),
    (
        &[
            ("Transpose", &["x"], &["t"], &[]),
            ("Gemm", &["x", "t", "c"], &["g"], &[("transB", 0)]),
            ("LayerNormalization", &["g", "c"], &["n"], &[("axis", -1)]),
            ("Sigmoid", &["n"], &["y"], &[]),
        ],
        &[("c", &[1], &[1.0])],
    ),
    (
        &[
            ("Equal", &["i64a", "i64b"], &["e"], &[]),
            ("Where", &["e", "i64b", "i64a"], &["s"], &[]),
            ("Expand", &["w", "s"], &["h"], &[]),
            ("ReduceMean", &["h"], &["m"], &[("keepdims", 0)]),
            ("Div", &["x", "m"], &["y"], &[]),
        ],
        &[("i64a", &[2], &[-1.0, 3.0]), ("i64b", &[2], &[2.0, 2.0]), ("w", &[1], &[0.5])],
    ),
    (&[("com.microsoft.Gelu", &["x"], &["h"], &[]), ("Identity", &["h"], &["y"], &[])], &[]),
];

/// A protocol buffer: fields with bytes, or a number.
pub(super) fn message(fields: &[(u8, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (field, bytes) in fields {
        let in_two = |number: usize| {
            let low = u8::try_from(number % 0x80).unwrap_or_default();
            [low | 0x80, u8::try_from(number / 0x80).expect("it is short")]
        };
        match field {
            0..16 => out.push(field << 3 | 2),
            _ => out.extend(in_two(usize::from(*field) * 8 + 2)),
        }
        // Two bytes of a length are enough.
        out.extend(in_two(bytes.len()));
        out.extend_from_slice(bytes);
    }
    out
}

/// A named f32 tensor of a shape.
fn port(name: &[u8], shape: &[u8]) -> Vec<u8> {
    let dims: Vec<u8> = shape.iter().flat_map(|dim| message(&[(1, &[8, *dim])])).collect();
    let tensor = [&[8, 1][..], &message(&[(2, &dims)])].concat();
    message(&[(1, name), (2, &message(&[(1, &tensor)]))])
}

/// A file with these fields of a graph from x to y, and more of a file.
fn file(fields: &[(u8, &[u8])], more: &[u8]) -> Vec<u8> {
    let ports = [(2, &b"made"[..]), (11, &port(b"x", &[1, 4])), (12, &port(b"y", &[1, 4]))];
    let graph = message(&[fields, &ports].concat());
    [&[8, 8][..], &message(&[(7, &graph), (8, &[16, 13])]), more].concat()
}

/// y = Relu(x), f32 [1, 4].
pub(super) fn tiny() -> Vec<u8> {
    file(&[(1, &message(&[(1, b"x"), (2, b"y"), (4, b"Relu")]))], &[])
}

/// A constant of `dims`, of type f32 (1) or i64 (7), out of its bytes.
fn tensor(name: &[u8], kind: u8, dims: &[u8], raw: &[u8]) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|dim| [8, *dim]).collect();
    [&dims[..], &[16, kind], &message(&[(8, name), (9, raw)])].concat()
}

/// y = x or its negative, as a constant says; each way in a graph of its own.
fn with_subgraphs() -> Vec<u8> {
    let way = |kind: &[u8], name: &[u8]| {
        let node = message(&[(1, b"x"), (2, b"r"), (4, kind)]);
        let graph = message(&[(1, &node), (2, b"way"), (12, &port(b"r", &[1, 4]))]);
        // The type of an attribute that is a graph.
        [&message(&[(1, name), (6, &graph)])[..], &[0xa0, 1, 5]].concat()
    };
    let (yes, no) = (way(b"Identity", b"then_branch"), way(b"Neg", b"else_branch"));
    let node = message(&[(1, b"c"), (2, b"y"), (4, b"If"), (5, &yes), (5, &no)]);
    // A boolean.
    file(&[(1, &node), (5, &tensor(b"c", 9, &[], &[1]))], &[])
}

/// y = x + w, where w has few elements that are not 0.
fn with_a_sparse_constant() -> Vec<u8> {
    let node = message(&[(1, b"x"), (1, b"w"), (2, b"y"), (4, b"Add")]);
    let values = tensor(b"w", 1, &[2], &[0, 0, 128, 63, 0, 0, 0, 64]);
    let places = tensor(b"", 7, &[2], &[0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
    let sparse = [&message(&[(1, &values), (2, &places)])[..], &[24, 1, 24, 4]].concat();
    file(&[(1, &node), (15, &sparse)], &[])
}

/// y = Twice(x), which the file says itself.
fn with_a_function() -> Vec<u8> {
    let node = message(&[(1, b"x"), (2, b"y"), (4, b"Twice"), (7, b"own")]);
    let inner = message(&[(1, b"a"), (1, b"a"), (2, b"b"), (4, b"Add")]);
    let function = [(1, &b"Twice"[..]), (4, b"a"), (5, b"b"), (7, &inner), (9, &[16, 13])];
    let function = message(&[&function[..], &[(10, b"own")]].concat());
    let sets = message(&[(8, &message(&[(1, b"own")])), (25, &function)]);
    file(&[(1, &node)], &sets)
}
