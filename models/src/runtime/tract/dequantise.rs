//! Takes quantisation out of a graph whose activations are quantised and restored at once (QDQ).
//!
//! tract calculates in f32 between QuantizeLinear and DequantizeLinear, so that each such pair costs
//! two passes over a tensor and gives nothing back; and a Softmax between the two it computes wrongly
//! (0.23.9). What a pair does beyond rounding is to hold values inside the range of its integers. A
//! range that begins or ends at 0 may be all that is left of a Relu or Relu6, so there the pair becomes
//! a Clip, unless the activation is there as an operator; any other range is what calibration happened
//! to see, and without it values are nearer to the network that was quantised.
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

/// The name of a Softmax that still stands between DequantizeLinear and QuantizeLinear, directly or with
/// operators of one input between, in this graph or one inside of it.
pub(super) fn softmax_between(graph: &GraphProto) -> Option<&str> {
    let links = Links::of(graph);
    let found = graph.node.iter().find(|node| {
        matches!(&*node.op_type, "Softmax" | "LogSoftmax")
            && links.comes_from_integers(graph, node)
            && links.becomes_integers(graph, node)
    });
    let inside = || {
        let attributes = graph.node.iter().flat_map(|node| &node.attribute);
        attributes.flat_map(|a| a.g.iter().chain(&a.graphs)).find_map(softmax_between)
    };
    found.map(|node| &*node.name).or_else(inside)
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
        }
        links
    }

    fn maker<'a>(&self, graph: &'a GraphProto, name: &str) -> Option<&'a NodeProto> {
        self.makers.get(name).map(|at| &graph.node[*at])
    }

    fn has(&self, name: &str) -> bool {
        self.makers.contains_key(name) || self.readers.contains_key(name)
    }

    fn readers(&self, name: &str) -> &[usize] {
        self.readers.get(name).map_or(&[], Vec::as_slice)
    }

    /// The nodes that restore these integers, which may be moved about before; none where something else
    /// reads them too, or they leave the graph.
    fn restorers(
        &self,
        graph: &GraphProto,
        integers: &str,
        is_fixed: &dyn Fn(&str) -> bool,
        restores: &dyn Fn(&NodeProto) -> bool,
    ) -> Option<Vec<usize>> {
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        let mut left = vec![integers];
        while let Some(name) = left.pop() {
            if is_fixed(name) {
                return None;
            }
            for &at in self.readers(name) {
                if !seen.insert(at) {
                    continue;
                }
                let node = &graph.node[at];
                let is_moved = node.input.iter().filter(|input| *input == name).count() == 1
                    && node.input.first().is_some_and(|input| input == name);
                match (kind(node), &*node.output) {
                    ("DequantizeLinear", _) if is_moved && restores(node) => found.push(at),
                    (kind, [moved]) if is_moved && MOVES.contains(&kind) => left.push(moved),
                    _ => return None,
                }
            }
        }
        Some(found).filter(|found| !found.is_empty())
    }

    /// Whether a DequantizeLinear is before it, with nothing but operators of one input between.
    fn comes_from_integers(&self, graph: &GraphProto, node: &NodeProto) -> bool {
        let mut name = node.input.first();
        for _ in 0..MAX_STEPS {
            let Some(maker) = name.and_then(|name| self.maker(graph, name)) else { return false };
            match (&*maker.op_type, &*maker.input) {
                ("DequantizeLinear", _) => return true,
                (_, [only]) => name = Some(only),
                _ => return false,
            }
        }
        true
    }

    /// Whether a QuantizeLinear is behind it, with nothing but operators of one input between.
    fn becomes_integers(&self, graph: &GraphProto, node: &NodeProto) -> bool {
        let mut seen = HashSet::new();
        let mut left: Vec<&str> = node.output.iter().map(String::as_str).collect();
        while let Some(name) = left.pop() {
            for &at in self.readers(name) {
                let reader = &graph.node[at];
                if reader.op_type == "QuantizeLinear" {
                    return true;
                }
                if reader.input.len() == 1 && seen.insert(at) {
                    left.extend(reader.output.iter().map(String::as_str));
                }
            }
        }
        false
    }
}

/// What an operator of the standard set is; nothing for one of somebody else's.
pub(super) fn kind(node: &NodeProto) -> &str {
    match &*node.domain {
        "" | "ai.onnx" => &node.op_type,
        _ => "",
    }
}

/// The names that graphs inside of a node read, make or give.
fn inner_names(node: &NodeProto) -> Vec<String> {
    let graphs = node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs));
    let mut names = Vec::new();
    for graph in graphs {
        names.extend(graph.output.iter().map(|output| output.name.clone()));
        for inner in &graph.node {
            names.extend(inner.input.iter().chain(&inner.output).cloned());
            names.extend(inner_names(inner));
        }
    }
    names
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
        // What graphs inside of this one name stays as it is.
        let inner: HashSet<String> = graph.node.iter().flat_map(inner_names).collect();
        let is_fixed = |name: &str| given.contains(name) || inner.contains(name);
        let mut plan = Self::default();
        for (at, node) in graph.node.iter().enumerate() {
            let Some((from, integers, scale)) = quantised(node, &constants) else { continue };
            let restores = |node: &NodeProto| {
                let is_free = node.output.first().is_some_and(|name| !inner.contains(name));
                is_free && scale_of(node, &constants) == Some(scale)
            };
            let Some(undone) = links.restorers(graph, integers, &is_fixed, &restores) else {
                continue;
            };
            let values = range_of(graph, &links, &constants, from, MAX_STEPS);
            let instead = if scale.range.activates(values) {
                let clipped = format!("{integers}/clipped");
                if links.has(&clipped) || inner.contains(&clipped) {
                    continue;
                }
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
        for name in graph.node.iter_mut().flat_map(|node| &mut node.input) {
            if self.renamed.contains_key(name) {
                *name = resolve(&self.renamed, name);
            }
        }
        let mut at = 0;
        graph.node.retain(|_| {
            at += 1;
            !self.dropped.contains(&(at - 1))
        });
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
pub(super) fn constants(graph: &GraphProto) -> HashMap<&str, &TensorProto> {
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
    if kind(node) != "QuantizeLinear" {
        return None;
    }
    Some((node.input.first()?, node.output.first()?, scale_of(node, constants)?))
}

/// The scale of a QuantizeLinear or DequantizeLinear with constant parameters for the whole tensor.
fn scale_of(node: &NodeProto, constants: &HashMap<&str, &TensorProto>) -> Option<Scale> {
    let parameter = |at: usize| node.input.get(at).filter(|name| !name.is_empty());
    let step = float(constants.get(&**parameter(1)?)?)?;
    let has_type = node.attribute.iter().any(|attribute| attribute.name == "output_dtype");
    let (zero, (least, most)) = match parameter(2) {
        Some(name) => integer(constants.get(&**name)?)?,
        // Without a zero point it makes u8; what restores may have been given any type.
        None if kind(node) == "QuantizeLinear" && !has_type => (0, (0, 255)),
        None => return None,
    };
    #[allow(clippy::cast_precision_loss, reason = "differences of bytes are exact")]
    let value = |integer: i32| (integer - zero) as f32 * step;
    let is_usable = step.is_finite() && step > 0.0;
    is_usable.then(|| Scale { step, range: Range { low: value(least), high: value(most) } })
}

pub(super) fn float(tensor: &TensorProto) -> Option<f32> {
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
pub(super) fn integer(tensor: &TensorProto) -> Option<(i32, (i32, i32))> {
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
    match kind(node) {
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
