//! Owns what a check of `doctor` found, and how all of it is printed.
//!
//! **Invariant:** what is not fine comes with advice.

use serde::Serialize;

use crate::cli::{Failure, output};

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Health {
    Fine,
    Warn,
    Fault,
}

/// One check.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    pub(super) check: String,
    pub(super) health: Health,
    pub(super) found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) advice: Option<String>,
}

impl Finding {
    pub(super) fn fine(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self { check: check.into(), health: Health::Fine, found: found.into(), advice: None }
    }

    pub(super) fn warn(
        check: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        let advice = Some(advice.into());
        Self { check: check.into(), health: Health::Warn, found: found.into(), advice }
    }

    pub(super) fn fault(
        check: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { health: Health::Fault, ..Self::warn(check, found, advice) }
    }
}

/// Prints what was found.
pub(super) fn report(findings: &[Finding], json: bool) -> Result<(), Failure> {
    if json {
        return output::print_json(&findings);
    }
    for (at, finding) in findings.iter().enumerate() {
        let mark = match finding.health {
            Health::Fine => "ok   ",
            Health::Warn => "warn ",
            Health::Fault => "FAULT",
        };
        output::print(&format!("{mark}  {}: {}", finding.check, finding.found))?;
        // Advice for several findings in a row stands behind the last.
        let next = findings.get(at + 1).and_then(|next| next.advice.as_ref());
        if let Some(advice) = finding.advice.as_ref().filter(|advice| next != Some(advice)) {
            output::print(&format!("       → {advice}"))?;
        }
    }
    Ok(())
}
