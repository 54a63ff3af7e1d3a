//! What the models crate promises, on files of every kind. One binary, because each links the
//! runtime.

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
