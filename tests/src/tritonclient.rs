//! Python's `tritonclient`, which tests/run fetches, and what is asked with it (`tests/oip`).
//!
//! **Invariant:** a test that needs it and does not find it says so and passes, unless
//! `HOLDFAST_REQUIRE_REFERENCE=1` asks for it.

use std::path::PathBuf;
use std::process::Command;

use crate::reference::project;

/// A command that runs `tests/oip/check.py`, or `None` when it is left out.
pub fn check() -> Option<Command> {
    let named = std::env::var_os("HOLDFAST_TRITONCLIENT").map(PathBuf::from);
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| project().join("target"));
    let folder = named.unwrap_or_else(|| target.join("tritonclient"));
    if folder.join("tritonclient").is_dir() {
        let mut command = Command::new("python3");
        command.env("PYTHONPATH", folder).env("PYTHONDONTWRITEBYTECODE", "1");
        command.arg(project().join("tests/oip/check.py"));
        return Some(command);
    }
    let required = std::env::var("HOLDFAST_REQUIRE_REFERENCE").is_ok_and(|value| value == "1");
    assert!(!required, "tritonclient is required and is not in {}", folder.display());
    println!("LEFT OUT: tritonclient against the agent (not fetched: ./tests/run does)");
    None
}
