//! What the models crate promises, on files of every kind. One binary, because each links the
//! runtime.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::type_complexity,
    reason = "a test that cannot go on fails there; its numbers are small; its cases are tuples"
)]

mod audio;
mod bad_graphs;
mod bundles;
mod classes;
mod counted;
mod detection;
mod drawing;
mod front_end;
mod grids;
mod hostile;
mod inspecting;
mod kinds;
mod made;
mod masks;
mod onnx;
mod pictures;
mod placement;
mod reference;
mod runtimes;
mod shipped;
mod transcripts;
