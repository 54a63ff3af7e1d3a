//! Bundles that tests write around the reference models.
//!
//! **Invariant:** a bundle lists every file it has, and its one golden is of its one variant.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use holdfast_models::{Bundle, Model, Runtime};
use sha2::{Digest, Sha256};

/// A bundle around one ONNX file.
#[derive(Debug, Clone, Copy)]
pub struct Made<'a> {
    /// The ONNX file.
    pub onnx: &'a [u8],
    /// The bundle's `kind`.
    pub kind: &'a str,
    /// Its tables from `[[input]]` on, but for variants, samples and files.
    pub tables: &'a str,
    /// The lines of its `[[sample]]` beside the file: `label = "..."`, or nothing.
    pub label: &'a str,
    /// The name and the bytes of the sample.
    pub sample: (&'a str, &'a [u8]),
    /// The values of the first output for the sample, and how far off they may be.
    pub golden: &'a [f32],
    /// How far off an output may be, 0..=100.
    pub tolerance: f32,
}

impl Made<'_> {
    /// Writes the bundle, `reference` by name.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, dir: &Path) -> anyhow::Result<()> {
        self.write_as("reference", dir)
    }

    /// Writes the bundle under a name, which is its task's too.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write_as(&self, bundle: &str, dir: &Path) -> anyhow::Result<()> {
        let Self { kind, tables, label, sample: (name, sample), golden, tolerance, .. } = self;
        let golden =
            format!("[[golden]]\nsample = {name:?}\nvariant = \"only\"\noutput = {golden:?}\n");
        let mut text = format!(
            "format = 1\nname = {bundle:?}\nversion = \"1.0.0\"\ntask = {bundle:?}\n\
             kind = {kind:?}\ndescription = \"a reference model\"\n\
             licence = \"as PROVENANCE.md says\"\n[provenance]\ntrained_by = \"others\"\n\
             data = [\"as PROVENANCE.md says\"]\nseed = 0\ndate = \"2026-11-21\"\n{tables}\n\
             [[variant]]\nname = \"only\"\nprecision = \"fp32\"\nfile = \"model.onnx\"\n\
             tolerance = {tolerance:?}\naccuracy = 0.9\n[[sample]]\nfile = {name:?}\n{label}\n"
        );
        for (path, bytes) in
            [("model.onnx", self.onnx), (*name, *sample), ("golden.toml", golden.as_bytes())]
        {
            fs::write(dir.join(path), bytes)?;
            let (hash, length) = (hex::encode(Sha256::digest(bytes)), bytes.len());
            write!(text, "[[file]]\npath = {path:?}\nbytes = {length}\nsha256 = {hash:?}\n")?;
        }
        fs::write(dir.join("bundle.toml"), text)?;
        Ok(())
    }

    /// The model of the bundle, on a runtime.
    ///
    /// # Errors
    /// The bundle does not open, or its model does not load.
    pub fn model(&self, runtime: &dyn Runtime) -> anyhow::Result<Model> {
        let dir = tempfile::tempdir()?;
        self.write(dir.path())?;
        let bundle = Bundle::open(dir.path())?;
        Ok(Model::load(&bundle, None, runtime)?)
    }
}
