//! Owns the reading of who takes results: named takers of the API, and webhooks.

use super::bytes;
use super::reader::Section;
use crate::results::takers::TakerName;

/// Who takes results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultsConfig {
    /// Takers that are known before they acknowledge anything.
    pub takers: Vec<TakerName>,
    /// Named takers of the API at most.
    pub max_takers: usize,
}

const NAME: &str = "1 to 64 of a-z, 0-9 and -";

pub(super) fn read(mut section: Section<'_>) -> ResultsConfig {
    let max_takers = bytes(section.integer("max_takers", 1..=1024, 64));
    let mut takers = Vec::new();
    for text in section.texts("takers").unwrap_or_default() {
        match TakerName::parse(&text) {
            Some(name) => takers.push(name),
            None => section.fault("takers", format!("has \"{text}\", must be names: {NAME}")),
        }
    }
    if takers.len() > max_takers {
        let count = takers.len();
        section.fault("takers", format!("has {count}, must be at most results.max_takers"));
    }
    section.finish();
    ResultsConfig { takers, max_takers }
}
