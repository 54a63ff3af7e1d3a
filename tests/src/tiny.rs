//! A tiny convolutional network, written byte by byte: what a server adds shows best beside a model
//! that takes next to no time.
//!
//! **Invariant:** always the same network, with the same weights.

use crate::protobuf::Message;

/// The shape of its input `x`.
pub const INPUT: [u16; 4] = [1, 1, 32, 32];
/// Its classes: output `y` is `[1, CLASSES]`, a distribution.
pub const CLASSES: u16 = 10;

/// Channels behind its two convolutions of 3 x 3 with step 2.
const CHANNELS: [u16; 2] = [8, 16];

/// The ONNX file: two convolutions, the mean of each channel, a matrix and a softmax.
pub fn network() -> Vec<u8> {
    let [first, second] = CHANNELS;
    let mut weights = Weights(1);
    let mut graph = Message::default();
    for (kind, inputs, output, attributes) in [
        ("Conv", &["x", "w1", "b1"][..], "c1", convolution()),
        ("Relu", &["c1"], "r1", vec![]),
        ("Conv", &["r1", "w2", "b2"], "c2", convolution()),
        ("Relu", &["c2"], "r2", vec![]),
        ("GlobalAveragePool", &["r2"], "p", vec![]),
        ("Flatten", &["p"], "f", vec![]),
        ("Gemm", &["f", "w3", "b3"], "g", vec![]),
        ("Softmax", &["g"], "y", vec![]),
    ] {
        let mut node = Message::default();
        for input in inputs {
            node = node.text(1, input);
        }
        node = node.text(2, output).text(3, output).text(4, kind);
        for attribute in &attributes {
            node = node.message(5, attribute);
        }
        graph = graph.message(1, &node);
    }
    graph = graph.text(2, "tiny");
    for (name, dims) in [
        ("w1", &[first, 1, 3, 3][..]),
        ("b1", &[first]),
        ("w2", &[second, first, 3, 3]),
        ("b2", &[second]),
        ("w3", &[second, CLASSES]),
        ("b3", &[CLASSES]),
    ] {
        graph = graph.message(5, &weights.tensor(name, dims));
    }
    graph = graph.message(11, &value("x", &INPUT)).message(12, &value("y", &[1, CLASSES]));
    let opset = Message::default().number(2, 13);
    Message::default().number(1, 8).message(7, &graph).message(8, &opset).0
}

/// Step 2, one pixel of zeros around.
fn convolution() -> Vec<Message> {
    let list = |name: &str, values: &[u64]| {
        let mut attribute = Message::default().text(1, name);
        for value in values {
            attribute = attribute.number(8, *value);
        }
        attribute.number(20, 7)
    };
    vec![list("strides", &[2, 2]), list("pads", &[1, 1, 1, 1])]
}

/// A named f32 tensor of this shape.
fn value(name: &str, shape: &[u16]) -> Message {
    let mut dims = Message::default();
    for dim in shape {
        dims = dims.message(1, &Message::default().number(1, (*dim).into()));
    }
    let tensor = Message::default().number(1, 1).message(2, &dims);
    Message::default().text(1, name).message(2, &Message::default().message(1, &tensor))
}

/// Numbers from -0.5 to 0.5 that look like chance: Knuth's MMIX generator.
struct Weights(u64);

impl Weights {
    fn next(&mut self) -> f32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let [.., low, high] = self.0.to_le_bytes();
        f32::from(u16::from_le_bytes([low, high])) / 65536.0 - 0.5
    }

    fn tensor(&mut self, name: &str, dims: &[u16]) -> Message {
        let count = dims.iter().map(|dim| u32::from(*dim)).product::<u32>();
        let raw: Vec<u8> = (0..count).flat_map(|_| self.next().to_le_bytes()).collect();
        let mut tensor = Message::default();
        for dim in dims {
            tensor = tensor.number(1, (*dim).into());
        }
        tensor.number(2, 1).text(8, name).bytes(9, &raw)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use holdfast_models::runtime::{Graph, Runtime, TensorSpec};
    use holdfast_models::{Dtype, Tensor, Tract};

    use super::*;

    #[test]
    fn it_gives_a_distribution() {
        let inputs = [TensorSpec::pinned("x", Dtype::F32, &INPUT.map(usize::from))];
        let outputs = [TensorSpec::pinned("y", Dtype::F32, &[1, CLASSES.into()])];
        let graph = Graph { onnx: &network(), inputs: &inputs, outputs: &outputs };
        let mut session = Tract.load(&graph, NonZeroUsize::MIN).unwrap();
        let given = [Tensor::zeros(&inputs[0].shape, Dtype::F32)];
        let mut got = [Tensor::zeros(&outputs[0].shape, Dtype::F32)];
        session.run(&given, &mut got).unwrap();
        let sum: f32 = got[0].to_f32().iter().sum();
        assert!((sum - 1.0).abs() < 1e-5, "{got:?}");
    }
}
