//! The Open Inference Protocol v2, as Triton, KServe and OpenVINO Model Server speak it: over HTTP
//! under `/v2`, and over gRPC on a listener of its own.
//!
//! A call's way: `rest` or `grpc` takes the bytes, `json`, `binary` and `messages` make
//! tensors of them, `ask` asks the engine, and back.
//!
//! `outgoing` is the other side of it: what is asked of a destination.
//!
//! **Invariant:** whatever arrives becomes a call or a refusal that says what was expected; only models
//! of this device answer, and nothing is held or escalated.

mod ask;
mod binary;
mod compression;
mod contents;
mod dtype;
mod grpc;
mod json;
mod messages;
mod numbers;
pub(crate) mod outgoing;
mod reader;
mod refusal;
mod request;
mod rest;
mod strings;
mod work;

use axum::response::{IntoResponse, Response};

pub(crate) use self::grpc::serve as serve_grpc;
pub(crate) use self::rest::router;
#[cfg(test)]
pub(crate) use self::rest::routes;
use crate::api::Problem;

/// A refusal as the protocol has it over HTTP.
pub(crate) fn refused(problem: Problem) -> Response {
    refusal::Refusal::from(problem).into_response()
}

/// The largest body of everything but inference.
const SMALL_BODY: usize = 64 << 10;

/// What is offered beyond the protocol's core.
const EXTENSIONS: [&str; 4] =
    ["binary_tensor_data", "model_configuration", "model_repository", "parameters"];

/// Whether bytes are an inference request as it comes over HTTP: JSON of `json_length` bytes, all of them
/// where that is not said, and tensors in binary behind it. For those who throw bytes at the reader.
pub fn is_request(body: &[u8], json_length: Option<usize>) -> bool {
    json::parse(body, json_length, &mut |_| Ok(())).is_ok()
}

/// Whether bytes are an inference request as it comes over gRPC. For those who throw bytes at the reader.
pub fn is_message(bytes: &[u8]) -> bool {
    let message = messages::read::<messages::ModelInferRequest>(bytes.to_vec().into());
    message.is_ok_and(|message| contents::parse(message).is_ok())
}
