//! Owns the reading of certificates and keys out of files.
//!
//! **Invariant:** a file with nothing of what is looked for in it is an error that names the file.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

/// A file without what is looked for.
#[derive(Debug, Error)]
#[error("{} has no {what} in PEM: {why}", path.display())]
pub struct PemError {
    path: PathBuf,
    what: &'static str,
    why: String,
}

impl PemError {
    fn of(path: &Path, what: &'static str, why: String) -> Self {
        Self { path: path.to_owned(), what, why }
    }
}

/// The certificates of a file, in their order. Blocks.
///
/// # Errors
/// [`PemError`], also where there is none.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let failed = |why| PemError::of(path, "certificate", why);
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.map_err(|error| failed(crate::error_chain(&error)))?;
    match found.is_empty() {
        true => Err(failed("there is none in it".to_owned())),
        false => Ok(found),
    }
}

/// The certificates of a file, to be believed as roots. Blocks.
///
/// # Errors
/// [`PemError`], also where one of them is none that can be.
pub(crate) fn roots(path: &Path) -> Result<RootCertStore, PemError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        let added = roots.add(certificate);
        added.map_err(|error| PemError::of(path, "usable root", crate::error_chain(&error)))?;
    }
    Ok(roots)
}

/// The private key of a file. Blocks.
///
/// # Errors
/// [`PemError`]
pub(crate) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, PemError> {
    PrivateKeyDer::from_pem_file(path)
        .map_err(|error| PemError::of(path, "private key", crate::error_chain(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_have_nothing_of_it_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("site.pem");
        let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for text in [None, Some("nothing"), Some(damaged)] {
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
            }
            let key = key(&path).unwrap_err().to_string();
            assert!(key.contains("site.pem has no private key in PEM"), "{text:?}: {key}");
            let root = roots(&path).unwrap_err().to_string();
            assert!(root.contains("site.pem has no "), "{text:?}: {root}");
        }
    }
}
