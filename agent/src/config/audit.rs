//! Owns the reading of `[audit]`.
//!
//! **Invariant:** a record that is required is kept.

use super::reader::Section;
use crate::audit::AuditConfig;

/// MiB on disk where the configuration does not say: some 200,000 lines.
const USUAL_MIB: u64 = 64;

pub(super) fn read(mut section: Section<'_>) -> AuditConfig {
    let max_mib = section.integer("max_mib", 0..=65_536, USUAL_MIB);
    let required = section.boolean("required", false);
    if required && max_mib == 0 {
        section.fault("max_mib", "is 0, which keeps no record, and audit.required wants one");
    }
    section.finish();
    AuditConfig { max_bytes: max_mib << 20, required }
}
