//! A bundle's folder under writing.
//!
//! **Invariant:** what is written lies beside its place under a name of its own, which is gone again
//! when anything fails; it takes its place whole, and only where nothing is.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use holdfast_models::inspect::{Draft, Texts, manifest};
use holdfast_models::{Bundle, Media, Model, Reference, Runtime};
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
        let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
        let made = parent.map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::create_dir(&folder));
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
        self.write("bundle.toml", manifest(draft, &texts).as_bytes())
    }

    fn write(&self, path: &str, bytes: &[u8]) -> Result<(), Failure> {
        let target = self.folder.join(path);
        let folder = target.parent().map_or(Ok(()), fs::create_dir_all);
        let written = folder.and_then(|()| fs::write(&target, bytes));
        written
            .and_then(|()| fs::File::open(&target)?.sync_all())
            .map_err(|error| unwritable(&target, &error))
    }

    /// What the model gives for the sample.
    pub(super) fn reference(
        &self,
        engine: &dyn Runtime,
        sample: &[u8],
    ) -> Result<Reference, Failure> {
        let bundle = self.open()?;
        let refused = |why: String| {
            Failure::new(Exit::Found, format!("the sample has no golden output: {why}"))
        };
        let media = Media::detect_for(sample.to_vec(), None, Some(bundle.expects()));
        let media = media.map_err(|error| refused(crate::error_chain(&error)))?;
        let reference = Model::reference(&bundle, engine, &media);
        reference.map_err(|error| refused(crate::error_chain(&error)))
    }

    /// Whether the bundle is whole and goes into service.
    pub(super) fn check(&self, engine: &dyn Runtime) -> Result<(), Failure> {
        let loaded = Model::load(&self.open()?, None, engine);
        loaded.map(drop).map_err(|error| Failure::new(Exit::Found, crate::error_chain(&error)))
    }

    fn open(&self) -> Result<Bundle, Failure> {
        Bundle::open(&self.folder).map_err(|error| {
            let why = error.faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  ");
            Failure::new(Exit::Found, format!("no bundle can say what this model is:\n  {why}"))
        })
    }

    /// Gives the folder its name, where nothing is.
    pub(super) fn put(mut self, to: &Path) -> Result<(), Failure> {
        // An empty folder that came meanwhile would be replaced, a file or a full one not.
        fs::rename(&self.folder, to).map_err(|error| unwritable(to, &error))?;
        self.folder = PathBuf::new();
        let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
        let synced = fs::File::open(parent.unwrap_or(Path::new("."))).and_then(|f| f.sync_all());
        synced.map_err(|error| unwritable(to, &error))
    }
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

/// The text of `golden.toml`.
pub(super) fn golden_text(
    sample: &str,
    variant: &str,
    output: &[f32],
    others: &[(String, Vec<f32>)],
) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    writeln!(
        text,
        "[[golden]]\nsample = \"{sample}\"\nvariant = \"{variant}\"\noutput = {output:?}"
    )
    .ok();
    if !others.is_empty() {
        writeln!(text, "\n[golden.others]").ok();
    }
    for (name, values) in others {
        writeln!(text, "{} = {values:?}", toml::Value::String(name.clone())).ok();
    }
    text
}
