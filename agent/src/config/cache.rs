//! Owns the reading of `[cache]`.
//!
//! **Invariant:** a rule names names that can be asked, and classes that may leave the device.

use std::time::Duration;

use super::destinations::read_credential;
use super::reader::Section;
use crate::cache::{ALL, CacheConfig, Rule};
use crate::request::DataClass;

/// MiB on disk where the configuration does not say.
const USUAL_MIB: u64 = 64;
/// Seconds that an answer is kept where a rule does not say.
const USUAL_S: u64 = 3600;

/// What is kept of answers; `names` are those that can be asked.
pub(super) fn read(mut section: Section<'_>, names: &[String]) -> CacheConfig {
    let max_mib = section.integer("max_mib", 1..=65_536, USUAL_MIB);
    let key = read_credential(&mut section, ["key_file", "key_env", "key_credential"]);
    let mut rules = Vec::new();
    for mut rule in section.sections("rules") {
        rules.push(read_rule(&mut rule, names));
        rule.finish();
    }
    section.finish();
    CacheConfig { max_bytes: max_mib << 20, key, rules }
}

fn read_rule(section: &mut Section<'_>, names: &[String]) -> Rule {
    let models = section.texts("models").unwrap_or_default();
    if models.is_empty() {
        section.fault("models", "must have one name at least, or \"*\"");
    }
    for model in models.iter().filter(|model| *model != ALL && !names.contains(model)) {
        let what = "which is no route, destination or model of one, nor \"*\"";
        section.fault("models", format!("has \"{model}\", {what}"));
    }
    let mut classes = Vec::new();
    let given = section.texts("classes").unwrap_or_default();
    if given.is_empty() {
        section.fault("classes", "must have one class at least");
    }
    for text in given {
        match text.parse() {
            Ok(DataClass::Restricted) => {
                let what =
                    "has \"restricted\", which never leaves the device: nothing is kept of it";
                section.fault("classes", what);
            }
            Ok(class) => classes.push(class),
            Err(()) => {
                let want = "which is none of public, internal, confidential";
                section.fault("classes", format!("has \"{text}\", {want}"));
            }
        }
    }
    let ttl = Duration::from_secs(section.integer("ttl_s", 0..=31_536_000, USUAL_S));
    Rule { models, classes, ttl }
}
