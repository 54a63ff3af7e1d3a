//! What a folder says that it is, before anything in it was checked.
//!
//! **Invariant:** read for telling people only; nothing is loaded because of it.

use std::path::Path;

use super::{MANIFEST, MAX_MANIFEST_BYTES, read_bounded};

/// Texts of a manifest that nobody checked are told up to this length.
const MOST_TOLD: usize = 64;

/// What a `bundle.toml` says of itself, true or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claim {
    /// The bundle's name; empty where it says none.
    pub name: String,
    /// Its version; empty where it says none.
    pub version: String,
    /// The task that it does; empty where it says none.
    pub task: String,
}

impl Claim {
    /// What the folder `dir` says, as far as its manifest reads. Where that gives no name, the folder's
    /// own is taken.
    pub fn of(dir: &Path) -> Self {
        let bytes = read_bounded(&dir.join(MANIFEST), MAX_MANIFEST_BYTES).unwrap_or_default();
        let table = String::from_utf8_lossy(&bytes).parse::<toml::Table>().unwrap_or_default();
        let text = |key: &str| {
            let text = table.get(key).and_then(toml::Value::as_str).unwrap_or_default();
            text.chars().filter(|c| !c.is_control()).take(MOST_TOLD).collect::<String>()
        };
        let (name, version, task) = (text("name"), text("version"), text("task"));
        if !name.is_empty() {
            return Self { name, version, task };
        }
        let folder = dir.file_name().map(|name| name.to_string_lossy().into_owned());
        Self { name: folder.unwrap_or_default(), version, task }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_that_is_wrong_still_says_what_it_means_to_be() {
        let dir = tempfile::tempdir().unwrap();
        let claim = |folder: &str, manifest: Option<&str>| {
            let folder = dir.path().join(folder);
            std::fs::create_dir_all(&folder).unwrap();
            if let Some(manifest) = manifest {
                std::fs::write(folder.join(MANIFEST), manifest).unwrap();
            }
            let Claim { name, version, task } = Claim::of(&folder);
            [name, version, task]
        };
        let whole = "name = \"table\"\nversion = \"1.2.0\"\ntask = \"look-up\"\nformat = 7\n";
        assert_eq!(claim("a", Some(whole)), ["table", "1.2.0", "look-up"]);
        assert_eq!(claim("b", Some("version = 3\n")), ["b", "", ""]);
        assert_eq!(claim("table-1.2.0", Some("name = [")), ["table-1.2.0", "", ""]);
        assert_eq!(claim("c", None), ["c", "", ""]);
        let long = format!("name = \"{}\\u0007\"\n", "x".repeat(100));
        assert_eq!(claim("d", Some(&long))[0].len(), MOST_TOLD);
    }
}
