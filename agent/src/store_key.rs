//! Owns the store's key: 32 secret bytes from which the keys are made that seal what lies in the state
//! folder.
//!
//! It is read from where the configuration says; without that it is `store.key` in the state folder,
//! made when it is first needed and readable for its owner alone.
//!
//! **Invariant:** a [`StoreKey`] cannot be printed; a file that is there and is none is never written over.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use thiserror::Error;

use crate::destination::Credential;
use crate::escalate::{CredentialError, Secret};
use crate::whole_file;

/// What it is called in the state folder.
const FILE: &str = "store.key";

/// The store's key.
#[derive(Clone)]
pub struct StoreKey([u8; 32]);

/// Why there is none.
#[derive(Debug, Error)]
pub enum StoreKeyError {
    /// What the configuration names cannot be read.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// It was read and is no key.
    #[error(
        "what the configuration names as the store's key is none: it must be 32 bytes in base64 or \
         hexadecimal, such as `openssl rand -base64 32` makes them"
    )]
    Unfit,
    /// The file in the state folder cannot be read or made.
    #[error("the store's key {} cannot be read or made", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file in the state folder has something else in it.
    #[error("the store's key {} is damaged; restore it, or remove it for a new one, with which \
             nothing can be read that was sealed before", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

impl StoreKey {
    /// The key from where `source` says, else the one of the state folder, which is made where there is
    /// none.
    ///
    /// # Errors
    /// When there is none, and none can be made.
    pub async fn read(
        source: Option<&Credential>,
        state_dir: &Path,
    ) -> Result<Self, StoreKeyError> {
        if let Some(source) = source {
            let secret = Secret::read(source).await?;
            return parse(secret.text()).map(Self).ok_or(StoreKeyError::Unfit);
        }
        let path = state_dir.join(FILE);
        let stopped = |_| StoreKeyError::File {
            path: state_dir.join(FILE),
            source: io::Error::other("the agent stops"),
        };
        tokio::task::spawn_blocking(move || load_or_make(&path)).await.map_err(stopped)?
    }

    /// A key for one purpose alone.
    pub(crate) fn of(&self, purpose: &str) -> [u8; 32] {
        mac(&self.0, &[b"holdfast store: ", purpose.as_bytes()])
    }
}

impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreKey")
    }
}

/// HMAC-SHA256 of these bytes, one part behind the other.
pub(crate) fn mac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

fn parse(text: &str) -> Option<[u8; 32]> {
    let bytes = hex::decode(text).ok().or_else(|| STANDARD.decode(text).ok())?;
    bytes.try_into().ok()
}

fn load_or_make(path: &Path) -> Result<StoreKey, StoreKeyError> {
    let failed = |source| StoreKeyError::File { path: path.to_owned(), source };
    match std::fs::read(path) {
        Ok(bytes) => match bytes.try_into() {
            Ok(key) => Ok(StoreKey(key)),
            Err(_) => Err(StoreKeyError::Damaged { path: path.to_owned() }),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let mut key = [0; 32];
            getrandom::fill(&mut key).map_err(|error| failed(io::Error::other(error)))?;
            let folder = path.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(folder).map_err(failed)?;
            whole_file::write(path, &key, 0o600).map_err(failed)?;
            Ok(StoreKey(key))
        }
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn without_a_word_the_key_is_made_once_and_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let first = StoreKey::read(None, dir.path()).await.unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = StoreKey::read(None, dir.path()).await.unwrap();
        assert_eq!(first.of("a"), again.of("a"));
        assert_ne!(first.of("a"), first.of("b"));
        assert_eq!(format!("{first:?}"), "StoreKey");
        std::fs::write(&path, "short").unwrap();
        let error = StoreKey::read(None, dir.path()).await.unwrap_err().to_string();
        assert!(error.contains("store.key is damaged"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"short", "it is not written over");
    }

    #[tokio::test]
    async fn a_key_that_is_configured_is_32_bytes_in_either_form() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let hexadecimal = "07".repeat(32);
        for (text, is_key) in [
            (STANDARD.encode([7; 32]), true),
            (hexadecimal.clone() + "\n", true),
            (hexadecimal[2..].to_owned(), false),
            ("secret".to_owned(), false),
            (String::new(), false),
        ] {
            std::fs::write(&path, &text).unwrap();
            let read = StoreKey::read(Some(&Credential::File(path.clone())), dir.path()).await;
            assert_eq!(read.is_ok(), is_key, "{text}");
            if let Ok(key) = read {
                assert_eq!(key.of("a"), StoreKey([7; 32]).of("a"), "{text}");
            }
        }
        assert!(!dir.path().join(FILE).exists(), "none is made beside it");
    }
}
