//! The files of the repository, as git sees them: tracked, and new ones that are not ignored.
//!
//! **Invariant:** paths are relative to the repository's root and written with `/`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the tests package lies in the root").to_owned()
}

/// Every file that is, or could be, committed.
pub(crate) fn files() -> Vec<String> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git runs");
    assert!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    let text = String::from_utf8(listed.stdout).expect("file names are UTF-8");
    let mut files: Vec<String> = text
        .split('\0')
        .filter(|name| !name.is_empty() && root().join(name).is_file())
        .map(str::to_owned)
        .collect();
    files.sort();
    files.dedup();
    assert!(files.iter().any(|f| f == "Cargo.toml"), "the root manifest is not listed");
    files
}

/// The text of one file; `None` when it is no text.
pub(crate) fn text(file: &str) -> Option<String> {
    String::from_utf8(std::fs::read(root().join(file)).expect("a listed file can be read")).ok()
}

/// Every Rust file under one of the folders.
pub(crate) fn rust(folders: &[&str]) -> Vec<(String, String)> {
    files()
        .into_iter()
        .filter(|f| f.ends_with(".rs") && folders.iter().any(|folder| f.starts_with(folder)))
        .map(|f| {
            let text = text(&f).expect("Rust files are UTF-8");
            (f, text)
        })
        .collect()
}
