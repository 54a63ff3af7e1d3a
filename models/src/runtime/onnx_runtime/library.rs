//! Finding and loading libonnxruntime.
//!
//! A library is looked for where the configuration says, where it was installed, where `ORT_DYLIB_PATH`
//! says, beside the program, and where the system's loader looks; the first that is there is taken, and if it does not
//! load there is none. A process loads one library, and keeps it.
//!
//! **Invariant:** a file that is cut off, or for another machine, is refused before the loader maps it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::environment::Environment;

/// Variable that names the library, as ONNX Runtime's other users read it.
const VARIABLE: &str = "ORT_DYLIB_PATH";
/// How the library's file name begins.
const NAME: &str = "libonnxruntime.so";
/// The version's name stands within this many bytes of the file.
const HEAD: u64 = 1 << 20;

/// ONNX Runtime, loaded.
#[derive(Clone)]
pub struct Library {
    path: PathBuf,
    version: Option<String>,
    pub(super) environment: Environment,
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Library").field("path", &self.path).field("version", &self.version).finish()
    }
}

/// Where a library was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The configuration names it.
    Configuration,
    /// An operator had it put in place.
    Installed,
    /// `ORT_DYLIB_PATH` names it.
    Variable,
    /// It lies beside the program.
    BesideProgram,
    /// The system's loader finds it.
    System,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Configuration => "named by the configuration",
            Self::Installed => "put in place by `runtime install`",
            Self::Variable => "named by ORT_DYLIB_PATH",
            Self::BesideProgram => "beside the program",
            Self::System => "on the system's library path",
        })
    }
}

/// Why there is no ONNX Runtime.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LibraryError {
    /// There is none, and none was asked for.
    #[error(
        "no libonnxruntime: none is named by the configuration or ORT_DYLIB_PATH, installed, beside \
         the program or on the system's library path"
    )]
    Absent,
    /// One is there, and cannot be used.
    #[error("{}, {place}, cannot be used: {why}", path.display())]
    Broken {
        /// The library.
        path: PathBuf,
        /// Who named it.
        place: Origin,
        /// What is wrong with it.
        why: String,
    },
    /// This process uses another one already.
    #[error("{} is loaded already: restart to use {}", loaded.display(), wanted.display())]
    Another {
        /// The one in use.
        loaded: PathBuf,
        /// The one that was asked for.
        wanted: PathBuf,
    },
}

/// The library that this process loaded. ONNX Runtime has one environment a process.
static LOADED: Mutex<Option<Library>> = Mutex::new(None);

impl Library {
    /// The library that [`Library::open`] would load; `configured` comes before all other places.
    ///
    /// # Errors
    /// There is none.
    pub fn find(configured: Option<&Path>) -> Result<PathBuf, LibraryError> {
        find(configured).map(|(path, _)| path)
    }

    /// Finds and loads the library; `configured` comes before all other places.
    ///
    /// # Errors
    /// There is none, or the first one that is there cannot be used.
    pub fn open(configured: Option<&Path>) -> Result<Self, LibraryError> {
        let (path, place) = find(configured)?;
        Self::open_at(path, place)
    }

    /// Loads the library that was put in place in `folder`.
    ///
    /// # Errors
    /// It cannot be used, or is not there.
    pub fn open_installed(folder: &Path) -> Result<Self, LibraryError> {
        Self::open_at(meant_everywhere(inside(folder)), Origin::Installed)
    }

    /// Whether a file is a whole shared library for this machine; nothing is loaded.
    ///
    /// # Errors
    /// What is wrong with it; as a sentence.
    pub fn check(path: &Path) -> Result<(), String> {
        check_file(path)
    }

    fn open_at(path: PathBuf, place: Origin) -> Result<Self, LibraryError> {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(library) = &*loaded {
            if library.path == path {
                return Ok(library.clone());
            }
            return Err(LibraryError::Another { loaded: library.path.clone(), wanted: path });
        }
        let library =
            load(&path).map_err(|why| LibraryError::Broken { path: path.clone(), place, why })?;
        *loaded = Some(library.clone());
        Ok(library)
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its version, such as `1.23.2`, where the file tells.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }
}

/// The first library that is there, and who named it; a path that means the same wherever it is used.
fn find(configured: Option<&Path>) -> Result<(PathBuf, Origin), LibraryError> {
    let (path, place) = first(configured)?;
    Ok((meant_everywhere(path), place))
}

fn meant_everywhere(path: PathBuf) -> PathBuf {
    path.canonicalize().or_else(|_| std::path::absolute(&path)).unwrap_or(path)
}

fn first(configured: Option<&Path>) -> Result<(PathBuf, Origin), LibraryError> {
    if let Some(path) = configured {
        return Ok((inside(path), Origin::Configuration));
    }
    if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        return Ok((inside(Path::new(&path)), Origin::Variable));
    }
    let program = std::env::current_exe().ok();
    let beside = program.as_deref().and_then(Path::parent).and_then(newest_in);
    if let Some(path) = beside {
        return Ok((path, Origin::BesideProgram));
    }
    let system = system_folders().iter().find_map(|dir| newest_in(dir));
    system.map(|path| (path, Origin::System)).ok_or(LibraryError::Absent)
}

/// A folder stands for the library in it.
fn inside(path: &Path) -> PathBuf {
    match path.is_dir() {
        true => newest_in(path).unwrap_or_else(|| path.join(NAME)),
        false => path.to_owned(),
    }
}

/// The library in a folder; of several versions, the newest.
fn newest_in(dir: &Path) -> Option<PathBuf> {
    let names =
        std::fs::read_dir(dir).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let version = |name: &str| -> Option<Vec<u64>> {
        let rest = name.strip_prefix(NAME)?;
        // The bare name is mostly a link to the newest.
        match rest.strip_prefix('.') {
            Some(numbers) => numbers.split('.').map(|number| number.parse().ok()).collect(),
            None => rest.is_empty().then(|| vec![u64::MAX]),
        }
    };
    // A link to nothing is not there.
    let there = names.filter(|name| dir.join(name).is_file());
    let versions = there.filter_map(|name| Some((version(&name)?, name)));
    versions.max().map(|(_, name)| dir.join(name))
}

/// Where the system's loader looks: what `LD_LIBRARY_PATH` names, and the folders of common systems.
fn system_folders() -> Vec<PathBuf> {
    let named = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let machine = std::env::consts::ARCH;
    let abi =
        if machine == "arm" { "arm-linux-gnueabihf" } else { &format!("{machine}-linux-gnu") };
    let common = [
        "/usr/local/lib".to_owned(),
        format!("/usr/lib/{abi}"),
        format!("/lib/{abi}"),
        "/usr/lib64".to_owned(),
        "/usr/lib".to_owned(),
        "/lib".to_owned(),
    ];
    let named = std::env::split_paths(&named).filter(|path| !path.as_os_str().is_empty());
    named.chain(common.into_iter().map(PathBuf::from)).collect()
}

fn load(path: &Path) -> Result<Library, String> {
    check_file(path)?;
    let version = version_in(path);
    let built = super::super::caught(super::NAME, || {
        let builder = ort::init_from(path).map_err(|error| error.to_string())?;
        let quiet = Arc::new(
            |_: ort::logging::LogLevel, category: &str, _: &str, place: &str, message: &str| {
                tracing::debug!(category, place, "onnxruntime: {message}");
            },
        );
        builder
            .with_name("holdfast")
            .with_telemetry(false)
            .with_logger(quiet)
            .build()
            .map_err(|error| error.to_string())
    });
    let environment = built.map_err(|panic| panic.to_string()).and_then(|built| built)?;
    Ok(Library { path: path.to_owned(), version, environment })
}

/// Whether the file is a whole shared library for this machine. The loader maps what a library's
/// headers say without looking whether the file is that long, and dies when it touches what is not there.
fn check_file(path: &Path) -> Result<(), String> {
    let mut file = File::open(path).map_err(|error| error.to_string())?;
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    let mut part = |from: u64, bytes: u64| -> Result<Vec<u8>, String> {
        let mut part = Vec::new();
        file.seek(SeekFrom::Start(from)).map_err(|error| error.to_string())?;
        file.by_ref().take(bytes).read_to_end(&mut part).map_err(|error| error.to_string())?;
        Ok(part)
    };
    let layout = Layout::of(&part(0, HEADER)?)?;
    let table = part(layout.table, layout.size * layout.count)?;
    let cut = || format!("it is cut off: it has {length} bytes, its headers speak of more");
    if table.len() as u64 != layout.size * layout.count {
        return Err(cut());
    }
    let size = usize::try_from(layout.size).map_err(|_| cut())?;
    match table.chunks_exact(size.max(1)).all(|header| layout.end(header) <= length) {
        true => Ok(()),
        false => Err(cut()),
    }
}

/// Bytes of the longest ELF header.
const HEADER: u64 = 64;

/// Where an ELF file says that its segments lie (System V gABI, chapters 4 and 5).
struct Layout {
    is_wide: bool,
    /// Offset, size of one, and number of the program headers.
    table: u64,
    size: u64,
    count: u64,
}

impl Layout {
    fn of(head: &[u8]) -> Result<Self, String> {
        if !head.starts_with(b"\x7fELF") || (head.len() as u64) < HEADER {
            return Err("it is no shared library".to_owned());
        }
        let is_wide = head[4] == 2;
        let machine = number(head, 18, 2);
        if head[5] != 1 || machine != MACHINE || is_wide != cfg!(target_pointer_width = "64") {
            return Err(format!(
                "it is for another machine (ELF machine {machine}, not {MACHINE})"
            ));
        }
        let (table, size, count) = match is_wide {
            true => ((32, 8), 54, 56),
            false => ((28, 4), 42, 44),
        };
        let (table, size) = (number(head, table.0, table.1), number(head, size, 2));
        Ok(Self { is_wide, table, size, count: number(head, count, 2) })
    }

    /// Where the segment of a program header ends in the file.
    fn end(&self, header: &[u8]) -> u64 {
        let (offset, bytes) = match self.is_wide {
            true => (number(header, 8, 8), number(header, 32, 8)),
            false => (number(header, 4, 4), number(header, 16, 4)),
        };
        offset.saturating_add(bytes)
    }
}

/// A little-endian number of a header; 0 where it is too short.
fn number(header: &[u8], at: usize, bytes: usize) -> u64 {
    let part = header.get(at..at + bytes).unwrap_or_default();
    part.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Number of this machine in ELF headers.
const MACHINE: u64 = if cfg!(target_arch = "x86_64") {
    62
} else if cfg!(target_arch = "aarch64") {
    183
} else if cfg!(target_arch = "arm") {
    40
} else {
    0
};

/// The version in the name that the library's symbols are given (`VERS_1.23.2`).
fn version_in(path: &Path) -> Option<String> {
    const MARK: &[u8] = b"VERS_";
    let mut head = Vec::new();
    File::open(path).ok()?.take(HEAD).read_to_end(&mut head).ok()?;
    let at = head.windows(MARK.len()).position(|window| window == MARK)? + MARK.len();
    let text = head[at..].iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'.');
    let text: String = text.map(|byte| char::from(*byte)).collect();
    text.starts_with(|first: char| first.is_ascii_digit()).then_some(text)
}
