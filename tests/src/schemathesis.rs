//! schemathesis, which tests/run fetches, and how an agent is asked with it (`tests/openapi`).
//!
//! **Invariant:** a test that needs it and does not find it says so and passes, unless
//! `HOLDFAST_REQUIRE_REFERENCE=1` asks for it.

use std::path::PathBuf;
use std::process::Command;

use crate::reference::project;

/// A command that asks what a document says, or `None` when it is left out.
pub fn run() -> Option<Command> {
    let named = std::env::var_os("HOLDFAST_SCHEMATHESIS").map(PathBuf::from);
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| project().join("target"));
    let folder = named.unwrap_or_else(|| target.join("schemathesis"));
    if folder.join("schemathesis").is_dir() {
        let own = project().join("tests/openapi");
        let path = format!("{}:{}", folder.display(), own.display());
        let mut command = Command::new("python3");
        command.env("PYTHONPATH", path).env("PYTHONDONTWRITEBYTECODE", "1").env("NO_PROXY", "*");
        command.args(["-m", "schemathesis.cli", "--config-file"]);
        command.arg(own.join("schemathesis.toml")).arg("run");
        return Some(command);
    }
    let required = std::env::var("HOLDFAST_REQUIRE_REFERENCE").is_ok_and(|value| value == "1");
    assert!(!required, "schemathesis is required and is not in {}", folder.display());
    println!("LEFT OUT: schemathesis against the agent (not fetched: ./tests/run does)");
    None
}
