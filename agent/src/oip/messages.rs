//! Owns the messages of `inference.GRPCInferenceService`, as far as they are used here. The one module
//! that knows prost.
//!
//! Names, numbers and types are those of the published contract: `grpc_service.proto` and
//! `model_config.proto` of the Triton project's `common` repository, which KServe's
//! `grpc_predict_v2.proto` is a part of.
//!
//! **Invariant:** no message is read whose parts would take far more memory than its bytes.

use std::collections::HashMap;

use bytes::{BufMut, Bytes};
use prost::encoding::{WireType, decode_key, decode_varint};

use super::strings;

/// A message that is sent or read; any of those below.
pub(super) trait Message: prost::Message {}

impl<M: prost::Message> Message for M {}

/// Without fields: many of the questions, and some of the answers.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Nothing {}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ServerLiveResponse {
    #[prost(bool, tag = "1")]
    pub(super) live: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ReadyResponse {
    #[prost(bool, tag = "1")]
    pub(super) ready: bool,
}

/// `ModelReadyRequest`, `ModelMetadataRequest`, `ModelConfigRequest` and `ModelStatisticsRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ModelRequest {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ServerMetadataResponse {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) version: String,
    #[prost(string, repeated, tag = "3")]
    pub(super) extensions: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ModelMetadataResponse {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, repeated, tag = "2")]
    pub(super) versions: Vec<String>,
    #[prost(string, tag = "3")]
    pub(super) platform: String,
    #[prost(message, repeated, tag = "4")]
    pub(super) inputs: Vec<TensorMetadata>,
    #[prost(message, repeated, tag = "5")]
    pub(super) outputs: Vec<TensorMetadata>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TensorMetadata {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) datatype: String,
    #[prost(int64, repeated, tag = "3")]
    pub(super) shape: Vec<i64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct InferParameter {
    #[prost(oneof = "Choice", tags = "1, 2, 3, 4, 5")]
    pub(super) choice: Option<Choice>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Choice {
    #[prost(bool, tag = "1")]
    Bool(bool),
    #[prost(int64, tag = "2")]
    Int64(i64),
    #[prost(string, tag = "3")]
    String(String),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(uint64, tag = "5")]
    Uint64(u64),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct InferTensorContents {
    #[prost(bool, repeated, tag = "1")]
    pub(super) bools: Vec<bool>,
    #[prost(int32, repeated, tag = "2")]
    pub(super) ints: Vec<i32>,
    #[prost(int64, repeated, tag = "3")]
    pub(super) int64s: Vec<i64>,
    #[prost(uint32, repeated, tag = "4")]
    pub(super) uints: Vec<u32>,
    #[prost(uint64, repeated, tag = "5")]
    pub(super) uint64s: Vec<u64>,
    #[prost(float, repeated, tag = "6")]
    pub(super) fp32s: Vec<f32>,
    #[prost(double, repeated, tag = "7")]
    pub(super) fp64s: Vec<f64>,
    #[prost(bytes = "bytes", repeated, tag = "8")]
    pub(super) bytes: Vec<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ModelInferRequest {
    #[prost(string, tag = "1")]
    pub(super) model_name: String,
    #[prost(string, tag = "2")]
    pub(super) model_version: String,
    #[prost(string, tag = "3")]
    pub(super) id: String,
    #[prost(map = "string, message", tag = "4")]
    pub(super) parameters: HashMap<String, InferParameter>,
    #[prost(message, repeated, tag = "5")]
    pub(super) inputs: Vec<InferInputTensor>,
    #[prost(message, repeated, tag = "6")]
    pub(super) outputs: Vec<InferRequestedOutputTensor>,
    #[prost(bytes = "bytes", repeated, tag = "7")]
    pub(super) raw_input_contents: Vec<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct InferInputTensor {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) datatype: String,
    #[prost(int64, repeated, tag = "3")]
    pub(super) shape: Vec<i64>,
    #[prost(map = "string, message", tag = "4")]
    pub(super) parameters: HashMap<String, InferParameter>,
    #[prost(message, optional, tag = "5")]
    pub(super) contents: Option<InferTensorContents>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct InferRequestedOutputTensor {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(map = "string, message", tag = "2")]
    pub(super) parameters: HashMap<String, InferParameter>,
}

/// Outputs are always sent raw: the typed contents, and the parameters, are left out.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ModelInferResponse {
    #[prost(string, tag = "1")]
    pub(super) model_name: String,
    #[prost(string, tag = "2")]
    pub(super) model_version: String,
    #[prost(string, tag = "3")]
    pub(super) id: String,
    #[prost(message, repeated, tag = "5")]
    pub(super) outputs: Vec<TensorMetadata>,
    #[prost(bytes = "vec", repeated, tag = "6")]
    pub(super) raw_output_contents: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ModelConfigResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) config: Option<ModelConfig>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ModelConfig {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) platform: String,
    #[prost(int32, tag = "4")]
    pub(super) max_batch_size: i32,
    #[prost(message, repeated, tag = "5")]
    pub(super) input: Vec<ConfigTensor>,
    #[prost(message, repeated, tag = "6")]
    pub(super) output: Vec<ConfigOutput>,
    #[prost(string, tag = "17")]
    pub(super) backend: String,
}

/// `ModelInput`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ConfigTensor {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(int32, tag = "2")]
    pub(super) data_type: i32,
    #[prost(int64, repeated, tag = "4")]
    pub(super) dims: Vec<i64>,
}

/// `ModelOutput`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ConfigOutput {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(int32, tag = "2")]
    pub(super) data_type: i32,
    #[prost(int64, repeated, tag = "3")]
    pub(super) dims: Vec<i64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RepositoryIndexRequest {
    #[prost(string, tag = "1")]
    pub(super) repository_name: String,
    #[prost(bool, tag = "2")]
    pub(super) ready: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RepositoryIndexResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) models: Vec<ModelIndex>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ModelIndex {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) version: String,
    #[prost(string, tag = "3")]
    pub(super) state: String,
    #[prost(string, tag = "4")]
    pub(super) reason: String,
}

/// `RepositoryModelLoadRequest` and `RepositoryModelUnloadRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RepositoryModelRequest {
    #[prost(string, tag = "1")]
    pub(super) repository_name: String,
    #[prost(string, tag = "2")]
    pub(super) model_name: String,
    #[prost(map = "string, message", tag = "3")]
    pub(super) parameters: HashMap<String, RepositoryParameter>,
}

/// Only that it is there is looked at.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RepositoryParameter {}

/// What lies inside a field of a request that is made of further fields.
struct Inside(&'static [(u32, Inside)]);

const LEAF: Inside = Inside(&[]);
const PARAMETER: Inside = Inside(&[(1, LEAF), (2, Inside(&[(3, LEAF)]))]);
const CONTENTS: Inside = Inside(&[(8, LEAF)]);
const INFER: Inside = Inside(&[
    (4, PARAMETER),
    (5, Inside(&[(3, LEAF), (4, PARAMETER), (5, CONTENTS)])),
    (6, Inside(&[(2, PARAMETER)])),
    (7, LEAF),
]);
/// A message takes as much memory as so many texts do.
const MESSAGE_WEIGHT: usize = 32;
/// What the parts of one request may weigh together: its texts, and a few thousand messages.
const MOST_PARTS: usize = strings::MOST + 4096 * MESSAGE_WEIGHT;

/// Reads a message.
///
/// # Errors
/// It is none, or has too many parts.
pub(super) fn read<M: Message + Default>(bytes: Bytes) -> Result<M, String> {
    let mut left = MOST_PARTS;
    weigh(&bytes, &INFER, &mut left)?;
    M::decode(bytes).map_err(|error| format!("the message cannot be read: {error}"))
}

/// Writes a message.
///
/// # Errors
/// It does not fit into the buffer, which grows.
pub(super) fn write<M: Message>(message: &M, to: &mut impl BufMut) -> Result<(), String> {
    message.encode(to).map_err(|error| error.to_string())
}

/// The memory that the tensors of a `ModelInferRequest` may take, in bytes. What is damaged behind
/// some place is not looked at.
pub(super) fn memory(bytes: &[u8]) -> usize {
    // A number of a byte or more becomes one of its type; a text has its letters and its place.
    let number = |inner: Field<'_>| match inner.tag {
        2 | 4 => inner.own.len().saturating_mul(size_of::<u32>()),
        3 | 5 => inner.own.len().saturating_mul(size_of::<u64>()),
        8 => inner.own.len() + size_of::<Bytes>() + size_of::<String>(),
        _ => inner.own.len(),
    };
    let of_field = |outer: Field<'_>| match outer.tag {
        5 => fields(outer.own)
            .filter(|input| input.tag == 5)
            .flat_map(|own| fields(own.own))
            .map(number)
            .sum(),
        7 => outer.own.len(),
        _ => 0,
    };
    fields(bytes).map(of_field).fold(0, usize::saturating_add)
}

/// A field of a message: the bytes of its value, and what is behind it.
#[derive(Debug, Clone, Copy)]
struct Field<'a> {
    tag: u32,
    wire: WireType,
    own: &'a [u8],
    rest: &'a [u8],
}

/// The fields of a message, up to where it is damaged.
fn fields(bytes: &[u8]) -> impl Iterator<Item = Field<'_>> {
    std::iter::successors(field(bytes).ok(), |last| field(last.rest).ok())
}

/// The first field of a message.
fn field(mut bytes: &[u8]) -> Result<Field<'_>, String> {
    let cut = || "the message is cut or damaged".to_owned();
    let (tag, wire) = decode_key(&mut bytes).map_err(|_| cut())?;
    let mut behind = bytes;
    let length = match wire {
        WireType::Varint => {
            decode_varint(&mut behind).map_err(|_| cut())?;
            bytes.len() - behind.len()
        }
        WireType::SixtyFourBit => 8,
        WireType::ThirtyTwoBit => 4,
        WireType::LengthDelimited => {
            let length = decode_varint(&mut bytes).map_err(|_| cut())?;
            usize::try_from(length).unwrap_or(usize::MAX)
        }
        WireType::StartGroup | WireType::EndGroup => {
            return Err("the message has a group, which the protocol has not".to_owned());
        }
    };
    let (own, rest) = bytes.split_at_checked(length).ok_or_else(cut)?;
    Ok(Field { tag, wire, own, rest })
}

/// Walks over the fields of a message, before anything is made of them. Messages other than a
/// `ModelInferRequest` have no field that it would take for one of many.
fn weigh(mut bytes: &[u8], inside: &Inside, left: &mut usize) -> Result<(), String> {
    while !bytes.is_empty() {
        let Field { tag, wire, own, rest } = field(bytes)?;
        bytes = rest;
        if wire == WireType::Varint {
            continue;
        }
        let known = inside.0.iter().find(|(known, _)| *known == tag);
        let weight = match known {
            Some((_, Inside([]))) => 1,
            Some(_) => MESSAGE_WEIGHT,
            None => 0,
        };
        *left = left.checked_sub(weight).ok_or_else(|| {
            format!("the message has too many parts: at most {} texts", strings::MOST)
        })?;
        if let Some((_, inner)) = known
            && wire == WireType::LengthDelimited
            && !inner.0.is_empty()
        {
            weigh(own, inner, left)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    fn request(texts: usize, inputs: usize) -> ModelInferRequest {
        let contents = InferTensorContents {
            bytes: vec![Bytes::from_static(b"a"); texts],
            ..InferTensorContents::default()
        };
        let tensor = InferInputTensor { contents: Some(contents), ..InferInputTensor::default() };
        ModelInferRequest {
            model_name: "m".into(),
            inputs: vec![tensor; inputs],
            raw_input_contents: vec![Bytes::from_static(b"abc")],
            ..ModelInferRequest::default()
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let own = request(3, 2);
        assert_eq!(read::<ModelInferRequest>(own.encode_to_vec().into()), Ok(own));
    }

    #[test]
    fn a_request_of_many_small_parts_is_refused_before_it_takes_memory() {
        let empty_inputs = [0x2a, 0].repeat(1 << 20);
        let empty_raws = [0x3a, 0].repeat(1 << 20);
        let empty_outputs = [0x32, 0].repeat(1 << 20);
        let texts = request(strings::MOST * 2, 1).encode_to_vec();
        for (case, bytes) in [
            ("inputs", empty_inputs),
            ("raw contents", empty_raws),
            ("outputs", empty_outputs),
            ("texts", texts),
        ] {
            let why = read::<ModelInferRequest>(bytes.into()).unwrap_err();
            assert!(why.contains("too many parts"), "{case}: {why}");
        }
        assert!(read::<ModelInferRequest>(request(1000, 100).encode_to_vec().into()).is_ok());
    }

    #[test]
    fn the_memory_of_tensors_is_known_before_they_are_made() {
        let of = |contents: InferTensorContents| {
            let input = InferInputTensor { contents: Some(contents), ..Default::default() };
            let message = ModelInferRequest { inputs: vec![input], ..Default::default() };
            memory(&message.encode_to_vec())
        };
        let none = InferTensorContents::default;
        assert_eq!(of(none()), 0);
        assert_eq!(of(InferTensorContents { int64s: vec![1; 1000], ..none() }), 8000);
        assert_eq!(of(InferTensorContents { ints: vec![1; 1000], ..none() }), 4000);
        assert_eq!(of(InferTensorContents { fp32s: vec![0.5; 1000], ..none() }), 4000);
        assert_eq!(of(InferTensorContents { bools: vec![true; 1000], ..none() }), 1000);
        let texts = of(InferTensorContents { bytes: vec![Bytes::new(); 10], ..none() });
        assert!(texts >= 10 * size_of::<String>(), "{texts}");
        let raw = vec![Bytes::from(vec![0; 500]); 2];
        let raw = ModelInferRequest { raw_input_contents: raw, ..Default::default() };
        let bytes = raw.encode_to_vec();
        assert_eq!(memory(&bytes), 1000);
        assert!(memory(&bytes[..bytes.len() - 1]) <= 500, "what is cut does not count");
    }

    proptest! {
        #[test]
        fn random_and_cut_bytes_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200), cut in any::<prop::sample::Index>(),
        ) {
            memory(&bytes);
            drop(read::<ModelInferRequest>(bytes.into()));
            let whole = request(3, 2).encode_to_vec();
            drop(read::<ModelInferRequest>(whole[..cut.index(whole.len())].to_vec().into()));
        }
    }
}
