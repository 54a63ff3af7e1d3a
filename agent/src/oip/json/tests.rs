use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::oip::binary::tests::any_elements;
use crate::request::Priority;

fn read(body: &[u8], json_length: Option<usize>) -> Result<Infer, Refusal> {
    parse(body, json_length, &mut |_| Ok(()))
}

fn tensor(elements: &Elements) -> Tensor {
    Tensor::new(vec![elements.len()], elements.clone()).unwrap()
}

/// A request as a client writes it, by the writer of answers.
fn written(tensors: &[(String, Tensor, bool)]) -> (Vec<u8>, Option<usize>) {
    let outputs: Vec<_> = tensors.iter().map(|(n, t, b)| (n.as_str(), t, *b)).collect();
    let Written { body, json_length } = write(("m", "1", "7"), &outputs).unwrap();
    let json = String::from_utf8(body[..json_length.unwrap_or(body.len())].to_vec()).unwrap();
    let json = json.replacen("\"outputs\"", "\"inputs\"", 1);
    let tail = &body[json_length.unwrap_or(body.len())..];
    let length = json_length.map(|_| json.len());
    ([json.as_bytes(), tail].concat(), length)
}

fn tensors() -> impl Strategy<Value = Vec<(String, Tensor, bool)>> {
    let one = ("[a-z\"é]{1,5}", any_elements(), any::<bool>());
    let one = one.prop_map(|(name, elements, binary)| (name, tensor(&elements), binary));
    prop::collection::vec(one, 0..4)
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(tensors in tensors()) {
        let (body, length) = written(&tensors);
        let infer = read(&body, length).unwrap();
        let want: Vec<_> = tensors.into_iter().map(|(name, tensor, _)| (name, tensor)).collect();
        prop_assert_eq!(infer.inputs, want);
        prop_assert_eq!(infer.id, "7");
    }

    #[test]
    fn a_body_that_is_cut_or_lies_about_its_length_is_refused(
        tensors in tensors(), cut in any::<prop::sample::Index>(), lie in any::<usize>(),
    ) {
        let (body, length) = written(&tensors);
        let at = cut.index(body.len());
        let json = length.filter(|length| *length <= at);
        prop_assert!(read(&body[..at], json).is_err(), "cut at {}", at);
        if Some(lie % (body.len() * 2)) != length && length.is_some() {
            prop_assert!(read(&body, Some(lie % (body.len() * 2))).is_err());
        }
        prop_assert!(read(&body, Some(usize::MAX)).is_err());
    }

    #[test]
    fn a_body_with_other_bytes_never_panics(
        tensors in tensors(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..9),
    ) {
        let (mut body, length) = written(&tensors);
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        drop(read(&body, length));
        drop(read(&body, None));
    }

    #[test]
    fn random_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..200), length in 0usize..300) {
        drop(read(&body, Some(length)));
        drop(read(&body, None));
    }

    #[test]
    fn keys_in_any_order_make_the_same_request(order in Just(["name", "datatype", "shape", "data"]).prop_shuffle()) {
        let values = [json!("x"), json!("INT16"), json!([2, 1]), json!([[5], [-6]])];
        let keys = ["name", "datatype", "shape", "data"];
        let pairs: Vec<_> = order.iter().map(|key| {
            let at = keys.iter().position(|own| own == key).unwrap();
            format!("\"{key}\": {}", values[at])
        }).collect();
        let text = format!("{{\"inputs\": [{{{}}}]}}", pairs.join(", "));
        let want = Tensor::new(vec![2, 1], Elements::I16(vec![5, -6])).unwrap();
        prop_assert_eq!(read(text.as_bytes(), None).unwrap().inputs, vec![("x".to_owned(), want)]);
    }
}

fn of_input(input: &Value) -> Result<Infer, String> {
    parse_value(&json!({ "inputs": [input] }))
}

fn parse_value(value: &Value) -> Result<Infer, String> {
    read(value.to_string().as_bytes(), None).map_err(|refusal| refusal.message)
}

#[test]
fn what_is_wrong_with_an_input_is_told_by_its_name() {
    for (input, want) in [
        (json!({"name": "x", "shape": [1], "data": [1]}), "input \"x\": datatype is missing"),
        (json!({"name": "x", "datatype": "FP32", "data": [1]}), "input \"x\": shape is missing"),
        (json!({"name": "x", "datatype": "FP32", "shape": [1]}), "input \"x\": has no data"),
        (json!({"datatype": "FP32", "shape": [1], "data": [1]}), "input 0 (counted from 0) has no"),
        (
            json!({"name": "x", "datatype": "FLOAT", "shape": [1], "data": [1]}),
            "input \"x\": datatype \"FLOAT\" must be one of BOOL, UINT8",
        ),
        (
            json!({"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2]}),
            "input \"x\": data has 2 elements, its shape has 3",
        ),
        (
            json!({"name": "x", "datatype": "FP32", "shape": [-1], "data": [1]}),
            "input \"x\": shape [-1] has a dimension below 0",
        ),
        (
            json!({"name": "x", "datatype": "FP32", "shape": [1],
                   "parameters": {"binary_data_size": 4}}),
            "binary_data_size is 4, behind the JSON are 0 bytes left",
        ),
        (
            json!({"name": "x", "datatype": "FP32", "shape": [1], "data": [1],
                   "parameters": {"binary_data_size": 4}}),
            "give one of them",
        ),
        (
            json!({"name": "x", "datatype": "FP32", "shape": [1],
                   "parameters": {"binary_data_size": -4}}),
            "binary_data_size is -4",
        ),
        (
            json!({"name": "x", "datatype": "FP32", "shape": [1],
                   "parameters": {"shared_memory_region": "r"}}),
            "shared memory is not offered",
        ),
    ] {
        let why = of_input(&input).unwrap_err();
        assert!(why.contains(want), "{why}");
    }
    for (request, want) in [
        (json!({}), "inputs are missing"),
        (json!({"inputs": {}}), "'[' was expected"),
        (json!({"inputs": [], "outputs": [{}]}), "has no name"),
        (
            json!({"inputs": [], "outputs": vec![json!({"name": "y"}); 257]}),
            "more than 256 outputs",
        ),
        (
            json!({"inputs": [], "outputs": [{"name": "y", "parameters": {"classification": 3}}]}),
            "output \"y\": parameter classification is not offered",
        ),
        (json!({"inputs": [], "parameters": {"timeout": -1}}), "timeout must be"),
    ] {
        let why = parse_value(&request).unwrap_err();
        assert!(why.contains(want), "{why}");
    }
    let behind = read(b"{\"inputs\":[]}rest", Some(13)).unwrap_err().message;
    assert!(behind.contains("4 bytes behind the JSON belong to no input"), "{behind}");
}

#[test]
fn outputs_and_parameters_are_read() {
    let infer = parse_value(&json!({
        "id": "a\nb", "unknown": {"deep": [null]},
        "parameters": {"priority": 1, "timeout": 5000, "binary_data_output": true, "other": [1]},
        "inputs": [],
        "outputs": [
            {"name": "y"}, {"name": "z", "parameters": {"binary_data": false, "other": 1}},
        ],
    }));
    let infer = infer.unwrap();
    assert_eq!(infer.id, "a\nb");
    assert!(infer.is_binary);
    assert_eq!(infer.terms.priority, Priority::new(9));
    assert_eq!(infer.terms.deadline, Some(std::time::Duration::from_millis(5)));
    let wanted = |name: &str, is_binary| Wanted { name: name.to_owned(), is_binary };
    assert_eq!(infer.outputs, [wanted("y", None), wanted("z", Some(false))]);
}

#[test]
fn what_is_no_number_is_written_as_python_writes_it() {
    let own = Elements::F32(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.1, -0.0]);
    let written = write(("m", "1", ""), &[("y", &tensor(&own), false)]).unwrap();
    let text = String::from_utf8(written.body).unwrap();
    assert_eq!(
        text,
        "{\"model_name\":\"m\",\"model_version\":\"1\",\"outputs\":[{\"name\":\"y\",\"datatype\":\"FP32\",\
         \"shape\":[5],\"data\":[NaN,Infinity,-Infinity,0.1,-0.0]}]}"
    );
    assert_eq!(written.json_length, None);
}
