//! Putting a libonnxruntime in place: out of a wheel, an archive or a bare file, checked, and whole or
//! not at all.
//!
//! ```text
//! archive -> sha256 -> archive.rs: the library alone -> a child loads it -> store.rs: a link is moved
//! ```
//!
//! **Invariant:** what is put in service was hashed, is for this machine, and was loaded by a process
//! that survived it; until then nothing that was in service is touched.

pub mod archive;
pub mod store;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use holdfast_models::Library;
use sha2::{Digest, Sha256};
use thiserror::Error;

use self::store::{Installed, Store};
use crate::tune::library::OnnxRuntimeConfig;
use crate::tune::probe::{Looked, Program};

/// Read at once for a digest.
const PIECE: usize = 1 << 20;

/// Why nothing was put in place; what was there serves on.
#[derive(Debug, Error)]
pub enum InstallError {
    /// What was given is not fit to be used.
    #[error("{what} is refused: {why}")]
    Refused {
        /// The file.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// It has another digest than it must have.
    #[error(
        "{what} is refused: its sha256 is {found}, and must be {wanted}; it is damaged or another \
         file, fetch it again"
    )]
    Digest {
        /// The file.
        what: String,
        /// What it is.
        found: String,
        /// What it must be.
        wanted: String,
    },
    /// There is no such library here.
    #[error("there is no {name} in {}: `runtime ls` lists what is", dir.display())]
    Unknown {
        /// What was asked for.
        name: String,
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// Somebody else is at work in the folder.
    #[error("{} is in use by another `runtime` command: wait for it", .0.display())]
    InUse(PathBuf),
    /// This program cannot start itself to try the library.
    #[error("the library cannot be tried in a process of its own: {0}")]
    Untried(String),
    /// A file operation failed.
    #[error("cannot {what} {}", path.display())]
    Storage {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl InstallError {
    /// Wraps a failed file operation.
    pub(crate) fn storage(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Storage { what, path: path.to_owned(), source }
    }

    fn refused(what: &str, why: impl Into<String>) -> Self {
        Self::Refused { what: what.to_owned(), why: why.into() }
    }
}

/// SHA-256 of a file, in lower-case hexadecimal digits. Blocks.
///
/// # Errors
/// It does not read.
pub fn sha256_of(path: &Path) -> Result<String, InstallError> {
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let mut hash = Sha256::new();
        let mut piece = vec![0; PIECE];
        loop {
            match file.read(&mut piece)? {
                0 => return Ok(hex::encode(hash.finalize())),
                count => hash.update(piece.get(..count).unwrap_or_default()),
            }
        }
    };
    read().map_err(|source| InstallError::storage("read", path, source))
}

/// Puts what is in `archive` in service; `source` says where it is from. Without `wanted` its digest is
/// noted and not compared.
///
/// # Errors
/// See [`InstallError`]; what was in service is as before.
pub async fn install(
    store: &Store,
    program: &Program,
    (archive, source): (&Path, &str),
    wanted: Option<&str>,
) -> Result<Installed, InstallError> {
    let sha256 = sha256_of(archive)?;
    if let Some(wanted) = wanted.filter(|wanted| *wanted != sha256) {
        let (what, wanted) = (source.to_owned(), wanted.to_owned());
        return Err(InstallError::Digest { what, found: sha256, wanted });
    }
    let staging = store.stage()?;
    archive::unpack(archive, staging.dir(), source)?;
    let library = Library::find(Some(staging.dir())).ok().filter(|path| path.is_file());
    let library = library
        .ok_or_else(|| InstallError::refused(source, "there is no libonnxruntime.so in it"))?;
    // What is not even for this machine is not given to a process.
    Library::check(&library).map_err(|why| InstallError::refused(source, why))?;
    let found = match program.look(&OnnxRuntimeConfig::At(staging.dir().to_owned())).await {
        Ok(Looked::Found(found)) => found,
        Ok(Looked::Absent) => {
            return Err(InstallError::refused(source, "there is no library in it"));
        }
        Ok(Looked::Broken(why)) => {
            let why = why.replace(&format!("{}/", staging.dir().display()), "");
            return Err(InstallError::refused(source, why));
        }
        Err(why) => return Err(InstallError::Untried(why)),
    };
    let version = found.version.unwrap_or_else(|| "unknown".to_owned());
    store.put(staging, &version, &sha256, source, &found.runtimes)
}
