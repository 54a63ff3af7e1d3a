//! What the models crate promises, on files of every kind. One binary, because each links the
//! runtime.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::type_complexity,
    reason = "a test that cannot go on fails there; its numbers are small; its cases are tuples"
)]

mod audio;
mod bundles;
mod classes;
mod front_end;
mod hostile;
mod made;
mod onnx;
mod pictures;
mod reference;
mod runtimes;
mod shipped;
