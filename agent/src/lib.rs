//! placeholder

pub mod queue;
