//! Owns where connections of the API come from: TCP and a Unix socket.
//!
//! **Invariant:** a socket's file that another process serves is never taken away from it.

use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::access::Peer;

/// Who has the file may connect: its user and its group.
const SOCKET_MODE: u32 = 0o660;

/// Where connections come from.
pub(crate) trait Source {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next one.
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Source for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        let (stream, _) = self.accept().await?;
        // Answers are small: they are not held back to be filled up.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
        Ok(stream)
    }
}

/// A Unix socket that is served; its file goes with it.
#[derive(Debug)]
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Serves a path. A file that nobody serves any more is replaced. Blocks a moment.
    ///
    /// # Errors
    /// When the path cannot be had, as where another process serves it.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(ErrorKind::AddrInUse.into()),
            // So it is with every file that is no socket.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
                    return Err(ErrorKind::AlreadyExists.into());
                }
                std::fs::remove_file(path)?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
        Ok(Self { listener, path: path.to_owned() })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // A file that stays is replaced at the next start.
        std::fs::remove_file(&self.path).ok();
    }
}

impl Source for Socket {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

/// Who is at the other end of a Unix socket, as the kernel knows it.
pub(crate) fn process(stream: &UnixStream) -> Peer {
    match stream.peer_cred() {
        Ok(credentials) => Peer::Process { user: credentials.uid() },
        Err(_) => Peer::Network,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_nobody_serves_is_replaced_and_one_that_is_served_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/agent.sock");
        let socket = Socket::bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, SOCKET_MODE);
        assert_eq!(Socket::bind(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(socket);
        assert!(!path.exists());
        // As a process leaves it that was killed.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        Socket::bind(&path).unwrap();
        std::fs::write(&path, "a file of somebody's").unwrap();
        assert!(Socket::bind(&path).is_err(), "what is no socket stays");
    }
}
