//! Where the agent of this device listens.
//!
//! **Invariant:** what the running agent noted counts more than what it is configured to be.

use serde_json::Value;

use crate::config::Config;

/// The address of the running agent's API, where it said that it is, or where it was told to be.
pub(super) fn address(config: &Config) -> String {
    let noted = std::fs::read_to_string(config.state_dir.join("api.json")).ok();
    let noted: Option<Value> = noted.and_then(|text| serde_json::from_str(&text).ok());
    let noted = noted.and_then(|value| value.get("api")?.as_str().map(str::to_owned));
    noted.unwrap_or_else(|| format!("http://{}", config.api.listen))
}
