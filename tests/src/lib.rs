//! What the demo, the end-to-end tests and the benchmarks share: real processes, a link that can
//! be cut, and a client of the agent's API.

pub mod agreement;
pub mod authority;
pub mod bundle;
pub mod classifiers;
pub mod client;
pub mod fuzz;
pub mod golden;
pub mod identity;
pub mod kinds;
pub mod link;
pub mod node;
pub mod onnxruntime;
pub mod protobuf;
pub mod reference;
pub mod samples;
pub mod schemathesis;
pub mod servers;
pub mod site;
pub mod tiny;
pub mod tritonclient;
pub mod vendors;
