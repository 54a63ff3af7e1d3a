//! What `bundle.toml` says, as types, and how each section of it is read.
//!
//! **Invariant:** a `Manifest` exists only when no section of the file had a fault.

use super::fault::Problem;
use super::input::{self, Input};
use super::output::{self, Output};
use super::section::{Faults, Section};

/// Largest number of elements of a tensor named in a bundle.
pub(super) const MAX_ELEMENTS: usize = 1 << 24;
/// Largest size of one file of a bundle, in bytes.
const MAX_FILE_BYTES: usize = 1 << 30;

/// The checked content of `bundle.toml`.
#[derive(Debug, Clone)]
pub(super) struct Manifest {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) task: String,
    pub(super) description: String,
    pub(super) licence: String,
    pub(super) provenance: Provenance,
    pub(super) input: Input,
    pub(super) output: Output,
    pub(super) variants: Vec<Variant>,
    pub(super) samples: Vec<Sample>,
    pub(super) files: Vec<FileEntry>,
}

/// Where the model comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// The script that trains it.
    pub trained_by: String,
    /// The data it was trained on, one line a source, with the licence.
    pub data: Vec<String>,
    /// The seed of the training run.
    pub seed: u64,
    /// The day it was trained, `YYYY-MM-DD`.
    pub date: String,
}

/// One form of the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// The variant's name, unique in its bundle.
    pub name: String,
    /// Its arithmetic.
    pub precision: Precision,
    /// The ONNX file, relative to the bundle.
    pub file: String,
    /// Largest absolute difference of an output against `golden.toml`, on any runtime.
    pub tolerance: f32,
    /// Accuracy on the test set that CARD.md names, 0..=1.
    pub accuracy: f32,
}

impl Variant {
    /// The variant's name, unique in its bundle.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The arithmetic of a variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// 32-bit floating point.
    Fp32,
    /// 8-bit weights and activations between QuantizeLinear and DequantizeLinear.
    Int8Qdq,
}

impl Precision {
    /// The name as bundle.toml spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Int8Qdq => "int8-qdq",
        }
    }
}

/// One input that the bundle carries, with its right answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The file, relative to the bundle.
    pub file: String,
    /// The right label.
    pub label: String,
}

/// One file of the bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// The file, relative to the bundle.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: [u8; 32],
}

/// Reads the whole file. There is no manifest when there was any fault, all of which are then in
/// `faults`; the files that could be read are given all the same, so that they can be checked too.
pub(super) fn read(table: &toml::Table, faults: &Faults) -> (Option<Manifest>, Vec<FileEntry>) {
    let top = Section::new(table, "", faults);
    let format = top.whole("format", 1..=1);
    let name = name(&top, "name");
    let version = top.need("version", "a semantic version such as 1.0.0", |v| {
        v.as_str().filter(|s| is_semver(s)).map(str::to_owned)
    });
    let task = self::name(&top, "task");
    let kind = top.choice("kind", &[("classification", ())]);
    let description = top.text("description", 500);
    let licence = top.text("licence", 200);
    let provenance = match top.child("provenance") {
        Some(section) => provenance(section),
        None => {
            if !top.has("provenance") {
                top.need("provenance", "a table [provenance]", |_| Some(()));
            }
            None
        }
    };
    let input = top.children("input", 1..=1).pop().and_then(input::read);
    let (output, labels) = top.children("output", 1..=1).pop().map_or((None, None), output::read);
    let variants = all(&top, "variant", 1..=16, variant);
    let samples = all(&top, "sample", 1..=1000, sample);
    let files = all(&top, "file", 1..=4000, file);
    check_links(labels.as_deref(), &variants, &samples, &files, faults);
    top.finish();
    let manifest = || {
        format.zip(kind)?;
        Some(Manifest {
            name: name?,
            version: version?,
            task: task?,
            description: description?,
            licence: licence?,
            provenance: provenance?,
            input: input?,
            output: output?,
            variants,
            samples,
            files: files.clone(),
        })
    };
    (if faults.is_empty() { manifest() } else { None }, files)
}

/// Every section of the list that could be read.
fn all<T>(
    top: &Section<'_>,
    key: &str,
    count: std::ops::RangeInclusive<usize>,
    read: impl Fn(Section<'_>) -> Option<T>,
) -> Vec<T> {
    top.children(key, count).into_iter().filter_map(read).collect()
}

fn name(section: &Section<'_>, key: &str) -> Option<String> {
    section.need(key, "1 to 64 of a-z, 0-9 and -", |v| {
        let fits = |s: &&str| {
            (1..=64).contains(&s.len())
                && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        v.as_str().filter(fits).map(str::to_owned)
    })
}

fn provenance(section: Section<'_>) -> Option<Provenance> {
    let trained_by = section.text("trained_by", 200);
    let data = section.texts("data", 100);
    let seed = section.need("seed", "a whole number, 0 or more", |v| {
        v.as_integer().and_then(|n| u64::try_from(n).ok())
    });
    let date = section.need("date", "a day as \"YYYY-MM-DD\"", |v| {
        v.as_str().filter(|s| is_day(s)).map(str::to_owned)
    });
    section.finish();
    Some(Provenance { trained_by: trained_by?, data: data?, seed: seed?, date: date? })
}

fn variant(section: Section<'_>) -> Option<Variant> {
    let name = name(&section, "name");
    let precision =
        section.choice("precision", &[("fp32", Precision::Fp32), ("int8-qdq", Precision::Int8Qdq)]);
    let file = path(&section, "file");
    let tolerance = section.number("tolerance", 0.0..=100.0);
    let accuracy = section.number("accuracy", 0.0..=1.0);
    section.finish();
    Some(Variant {
        name: name?,
        precision: precision?,
        file: file?,
        tolerance: tolerance?,
        accuracy: accuracy?,
    })
}

fn sample(section: Section<'_>) -> Option<Sample> {
    let file = path(&section, "file");
    let label = section.text("label", 100);
    section.finish();
    Some(Sample { file: file?, label: label? })
}

fn file(section: Section<'_>) -> Option<FileEntry> {
    let path = path(&section, "path");
    let bytes = section.whole("bytes", 1..=MAX_FILE_BYTES);
    let sha256 = section.need("sha256", "64 hexadecimal digits in lower case", |v| {
        let text = v.as_str().filter(|s| !s.bytes().any(|b| b.is_ascii_uppercase()))?;
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash).ok().map(|()| hash)
    });
    section.finish();
    Some(FileEntry { path: path?, bytes: bytes? as u64, sha256: sha256? })
}

/// A path that stays inside the bundle whatever the system's rules are.
fn path(section: &Section<'_>, key: &str) -> Option<String> {
    let allowed = "a path inside the bundle, of a-z, A-Z, 0-9, '.', '_', '-' between slashes";
    section.need(key, allowed, |v| v.as_str().filter(|s| is_inside(s)).map(str::to_owned))
}

fn is_inside(path: &str) -> bool {
    let part_fits = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    path.len() <= 200 && path.split('/').all(part_fits)
}

/// The names in one section that must be found in another.
fn check_links(
    labels: Option<&[String]>,
    variants: &[Variant],
    samples: &[Sample],
    files: &[FileEntry],
    faults: &Faults,
) {
    unique(variants.iter().map(|v| &*v.name), "variant", "name", faults);
    unique(samples.iter().map(|s| &*s.file), "sample", "file", faults);
    unique(files.iter().map(|f| &*f.path), "file", "path", faults);
    let must = |key: &str, value: &str, allowed: &str| {
        faults.invalid(key, format!("\"{value}\""), allowed);
    };
    let is_listed = |path: &str| files.iter().any(|f| f.path == path);
    for variant in variants.iter().filter(|v| !is_listed(&v.file)) {
        must("variant.file", &variant.file, "the path of a [[file]]");
    }
    for sample in samples {
        if !is_listed(&sample.file) {
            must("sample.file", &sample.file, "the path of a [[file]]");
        }
        if labels.is_some_and(|labels| !labels.contains(&sample.label)) {
            must("sample.label", &sample.label, "one of output[0].labels");
        }
    }
    if !is_listed(super::golden::FILE) {
        faults
            .add("file", Problem::Missing(format!("one with path = \"{}\"", super::golden::FILE)));
    }
}

fn unique<'a>(names: impl Iterator<Item = &'a str>, section: &str, key: &str, faults: &Faults) {
    let mut seen = std::collections::BTreeSet::new();
    for (i, name) in names.enumerate() {
        if !seen.insert(name) {
            faults.invalid(
                format!("{section}[{i}].{key}"),
                format!("\"{name}\""),
                "different from those before it",
            );
        }
    }
}

/// `MAJOR.MINOR.PATCH` with an optional `-pre.release` and `+build` (semver.org 2.0.0).
fn is_semver(text: &str) -> bool {
    let (text, build) = text.split_once('+').map_or((text, None), |(a, b)| (a, Some(b)));
    let (core, pre) = text.split_once('-').map_or((text, None), |(a, b)| (a, Some(b)));
    let is_number = |s: &str| {
        (1..=9).contains(&s.len())
            && s.bytes().all(|b| b.is_ascii_digit())
            && (s == "0" || !s.starts_with('0'))
    };
    let is_word =
        |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let is_pre = |s: &str| is_word(s) && (is_number(s) || !s.bytes().all(|b| b.is_ascii_digit()));
    core.split('.').count() == 3
        && core.split('.').all(is_number)
        && pre.is_none_or(|s| s.split('.').all(is_pre))
        && build.is_none_or(|s| s.split('.').all(is_word))
}

fn is_day(text: &str) -> bool {
    let bytes = text.as_bytes();
    let number = |range: std::ops::Range<usize>| {
        text.get(range).filter(|s| s.bytes().all(|b| b.is_ascii_digit()))?.parse::<u32>().ok()
    };
    bytes.len() == 10
        && bytes[4] == b'-'
        && bytes[7] == b'-'
        && number(0..4).is_some()
        && number(5..7).is_some_and(|month| (1..=12).contains(&month))
        && number(8..10).is_some_and(|day| (1..=31).contains(&day))
}
