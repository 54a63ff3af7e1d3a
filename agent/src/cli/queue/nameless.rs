//! Files without a name: what is held can be confidential.
//!
//! **Invariant:** where the file system has nameless files, nothing is left of one when the command is
//! stopped in the middle.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, openat};

/// A file that gets its name when it is whole; only its owner can read it.
pub(super) struct Beside {
    pub(super) file: File,
    /// A name in the same folder.
    path: PathBuf,
    has_name: bool,
}

impl Beside {
    /// A file that is to be at `path`. Where the file system has no nameless files it has a name beside it.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let beside = path.with_file_name(name);
        if let Ok(file) = in_folder(parent(path)) {
            return Ok(Self { file, path: beside, has_name: false });
        }
        let file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        Ok(Self { file, path: beside, has_name: true })
    }

    /// Puts it at `to`, in the place of what is there; it is synced.
    pub(super) fn put(mut self, to: &Path) -> io::Result<()> {
        if !self.has_name {
            let opened = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            linkat(CWD, &*opened, CWD, &self.path, AtFlags::SYMLINK_FOLLOW)?;
            self.has_name = true;
        }
        std::fs::rename(&self.path, to)?;
        self.has_name = false;
        File::open(parent(to))?.sync_all()
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if self.has_name {
            drop(std::fs::remove_file(&self.path));
        }
    }
}

/// A file in a folder that is there as long as it is open.
pub(super) fn scratch(folder: &Path) -> io::Result<File> {
    in_folder(folder).or_else(|_unsupported| {
        let path = folder.join(format!(".holdfast-{}.part", std::process::id()));
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(file)
    })
}

fn in_folder(folder: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(File::from(openat(CWD, folder, flags, Mode::RUSR | Mode::WUSR)?))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
