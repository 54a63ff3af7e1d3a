//! Owns the seals of the lines.
//!
//! A line is the JSON of its entry with one field more at its end, `"seal":"..."`: the SHA-256, in
//! hexadecimal digits, of the 32 bytes of the seal before it and of the entry's JSON as it stands there.
//!
//! Pure. **Invariant:** two records with the same last seal have the same lines.

use sha2::{Digest, Sha256};

use super::event::Entry;

/// What stands between an entry's JSON, without its last brace, and the digits of its seal.
const BEFORE: &str = ",\"seal\":\"";
/// What stands behind them.
const BEHIND: &str = "\"}";

/// The seal of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seal([u8; 32]);

impl Seal {
    /// Its hexadecimal digits.
    pub fn to_hex(self) -> String {
        hex::encode(self.0)
    }

    /// A seal from its hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        hex::decode(text).ok()?.try_into().ok().map(Self)
    }

    fn over(self, text: &str) -> Self {
        Self(Sha256::new().chain_update(self.0).chain_update(text).finalize().into())
    }
}

/// The line of an entry behind one with the seal `after`, with its end, and its own seal.
pub(super) fn line(entry: &Entry, after: Seal) -> serde_json::Result<(String, Seal)> {
    let text = serde_json::to_string(entry)?;
    let seal = after.over(&text);
    let open = text.strip_suffix('}').unwrap_or(&text);
    Ok((format!("{open}{BEFORE}{}{BEHIND}\n", seal.to_hex()), seal))
}

/// What is wrong with a line by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreadable;

/// A line's entry, the seal that it shows, and the one that it should have behind one with the seal `after`.
pub(super) fn read(line: &str, after: Seal) -> Result<(Entry, Seal, Seal), Unreadable> {
    let (open, rest) = line.rsplit_once(BEFORE).ok_or(Unreadable)?;
    let digits = rest.strip_suffix(BEHIND).ok_or(Unreadable)?;
    let shown = Seal::from_hex(digits).ok_or(Unreadable)?;
    let text = format!("{open}}}");
    let entry = serde_json::from_str(&text).map_err(|_| Unreadable)?;
    Ok((entry, shown, after.over(&text)))
}
