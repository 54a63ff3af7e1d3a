//! Where the agent of this device listens.
//!
//! **Invariant:** what the running agent noted counts more than what it is configured to be.

use std::path::PathBuf;

use serde_json::Value;

use crate::access::operator_token;
use crate::config::Config;
use crate::escalate::{LocalAgent, LocalError};

/// The running agent, where it said that it is, or where it was told to be: over its socket if it has one,
/// else at its address.
///
/// # Errors
/// When the address is none.
pub(super) fn agent(config: &Config) -> Result<LocalAgent, LocalError> {
    let noted = std::fs::read_to_string(config.state_dir.join("api.json")).ok();
    let noted: Option<Value> = noted.and_then(|text| serde_json::from_str(&text).ok());
    let told = |key: &str| Some(noted.as_ref()?.get(key)?.as_str()?.to_owned());
    let address = told("api").unwrap_or_else(|| format!("http://{}", config.api.listen));
    let socket = told("socket").map(PathBuf::from);
    LocalAgent::at(&address, socket, operator_token(&config.state_dir))
}
