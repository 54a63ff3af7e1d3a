//! What every ONNX file must be before an engine sees it, whichever that is.
//!
//! **Invariant:** a file that passes has a graph with operators that do not wait for each other in a
//! circle, makes each tensor once and all of its outputs, and keeps all of its data inside of itself, as much
//! of it as it says: an engine that is given it opens no other file, and makes no room for nothing.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::tensor_proto::DataLocation;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as Dimension;
use tract_onnx::pb::type_proto::Value;
use tract_onnx::pb::{
    GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, ValueInfoProto,
};
use tract_onnx::prelude::Framework;

use super::super::RuntimeError;

/// Most elements of a constant, an input or an output: those of a file of the largest size.
const MAX_ELEMENTS: usize = 1 << 30;
/// Graphs inside of graphs are looked at this deep.
const MAX_DEPTH: usize = 16;

/// Reads and checks a file for an engine.
pub(in crate::runtime) fn read(
    runtime: &'static str,
    onnx: &[u8],
) -> Result<ModelProto, RuntimeError> {
    let malformed = |why: String| RuntimeError::Malformed { runtime, why };
    let mut bytes = onnx;
    let proto = tract_onnx::onnx()
        .proto_model_for_read(&mut bytes)
        .map_err(|error| malformed(format!("{error:#}")))?;
    check(&proto).map_err(malformed)?;
    Ok(proto)
}

fn check(proto: &ModelProto) -> Result<(), String> {
    let graph = proto.graph.as_ref().ok_or("no graph in it, so it is no ONNX file")?;
    if graph.node.is_empty() {
        return Err("the graph has no operators".to_owned());
    }
    let made: HashSet<&str> = graph
        .node
        .iter()
        .flat_map(|node| &node.output)
        .chain(graph.input.iter().map(|input| &input.name))
        .chain(graph.initializer.iter().map(|tensor| &tensor.name))
        .map(String::as_str)
        .collect();
    for output in &graph.output {
        if !made.contains(output.name.as_str()) {
            return Err(format!("no operator makes its output {}", output.name));
        }
    }
    graph.input.iter().chain(&graph.output).try_for_each(check_port)?;
    check_order(graph)?;
    if !proto.training_info.is_empty() {
        return Err("it is made for training; export it for inference".to_owned());
    }
    proto
        .functions
        .iter()
        .flat_map(|function| &function.node)
        .try_for_each(|n| check_node(n, 0))?;
    check_data(graph, 0)
}

/// Engines follow a graph from operator to operator; one that goes in a circle they follow for ever.
fn check_order(graph: &GraphProto) -> Result<(), String> {
    let mut makers: HashMap<&str, usize> = HashMap::new();
    for (at, node) in graph.node.iter().enumerate() {
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            if makers.insert(name, at).is_some() {
                return Err(format!("{name} is made by two operators"));
            }
        }
    }
    // An operator is done when all that it waits for are.
    let mut waits: Vec<usize> = vec![0; graph.node.len()];
    let mut waiting: HashMap<usize, Vec<usize>> = HashMap::new();
    for (at, node) in graph.node.iter().enumerate() {
        for maker in node.input.iter().filter_map(|name| makers.get(name.as_str())) {
            waits[at] += 1;
            waiting.entry(*maker).or_default().push(at);
        }
    }
    let mut done: Vec<usize> = (0..graph.node.len()).filter(|at| waits[*at] == 0).collect();
    let mut count = 0;
    while let Some(at) = done.pop() {
        count += 1;
        for next in waiting.remove(&at).unwrap_or_default() {
            waits[next] -= 1;
            if waits[next] == 0 {
                done.push(next);
            }
        }
    }
    match count == graph.node.len() {
        true => Ok(()),
        false => Err("its operators wait for each other in a circle".to_owned()),
    }
}

fn check_data(graph: &GraphProto, depth: usize) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err(format!("graphs lie inside of graphs more than {MAX_DEPTH} deep"));
    }
    graph.initializer.iter().try_for_each(check_tensor)?;
    graph.sparse_initializer.iter().try_for_each(check_sparse)?;
    for node in &graph.node {
        check_node(node, depth)?;
    }
    Ok(())
}

fn check_node(node: &NodeProto, depth: usize) -> Result<(), String> {
    for attribute in &node.attribute {
        attribute.t.iter().chain(&attribute.tensors).try_for_each(check_tensor)?;
        let sparse = attribute.sparse_tensor.iter().chain(&attribute.sparse_tensors);
        sparse.into_iter().try_for_each(check_sparse)?;
        for inner in attribute.g.iter().chain(&attribute.graphs) {
            check_data(inner, depth + 1)?;
        }
    }
    Ok(())
}

fn check_sparse(tensor: &SparseTensorProto) -> Result<(), String> {
    tensor.values.iter().chain(&tensor.indices).try_for_each(check_tensor)
}

fn check_tensor(tensor: &TensorProto) -> Result<(), String> {
    let is_external = tensor.data_location == Some(DataLocation::External as i32);
    if is_external || !tensor.external_data.is_empty() {
        let name = &tensor.name;
        return Err(format!("the data of {name} lies in another file, put it in this one"));
    }
    let dims = tensor.dims.iter().map(|dim| usize::try_from(*dim).ok());
    let count = elements(dims);
    let Some(count) = count.filter(|count| *count <= MAX_ELEMENTS) else {
        return Err(format!("the constant {} is of shape {:?}", tensor.name, tensor.dims));
    };
    // Types by their numbers in TensorProto.DataType, with bytes an element.
    let width = match tensor.data_type {
        2 | 3 | 9 => 1,
        4 | 5 | 10 | 16 => 2,
        1 | 6 | 12 => 4,
        7 | 11 | 13 => 8,
        _ => return Ok(()),
    };
    let is_elsewhere = tensor.raw_data.is_empty();
    let typed = [
        tensor.float_data.len(),
        tensor.int32_data.len(),
        tensor.int64_data.len(),
        tensor.double_data.len(),
        tensor.uint64_data.len(),
    ];
    let got = match is_elsewhere {
        true => typed.into_iter().max().unwrap_or(0),
        false => tensor.raw_data.len() / width,
    };
    if got != count || (!is_elsewhere && !tensor.raw_data.len().is_multiple_of(width)) {
        return Err(format!(
            "the constant {} is of shape {:?} and has {got} elements",
            tensor.name, tensor.dims
        ));
    }
    Ok(())
}

/// Elements of a shape; nothing where a dimension is none, or they cannot be counted.
fn elements(mut dims: impl Iterator<Item = Option<usize>>) -> Option<usize> {
    dims.try_fold(1usize, |count, dim| count.checked_mul(dim?))
}

/// What an input or output says of its size must be possible, as far as it says anything.
fn check_port(port: &ValueInfoProto) -> Result<(), String> {
    let kind = port.r#type.as_ref().and_then(|kind| kind.value.as_ref());
    let Some(Value::TensorType(tensor)) = kind else { return Ok(()) };
    let dims = tensor.shape.iter().flat_map(|shape| &shape.dim);
    let fixed: Vec<i64> = dims
        .filter_map(|dim| match &dim.value {
            Some(Dimension::DimValue(size)) => Some(*size),
            _ => None,
        })
        .collect();
    let count = elements(fixed.iter().map(|size| usize::try_from(*size).ok()));
    match count {
        Some(count) if count <= MAX_ELEMENTS => Ok(()),
        // -1 is what some exporters write for any.
        None if fixed.iter().any(|size| *size < 0) => Ok(()),
        _ => Err(format!("{} is of shape {fixed:?}", port.name)),
    }
}
