//! `holdfast-fleet`, the command.

use std::process::ExitCode;

fn main() -> ExitCode {
    holdfast_fleet::cli::main(std::env::args_os())
}
