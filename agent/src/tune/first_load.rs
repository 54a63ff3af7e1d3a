//! What became of the process that loaded a variant on tract for the first time.
//!
//! tract runs inside of this program: a graph that makes it overflow its stack, or calculate without an
//! end, would take the agent along. So a child loads it first, once for each bundle, machine and build.
//!
//! **Invariant:** what is kept counts for exactly the bundle's bytes, the machine and the build that it
//! was found out with. What did harm once is not loaded again until somebody asks for it.

use std::collections::BTreeMap;
use std::path::Path;

use holdfast_models::Bundle;
use serde::{Deserialize, Serialize};

use super::record::{board, read_json};

/// So many variants are remembered.
const MOST: usize = 1024;

/// What became of a process that loaded a variant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Ended {
    /// It lived, whether the variant can be used or not.
    Survived,
    /// It did not, for this reason.
    Harmed(String),
}

/// All variants that were loaded for the first time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FirstLoads {
    /// The machine and the build.
    place: String,
    variants: BTreeMap<String, Ended>,
}

impl FirstLoads {
    /// What is kept in a file for this machine and this build; nothing where there is none.
    pub(super) fn read(file: &Path) -> Self {
        let place = format!("{} {}", env!("CARGO_PKG_VERSION"), board());
        // What does not read is found out once more.
        let kept = read_json::<Self>(file).and_then(Result::ok);
        let fitting = kept.filter(|kept| kept.place == place);
        fitting.unwrap_or(Self { place, variants: BTreeMap::new() })
    }

    pub(super) fn of(&self, bundle: &Bundle, variant: &str) -> Option<&Ended> {
        self.variants.get(&key(bundle, variant))
    }

    /// Takes in what became of a first load; what is known already stays. False: it changes nothing.
    pub(super) fn put(&mut self, bundle: &Bundle, variant: &str, ended: Ended) -> bool {
        let key = key(bundle, variant);
        if self.variants.contains_key(&key) {
            return false;
        }
        if self.variants.len() >= MOST {
            // Whichever it is: it is tried once more.
            self.variants.pop_first();
        }
        self.variants.insert(key, ended);
        true
    }

    /// What a bundle did does not count any more. False: it changes nothing.
    pub(super) fn forget_harm(&mut self, bundle: &Bundle) -> bool {
        let before = self.variants.len();
        let own = hex::encode(bundle.digest());
        self.variants
            .retain(|key, ended| !key.starts_with(&own) || !matches!(ended, Ended::Harmed(_)));
        self.variants.len() < before
    }
}

fn key(bundle: &Bundle, variant: &str) -> String {
    format!("{} {variant}", hex::encode(bundle.digest()))
}
