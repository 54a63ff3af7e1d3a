//! Where the agent answers that runs with a configuration.
//!
//! **Invariant:** what the agent noted itself comes before what the configuration says: with port 0 only
//! it knows.

use serde_json::Value;

use crate::config::Config;

/// The base URL of its API.
pub(super) fn api_of(config: &Config) -> String {
    let noted = std::fs::read_to_string(config.state_dir.join("api.json")).ok();
    let noted: Option<Value> = noted.and_then(|text| serde_json::from_str(&text).ok());
    let noted = noted.and_then(|value| value.get("api")?.as_str().map(str::to_owned));
    noted.unwrap_or_else(|| format!("http://{}", config.api.listen))
}
