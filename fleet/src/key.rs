//! The controller's key: made at the first start, the same ever after.
//!
//! **Invariant:** the file is complete or absent, and only its owner can read it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use holdfast_wire::sign::Signer;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    #[error(
        "controller key {path} cannot be read or written; check who owns {path} and whether the disk is full"
    )]
    File { path: PathBuf, source: io::Error },
    #[error(
        "controller key {path} is damaged: it has {found} bytes instead of 32; restore it from a backup, or remove it \
         for a new key (devices that pinned the old one will then refuse this controller)"
    )]
    Damaged { path: PathBuf, found: usize },
    #[error("the system gives no random numbers for a new controller key")]
    Random(#[source] getrandom::Error),
}

/// Reads the key, or makes it.
pub(crate) fn load_or_make(data: &Path) -> Result<Signer, KeyError> {
    let path = data.join("controller.key");
    let failed = |source| KeyError::File { path: path.clone(), source };
    match fs::read(&path) {
        Ok(bytes) => <[u8; 32]>::try_from(bytes.as_slice())
            .map(|secret| Signer::from_secret(&secret))
            .map_err(|_| KeyError::Damaged { path: path.clone(), found: bytes.len() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut secret = [0; 32];
            getrandom::fill(&mut secret).map_err(KeyError::Random)?;
            write_new(&path, &secret).map_err(failed)?;
            Ok(Signer::from_secret(&secret))
        }
        Err(error) => Err(failed(error)),
    }
}

fn write_new(path: &Path, secret: &[u8; 32]) -> io::Result<()> {
    let new = path.with_extension("key.new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(secret)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = load_or_make(dir.path()).unwrap().public_key();
        assert_eq!(load_or_make(dir.path()).unwrap().public_key(), first);
        let mode = fs::metadata(dir.path().join("controller.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_key_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("controller.key"), b"short").unwrap();
        let error = load_or_make(dir.path()).unwrap_err();
        assert!(matches!(error, KeyError::Damaged { found: 5, .. }), "{error}");
        assert_eq!(fs::read(dir.path().join("controller.key")).unwrap(), b"short");
    }
}
