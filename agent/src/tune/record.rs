//! What was measured on this board, kept over restarts.
//!
//! **Invariant:** what is stored counts for exactly the bundle, the board, the library, the agent and
//! the configuration that it was measured with; anything else is measured again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use holdfast_models::{Bundle, Library};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::choice::{Choice, Tried};
use super::library::OnnxRuntimeConfig;
use crate::config::ModelsConfig;
use crate::whole_file;

/// A file that is longer is not one of these.
const MOST_BYTES: u64 = 16 << 20;

/// Of one bundle, so many versions are remembered.
const MOST_VERSIONS: usize = 8;

/// All bundles that were measured, each as `name@version`.
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
    /// What is kept in a file; nothing when there is none that reads, which is told.
    pub fn read(file: &Path) -> Self {
        let parsed = read_json(file).unwrap_or_else(|| Ok(Self::default()));
        parsed.unwrap_or_else(|why| {
            tracing::warn!(file = %file.display(), %why, "what was measured does not read, and is measured again");
            Self::default()
        })
    }

    /// What counts for this bundle now.
    pub fn of(&self, bundle: &Bundle, fingerprint: &str) -> Option<&Tuned> {
        self.bundles.get(&key(bundle)).filter(|tuned| tuned.fingerprint == fingerprint)
    }

    /// Takes in what was measured; of too many versions of a bundle another one is forgotten.
    pub fn put(&mut self, bundle: &Bundle, tuned: Tuned) {
        let (own, name) = (key(bundle), format!("{}@", bundle.name()));
        let others = self.bundles.keys().filter(|key| key.starts_with(&name) && **key != own);
        if others.clone().count() >= MOST_VERSIONS
            && let Some(other) = { others }.next().cloned()
        {
            self.bundles.remove(&other);
        }
        self.bundles.insert(own, tuned);
    }

    /// What was measured of the bundle with this key does not count any more.
    pub fn forget(&mut self, key: &str) {
        self.bundles.remove(key);
    }

    /// Writes the file.
    ///
    /// # Errors
    /// The file cannot be written; what was measured counts until the restart.
    pub fn write(&self, file: &Path) -> std::io::Result<()> {
        write_json(file, self)
    }
}

/// What is kept in a file of the state folder; `None` where there is none.
pub(super) fn read_json<T: DeserializeOwned>(file: &Path) -> Option<Result<T, String>> {
    let found = File::open(file).ok()?;
    let mut bytes = Vec::new();
    let read = found.take(MOST_BYTES).read_to_end(&mut bytes).map_err(|e| e.to_string());
    Some(read.and_then(|_| serde_json::from_slice(&bytes).map_err(|e| e.to_string())))
}

/// Keeps something in a file of the state folder. Blocks.
///
/// # Errors
/// The file cannot be written; what was found out counts until the restart.
pub(super) fn write_json(file: &Path, kept: &impl Serialize) -> std::io::Result<()> {
    let bytes = serde_json::to_vec_pretty(kept).map_err(std::io::Error::other)?;
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir)?;
    }
    whole_file::write(file, &bytes, 0o644)
}

/// What a bundle is remembered by.
pub(super) fn key(bundle: &Bundle) -> String {
    format!("{}@{}", bundle.name(), bundle.version())
}

/// One text for everything that a measurement depends on.
pub fn fingerprint(bundle: &Bundle, models: &ModelsConfig) -> String {
    let library = match &models.onnxruntime {
        OnnxRuntimeConfig::Off => String::new(),
        OnnxRuntimeConfig::Auto => identity(None),
        OnnxRuntimeConfig::At(path) | OnnxRuntimeConfig::Installed(path) => identity(Some(path)),
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

/// The library's file and those beside it that it loads itself, as they are now.
fn identity(configured: Option<&Path>) -> String {
    let Ok(path) = Library::find(configured) else { return String::new() };
    let beside = path.parent().and_then(|dir| std::fs::read_dir(dir).ok());
    let beside = beside.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let is_part = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        name.is_some_and(|name| name.starts_with("libonnxruntime_providers"))
    };
    let mut files: Vec<PathBuf> = beside.filter(is_part).collect();
    files.sort();
    files.insert(0, path);
    let of = |path: &PathBuf| {
        let file = path.metadata().ok();
        let changed = file.as_ref().and_then(|file| file.modified().ok());
        format!("{} {:?} {changed:?}", path.display(), file.map(|file| file.len()))
    };
    files.iter().map(of).collect::<Vec<_>>().join("\n")
}

/// Processor, cores, memory and kernel: the drivers of a provider come and go with that.
pub(super) fn board() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let names = ["model name", "Hardware", "CPU implementer", "CPU part", "Model"];
    let mut lines: Vec<&str> =
        cpu.lines().filter(|line| names.iter().any(|name| line.starts_with(name))).collect();
    lines.dedup();
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = memory.lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    // A kernel takes a little more or less of it at each start.
    let gib = total.map(|kib: u64| kib.div_ceil(1 << 20));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} {lines:?} {cores} {gib:?} {}", std::env::consts::ARCH, kernel.trim())
}
