//! The folder of libraries that were put in place, with the one in service and the one before it.
//!
//! ```text
//! <folder>/1.23.2-0f9b4ae7/   libonnxruntime.so.1.23.2, providers, licences, install.json
//! <folder>/current, previous  links to two of them
//! ```
//!
//! **Invariant:** `current` leads, at any moment and after a power cut, to a folder that is whole, or is
//! not there; it changes in one step.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use serde::{Deserialize, Serialize};

use super::InstallError;

const CURRENT: &str = "current";
const PREVIOUS: &str = "previous";
const STAGING: &str = ".new";
const LINK: &str = ".link";
const NOTE: &str = "install.json";
const DOWNLOAD: &str = ".download-";

/// A library that was put in place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// Its folder's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of what it was taken out of.
    pub sha256: String,
    /// What that was.
    pub source: String,
    /// The runtimes in it, by their names.
    pub runtimes: Vec<String>,
}

/// What a library is to this device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It is used from the next start of the agent on.
    Current,
    /// `runtime rollback` goes back to it.
    Previous,
    /// It is left over.
    Old,
}

/// A folder of libraries, which nobody else changes meanwhile.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    _lock: File,
}

/// A folder in which a library is made ready; what is not put in place is gone with it.
#[derive(Debug)]
pub struct Staging {
    dir: PathBuf,
}

impl Staging {
    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What stays is removed with the next installation.
        fs::remove_dir_all(&self.dir).ok();
    }
}

/// The folder of libraries under a state folder.
pub fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("runtime")
}

/// The library in service in a folder of libraries, if there is one.
pub fn current(dir: &Path) -> Option<PathBuf> {
    let link = dir.join(CURRENT);
    link.symlink_metadata().is_ok().then_some(link)
}

/// The libraries in a folder, the one in service first; none where there is no folder.
///
/// # Errors
/// The folder does not read.
pub fn list(dir: &Path) -> Result<Vec<(Installed, Role)>, InstallError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|error| InstallError::storage("list", dir, error))?,
    };
    let named = |link: &str| {
        let to = fs::read_link(dir.join(link)).ok()?;
        Some(to.file_name()?.to_string_lossy().into_owned())
    };
    let (current, previous) = (named(CURRENT), named(PREVIOUS));
    let mut found = Vec::new();
    for entry in entries.filter_map(Result::ok) {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let name = entry.file_name().to_string_lossy().into_owned();
        let note = fs::read(entry.path().join(NOTE)).ok();
        let note: Option<Installed> = note.and_then(|note| serde_json::from_slice(&note).ok());
        let Some(note) = note.filter(|_| is_folder && !name.starts_with('.')) else { continue };
        let role = match Some(&name) {
            name if name == current.as_ref() => Role::Current,
            name if name == previous.as_ref() => Role::Previous,
            _ => Role::Old,
        };
        found.push((Installed { name, ..note }, role));
    }
    found.sort_by(|(a, x), (b, y)| (*x as u8, &a.name).cmp(&(*y as u8, &b.name)));
    Ok(found)
}

impl Store {
    /// Takes the folder, which is made if it is not there. Blocks.
    ///
    /// # Errors
    /// It cannot be made or written, or somebody else has it.
    pub fn open(dir: &Path) -> Result<Self, InstallError> {
        let failed = |error| InstallError::storage("make the folder", dir, error);
        fs::create_dir_all(dir).map_err(failed)?;
        // A library must be found by the same path from everywhere.
        let dir = dir.canonicalize().map_err(failed)?;
        let path = dir.join(".lock");
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let lock = lock.map_err(|error| InstallError::storage("write", &path, error))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(InstallError::InUse(dir)),
            other => other.map_err(|error| InstallError::storage("lock", &path, error.into()))?,
        }
        Ok(Self { dir, _lock: lock })
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file into which what has this digest is fetched; it stays until it came whole, or something
    /// else was put in place.
    #[must_use]
    pub fn download(&self, sha256: &str) -> PathBuf {
        self.dir.join(format!("{DOWNLOAD}{sha256}"))
    }

    /// An empty folder in which a library is made ready.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn stage(&self) -> Result<Staging, InstallError> {
        let dir = self.dir.join(STAGING);
        let made = match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => fs::create_dir(&dir),
        };
        made.map_err(|error| InstallError::storage("make the folder", &dir, error))?;
        Ok(Staging { dir })
    }

    /// Puts what was made ready in service; what was is kept as the one before, older ones go.
    ///
    /// # Errors
    /// The storage's; what was in service still is.
    pub fn put(
        &self,
        staging: Staging,
        version: &str,
        sha256: &str,
        source: &str,
        runtimes: &[String],
    ) -> Result<Installed, InstallError> {
        let name = format!("{version}-{}", sha256.get(..8).unwrap_or(sha256));
        let installed = Installed {
            name: name.clone(),
            version: version.to_owned(),
            sha256: sha256.to_owned(),
            source: source.to_owned(),
            runtimes: runtimes.to_vec(),
        };
        let to = self.dir.join(&name);
        let put = || -> io::Result<()> {
            let note = serde_json::to_vec_pretty(&installed).map_err(io::Error::other)?;
            fs::write(staging.dir.join(NOTE), note)?;
            for entry in fs::read_dir(&staging.dir)? {
                File::open(entry?.path())?.sync_all()?;
            }
            File::open(&staging.dir)?.sync_all()?;
            if to.exists() {
                // The same again: the other one goes with the staging folder.
                renameat_with(CWD, &staging.dir, CWD, &to, RenameFlags::EXCHANGE)?;
            } else {
                fs::rename(&staging.dir, &to)?;
            }
            self.sync()?;
            let before = fs::read_link(self.dir.join(CURRENT)).ok();
            if let Some(before) = before.filter(|before| before.as_os_str() != name.as_str()) {
                self.link(PREVIOUS, &before)?;
            }
            self.link(CURRENT, Path::new(&name))
        };
        put().map_err(|error| InstallError::storage("put in place", &to, error))?;
        drop(staging);
        self.remove_old();
        Ok(installed)
    }

    /// Goes back to the library before; the one in service becomes that.
    ///
    /// # Errors
    /// There is none, or the storage's.
    pub fn roll_back(&self) -> Result<Installed, InstallError> {
        let all = list(&self.dir)?;
        let previous = all.into_iter().find(|(_, role)| *role == Role::Previous);
        let unknown = || {
            let name = "library before the one in service".to_owned();
            InstallError::Unknown { name, dir: self.dir.clone() }
        };
        let (previous, _) = previous.ok_or_else(unknown)?;
        let (now, before) = (self.dir.join(CURRENT), self.dir.join(PREVIOUS));
        let swapped = match now.symlink_metadata().is_ok() {
            true => renameat_with(CWD, &before, CWD, &now, RenameFlags::EXCHANGE)
                .map_err(io::Error::from),
            false => fs::rename(&before, &now),
        };
        swapped
            .and_then(|()| self.sync())
            .map_err(|error| InstallError::storage("move the link", &now, error))?;
        Ok(previous)
    }

    /// Removes a library, or the one in service; the agent then uses what it finds elsewhere.
    ///
    /// # Errors
    /// There is none, or the storage's.
    pub fn remove(&self, name: Option<&str>) -> Result<Installed, InstallError> {
        let all = list(&self.dir)?;
        let is_meant = |(found, role): &(Installed, Role)| match name {
            Some(name) => found.name == name || found.version == name,
            None => *role == Role::Current,
        };
        let found = all.into_iter().find(is_meant);
        let unknown = || {
            let name = name.unwrap_or("library in service").to_owned();
            InstallError::Unknown { name, dir: self.dir.clone() }
        };
        let (found, role) = found.ok_or_else(unknown)?;
        let folder = self.dir.join(&found.name);
        let removed = || -> io::Result<()> {
            match role {
                Role::Current => fs::remove_file(self.dir.join(CURRENT))?,
                Role::Previous => fs::remove_file(self.dir.join(PREVIOUS))?,
                Role::Old => {}
            }
            // Nothing leads to it any more when it begins to go.
            self.sync()?;
            fs::remove_dir_all(&folder)?;
            self.sync()
        };
        removed().map_err(|error| InstallError::storage("remove", &folder, error))?;
        Ok(found)
    }

    /// Points a link at a folder, in one step.
    fn link(&self, link: &str, to: &Path) -> io::Result<()> {
        let beside = self.dir.join(LINK);
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => symlink(to, &beside)?,
        }
        fs::rename(&beside, self.dir.join(link))?;
        self.sync()
    }

    /// Removes what neither link leads to, and what did not come whole: it is in nobody's way but the
    /// disk's.
    fn remove_old(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().filter_map(Result::ok) {
            if entry.file_name().to_string_lossy().starts_with(DOWNLOAD) {
                fs::remove_file(entry.path()).ok();
            }
        }
        let all = list(&self.dir).unwrap_or_default();
        for (old, _) in all.into_iter().filter(|(_, role)| *role == Role::Old) {
            if let Err(error) = fs::remove_dir_all(self.dir.join(&old.name)) {
                tracing::warn!(name = old.name, %error, "an old library cannot be removed");
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}
