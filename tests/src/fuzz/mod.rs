//! Targets that bytes are thrown at: the readers that stand before everything that comes from outside.
//!
//! [`targets`] has one function a reader, and files that it takes; `mutate` changes those; [`drive`] runs
//! the changed ones, and keeps what reaches new code where the program was built to tell ([`coverage`],
//! `tests/fuzz`).
//!
//! **Invariant:** a run is its seed: the same seed throws the same bytes, as far as no code tells of
//! itself.

pub mod coverage;
pub mod drive;
mod graphs;
mod mutate;
pub mod targets;
