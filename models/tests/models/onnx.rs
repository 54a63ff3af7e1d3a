//! Writes small ONNX graphs byte by byte, so that the tests need no other tool.

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

/// An operator: its kind, inputs, outputs, and whole-number attributes.
pub(crate) type Node<'a> = (&'a str, &'a [&'a str], &'a [&'a str], &'a [(&'a str, i64)]);

/// An ONNX file with one f32 input `x` and one output `y`; `constants` are f32 (with a shape) or,
/// for those whose values are all whole and whose name begins with `i8`, int8 scalars.
pub(crate) fn graph(
    shape: &[u64],
    nodes: &[Node<'_>],
    constants: &[(&str, &[u64], &[f32])],
) -> Vec<u8> {
    let mut graph = Message::default();
    for (kind, inputs, outputs, attributes) in nodes {
        let mut node = Message::default();
        for input in *inputs {
            node = node.bytes(1, input.as_bytes());
        }
        for output in *outputs {
            node = node.bytes(2, output.as_bytes());
        }
        node = node.bytes(3, format!("{kind}-of-{}", outputs[0]).as_bytes());
        node = node.bytes(4, kind.as_bytes());
        for (name, value) in *attributes {
            let attribute = Message::default()
                .bytes(1, name.as_bytes())
                .number(3, value.cast_unsigned())
                .number(20, 2);
            node = node.bytes(5, &attribute.0);
        }
        graph = graph.bytes(1, &node.0);
    }
    graph = graph.bytes(2, b"made");
    for (name, dims, values) in constants {
        let is_int8 = name.starts_with("i8");
        let raw: Vec<u8> = if is_int8 {
            values.iter().map(|x| (*x as i8).cast_unsigned()).collect()
        } else {
            values.iter().flat_map(|x| x.to_le_bytes()).collect()
        };
        let mut tensor = Message::default();
        for dim in *dims {
            tensor = tensor.number(1, *dim);
        }
        tensor = tensor.number(2, if is_int8 { 3 } else { 1 });
        tensor = tensor.bytes(8, name.as_bytes()).bytes(9, &raw);
        graph = graph.bytes(5, &tensor.0);
    }
    graph = graph.bytes(11, &value("x", Some(shape)).0).bytes(12, &value("y", None).0);
    let opset = Message::default().number(2, 13);
    Message::default().number(1, 8).bytes(7, &graph.0).bytes(8, &opset.0).0
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
    let opset = Message::default().number(2, 13);
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
