//! A bundle's folder under writing.
//!
//! **Invariant:** what is written lies beside its place under a name of its own, which is gone again
//! when anything fails; it takes its place whole: where nothing is, or in one step with what is there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use holdfast_models::Bundle;
use holdfast_models::bundle::{BundleError, MANIFEST, Unproven};
use holdfast_models::inspect::{Draft, Texts, manifest};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use sha2::{Digest, Sha256};

use crate::cli::{Exit, Failure};

/// The folder under writing.
pub(super) struct Staging {
    folder: PathBuf,
    /// Path, bytes and SHA-256 of each file.
    files: Vec<(String, usize, String)>,
}

impl Staging {
    /// A folder beside `to`; those above it are made.
    pub(super) fn new(to: &Path) -> Result<Self, Failure> {
        let mut name = std::ffi::OsString::from(".");
        name.push(to.file_name().unwrap_or_default());
        name.push(format!(".{}.part", std::process::id()));
        let folder = to.with_file_name(name);
        let made = fs::create_dir_all(parent_of(to)).and_then(|()| fs::create_dir(&folder));
        made.map_err(|error| unwritable(&folder, &error))?;
        Ok(Self { folder, files: Vec::new() })
    }

    /// Writes a file of the bundle, in the place of one that was written under its name.
    pub(super) fn file(&mut self, path: &str, bytes: &[u8]) -> Result<(), Failure> {
        self.write(path, bytes)?;
        self.files.retain(|(name, ..)| name != path);
        self.files.push((path.to_owned(), bytes.len(), hex::encode(Sha256::digest(bytes))));
        self.files.sort();
        Ok(())
    }

    /// Writes `bundle.toml`, with the files that were written until now.
    pub(super) fn manifest(&self, draft: &Draft, texts: &Texts) -> Result<(), Failure> {
        let texts = Texts { files: self.files.clone(), ..texts.clone() };
        self.text(&manifest(draft, &texts))
    }

    fn write(&self, path: &str, bytes: &[u8]) -> Result<(), Failure> {
        let target = self.folder.join(path);
        let folder = target.parent().map_or(Ok(()), fs::create_dir_all);
        let written = folder.and_then(|()| fs::write(&target, bytes));
        written
            .and_then(|()| fs::File::open(&target)?.sync_all())
            .map_err(|error| unwritable(&target, &error))
    }

    /// Where it is.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A place for something that is no part of the bundle, gone with `take`.
    pub(super) fn aside(&self) -> PathBuf {
        self.folder.join(".aside")
    }

    /// What was put aside.
    pub(super) fn take_aside(&self) -> Result<Vec<u8>, Failure> {
        let path = self.aside();
        let taken = fs::read(&path).and_then(|bytes| fs::remove_file(&path).map(|()| bytes));
        taken.map_err(|error| unwritable(&path, &error))
    }

    /// The bundle, as it is now.
    pub(super) fn open(&self) -> Result<Bundle, Failure> {
        Bundle::open(&self.folder).map_err(|error| refused(&error))
    }

    /// The bundle as it is now, but for its goldens.
    pub(super) fn open_unproven(&self) -> Result<Unproven, Failure> {
        Unproven::open(&self.folder).map_err(|error| refused(&error))
    }

    /// Gives the folder its name, where nothing is.
    pub(super) fn put(mut self, to: &Path) -> Result<(), Failure> {
        // An empty folder that came meanwhile would be replaced, a file or a full one not.
        fs::rename(&self.folder, to).map_err(|error| unwritable(to, &error))?;
        self.folder = PathBuf::new();
        let synced = fs::File::open(parent_of(to)).and_then(|file| file.sync_all());
        synced.map_err(|error| unwritable(to, &error))
    }
}

impl Staging {
    /// A folder with everything that is in `of`, but for the files named, which are to be written anew.
    pub(super) fn of(of: &Path, anew: &[&str]) -> Result<Self, Failure> {
        let staging = Self::new(of)?;
        let path = &staging.folder;
        let filled = fs::metadata(of)
            .and_then(|metadata| fs::set_permissions(path, metadata.permissions()))
            .and_then(|()| link_all(of, path, anew));
        filled.map_err(|error| unwritable(path, &error))?;
        Ok(staging)
    }

    /// Writes `bundle.toml` as it is given.
    pub(super) fn text(&self, manifest: &str) -> Result<(), Failure> {
        self.write(MANIFEST, manifest.as_bytes())
    }

    /// Takes the place of the folder that is there, in one step.
    pub(super) fn swap(self, with: &Path) -> Result<(), Failure> {
        let sync = |path: &Path| fs::File::open(path).and_then(|file| file.sync_all());
        sync(&self.folder)
            .and_then(|()| {
                // What was there lies in the staging folder then, and goes with it.
                Ok(renameat_with(CWD, &self.folder, CWD, with, RenameFlags::EXCHANGE)?)
            })
            .and_then(|()| sync(parent_of(with)))
            .map_err(|error| unwritable(with, &error))
    }
}

/// Gives everything in a folder a second name in another one.
fn link_all(from: &Path, to: &Path, but: &[&str]) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (name, source) = (entry.file_name(), entry.path());
        let target = to.join(&name);
        let kind = entry.file_type()?;
        if but.iter().any(|but| name == **but) {
            continue;
        }
        if kind.is_dir() {
            fs::create_dir(&target)?;
            link_all(&source, &target, &[])?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&source)?, &target)?;
        } else if fs::hard_link(&source, &target).is_err() {
            // A file system without such names.
            fs::copy(&source, &target)?;
        }
    }
    Ok(())
}

/// The folder that a path lies in.
fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Why a folder is no bundle.
pub(super) fn refused(error: &BundleError) -> Failure {
    let why = error.faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  ");
    Failure::new(Exit::Found, format!("no bundle can say what this model is:\n  {why}"))
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.folder.as_os_str().is_empty() {
            drop(fs::remove_dir_all(&self.folder));
        }
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Storage, format!("cannot write {}: {error}", path.display()))
}
