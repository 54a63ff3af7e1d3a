//! Owns the protocol as it is spoken to somebody else: what is asked of another server over HTTP, and what
//! its answer says.
//!
//! **Invariant:** whatever comes back becomes tensors or a reason why it is none; memory grows with the
//! bytes, never with what they claim.

use holdfast_models::runtime::TensorSpec;
use holdfast_models::{Dtype, Tensor};
use serde::Deserialize;

use super::json::{self, Written};
use super::reader::Reader;
use super::refusal::{Refusal, shown};
use super::{dtype, request};

/// How much of a body is JSON, where tensors follow; the same in answers.
pub(crate) const JSON_LENGTH: &str = "inference-header-content-length";

/// What a server gave.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Given {
    /// The model that it says it was.
    pub(crate) model: String,
    /// Its version; empty where it does not tell.
    pub(crate) version: String,
    /// The outputs, by name.
    pub(crate) outputs: Vec<(String, Tensor)>,
}

/// What a server says that a model takes or gives.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Described {
    name: String,
    datatype: String,
    shape: Vec<i64>,
}

/// What a server says of a model.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub(crate) struct Metadata {
    inputs: Option<Vec<Described>>,
    outputs: Option<Vec<Described>>,
}

/// Whether a server that says this of itself may take binary tensors: not one that tells its extensions
/// without them.
pub(crate) fn may_take_binary(told: &[u8]) -> bool {
    let told: serde_json::Value = serde_json::from_slice(told).unwrap_or_default();
    let is_binary = |name: &serde_json::Value| {
        name.as_str().is_some_and(|name| name.starts_with("binary_tensor"))
    };
    told["extensions"].as_array().is_none_or(|extensions| extensions.iter().any(is_binary))
}

/// Where a model is, behind the address of a server.
pub(crate) fn path(model: &str, version: Option<&str>) -> String {
    let version = version.map(|version| format!("/versions/{version}"));
    format!("/v2/models/{model}{}", version.unwrap_or_default())
}

/// A request for these outputs of a model that is run with these inputs, all of them in binary or in JSON.
///
/// # Errors
/// Never in memory.
pub(crate) fn request(
    id: &str,
    inputs: &[(&str, &Tensor)],
    outputs: &[&str],
    is_binary: bool,
) -> Result<(Vec<u8>, Option<usize>), serde_json::Error> {
    let inputs: Vec<_> = inputs.iter().map(|(name, tensor)| (*name, *tensor, is_binary)).collect();
    let mut out = Vec::with_capacity(256 + json::room(&inputs));
    out.extend_from_slice(b"{\"id\":");
    serde_json::to_writer(&mut out, id)?;
    out.extend_from_slice(b",\"inputs\":");
    json::tensors(&inputs, &mut out)?;
    let wanted = outputs.iter().map(|name| match is_binary {
        true => serde_json::json!({ "name": name, "parameters": { "binary_data": true } }),
        false => serde_json::json!({ "name": name }),
    });
    out.extend_from_slice(b",\"outputs\":");
    serde_json::to_writer(&mut out, &wanted.collect::<Vec<_>>())?;
    out.push(b'}');
    let Written { body, json_length } = json::written(out, &inputs);
    Ok((body, json_length))
}

/// What an answer says: JSON of `json_length` bytes (all when `None`), and binary tensors behind it.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn answer(body: &[u8], json_length: Option<usize>) -> Result<Given, String> {
    read(body, json_length).map_err(|refusal| refusal.message)
}

fn read(body: &[u8], json_length: Option<usize>) -> Result<Given, Refusal> {
    let (json, mut tail) = body
        .split_at_checked(json_length.unwrap_or(body.len()))
        .ok_or_else(|| Refusal::bad("it is shorter than it says"))?;
    let json = std::str::from_utf8(json).map_err(|_| Refusal::bad("its JSON is not UTF-8"))?;
    let mut reader = Reader::new(json);
    let mut given = Given::default();
    let mut has_outputs = false;
    reader.object(|reader, key| {
        match key {
            "model_name" if reader.peek() == Some(b'"') => {
                given.model = reader.string()?.into_owned()
            }
            "model_version" if reader.peek() == Some(b'"') => {
                given.version = reader.string()?.into_owned();
            }
            "outputs" if !has_outputs => {
                has_outputs = true;
                reader.list(|reader| {
                    let number = ("output", given.outputs.len());
                    if number.1 == request::MOST_TENSORS {
                        return Err(Refusal::bad("it has too many outputs"));
                    }
                    // As large as the bytes, and those are bounded.
                    given.outputs.push(json::tensor(number, reader, &mut tail, &mut |_| Ok(()))?);
                    Ok::<_, Refusal>(())
                })?;
            }
            _ => reader.skip()?,
        }
        Ok::<_, Refusal>(())
    })?;
    reader.end()?;
    match has_outputs {
        true if tail.is_empty() => Ok(given),
        true => Err(Refusal::bad("bytes behind it belong to no output")),
        false => Err(Refusal::bad("it has no outputs")),
    }
}

impl Metadata {
    /// What of a model is not as a graph with these inputs and outputs would be; nothing where all is, or the
    /// server does not tell.
    pub(crate) fn unfit(&self, inputs: &[TensorSpec], outputs: &[TensorSpec]) -> Option<String> {
        let told = |own: &Option<Vec<Described>>| own.clone().filter(|own| !own.is_empty());
        if let Some(taken) = told(&self.inputs) {
            if let Some(why) = inputs.iter().find_map(|spec| differs("input", &taken, spec)) {
                return Some(why);
            }
            let is_ours = |name: &str| inputs.iter().any(|spec| spec.name == name);
            if let Some(more) = taken.iter().find(|own| !is_ours(&own.name)) {
                return Some(format!(
                    "it wants an input {} that the bundle has not",
                    shown(&more.name)
                ));
            }
        }
        let given = told(&self.outputs)?;
        outputs.iter().find_map(|spec| differs("output", &given, spec))
    }
}

/// What of a tensor there is otherwise than here.
fn differs(what: &str, there: &[Described], own: &TensorSpec) -> Option<String> {
    let Some(found) = there.iter().find(|found| found.name == own.name) else {
        let names: Vec<String> = there.iter().take(8).map(|found| shown(&found.name)).collect();
        let (name, names) = (&own.name, names.join(", "));
        return Some(format!("its model has no {what} {name:?}, it has {names}"));
    };
    // -1 is a free one.
    let fits = |(there, own): (&i64, &usize)| *there == -1 || usize::try_from(*there) == Ok(*own);
    let has_shape =
        found.shape.len() == own.shape.len() && found.shape.iter().zip(&own.shape).all(fits);
    let dtype: Option<Dtype> = dtype::parse(&found.datatype);
    if has_shape && dtype == Some(own.dtype) {
        return None;
    }
    let (got, want) = (shown(&found.datatype), dtype::name(own.dtype));
    Some(format!(
        "{what} {:?} of its model is {} {:?}, the bundle has {want} {:?}",
        own.name,
        got.trim_matches('"'),
        found.shape,
        own.shape
    ))
}

#[cfg(test)]
mod tests {
    use holdfast_models::tensor::Elements;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::oip::binary::tests::any_elements;

    proptest! {
        #[test]
        fn what_goes_out_is_read_as_it_was_meant(own in any_elements(), is_binary in any::<bool>()) {
            let is_number = |x: &f64| x.is_finite();
            let is_plain = match &own {
                Elements::F16(own) => own.iter().all(|x| is_number(&x.to_f64())),
                Elements::F32(own) => own.iter().all(|x| is_number(&f64::from(*x))),
                Elements::F64(own) => own.iter().all(is_number),
                _ => true,
            };
            prop_assume!(is_plain);
            let tensor = Tensor::new(vec![own.len()], own).unwrap();
            let (body, length) = request("1", &[("x", &tensor)], &["y"], is_binary).unwrap();
            prop_assert_eq!(length.is_some(), is_binary);
            let infer = json::parse(&body, length, &mut |_| Ok(())).unwrap();
            prop_assert_eq!(infer.inputs, [("x".to_owned(), tensor.clone())]);
            prop_assert_eq!(infer.outputs.len(), 1);
            let outputs = [("y", &tensor, is_binary)];
            let Written { body, json_length } = json::write(("m", "3", ""), &outputs).unwrap();
            let given = answer(&body, json_length).unwrap();
            let want = Given { model: "m".into(), version: "3".into(), outputs: vec![("y".into(), tensor)] };
            prop_assert_eq!(given, want);
        }

        #[test]
        fn whatever_comes_back_is_an_answer_or_a_reason(bytes in any::<Vec<u8>>(), at in 0..40_usize) {
            drop(answer(&bytes, Some(at)));
            drop(answer(&bytes, None));
        }
    }

    #[test]
    fn what_is_no_answer_says_why() {
        let output = |more: serde_json::Value| {
            let mut own = json!({ "name": "y", "datatype": "FP32", "shape": [2] });
            own.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({ "model_name": "m", "outputs": [own] }).to_string()
        };
        for (body, length, want) in [
            ("{}".to_owned(), None, "no outputs"),
            ("[]".to_owned(), None, "expected"),
            (output(json!({})), None, "output \"y\": has no data"),
            (output(json!({ "data": [1.0] })), None, "1 elements"),
            (output(json!({ "data": [1.0, 2.0] })) + "more", None, "goes on"),
            (output(json!({ "data": [1.0, 2.0] })), Some(4000), "shorter"),
            (output(json!({ "parameters": { "binary_data_size": 8 } })), None, "0 bytes left"),
        ] {
            let why = answer(body.as_bytes(), length).unwrap_err();
            assert!(why.contains(want), "{body}: {why}");
        }
    }

    #[test]
    fn a_server_takes_binary_unless_it_tells_otherwise() {
        for (told, want) in [
            (r#"{"name":"triton","extensions":["classification","binary_tensor_data"]}"#, true),
            (r#"{"name":"mlserver","version":"1.7.1","extensions":[]}"#, false),
            (r#"{"name":"kserve","extensions":["model_repository_extension"]}"#, false),
            (r#"{"name":"OpenVINO Model Server"}"#, true),
            ("no JSON", true),
        ] {
            assert_eq!(may_take_binary(told.as_bytes()), want, "{told}");
        }
    }

    #[test]
    fn a_model_fits_or_says_what_does_not() {
        let spec = |name: &str, shape: &[usize]| TensorSpec::pinned(name, Dtype::F32, shape);
        let (inputs, outputs) = ([spec("x", &[1, 4])], [spec("y", &[1, 2])]);
        let told = |name: &str, datatype: &str, shape: &[i64]| json!([{ "name": name, "datatype": datatype, "shape": shape }]);
        let both = |taken, given| json!({ "name": "m", "inputs": taken, "outputs": given });
        let (x, y) = (told("x", "FP32", &[-1, 4]), told("y", "FP32", &[1, 2]));
        for (metadata, want) in [
            (both(x.clone(), y.clone()), None),
            (json!({ "name": "m", "platform": "" }), None),
            (json!({ "inputs": [], "outputs": null }), None),
            (both(told("X", "FP32", &[1, 4]), y.clone()), Some("has no input \"x\", it has \"X\"")),
            (
                both(told("x", "INT8", &[1, 4]), y.clone()),
                Some("is INT8 [1, 4], the bundle has FP32 [1, 4]"),
            ),
            (both(told("x", "FP32", &[4]), y), Some("input \"x\" of its model is FP32 [4]")),
            (both(x.clone(), told("y", "FP32", &[1, 3])), Some("output \"y\"")),
            (json!({ "inputs": [x[0], told("z", "BOOL", &[])[0]] }), Some("wants an input \"z\"")),
        ] {
            let read: Metadata = serde_json::from_value(metadata.clone()).unwrap();
            let why = read.unfit(&inputs, &outputs);
            let is_told = match (&why, want) {
                (Some(why), Some(want)) => why.contains(want),
                (None, None) => true,
                _ => false,
            };
            assert!(is_told, "{metadata}: {why:?}");
        }
    }
}
