//! The embedded broker, so that one command makes a working fleet. Only this module names rumqttd.
//!
//! It has its own threads and runs until the process ends, because rumqttd cannot be stopped. It is trusted with
//! nothing: everything that passes through it is signed.
//!
//! **Invariant:** it listens where it was told to, or [`start`] fails.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use holdfast_wire::sign::MAX_ENVELOPE;
use holdfast_wire::topic::MAX_TOPIC;
use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};
use tokio::sync::oneshot;

/// Enough for a site; a larger fleet has a broker of its own.
const MAX_CONNECTIONS: usize = 10_000;

/// Why there is no broker.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrokerError {
    #[error(
        "mqtt.listen = {address} cannot be used; is another broker or controller running there? choose another with \
         --mqtt, or use the one that runs with --broker {address}"
    )]
    Listen { address: SocketAddr, source: io::Error },
    #[error("the thread of the embedded broker cannot be started")]
    Thread(#[source] io::Error),
}

/// A broker that runs.
#[derive(Debug)]
pub(crate) struct Embedded {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Resolves if it should ever end.
    pub(crate) ended: oneshot::Receiver<()>,
}

/// Starts the broker; port 0 takes a free one.
pub(crate) fn start(address: SocketAddr) -> Result<Embedded, BrokerError> {
    // rumqttd neither reports a failed bind nor the port it got, so the port is taken and given back first.
    let address = TcpListener::bind(address)
        .and_then(|listener| listener.local_addr())
        .map_err(|source| BrokerError::Listen { address, source })?;
    let (alive, ended) = oneshot::channel();
    let mut broker = Broker::new(config(address));
    thread::Builder::new()
        .name("mqtt-broker".into())
        .spawn(move || {
            let alive = alive;
            if let Err(error) = broker.start() {
                tracing::error!(%error, "embedded broker failed");
            }
            drop(alive);
        })
        .map_err(BrokerError::Thread)?;
    wait_until_it_listens(address);
    Ok(Embedded { address, ended })
}

/// A moment at the start; who connects afterwards finds it there. If it never listens, the link will tell.
fn wait_until_it_listens(address: SocketAddr) {
    const PAUSE: Duration = Duration::from_millis(5);
    for _ in 0..400 {
        if TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok() {
            return;
        }
        thread::sleep(PAUSE);
    }
}

fn config(listen: SocketAddr) -> Config {
    let server = ServerSettings {
        name: "mqtt".into(),
        listen,
        tls: None,
        next_connection_delay_ms: 0,
        connections: ConnectionSettings {
            connection_timeout_ms: 5000,
            // rumqttd counts the topic too.
            max_payload_size: MAX_ENVELOPE + MAX_TOPIC,
            max_inflight_count: 100,
            auth: None,
            external_auth: None,
            dynamic_filters: true,
        },
    };
    Config {
        router: RouterConfig {
            max_connections: MAX_CONNECTIONS,
            max_outgoing_packet_count: 200,
            // Per filter. Past segments x size the oldest messages are dropped; both sides acknowledge and repeat.
            max_segment_size: 1024 * 1024,
            max_segment_count: 10,
            ..RouterConfig::default()
        },
        v4: Some(HashMap::from([("v4".into(), server)])),
        ..Config::default()
    }
}
