//! The agent's binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    holdfast_agent::cli::main(std::env::args_os())
}
