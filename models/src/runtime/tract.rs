//! The embedded engine: pure Rust, on every board. The one module that names tract, whose reader of
//! ONNX files looks at them for every engine.
//!
//! **Invariant:** tract never sees a Softmax between DequantizeLinear and QuantizeLinear, which it
//! computes wrongly (0.23.9): the quantisation is taken out, or the graph is refused.

mod dequantise;
pub(crate) mod describe;
pub(super) mod file;
mod sizes;
mod weights;

use std::num::NonZeroUsize;

use tract_onnx::pb::{ModelProto, OperatorSetIdProto};
use tract_onnx::prelude::*;

use super::{
    Graph, Runtime as Engine, RuntimeError, Session, TensorSpec, caught, check_count,
    check_tensors, places,
};
use crate::tensor::{Dtype, Element, Tensor as OwnTensor, with_elements, with_type};

/// The engine's name.
const NAME: &str = "tract";
/// Whose operators it has.
const DOMAINS: [&str; 4] = ["", "ai.onnx", "ai.onnx.ml", "com.microsoft"];
/// The newest set of ONNX's operators that this version knows.
const NEWEST_OPSET: i64 = 24;
/// Largest number of elements of a tensor inside a graph.
const MAX_ELEMENTS: usize = 1 << 26;

/// The embedded engine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tract;

impl Engine for Tract {
    fn name(&self) -> &'static str {
        NAME
    }

    fn load(
        &self,
        graph: &Graph<'_>,
        _threads: NonZeroUsize,
    ) -> Result<Box<dyn Session>, RuntimeError> {
        let loaded = caught(NAME, || load(graph))??;
        Ok(Box::new(loaded))
    }
}

struct TractSession {
    plan: Arc<TypedRunnableModel>,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    /// Where each input, and each output, stands in the graph.
    input_places: Vec<usize>,
    output_places: Vec<usize>,
}

impl Session for TractSession {
    fn run(&mut self, inputs: &[OwnTensor], outputs: &mut [OwnTensor]) -> Result<(), RuntimeError> {
        let batch = check_tensors(&self.inputs, inputs)?;
        check_count("outputs", outputs.len(), self.outputs.len())?;
        for (spec, output) in self.outputs.iter().zip(&mut *outputs) {
            output.reset(&spec.shape_at(batch), spec.dtype);
        }
        // The plan is for a batch of 1, the only one that every graph can be planned for.
        (0..batch).try_for_each(|row| self.run_row(row, inputs, outputs))
    }
}

impl TractSession {
    /// Runs one element of the batch.
    fn run_row(
        &self,
        row: usize,
        inputs: &[OwnTensor],
        outputs: &mut [OwnTensor],
    ) -> Result<(), RuntimeError> {
        let failed = |e: TractError| RuntimeError::Failed { runtime: NAME, why: format!("{e:#}") };
        let mut tensors: TVec<TValue> = tvec![Tensor::default().into_tvalue(); inputs.len()];
        for ((input, spec), place) in inputs.iter().zip(&self.inputs).zip(&self.input_places) {
            let (shape, rows) = (&spec.shape, rows(spec, row));
            let tensor = with_elements!(
                input.elements(),
                own => Tensor::from_shape(shape, &own[rows]),
                texts => tensor1(&texts[rows]).into_shape(shape)
            );
            tensors[*place] = tensor.map_err(failed)?.into_tvalue();
        }
        let given = caught(NAME, || self.plan.run(tensors))?.map_err(failed)?;
        check_count("outputs", given.len(), self.outputs.len())?;
        for ((spec, place), output) in self.outputs.iter().zip(&self.output_places).zip(outputs) {
            let view = given[*place].try_as_plain_ram().map_err(failed)?;
            let count = with_type!(
                spec.dtype,
                T => fill(output, rows(spec, row), view.as_slice::<T>().map_err(failed)?),
                text => fill(output, rows(spec, row), view.as_slice::<String>().map_err(failed)?)
            );
            if count != spec.size() {
                return Err(RuntimeError::Interface {
                    what: format!("output {}", spec.name),
                    got: format!("{count} elements"),
                    want: spec.to_string(),
                });
            }
        }
        Ok(())
    }
}

/// Where the elements of one element of the batch stand; all of a pinned tensor.
fn rows(spec: &TensorSpec, row: usize) -> std::ops::Range<usize> {
    let begin = if spec.free_batch { row * spec.size() } else { 0 };
    begin..begin + spec.size()
}

/// Puts values into their place in a tensor of their type, if they are as many; says how many they are.
fn fill<T: Element>(output: &mut OwnTensor, rows: std::ops::Range<usize>, values: &[T]) -> usize {
    let room = output.of_mut::<T>().unwrap_or_default();
    let room = &mut room[rows];
    if room.len() == values.len() {
        room.clone_from_slice(values);
    }
    values.len()
}

/// What tract is given of a file: what it cannot have, or would harm, is refused, and quantisation that
/// costs more than it gives is out.
fn prepared(onnx: &[u8]) -> Result<ModelProto, RuntimeError> {
    let unsupported = |why: String| RuntimeError::Unsupported { runtime: NAME, why };
    let mut proto = file::read(NAME, onnx)?;
    let is_own = |set: &&OperatorSetIdProto| matches!(&*set.domain, "" | "ai.onnx");
    let opset = proto.opset_import.iter().filter(is_own).map(|set| set.version).max();
    if let Some(opset) = opset.filter(|opset| *opset > NEWEST_OPSET) {
        return Err(unsupported(format!(
            "it is of opset {opset}, the newest that is known here is {NEWEST_OPSET}; export it for that"
        )));
    }
    if let Some(graph) = &proto.graph {
        // tract looks at names alone, and would take another operator for the one of ONNX.
        let functions = proto.functions.iter().filter_map(|function| function.domain.as_deref());
        let known: Vec<&str> = DOMAINS.into_iter().chain(functions).collect();
        if let Some(node) = graph.node.iter().find(|node| !known.contains(&&*node.domain)) {
            let (kind, domain) = (&node.op_type, &node.domain);
            return Err(unsupported(format!(
                "operator {kind} is of {domain}, which is not known here"
            )));
        }
        sizes::check(graph).map_err(unsupported)?;
    }
    dequantise::take_out_pairs(&mut proto);
    if let Some(graph) = &mut proto.graph {
        weights::restore(graph);
    }
    if let Some(softmax) = proto.graph.as_ref().and_then(dequantise::softmax_between) {
        return Err(unsupported(format!(
            "operator {softmax} (Softmax) lies between DequantizeLinear and QuantizeLinear, where \
             this version answers wrongly"
        )));
    }
    Ok(proto)
}

/// Whether a file passes all that is done before tract sees it. For the tests that throw bytes at it.
#[doc(hidden)]
pub fn is_prepared(onnx: &[u8]) -> bool {
    prepared(onnx).is_ok()
}

fn load(graph: &Graph<'_>) -> Result<TractSession, RuntimeError> {
    let malformed = |why: String| RuntimeError::Malformed { runtime: NAME, why };
    let onnx = tract_onnx::onnx().with_ignore_value_info(true).with_ignore_output_shapes(true);
    let proto = prepared(graph.onnx)?;
    let mut model = onnx.model_for_proto_model(&proto).map_err(|e| malformed(format!("{e:#}")))?;
    drop(proto);
    let inputs: Vec<_> = model.inputs.iter().map(|o| model.node(o.node).name.clone()).collect();
    let label = |outlet: &OutletId| model.outlet_label(*outlet).unwrap_or_default().to_owned();
    let outputs: Vec<_> = model.outputs.iter().map(label).collect();
    let input_places = places("inputs", &inputs, graph.inputs)?;
    let output_places = places("outputs", &outputs, graph.outputs)?;
    for (spec, place) in graph.inputs.iter().zip(&input_places) {
        let got = model.input_fact(*place).ok().and_then(|fact| fact.datum_type());
        check_type(&format!("input {}", spec.name), got, spec.dtype)?;
        let fact = InferenceFact::dt_shape(datum_type(spec.dtype), &spec.shape);
        model.set_input_fact(*place, fact).map_err(|e| malformed(format!("{e:#}")))?;
    }
    let unsupported =
        |e: TractError| RuntimeError::Unsupported { runtime: NAME, why: format!("{e:#}") };
    let typed = model.into_typed().map_err(unsupported)?;
    check_sizes(&typed)?;
    for (spec, place) in graph.outputs.iter().zip(&output_places) {
        let fact = typed.output_fact(*place).map_err(unsupported)?;
        check_type(&format!("output {}", spec.name), Some(fact.datum_type), spec.dtype)?;
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
    let (inputs, outputs) = (graph.inputs.to_vec(), graph.outputs.to_vec());
    Ok(TractSession { plan, inputs, outputs, input_places, output_places })
}

fn datum_type(dtype: Dtype) -> DatumType {
    with_type!(dtype, T => T::datum_type(), text => String::datum_type())
}

fn check_type(what: &str, got: Option<DatumType>, want: Dtype) -> Result<(), RuntimeError> {
    match got {
        Some(got) if got != datum_type(want) => Err(RuntimeError::Interface {
            what: format!("the type of {what}"),
            got: format!("{got:?}").to_lowercase(),
            want: want.to_string(),
        }),
        _ => Ok(()),
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
