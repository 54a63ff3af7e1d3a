//! The controller as its users meet it: the real command, a real broker, real signatures.

mod api;
mod commands;
mod controller;
mod device;
mod external;
mod presence;
mod refusal;
mod restart;
