//! Writes small ONNX graphs byte by byte, so that the tests need no other tool. The end-to-end tests
//! take this file in as a module of theirs.
//!
//! **Invariant:** the same words give the same bytes.

/// A protocol buffer under writing.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7F) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }
}

/// An operator: its kind (with its domain and a dot before it, where it has one), inputs, outputs, and
/// whole-number attributes.
pub(crate) type Node<'a> = (&'a str, &'a [&'a str], &'a [&'a str], &'a [(&'a str, i64)]);
/// A constant: its name, shape and values.
pub(crate) type Constant<'a> = (&'a str, &'a [u64], &'a [f32]);

/// The set of operators that graphs are written for.
const OPSET: u64 = 13;

/// An ONNX file with one f32 input `x` and one output `y`; a dimension of 0 is any. `constants` are f32,
/// or int8 and int64 where the name begins with `i8` and `i64` and the values are whole.
pub(crate) fn graph(shape: &[u64], nodes: &[Node<'_>], constants: &[Constant<'_>]) -> Vec<u8> {
    graph_of(OPSET, shape, nodes, constants)
}

/// The same, of a set of operators.
pub(crate) fn graph_of(
    opset: u64,
    shape: &[u64],
    nodes: &[Node<'_>],
    constants: &[Constant<'_>],
) -> Vec<u8> {
    let mut graph = Message::default();
    let mut domains = vec![""];
    for (kind, inputs, outputs, attributes) in nodes {
        let (domain, name) = kind.rsplit_once('.').unwrap_or(("", kind));
        domains.push(domain);
        let mut node = Message::default();
        for input in *inputs {
            node = node.bytes(1, input.as_bytes());
        }
        for output in *outputs {
            node = node.bytes(2, output.as_bytes());
        }
        node = node.bytes(3, format!("{name}-of-{}", outputs[0]).as_bytes());
        node = node.bytes(4, name.as_bytes());
        for (name, value) in *attributes {
            let attribute = Message::default()
                .bytes(1, name.as_bytes())
                .number(3, value.cast_unsigned())
                .number(20, 2);
            node = node.bytes(5, &attribute.0);
        }
        if !domain.is_empty() {
            node = node.bytes(7, domain.as_bytes());
        }
        graph = graph.bytes(1, &node.0);
    }
    graph = graph.bytes(2, b"made");
    for constant in constants {
        graph = graph.bytes(5, &tensor(constant).0);
    }
    graph = graph.bytes(11, &value("x", Some(shape)).0).bytes(12, &value("y", None).0);
    let mut file = Message::default().number(1, 8).bytes(7, &graph.0);
    domains.sort_unstable();
    domains.dedup();
    for domain in domains {
        let version = if domain.is_empty() { opset } else { 1 };
        let set = Message::default().bytes(1, domain.as_bytes()).number(2, version);
        file = file.bytes(8, &set.0);
    }
    file.0
}

fn tensor((name, dims, values): &Constant<'_>) -> Message {
    let (kind, raw): (u64, Vec<u8>) = match name {
        name if name.starts_with("i8") => {
            (3, values.iter().map(|x| (*x as i8).cast_unsigned()).collect())
        }
        name if name.starts_with("i64") => {
            (7, values.iter().flat_map(|x| (*x as i64).to_le_bytes()).collect())
        }
        _ => (1, values.iter().flat_map(|x| x.to_le_bytes()).collect()),
    };
    let tensor = dims.iter().fold(Message::default(), |tensor, dim| tensor.number(1, *dim));
    tensor.number(2, kind).bytes(8, name.as_bytes()).bytes(9, &raw)
}

/// x + w, where the data of `w` is said to lie in another file.
pub(crate) fn with_data_in(place: &str, shape: &[u64]) -> Vec<u8> {
    let entry = Message::default().bytes(1, b"location").bytes(2, place.as_bytes());
    let tensor = shape.iter().fold(Message::default(), |tensor, dim| tensor.number(1, *dim));
    // Type float; the data is outside.
    let tensor = tensor.number(2, 1).bytes(8, b"w").bytes(13, &entry.0).number(14, 1);
    let node = Message::default().bytes(1, b"x").bytes(1, b"w").bytes(2, b"y").bytes(4, b"Add");
    let graph = Message::default().bytes(1, &node.0).bytes(2, b"made").bytes(5, &tensor.0);
    let graph = graph.bytes(11, &value("x", Some(shape)).0).bytes(12, &value("y", None).0);
    let opset = Message::default().number(2, OPSET);
    Message::default().number(1, 8).bytes(7, &graph.0).bytes(8, &opset.0).0
}

/// y = Relu(x), where the last dimension of x has a name of its own.
#[allow(dead_code, reason = "not every test that takes this file in needs it")]
pub(crate) fn with_shape_named(name: &str) -> Vec<u8> {
    let dims = [4, 1].map(|dim| Message::default().number(1, dim));
    let dims = dims.iter().fold(Message::default(), |dims, dim| dims.bytes(1, &dim.0));
    let dims = dims.bytes(1, &Message::default().bytes(2, name.as_bytes()).0);
    let tensor = Message::default().number(1, 1).bytes(2, &dims.0);
    let kind = Message::default().bytes(1, &tensor.0);
    let x = Message::default().bytes(1, b"x").bytes(2, &kind.0);
    let node = Message::default().bytes(1, b"x").bytes(2, b"y").bytes(4, b"Relu");
    let graph = Message::default().bytes(1, &node.0).bytes(2, b"made");
    let graph = graph.bytes(11, &x.0).bytes(12, &value("y", None).0);
    let opset = Message::default().number(2, OPSET);
    Message::default().number(1, 8).bytes(7, &graph.0).bytes(8, &opset.0).0
}

/// A named f32 tensor; a dimension of 0 is any.
fn value(name: &str, shape: Option<&[u64]>) -> Message {
    let mut tensor = Message::default().number(1, 1);
    if let Some(shape) = shape {
        let mut dims = Message::default();
        for dim in shape {
            let dim = match dim {
                0 => Message::default().bytes(2, b"N"),
                dim => Message::default().number(1, *dim),
            };
            dims = dims.bytes(1, &dim.0);
        }
        tensor = tensor.bytes(2, &dims.0);
    }
    let kind = Message::default().bytes(1, &tensor.0);
    Message::default().bytes(1, name.as_bytes()).bytes(2, &kind.0)
}
