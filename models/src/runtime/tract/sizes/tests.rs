use tract_onnx::pb::AttributeProto;

use super::*;

fn ones(shape: &[usize]) -> Known {
    Known::of_shape(shape.to_vec())
}

fn some(values: &[f64]) -> Known {
    list(values.iter().copied())
}

fn node(kind: &str, inputs: usize, attributes: &[(&str, &[i64])]) -> NodeProto {
    let attribute = |&(name, ints): &(&str, &[i64])| AttributeProto {
        name: name.to_owned(),
        ints: ints.to_vec(),
        i: ints.first().copied().unwrap_or(0),
        ..AttributeProto::default()
    };
    NodeProto {
        op_type: kind.to_owned(),
        input: (0..inputs).map(|at| at.to_string()).collect(),
        attribute: attributes.iter().map(attribute).collect(),
        ..NodeProto::default()
    }
}

/// What ONNX says of these operators: a shape, and the elements of a list.
#[test]
fn shapes_follow_the_operators() {
    type Case<'a> = (&'a str, Vec<Known>, &'a [(&'a str, &'a [i64])], &'a [usize], &'a [f64]);
    let tall = || ones(&[2, 3, 4]);
    let sizes = || some(&[5.0, 6.0, 7.0, 8.0]);
    let cases: &[Case<'_>] = &[
        ("Reshape", vec![tall(), some(&[0.0, -1.0])], &[], &[2, 12], &[]),
        ("Reshape", vec![tall(), some(&[-1.0, 1.0, 6.0])], &[], &[4, 1, 6], &[]),
        ("Reshape", vec![ones(&[0, 3]), some(&[3.0, 0.0])], &[("allowzero", &[1])], &[3, 0], &[]),
        ("Reshape", vec![sizes(), some(&[2.0, 2.0])], &[], &[2, 2], &[5.0, 6.0, 7.0, 8.0]),
        ("Reshape", vec![tall()], &[("shape", &[24])], &[24], &[]),
        ("Flatten", vec![tall()], &[], &[2, 12], &[]),
        ("Flatten", vec![tall()], &[("axis", &[-1])], &[6, 4], &[]),
        ("Flatten", vec![tall()], &[("axis", &[3])], &[24, 1], &[]),
        ("Squeeze", vec![ones(&[1, 3, 1])], &[], &[3], &[]),
        ("Squeeze", vec![ones(&[1, 3, 1]), some(&[-1.0])], &[], &[1, 3], &[]),
        ("Squeeze", vec![ones(&[1, 3, 1])], &[("axes", &[0])], &[3, 1], &[]),
        ("Unsqueeze", vec![tall(), some(&[0.0, -1.0])], &[], &[1, 2, 3, 4, 1], &[]),
        ("Unsqueeze", vec![tall()], &[("axes", &[1])], &[2, 1, 3, 4], &[]),
        ("Gather", vec![tall(), ones(&[5, 6])], &[("axis", &[1])], &[2, 5, 6, 4], &[]),
        ("Gather", vec![sizes(), some(&[-1.0, 0.0])], &[], &[2], &[8.0, 5.0]),
        ("Gather", vec![sizes(), Known::one(2.0)], &[], &[], &[7.0]),
        ("Slice", vec![sizes(), some(&[1.0]), some(&[-1.0])], &[], &[2], &[6.0, 7.0]),
        (
            "Slice",
            vec![sizes(), some(&[-1.0]), some(&[-9.0]), some(&[0.0]), some(&[-2.0])],
            &[],
            &[2],
            &[8.0, 6.0],
        ),
        (
            "Slice",
            vec![tall(), some(&[1.0, 0.0]), some(&[9e18, 2.0]), some(&[-1.0, 0.0])],
            &[],
            &[2, 3, 3],
            &[],
        ),
        ("Slice", vec![tall()], &[("starts", &[1]), ("ends", &[2])], &[1, 3, 4], &[]),
        ("ReduceMax", vec![tall()], &[("axes", &[1])], &[2, 1, 4], &[]),
        ("ReduceSum", vec![tall(), some(&[-1.0])], &[("keepdims", &[0])], &[2, 3], &[]),
        ("ReduceProd", vec![sizes()], &[], &[1], &[1680.0]),
        ("ReduceMin", vec![sizes()], &[("keepdims", &[0])], &[], &[5.0]),
        ("ReduceSum", vec![tall()], &[("noop_with_empty_axes", &[1])], &[2, 3, 4], &[]),
        ("Shape", vec![tall()], &[("start", &[-2])], &[2], &[3.0, 4.0]),
        ("Size", vec![tall()], &[], &[], &[24.0]),
        ("Mul", vec![some(&[2.0, 3.0]), Known::one(2.0)], &[], &[2], &[4.0, 6.0]),
        (
            "Where",
            vec![some(&[1.0, 0.0]), some(&[2.0, 3.0]), some(&[4.0, 5.0])],
            &[],
            &[2],
            &[2.0, 5.0],
        ),
        ("Equal", vec![some(&[-1.0, 3.0]), some(&[-1.0])], &[], &[2], &[1.0, 0.0]),
        ("Range", vec![Known::one(1.0), Known::one(7.0), Known::one(3.0)], &[], &[2], &[1.0, 4.0]),
    ];
    for (at, (kind, inputs, attributes, shape, values)) in cases.iter().enumerate() {
        let node = node(kind, inputs.len(), attributes);
        let names: Vec<String> = (0..inputs.len()).map(|at| at.to_string()).collect();
        let known = names.iter().map(String::as_str).zip(inputs.iter().cloned()).collect();
        let made = made_by(&node, &known).unwrap_or_else(|| panic!("{kind}, {at}"));
        assert_eq!(made.shape, *shape, "{kind}, {at}");
        let want = (!values.is_empty()).then(|| values.to_vec());
        assert_eq!(made.values, want, "{kind}, {at}");
    }
}

/// Nothing is said of what makes no sense, and nothing overflows.
#[test]
fn what_makes_no_sense_is_not_followed() {
    let cases = [
        ("Reshape", vec![ones(&[4]), some(&[-2.0])]),
        ("Squeeze", vec![ones(&[4]), some(&[1.0])]),
        ("Unsqueeze", vec![ones(&[4]), some(&[2.0])]),
        ("Gather", vec![Known::one(1.0), Known::one(0.0)]),
        ("Slice", vec![ones(&[4]), some(&[0.0]), some(&[4.0]), some(&[0.0]), some(&[0.0])]),
        ("Reshape", vec![ones(&[usize::MAX, 2]), some(&[-1.0])]),
        ("Flatten", vec![ones(&[2, usize::MAX, 2])]),
        ("Gather", vec![ones(&[1; 40]), ones(&[1; 40])]),
    ];
    for (kind, inputs) in cases {
        let names: Vec<String> = (0..inputs.len()).map(|at| at.to_string()).collect();
        let known = names.iter().map(String::as_str).zip(inputs).collect();
        assert!(made_by(&node(kind, names.len(), &[]), &known).is_none(), "{kind}");
    }
}
