//! How large the tensors are that follow from a graph's constants alone, found out before tract makes
//! them.
//!
//! tract calculates what follows from constants while it loads a graph: a few bytes that ask for a
//! billion zeros would end a small board there. What follows from the inputs too is calculated when the
//! graph runs, and its sizes are looked at in between.
//!
//! **Invariant:** pure; only shapes and short lists of numbers are calculated, whatever they ask for.

mod shapes;

use std::collections::HashMap;

use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};

use super::MAX_ELEMENTS;

/// Numbers of a list that is followed: shapes, repetitions, limits.
const MOST_VALUES: usize = 64;
/// Dimensions of a tensor that is followed.
const MOST_DIMENSIONS: usize = 64;
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

    /// A scalar.
    fn one(value: f64) -> Self {
        Self { shape: Vec::new(), values: Some(vec![value]) }
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

/// The inputs of an operator, each in its place; `None` is one that is left out.
struct Inputs<'a>(Vec<Option<&'a Known>>);

impl<'a> Inputs<'a> {
    /// Nothing where one of them does not follow from constants.
    fn of(node: &NodeProto, known: &'a HashMap<&str, Known>) -> Option<Self> {
        let input = |name: &String| match name.as_str() {
            "" => Some(None),
            name => known.get(name).map(Some),
        };
        node.input.iter().map(input).collect::<Option<_>>().map(Self)
    }

    fn at(&self, place: usize) -> Option<&'a Known> {
        *self.0.get(place)?
    }

    fn all(&self) -> impl Iterator<Item = &'a Known> + '_ {
        self.0.iter().flatten().copied()
    }
}

/// What an operator makes of constants; nothing where one of them is none, or it is not followed.
fn made_by(node: &NodeProto, known: &HashMap<&str, Known>) -> Option<Known> {
    let inputs = Inputs::of(node, known)?;
    let first = || inputs.at(0);
    let made = match &*node.op_type {
        "Constant" => attributes(node)?,
        "ConstantOfShape" => filled(node, first()?.sizes()?),
        "Shape" => shapes::shape_of(node, first()?),
        "Size" => Known::one(first()?.size()? as f64),
        "Expand" => Known::of_shape(broadcast(&[&first()?.shape, &inputs.at(1)?.sizes()?])),
        "Tile" => {
            let times = inputs.at(1)?.sizes()?;
            let dims = first()?.shape.iter().zip(times);
            Known::of_shape(dims.map(|(dim, times)| dim.saturating_mul(times)).collect())
        }
        "Range" => range(&inputs)?,
        "OneHot" => {
            let mut shape = first()?.shape.clone();
            shape.extend(inputs.at(1)?.sizes()?.first());
            Known::of_shape(shape)
        }
        "Pad" => padded(first()?, inputs.at(1)?)?,
        "Resize" | "Upsample" => resized(first()?, inputs.all().skip(1).last()?)?,
        "MatMul" | "Gemm" => product(node, first()?, inputs.at(1)?)?,
        "Transpose" => transposed(node, first()?),
        "HannWindow" | "HammingWindow" | "BlackmanWindow" => Known::of_shape(first()?.sizes()?),
        "Concat" => joined(node, &inputs)?,
        "Add" | "Sub" | "Mul" | "Div" | "Max" | "Min" | "Equal" if inputs.0.len() == 2 => {
            calculated(&node.op_type, first()?, inputs.at(1)?)
        }
        "Where" => chosen(first()?, inputs.at(1)?, inputs.at(2)?),
        "Cast" | "Identity" | "Neg" | "Abs" | "Floor" | "Ceil" | "Relu" | "Sqrt" | "Exp"
        | "Not" | "Reciprocal" => {
            let is_same = matches!(&*node.op_type, "Cast" | "Identity");
            Known {
                shape: first()?.shape.clone(),
                values: first()?.values.clone().filter(|_| is_same),
            }
        }
        "Reshape" => shapes::reshaped(node, first()?, inputs.at(1))?,
        "Flatten" => shapes::flattened(node, first()?)?,
        "Squeeze" => shapes::squeezed(node, first()?, inputs.at(1))?,
        "Unsqueeze" => shapes::unsqueezed(node, first()?, inputs.at(1))?,
        "Gather" => shapes::gathered(node, first()?, inputs.at(1)?)?,
        "Slice" => shapes::sliced(node, &inputs)?,
        kind if kind.starts_with("Reduce") => shapes::reduced(node, first()?, inputs.at(1))?,
        "Pow" | "Max" | "Min" | "And" | "Or" | "Xor" | "Less" | "Greater" | "Sum" => {
            let shapes: Vec<&[usize]> = inputs.all().map(|input| &*input.shape).collect();
            Known::of_shape(broadcast(&shapes))
        }
        _ => return None,
    };
    // Operators could double the dimensions of each other's tensors.
    (made.shape.len() <= MOST_DIMENSIONS).then_some(made)
}

/// All elements alike.
fn filled(node: &NodeProto, shape: Vec<usize>) -> Known {
    let value = node.attribute.first().and_then(|attribute| attribute.t.as_ref());
    let value = match value.map(constant) {
        None => Some(0.0),
        Some(value) => value.values.and_then(|values| values.first().copied()),
    };
    let known = Known::of_shape(shape);
    let few = known.size().filter(|size| *size <= MOST_VALUES);
    Known { values: few.and_then(|size| Some(vec![value?; size])), ..known }
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
    Some(match &*attribute.name {
        "value_ints" => list(attribute.ints.iter().map(|x| *x as f64)),
        "value_floats" => list(attribute.floats.iter().map(|x| f64::from(*x))),
        "value_int" => Known::one(attribute.i as f64),
        "value_float" => Known::one(attribute.f.into()),
        _ => return None,
    })
}

/// A list, with its elements where they are few.
fn list(values: impl ExactSizeIterator<Item = f64>) -> Known {
    let count = values.len();
    Known { shape: vec![count], values: (count <= MOST_VALUES).then(|| values.collect()) }
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

/// A whole number among an operator's attributes.
fn number(node: &NodeProto, name: &str) -> Option<i64> {
    node.attribute.iter().find(|attribute| attribute.name == name).map(|attribute| attribute.i)
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

fn range(inputs: &Inputs<'_>) -> Option<Known> {
    let value = |at: usize| inputs.at(at)?.values.as_ref()?.first().copied();
    let (from, step) = (value(0)?, value(2)?);
    let count = whole(((value(1)? - from) / step).ceil().max(0.0))?;
    let values = (0..count).map(|at| from + step * at as f64);
    let values = (count <= MOST_VALUES).then(|| values.collect());
    Some(Known { shape: vec![count], values })
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

fn joined(node: &NodeProto, inputs: &Inputs<'_>) -> Option<Known> {
    let axis = number(node, "axis")?;
    let mut shape = inputs.at(0)?.shape.clone();
    let axis = shapes::place(axis, shape.len())?;
    let dims = inputs.all().map(|input| input.shape.get(axis));
    let sum =
        dims.collect::<Option<Vec<_>>>()?.into_iter().fold(0usize, |a, b| a.saturating_add(*b));
    *shape.get_mut(axis)? = sum;
    let all: Option<Vec<&Vec<f64>>> = inputs.all().map(|input| input.values.as_ref()).collect();
    let values = all.filter(|_| shape.len() == 1 && sum <= MOST_VALUES);
    Some(Known { shape, values: values.map(|all| all.into_iter().flatten().copied().collect()) })
}

fn calculated(kind: &str, left: &Known, right: &Known) -> Known {
    let of = |a: f64, b: f64| match kind {
        "Add" => a + b,
        "Sub" => a - b,
        "Mul" => a * b,
        "Max" => a.max(b),
        "Min" => a.min(b),
        "Equal" => f64::from(u8::from(a.total_cmp(&b).is_eq())),
        _ => a / b,
    };
    let known = Known::of_shape(broadcast(&[&left.shape, &right.shape]));
    let values = known.size().and_then(|size| {
        let (left, right) = (spread(left, size)?, spread(right, size)?);
        Some(left.zip(right).map(|(a, b)| of(a, b)).collect())
    });
    Known { values, ..known }
}

fn chosen(by: &Known, left: &Known, right: &Known) -> Known {
    let known = Known::of_shape(broadcast(&[&by.shape, &left.shape, &right.shape]));
    let values = known.size().and_then(|size| {
        let both = spread(left, size)?.zip(spread(right, size)?);
        let chosen = spread(by, size)?.zip(both);
        Some(chosen.map(|(by, (left, right))| if by == 0.0 { right } else { left }).collect())
    });
    Known { values, ..known }
}

/// The elements, or the only one so many times; nothing where they go together in another way.
fn spread(known: &Known, size: usize) -> Option<impl Iterator<Item = f64> + '_> {
    let values = known.values.as_ref()?;
    let fits = values.len() == size || values.len() == 1 && size <= MOST_VALUES;
    fits.then(|| values.iter().cycle().take(size).copied())
}

#[cfg(test)]
mod tests;
