//! Owns the date. The one place that asks the system for it.
//!
//! **Invariant:** spans are never computed from these dates; they are for stored times only.

/// Milliseconds since 1970-01-01 UTC, as this device believes; 0 when its clock is before that.
pub fn now_ms() -> u64 {
    #[allow(clippy::disallowed_methods, reason = "the one place for dates")]
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
