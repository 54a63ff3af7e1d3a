//! A client of the agent's API, as a user's program would have it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

/// Talks to one agent.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
}

/// What the agent says of a request.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Reply {
    /// The request.
    pub id: String,
    /// Where it stands: `answered`, `held` ...
    pub state: String,
    /// The answer, if there is one yet.
    pub answer: Option<Answer>,
    /// Why it went this way.
    pub reasons: Vec<Reason>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Answer {
    /// The best class.
    pub label: String,
    /// Its calibrated probability.
    pub confidence: f32,
    /// Where it was made.
    pub zone: String,
    /// Who made it.
    pub place: String,
    /// What made it.
    pub model: String,
    /// How long it took.
    pub took_ms: f64,
    /// Whether a better one is still to come.
    pub provisional: bool,
}

/// One thought of a decision.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Reason {
    /// For programs.
    pub code: String,
    /// For people.
    pub text: String,
}

impl Reply {
    /// Why, in one sentence.
    pub fn why(&self) -> String {
        self.reasons.iter().map(|reason| reason.text.as_str()).collect::<Vec<_>>().join("; ")
    }

    /// Whether a reason has this code.
    pub fn has(&self, code: &str) -> bool {
        self.reasons.iter().any(|reason| reason.code == code)
    }
}

impl Client {
    /// A client of the agent at `address`.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub fn new(address: SocketAddr) -> Result<Self> {
        // The first of several clients in one process installs it.
        drop(rustls::crypto::ring::default_provider().install_default());
        let http =
            reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build()?;
        Ok(Self { http, base: format!("http://{address}") })
    }

    /// Asks, with headers for the terms.
    ///
    /// # Errors
    /// When there is no reply, or it is a problem.
    pub async fn ask(&self, task: &str, body: Vec<u8>, terms: &[(&str, &str)]) -> Result<Reply> {
        let (status, text) = self.post(task, body, terms).await?;
        if !status.is_success() {
            bail!("{status}: {text}");
        }
        serde_json::from_str(&text).with_context(|| text.clone())
    }

    /// Asks, and returns the status and the text of whatever comes back.
    ///
    /// # Errors
    /// When nothing comes back.
    pub async fn post(
        &self,
        task: &str,
        body: Vec<u8>,
        terms: &[(&str, &str)],
    ) -> Result<(StatusCode, String)> {
        self.post_to(&format!("/v1/tasks/{task}"), body, terms).await
    }

    /// Posts to a path, and returns the status and the text of whatever comes back.
    ///
    /// # Errors
    /// When nothing comes back.
    pub async fn post_to(
        &self,
        path: &str,
        body: Vec<u8>,
        terms: &[(&str, &str)],
    ) -> Result<(StatusCode, String)> {
        let url = format!("{}{path}", self.base);
        let mut request = self.http.request(Method::POST, url).body(body);
        for (name, value) in terms {
            request = request.header(*name, *value);
        }
        let response = request.send().await?;
        Ok((response.status(), response.text().await?))
    }

    /// What GET says of a path.
    ///
    /// # Errors
    /// When nothing comes back.
    pub async fn get(&self, path: &str) -> Result<(StatusCode, String)> {
        let response = self.http.get(format!("{}{path}", self.base)).send().await?;
        Ok((response.status(), response.text().await?))
    }

    /// Where a request stands.
    ///
    /// # Errors
    /// When it is not known.
    pub async fn look_up(&self, id: &str, wait: Duration) -> Result<Reply> {
        let path = format!("/v1/requests/{id}?wait_ms={}", wait.as_millis());
        let (status, text) = self.get(&path).await?;
        if !status.is_success() {
            bail!("{status}: {text}");
        }
        serde_json::from_str(&text).with_context(|| text.clone())
    }

    /// Waits until a request has its final answer.
    ///
    /// # Errors
    /// When it has none in time.
    pub async fn settled(&self, id: &str, within: Duration) -> Result<Reply> {
        let until = Instant::now() + within;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let reply = self.look_up(id, left.min(Duration::from_secs(5))).await?;
            if reply.state != "held" && reply.state != "in_flight" {
                return Ok(reply);
            }
            if left.is_zero() {
                bail!("{id} is still {} after {within:?}: {}", reply.state, reply.why());
            }
        }
    }

    /// Waits until `path` says something that `wanted` accepts.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn until<T>(
        &self,
        path: &str,
        within: Duration,
        wanted: impl Fn(&serde_json::Value) -> Option<T>,
    ) -> Result<T> {
        let until = Instant::now() + within;
        loop {
            let last = match self.get(path).await {
                Ok((_, text)) => {
                    let json = serde_json::from_str(&text).unwrap_or_default();
                    if let Some(found) = wanted(&json) {
                        return Ok(found);
                    }
                    text
                }
                Err(error) => error.to_string(),
            };
            if Instant::now() >= until {
                bail!("{path} did not become as wanted within {within:?}; it says {last}");
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}
