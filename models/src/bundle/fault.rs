//! What can be wrong with a bundle.
//!
//! **Invariant:** a fault names the key or file, what was found there, and what is allowed.

use std::fmt;
use std::path::PathBuf;

/// One fault of a bundle, at one key of `bundle.toml` or one of its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Path of the key (`input[0].audio.fit`) or the file's name.
    pub key: String,
    /// What is wrong there.
    pub problem: Problem,
}

/// The kinds of fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The file cannot be read; the reason as the system gives it.
    Unreadable(String),
    /// The file is not TOML.
    Syntax(String),
    /// The key is needed and not there; what is allowed.
    Missing(String),
    /// The key is not one of this format.
    Unknown,
    /// The value is not allowed: what it is, and what is allowed.
    Invalid {
        /// The value as it stands in the file.
        value: String,
        /// The allowed range or form.
        allowed: String,
    },
    /// The file's size is not the stated one, in bytes.
    Size {
        /// Bytes that `bundle.toml` states.
        want: u64,
        /// Bytes on disk.
        got: u64,
    },
    /// The file's SHA-256 is not the stated one.
    Hash {
        /// The hash that `bundle.toml` states.
        want: String,
        /// The hash of the file on disk.
        got: String,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match &self.problem {
            Problem::Unreadable(why) => write!(f, "{key}: cannot be read: {why}"),
            Problem::Syntax(why) => write!(f, "{key}: not valid TOML: {why}"),
            Problem::Missing(allowed) => write!(f, "{key}: missing, must be {allowed}"),
            Problem::Unknown => write!(f, "{key}: not a key of bundle format 1, remove it"),
            Problem::Invalid { value, allowed } => write!(f, "{key} = {value}: must be {allowed}"),
            Problem::Size { want, got } => {
                write!(f, "{key}: is {got} bytes, bundle.toml says {want}; copy the bundle again")
            }
            Problem::Hash { want, got } => {
                write!(f, "{key}: sha256 is {got}, bundle.toml says {want}; copy the bundle again")
            }
        }
    }
}

/// A bundle that was refused, with every fault that was found in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct BundleError {
    /// The bundle's directory.
    pub dir: PathBuf,
    /// All faults, in the order of the file; never empty.
    pub faults: Vec<Fault>,
}

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.faults.len() == 1 { "fault" } else { "faults" };
        write!(f, "bundle {} refused, {} {plural}", self.dir.display(), self.faults.len())?;
        for fault in &self.faults {
            write!(f, "\n  {fault}")?;
        }
        Ok(())
    }
}
