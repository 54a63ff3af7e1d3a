//! Taking the library out of what it is published in: a Python wheel or other .zip, a .tgz, or as it is.
//!
//! Only the library, what it loads beside itself, and its licences are taken, by their bare names. Links
//! are left where they are.
//!
//! **Invariant:** whatever is in the archive, nothing is written but files with the names of
//! a library or a licence in one folder, and no more than so many bytes.

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::rc::Rc;

use flate2::read::GzDecoder;

use super::InstallError;

/// Bytes that an archive unpacks to at most: those with every provider take about 1 GiB.
const MOST_BYTES: u64 = 2 << 30;
/// An archive of few bytes unpacks to so many of its own size at most,
const MOST_TIMES: u64 = 60;
/// unless it is less than this.
const ALWAYS_BYTES: u64 = 16 << 20;
/// Files in an archive at most.
const MOST_FILES: usize = 100_000;

const LIBRARY: &str = "libonnxruntime";
const LICENCES: [&str; 3] = ["LICENSE", "LICENSE.txt", "ThirdPartyNotices.txt"];

/// The name under which a file of an archive is taken out; `None`: it is not.
///
/// # Errors
/// It would be, and its path leads out of the archive.
fn name_of(path: &str) -> Result<Option<&str>, String> {
    let name = path.rsplit('/').next().unwrap_or(path);
    if !is_library(name) && !LICENCES.contains(&name) {
        return Ok(None);
    }
    let leads_out = path.starts_with('/') || path.split('/').any(|part| part == "..");
    if leads_out || path.contains(['\\', '\0']) {
        let shown: String = path.chars().filter(|c| !c.is_control()).take(100).collect();
        return Err(format!("the path {shown:?} in it leads out of it"));
    }
    Ok(Some(name))
}

/// `libonnxruntime.so` and the providers that it loads, with or without their versions.
fn is_library(name: &str) -> bool {
    let Some((before, version)) = name.split_once(".so") else { return false };
    let Some(part) = before.strip_prefix(LIBRARY) else { return false };
    let is_part = part.is_empty() || part.starts_with("_providers_");
    is_part
        && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && (version.is_empty() || version.starts_with('.'))
        && version.chars().all(|c| c.is_ascii_digit() || c == '.')
}

/// Takes the library out of `archive` into the empty folder `into`; `source` names it in errors. Blocks.
///
/// # Errors
/// [`InstallError::Refused`] when it is no archive, damaged, or unpacks to what nobody needs; or the
/// storage's. What was written by then is left in `into`.
pub fn unpack(archive: &Path, into: &Path, source: &str) -> Result<(), InstallError> {
    let file =
        File::open(archive).map_err(|error| InstallError::storage("read", archive, error))?;
    let bytes = file.metadata().map_or(0, |found| found.len());
    let mut head = Vec::new();
    let read = (&file).take(4).read_to_end(&mut head);
    read.and_then(|_| io::Seek::rewind(&mut &file))
        .map_err(|error| InstallError::storage("read", archive, error))?;
    let limit = MOST_BYTES.min(bytes.saturating_mul(MOST_TIMES).max(ALWAYS_BYTES));
    let mut taken = Taken { into, left: limit, limit };
    let unpacked = match &*head {
        [b'P', b'K', 3, 4] => zip(file, &mut taken),
        [0x1f, 0x8b, ..] => tar_gz(file, &mut taken),
        b"\x7fELF" => bare(file, archive, &mut taken),
        _ => Err(Fault::Refused("it is no wheel, .zip or .tgz, and no shared library".to_owned())),
    };
    unpacked.map_err(|fault| match fault {
        Fault::Refused(why) => InstallError::refused(source, why),
        Fault::Write(error) => InstallError::storage("write into", into, error),
    })
}

enum Fault {
    Refused(String),
    Write(io::Error),
}

impl Fault {
    fn damaged(error: &dyn std::fmt::Display) -> Self {
        Self::Refused(format!("it is damaged: {error}"))
    }
}

/// What was taken out so far.
struct Taken<'a> {
    into: &'a Path,
    left: u64,
    limit: u64,
}

impl Taken<'_> {
    /// Writes one file as it is read.
    fn take(&mut self, name: &str, from: &mut impl Read) -> Result<(), Fault> {
        let path = self.into.join(name);
        let mut options = OpenOptions::new();
        let mut to = match options.write(true).create_new(true).mode(0o644).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // A licence is often there twice; a library that is has no one meaning.
                return match is_library(name) {
                    true => Err(Fault::Refused(format!("{name} is in it twice"))),
                    false => Ok(()),
                };
            }
            other => other.map_err(Fault::Write)?,
        };
        let mut piece = vec![0; 256 << 10];
        loop {
            let count = from.read(&mut piece).map_err(|error| Fault::damaged(&error))?;
            if count == 0 {
                return Ok(());
            }
            self.spend(count as u64)?;
            to.write_all(piece.get(..count).unwrap_or_default()).map_err(Fault::Write)?;
        }
    }

    fn spend(&mut self, bytes: u64) -> Result<(), Fault> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| {
            Fault::Refused(format!("it unpacks to more than {} MiB", self.limit >> 20))
        })?;
        Ok(())
    }
}

fn zip(file: File, taken: &mut Taken<'_>) -> Result<(), Fault> {
    let damaged = |error: zip::result::ZipError| Fault::damaged(&error);
    let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(damaged)?;
    if archive.len() > MOST_FILES {
        return Err(Fault::Refused(format!("there are {} files in it", archive.len())));
    }
    for nth in 0..archive.len() {
        let mut entry = archive.by_index(nth).map_err(damaged)?;
        let path = entry.name().map_err(damaged)?.into_owned();
        let Some(name) = name_of(&path).map_err(Fault::Refused)? else { continue };
        if entry.is_file() && !entry.is_symlink() {
            taken.take(name, &mut entry)?;
        }
    }
    Ok(())
}

fn tar_gz(file: File, taken: &mut Taken<'_>) -> Result<(), Fault> {
    // What is passed over is unpacked too, and must end.
    let most = taken.limit.saturating_mul(2);
    let is_over = Rc::new(Cell::new(false));
    let damaged = |error: io::Error| match is_over.get() {
        true => Fault::Refused(format!("it unpacks to more than {} MiB", most >> 20)),
        false => Fault::damaged(&error),
    };
    let from = GzDecoder::new(BufReader::new(file));
    let mut archive = tar::Archive::new(Bounded { from, left: most, is_over: Rc::clone(&is_over) });
    for (nth, entry) in archive.entries().map_err(&damaged)?.enumerate() {
        let mut entry = entry.map_err(&damaged)?;
        let path = entry.path_bytes().into_owned();
        if nth >= MOST_FILES {
            return Err(Fault::Refused(format!("there are more than {MOST_FILES} files in it")));
        }
        let path = String::from_utf8_lossy(&path);
        let Some(name) = name_of(&path).map_err(Fault::Refused)? else { continue };
        if entry.header().entry_type().is_file() {
            taken.take(name, &mut entry)?;
        }
    }
    // The checksum of the whole stands at its end.
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(damaged).map(drop)
}

/// A reader that fails behind so many bytes, and notes that.
struct Bounded<R> {
    from: R,
    left: u64,
    is_over: Rc<Cell<bool>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(bytes)?;
        match self.left.checked_sub(count as u64) {
            Some(left) => self.left = left,
            None => {
                self.is_over.set(true);
                return Err(io::Error::other("too long"));
            }
        }
        Ok(count)
    }
}

fn bare(mut file: File, path: &Path, taken: &mut Taken<'_>) -> Result<(), Fault> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.filter(|name| is_library(name));
    let name = name.unwrap_or_else(|| format!("{LIBRARY}.so"));
    taken.limit = MOST_BYTES;
    taken.left = MOST_BYTES;
    taken.take(&name, &mut file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_library_its_providers_and_licences_are_taken() {
        for (path, want) in [
            ("onnxruntime/capi/libonnxruntime.so.1.23.2", Some("libonnxruntime.so.1.23.2")),
            ("x/lib/libonnxruntime.so", Some("libonnxruntime.so")),
            ("libonnxruntime_providers_shared.so", Some("libonnxruntime_providers_shared.so")),
            ("lib/libonnxruntime_providers_cuda.so", Some("libonnxruntime_providers_cuda.so")),
            ("onnxruntime/LICENSE", Some("LICENSE")),
            ("onnxruntime/ThirdPartyNotices.txt", Some("ThirdPartyNotices.txt")),
            ("onnxruntime/capi/onnxruntime_pybind11_state.so", None),
            ("libonnxruntime4j_jni.so", None),
            ("libonnxruntime.so.1.debug", None),
            ("libonnxruntime.so/", None),
            ("libonnxruntime.sox", None),
            ("libonnxruntime_providers_sh red.so", None),
            ("../../etc/passwd", None),
        ] {
            assert_eq!(name_of(path), Ok(want), "{path}");
        }
        for path in [
            "../libonnxruntime.so",
            "/usr/lib/libonnxruntime.so",
            "a/../../libonnxruntime.so.1",
            "..\\a/libonnxruntime.so",
        ] {
            assert!(name_of(path).is_err(), "{path}");
        }
    }
}
