//! What was measured on this board, kept over restarts.
//!
//! **Invariant:** what is stored counts for exactly the bundle, the board, the library, the agent and
//! the configuration that it was measured with; anything else is measured again.

use std::collections::BTreeMap;
use std::path::Path;

use holdfast_models::{Bundle, Library};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::choice::{Choice, Tried};
use super::library::OnnxRuntimeConfig;
use crate::config::ModelsConfig;
use crate::whole_file;

/// All bundles that were measured, by their names.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    bundles: BTreeMap<String, Tuned>,
}

/// What was measured of one bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tuned {
    /// What it was measured with: see [`fingerprint`].
    pub fingerprint: String,
    /// The choice that was taken.
    pub choice: Choice,
    /// All that were tried.
    pub tried: Vec<Tried>,
}

impl Record {
    /// What is kept in a file; nothing when there is none that reads.
    pub fn read(file: &Path) -> Self {
        let bytes = std::fs::read(file).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// What counts for this bundle now.
    pub fn of(&self, bundle: &Bundle, fingerprint: &str) -> Option<&Tuned> {
        self.bundles.get(bundle.name()).filter(|tuned| tuned.fingerprint == fingerprint)
    }

    /// Takes in what was measured, and writes the file.
    ///
    /// # Errors
    /// The file cannot be written; what was measured counts until the restart.
    pub fn put(&mut self, file: &Path, bundle: &Bundle, tuned: Tuned) -> std::io::Result<()> {
        self.bundles.insert(bundle.name().to_owned(), tuned);
        let bytes = serde_json::to_vec_pretty(self).map_err(std::io::Error::other)?;
        if let Some(dir) = file.parent() {
            std::fs::create_dir_all(dir)?;
        }
        whole_file::write(file, &bytes, 0o644)
    }
}

/// One text for everything that a measurement depends on.
pub fn fingerprint(bundle: &Bundle, models: &ModelsConfig) -> String {
    let library = match &models.onnxruntime {
        OnnxRuntimeConfig::Off => String::new(),
        OnnxRuntimeConfig::Auto => identity(None),
        OnnxRuntimeConfig::At(path) => identity(Some(path)),
    };
    let parts = [
        hex::encode(bundle.digest()),
        env!("CARGO_PKG_VERSION").to_owned(),
        board(),
        library,
        format!("{:?} {:?}", models.pins, models.limits),
    ];
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())
}

/// The library's file, as it is now.
fn identity(configured: Option<&Path>) -> String {
    let Ok(path) = Library::find(configured) else { return String::new() };
    let file = path.metadata().ok();
    let changed = file.as_ref().and_then(|file| file.modified().ok());
    format!("{} {:?} {changed:?}", path.display(), file.map(|file| file.len()))
}

/// Processor, cores and memory.
fn board() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let names = ["model name", "Hardware", "CPU implementer", "CPU part", "Model"];
    let mut lines: Vec<&str> =
        cpu.lines().filter(|line| names.iter().any(|name| line.starts_with(name))).collect();
    lines.dedup();
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = memory.lines().next().unwrap_or_default();
    format!("{} {lines:?} {:?} {total}", std::env::consts::ARCH, super::cores())
}
