//! stub
use crate::identity::Identity;
use holdfast_wire::message::{Health, ModelState};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
/// stub
#[derive(Debug)]
#[allow(missing_docs)]
pub struct LinkConfig {
    pub host: String,
    pub port: u16,
    pub interval: Duration,
    pub board: String,
    pub agent_version: String,
    pub models: Vec<ModelState>,
    pub started_ms: u64,
}
/// stub
pub async fn run(
    _c: LinkConfig,
    _i: Identity,
    _h: impl Fn() -> Health + Send + 'static,
    stop: CancellationToken,
) {
    stop.cancelled().await
}
