//! Owns the file of the tokens: who has one, and what it is for.
//!
//! `tokens.json` in the state folder, read again when it changes, so that a token that is revoked is
//! refused within a second. Times are those of the device's own count, which no change of the date moves.
//!
//! **Invariant:** the file has no token in it, only digests; it changes as a whole or not at all, and one
//! that cannot be read lets nobody in.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::grant::Grant;
use super::token::{Digest, Token};
use crate::whole_file;

/// The version of the file that is written.
const VERSION: u32 = 1;

/// One token, without its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The digest of its text, in hexadecimal digits.
    pub sha256: String,
    /// When it was made, in milliseconds of the device's count.
    pub made_at_ms: u64,
    /// When it ends, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<u64>,
    /// What it is for.
    pub grant: Grant,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    version: u32,
    tokens: BTreeMap<String, Entry>,
}

/// The tokens of a device, by their names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tokens(BTreeMap<String, Entry>);

/// Why the tokens cannot be read or changed.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The file cannot be read or written.
    #[error("{}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what is written here.
    #[error("{} is no list of tokens ({why}): restore it, or remove it and make the tokens anew", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The name is taken.
    #[error(
        "there is a token \"{0}\" already: `holdfast-agent token revoke {0}` first, or take another name"
    )]
    Taken(String),
    /// The name does not fit.
    #[error("\"{0}\" is no name: 1 to 64 of letters, digits, `.`, `_` and `-`")]
    Name(String),
    /// No such token.
    #[error("there is no token \"{0}\": `holdfast-agent token ls` lists them")]
    Unknown(String),
    /// The system gives no random numbers.
    #[error("no random numbers")]
    Random(#[source] std::io::Error),
}

/// Where the tokens of a state folder are.
pub(crate) fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("tokens.json")
}

impl Tokens {
    /// Those of a state folder; none where there is no file. Blocks.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn read(state_dir: &Path) -> Result<Self, StoreError> {
        let path = path(state_dir);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(StoreError::File { path, source }),
        };
        Self::parse(&text).map_err(|why| StoreError::Foreign { path, why })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let text: Text = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if text.version != VERSION {
            return Err(format!("its version is {}, and {VERSION} is known", text.version));
        }
        for (name, entry) in &text.tokens {
            if Digest::from_hex(&entry.sha256).is_none() {
                return Err(format!("the digest of \"{name}\" is none"));
            }
        }
        Ok(Self(text.tokens))
    }

    /// Writes them. Blocks until they are durable.
    ///
    /// # Errors
    /// When the disk does not take them.
    pub fn write(&self, state_dir: &Path) -> Result<(), StoreError> {
        let path = path(state_dir);
        let text = Text { version: VERSION, tokens: self.0.clone() };
        let failed = |source| StoreError::File { path: path.clone(), source };
        let bytes = serde_json::to_vec_pretty(&text).map_err(|error| failed(error.into()))?;
        std::fs::create_dir_all(state_dir).map_err(failed)?;
        whole_file::write(&path, &bytes, 0o600).map_err(failed)?;
        // Root may make tokens for an agent that is another user.
        let folder = std::fs::metadata(state_dir).map_err(failed)?;
        let own = std::fs::metadata(&path).map_err(failed)?;
        if own.uid() != folder.uid() {
            std::os::unix::fs::chown(&path, Some(folder.uid()), Some(folder.gid()))
                .map_err(failed)?;
        }
        Ok(())
    }

    /// Changes those of a state folder, one change after the other. Blocks until the change is durable.
    ///
    /// # Errors
    /// What the change says, and files that cannot be read or written.
    pub fn change<T>(
        state_dir: &Path,
        change: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let path = state_dir.join("tokens.lock");
        let failed = |source| StoreError::File { path: path.clone(), source };
        std::fs::create_dir_all(state_dir).map_err(failed)?;
        let lock = File::create(&path).map_err(failed)?;
        // Given back with the file.
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(|e| failed(e.into()))?;
        let mut tokens = Self::read(state_dir)?;
        let changed = change(&mut tokens)?;
        tokens.write(state_dir)?;
        Ok(changed)
    }

    /// Makes a token; the text that is returned is nowhere else.
    ///
    /// # Errors
    /// A name that is taken or does not fit.
    pub fn add(
        &mut self,
        name: &str,
        grant: Grant,
        now_ms: u64,
        lasts_ms: Option<u64>,
    ) -> Result<Token, StoreError> {
        let is_name = (1..=64).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if !is_name {
            return Err(StoreError::Name(name.chars().take(64).collect()));
        }
        if self.0.contains_key(name) {
            return Err(StoreError::Taken(name.to_owned()));
        }
        let token = Token::new().map_err(StoreError::Random)?;
        let entry = Entry {
            sha256: token.digest().to_hex(),
            made_at_ms: now_ms,
            expires_at_ms: lasts_ms.map(|lasts| now_ms.saturating_add(lasts)),
            grant,
        };
        self.0.insert(name.to_owned(), entry);
        Ok(token)
    }

    /// Takes a token out.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn revoke(&mut self, name: &str) -> Result<Entry, StoreError> {
        self.0.remove(name).ok_or_else(|| StoreError::Unknown(name.chars().take(64).collect()))
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.0.iter().map(|(name, entry)| (name.as_str(), entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_kept_without_their_texts() {
        let dir = tempfile::tempdir().unwrap();
        let mut tokens = Tokens::read(dir.path()).unwrap();
        let grant = Grant { tasks: vec!["voice".into()], per_min: Some(60), ..Grant::default() };
        let token = tokens.add("line-7", grant, 1000, Some(500)).unwrap();
        assert!(matches!(tokens.add("line-7", Grant::all(), 0, None), Err(StoreError::Taken(_))));
        assert!(matches!(tokens.add("line 7", Grant::all(), 0, None), Err(StoreError::Name(_))));
        tokens.write(dir.path()).unwrap();
        let text = std::fs::read_to_string(path(dir.path())).unwrap();
        assert!(!text.contains(token.text().trim_start_matches("hf_")), "{text}");
        let mut again = Tokens::read(dir.path()).unwrap();
        assert_eq!(again, tokens);
        let kept: Vec<_> =
            again.iter().map(|(name, e)| (name, &*e.sha256, e.expires_at_ms)).collect();
        assert_eq!(kept, [("line-7", &*token.digest().to_hex(), Some(1500))]);
        again.revoke("line-7").unwrap();
        assert!(matches!(again.revoke("line-7"), Err(StoreError::Unknown(_))));
        assert_eq!(again.iter().count(), 0);
    }

    #[test]
    fn a_file_of_another_kind_lets_nobody_in() {
        for text in [
            "",
            "{}",
            r#"{"version": 2, "tokens": {}}"#,
            r#"{"version": 1, "tokens": {"a": {"sha256": "00", "made_at_ms": 1}}}"#,
            r#"{"version": 1, "tokens": {}, "more": 1}"#,
        ] {
            assert!(Tokens::parse(text).is_err(), "{text}");
        }
    }
}
