//! Owns the writing of small files that are either as before or whole.
//!
//! **Invariant:** after a crash at any moment the file has its old bytes or its new ones; of what may be
//! lost that holds for a crash of the agent.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Writes beside, syncs, renames, syncs the folder. Blocks.
pub(crate) fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let (mut file, beside) = beside(path, mode)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// The same without a sync, for what may be lost: after a crash of the machine, and of nothing less, the
/// file may be cut, too. Blocks.
pub(crate) fn write_losable(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let (mut file, beside) = beside(path, mode)?;
    let written = file.write_all(bytes).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // What a full disk has taken of it, it can use.
        fs::remove_file(&beside).ok();
    }
    written
}

fn beside(path: &Path, mode: u32) -> io::Result<(File, PathBuf)> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(mode).open(&beside)?;
    Ok((file, beside.into()))
}
