//! Owns who the device is: its name, its key, the numbers of its messages, and the controller
//! that it trusts.
//!
//! The files lie in the state folder: `device.key` (32 secret bytes, readable by the owner only),
//! `device.sequence` (a number that no message has had) and `controller.pub` (the controller's
//! key in hex, written when it first acknowledged a hello; remove it to trust another controller).
//!
//! **Invariant:** a file is complete or absent; a sequence is never used twice, also after kill -9.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use holdfast_wire::id::DeviceId;
use holdfast_wire::message::{MessageError, Up};
use holdfast_wire::sign::{PublicKey, Signer};
use holdfast_wire::topic::Topic;
use thiserror::Error;

use crate::{clock, whole_file};

/// Sequences reserved on disk at once.
const BLOCK: u64 = 4096;

/// Why the device has no identity.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error("{} cannot be read or written; check who owns it and whether the disk is full", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key is not 32 bytes.
    #[error("device key {} is damaged; restore it, or remove it for a new key, which the controller \
             will take for another device", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The system has no random numbers.
    #[error("the system gives no random numbers for a device key")]
    Random(#[source] getrandom::Error),
    /// A message that cannot be encoded.
    #[error(transparent)]
    Message(#[from] MessageError),
}

/// The device's identity, opened.
#[derive(Debug)]
pub struct Identity {
    device: DeviceId,
    signer: Signer,
    controller: Option<PublicKey>,
    next: u64,
    reserved: u64,
    dir: PathBuf,
}

impl Identity {
    /// Reads the identity under `dir`, or makes one. Blocks.
    ///
    /// `device` is the configured name; without one it is the host's name, or made from the key.
    ///
    /// # Errors
    /// When a file cannot be read or written, or the key is damaged.
    pub fn load(dir: &Path, device: Option<DeviceId>) -> Result<Self, IdentityError> {
        fs::create_dir_all(dir).map_err(|source| file_error(dir, source))?;
        let signer = load_or_make_key(&dir.join("device.key"))?;
        let device = device.or_else(host_name).unwrap_or_else(|| name_from(&signer.public_key()));
        let controller = read_key(&dir.join("controller.pub"))?;
        // A lost file must not lead back to used numbers: nanoseconds since 1970 grow faster than
        // any device sends or restarts.
        let first = || clock::date_ms().saturating_mul(1_000_000).max(1);
        let next = read_number(&dir.join("device.sequence"))?.unwrap_or_else(first);
        Ok(Self { device, signer, controller, next, reserved: next, dir: dir.to_owned() })
    }

    /// The device's name.
    pub fn device(&self) -> &DeviceId {
        &self.device
    }

    /// The controller's key, if one was trusted.
    pub fn controller(&self) -> Option<PublicKey> {
        self.controller
    }

    /// A sequence that was never used before.
    ///
    /// # Errors
    /// When the next block cannot be reserved on disk.
    pub fn next_sequence(&mut self) -> Result<u64, IdentityError> {
        if self.next >= self.reserved {
            let reserved = self.next.saturating_add(BLOCK);
            let path = self.dir.join("device.sequence");
            whole_file::write(&path, reserved.to_string().as_bytes(), 0o644)
                .map_err(|source| file_error(&path, source))?;
            self.reserved = reserved;
        }
        let sequence = self.next;
        self.next = self.next.saturating_add(1);
        Ok(sequence)
    }

    /// Signs a message of this device; returns its topic and its envelope.
    ///
    /// # Errors
    /// When the message is over a limit of the contract.
    pub fn seal(&self, message: &Up, sequence: u64) -> Result<(Topic, Vec<u8>), IdentityError> {
        let topic = Topic::Device(self.device.clone(), message.kind());
        let envelope = self.signer.seal(&topic, sequence, &message.encode()?);
        Ok((topic, envelope))
    }

    /// Trusts `key` from now on. Blocks.
    ///
    /// # Errors
    /// When it cannot be written down; then it is not trusted.
    pub fn trust(&mut self, key: PublicKey) -> Result<(), IdentityError> {
        let path = self.dir.join("controller.pub");
        whole_file::write(&path, key.to_string().as_bytes(), 0o644)
            .map_err(|source| file_error(&path, source))?;
        self.controller = Some(key);
        Ok(())
    }
}

fn file_error(path: &Path, source: io::Error) -> IdentityError {
    IdentityError::File { path: path.to_owned(), source }
}

fn load_or_make_key(path: &Path) -> Result<Signer, IdentityError> {
    match fs::read(path) {
        Ok(bytes) => match <[u8; 32]>::try_from(bytes.as_slice()) {
            Ok(secret) => Ok(Signer::from_secret(&secret)),
            Err(_) => Err(IdentityError::Damaged { path: path.to_owned() }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut secret = [0; 32];
            getrandom::fill(&mut secret).map_err(IdentityError::Random)?;
            whole_file::write(path, &secret, 0o600).map_err(|source| file_error(path, source))?;
            Ok(Signer::from_secret(&secret))
        }
        Err(error) => Err(file_error(path, error)),
    }
}

fn read_text(path: &Path) -> Result<Option<String>, IdentityError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file_error(path, error)),
    }
}

/// A number that cannot be read is as good as none.
fn read_number(path: &Path) -> Result<Option<u64>, IdentityError> {
    Ok(read_text(path)?.and_then(|text| text.trim().parse().ok()))
}

fn read_key(path: &Path) -> Result<Option<PublicKey>, IdentityError> {
    let Some(text) = read_text(path)? else { return Ok(None) };
    let mut bytes = [0; 32];
    hex::decode_to_slice(text.trim(), &mut bytes)
        .map_err(|error| file_error(path, io::Error::new(io::ErrorKind::InvalidData, error)))?;
    Ok(Some(PublicKey::from_bytes(bytes)))
}

/// The host's name, as far as it can be a device's.
fn host_name() -> Option<DeviceId> {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_str().ok()?.to_ascii_lowercase();
    let name = name.split('.').next().unwrap_or_default();
    if name == "localhost" { None } else { DeviceId::parse(name).ok() }
}

fn name_from(key: &PublicKey) -> DeviceId {
    let hex = format!("{key:.8}");
    let hex: String = hex.chars().take(8).collect();
    DeviceId::parse(format!("device-{hex}")).expect("hex digits are fine in a device's name")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::load(dir.path(), None).unwrap();
        let again = Identity::load(dir.path(), None).unwrap();
        assert_eq!(first.signer.public_key(), again.signer.public_key());
        let mode = fs::metadata(dir.path().join("device.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn no_sequence_comes_twice_however_often_the_process_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let mut seen = HashSet::new();
        let mut last = 0;
        for round in 0..20 {
            // Nothing is written when it is dropped, as after kill -9.
            let mut identity = Identity::load(dir.path(), None).unwrap();
            for _ in 0..(round * 500) {
                let sequence = identity.next_sequence().unwrap();
                assert!(seen.insert(sequence) && sequence > last, "{sequence} after {last}");
                last = sequence;
            }
        }
        fs::remove_file(dir.path().join("device.sequence")).unwrap();
        let sequence = Identity::load(dir.path(), None).unwrap().next_sequence().unwrap();
        assert!(sequence > last, "a lost file leads back to used numbers");
    }

    #[test]
    fn a_trusted_controller_is_remembered_and_a_damaged_key_is_said_so() {
        let dir = tempfile::tempdir().unwrap();
        let key = PublicKey::from_bytes([7; 32]);
        Identity::load(dir.path(), None).unwrap().trust(key).unwrap();
        assert_eq!(Identity::load(dir.path(), None).unwrap().controller(), Some(key));
        fs::write(dir.path().join("device.key"), b"short").unwrap();
        assert!(matches!(Identity::load(dir.path(), None), Err(IdentityError::Damaged { .. })));
    }

    #[test]
    fn a_key_makes_a_name() {
        assert_eq!(name_from(&PublicKey::from_bytes([0xab; 32])).as_str(), "device-abababab");
    }
}
