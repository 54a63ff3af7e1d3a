//! What the agent is measured beside: servers out of Python packages, and one that does nothing.
//!
//! **Invariant:** a peer that cannot be had is left out with a word, and its rows with it.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::body::Bytes;
use axum::routing::post;

use super::bare::Bare;
use super::load::{self, Until};
use super::models::Models;
use super::processes::{Server, hold};
use super::wire::Question;
use crate::clock::now;

/// No server takes longer to be ready, or something is wrong.
const DEADLINE: Duration = Duration::from_secs(60);

/// A server that answers.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    server: Server,
}

impl Peer {
    pub(crate) fn pid(&self) -> u32 {
        self.server.child.id()
    }
}

/// The Python of the peers' own environment, and the folder of their programs.
pub(crate) struct Python {
    python: PathBuf,
    scripts: PathBuf,
}

impl Python {
    /// `None` where the environment could not be made.
    pub(crate) fn in_folder(peers: &Path) -> anyhow::Result<Option<Self>> {
        let python = peers.join("bin/python");
        if !python.is_file() {
            println!(
                "LEFT OUT: the peers of the agent (pip could not fetch them into {})",
                peers.display()
            );
            return Ok(None);
        }
        let scripts = std::path::absolute("tests/serving")?;
        ensure!(scripts.is_dir(), "{}: run it in the repository", scripts.display());
        Ok(Some(Self { python: std::path::absolute(python)?, scripts }))
    }

    fn command(&self, dir: &Path) -> Command {
        let mut command = Command::new(&self.python);
        command.env("PYTHONPATH", &self.scripts).env("PYTHONDONTWRITEBYTECODE", "1");
        command.current_dir(dir);
        command
    }

    /// ONNX Runtime in a process.
    pub(crate) fn bare(&self, models: &Models) -> anyhow::Result<Bare> {
        let mut command = self.command(&models.files);
        command.arg(self.scripts.join("bare.py")).arg(&models.files);
        Bare::start(&mut command)
    }

    /// FastAPI and uvicorn, with so many workers.
    pub(crate) fn fastapi(
        &self,
        name: &'static str,
        workers: usize,
        models: &Models,
    ) -> anyhow::Result<Peer> {
        let address = free_port()?;
        let mut command = self.command(&models.files);
        command.env("HOLDFAST_BENCH_MODELS", &models.files);
        command.args(["-m", "uvicorn", "raw:app", "--no-access-log", "--log-level", "warning"]);
        command.args(["--port", &address.port().to_string(), "--workers", &workers.to_string()]);
        self.peer(name, &mut command, address, models)
    }

    pub(crate) fn mlserver(&self, names: &[&str], models: &Models) -> anyhow::Result<Peer> {
        let address = free_port()?;
        let place = models.files.with_file_name("mlserver");
        std::fs::create_dir_all(&place)?;
        let mut command = self.command(&place);
        command.arg(self.scripts.join("ml.py")).arg(&models.files);
        command.arg(address.port().to_string()).args(names);
        self.peer("MLServer", &mut command, address, models)
    }

    pub(crate) fn litserve(&self, name: &str, models: &Models) -> anyhow::Result<Peer> {
        let address = free_port()?;
        let mut command = self.command(&models.files);
        command.arg(self.scripts.join("lit.py")).arg(&models.files);
        command.arg(address.port().to_string()).arg(name);
        self.peer("LitServe", &mut command, address, models)
    }

    fn peer(
        &self,
        name: &'static str,
        command: &mut Command,
        address: SocketAddr,
        models: &Models,
    ) -> anyhow::Result<Peer> {
        let log = models.files.with_file_name(format!("{name}.log"));
        let server = Server::start(command, &log)?;
        Ok(Peer { name, address, server })
    }
}

/// A server that reads a request and says nothing: what client, kernel and HTTP cost by themselves.
pub(crate) fn nothing(models: &Models) -> anyhow::Result<Peer> {
    let address = free_port()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["serving-nothing", &address.to_string()]);
    let log = models.files.with_file_name("nothing.log");
    let server = Server::start(&mut command, &log)?;
    Ok(Peer { name: "nothing", address, server })
}

/// Is that server.
pub(crate) fn serve_nothing(address: SocketAddr) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await?;
        let router = axum::Router::new().fallback(post(|_: Bytes| async { "" }));
        Ok(axum::serve(listener, router).await?)
    })
}

/// Waits until a peer answers a question, then lets it rest.
pub(crate) async fn answering(peer: &Peer, question: &Arc<Question>) -> anyhow::Result<()> {
    let begun = now();
    loop {
        match load::ask(peer.address, question, 1, Until::Asked(1)).await {
            Ok(_) => return hold(peer.pid(), true),
            Err(error) => {
                let is_late = begun.elapsed() > DEADLINE;
                ensure!(!is_late, "{} does not answer after {DEADLINE:?}: {error:#}", peer.name);
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A port that was free a moment ago, and so, most likely, are the next ones.
fn free_port() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no port is free")?;
    Ok(listener.local_addr()?)
}

/// This program's part that runs models in process, on a library.
pub(crate) fn own(models: &Models, library: &Path) -> anyhow::Result<Bare> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("serving-part").arg(&models.files).arg(library).stderr(Stdio::inherit());
    Bare::start(&mut command)
}
