//! The folder of reference models and recordings, which is not part of the project.
//!
//! **Invariant:** a test that needs the folder and does not find it says so and passes, unless
//! `HOLDFAST_REQUIRE_REFERENCE=1` asks for it.

use std::path::{Path, PathBuf};

/// The project's own folder.
pub fn project() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests)
}

/// The bundles that the project ships.
pub fn bundles() -> PathBuf {
    project().join("models/bundles")
}

/// The reference folder, or `None` when `what` is left out for want of it.
pub fn reference(what: &str) -> Option<PathBuf> {
    let named = std::env::var_os("HOLDFAST_REFERENCE").map(PathBuf::from);
    let folder = named.or_else(|| Some(project().parent()?.join("shared")));
    let found = folder.filter(|folder| folder.join("data").is_dir());
    if found.is_none() {
        let required = std::env::var("HOLDFAST_REQUIRE_REFERENCE").is_ok_and(|value| value == "1");
        assert!(!required, "{what}: the reference folder is required and was not found");
        println!("LEFT OUT: {what} (no reference folder)");
    }
    found
}
