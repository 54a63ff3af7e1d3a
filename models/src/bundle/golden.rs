//! The outputs that a reference runtime gave for the bundle's samples (`golden.toml`).
//!
//! **Invariant:** each golden names a variant and a file of its bundle, and has as many values as the
//! output that they are of.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;

use super::fault::Problem;
use super::manifest::Manifest;
use super::output::Output;
use super::section::Faults;

/// The file's name in every bundle.
pub const FILE: &str = "golden.toml";

/// The output of one variant for one sample.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// The sample's file, relative to the bundle.
    pub sample: String,
    /// The variant's name.
    pub variant: String,
    /// The values of the first output, before any softmax or temperature; of a sample of several
    /// windows those of the last.
    pub output: Vec<f32>,
    /// The values of other outputs, by their names; as many of them as the bundle wants compared.
    #[serde(default)]
    pub others: BTreeMap<String, Vec<f32>>,
}

impl Golden {
    /// The text of a `golden.toml` with these; the texts of several follow each other in one file.
    pub fn text(goldens: &[Self]) -> String {
        let mut text = String::new();
        for Self { sample, variant, output, others } in goldens {
            // Writing to a String cannot fail.
            let head = format!("[[golden]]\nsample = {sample:?}\nvariant = {variant:?}");
            writeln!(text, "{head}\noutput = {output:?}").ok();
            if !others.is_empty() {
                writeln!(text, "\n[golden.others]").ok();
            }
            for (name, values) in others {
                writeln!(text, "{} = {values:?}", toml::Value::String(name.clone())).ok();
            }
            text.push('\n');
        }
        text
    }

    /// The largest difference of a value from another's; `None` where one has values that the other
    /// has not.
    pub fn off_from(&self, other: &Self) -> Option<f32> {
        let off = |a: &[f32], b: &[f32]| {
            let pairs = a.iter().zip(b);
            (a.len() == b.len()).then(|| pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max))
        };
        if self.others.len() != other.others.len() {
            return None;
        }
        let first = off(&self.output, &other.output)?;
        self.others.iter().try_fold(first, |worst, (name, values)| {
            Some(f32::max(worst, off(values, other.others.get(name)?)?))
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole {
    golden: Vec<Golden>,
}

/// Reads and checks the file's text; faults carry its name.
pub(super) fn read(bytes: &[u8], manifest: &Manifest, faults: &Faults) -> Vec<Golden> {
    let parsed = std::str::from_utf8(bytes)
        .map_err(|e| e.to_string())
        .and_then(|text| toml::from_str::<Whole>(text).map_err(|e| e.to_string()));
    let goldens = match parsed {
        Ok(whole) => whole.golden,
        Err(why) => {
            faults.add(FILE, Problem::Syntax(why.trim_end().to_owned()));
            return Vec::new();
        }
    };
    let size = manifest.outputs.first().map_or(0, Output::size);
    for (i, golden) in goldens.iter().enumerate() {
        let key = |name: &str| format!("{FILE}: golden[{i}].{name}");
        if !manifest.variants.iter().any(|v| v.name == golden.variant) {
            faults.invalid(key("variant"), format!("\"{}\"", golden.variant), "a [[variant]]");
        }
        if !manifest.files.iter().any(|f| f.path == golden.sample) {
            faults.invalid(key("sample"), format!("\"{}\"", golden.sample), "a [[file]]");
        }
        if golden.output.len() != size || golden.output.iter().any(|x| !x.is_finite()) {
            let got = format!("{} values", golden.output.len());
            let want = format!("{size} finite values, as many as the first output has");
            faults.invalid(key("output"), got, &want);
        }
        for (name, values) in &golden.others {
            let others = manifest.outputs.iter().skip(1);
            let size = others.filter(|output| output.name == *name).map(Output::size).next();
            if size != Some(values.len()) || values.iter().any(|x| !x.is_finite()) {
                let got = format!("{} values", values.len());
                let want = "the finite values of an [[output]] behind the first";
                faults.invalid(key(&format!("others.{name}")), got, want);
            }
        }
    }
    for variant in &manifest.variants {
        if !goldens.iter().any(|g| g.variant == variant.name) {
            let want = format!("at least one [[golden]] of variant \"{}\"", variant.name);
            faults.add(format!("{FILE}: golden"), Problem::Missing(want));
        }
    }
    goldens
}
