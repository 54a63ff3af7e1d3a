//! Recordings and pictures to ask about.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// One file to ask about.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The task that takes it.
    pub task: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What it is, where somebody said so.
    pub label: Option<String>,
}

impl Sample {
    /// The file's name.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self) -> Result<Vec<u8>> {
        std::fs::read(&self.path).with_context(|| format!("cannot read {}", self.path.display()))
    }
}

/// The task that takes a file, by its extension.
pub fn task_of(path: &Path) -> Option<&'static str> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    match extension.as_str() {
        "wav" => Some("voice-commands"),
        "jpg" | "jpeg" | "png" | "webp" => Some("part-inspection"),
        _ => None,
    }
}

/// The samples that a shipped bundle carries, with their labels.
///
/// # Errors
/// When the bundle cannot be read.
pub fn of_bundle(dir: &Path) -> Result<Vec<Sample>> {
    let bundle = holdfast_models::Bundle::open(dir).map_err(anyhow::Error::new)?;
    let samples = bundle.samples().iter().filter_map(|sample| {
        let path = dir.join(&sample.file);
        Some(Sample { task: task_of(&path)?, path, label: sample.label.clone() })
    });
    Ok(samples.collect())
}

/// Every recording and picture under a folder, in order of their names.
///
/// # Errors
/// When the folder cannot be read.
pub fn under(dir: &Path) -> Result<Vec<Sample>> {
    let mut found = Vec::new();
    collect(dir, &mut found).with_context(|| format!("cannot read {}", dir.display()))?;
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn collect(dir: &Path, found: &mut Vec<Sample>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, found)?;
        } else if let Some(task) = task_of(&path) {
            found.push(Sample { task, path, label: None });
        }
    }
    Ok(())
}
