//! Bundles, the runtimes that execute them, and the processing on either side of a graph.
//!
//! A request's way through this crate:
//! ```text
//! bytes -> Media::detect -> decode (audio | image | numbers | text) -> tensors -> Session::run -> Decoder -> Inference
//! ```
//! Owns the bundle format, the front ends, the decoders of outputs and the `Runtime` seam.
//!
//! **Invariant:** no bytes from outside (a bundle, a recording, a picture, a graph) panic or make
//! this crate allocate more than its stated limits; each fault is a typed error.

pub mod audio;
pub mod bundle;
mod clock;
mod front;
pub mod image;
pub mod inspect;
mod media;
mod model;
mod numbers;
pub mod outputs;
pub mod quantisation;
pub mod runtime;
pub mod tensor;

pub use bundle::{Bundle, BundleError, MediaKind, Variant};
pub use front::BodyError;
pub use media::{Media, MediaError, MediaType};
pub use model::{
    Askers, Goldens, InferError, Inference, InputError, LoadError, Loading, Model, Recorded,
    Reference, Relay, Timings, Told,
};
pub use outputs::{Class, Decoder, Outcome, OutputError};
pub use runtime::{
    Runtime, RuntimeError, Session, onnx_runtime::OnnxRuntime, onnx_runtime::library::Library,
    tract::Tract,
};
pub use tensor::{Dtype, Tensor};
