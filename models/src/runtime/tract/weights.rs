//! Restores weights that are kept as integers, once, when a graph is loaded.
//!
//! tract folds what follows from constants, but not into a tensor of more than 4 MiB (0.23.9): the large
//! layers of a quantised graph would be restored, and laid out for its kernels, at each run.
//!
//! **Invariant:** the values are those of the ONNX operator DequantizeLinear, `(x - zero) * scale`, for the
//! whole tensor or along one axis; what is in another form stays as it is.

use std::collections::HashSet;

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};

use super::dequantise::{constants, kind};

/// The axis of scales that are several, where the operator does not say.
const USUAL_AXIS: i64 = 1;

/// Makes a constant of every DequantizeLinear whose inputs are constants, in the outermost graph.
pub(super) fn restore(graph: &mut GraphProto) {
    let given: HashSet<&str> = graph.output.iter().map(|output| &*output.name).collect();
    let known = constants(graph);
    let restored = |node: &NodeProto| {
        let is_inner = node.output.first().is_some_and(|name| !given.contains(&**name));
        let is_meant = is_inner && kind(node) == "DequantizeLinear";
        is_meant.then(|| restored(node, |name| known.get(name).copied()))?
    };
    let made: Vec<Option<TensorProto>> = graph.node.iter().map(restored).collect();
    let nodes = std::mem::take(&mut graph.node).into_iter().zip(made);
    let (left, gone): (Vec<_>, Vec<_>) = nodes.partition(|(_, made)| made.is_none());
    graph.node = left.into_iter().map(|(node, _)| node).collect();
    let (gone, made): (Vec<_>, Vec<_>) = gone.into_iter().unzip();
    graph.initializer.extend(made.into_iter().flatten());
    let mut attributes = graph.node.iter().flat_map(|node| &node.attribute);
    if attributes.any(|a| a.g.is_some() || !a.graphs.is_empty()) {
        // What is small stays; whether graphs inside read it is not looked at.
        return;
    }
    // The integers are not held beside what was made of them.
    let mut spent: HashSet<&str> =
        gone.iter().flat_map(|node| &node.input).map(String::as_str).collect();
    let read = graph.node.iter().flat_map(|node| &node.input).map(String::as_str);
    let named = graph.input.iter().chain(&graph.output).map(|port| &*port.name);
    for name in read.chain(named) {
        spent.remove(name);
    }
    graph.initializer.retain(|tensor| !spent.contains(&*tensor.name));
}

/// What a DequantizeLinear gives; nothing where not all of it is constant, or its form is another one.
fn restored<'a>(
    node: &NodeProto,
    constant: impl Fn(&str) -> Option<&'a TensorProto>,
) -> Option<TensorProto> {
    let attribute = |name: &str| node.attribute.iter().find(|a| a.name == name).map(|a| a.i);
    if attribute("block_size").is_some_and(|size| size != 0) || attribute("output_dtype").is_some()
    {
        return None;
    }
    let integers = constant(node.input.first()?)?;
    let scales = floats(constant(node.input.get(1)?)?)?;
    let zeros = match node.input.get(2).filter(|name| !name.is_empty()) {
        Some(name) => self::integers(constant(name)?)?,
        None => vec![0; scales.len()],
    };
    let values = self::integers(integers)?;
    let inner = match scales.len() {
        1 => values.len().max(1),
        _ => inner(&integers.dims, attribute("axis").unwrap_or(USUAL_AXIS), scales.len())?,
    };
    if scales.is_empty() || zeros.len() != scales.len() {
        return None;
    }
    let steps = scales.iter().zip(&zeros).cycle();
    let rows = values.chunks(inner).zip(steps);
    #[allow(clippy::cast_precision_loss, reason = "differences of bytes are exact, as ONNX has it")]
    let restored = rows.flat_map(|(row, (scale, zero))| {
        row.iter().map(move |value| value.wrapping_sub(*zero) as f32 * scale)
    });
    Some(TensorProto {
        name: node.output.first()?.clone(),
        dims: integers.dims.clone(),
        data_type: DataType::Float as i32,
        float_data: restored.collect(),
        ..TensorProto::default()
    })
}

/// How many elements in a row have one of the `scales` that stand along an axis.
fn inner(dims: &[i64], axis: i64, scales: usize) -> Option<usize> {
    let rank = i64::try_from(dims.len()).ok()?;
    let axis = usize::try_from(if axis < 0 { axis + rank } else { axis }).ok()?;
    let along = usize::try_from(*dims.get(axis)?).ok()?;
    let mut behind = dims.get(axis + 1..)?.iter().map(|dim| usize::try_from(*dim).ok());
    let inner = behind.try_fold(1usize, |size, dim| size.checked_mul(dim?))?;
    (along == scales && inner > 0).then_some(inner)
}

/// The elements of an f32 tensor.
fn floats(tensor: &TensorProto) -> Option<Vec<f32>> {
    if tensor.data_type != DataType::Float as i32 {
        return None;
    }
    match &*tensor.raw_data {
        [] => Some(tensor.float_data.clone()),
        raw => Some(raw.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()),
    }
}

/// The elements of a tensor of i8, u8 or i32.
fn integers(tensor: &TensorProto) -> Option<Vec<i32>> {
    let raw = &*tensor.raw_data;
    let is = |kind: DataType| tensor.data_type == kind as i32;
    if !is(DataType::Int8) && !is(DataType::Uint8) && !is(DataType::Int32) {
        return None;
    }
    Some(match raw {
        [] => tensor.int32_data.clone(),
        raw if is(DataType::Int8) => raw.iter().map(|b| i32::from(b.cast_signed())).collect(),
        raw if is(DataType::Uint8) => raw.iter().map(|byte| i32::from(*byte)).collect(),
        raw => raw.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::AttributeProto;

    use super::*;

    fn tensor(name: &str, kind: DataType, dims: &[i64], values: &[i32]) -> TensorProto {
        TensorProto {
            name: name.to_owned(),
            dims: dims.to_vec(),
            data_type: kind as i32,
            int32_data: values.to_vec(),
            ..TensorProto::default()
        }
    }

    fn scale(values: &[f32]) -> TensorProto {
        let raw_data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        TensorProto { raw_data, ..tensor("scale", DataType::Float, &[2], &[]) }
    }

    fn node(axis: Option<i64>, inputs: &[&str]) -> NodeProto {
        let attribute = axis.map(|axis| AttributeProto {
            name: "axis".to_owned(),
            i: axis,
            ..AttributeProto::default()
        });
        NodeProto {
            op_type: "DequantizeLinear".to_owned(),
            input: inputs.iter().map(|&name| name.to_owned()).collect(),
            output: vec!["w".to_owned()],
            attribute: attribute.into_iter().collect(),
            ..NodeProto::default()
        }
    }

    #[test]
    fn weights_have_the_values_of_the_operator() {
        let raw = TensorProto {
            raw_data: vec![0xff, 2, 3, 4, 5, 6],
            ..tensor("x", DataType::Int8, &[2, 3], &[])
        };
        let bytes = tensor("x", DataType::Uint8, &[2, 3], &[1, 2, 3, 4, 5, 6]);
        let sums = tensor("x", DataType::Int32, &[6], &[1, 2, 3, 4, 5, 6]);
        let zeros = |values: &[i32]| tensor("zero", DataType::Int8, &[2], values);
        let one = |x: &TensorProto, axis, scales: &[f32], zero: Option<TensorProto>| {
            let names: &[&str] =
                if zero.is_some() { &["x", "scale", "zero"] } else { &["x", "scale"] };
            let (scale, zero) = (scale(scales), zero.unwrap_or_default());
            let made = restored(&node(axis, names), |name| match name {
                "x" => Some(x),
                "scale" => Some(&scale),
                _ => Some(&zero),
            });
            made.map(|made| (made.dims, made.float_data))
        };
        let cases: [(&str, _, Option<&[f32]>); 7] = [
            ("rows", one(&raw, Some(0), &[1.0, 0.5], None), Some(&[-1., 2., 3., 2., 2.5, 3.])),
            (
                "columns",
                one(&raw, Some(-1), &[1., 2., 3.], None),
                Some(&[-1., 4., 9., 4., 10., 18.]),
            ),
            (
                "zeros",
                one(&raw, Some(0), &[1., 2.], Some(zeros(&[1, 4]))),
                Some(&[-2., 1., 2., 0., 2., 4.]),
            ),
            ("all alike", one(&bytes, None, &[2.0], None), Some(&[2., 4., 6., 8., 10., 12.])),
            ("a bias", one(&sums, None, &[0.5], None), Some(&[0.5, 1., 1.5, 2., 2.5, 3.])),
            ("as many scales as no axis has", one(&raw, Some(0), &[1., 2., 3.], None), None),
            ("zeros of another number", one(&raw, Some(0), &[1., 2.], Some(zeros(&[1]))), None),
        ];
        for (case, got, want) in cases {
            let want = want
                .map(|want| (if case == "a bias" { vec![6] } else { vec![2, 3] }, want.to_vec()));
            assert_eq!(got, want, "{case}");
        }
    }

    #[test]
    fn integers_do_not_stay_beside_what_was_made_of_them() {
        let reader = NodeProto {
            op_type: "Mul".to_owned(),
            input: vec!["in".to_owned(), "w".to_owned()],
            output: vec!["out".to_owned()],
            ..NodeProto::default()
        };
        let mut graph = GraphProto {
            node: vec![node(None, &["x", "scale"]), reader],
            initializer: vec![tensor("x", DataType::Int8, &[2], &[3, 4]), scale(&[2.0])],
            ..GraphProto::default()
        };
        restore(&mut graph);
        assert_eq!(graph.node.len(), 1);
        let left: Vec<_> = graph.initializer.iter().map(|t| (&*t.name, &*t.float_data)).collect();
        assert_eq!(left, [("w", &[6.0, 8.0][..])]);
    }
}
