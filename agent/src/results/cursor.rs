//! How far a taker of results is, and what it missed.
//!
//! Pure. **Invariant:** a cursor only goes forward, and a gap is told until it was acknowledged.

use serde::{Deserialize, Serialize};

/// How far a taker is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// All results up to this number are acknowledged.
    pub number: u64,
    /// The first result behind it, noted when it was about to be forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<u64>,
    /// Results behind it that were forgotten, as far as they were counted.
    #[serde(default)]
    pub(super) missed: u64,
    /// Not all of them were counted.
    #[serde(default)]
    pub(super) missed_more: bool,
}

/// Results that a taker never acknowledged, and that are kept no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The last number that was acknowledged.
    pub after: u64,
    /// Up to this number nothing is left; acknowledging it closes the gap.
    pub up_to: u64,
    /// How many are missing; `null` when that is not known.
    pub missed: Option<u64>,
}

impl Cursor {
    /// What the taker missed, when the first result behind its cursor is `first`.
    #[must_use]
    pub fn gap(&self, first: Option<u64>) -> Option<Gap> {
        let next = self.next.filter(|next| first != Some(*next))?;
        let up_to = first.map_or(next, |first| first.saturating_sub(1)).max(next);
        let missed = (self.missed > 0 && !self.missed_more).then_some(self.missed);
        Some(Gap { after: self.number, up_to, missed })
    }

    /// The cursor behind everything up to `number`.
    #[must_use]
    pub fn advanced(self, number: u64) -> Self {
        if number <= self.number {
            return self;
        }
        match self.next {
            Some(next) if number < next => Self { number, ..self },
            _ => Self { number, ..Self::default() },
        }
    }
}
