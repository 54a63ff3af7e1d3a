//! Owns what the environment overrides: `HOLDFAST_<TABLE>__<KEY>`, so that `HOLDFAST_API__LISTEN` is
//! `api.listen`.
//!
//! **Invariant:** a variable that looks like a key of the agent's and is none is noticed.

use toml::{Table, Value};

/// Tables whose keys can be overridden: `HOLDFAST_API_LISTEN` misses an underscore, and is noticed.
const TABLES: [&str; 10] = [
    "API_",
    "AUDIT_",
    "CACHE_",
    "DEVICE_",
    "MODELS_",
    "NETWORK_",
    "POLICY_",
    "QUEUE_",
    "REQUESTS_",
    "RESULTS_",
];

/// Applies one environment variable; false when it looks like a key of ours and is none.
pub(super) fn override_key(table: &mut Table, name: &str, value: &str) -> bool {
    let Some(path) = name.strip_prefix("HOLDFAST_") else { return true };
    // The controller's.
    if path.starts_with("FLEET_") && !path.starts_with("FLEET__") {
        return true;
    }
    if !path.contains("__") {
        return !TABLES.iter().any(|table| path.starts_with(table));
    }
    let lower = path.to_ascii_lowercase();
    let mut keys: Vec<&str> = lower.split("__").collect();
    let Some(last) = keys.pop() else { return false };
    let mut place = table;
    for key in keys {
        let entry = place.entry(key).or_insert_with(|| Value::Table(Table::new()));
        match entry {
            Value::Table(inner) => place = inner,
            _ => return false,
        }
    }
    // A value that reads as TOML (a number, a list, true) is that; everything else is a text.
    let parsed = format!("v = {value}").parse::<Table>().ok().and_then(|mut t| t.remove("v"));
    let parsed = parsed.filter(|value| !matches!(value, Value::Table(_) | Value::Datetime(_)));
    place.insert(last.to_owned(), parsed.unwrap_or_else(|| Value::String(value.to_owned())));
    true
}
