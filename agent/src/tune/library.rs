//! Which runtimes this device may use.
//!
//! **Invariant:** without a libonnxruntime that can be used there is tract, and nothing else changes.

use std::ffi::OsString;
use std::path::PathBuf;

use holdfast_models::runtime::onnx_runtime::Provider;
use holdfast_models::runtime::onnx_runtime::library::LibraryError;
use holdfast_models::{Library, OnnxRuntime, Runtime, Tract};

use super::candidates::TRACT;

/// Where ONNX Runtime is looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum OnnxRuntimeConfig {
    /// Where `ORT_DYLIB_PATH` says, beside the program, on the system's library path.
    #[default]
    Auto,
    /// Nothing is said, and in this folder one was put in place by `runtime install`.
    Installed(PathBuf),
    /// It is not used.
    Off,
    /// This file, or the newest in this folder.
    At(PathBuf),
}

impl OnnxRuntimeConfig {
    /// As the configuration says it: `auto`, `off` or a path.
    pub fn parse(text: &str) -> Self {
        match text {
            "auto" | "" => Self::Auto,
            "off" => Self::Off,
            path => Self::At(path.into()),
        }
    }

    /// Finds and loads the library.
    ///
    /// # Errors
    /// There is none, or it cannot be used; one that is not to be used is not there.
    pub fn open(&self) -> Result<Library, LibraryError> {
        match self {
            Self::Auto => Library::open(None),
            Self::Installed(folder) => Library::open_installed(folder),
            Self::Off => Err(LibraryError::Absent),
            Self::At(path) => Library::open(Some(path)),
        }
    }

    /// The same, where nothing is said: the library that was put in place in this folder.
    #[must_use]
    pub fn or_installed(self, installed: Option<PathBuf>) -> Self {
        match (self, installed) {
            (Self::Auto, Some(folder)) => Self::Installed(folder),
            (config, _) => config,
        }
    }

    /// As an argument of a child.
    pub(super) fn as_argument(&self) -> [OsString; 2] {
        let (name, value) = match self {
            Self::Auto => ("--onnxruntime", "auto".into()),
            Self::Off => ("--onnxruntime", "off".into()),
            Self::At(path) => ("--onnxruntime", path.clone().into_os_string()),
            Self::Installed(folder) => ("--installed", folder.clone().into_os_string()),
        };
        [name.into(), value]
    }
}

/// The runtime with this name.
///
/// # Errors
/// There is none; as a sentence.
pub fn runtime(name: &str, config: &OnnxRuntimeConfig) -> Result<Box<dyn Runtime>, String> {
    if name == TRACT {
        return Ok(Box::new(Tract));
    }
    let provider = Provider::of_engine(name).ok_or_else(|| {
        let known: Vec<_> = Provider::ALL.iter().map(|provider| provider.engine()).collect();
        format!("there is no runtime \"{name}\"; there are {TRACT}, {}", known.join(", "))
    })?;
    let library = config.open().map_err(|error| crate::error_chain(&error))?;
    Ok(Box::new(OnnxRuntime::new(library, provider)))
}
