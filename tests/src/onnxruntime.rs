//! The ONNX Runtime libraries that tests/run fetches, one folder a version.
//!
//! **Invariant:** a test that needs one and does not find it says so and passes, unless
//! `HOLDFAST_REQUIRE_REFERENCE=1` asks for it.

use std::path::PathBuf;

use holdfast_models::Library;

use crate::reference::project;

/// The folder of versions.
pub fn folder() -> PathBuf {
    let named = std::env::var_os("HOLDFAST_ONNXRUNTIMES").map(PathBuf::from);
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| project().join("target"));
    named.unwrap_or_else(|| target.join("onnxruntime"))
}

/// The library of a version (`1.22`, `1.23`, `newest`), loaded, or `None` when it is left out.
pub fn library(version: &str) -> Option<Library> {
    let folder = found(version)?;
    Some(Library::open(Some(&folder)).unwrap_or_else(|error| panic!("{error}")))
}

/// The folder of a version, or `None` when it is left out.
pub fn found(version: &str) -> Option<PathBuf> {
    let folder = folder().join(version);
    if folder.is_dir() {
        return Some(folder);
    }
    let required = std::env::var("HOLDFAST_REQUIRE_REFERENCE").is_ok_and(|value| value == "1");
    assert!(!required, "ONNX Runtime {version} is required and is not in {}", folder.display());
    println!("LEFT OUT: ONNX Runtime {version} (not fetched: ./tests/run does)");
    None
}

/// The folder of wheels as they are published, or `None` when they are left out.
pub fn wheels() -> Option<PathBuf> {
    let folder = folder().join("wheels");
    if folder.is_dir() {
        return Some(folder);
    }
    let required = std::env::var("HOLDFAST_REQUIRE_REFERENCE").is_ok_and(|value| value == "1");
    assert!(
        !required,
        "the wheels of ONNX Runtime are required and are not in {}",
        folder.display()
    );
    println!("LEFT OUT: the wheels of ONNX Runtime (not fetched: ./tests/run does)");
    None
}
