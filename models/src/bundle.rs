//! A model as it is shipped: a directory with `bundle.toml`, ONNX files, samples and goldens.
//!
//! **Invariant:** a `Bundle` exists only when its whole manifest is valid and every listed file is
//! there with the stated size and SHA-256; `read` checks the hash again, so what runs is what was
//! signed for, whatever happened to the file since.

mod batching;
mod claim;
mod detection;
mod fault;
mod golden;
mod input;
mod kind;
mod listing;
mod manifest;
mod output;
mod picture;
mod section;
mod series;
mod spectrum;
mod unproven;
mod whole;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

pub use batching::Batching;
pub use claim::Claim;
pub use fault::{BundleError, Fault, Problem};
pub use golden::{FILE as GOLDEN_FILE, Golden};
pub use input::{Front, Input};
pub use kind::Windows;
pub use listing::relisted;
pub use manifest::{FileEntry, Precision, Provenance, Sample, Variant};
pub use output::Output;
pub use picture::{Channels, Filter, ImageFront, Layout, Resize};
pub use series::{State, TensorFront, TextFront, WaveFront};
pub use spectrum::{AudioFront, Features, Fit, Normalise, Spectrum};
pub use unproven::Unproven;

use crate::media::MediaType;
use crate::outputs::Decoder;
use crate::runtime::TensorSpec;
pub(crate) use manifest::MAX_ELEMENTS;
use manifest::Manifest;
use section::Faults;

/// The manifest's name in every bundle.
pub const MANIFEST: &str = "bundle.toml";
/// Largest manifest that is read, in bytes.
const MAX_MANIFEST_BYTES: u64 = 4 << 20;

/// A checked bundle on disk; clones share what is large.
#[derive(Debug, Clone)]
pub struct Bundle {
    dir: PathBuf,
    manifest: Arc<Manifest>,
    digest: [u8; 32],
    goldens: Arc<[Golden]>,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
}

/// What a bundle's task takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaKind {
    /// A recording.
    Audio,
    /// A picture.
    Image,
    /// Numbers, or several inputs by their names.
    Tensor,
    /// A text.
    Text,
}

impl MediaKind {
    /// Whether a task that takes this takes a body of that type.
    pub fn takes(self, media_type: MediaType) -> bool {
        match media_type {
            MediaType::Json => matches!(self, Self::Tensor | Self::Text),
            other => other.kind() == self,
        }
    }

    /// What a caller may send, by its content types.
    pub fn content_types(self) -> &'static str {
        match self {
            Self::Audio => "audio/wav",
            Self::Image => "image/jpeg, image/png or image/webp",
            Self::Tensor => {
                "application/json, text/csv, application/x-npy or application/octet-stream"
            }
            Self::Text => "text/plain or application/json",
        }
    }
}

impl std::fmt::Display for MediaKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Audio => "audio",
            Self::Image => "image",
            Self::Tensor => "tensor",
            Self::Text => "text",
        })
    }
}

impl Bundle {
    /// Reads and checks the bundle in `dir`: the manifest, each file's size and hash, the goldens.
    ///
    /// # Errors
    /// Every fault that was found, each with its key or file, the value and what is allowed.
    pub fn open(dir: &Path) -> Result<Self, BundleError> {
        checked(dir, Goldens::Needed)
    }

    /// The bundle's name, `[a-z0-9-]{1,64}`.
    pub fn name(&self) -> &str {
        &self.manifest.name
    }

    /// The bundle's semantic version.
    pub fn version(&self) -> &str {
        &self.manifest.version
    }

    /// The task it answers.
    pub fn task(&self) -> &str {
        &self.manifest.task
    }

    /// One sentence about it.
    pub fn description(&self) -> &str {
        &self.manifest.description
    }

    /// The licence of the model.
    pub fn licence(&self) -> &str {
        &self.manifest.licence
    }

    /// Where the model comes from.
    pub fn provenance(&self) -> &Provenance {
        &self.manifest.provenance
    }

    /// The labels, in the order of the first output; none where answers have no names.
    pub fn labels(&self) -> &[String] {
        self.manifest.decoder.labels()
    }

    /// A confidence below this is not good enough; 0 where answers have none.
    pub fn threshold(&self) -> f32 {
        self.manifest.decoder.threshold().unwrap_or(0.0)
    }

    /// How the answer is made of what the graph gives.
    pub fn decoder(&self) -> &Decoder {
        &self.manifest.decoder
    }

    /// How the windows of one recording become one answer.
    pub fn windows(&self) -> Windows {
        self.manifest.windows
    }

    /// The variants; the first is the default.
    pub fn variants(&self) -> &[Variant] {
        &self.manifest.variants
    }

    /// The variant of that name, or the default one.
    pub fn variant(&self, name: Option<&str>) -> Option<&Variant> {
        match name {
            None => self.manifest.variants.first(),
            Some(name) => self.manifest.variants.iter().find(|v| v.name == name),
        }
    }

    /// The inputs that the bundle carries.
    pub fn samples(&self) -> &[Sample] {
        &self.manifest.samples
    }

    /// The reference outputs.
    pub fn goldens(&self) -> &[Golden] {
        &self.goldens
    }

    /// The files, without `bundle.toml` itself.
    pub fn files(&self) -> &[FileEntry] {
        &self.manifest.files
    }

    /// The size of a variant's graph, in bytes.
    pub fn file_bytes(&self, variant: &str) -> Option<u64> {
        let file = &self.variant(Some(variant))?.file;
        self.files().iter().find(|entry| entry.path == *file).map(|entry| entry.bytes)
    }

    /// The SHA-256 of `bundle.toml`, which has that of every other file in it.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The directory it was opened from.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it takes.
    pub fn expects(&self) -> MediaKind {
        let mut sent = self.manifest.inputs.iter().filter_map(|input| match input.front {
            Front::Audio(_) | Front::Wave(_) => Some(MediaKind::Audio),
            Front::Image(_) => Some(MediaKind::Image),
            Front::Tensor(_) => Some(MediaKind::Tensor),
            Front::Text(_) => Some(MediaKind::Text),
            Front::Constant(_) => None,
        });
        match (sent.next(), sent.next()) {
            (Some(only), None) => only,
            // Several go together by their names.
            _ => MediaKind::Tensor,
        }
    }

    /// The tensors that the graph takes, in the order of [`crate::Model::run_tensors`].
    pub fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    /// The tensors that the graph gives, in the order of [`crate::Model::run_tensors`].
    pub fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    /// How requests may go together in one batch; `None` where they may not.
    pub fn batching(&self) -> Option<Batching> {
        self.manifest.batching
    }

    /// Each `[[input]]`: the tensor and its preprocessing. They come first among [`Bundle::inputs`].
    pub fn sources(&self) -> &[Input] {
        &self.manifest.inputs
    }

    /// Each `[[output]]`. They come first among [`Bundle::outputs`].
    pub fn results(&self) -> &[Output] {
        &self.manifest.outputs
    }

    /// What is carried from window to window, in the order in which both sides come behind the others
    /// among [`Bundle::inputs`] and [`Bundle::outputs`].
    pub fn states(&self) -> &[State] {
        &self.manifest.states
    }

    /// The bytes of a listed file, with its size and hash checked again.
    ///
    /// # Errors
    /// One fault: not listed, not readable, or not the file that the manifest states.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, BundleError> {
        let read = match self.manifest.files.iter().find(|f| f.path == path) {
            Some(entry) => read_listed(&self.dir, entry),
            None => Err(Problem::Missing("listed as a [[file]]".to_owned())),
        };
        read.map_err(|problem| BundleError {
            dir: self.dir.clone(),
            faults: vec![Fault { key: path.to_owned(), problem }],
        })
    }
}

/// Whether a bundle must have its goldens, or gets them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goldens {
    Needed,
    ToBeMade,
}

fn checked(dir: &Path, goldens: Goldens) -> Result<Bundle, BundleError> {
    let faults = Faults::default();
    match open(dir, goldens, &faults) {
        Some(bundle) if faults.is_empty() => Ok(bundle),
        _ => Err(BundleError { dir: dir.to_owned(), faults: faults.into_vec() }),
    }
}

fn open(dir: &Path, goldens: Goldens, faults: &Faults) -> Option<Bundle> {
    let bytes = read_bounded(&dir.join(MANIFEST), MAX_MANIFEST_BYTES);
    let digest = bytes.as_ref().map_or([0; 32], |bytes| Sha256::digest(bytes).into());
    let text = match bytes {
        Ok(bytes) => String::from_utf8(bytes).map_err(|e| Problem::Syntax(e.to_string())),
        Err(why) => Err(Problem::Unreadable(why)),
    };
    let parsed = text.and_then(|text| {
        text.parse::<toml::Table>()
            .map_err(|e| Problem::Syntax(e.to_string().trim_end().to_owned()))
    });
    let table = match parsed {
        Ok(table) => table,
        Err(problem) => {
            faults.add(MANIFEST, problem);
            return None;
        }
    };
    let (manifest, files) = manifest::read(&table, faults);
    let mut golden = None;
    for entry in &files {
        match read_listed(dir, entry) {
            Ok(bytes) if entry.path == golden::FILE => golden = Some(bytes),
            Err(_) if entry.path == golden::FILE && goldens == Goldens::ToBeMade => {}
            Ok(_) => {}
            Err(problem) => faults.add(entry.path.as_str(), problem),
        }
    }
    if goldens == Goldens::Needed && !files.iter().any(|entry| entry.path == golden::FILE) {
        let want = format!("one with path = \"{}\"", golden::FILE);
        faults.add("file", Problem::Missing(want));
    }
    let manifest = manifest?;
    let goldens = match (goldens, golden) {
        (Goldens::Needed, golden) => golden::read(&golden?, &manifest, faults),
        // What is wrong with those that are replaced is of no matter.
        (Goldens::ToBeMade, Some(golden)) => golden::read(&golden, &manifest, &Faults::default()),
        (Goldens::ToBeMade, None) => Vec::new(),
    };
    let carried = |name: &str, state: &State| TensorSpec::pinned(name, state.dtype, &state.shape);
    let states = manifest.states.iter();
    let taken = states.clone().map(|state| carried(&state.input, state));
    let inputs = manifest.inputs.iter().map(Input::spec).chain(taken).collect();
    let given = states.map(|state| carried(&state.output, state));
    let outputs = manifest.outputs.iter().map(Output::spec).chain(given).collect();
    let (dir, manifest, goldens) = (dir.to_owned(), Arc::new(manifest), goldens.into());
    Some(Bundle { dir, manifest, digest, goldens, inputs, outputs })
}

fn read_listed(dir: &Path, entry: &FileEntry) -> Result<Vec<u8>, Problem> {
    let unreadable = |e: std::io::Error| Problem::Unreadable(e.to_string());
    let path = dir.join(&entry.path);
    let root = dir.canonicalize().map_err(unreadable)?;
    let real = path.canonicalize().map_err(unreadable)?;
    if !real.starts_with(&root) {
        return Err(Problem::Unreadable("a link that leads out of the bundle".to_owned()));
    }
    let got = real.metadata().map_err(unreadable)?.len();
    if got != entry.bytes {
        return Err(Problem::Size { want: entry.bytes, got });
    }
    let bytes = read_bounded(&real, entry.bytes).map_err(Problem::Unreadable)?;
    let hash = Sha256::digest(&bytes);
    if hash[..] == entry.sha256 {
        Ok(bytes)
    } else {
        Err(Problem::Hash { want: hex::encode(entry.sha256), got: hex::encode(hash) })
    }
}

/// The whole file, refused when it is larger than `limit` bytes.
fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    if !file.metadata().map_err(|e| e.to_string())?.is_file() {
        return Err("not a file".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() as u64 > limit {
        return Err(format!("larger than {limit} bytes"));
    }
    Ok(bytes)
}
