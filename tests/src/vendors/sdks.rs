//! The providers' own SDKs for Python, which tests/run fetches, and what is asked with them
//! (`tests/sdks`).
//!
//! **Invariant:** a test that needs them and does not find them says so and passes, unless
//! `HOLDFAST_REQUIRE_REFERENCE=1` asks for them.

use std::path::PathBuf;
use std::process::Command;

use crate::reference::project;

/// A command that runs `tests/sdks/check.py`, or `None` when it is left out.
pub fn check() -> Option<Command> {
    script("check.py")
}

/// A command that runs this script of `tests/sdks`, or `None` when it is left out.
pub fn script(name: &str) -> Option<Command> {
    let named = std::env::var_os("HOLDFAST_SDKS").map(PathBuf::from);
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| project().join("target"));
    let folder = named.unwrap_or_else(|| target.join("sdks"));
    if folder.join("anthropic").is_dir() {
        let mut command = Command::new("python3");
        command.env("PYTHONPATH", folder).env("PYTHONDONTWRITEBYTECODE", "1");
        command.arg(project().join("tests/sdks").join(name));
        return Some(command);
    }
    let required = std::env::var("HOLDFAST_REQUIRE_REFERENCE").is_ok_and(|value| value == "1");
    assert!(!required, "the providers' SDKs are required and are not in {}", folder.display());
    println!(
        "LEFT OUT: the providers' SDKs against their stand-ins (not fetched: ./tests/run does)"
    );
    None
}
