//! Bundles, the runtimes that execute them, and the processing on either side of a graph.
//!
//! A request's way through this crate:
//! ```text
//! bytes -> Media::detect -> decode (audio | image) -> features -> Session::run -> classify -> Inference
//! ```
//! Owns the bundle format, the audio and image front ends and the `Runtime` seam.
//!
//! **Invariant:** no bytes from outside (a bundle, a recording, a picture, a graph) panic or make
//! this crate allocate more than its stated limits; each fault is a typed error.

pub mod audio;
pub mod bundle;
pub mod classify;
mod clock;
pub mod image;
mod media;
mod model;
pub mod quantisation;
pub mod runtime;
pub mod tensor;

pub use bundle::{Bundle, BundleError, MediaKind, Variant};
pub use classify::{Class, ClassifyError};
pub use media::{Media, MediaError, MediaType};
pub use model::{InferError, Inference, InputError, LoadError, Model, Timings};
pub use runtime::{
    Runtime, RuntimeError, Session, onnx_runtime::OnnxRuntime, onnx_runtime::library::Library,
    tract::Tract,
};
pub use tensor::{Dtype, Tensor};
