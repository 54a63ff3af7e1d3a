//! Owns the reading of `[api]`: where it listens, who is asked for a token, and its bounds.
//!
//! **Invariant:** an API that others on the network can reach asks for tokens, unless the configuration says
//! in so many words that anybody may call.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::reader::{Section, bytes};

/// The local API.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Address and port of the Open Inference Protocol over gRPC; off when `None`.
    pub grpc_listen: Option<SocketAddr>,
    /// Largest accepted body, in bytes.
    pub max_body_bytes: usize,
    /// Bytes of memory that the bodies under way take together; more wait.
    pub max_body_memory: usize,
    /// Requests under way at once; more are refused with 503.
    pub max_concurrent: usize,
    /// Long polls and streams of events at once; more are refused with 503.
    pub max_waiting: usize,
    /// Connections of a listener open at once; of more the one that waited longest without a request is closed.
    pub max_connections: usize,
    /// Limit for receiving a request's header, from the connection's start or the answer before.
    pub header_timeout: Duration,
    /// Limit for receiving a body, and for a caller that stops taking what it is told.
    pub read_timeout: Duration,
    /// A Unix socket that is served too.
    pub unix_socket: Option<PathBuf>,
    /// TLS, over HTTP and gRPC alike; neither speaks it when `None`.
    pub tls: Option<TlsConfig>,
    /// Whether who shows no token is refused.
    pub require_token: bool,
    /// Names of this device, beside `localhost` and addresses, that callers without tokens may use; lower case.
    pub hosts: Vec<String>,
    /// Whether each request is a line in the log.
    pub access_log: bool,
}

/// The files of the API's TLS, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// The certificate, with those between it and a root that callers know.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Roots of the callers' certificates; who has none of them is not spoken to.
    pub client_ca: Option<PathBuf>,
}

pub(super) fn read(mut section: Section<'_>) -> ApiConfig {
    let default = SocketAddr::from(([127, 0, 0, 1], 8470));
    let want = "an address and port such as 127.0.0.1:8470";
    let listen = section.parsed("listen", want, |text| text.parse().ok()).unwrap_or(default);
    let grpc_listen =
        section.parsed("grpc_listen", "an address and port such as 127.0.0.1:8001", |text| {
            text.parse::<SocketAddr>().ok()
        });
    let is_far = |address: SocketAddr| !address.ip().is_loopback();
    let is_open = section.boolean("allow_unauthenticated_network", false);
    let needs_token = (is_far(listen) || grpc_listen.is_some_and(is_far)) && !is_open;
    let require_token = section.boolean("require_token", needs_token);
    if needs_token && !require_token {
        section.fault(
            "require_token",
            "is false, and others on the network can reach the API; leave it away, or say that \
             anybody may call with api.allow_unauthenticated_network = true"
                .to_owned(),
        );
    }
    let max_body_mib = section.integer("max_body_mib", 1..=64, 20);
    let max_body_memory_mib = section.integer("max_body_memory_mib", 1..=65_536, 64);
    if max_body_memory_mib < max_body_mib {
        section.fault(
            "max_body_memory_mib",
            format!("is {max_body_memory_mib}, must be at least api.max_body_mib, {max_body_mib}"),
        );
    }
    let api = ApiConfig {
        listen,
        grpc_listen,
        unix_socket: section.text("unix_socket").map(PathBuf::from),
        tls: section.optional_section("tls").and_then(read_tls),
        require_token,
        hosts: section
            .texts("hosts")
            .unwrap_or_default()
            .iter()
            .map(|host| host.to_ascii_lowercase())
            .collect(),
        access_log: section.boolean("access_log", require_token),
        max_body_bytes: bytes(max_body_mib << 20),
        max_body_memory: bytes(max_body_memory_mib << 20),
        max_waiting: bytes(section.integer("max_waiting", 1..=65_536, 256)),
        max_concurrent: bytes(section.integer("max_concurrent", 1..=4096, 64)),
        max_connections: bytes(section.integer("max_connections", 1..=65_536, 512)),
        header_timeout: Duration::from_millis(section.integer(
            "header_timeout_ms",
            100..=600_000,
            30_000,
        )),
        read_timeout: Duration::from_millis(section.integer(
            "read_timeout_ms",
            100..=600_000,
            30_000,
        )),
    };
    section.finish();
    api
}

fn read_tls(mut section: Section<'_>) -> Option<TlsConfig> {
    let certificate = section.required_text("certificate", "/etc/holdfast/agent.crt");
    let key = section.required_text("key", "/etc/holdfast/agent.key");
    let client_ca = section.text("client_ca").map(PathBuf::from);
    section.finish();
    Some(TlsConfig { certificate: certificate?.into(), key: key?.into(), client_ca })
}
