//! The providers' own SDKs for Python and OpenAI's for Node, which tests/run fetches, and what is asked
//! with them (`tests/sdks`).
//!
//! **Invariant:** a test that needs them and does not find them says so and passes, unless
//! `HOLDFAST_REQUIRE_REFERENCE=1` asks for them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::reference::project;

/// A command that runs `tests/sdks/check.py`, or `None` when it is left out.
pub fn check() -> Option<Command> {
    script("check.py")
}

/// A command that runs this script of `tests/sdks` with Python, or `None` when it is left out.
pub fn script(name: &str) -> Option<Command> {
    let folder = folder();
    if !folder.join("anthropic").is_dir() {
        return left_out("the providers' SDKs against their stand-ins", &folder);
    }
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", folder).env("PYTHONDONTWRITEBYTECODE", "1");
    command.arg(path(name));
    Some(command)
}

/// A command that runs this script of `tests/sdks` with Node, or `None` when it is left out.
pub fn node_script(name: &str) -> Option<Command> {
    let modules = folder().join("node/node_modules");
    if !modules.join("openai").is_dir() {
        return left_out("OpenAI's client for Node against the agent", &modules);
    }
    let mut command = Command::new("node");
    command.env("NODE_PATH", modules).arg(path(name));
    Some(command)
}

/// Where they are; those for Node are in a folder of their own there.
fn folder() -> PathBuf {
    let named = std::env::var_os("HOLDFAST_SDKS").map(PathBuf::from);
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| project().join("target"));
    named.unwrap_or_else(|| target.join("sdks"))
}

fn path(name: &str) -> PathBuf {
    project().join("tests/sdks").join(name)
}

fn left_out(what: &str, folder: &Path) -> Option<Command> {
    let required = std::env::var("HOLDFAST_REQUIRE_REFERENCE").is_ok_and(|value| value == "1");
    assert!(!required, "{what}: required, and not in {}", folder.display());
    println!("LEFT OUT: {what} (not fetched: ./tests/run does)");
    None
}
