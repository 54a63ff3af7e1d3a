//! The gateways that are measured, and the provider behind them.
//!
//! **Invariant:** a peer that cannot be had is left out with a word, and its rows with it.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::load::{self, Until, Whole};
use super::wire::post;
use crate::agent::{Agent, started};
use crate::clock::now;
use crate::serving::processes::{Server, hold};

/// No server takes longer to be ready, or something is wrong.
const DEADLINE: Duration = Duration::from_secs(90);
/// It does not start without one.
const LITELLM_KEY: &str = "sk-bench";
/// What the relay is called.
pub(crate) const RELAY: &str = "relay";
/// What the model is called everywhere.
const MODEL: &str = "m";

/// Who is asked.
pub(crate) struct Gateway {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) pid: u32,
    /// Headers that it wants.
    headers: Vec<(String, String)>,
    /// Ends it.
    _server: Option<Server>,
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ask {
    /// An answer in one piece.
    Now,
    /// A stream whose pieces come at once.
    Stream,
    /// A stream whose pieces come one after the other.
    Paced,
}

impl Gateway {
    /// The request, for this gateway.
    pub(crate) fn request(&self, ask: Ask) -> Arc<Vec<u8>> {
        let word = if matches!(ask, Ask::Paced) { "paced" } else { "now" };
        let stream = if matches!(ask, Ask::Now) { "" } else { ",\"stream\":true" };
        let body = format!(
            "{{\"model\":\"{MODEL}\",\"messages\":[{{\"role\":\"system\",\"content\":\"You are helpful.\"}},\
             {{\"role\":\"user\",\"content\":\"{word}\"}}]{stream}}}"
        );
        Arc::new(post("/v1/chat/completions", &self.headers, &body))
    }

    /// Waits until it answers, then lets it rest.
    pub(crate) async fn settle(&self) -> anyhow::Result<()> {
        let begun = now();
        loop {
            match load::ask(self.address, &self.request(Ask::Now), 1, Until::Asked(1), Whole::Body)
                .await
            {
                Ok(_) => return hold(self.pid, true),
                Err(error) => {
                    let is_late = begun.elapsed() > DEADLINE;
                    ensure!(
                        !is_late,
                        "{} does not answer after {DEADLINE:?}: {error:#}",
                        self.name
                    );
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// The provider.
pub(crate) fn provider(folder: &Path) -> anyhow::Result<Gateway> {
    let address = free_port()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["gateway-upstream", &address.to_string()]);
    let server = Server::start(&mut command, &folder.join("upstream.log"))?;
    let headers = vec![("authorization".to_owned(), "Bearer k".to_owned())];
    Ok(Gateway { name: "direct", address, pid: server.child.id(), headers, _server: Some(server) })
}

/// The relay that does nothing, in front of the provider.
pub(crate) fn relay(folder: &Path, upstream: SocketAddr) -> anyhow::Result<Gateway> {
    let address = free_port()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["gateway-relay", &address.to_string(), &upstream.to_string()]);
    command.arg(folder.join("relay.record"));
    let server = Server::start(&mut command, &folder.join("relay.log"))?;
    let headers = vec![("authorization".to_owned(), "Bearer k".to_owned())];
    Ok(Gateway { name: RELAY, address, pid: server.child.id(), headers, _server: Some(server) })
}

/// The agent, with tokens, prices and a budget, in front of the provider.
pub(crate) async fn agent(
    binary: &Path,
    folder: &Path,
    upstream: SocketAddr,
) -> anyhow::Result<(Agent, Gateway)> {
    let place = folder.join("agent");
    let text = format!(
        "[device]\nstate_dir = {:?}\n[api]\nlisten = \"127.0.0.1:0\"\nrequire_token = true\n\
         access_log = false\nmax_concurrent = 2048\nmax_connections = 4096\n[models]\nbundles = []\n\
         [queue]\nheadroom_mib = 0\n[[destination]]\nname = \"provider\"\nzone = \"site\"\n\
         protocol = \"openai\"\nurl = \"http://{upstream}\"\nmodel = {MODEL:?}\nconcurrency = 1024\n\
         price_per_million_tokens_in_micros = 2500000\n\
         price_per_million_tokens_out_micros = 10000000\nbudget_per_day_micros = 1000000000000\n",
        place.join("data"),
    );
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
    let agent = started(binary, &place, &text, &client).await?;
    let made = Command::new(binary)
        .args(["token", "add", "bench", "--json", "--config"])
        .arg(place.join("agent.toml"))
        .output()?;
    let told: serde_json::Value = serde_json::from_slice(&made.stdout)
        .with_context(|| String::from_utf8_lossy(&made.stderr).into_owned())?;
    let token = told["token"].as_str().context("no token was made")?;
    let headers = vec![("authorization".to_owned(), format!("Bearer {token}"))];
    let address = agent.api_address()?;
    let gateway = Gateway { name: "Holdfast", address, pid: agent.pid(), headers, _server: None };
    Ok((agent, gateway))
}

/// Portkey's gateway out of a folder of npm, if it is there.
pub(crate) fn portkey(
    peers: &Path,
    folder: &Path,
    upstream: SocketAddr,
) -> anyhow::Result<Option<Gateway>> {
    let script = peers.join("portkey/node_modules/@portkey-ai/gateway/build/start-server.js");
    if !script.is_file() {
        println!("LEFT OUT: Portkey (npm could not fetch it into {})", peers.display());
        return Ok(None);
    }
    let address = free_port()?;
    let mut command = Command::new("node");
    command.arg(absolute(&script)?).arg(format!("--port={}", address.port())).arg("--headless");
    command.env("TRUSTED_CUSTOM_HOSTS", "localhost,127.0.0.1").env("NODE_ENV", "production");
    let server = Server::start(&mut command, &folder.join("portkey.log"))?;
    let headers = [
        ("authorization", "Bearer k".to_owned()),
        ("x-portkey-provider", "openai".to_owned()),
        ("x-portkey-custom-host", format!("http://{upstream}/v1")),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), value)).to_vec();
    let pid = server.child.id();
    Ok(Some(Gateway { name: "Portkey", address, pid, headers, _server: Some(server) }))
}

/// `LiteLLM`'s proxy out of a Python environment, with so many workers, if it is there.
pub(crate) fn litellm(
    name: &'static str,
    workers: usize,
    (peers, folder): (&Path, &Path),
    upstream: SocketAddr,
) -> anyhow::Result<Option<Gateway>> {
    let program = peers.join("litellm/bin/litellm");
    if !program.is_file() {
        println!("LEFT OUT: LiteLLM (pip could not fetch it into {})", peers.display());
        return Ok(None);
    }
    let config = folder.join("litellm.yaml");
    let text = format!(
        "model_list:\n  - model_name: {MODEL}\n    litellm_params:\n      model: openai/{MODEL}\n      \
         api_base: http://{upstream}/v1\n      api_key: k\nlitellm_settings:\n  telemetry: false\ngeneral_settings:\n  \
         master_key: {LITELLM_KEY}\n"
    );
    std::fs::write(&config, text)?;
    let address = free_port()?;
    let mut command = Command::new(absolute(&program)?);
    command.arg("--config").arg(&config).args(["--host", "127.0.0.1", "--port"]);
    command.arg(address.port().to_string()).args(["--num_workers", &workers.to_string()]);
    command.env("LITELLM_LOCAL_MODEL_COST_MAP", "True").env("LITELLM_LOG", "ERROR");
    command.env("LITELLM_MODE", "PRODUCTION").current_dir(folder);
    let server = Server::start(&mut command, &folder.join(format!("{name}.log")))?;
    let headers = vec![("authorization".to_owned(), format!("Bearer {LITELLM_KEY}"))];
    let pid = server.child.id();
    Ok(Some(Gateway { name, address, pid, headers, _server: Some(server) }))
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    Ok(std::path::absolute(path)?)
}

/// A port that was free a moment ago, and so, most likely, are the next ones.
fn free_port() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no port is free")?;
    Ok(listener.local_addr()?)
}
