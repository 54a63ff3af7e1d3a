//! Owns how the messages of gRPC become an inference request, and an answer a message.
//!
//! **Invariant:** an input has its data once, raw or typed; of raw contents there are as many as inputs.

use bytes::Bytes;
use holdfast_models::tensor::Elements;
use holdfast_models::{Dtype, Tensor};

use super::ask::{Answered, dims_of};
use super::messages::{
    Choice, InferInputTensor, InferParameter, InferTensorContents, ModelInferRequest,
    ModelInferResponse, TensorMetadata,
};
use super::refusal::{Declared, Refusal};
use super::request::{self, Infer, MOST_TENSORS, Parameter, Wanted};
use super::{binary, dtype, strings};

/// The request that a message stands for.
pub(super) fn parse(message: ModelInferRequest) -> Result<Infer, Refusal> {
    let ModelInferRequest { id, parameters, inputs, outputs, raw_input_contents, .. } = message;
    let mut infer = Infer { id, is_binary: true, ..Infer::default() };
    for (key, value) in parameters {
        infer.parameter(&key, &parameter(value))?;
    }
    if inputs.len() > MOST_TENSORS || outputs.len() > MOST_TENSORS {
        return Err(Refusal::bad(format!("more than {MOST_TENSORS} inputs or outputs")));
    }
    let (tensors, raws) = (inputs.len(), raw_input_contents.len());
    if raws != 0 && raws != tensors {
        return Err(Refusal::bad(format!(
            "raw_input_contents has {raws} entries for {tensors} inputs; send one for each, or none"
        )));
    }
    let mut raws = raw_input_contents.into_iter();
    for input in inputs {
        let name = input.name.clone();
        let tensor = tensor(input, raws.next()).map_err(|refusal| refusal.of("input", &name))?;
        infer.inputs.push((name, tensor));
    }
    for output in outputs {
        for key in output.parameters.keys() {
            request::not_offered(key).map_err(|refusal| refusal.of("output", &output.name))?;
        }
        infer.outputs.push(Wanted { name: output.name, is_binary: None });
    }
    Ok(infer)
}

fn parameter(value: InferParameter) -> Parameter {
    match value.choice {
        Some(Choice::Bool(value)) => Parameter::Bool(value),
        Some(Choice::Int64(value)) => Parameter::Whole(value.into()),
        Some(Choice::Uint64(value)) => Parameter::Whole(value.into()),
        Some(Choice::String(value)) => Parameter::Text(value),
        Some(Choice::Double(value)) => Parameter::Real(value),
        None => Parameter::Other,
    }
}

fn tensor(input: InferInputTensor, raw: Option<Bytes>) -> Result<Tensor, Refusal> {
    for key in input.parameters.keys() {
        request::not_offered(key)?;
    }
    let dtype = request::dtype(&input.datatype)?;
    let (shape, count) = request::shape(&input.shape, dtype)?;
    let declared = Declared { input: input.name, dtype, shape: shape.clone() };
    let elements = elements(raw, input.contents, dtype, count);
    let elements = elements.map_err(|refusal| refusal.about(declared))?;
    request::tensor(shape, elements)
}

fn elements(
    raw: Option<Bytes>,
    contents: Option<InferTensorContents>,
    dtype: Dtype,
    count: usize,
) -> Result<Elements, Refusal> {
    let elements = match (raw, contents) {
        (Some(_), Some(contents)) if contents != InferTensorContents::default() => {
            return Err(Refusal::bad("has raw contents and typed contents; send one of them"));
        }
        (Some(raw), _) => binary::elements(&raw, dtype, count).map_err(Refusal::bad)?,
        (None, contents) => typed(contents.unwrap_or_default(), dtype)?,
    };
    if elements.len() != count {
        let got = elements.len();
        return Err(Refusal::bad(format!("contents has {got} elements, its shape has {count}")));
    }
    Ok(elements)
}

fn typed(contents: InferTensorContents, dtype: Dtype) -> Result<Elements, Refusal> {
    let own = match dtype {
        Dtype::Bool => Elements::Bool(contents.bools),
        Dtype::U8 => Elements::U8(narrow(contents.uints)?),
        Dtype::I8 => Elements::I8(narrow(contents.ints)?),
        Dtype::U16 => Elements::U16(narrow(contents.uints)?),
        Dtype::I16 => Elements::I16(narrow(contents.ints)?),
        Dtype::U32 => Elements::U32(contents.uints),
        Dtype::I32 => Elements::I32(contents.ints),
        Dtype::U64 => Elements::U64(contents.uint64s),
        Dtype::I64 => Elements::I64(contents.int64s),
        Dtype::F32 => Elements::F32(contents.fp32s),
        Dtype::F64 => Elements::F64(contents.fp64s),
        Dtype::F16 => {
            return Err(Refusal::bad("FP16 has no typed contents; send raw_input_contents"));
        }
        Dtype::Text => {
            let texts = contents.bytes.iter().map(|bytes| strings::of_bytes(bytes));
            Elements::Text(texts.collect::<Result<_, _>>().map_err(Refusal::bad)?)
        }
    };
    Ok(own)
}

fn narrow<W, N: TryFrom<W>>(wide: Vec<W>) -> Result<Vec<N>, Refusal> {
    let narrow: Result<Vec<N>, _> = wide.into_iter().map(N::try_from).collect();
    narrow.map_err(|_| Refusal::bad("a number is outside of what its type can hold"))
}

/// The message of an answer.
pub(super) fn write(answered: &Answered) -> ModelInferResponse {
    let answer = &answered.answer;
    let outputs = answer.outputs.iter().map(|(name, tensor)| TensorMetadata {
        name: name.clone(),
        datatype: dtype::name(tensor.dtype()).to_owned(),
        shape: dims_of(tensor.shape()),
    });
    let raw = answer.outputs.iter().map(|(_, tensor)| {
        let mut bytes = Vec::with_capacity(binary::size(tensor.elements()));
        binary::write(tensor.elements(), &mut bytes);
        bytes
    });
    ModelInferResponse {
        model_name: answer.model.clone(),
        model_version: answer.version.clone(),
        id: answered.id.clone(),
        outputs: outputs.collect(),
        raw_output_contents: raw.collect(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::oip::binary::tests::any_elements;

    fn input(elements: &Elements, contents: Option<InferTensorContents>) -> InferInputTensor {
        InferInputTensor {
            name: "x".into(),
            datatype: dtype::name(elements.dtype()).into(),
            shape: dims_of(&[elements.len()]),
            contents,
            ..InferInputTensor::default()
        }
    }

    fn message(input: InferInputTensor, raw: Option<Vec<u8>>) -> ModelInferRequest {
        ModelInferRequest {
            inputs: vec![input],
            raw_input_contents: raw.into_iter().map(Bytes::from).collect(),
            ..ModelInferRequest::default()
        }
    }

    fn as_contents(elements: &Elements) -> Option<InferTensorContents> {
        let mut contents = InferTensorContents::default();
        match elements.clone() {
            Elements::Bool(own) => contents.bools = own,
            Elements::U8(own) => contents.uints = own.into_iter().map(Into::into).collect(),
            Elements::I8(own) => contents.ints = own.into_iter().map(Into::into).collect(),
            Elements::U16(own) => contents.uints = own.into_iter().map(Into::into).collect(),
            Elements::I16(own) => contents.ints = own.into_iter().map(Into::into).collect(),
            Elements::U32(own) => contents.uints = own,
            Elements::I32(own) => contents.ints = own,
            Elements::U64(own) => contents.uint64s = own,
            Elements::I64(own) => contents.int64s = own,
            Elements::F32(own) => contents.fp32s = own,
            Elements::F64(own) => contents.fp64s = own,
            Elements::F16(_) => return None,
            Elements::Text(own) => contents.bytes = own.into_iter().map(Into::into).collect(),
        }
        Some(contents)
    }

    proptest! {
        #[test]
        fn raw_and_typed_contents_are_the_same_tensor(own in any_elements()) {
            let mut raw = Vec::new();
            binary::write(&own, &mut raw);
            let want = vec![("x".to_owned(), Tensor::new(vec![own.len()], own.clone()).unwrap())];
            let read = parse(message(input(&own, None), Some(raw)));
            prop_assert_eq!(&read.unwrap().inputs, &want);
            match as_contents(&own) {
                Some(contents) => {
                    let read = parse(message(input(&own, Some(contents)), None));
                    prop_assert_eq!(&read.unwrap().inputs, &want);
                }
                None => prop_assert!(parse(message(input(&own, None), None)).is_err()),
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let own = Elements::I8(vec![1, 2]);
        let of_ints = |ints: Vec<i32>| InferTensorContents { ints, ..Default::default() };
        let contents = |ints| Some(of_ints(ints));
        let other = InferInputTensor { datatype: "FLOAT".into(), ..input(&own, None) };
        let negative = InferInputTensor { shape: vec![-2], ..input(&own, None) };
        for (message, want) in [
            (
                message(input(&own, contents(vec![1])), None),
                "contents has 1 elements, its shape has 2",
            ),
            (message(input(&own, contents(vec![1, 300])), None), "outside"),
            (message(input(&own, contents(vec![1, 2])), Some(vec![1, 2])), "send one of them"),
            (message(input(&own, None), Some(vec![1])), "has 1 bytes, its shape has 2 elements"),
            (message(input(&own, None), None), "contents has 0 elements"),
            (message(other, None), "datatype \"FLOAT\" must be one of"),
            (message(negative, None), "below 0"),
        ] {
            let why = parse(message).unwrap_err().message;
            assert!(why.starts_with("input \"x\": ") && why.contains(want), "{why}");
        }
        let two = ModelInferRequest {
            raw_input_contents: vec![Bytes::new(); 2],
            ..message(input(&own, None), None)
        };
        let why = parse(two).unwrap_err().message;
        assert!(why.contains("2 entries for 1 inputs"), "{why}");
    }
}
