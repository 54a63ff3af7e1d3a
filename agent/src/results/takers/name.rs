//! Owns what takers are called.
//!
//! **Invariant:** no caller has the name of one of the agent's own takers, and every name is one of a file.

use std::path::Path;

/// The name of a taker: 1 to 64 of `a-z`, `0-9`, `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TakerName(String);

impl TakerName {
    /// A name that a caller or the configuration gives.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        fits.then(|| Self(text.to_owned()))
    }

    /// The agent's own taker for a webhook; no caller can have that name.
    pub fn webhook(name: &Self) -> Self {
        Self(format!("webhook.{}", name.0))
    }

    /// The agent's own taker for the fleet's controller.
    pub fn fleet() -> Self {
        Self("fleet.controller".to_owned())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The webhook whose taker this is.
    pub(super) fn of_webhook(&self) -> Option<&str> {
        self.0.strip_prefix("webhook.")
    }

    /// Whether it is the agent's own.
    pub(super) fn is_own(&self) -> bool {
        self.0.contains('.')
    }

    /// The taker whose cursor a file is.
    pub(super) fn of_file(path: &Path) -> Option<Self> {
        let stem = path.file_name()?.to_str()?.strip_suffix(".toml")?;
        let name = Self(stem.to_owned());
        let bare = name.of_webhook().unwrap_or(stem);
        (name == Self::fleet() || Self::parse(bare).is_some()).then_some(name)
    }
}

impl std::fmt::Display for TakerName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}
