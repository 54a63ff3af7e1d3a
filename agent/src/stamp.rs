//! Owns telling one state of a file from another without reading it.
//!
//! **Invariant:** a file that was written, replaced, or may be read by others than before has another stamp.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A state of a file: where it is on disk, how long it is, and when something of it changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    changed: (i64, i64),
    inode: (u64, u64),
    bytes: u64,
}

impl Stamp {
    /// Of the file that is there now; `None` where there is none. Blocks.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let about = std::fs::metadata(path).ok()?;
        Some(Self {
            // The time of the last change is set by whatever changes it, its rights too.
            changed: (about.ctime(), about.ctime_nsec()),
            inode: (about.dev(), about.ino()),
            bytes: about.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_that_is_another_one_is_told_from_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("a"), dir.path().join("b"));
        assert_eq!(Stamp::of(&path), None);
        std::fs::write(&path, "1").unwrap();
        let first = Stamp::of(&path).unwrap();
        assert_eq!(Stamp::of(&path), Some(first));
        std::fs::write(&other, "2").unwrap();
        std::fs::rename(&other, &path).unwrap();
        let second = Stamp::of(&path).unwrap();
        assert_ne!(second, first);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
        // The kernel's clock of files goes in steps: a change within one is the same time.
        let is_told = (0..100).any(|_| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(1));
            Stamp::of(&path) != Some(second)
        });
        assert!(is_told);
    }
}
