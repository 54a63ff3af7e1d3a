//! What `bundle.toml` says, as types, and how each section of it is read.
//!
//! **Invariant:** a `Manifest` exists only when no section of the file had a fault.

use super::batching::{self, Batching};
use super::fault::Problem;
use super::input::{self, Front, Input};
use super::kind::{self, Kind, Windows};
use super::output::{self, Output};
use super::section::{Faults, Section};
use super::series::{self, State};
use crate::outputs::Decoder;

/// Largest number of elements of a tensor named in a bundle.
pub(crate) const MAX_ELEMENTS: usize = 1 << 24;
/// Most elements of an answer that tells every one of them.
const MAX_TOLD: usize = 1 << 20;
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
    pub(super) inputs: Vec<Input>,
    pub(super) outputs: Vec<Output>,
    pub(super) states: Vec<State>,
    pub(super) decoder: Decoder,
    pub(super) windows: Windows,
    pub(super) variants: Vec<Variant>,
    pub(super) samples: Vec<Sample>,
    pub(super) batching: Option<Batching>,
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
    /// The right label, where the kind has labels and the sample one.
    pub label: Option<String>,
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
    let kind = top.choice("kind", &Kind::ALL);
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
    let inputs = all(&top, "input", 1..=16, input::read);
    let Outputs { outputs, mut decoder, mut labels } = outputs(&top, kind);
    if let Some((kind, table)) = kind.and_then(|kind| Some((kind, kind.table()?))) {
        match top.child(table) {
            Some(section) => {
                (decoder, labels) = kind::read_whole(kind, section, &inputs, &outputs);
            }
            None if top.has(table) => {}
            None => faults.add(table, Problem::Missing(format!("a table [{table}]"))),
        }
    }
    let states = all(&top, "state", 0..=16, series::state);
    let windows = kind::windows(top.child("windows"), kind);
    let variants = all(&top, "variant", 1..=16, variant);
    let needs_label = kind == Some(Kind::Classification);
    let samples = all(&top, "sample", 1..=1000, |section| sample(section, needs_label));
    let files = all(&top, "file", 1..=4000, file);
    check_links(labels.as_deref(), &variants, &samples, &files, faults);
    check_tensors(&inputs, &outputs, &states, faults);
    let told: usize = outputs.iter().map(Output::size).sum();
    if matches!(kind, Some(Kind::Tensor | Kind::Embedding)) && told > MAX_TOLD {
        let allowed = format!("at most {MAX_TOLD} in all, as every one is told");
        faults.invalid("output", format!("{told} elements"), &allowed);
    }
    if let (Some(decoder), Some(first)) = (&decoder, outputs.first()) {
        kind::check_inputs(decoder, "output[0]", &inputs, first.size(), faults);
    }
    let batching = top.child("batching").and_then(batching::read);
    if batching.is_some() && !inputs.iter().all(|input| input.free_batch) {
        let allowed = "there only where the shapes of all inputs and outputs begin with \"batch\"";
        faults.invalid("batching", "present".to_owned(), allowed);
    }
    top.finish();
    let manifest = || {
        format?;
        Some(Manifest {
            name: name?,
            version: version?,
            task: task?,
            description: description?,
            licence: licence?,
            provenance: provenance?,
            inputs,
            outputs,
            states,
            decoder: decoder?,
            windows: windows?,
            variants,
            samples,
            batching,
            files: files.clone(),
        })
    };
    (if faults.is_empty() { manifest() } else { None }, files)
}

/// What the outputs' sections say.
struct Outputs {
    outputs: Vec<Output>,
    decoder: Option<Decoder>,
    labels: Option<Vec<String>>,
}

/// Reads the outputs; the answer is made of the first, which has the kind's keys.
fn outputs(top: &Section<'_>, kind: Option<Kind>) -> Outputs {
    let mut all = Outputs { outputs: Vec::new(), decoder: None, labels: None };
    for (at, section) in top.children("output", 1..=16).into_iter().enumerate() {
        let output = output::read(&section, kind);
        if let Some(kind) = kind.filter(|_| at == 0) {
            (all.decoder, all.labels) = kind::read(kind, &section, output.as_ref());
        }
        // The keys of a kind that is not known are not known either.
        if kind.is_some() {
            section.finish();
        }
        all.outputs.extend(output);
    }
    all
}

/// What the tensors of one graph must have in common.
fn check_tensors(inputs: &[Input], outputs: &[Output], states: &[State], faults: &Faults) {
    let taken = inputs.iter().map(|input| &*input.name);
    unique(taken.chain(states.iter().map(|state| &*state.input)), "input", "name", faults);
    let given = outputs.iter().map(|output| &*output.name);
    unique(given.chain(states.iter().map(|state| &*state.output)), "output", "name", faults);
    let is_free = inputs.iter().any(|input| input.free_batch);
    for (i, output) in outputs.iter().enumerate().filter(|(_, out)| out.free_batch != is_free) {
        let allowed = "as free in its batch as the inputs";
        faults.invalid(format!("output[{i}].shape"), format!("{:?}", output.shape), allowed);
    }
    if is_free && !states.is_empty() {
        faults.invalid("state", format!("{} tables", states.len()), "absent where a batch is free");
    }
    if !inputs.is_empty() && inputs.iter().all(|i| matches!(i.front, Front::Constant(_))) {
        faults.invalid("input", "constants only".to_owned(), "at least one that a caller sends");
    }
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

fn sample(section: Section<'_>, needs_label: bool) -> Option<Sample> {
    let file = path(&section, "file");
    let label = match needs_label || section.has("label") {
        true => Some(section.text("label", 100)),
        false => None,
    };
    section.finish();
    let label = match label {
        Some(label) => Some(label?),
        None => None,
    };
    Some(Sample { file: file?, label })
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
        if let (Some(labels), Some(label)) = (labels, &sample.label)
            && !labels.contains(label)
        {
            must("sample.label", label, "one of output[0].labels");
        }
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
