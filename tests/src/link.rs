//! A network link on loopback that can be cut, can stall, and remembers what went over it.
//!
//! **Invariant:** bytes are recorded before they are passed on, so that nothing gets through
//! unseen.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How the link behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// Bytes pass.
    Up,
    /// Connections break, new ones are closed at once.
    Cut,
    /// Connections stay open and nothing passes: a half-open link.
    Stalled,
}

/// A forwarding listener in front of `target`.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    seen: Arc<Mutex<Seen>>,
}

/// What went over a link.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Connections that were opened.
    pub connections: usize,
    /// Bytes from the side that connected.
    pub upward: Vec<u8>,
    /// How many there were to it.
    pub downward: usize,
}

impl Link {
    /// A link on a free port of loopback.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn to(target: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (weather, watching) = watch::channel(Weather::Up);
        let seen = Arc::<Mutex<Seen>>::default();
        tokio::spawn(accept(listener, target, watching, seen.clone()));
        Ok(Self { address, weather, seen })
    }

    /// Where to connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes how the link behaves, for open connections too.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// What went over it until now.
    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    weather: watch::Receiver<Weather>,
    seen: Arc<Mutex<Seen>>,
) {
    while weather.has_changed().is_ok() {
        let Ok((near, _)) = listener.accept().await else { continue };
        seen.lock().unwrap_or_else(PoisonError::into_inner).connections += 1;
        tokio::spawn(forward(near, target, weather.clone(), seen.clone()));
    }
}

async fn forward(
    near: TcpStream,
    target: SocketAddr,
    mut weather: watch::Receiver<Weather>,
    seen: Arc<Mutex<Seen>>,
) {
    if *weather.borrow() == Weather::Cut {
        return;
    }
    let Ok(far) = TcpStream::connect(target).await else { return };
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let keep = |seen: &mut Seen, bytes: &[u8]| seen.upward.extend_from_slice(bytes);
    let upward = pump(near_read, far_write, weather.clone(), seen.clone(), keep);
    let count = |seen: &mut Seen, bytes: &[u8]| seen.downward += bytes.len();
    let downward = pump(far_read, near_write, weather.clone(), seen, count);
    tokio::select! {
        ((), ()) = async { tokio::join!(upward, downward) } => {}
        // Dropping both halves breaks the connection.
        _ = weather.wait_for(|now| *now == Weather::Cut) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
    seen: Arc<Mutex<Seen>>,
    note: fn(&mut Seen, &[u8]),
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let Some(bytes) = buffer.get(..count) else { break };
        note(&mut seen.lock().unwrap_or_else(PoisonError::into_inner), bytes);
        if weather.wait_for(|now| *now != Weather::Stalled).await.is_err() {
            break;
        }
        if to.write_all(bytes).await.is_err() {
            break;
        }
    }
    // The other side may be gone already.
    drop(to.shutdown().await);
}
