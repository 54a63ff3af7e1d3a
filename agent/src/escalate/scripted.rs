//! A network that a test makes up, in place of the sockets.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::Escalator;
use super::http::{Call, HttpError, Method, Reply};
use super::wire::Wire;

/// Where calls go.
pub(crate) trait Network: Debug + Send + Sync {
    /// What comes back; a future that does not end is silence.
    fn call(&self, call: Called) -> BoxFuture<'static, Told>;
}

/// One call, as the other side sees it.
#[derive(Debug, Clone)]
pub(crate) struct Called {
    pub(crate) is_probe: bool,
    pub(crate) url: String,
    pub(crate) headers: Vec<(&'static str, String)>,
}

/// What comes back.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    /// Status, the wait that it asks for, and a body.
    Reply(u16, Option<Duration>, Value),
    /// No connection.
    Nobody,
    /// The connection broke before an answer.
    Cut,
}

impl Called {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(each, _)| *each == name).map(|(_, value)| value.as_str())
    }
}

impl Escalator {
    /// Sends into `network` from here on.
    pub(crate) fn into_network(mut self, network: &Arc<dyn Network>) -> Self {
        for endpoint in &mut self.endpoints {
            let endpoint = Arc::get_mut(endpoint).expect("nobody sends yet");
            endpoint.http.script(network.clone());
            endpoint.probes.script(network.clone());
        }
        self
    }
}

pub(super) async fn exchange(
    network: &Arc<dyn Network>,
    wire: &Wire,
    call: Call,
    deadline: Instant,
    on_head: impl FnOnce(),
) -> Result<Reply, HttpError> {
    let is_probe = call.method == Method::Get;
    let sent = call.body.len();
    let called = Called { is_probe, url: call.url, headers: call.headers };
    match timeout_at(deadline, network.call(called)).await {
        Err(_) => Err(HttpError::NoAnswer),
        Ok(Told::Nobody) => Err(HttpError::Connect("nobody is there".to_owned())),
        Ok(Told::Cut) => Err(HttpError::Cut("the connection broke".to_owned())),
        Ok(Told::Reply(status, retry_after, body)) => {
            on_head();
            let content_type = "application/json".to_owned();
            let body: bytes::Bytes = body.to_string().into();
            wire.scripted(sent, body.len());
            let told = Vec::new();
            Ok(Reply { status, is_json: true, content_type, retry_after, told, body })
        }
    }
}
