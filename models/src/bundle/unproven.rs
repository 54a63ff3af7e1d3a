//! A bundle that is whole but for its golden outputs, which are about to be made.
//!
//! **Invariant:** no model goes into service from it; for that the goldens are put in, and the bundle is
//! opened as any other.

use std::path::Path;

use super::{Bundle, BundleError, Golden, Goldens, MediaKind, Sample, Variant, checked};

/// A bundle whose goldens do not count: those that are there may be anything, or missing.
#[derive(Debug, Clone)]
pub struct Unproven(Bundle);

impl Unproven {
    /// Reads and checks the bundle in `dir` but for `golden.toml`.
    ///
    /// # Errors
    /// Every other fault, as [`Bundle::open`].
    pub fn open(dir: &Path) -> Result<Self, BundleError> {
        checked(dir, Goldens::ToBeMade).map(Self)
    }

    /// The bundle's name.
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// Its variants.
    pub fn variants(&self) -> &[Variant] {
        self.0.variants()
    }

    /// The inputs that it carries.
    pub fn samples(&self) -> &[Sample] {
        self.0.samples()
    }

    /// What it takes.
    pub fn expects(&self) -> MediaKind {
        self.0.expects()
    }

    /// The goldens that are there, as far as they can be read.
    pub fn before(&self) -> &[Golden] {
        self.0.goldens()
    }

    /// The bytes of a listed file, as [`Bundle::read`].
    ///
    /// # Errors
    /// As [`Bundle::read`].
    pub fn read(&self, path: &str) -> Result<Vec<u8>, BundleError> {
        self.0.read(path)
    }

    /// All of it, for whoever makes the goldens.
    pub(crate) fn bundle(&self) -> &Bundle {
        &self.0
    }
}
