//! Owns reading a secret at the moment of its use, or so shortly before that nobody could tell.
//!
//! **Invariant:** a [`Secret`] cannot be printed, and an error names the place that was read,
//! never what was read.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::time::Instant;

use crate::destination::Credential;

/// A longer file is not a credential.
const MAX_BYTES: u64 = 16 * 1024;

/// A secret that was read so shortly ago is not read again.
const KEPT: Duration = Duration::from_secs(1);

/// Part of a secret that is shorter than this is no secret.
const MIN_PIECE: usize = 16;

/// What proves to a destination who we are.
#[derive(Clone)]
pub(crate) struct Secret(String);

impl Secret {
    /// Reads the secret, one line, from where `credential` says.
    pub(crate) async fn read(credential: &Credential) -> Result<Self, CredentialError> {
        let (text, place) = lookup(credential).await?;
        let line = match credential {
            Credential::Env(_) => &text,
            Credential::File(_) | Credential::Systemd(_) => text.lines().next().unwrap_or_default(),
        };
        let line = line.trim();
        if line.is_empty() || !line.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
            return Err(CredentialError::Unfit { place });
        }
        Ok(Self(line.to_owned()))
    }

    /// Reads all that is there: a file of several lines that has the secret in it.
    pub(super) async fn read_whole(credential: &Credential) -> Result<Self, CredentialError> {
        let (text, place) = lookup(credential).await?;
        let fits = |b: u8| b.is_ascii_graphic() || b.is_ascii_whitespace();
        let text = text.trim();
        if text.is_empty() || !text.bytes().all(fits) {
            return Err(CredentialError::Unfit { place });
        }
        Ok(Self(text.to_owned()))
    }

    /// A secret that was given for another one.
    pub(super) fn of(text: String) -> Self {
        Self(text)
    }

    /// The secret itself, for who makes headers or a key of it.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// The secret as a key that signs webhooks; it does not leave.
    pub(super) fn signing_key(&self) -> Option<Vec<u8>> {
        crate::results::signature::key(&self.0)
    }

    /// The value of an `Authorization` header.
    pub(super) fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// Tells one secret from another without keeping it.
    pub(super) fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }

    /// `text` with the secret taken out, and every long part of it, for what a destination says about
    /// us.
    pub(super) fn scrub(&self, text: &str) -> String {
        let parts = self.0.split(|c: char| c.is_whitespace() || ['"', '='].contains(&c));
        let parts = parts.filter(|part| part.len() >= MIN_PIECE);
        let scrubbed = text.replace(&self.0, "[credential]");
        parts.fold(scrubbed, |text, part| text.replace(part, "[credential]"))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What one destination's credential was a moment ago, so that it is not read for each of many sends.
#[derive(Debug, Default)]
pub(super) struct Lately(Mutex<Option<(Secret, Instant)>>);

impl Lately {
    /// The secret, if it was read no longer than [`KEPT`] ago.
    pub(super) fn get(&self, now: Instant) -> Option<Secret> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < KEPT;
        kept.as_ref().filter(|(_, at)| is_fresh(*at)).map(|(secret, _)| secret.clone())
    }

    /// Keeps what was read just now.
    pub(super) fn keep(&self, secret: &Secret, now: Instant) {
        let kept = Some((secret.clone(), now));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = kept;
    }

    /// Has it read anew the next time.
    pub(super) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// What is there, and where that is.
async fn lookup(credential: &Credential) -> Result<(String, String), CredentialError> {
    let variable = |name: &str| {
        let unset = |_| CredentialError::Variable { name: name.to_owned() };
        std::env::var(name).map_err(unset)
    };
    match credential {
        Credential::File(path) => Ok((whole(path).await?, path.display().to_string())),
        Credential::Env(name) => Ok((variable(name)?, format!("${name}"))),
        Credential::Systemd(name) => {
            let path = PathBuf::from(variable("CREDENTIALS_DIRECTORY")?).join(name);
            Ok((whole(&path).await?, path.display().to_string()))
        }
    }
}

async fn whole(path: &PathBuf) -> Result<String, CredentialError> {
    let fail = |source| CredentialError::File { path: path.clone(), source };
    let unfit = || CredentialError::Unfit { place: path.display().to_string() };
    let length = tokio::fs::metadata(path).await.map_err(fail)?.len();
    if length > MAX_BYTES {
        return Err(unfit());
    }
    let bytes = tokio::fs::read(path).await.map_err(fail)?;
    String::from_utf8(bytes).map_err(|_| unfit())
}

/// Why there is no credential to send with.
#[derive(Debug, Error)]
pub enum CredentialError {
    /// The file cannot be read.
    #[error("credential file {} cannot be read: put the key on its first line", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The variable is not set, or is not text.
    #[error(
        "environment variable {name} does not hold a credential: set it for the agent's process"
    )]
    Variable {
        /// The variable.
        name: String,
    },
    /// What is there is empty, too long, or not one line of ASCII.
    #[error("what {place} holds is not a credential: it must be one line of printable ASCII")]
    Unfit {
        /// The file or variable.
        place: String,
    },
    /// It begins like a service account's file and is none.
    #[error(
        "the service account is not usable: it must be Google's JSON file with client_email, \
         private_key, private_key_id and a token_uri over https"
    )]
    Account,
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> Result<Secret, CredentialError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, bytes).unwrap();
        Secret::read(&Credential::File(path)).await
    }

    #[tokio::test]
    async fn the_first_line_of_a_file_is_the_secret() {
        for (case, bytes, want) in [
            ("plain", &b"sk-1"[..], Some("Bearer sk-1")),
            ("with a line end", b"sk-1\r\nrest", Some("Bearer sk-1")),
            ("empty", b"", None),
            ("blank first line", b"\nsk-1", None),
            ("a line break inside", b"sk\x0b1", None),
            ("not text", b"\xff\xfe", None),
            ("huge", &[b'a'; 20_000], None),
        ] {
            let got = read(bytes).await;
            assert_eq!(got.ok().map(|secret| secret.bearer()).as_deref(), want, "{case}");
        }
    }

    #[tokio::test]
    async fn what_is_in_a_file_of_several_lines_is_taken_out_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials");
        let text = "[default]\naws_access_key_id = AKIDEXAMPLE000000000\n\
                    aws_secret_access_key = abc/def+ghijklmnopqr\n";
        std::fs::write(&path, text).unwrap();
        let secret = Secret::read_whole(&Credential::File(path)).await.unwrap();
        assert_eq!(secret.text(), text.trim());
        let said = "no AKIDEXAMPLE000000000 with abc/def+ghijklmnopqr";
        assert_eq!(secret.scrub(said), "no [credential] with [credential]");
    }

    #[tokio::test]
    async fn a_secret_is_never_printed() {
        let secret = read(b"sk-very-secret").await.unwrap();
        assert!(!format!("{secret:?}").contains("very"));
        assert_eq!(secret.scrub("bad key sk-very-secret!"), "bad key [credential]!");
        let unfit = read("sk-very-secret-ü".as_bytes()).await.unwrap_err();
        assert!(!format!("{unfit} {unfit:?}").contains("very"));
        let missing = Secret::read(&Credential::Env("HOLDFAST_NO_SUCH_KEY".to_owned())).await;
        assert!(missing.unwrap_err().to_string().contains("HOLDFAST_NO_SUCH_KEY"));
    }
}
