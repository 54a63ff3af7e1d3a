//! The outputs that a reference runtime gave for the bundle's samples (`golden.toml`).
//!
//! **Invariant:** each golden names a variant and a file of its bundle and has one value a label.

use serde::Deserialize;

use super::fault::Problem;
use super::manifest::Manifest;
use super::section::Faults;

/// The file's name in every bundle.
pub(super) const FILE: &str = "golden.toml";

/// The output of one variant for one sample.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// The sample's file, relative to the bundle.
    pub sample: String,
    /// The variant's name.
    pub variant: String,
    /// The values of the output tensor, before any softmax or temperature.
    pub output: Vec<f32>,
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
    let labels = manifest.output.labels.len();
    for (i, golden) in goldens.iter().enumerate() {
        let key = |name: &str| format!("{FILE}: golden[{i}].{name}");
        if !manifest.variants.iter().any(|v| v.name == golden.variant) {
            faults.invalid(key("variant"), format!("\"{}\"", golden.variant), "a [[variant]]");
        }
        if !manifest.files.iter().any(|f| f.path == golden.sample) {
            faults.invalid(key("sample"), format!("\"{}\"", golden.sample), "a [[file]]");
        }
        if golden.output.len() != labels || golden.output.iter().any(|x| !x.is_finite()) {
            let got = format!("{} values", golden.output.len());
            faults.invalid(key("output"), got, &format!("{labels} finite values, one a label"));
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
