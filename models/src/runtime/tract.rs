//! The embedded engine: pure Rust, on every board. The one module that names tract.
//!
//! **Invariant:** tract never sees a Softmax between DequantizeLinear and QuantizeLinear, which it
//! computes wrongly (0.23.9): the quantisation behind the Softmax is taken out, or the graph is
//! refused.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use tract_onnx::pb::{GraphProto, ModelProto};
use tract_onnx::prelude::*;

use super::{Graph, Runtime as Engine, RuntimeError, Session, TensorSpec};

/// The engine's name.
const NAME: &str = "tract";
/// Largest number of elements of a tensor inside a graph.
const MAX_ELEMENTS: usize = 1 << 26;

/// The embedded engine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tract;

impl Engine for Tract {
    fn name(&self) -> &'static str {
        NAME
    }

    fn load(&self, graph: &Graph<'_>) -> Result<Box<dyn Session>, RuntimeError> {
        let loaded = caught(|| load(graph))??;
        Ok(Box::new(loaded))
    }
}

struct TractSession {
    plan: Arc<TypedRunnableModel>,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
}

impl Session for TractSession {
    fn run(&mut self, inputs: &[&[f32]], outputs: &mut [Vec<f32>]) -> Result<(), RuntimeError> {
        let failed = |e: TractError| RuntimeError::Failed { runtime: NAME, why: format!("{e:#}") };
        check_count("inputs", inputs.len(), self.inputs.len())?;
        check_count("outputs", outputs.len(), self.outputs.len())?;
        let mut tensors: TVec<TValue> = TVec::new();
        for (values, spec) in inputs.iter().zip(&self.inputs) {
            tensors.push(Tensor::from_shape(&spec.shape, values).map_err(failed)?.into_tvalue());
        }
        let given = caught(|| self.plan.run(tensors))?.map_err(failed)?;
        for ((tensor, spec), output) in given.iter().zip(&self.outputs).zip(outputs) {
            let view = tensor.try_as_plain_ram().map_err(failed)?;
            let values = view.as_slice::<f32>().map_err(failed)?;
            check_count(&spec.name, values.len(), spec.size())?;
            output.clear();
            output.extend_from_slice(values);
        }
        Ok(())
    }
}

fn check_count(what: &str, got: usize, want: usize) -> Result<(), RuntimeError> {
    if got == want {
        return Ok(());
    }
    Err(RuntimeError::Interface {
        what: format!("number of {what}"),
        got: got.to_string(),
        want: want.to_string(),
    })
}

/// Runs foreign code; a panic in it is an error.
fn caught<T>(run: impl FnOnce() -> T) -> Result<T, RuntimeError> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|payload| RuntimeError::Panicked {
        runtime: NAME,
        why: panic_text(payload.as_ref()),
    })
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no reason given".to_owned())
}

fn load(graph: &Graph<'_>) -> Result<TractSession, RuntimeError> {
    let malformed = |why: String| RuntimeError::Malformed { runtime: NAME, why };
    let onnx = tract_onnx::onnx().with_ignore_value_info(true).with_ignore_output_shapes(true);
    let mut bytes = graph.onnx;
    let mut proto =
        onnx.proto_model_for_read(&mut bytes).map_err(|e| malformed(format!("{e:#}")))?;
    check_file(&proto).map_err(malformed)?;
    if let Some(inner) = proto.graph.as_mut() {
        unquantise_softmax(inner)?;
    }
    let mut model = onnx.model_for_proto_model(&proto).map_err(|e| malformed(format!("{e:#}")))?;
    drop(proto);
    let inputs = model.inputs.iter().map(|o| model.node(o.node).name.clone()).collect::<Vec<_>>();
    let outputs =
        model.outputs.iter().map(|o| model.outlet_label(*o).unwrap_or_default().to_owned());
    check_names("inputs", &inputs, graph.inputs)?;
    check_names("outputs", &outputs.collect::<Vec<_>>(), graph.outputs)?;
    for (i, spec) in graph.inputs.iter().enumerate() {
        let got = model.input_fact(i).map(|f| f.datum_type());
        check_type(&format!("input {}", spec.name), got.ok().flatten())?;
        let fact = InferenceFact::dt_shape(f32::datum_type(), &spec.shape);
        model.set_input_fact(i, fact).map_err(|e| malformed(format!("{e:#}")))?;
    }
    let unsupported =
        |e: TractError| RuntimeError::Unsupported { runtime: NAME, why: format!("{e:#}") };
    let typed = model.into_typed().map_err(unsupported)?;
    check_sizes(&typed)?;
    for (i, spec) in graph.outputs.iter().enumerate() {
        let fact = typed.output_fact(i).map_err(unsupported)?;
        check_type(&format!("output {}", spec.name), Some(fact.datum_type))?;
        let shape = fact.shape.as_concrete();
        if shape != Some(&spec.shape) {
            return Err(RuntimeError::Interface {
                what: format!("the shape of output {}", spec.name),
                got: shape.map_or_else(|| format!("{:?}", fact.shape), |s| format!("{s:?}")),
                want: format!("{:?}", spec.shape),
            });
        }
    }
    let plan = typed.into_optimized().and_then(|m| m.into_runnable()).map_err(unsupported)?;
    Ok(TractSession { plan, inputs: graph.inputs.to_vec(), outputs: graph.outputs.to_vec() })
}

/// Refuses what the parser would let through or stumble over.
fn check_file(proto: &ModelProto) -> Result<(), String> {
    let graph = proto.graph.as_ref().ok_or("no graph in it, so it is no ONNX file")?;
    if graph.node.is_empty() {
        return Err("the graph has no operators".to_owned());
    }
    let made: HashSet<&str> = graph
        .node
        .iter()
        .flat_map(|node| &node.output)
        .chain(graph.input.iter().map(|i| &i.name))
        .chain(graph.initializer.iter().map(|i| &i.name))
        .map(String::as_str)
        .collect();
    for output in &graph.output {
        if !made.contains(output.name.as_str()) {
            return Err(format!("no operator makes its output {}", output.name));
        }
    }
    if let Some(tensor) = graph.initializer.iter().find(|t| !t.external_data.is_empty()) {
        return Err(format!(
            "the data of {} lies in another file, put it in this one",
            tensor.name
        ));
    }
    Ok(())
}

fn check_names(what: &str, got: &[String], want: &[TensorSpec]) -> Result<(), RuntimeError> {
    let want: Vec<&str> = want.iter().map(|spec| spec.name.as_str()).collect();
    if got == want {
        return Ok(());
    }
    Err(RuntimeError::Interface {
        what: what.to_owned(),
        got: format!("{got:?}"),
        want: format!("{want:?}"),
    })
}

fn check_type(what: &str, got: Option<DatumType>) -> Result<(), RuntimeError> {
    match got {
        Some(DatumType::F32) | None => Ok(()),
        Some(other) => Err(RuntimeError::Interface {
            what: format!("the type of {what}"),
            got: format!("{other:?}"),
            want: "F32".to_owned(),
        }),
    }
}

/// No tensor inside the graph may be absurdly large.
fn check_sizes(model: &TypedModel) -> Result<(), RuntimeError> {
    for node in model.nodes() {
        for output in &node.outputs {
            let dims = output.fact.shape.as_concrete();
            let size = dims.and_then(|d| d.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim)));
            if size.is_none_or(|size| size > MAX_ELEMENTS) {
                let why = format!(
                    "operator {} makes a tensor of shape {:?}: must be pinned, with at most \
                     {MAX_ELEMENTS} elements",
                    node.name, output.fact.shape
                );
                return Err(RuntimeError::Unsupported { runtime: NAME, why });
            }
        }
    }
    Ok(())
}

/// Takes out the Quantize/Dequantize pair behind each Softmax that has a DequantizeLinear in front;
/// the result is what the quantised graph approximates.
fn unquantise_softmax(graph: &mut GraphProto) -> Result<(), RuntimeError> {
    let mut by_output = HashMap::new();
    let mut readers: HashMap<&str, Vec<usize>> = HashMap::new();
    for (i, node) in graph.node.iter().enumerate() {
        by_output.extend(node.output.iter().map(|name| (name.as_str(), i)));
        for name in &node.input {
            readers.entry(name).or_default().push(i);
        }
    }
    let kind = |i: usize| graph.node[i].op_type.as_str();
    let read_by = |name: &str| readers.get(name).cloned().unwrap_or_default();
    let is_given = |name: &str| graph.output.iter().any(|o| o.name == name);
    // From the name that is read, to the name of the unquantised tensor that replaces it.
    let mut renamed: HashMap<String, String> = HashMap::new();
    let mut dropped = HashSet::new();
    for (i, softmax) in graph.node.iter().enumerate() {
        let from = softmax.input.first().and_then(|name| by_output.get(name.as_str()));
        let behind = from.is_some_and(|&i| kind(i) == "DequantizeLinear");
        if !matches!(kind(i), "Softmax" | "LogSoftmax") || !behind {
            continue;
        }
        let Some(out) = softmax.output.first() else { continue };
        for q in read_by(out).into_iter().filter(|&q| kind(q) == "QuantizeLinear") {
            let Some(quantised) = graph.node[q].output.first() else { continue };
            let undone = read_by(quantised);
            let is_pair = undone.iter().all(|&d| kind(d) == "DequantizeLinear");
            if is_given(quantised) || !is_pair || undone.is_empty() {
                let why = format!(
                    "operator {} (Softmax) lies between DequantizeLinear and QuantizeLinear, where \
                     this version answers wrongly",
                    softmax.name
                );
                return Err(RuntimeError::Unsupported { runtime: NAME, why });
            }
            dropped.insert(q);
            for d in undone {
                dropped.insert(d);
                let restored = graph.node[d].output.first().cloned().unwrap_or_default();
                renamed.insert(restored, out.clone());
            }
        }
    }
    if dropped.is_empty() {
        return Ok(());
    }
    let given: HashMap<String, String> = graph
        .output
        .iter()
        .filter_map(|o| renamed.get(&o.name).map(|softmax| (softmax.clone(), o.name.clone())))
        .collect();
    drop_nodes(graph, &dropped);
    for node in &mut graph.node {
        for name in &mut node.input {
            if let Some(softmax) = renamed.get(name) {
                name.clone_from(softmax);
            }
        }
        // A graph's output keeps its name: the Softmax takes it over.
        for name in node.input.iter_mut().chain(&mut node.output) {
            if let Some(output) = given.get(name) {
                name.clone_from(output);
            }
        }
    }
    Ok(())
}

fn drop_nodes(graph: &mut GraphProto, dropped: &HashSet<usize>) {
    let mut at = 0;
    graph.node.retain(|_| {
        at += 1;
        !dropped.contains(&(at - 1))
    });
}
