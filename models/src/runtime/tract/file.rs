//! What every ONNX file must be before an engine sees it, whichever that is.
//!
//! **Invariant:** a file that passes has a graph with operators, makes all of its outputs, and keeps
//! all of its data inside of itself: an engine that is given it opens no other file.

use std::collections::HashSet;

use tract_onnx::pb::tensor_proto::DataLocation;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto};
use tract_onnx::prelude::Framework;

use super::super::RuntimeError;

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
    check_data(graph, 0)
}

fn check_data(graph: &GraphProto, depth: usize) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err(format!("graphs lie inside of graphs more than {MAX_DEPTH} deep"));
    }
    for tensor in &graph.initializer {
        check_tensor(tensor)?;
    }
    for node in &graph.node {
        check_node(node, depth)?;
    }
    Ok(())
}

fn check_node(node: &NodeProto, depth: usize) -> Result<(), String> {
    for attribute in &node.attribute {
        for tensor in attribute.t.iter().chain(&attribute.tensors) {
            check_tensor(tensor)?;
        }
        for inner in attribute.g.iter().chain(&attribute.graphs) {
            check_data(inner, depth + 1)?;
        }
    }
    Ok(())
}

fn check_tensor(tensor: &TensorProto) -> Result<(), String> {
    let is_external = tensor.data_location == Some(DataLocation::External as i32);
    if is_external || !tensor.external_data.is_empty() {
        let name = &tensor.name;
        return Err(format!("the data of {name} lies in another file, put it in this one"));
    }
    Ok(())
}
