//! Servers that others wrote and tests/run fetches, each on a port of its own in a folder of its own
//! (`tests/servers`).
//!
//! **Invariant:** a server that goes out of scope leaves no process behind; a test that needs one and does not
//! find it says so and passes, unless `HOLDFAST_REQUIRE_REFERENCE=1` asks for it.

use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::time::{Instant, sleep};

use crate::reference::project;

/// A server that is not ready after this time never will be.
const READY_WITHIN: Duration = Duration::from_secs(90);

/// So many free ports are tried.
const PORTS_TRIED: usize = 2;

/// Whose server it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Triton, of nvidia-pytriton.
    Triton,
    /// `MLServer`.
    MlServer,
    /// llama.cpp's, of xllamacpp.
    LlamaCpp,
    /// `LiteLLM`'s proxy.
    LiteLlm,
}

impl Kind {
    /// Its folder among those that were fetched, and what of it must be there.
    fn package(self) -> (&'static str, &'static str) {
        match self {
            Self::Triton => ("triton", "pytriton"),
            Self::MlServer => ("mlserver", "mlserver"),
            Self::LlamaCpp => ("llama", "xllamacpp"),
            Self::LiteLlm => ("litellm", "litellm"),
        }
    }

    /// What answers with 200 as soon as it is ready.
    fn ready_path(self) -> &'static str {
        match self {
            Self::Triton | Self::MlServer => "/v2/health/ready",
            Self::LlamaCpp => "/health",
            Self::LiteLlm => "/health/liveliness",
        }
    }
}

/// One running server.
#[derive(Debug)]
pub struct Server {
    kind: Kind,
    packages: PathBuf,
    dir: PathBuf,
    arguments: Vec<String>,
    port: u16,
    child: Option<Child>,
}

impl Server {
    /// Starts a server with these arguments behind its port and its folder, and waits until it is ready; `None`
    /// when it is left out. Everything that it writes is in `dir`.
    ///
    /// # Errors
    /// When it ends, or is not ready in time; with the end of its log.
    pub async fn start(kind: Kind, dir: &Path, arguments: &[String]) -> Result<Option<Self>> {
        let Some(packages) = packages(kind) else { return Ok(None) };
        std::fs::create_dir_all(dir)?;
        let (dir, arguments) = (dir.to_owned(), arguments.to_vec());
        let mut server = Self { kind, packages, dir, arguments, port: 0, child: None };
        let mut started = Ok(());
        for _ in 0..PORTS_TRIED {
            // Somebody else may take it before the server does.
            server.port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            started = server.restart().await;
            if started.is_ok() {
                break;
            }
        }
        started.map(|()| Some(server))
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Kills it at once, with all that it started.
    pub fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let killed = group.map(|group| kill_process_group(group, Signal::KILL));
        // It may have ended already.
        if killed.is_none_or(|killed| killed.is_err()) {
            drop(child.kill());
        }
        drop(child.wait());
    }

    /// Starts it again, on the port and with the folder that it had.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn restart(&mut self) -> Result<()> {
        self.kill();
        let log = self.dir.join("server.log");
        let output = std::fs::OpenOptions::new().create(true).append(true).open(&log)?;
        let mut command = self.command()?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
        self.child = Some(command.spawn().context("python3 cannot be started")?);
        let ready = format!("{}{}", self.url(), self.kind.ready_path());
        // The first of several clients in one process installs it.
        drop(rustls::crypto::ring::default_provider().install_default());
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build()?;
        let until = Instant::now() + READY_WITHIN;
        loop {
            let status = http.get(&ready).send().await.map(|reply| reply.status());
            if status.is_ok_and(|status| status.is_success()) {
                return Ok(());
            }
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                bail!("{:?} ended with {status}:\n{}", self.kind, tail(&log));
            }
            ensure!(Instant::now() < until, "{:?} is not ready:\n{}", self.kind, tail(&log));
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn command(&self) -> Result<Command> {
        let scripts = project().join("tests/servers");
        let (folder, _) = self.kind.package();
        let own = self.packages.join(folder);
        let runtime = self.packages.join("onnxruntime");
        let path = [&own, &runtime, &scripts].map(|path| path.display().to_string()).join(":");
        let mut command = Command::new("python3");
        command.env("PYTHONPATH", path).env("PYTHONDONTWRITEBYTECODE", "1").env("NO_PROXY", "*");
        command.current_dir(&self.dir);
        let port = self.port.to_string();
        match self.kind {
            Kind::LiteLlm => {
                command
                    .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
                    .env("LITELLM_MODE", "PRODUCTION");
                command.arg(own.join("bin/litellm")).args(["--host", "127.0.0.1", "--port", &port]);
                command.args(["--telemetry", "False"]);
            }
            Kind::LlamaCpp => {
                command.arg(scripts.join("llama.py")).arg(port).arg(self.dir.join("tiny.gguf"));
            }
            Kind::Triton | Kind::MlServer => {
                // Both want one, and nobody asks there.
                let grpc = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
                command.env("HOLDFAST_GRPC_PORT", grpc.to_string());
                let script = if self.kind == Kind::Triton { "tritonserver.py" } else { "ml.py" };
                command.arg(scripts.join(script)).arg(port).arg(&self.dir);
            }
        }
        command.args(&self.arguments);
        Ok(command)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The folder of the servers, if this one is in it.
fn packages(kind: Kind) -> Option<PathBuf> {
    let named = std::env::var_os("HOLDFAST_SERVERS").map(PathBuf::from);
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| project().join("target"));
    let folder = named.unwrap_or_else(|| target.join("servers"));
    let (own, inside) = kind.package();
    if folder.join(own).join(inside).is_dir() {
        return Some(folder);
    }
    let required = std::env::var("HOLDFAST_REQUIRE_REFERENCE").is_ok_and(|value| value == "1");
    assert!(!required, "{kind:?} is required and is not in {}", folder.display());
    println!("LEFT OUT: {kind:?} as a destination (not fetched: ./tests/run does)");
    None
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines.get(lines.len().saturating_sub(30)..).unwrap_or_default().join("\n")
}
