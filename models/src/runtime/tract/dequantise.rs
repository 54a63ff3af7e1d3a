//! Takes quantisation out of a graph whose activations are quantised and restored at once (QDQ).
//!
//! tract calculates in f32 between QuantizeLinear and DequantizeLinear, so that each such pair costs
//! two passes over a tensor and gives nothing back; and a Softmax between the two it computes wrongly
//! (0.23.9). What a pair does beyond rounding is to hold values inside the range of its integers. A
//! range that begins or ends at 0 may be all that is left of a Relu or Relu6, so there the pair becomes
//! a Clip, unless the activation is there as an operator; any other range is what calibration happened
//! to see, and without it values are nearer to the network that was quantised. Weights stay as they
//! are: constants are folded.
//!
//! **Invariant:** the graph's inputs and outputs keep their names and types, and no activation is lost.
//! Whether the answers are near enough is for the bundle's goldens to say.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto};

/// The first opset whose Clip takes its bounds as inputs.
const CLIP_INPUTS: i64 = 11;
/// Operators that leave the values of their first input as they are, or take some of them.
const MOVES: [&str; 9] = [
    "Flatten",
    "Gather",
    "Identity",
    "MaxPool",
    "Reshape",
    "Slice",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
];
/// Operators are followed backwards this far.
const MAX_STEPS: usize = 64;

/// Takes out every pair of the outermost graph. False: the file's opset is too old for it.
pub(super) fn take_out_pairs(model: &mut ModelProto) -> bool {
    let opset = model.opset_import.iter().find(|set| matches!(&*set.domain, "" | "ai.onnx"));
    if opset.is_none_or(|set| set.version < CLIP_INPUTS) {
        return false;
    }
    if let Some(graph) = &mut model.graph {
        let plan = Plan::of(graph);
        plan.carry_out(graph);
    }
    true
}

/// The name of a Softmax that still stands between DequantizeLinear and QuantizeLinear.
pub(super) fn softmax_between(graph: &GraphProto) -> Option<&str> {
    let links = Links::of(graph);
    let is_dequantised = |name: &String| {
        links.maker(graph, name).is_some_and(|node| node.op_type == "DequantizeLinear")
    };
    let is_quantised = |name: &String| {
        links.readers(name).iter().any(|at| graph.node[*at].op_type == "QuantizeLinear")
    };
    let found = graph.node.iter().find(|node| {
        matches!(&*node.op_type, "Softmax" | "LogSoftmax")
            && node.input.first().is_some_and(is_dequantised)
            && node.output.first().is_some_and(is_quantised)
    });
    found.map(|node| &*node.name)
}

/// The numbers that a scale and a zero point can stand for.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Range {
    low: f32,
    high: f32,
}

impl Range {
    const ALL: Self = Self { low: f32::NEG_INFINITY, high: f32::INFINITY };

    /// Whether holding values from there in this range may stand for an activation.
    #[allow(clippy::float_cmp, reason = "the zero point is the range's end or it is not")]
    fn activates(self, values: Self) -> bool {
        (self.low == 0.0 && values.low < 0.0) || (self.high == 0.0 && values.high > 0.0)
    }
}

/// How one tensor is quantised, all of it alike.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Scale {
    step: f32,
    range: Range,
}

/// Who makes and who reads each tensor.
struct Links {
    makers: HashMap<String, usize>,
    readers: HashMap<String, Vec<usize>>,
}

impl Links {
    fn of(graph: &GraphProto) -> Self {
        let mut links = Self { makers: HashMap::new(), readers: HashMap::new() };
        for (at, node) in graph.node.iter().enumerate() {
            links.makers.extend(node.output.iter().map(|name| (name.clone(), at)));
            for name in &node.input {
                links.readers.entry(name.clone()).or_default().push(at);
            }
            for name in captured(node) {
                // A graph inside of the node reads it, so that it must stay.
                links.readers.entry(name).or_default().push(at);
            }
        }
        links
    }

    fn maker<'a>(&self, graph: &'a GraphProto, name: &str) -> Option<&'a NodeProto> {
        self.makers.get(name).map(|at| &graph.node[*at])
    }

    fn readers(&self, name: &str) -> &[usize] {
        self.readers.get(name).map_or(&[], Vec::as_slice)
    }

    /// Collects the nodes that restore these integers, which may be moved about before. False: they
    /// are read by something else too, or leave the graph.
    fn restorers(
        &self,
        graph: &GraphProto,
        integers: &str,
        given: &HashSet<&str>,
        restores: &dyn Fn(&NodeProto) -> bool,
        found: &mut Vec<usize>,
    ) -> bool {
        !given.contains(integers)
            && self.readers(integers).iter().all(|&at| {
                let node = &graph.node[at];
                let is_moved = node.input.first().is_some_and(|name| name == integers);
                match (&*node.op_type, &*node.output) {
                    ("DequantizeLinear", _) if restores(node) => {
                        found.push(at);
                        true
                    }
                    (kind, [moved]) if is_moved && MOVES.contains(&kind) => {
                        self.restorers(graph, moved, given, restores, found)
                    }
                    _ => false,
                }
            })
    }
}

/// The names that graphs inside of a node read.
fn captured(node: &NodeProto) -> Vec<String> {
    let graphs = node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs));
    let nodes = graphs.flat_map(|graph| &graph.node);
    nodes.flat_map(|inner| inner.input.iter().cloned().chain(captured(inner))).collect()
}

/// What is to become of the graph.
#[derive(Default)]
struct Plan {
    /// Nodes that become a Clip to these bounds, with the name of its output.
    clips: Vec<(usize, Range, String)>,
    /// DequantizeLinear nodes whose output is the graph's: they become an Identity.
    copies: Vec<usize>,
    dropped: HashSet<usize>,
    /// From the name that is read to the name that is read instead.
    renamed: HashMap<String, String>,
}

impl Plan {
    fn of(graph: &GraphProto) -> Self {
        let links = Links::of(graph);
        let constants = constants(graph);
        let given: HashSet<&str> = graph.output.iter().map(|output| &*output.name).collect();
        let mut plan = Self::default();
        for (at, node) in graph.node.iter().enumerate() {
            let Some((from, integers, scale)) = quantised(node, &constants) else { continue };
            let mut undone = Vec::new();
            let restores = |node: &NodeProto| scale_of(node, &constants) == Some(scale);
            let is_undone = links.restorers(graph, integers, &given, &restores, &mut undone);
            if !is_undone || undone.is_empty() {
                continue;
            }
            let values = range_of(graph, &links, &constants, from, MAX_STEPS);
            let instead = if scale.range.activates(values) {
                let clipped = format!("{integers}/clipped");
                plan.clips.push((at, scale.range, clipped.clone()));
                clipped
            } else {
                plan.dropped.insert(at);
                from.to_owned()
            };
            plan.renamed.insert(integers.to_owned(), instead);
            for at in undone {
                let node = &graph.node[at];
                let (Some(from), Some(restored)) = (node.input.first(), node.output.first()) else {
                    continue;
                };
                if given.contains(&**restored) {
                    plan.copies.push(at);
                } else {
                    plan.dropped.insert(at);
                    plan.renamed.insert(restored.clone(), from.clone());
                }
            }
        }
        plan
    }

    fn carry_out(mut self, graph: &mut GraphProto) {
        // What was renamed may itself be read under a name that is gone.
        let resolve = |renamed: &HashMap<String, String>, name: &str| {
            let mut name = name;
            for _ in 0..=renamed.len() {
                let Some(next) = renamed.get(name) else { break };
                name = next;
            }
            name.to_owned()
        };
        for at in std::mem::take(&mut self.copies) {
            let node = &mut graph.node[at];
            node.input.truncate(1);
            *node = plain_node(
                "Identity",
                std::mem::take(&mut node.input),
                std::mem::take(&mut node.output),
            );
        }
        for (at, range, clipped) in std::mem::take(&mut self.clips) {
            let bounds = [("low", range.low), ("high", range.high)];
            let bounds = bounds.map(|(side, bound)| (format!("{clipped}/{side}"), bound));
            let node = &mut graph.node[at];
            let from = node.input.first().cloned().unwrap_or_default();
            let inputs = [from].into_iter().chain(bounds.iter().map(|(name, _)| name.clone()));
            *node = plain_node("Clip", inputs.collect(), vec![clipped]);
            graph.initializer.extend(bounds.map(|(name, bound)| scalar(name, bound)));
        }
        for node in &mut graph.node {
            rename(node, &|name| {
                self.renamed.contains_key(name).then(|| resolve(&self.renamed, name))
            });
        }
        let mut at = 0;
        graph.node.retain(|_| {
            at += 1;
            !self.dropped.contains(&(at - 1))
        });
    }
}

fn rename(node: &mut NodeProto, new: &dyn Fn(&str) -> Option<String>) {
    for name in &mut node.input {
        if let Some(new) = new(name) {
            *name = new;
        }
    }
    let graphs = node.attribute.iter_mut().flat_map(|a| a.g.iter_mut().chain(&mut a.graphs));
    for inner in graphs.flat_map(|graph| &mut graph.node) {
        rename(inner, new);
    }
}

fn plain_node(kind: &str, input: Vec<String>, output: Vec<String>) -> NodeProto {
    let name = format!("{}/{kind}", output.first().map_or("", String::as_str));
    NodeProto { op_type: kind.to_owned(), name, input, output, ..NodeProto::default() }
}

fn scalar(name: String, value: f32) -> TensorProto {
    TensorProto {
        name,
        data_type: DataType::Float as i32,
        float_data: vec![value],
        ..TensorProto::default()
    }
}

/// The constants of a graph by their names.
fn constants(graph: &GraphProto) -> HashMap<&str, &TensorProto> {
    let made = graph.node.iter().filter(|node| node.op_type == "Constant").filter_map(|node| {
        let value = node.attribute.iter().find(|attribute| attribute.name == "value")?;
        Some((&**node.output.first()?, value.t.as_ref()?))
    });
    graph.initializer.iter().map(|tensor| (&*tensor.name, tensor)).chain(made).collect()
}

/// What a QuantizeLinear reads, the integers it makes, and how.
fn quantised<'a>(
    node: &'a NodeProto,
    constants: &HashMap<&str, &TensorProto>,
) -> Option<(&'a str, &'a str, Scale)> {
    if node.op_type != "QuantizeLinear" {
        return None;
    }
    Some((node.input.first()?, node.output.first()?, scale_of(node, constants)?))
}

/// The scale of a QuantizeLinear or DequantizeLinear with constant parameters for the whole tensor.
fn scale_of(node: &NodeProto, constants: &HashMap<&str, &TensorProto>) -> Option<Scale> {
    let parameter = |at: usize| node.input.get(at).filter(|name| !name.is_empty());
    let step = float(constants.get(&**parameter(1)?)?)?;
    let (zero, (least, most)) = match parameter(2) {
        None => (0, (0, 255)),
        Some(name) => integer(constants.get(&**name)?)?,
    };
    #[allow(clippy::cast_precision_loss, reason = "differences of bytes are exact")]
    let value = |integer: i32| (integer - zero) as f32 * step;
    let is_usable = step.is_finite() && step > 0.0;
    is_usable.then(|| Scale { step, range: Range { low: value(least), high: value(most) } })
}

fn float(tensor: &TensorProto) -> Option<f32> {
    if tensor.data_type != DataType::Float as i32 {
        return None;
    }
    match (&*tensor.float_data, &*tensor.raw_data) {
        ([value], []) => Some(*value),
        ([], raw) => raw.try_into().ok().map(f32::from_le_bytes),
        _ => None,
    }
}

/// A zero point, and the least and the greatest integer of its type.
fn integer(tensor: &TensorProto) -> Option<(i32, (i32, i32))> {
    let is_signed = match tensor.data_type {
        kind if kind == DataType::Int8 as i32 => true,
        kind if kind == DataType::Uint8 as i32 => false,
        _ => return None,
    };
    let zero = match (&*tensor.int32_data, &*tensor.raw_data) {
        ([value], []) => *value,
        ([], [byte]) if is_signed => i32::from(byte.cast_signed()),
        ([], [byte]) => i32::from(*byte),
        _ => return None,
    };
    let range = if is_signed { (-128, 127) } else { (0, 255) };
    Some((zero, range))
}

/// Where the values of a tensor lie, as far as the operators that make it tell.
fn range_of(
    graph: &GraphProto,
    links: &Links,
    constants: &HashMap<&str, &TensorProto>,
    name: &str,
    steps: usize,
) -> Range {
    let Some(node) = links.maker(graph, name).filter(|_| steps > 0) else { return Range::ALL };
    let constant = |at: usize| node.input.get(at).and_then(|name| float(constants.get(&**name)?));
    match &*node.op_type {
        "Relu" => Range { low: 0.0, high: f32::INFINITY },
        "Sigmoid" | "Softmax" | "HardSigmoid" => Range { low: 0.0, high: 1.0 },
        "Tanh" => Range { low: -1.0, high: 1.0 },
        "Clip" => Range {
            low: constant(1).unwrap_or(f32::NEG_INFINITY),
            high: constant(2).unwrap_or(f32::INFINITY),
        },
        "DequantizeLinear" => scale_of(node, constants).map_or(Range::ALL, |scale| scale.range),
        kind if MOVES.contains(&kind)
            || matches!(kind, "AveragePool" | "GlobalAveragePool" | "GlobalMaxPool") =>
        {
            let from = node.input.first().map_or("", String::as_str);
            range_of(graph, links, constants, from, steps - 1)
        }
        _ => Range::ALL,
    }
}
