//! How large the tensors are that follow from a graph's constants alone, found out before tract makes
//! them.
//!
//! tract calculates what follows from constants while it loads a graph: a few bytes that ask for a
//! billion zeros would end a small board there. What follows from the inputs too is calculated when the
//! graph runs, and its sizes are looked at in between.
//!
//! **Invariant:** pure; only shapes and short lists of numbers are calculated, whatever they ask for.

use std::collections::HashMap;

use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};

use super::MAX_ELEMENTS;

/// Numbers of a list that is followed: shapes, repetitions, limits.
const MOST_VALUES: usize = 64;
/// Operators may stand in any order; what stands far before what it needs is found in later rounds.
const MOST_ROUNDS: usize = 32;
/// Graphs inside of graphs; deeper ones were refused before.
const MAX_DEPTH: usize = 16;

/// A tensor that follows from constants.
#[derive(Debug, Clone)]
struct Known {
    shape: Vec<usize>,
    /// Its elements, where they are few.
    values: Option<Vec<f64>>,
}

impl Known {
    fn of_shape(shape: Vec<usize>) -> Self {
        Self { shape, values: None }
    }

    /// Elements; nothing where there are more than can be counted.
    fn size(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |size, dim| size.checked_mul(*dim))
    }

    /// The elements as sizes.
    fn sizes(&self) -> Option<Vec<usize>> {
        self.values.as_ref()?.iter().map(|value| whole(*value)).collect()
    }
}

/// Refuses a graph whose constants grow beyond what a tensor may have.
pub(super) fn check(graph: &GraphProto) -> Result<(), String> {
    look(graph, &mut HashMap::new(), 0)
}

fn look<'a>(
    graph: &'a GraphProto,
    known: &mut HashMap<&'a str, Known>,
    depth: usize,
) -> Result<(), String> {
    for tensor in &graph.initializer {
        known.insert(&tensor.name, constant(tensor));
    }
    for _ in 0..MOST_ROUNDS {
        let before = known.len();
        for node in &graph.node {
            let Some(name) = node.output.first().filter(|name| !known.contains_key(name.as_str()))
            else {
                continue;
            };
            let Some(made) = made_by(node, known) else { continue };
            if made.size().is_none_or(|size| size > MAX_ELEMENTS) {
                return Err(format!(
                    "operator {} ({}) makes a tensor of shape {:?} of constants: must have at most \
                     {MAX_ELEMENTS} elements",
                    node.name, node.op_type, made.shape
                ));
            }
            known.insert(name, made);
        }
        if known.len() == before {
            break;
        }
    }
    let inner = graph.node.iter().flat_map(|node| &node.attribute);
    let inner = inner.flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs));
    inner.filter(|_| depth < MAX_DEPTH).try_for_each(|graph| look(graph, known, depth + 1))
}

/// What an operator makes of constants; nothing where one of them is none, or it is not followed.
fn made_by(node: &NodeProto, known: &HashMap<&str, Known>) -> Option<Known> {
    let named = node.input.iter().filter(|name| !name.is_empty());
    let inputs: Vec<&Known> =
        named.map(|name| known.get(name.as_str())).collect::<Option<Vec<&Known>>>()?;
    let first = || inputs.first().copied();
    Some(match &*node.op_type {
        "Constant" => attributes(node)?,
        "ConstantOfShape" => Known::of_shape(first()?.sizes()?),
        "Shape" => {
            let dims: Vec<f64> = first()?.shape.iter().map(|dim| *dim as f64).collect();
            Known { shape: vec![dims.len()], values: Some(dims) }
        }
        "Expand" => Known::of_shape(broadcast(&[&first()?.shape, &inputs.get(1)?.sizes()?])),
        "Tile" => {
            let times = inputs.get(1)?.sizes()?;
            let dims = first()?.shape.iter().zip(times);
            Known::of_shape(dims.map(|(dim, times)| dim.saturating_mul(times)).collect())
        }
        "Range" => range(&inputs)?,
        "OneHot" => {
            let mut shape = first()?.shape.clone();
            shape.extend(inputs.get(1)?.sizes()?.first());
            Known::of_shape(shape)
        }
        "Pad" => padded(first()?, inputs.get(1)?)?,
        "Resize" | "Upsample" => resized(first()?, inputs.last()?)?,
        "MatMul" | "Gemm" => product(node, first()?, inputs.get(1)?)?,
        "Transpose" => transposed(node, first()?),
        "HannWindow" | "HammingWindow" | "BlackmanWindow" => Known::of_shape(first()?.sizes()?),
        "Concat" => joined(node, &inputs)?,
        "Add" | "Sub" | "Mul" | "Div" => calculated(&node.op_type, first()?, inputs.get(1)?),
        "Cast" | "Identity" | "Neg" | "Abs" | "Floor" | "Ceil" | "Relu" | "Sqrt" | "Exp"
        | "Not" | "Reciprocal" => {
            let is_same = matches!(&*node.op_type, "Cast" | "Identity");
            Known {
                shape: first()?.shape.clone(),
                values: first()?.values.clone().filter(|_| is_same),
            }
        }
        // The elements stay, in whatever shape.
        "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" => {
            Known { shape: reshaped(node, &inputs)?, values: first()?.values.clone() }
        }
        "Pow" | "Max" | "Min" | "Where" | "And" | "Or" | "Xor" | "Equal" | "Less" | "Greater"
        | "Sum" => {
            let shapes: Vec<&[usize]> = inputs.iter().map(|input| &*input.shape).collect();
            Known::of_shape(broadcast(&shapes))
        }
        _ => return None,
    })
}

/// The tensor of a file.
fn constant(tensor: &TensorProto) -> Known {
    let shape: Vec<usize> =
        tensor.dims.iter().map(|dim| usize::try_from(*dim).unwrap_or(usize::MAX)).collect();
    let known = Known::of_shape(shape);
    let few = known.size().filter(|size| *size <= MOST_VALUES);
    let values = few.and_then(|size| {
        let raw = &*tensor.raw_data;
        let all: Vec<f64> = match tensor.data_type {
            1 if raw.is_empty() => tensor.float_data.iter().map(|x| f64::from(*x)).collect(),
            1 => raw.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
            6 if raw.is_empty() => tensor.int32_data.iter().map(|x| f64::from(*x)).collect(),
            6 => raw.as_chunks().0.iter().map(|b| f64::from(i32::from_le_bytes(*b))).collect(),
            7 if raw.is_empty() => tensor.int64_data.iter().map(|x| *x as f64).collect(),
            7 => raw.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
            11 if raw.is_empty() => tensor.double_data.clone(),
            11 => raw.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
            _ => return None,
        };
        (all.len() == size).then_some(all)
    });
    Known { values, ..known }
}

/// The value of a Constant, in whichever of its attributes it is.
fn attributes(node: &NodeProto) -> Option<Known> {
    let attribute = node.attribute.first()?;
    if let Some(tensor) = &attribute.t {
        return Some(constant(tensor));
    }
    let list = |values: Vec<f64>| Known { shape: vec![values.len()], values: Some(values) };
    let one = |value: f64| Known { shape: Vec::new(), values: Some(vec![value]) };
    Some(match &*attribute.name {
        "value_ints" => list(attribute.ints.iter().map(|x| *x as f64).collect()),
        "value_floats" => list(attribute.floats.iter().map(|x| f64::from(*x)).collect()),
        "value_int" => one(attribute.i as f64),
        "value_float" => one(attribute.f.into()),
        _ => return None,
    })
}

/// A size; nothing for what is below 0 or no number.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "too large stays too large"
)]
fn whole(value: f64) -> Option<usize> {
    (value >= 0.0).then_some(value as usize)
}

/// A list among an operator's attributes.
fn whole_list(node: &NodeProto, name: &str) -> Option<Vec<usize>> {
    let list = &node.attribute.iter().find(|attribute| attribute.name == name)?.ints;
    list.iter().map(|value| usize::try_from(*value).ok()).collect()
}

/// Dimensions from the last on: the larger of each pair.
fn broadcast(shapes: &[&[usize]]) -> Vec<usize> {
    let rank = shapes.iter().map(|shape| shape.len()).max().unwrap_or(0);
    let dim = |at: usize| {
        let own =
            shapes.iter().filter_map(|shape| shape.get((shape.len() + at).checked_sub(rank)?));
        own.copied().max().unwrap_or(1)
    };
    (0..rank).map(dim).collect()
}

fn range(inputs: &[&Known]) -> Option<Known> {
    let value = |at: usize| inputs.get(at)?.values.as_ref()?.first().copied();
    let count = ((value(1)? - value(0)?) / value(2)?).ceil().max(0.0);
    Some(Known::of_shape(vec![whole(count)?]))
}

fn padded(known: &Known, pads: &Known) -> Option<Known> {
    let pads = pads.values.as_ref()?;
    let rank = known.shape.len();
    let dims = known.shape.iter().enumerate().map(|(at, dim)| {
        let both = pads.get(at)? + pads.get(rank + at)?;
        whole((*dim as f64 + both).max(0.0))
    });
    Some(Known::of_shape(dims.collect::<Option<_>>()?))
}

/// Resized by factors, or to sizes where whole numbers are given that are not below what is there.
fn resized(known: &Known, by: &Known) -> Option<Known> {
    let by = by.values.as_ref()?;
    let dims = known.shape.iter().zip(by).map(|(dim, by)| {
        let factor = whole(*dim as f64 * by);
        let size = whole(*by);
        // Sizes and factors look the same: what may be too large as a size is too large.
        if *by > 1024.0 { size } else { factor }
    });
    Some(Known::of_shape(dims.collect::<Option<_>>()?))
}

fn product(node: &NodeProto, left: &Known, right: &Known) -> Option<Known> {
    let is_turned = |name: &str| {
        node.attribute.iter().any(|attribute| attribute.name == name && attribute.i != 0)
    };
    let sides = |known: &Known, is_turned: bool| {
        let [.., rows, columns] = known.shape[..] else { return None };
        Some(if is_turned { (columns, rows) } else { (rows, columns) })
    };
    let (rows, _) = sides(left, is_turned("transA"))?;
    let (_, columns) = sides(right, is_turned("transB"))?;
    let before = |known: &Known| known.shape[..known.shape.len() - 2].to_vec();
    let mut shape = broadcast(&[&before(left), &before(right)]);
    shape.extend([rows, columns]);
    Some(Known::of_shape(shape))
}

fn transposed(node: &NodeProto, known: &Known) -> Known {
    let turned: Vec<usize> = known.shape.iter().rev().copied().collect();
    let by = whole_list(node, "perm");
    let shape = by.and_then(|by| by.iter().map(|at| known.shape.get(*at).copied()).collect());
    Known::of_shape(shape.unwrap_or(turned))
}

fn joined(node: &NodeProto, inputs: &[&Known]) -> Option<Known> {
    let axis = node.attribute.iter().find(|attribute| attribute.name == "axis")?.i;
    let mut shape = inputs.first()?.shape.clone();
    let axis = match usize::try_from(axis) {
        Ok(axis) => axis,
        Err(_) => shape.len().checked_sub(usize::try_from(axis.unsigned_abs()).ok()?)?,
    };
    let dims = inputs.iter().map(|input| input.shape.get(axis));
    let sum =
        dims.collect::<Option<Vec<_>>>()?.into_iter().fold(0usize, |a, b| a.saturating_add(*b));
    *shape.get_mut(axis)? = sum;
    let all: Option<Vec<&Vec<f64>>> = inputs.iter().map(|input| input.values.as_ref()).collect();
    let values = all.filter(|_| shape.len() == 1 && sum <= MOST_VALUES);
    Some(Known { shape, values: values.map(|all| all.into_iter().flatten().copied().collect()) })
}

fn calculated(kind: &str, left: &Known, right: &Known) -> Known {
    let shape = broadcast(&[&left.shape, &right.shape]);
    let of = |a: f64, b: f64| match kind {
        "Add" => a + b,
        "Sub" => a - b,
        "Mul" => a * b,
        _ => a / b,
    };
    let values = match (&left.values, &right.values) {
        (Some(a), Some(b)) if a.len() == b.len() => {
            Some(a.iter().zip(b).map(|(a, b)| of(*a, *b)).collect())
        }
        (Some(a), Some(b)) if b.len() == 1 => Some(a.iter().map(|a| of(*a, b[0])).collect()),
        (Some(a), Some(b)) if a.len() == 1 => Some(b.iter().map(|b| of(a[0], *b)).collect()),
        _ => None,
    };
    Known { shape, values }
}

/// The shape that is asked for, or all elements in a row where it leaves something open.
fn reshaped(node: &NodeProto, inputs: &[&Known]) -> Option<Vec<usize>> {
    let first = inputs.first()?;
    let asked = inputs.get(1).filter(|_| node.op_type == "Reshape").and_then(|to| to.sizes());
    let size = first.size()?;
    Some(asked.filter(|asked| !asked.contains(&0)).unwrap_or_else(|| vec![size]))
}
