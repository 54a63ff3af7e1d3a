//! Owns what the agent listens on: ports, its Unix socket, and how TLS is spoken there.
//!
//! **Invariant:** what cannot be had is told with the key of the configuration that asks for it.

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::net::TcpListener;

use super::RunError;
use crate::api::{Socket, Tls, TlsError};
use crate::config::{ApiConfig, Config};

/// Listens on an address of the configuration; says which one that is, should its port be 0.
pub(super) async fn bind(
    key: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), RunError> {
    let failed = |source| RunError::Listen { key, address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Where the Unix socket is. With TLS there always is one: the command line of this device goes that way.
pub(super) fn socket_path(config: &Config) -> Option<PathBuf> {
    let default = || config.api.tls.is_some().then(|| config.state_dir.join("agent.sock"));
    config.api.unix_socket.clone().or_else(default)
}

pub(super) fn bind_socket(config: &Config) -> Result<Option<Socket>, RunError> {
    let Some(path) = socket_path(config) else { return Ok(None) };
    let bound = Socket::bind(&path).map_err(|source| RunError::Socket { path, source })?;
    Ok(Some(bound))
}

pub(super) fn tls(config: &ApiConfig) -> Result<Option<Tls>, TlsError> {
    config.tls.as_ref().map(|files| Tls::read(files, config.header_timeout)).transpose()
}
