//! What a checked ONNX file says of itself: its tensors, its operators, and what made its outputs.
//!
//! **Invariant:** nothing is run and nothing is guessed; what the file leaves open stays open.

use std::collections::{BTreeSet, HashMap, HashSet};

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as DimValue;
use tract_onnx::pb::type_proto::Value as TypeValue;
use tract_onnx::pb::{GraphProto, NodeProto, TensorProto, ValueInfoProto};

use super::dequantise::{constants, float, integer, kind};
use super::file;
use crate::inspect::{Dim, InspectError, Inspected, Operator, Port, PortType};
use crate::runtime::RuntimeError;

/// Who reads, in the reasons of the checks.
const READER: &str = "the agent";
/// Operators are followed backwards this far.
const MAX_STEPS: usize = 64;
/// Operators that change how values lie or are written, not what they mean.
const CARRIES: [&str; 9] = [
    "Cast",
    "DequantizeLinear",
    "Flatten",
    "Identity",
    "QuantizeLinear",
    "Reshape",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
];

/// Reads what the file says.
///
/// # Errors
/// It is not a file that any engine is given.
pub(crate) fn describe(onnx: &[u8]) -> Result<Inspected, InspectError> {
    let proto = file::read(READER, onnx).map_err(|error| match error {
        RuntimeError::Malformed { why, .. } => InspectError::Malformed(why),
        other => InspectError::Malformed(other.to_string()),
    })?;
    let no_graph = || InspectError::Malformed("no graph in it".to_owned());
    let graph = proto.graph.as_ref().ok_or_else(no_graph)?;
    let set = proto.opset_import.iter().find(|set| matches!(&*set.domain, "" | "ai.onnx"));
    let own: HashSet<(&str, &str)> = proto
        .functions
        .iter()
        .map(|function| (text(function.domain.as_ref()), text(function.name.as_ref())))
        .collect();
    let mut operators = BTreeSet::new();
    list(graph, &own, &mut operators);
    for function in &proto.functions {
        function.node.iter().for_each(|node| list_node(node, &own, &mut operators));
    }
    let constants = constants(graph);
    let mut makers: HashMap<&str, &NodeProto> = HashMap::new();
    for node in &graph.node {
        for name in &node.output {
            makers.insert(name, node);
        }
    }
    let input = |info: &ValueInfoProto| {
        let is_input = |node: &&NodeProto| node.input.first() == Some(&info.name);
        let restores = |node: &&NodeProto| kind(node) == "DequantizeLinear" && is_input(node);
        let scale = graph.node.iter().find(restores).and_then(|node| scale(node, &constants));
        Port { scale, ..port(info, Vec::new()) }
    };
    let output = |info: &ValueInfoProto| {
        let quantises = |node: &&&NodeProto| kind(node) == "QuantizeLinear";
        let maker = makers.get(&*info.name).filter(quantises);
        let scale = maker.and_then(|node| scale(node, &constants));
        Port { scale, ..port(info, made_by(&makers, &info.name)) }
    };
    let given: HashSet<&str> = graph.initializer.iter().map(|tensor| &*tensor.name).collect();
    Ok(Inspected {
        bytes: onnx.len(),
        opset: set.map(|set| set.version),
        producer: [&*proto.producer_name, &*proto.producer_version].join(" ").trim().to_owned(),
        inputs: graph.input.iter().filter(|info| !given.contains(&*info.name)).map(input).collect(),
        outputs: graph.output.iter().map(output).collect(),
        operators: operators.into_iter().collect(),
    })
}

fn text(field: Option<&String>) -> &str {
    field.map_or("", String::as_str)
}

/// The operators of a graph and of those inside of it; the file's own functions are none.
fn list(graph: &GraphProto, own: &HashSet<(&str, &str)>, operators: &mut BTreeSet<Operator>) {
    graph.node.iter().for_each(|node| list_node(node, own, operators));
}

fn list_node(node: &NodeProto, own: &HashSet<(&str, &str)>, operators: &mut BTreeSet<Operator>) {
    if !own.contains(&(&*node.domain, &*node.op_type)) {
        let domain = if node.domain == "ai.onnx" { "" } else { &*node.domain };
        operators.insert(Operator { domain: domain.to_owned(), name: node.op_type.clone() });
    }
    // How deep graphs lie inside of graphs was checked when the file was read.
    let inner = node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs));
    inner.for_each(|graph| list(graph, own, operators));
}

fn port(info: &ValueInfoProto, made_by: Vec<String>) -> Port {
    let value = info.r#type.as_ref().and_then(|kind| kind.value.as_ref());
    let tensor = value.map(|TypeValue::TensorType(tensor)| tensor);
    let kind = match tensor {
        None => PortType::NoTensor,
        Some(tensor) => match DataType::try_from(tensor.elem_type).ok() {
            Some(kind) => dtype(kind).map_or_else(
                || PortType::Other(kind.as_str_name().to_lowercase()),
                PortType::Tensor,
            ),
            None => PortType::Other(format!("number {}", tensor.elem_type)),
        },
    };
    let dims = tensor.and_then(|tensor| tensor.shape.as_ref()).map(|shape| {
        let dim = |value: Option<&DimValue>| match value {
            Some(DimValue::DimValue(size)) => match usize::try_from(*size) {
                Ok(size) => Dim::Fixed(size),
                Err(_) => Dim::Free(String::new()),
            },
            Some(DimValue::DimParam(name)) => Dim::Free(name.clone()),
            None => Dim::Free(String::new()),
        };
        shape.dim.iter().map(|entry| dim(entry.value.as_ref())).collect()
    });
    Port { name: info.name.clone(), kind, dims, scale: None, made_by }
}

fn dtype(kind: DataType) -> Option<crate::tensor::Dtype> {
    use crate::tensor::Dtype;
    Some(match kind {
        DataType::Bool => Dtype::Bool,
        DataType::Uint8 => Dtype::U8,
        DataType::Int8 => Dtype::I8,
        DataType::Uint16 => Dtype::U16,
        DataType::Int16 => Dtype::I16,
        DataType::Uint32 => Dtype::U32,
        DataType::Int32 => Dtype::I32,
        DataType::Uint64 => Dtype::U64,
        DataType::Int64 => Dtype::I64,
        DataType::Float16 => Dtype::F16,
        DataType::Float => Dtype::F32,
        DataType::Double => Dtype::F64,
        _ => return None,
    })
}

/// The operators behind an output, the nearest first, as far as the first one that gives the values
/// their meaning.
fn made_by(makers: &HashMap<&str, &NodeProto>, output: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut name = output;
    while let Some(node) = makers.get(name).filter(|_| names.len() < MAX_STEPS) {
        names.push(node.op_type.clone());
        let Some(from) = node.input.first().filter(|_| CARRIES.contains(&kind(node))) else {
            break;
        };
        name = from;
    }
    names
}

/// The scale and the zero point of a tensor's integers, where they are constants for all of it.
fn scale(node: &NodeProto, constants: &HashMap<&str, &TensorProto>) -> Option<(f32, i32)> {
    let parameter = |at: usize| node.input.get(at).filter(|name| !name.is_empty());
    let step = float(constants.get(&**parameter(1)?)?)?;
    let zero = match parameter(2) {
        Some(name) => integer(constants.get(&**name)?)?.0,
        None => 0,
    };
    (step.is_finite() && step > 0.0).then_some((step, zero))
}
