//! Operators that put elements into another shape, or take some of them.
//!
//! **Invariant:** pure; where an operand is not known, or makes no sense, nothing is said.

use tract_onnx::pb::NodeProto;

use super::{Inputs, Known, MOST_VALUES, list, number};

/// Where an axis stands, which may be counted from the end.
pub(super) fn place(axis: i64, rank: usize) -> Option<usize> {
    let from_end = || rank.checked_sub(usize::try_from(axis.unsigned_abs()).ok()?);
    let place = usize::try_from(axis).ok().or_else(from_end)?;
    (place < rank).then_some(place)
}

/// The axes of an operator: an attribute before opset 13 or 18, an input since. Empty: it names none.
fn axes(node: &NodeProto, input: Option<&Known>, rank: usize) -> Option<Vec<usize>> {
    let named = match (node.attribute.iter().find(|own| own.name == "axes"), input) {
        (Some(attribute), _) => attribute.ints.clone(),
        (None, Some(input)) => wholes(input)?,
        (None, None) => Vec::new(),
    };
    named.into_iter().map(|axis| place(axis, rank)).collect()
}

/// The elements as whole numbers.
fn wholes(known: &Known) -> Option<Vec<i64>> {
    #[allow(clippy::cast_possible_truncation, reason = "too large stays too large")]
    known.values.as_ref().map(|values| values.iter().map(|value| *value as i64).collect())
}

fn moved(known: &Known, shape: Vec<usize>) -> Known {
    let is_whole = Known::of_shape(shape.clone()).size() == known.size();
    Known { shape, values: known.values.clone().filter(|_| is_whole) }
}

/// The dimensions, or some of them.
pub(super) fn shape_of(node: &NodeProto, known: &Known) -> Known {
    let rank = known.shape.len();
    let bound = |name: &str, otherwise: usize| match number(node, name) {
        None => otherwise,
        Some(at) => usize::try_from(at).unwrap_or_else(|_| {
            rank.saturating_sub(usize::try_from(at.unsigned_abs()).unwrap_or(usize::MAX))
        }),
    };
    let (from, to) = (bound("start", 0), bound("end", rank).min(rank));
    list(known.shape.get(from..to).unwrap_or_default().iter().map(|dim| *dim as f64))
}

/// 0 keeps a dimension, -1 is what is left; before opset 5 the shape is an attribute.
pub(super) fn reshaped(node: &NodeProto, known: &Known, to: Option<&Known>) -> Option<Known> {
    let asked = match to {
        Some(to) => wholes(to)?,
        None => node.attribute.iter().find(|own| own.name == "shape")?.ints.clone(),
    };
    let keeps = number(node, "allowzero").unwrap_or(0) == 0;
    let dims = asked.iter().enumerate().map(|(at, dim)| match dim {
        0 if keeps => known.shape.get(at).copied(),
        -1 => Some(1),
        dim => usize::try_from(*dim).ok(),
    });
    let mut shape = dims.collect::<Option<Vec<usize>>>()?;
    if let Some(open) = asked.iter().position(|dim| *dim == -1) {
        let others = Known::of_shape(shape.clone()).size()?;
        *shape.get_mut(open)? = known.size()?.checked_div(others).unwrap_or(0);
    }
    Some(moved(known, shape))
}

/// Two dimensions: those before an axis, and those from it on.
pub(super) fn flattened(node: &NodeProto, known: &Known) -> Option<Known> {
    let rank = known.shape.len();
    let axis = match number(node, "axis").unwrap_or(1) {
        axis if usize::try_from(axis) == Ok(rank) => rank,
        axis => place(axis, rank)?,
    };
    let (before, behind) = known.shape.split_at_checked(axis)?;
    let size = |dims: &[usize]| Known::of_shape(dims.to_vec()).size();
    Some(moved(known, vec![size(before)?, size(behind)?]))
}

/// Without the dimensions of 1 that are named, or without all of them.
pub(super) fn squeezed(node: &NodeProto, known: &Known, by: Option<&Known>) -> Option<Known> {
    let axes = axes(node, by, known.shape.len())?;
    let is_kept = |at: usize, dim: usize| match axes.is_empty() {
        true => dim != 1,
        false => !axes.contains(&at),
    };
    let dims = known.shape.iter().enumerate().filter(|(at, dim)| is_kept(*at, **dim));
    Some(moved(known, dims.map(|(_, dim)| *dim).collect()))
}

/// With further dimensions of 1, where they stand in the end.
pub(super) fn unsqueezed(node: &NodeProto, known: &Known, by: Option<&Known>) -> Option<Known> {
    let added = match (node.attribute.iter().find(|own| own.name == "axes"), by) {
        (Some(attribute), _) => attribute.ints.len(),
        (None, by) => by?.size()?,
    };
    let rank = known.shape.len().checked_add(added)?;
    let axes = axes(node, by, rank)?;
    let mut left = known.shape.iter();
    let dims = (0..rank).map(|at| match axes.contains(&at) {
        true => Some(1),
        false => left.next().copied(),
    });
    Some(moved(known, dims.collect::<Option<_>>()?))
}

/// The shape of the places instead of one dimension.
pub(super) fn gathered(node: &NodeProto, known: &Known, places: &Known) -> Option<Known> {
    let axis = place(number(node, "axis").unwrap_or(0), known.shape.len())?;
    let (before, behind) = (known.shape.get(..axis)?, known.shape.get(axis + 1..)?);
    let shape = [before, &places.shape, behind].concat();
    let values = known.values.as_ref().filter(|_| known.shape.len() == 1);
    let values = values.and_then(|values| {
        let at = |at: i64| values.get(place(at, values.len())?).copied();
        wholes(places)?.into_iter().map(at).collect()
    });
    Some(Known { shape, values })
}

/// A part of some dimensions; before opset 10 the bounds are attributes.
pub(super) fn sliced(node: &NodeProto, inputs: &Inputs<'_>) -> Option<Known> {
    let known = inputs.at(0)?;
    let listed = |at: usize, name: &str| match inputs.at(at) {
        Some(input) => Some(wholes(input)),
        None => {
            node.attribute.iter().find(|own| own.name == name).map(|own| Some(own.ints.clone()))
        }
    };
    let (starts, ends) = (listed(1, "starts")??, listed(2, "ends")??);
    let axes = match listed(3, "axes") {
        Some(axes) => axes?,
        None => (0..).take(starts.len()).collect(),
    };
    let steps = listed(4, "steps").unwrap_or_else(|| Some(vec![1; starts.len()]))?;
    let mut shape = known.shape.clone();
    let mut values = known.values.clone().filter(|_| shape.len() == 1);
    for (((start, end), axis), step) in starts.iter().zip(&ends).zip(&axes).zip(&steps) {
        let dim = shape.get_mut(place(*axis, known.shape.len())?)?;
        let taken = part(*dim, *start, *end, *step)?;
        *dim = taken.count;
        values = values.and_then(|values| taken.of(&values));
    }
    Some(Known { shape, values })
}

/// Every so manieth of some elements.
struct Part {
    first: i64,
    step: i64,
    count: usize,
}

impl Part {
    fn of(&self, values: &[f64]) -> Option<Vec<f64>> {
        let mut at = self.first;
        let mut taken = Vec::new();
        for _ in 0..self.count.min(MOST_VALUES) {
            taken.push(*values.get(usize::try_from(at).ok()?)?);
            at = at.checked_add(self.step)?;
        }
        Some(taken)
    }
}

/// Bounds may be counted from the end, and lie outside.
fn part(dim: usize, start: i64, end: i64, step: i64) -> Option<Part> {
    let size = i64::try_from(dim).ok()?;
    let from_end = |at: i64| if at < 0 { at.saturating_add(size) } else { at };
    let (first, last) = match step {
        0 => return None,
        step if step > 0 => (from_end(start).clamp(0, size), from_end(end).clamp(0, size)),
        _ => (from_end(start).clamp(-1, size - 1), from_end(end).clamp(-1, size - 1)),
    };
    let length = if step > 0 { last - first } else { first - last };
    let step_size = i64::try_from(step.unsigned_abs()).unwrap_or(i64::MAX);
    // Rounded up, of what is no less than 0.
    let count = length.max(0) / step_size + i64::from(length.max(0) % step_size > 0);
    Some(Part { first, step, count: usize::try_from(count).ok()? })
}

/// Without some dimensions, or all of them, or with 1 in their place.
pub(super) fn reduced(node: &NodeProto, known: &Known, by: Option<&Known>) -> Option<Known> {
    let axes = axes(node, by, known.shape.len())?;
    if axes.is_empty() && number(node, "noop_with_empty_axes").unwrap_or(0) != 0 {
        return Some(known.clone());
    }
    let keeps = number(node, "keepdims").unwrap_or(1) != 0;
    let is_reduced = |at: usize| axes.is_empty() || axes.contains(&at);
    let dims = known.shape.iter().enumerate();
    let dims = dims.filter_map(|(at, dim)| match is_reduced(at) {
        true => keeps.then_some(1),
        false => Some(*dim),
    });
    let shape = dims.collect();
    let values = known.values.as_ref().filter(|_| (0..known.shape.len()).all(is_reduced));
    let value = values.and_then(|values| {
        let values = values.iter().copied();
        match &*node.op_type {
            "ReduceProd" => Some(values.product()),
            "ReduceSum" => Some(values.sum()),
            "ReduceMax" => values.reduce(f64::max),
            "ReduceMin" => values.reduce(f64::min),
            _ => None,
        }
    });
    Some(Known { shape, values: value.map(|value| vec![value]) })
}
