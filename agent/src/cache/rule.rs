//! Owns what may be kept, and for how long.
//!
//! **Invariant:** what no rule covers is not kept and not shared; no rule covers `restricted` data, which
//! never leaves the device.

use std::time::Duration;

use crate::destination::Credential;
use crate::request::DataClass;

/// Stands for every name.
pub const ALL: &str = "*";

/// What is kept of answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheConfig {
    /// Bytes on disk at most; the oldest goes first.
    pub max_bytes: u64,
    /// Where the store's key comes from; `None`: the state folder.
    pub key: Option<Credential>,
    /// What is covered; the first rule that does counts.
    pub rules: Vec<Rule>,
}

/// What is covered, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Names as the caller gives them, of routes, destinations and models; [`ALL`].
    pub models: Vec<String>,
    /// Classes of what is asked.
    pub classes: Vec<DataClass>,
    /// How long an answer is kept; zero: not at all, and a send under way is shared.
    pub ttl: Duration,
}

impl CacheConfig {
    /// How long an answer of `model` to what has this class is kept; `None` where no rule covers it.
    #[must_use]
    pub fn ttl(&self, model: &str, class: DataClass) -> Option<Duration> {
        self.rules.iter().find(|rule| rule.covers(model, class)).map(|rule| rule.ttl)
    }

    /// Whether anything is ever kept.
    #[must_use]
    pub fn keeps(&self) -> bool {
        self.rules.iter().any(|rule| !rule.ttl.is_zero())
    }
}

impl Rule {
    fn covers(&self, model: &str, class: DataClass) -> bool {
        class != DataClass::Restricted
            && self.classes.contains(&class)
            && self.models.iter().any(|name| name == ALL || name == model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_covers_it_counts() {
        let rule = |models: &[&str], classes: &[DataClass], ttl_s| Rule {
            models: models.iter().map(|name| (*name).to_owned()).collect(),
            classes: classes.to_vec(),
            ttl: Duration::from_secs(ttl_s),
        };
        let rules = vec![
            rule(&["near", "any"], &[DataClass::Public, DataClass::Internal], 60),
            rule(&[ALL], &[DataClass::Public], 0),
            rule(&[ALL], &[DataClass::Restricted], 9),
        ];
        let config = CacheConfig { max_bytes: 1, key: None, rules };
        for (model, class, want) in [
            ("near", DataClass::Public, Some(60)),
            ("any", DataClass::Internal, Some(60)),
            ("far", DataClass::Public, Some(0)),
            ("far", DataClass::Internal, None),
            ("near", DataClass::Confidential, None),
            ("near", DataClass::Restricted, None),
        ] {
            let ttl = config.ttl(model, class).map(|ttl| ttl.as_secs());
            assert_eq!(ttl, want, "{model} {class}");
        }
        assert!(config.keeps());
        assert!(!CacheConfig { rules: config.rules[1..2].to_vec(), ..config }.keeps());
    }
}
