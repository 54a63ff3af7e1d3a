//! How a destination is reached: whose certificates are believed, which one is shown, through which proxy.
//!
//! The site is a real agent behind TLS, the proxies are tinyproxy and microsocks.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use holdfast_agent::destination::{Destination, Limits, Protocol, Proxy, Transport, Zone};
use holdfast_agent::escalate::probe;
use holdfast_tests::authority::{Authority, Signed};
use holdfast_tests::client::Client;
use holdfast_tests::node::Node;
use holdfast_tests::site::{Agent, DEVICE, bundles, start_agent_with};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::AsyncReadExt;
use tokio_rustls::TlsAcceptor;

const WITHIN: Duration = Duration::from_secs(20);

/// An agent behind TLS.
async fn site(dir: &Path, shown: &Signed, more: &str) -> Node {
    let (certificate, key) = shown.write(dir, "site").unwrap();
    let name = "site-1";
    let agent = Agent { name, bundles: bundles(&["voice-commands"]), site: None, broker: None };
    let toml = agent.toml(dir)
        + &format!("\n[api.tls]\ncertificate = {certificate:?}\nkey = {key:?}\n{more}");
    start_agent_with(super::program(), dir, name, &toml).await.unwrap()
}

/// Whether the site is reached under a name, and why not.
async fn reached(host: &str, port: u16, transport: Transport) -> Result<(), String> {
    drop(rustls::crypto::ring::default_provider().install_default());
    let destination = Destination {
        name: "site".to_owned(),
        zone: Zone::Site,
        protocol: Protocol::Holdfast,
        url: format!("https://{host}:{port}"),
        credential: None,
        tasks: Vec::new(),
        connect_timeout: WITHIN,
        timeout: WITHIN,
        concurrency: 1,
        limits: Limits::default(),
        transport,
    };
    probe(&destination, WITHIN).await.map_err(|error| error.to_string())
}

fn port(node: &Node) -> u16 {
    node.address("api").unwrap().port()
}

#[tokio::test]
async fn only_the_right_certificate_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let (own, other) = (Authority::new().unwrap(), Authority::new().unwrap());
    let (root, foreign) = (dir.path().join("root.pem"), dir.path().join("foreign.pem"));
    std::fs::write(&root, own.root()).unwrap();
    std::fs::write(&foreign, other.root()).unwrap();
    let shown = own.sign("localhost").unwrap();
    let believing = Transport { ca_file: Some(root.clone()), ..Transport::default() };
    let pinned = |pins: &[[u8; 32]]| Transport { pins: pins.to_vec(), ..believing.clone() };

    let node = site(dir.path(), &shown, "").await;
    let pin = format!("sha256//{}", BASE64_STANDARD.encode(shown.pin));
    for (case, host, transport, want) in [
        ("its root", "localhost", believing.clone(), None),
        ("the system's roots", "localhost", Transport::default(), Some("UnknownIssuer")),
        (
            "pinned under the system's roots",
            "localhost",
            Transport { pins: vec![shown.pin], ..Transport::default() },
            Some("UnknownIssuer"),
        ),
        (
            "a foreign root",
            "localhost",
            Transport { ca_file: Some(foreign.clone()), ..Transport::default() },
            Some("invalid peer certificate"),
        ),
        ("another name", "127.0.0.1", believing.clone(), Some("not valid for name")),
        ("its key", "localhost", pinned(&[[7; 32], shown.pin]), None),
        ("another key", "localhost", pinned(&[[7; 32]]), Some(&*pin)),
    ] {
        let got = reached(host, port(&node), transport).await;
        match want {
            None => assert_eq!(got, Ok(()), "{case}"),
            Some(why) => {
                let error = got.expect_err(case);
                assert!(error.contains(why), "{case}: {error}");
            }
        }
    }
    drop(node);

    let node = site(dir.path(), &own.sign_expired("localhost").unwrap(), "").await;
    let error = reached("localhost", port(&node), believing.clone()).await.unwrap_err();
    assert!(error.contains("expired"), "{error}");
    drop(node);

    // A site that wants to know its callers.
    let node = site(dir.path(), &shown, &format!("client_ca = {foreign:?}\n")).await;
    for (case, authority, is_let_in) in [("its own", &other, true), ("another's", &own, false)] {
        let identity = authority.sign("line-7").unwrap().write(dir.path(), "line-7").unwrap();
        let transport = Transport { identity: Some(identity), ..believing.clone() };
        let got = reached("localhost", port(&node), transport).await;
        assert_eq!(got.is_ok(), is_let_in, "{case}: {got:?}");
    }
    assert!(reached("localhost", port(&node), believing).await.is_err());
}

#[tokio::test]
async fn a_device_asks_its_site_over_tls_and_holds_what_it_cannot_send_safely() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new().unwrap();
    let root = dir.path().join("root.pem");
    std::fs::write(&root, authority.root()).unwrap();
    let node = site(dir.path(), &authority.sign("localhost").unwrap(), "").await;
    let agent = Agent { name: DEVICE, bundles: Vec::new(), site: None, broker: None };
    let table = format!(
        "\n[[destination]]\nname = \"site\"\nzone = \"site\"\nurl = \"https://localhost:{}\"\n\
         tasks = [\"voice-commands\"]\n",
        port(&node)
    );
    let sample = super::sample("voice-commands", |_| true);
    for (more, state) in [(format!("ca_file = {root:?}\n"), "answered"), (String::new(), "held")] {
        let toml = agent.toml(dir.path()) + &table + &more;
        let device = start_agent_with(super::program(), dir.path(), DEVICE, &toml).await.unwrap();
        let client = Client::new(device.address("api").unwrap()).unwrap();
        let reply = client.ask("voice-commands", sample.clone(), &[]).await.unwrap();
        assert_eq!(reply.state, state, "{more}: {}", reply.why());
    }
}

#[tokio::test]
async fn http_2_is_spoken_where_it_is_offered() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new().unwrap();
    let root = dir.path().join("root.pem");
    std::fs::write(&root, authority.root()).unwrap();
    let shown = authority.sign("localhost").unwrap();
    let certificate = CertificateDer::from_pem_slice(shown.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(shown.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        let chosen = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        (chosen, preface)
    });
    let transport = Transport { ca_file: Some(root), ..Transport::default() };
    assert!(reached("localhost", port, transport).await.is_err(), "nobody answers it");
    let (chosen, preface) = served.await.unwrap();
    assert_eq!(chosen.as_deref(), Some(&b"h2"[..]));
    assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
}

/// A proxy that runs while this is held.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Starts a proxy and waits until it listens; none where it is not installed.
async fn start(name: &str, args: &[&str], at: SocketAddr) -> Option<Running> {
    let mut command = Command::new(name);
    let spawned = command.args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let Ok(child) = spawned else {
        println!("LEFT OUT: destinations behind a proxy ({name} is not installed)");
        return None;
    };
    let running = Running(child);
    let listens = async {
        while tokio::net::TcpStream::connect(at).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(WITHIN, listens).await.unwrap_or_else(|_| panic!("{name} listens"));
    Some(running)
}

#[tokio::test]
async fn a_destination_is_reached_through_its_proxy_and_no_other_way() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new().unwrap();
    let root = dir.path().join("root.pem");
    std::fs::write(&root, authority.root()).unwrap();
    let node = site(dir.path(), &authority.sign("localhost").unwrap(), "").await;
    let (right, wrong) = (dir.path().join("right"), dir.path().join("wrong"));
    std::fs::write(&right, "line:sesame\n").unwrap();
    std::fs::write(&wrong, "line:guessed\n").unwrap();

    let (tiny, socks) = (free(), free());
    let config = dir.path().join("tinyproxy.conf");
    let log = dir.path().join("tinyproxy.log");
    let text = format!(
        "Port {}\nListen 127.0.0.1\nTimeout 60\nLogFile {log:?}\nLogLevel Connect\n\
         BasicAuth line sesame\n",
        tiny.port()
    );
    std::fs::write(&config, text).unwrap();
    let config = config.display().to_string();
    let Some(_tiny) = start("tinyproxy", &["-d", "-c", &config], tiny).await else { return };
    let number = socks.port().to_string();
    let args = ["-i", "127.0.0.1", "-p", &number, "-u", "line", "-P", "sesame"];
    let Some(_socks) = start("microsocks", &args, socks).await else { return };

    let through = |url: String, user: Option<&Path>| Transport {
        ca_file: Some(root.clone()),
        proxy: Some(Proxy::At { url, user_file: user.map(Path::to_owned) }),
        ..Transport::default()
    };
    for (scheme, at) in [("http", tiny), ("socks5", socks), ("socks5h", socks)] {
        let url = format!("{scheme}://{at}");
        let got = reached("localhost", port(&node), through(url.clone(), Some(&right))).await;
        assert_eq!(got, Ok(()), "{url}");
        for user in [None, Some(&*wrong)] {
            let got = reached("localhost", port(&node), through(url.clone(), user)).await;
            assert!(got.is_err(), "{url} as {user:?}");
        }
    }
    let passed = std::fs::read_to_string(&log).unwrap();
    assert!(passed.contains(&format!("CONNECT localhost:{}", port(&node))), "{passed}");
    let nobody = through(format!("http://{}", free()), None);
    assert!(reached("localhost", port(&node), nobody).await.is_err(), "never past its proxy");

    // What the environment says counts where the configuration says so, and nowhere else.
    let agent = Agent { name: DEVICE, bundles: Vec::new(), site: None, broker: None };
    for (proxy, exempt, is_reached) in [
        ("", "", true),
        ("proxy = \"environment\"\n", "", false),
        ("proxy = \"environment\"\n", "localhost", true),
    ] {
        let toml = agent.toml(dir.path())
            + &format!(
                "\n[[destination]]\nname = \"site\"\nzone = \"site\"\n\
                 url = \"https://localhost:{}\"\nca_file = {root:?}\n{proxy}",
                port(&node)
            );
        let config = dir.path().join("agent.toml");
        std::fs::write(&config, toml).unwrap();
        let output = Command::new(super::program())
            .args(["agent", "doctor", "--config"])
            .arg(config)
            .env("HTTPS_PROXY", format!("http://{}", free()))
            .env("NO_PROXY", exempt)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let line = said.lines().find(|line| line.contains("destination site")).unwrap();
        assert_eq!(line.starts_with("ok"), is_reached, "{proxy}{exempt}: {said}");
    }
}

#[tokio::test]
async fn a_root_that_cannot_be_read_ends_the_start_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let missing = format!(
        "\n[[destination]]\nname = \"cloud\"\nzone = \"public\"\nurl = \"https://localhost:9\"\n\
         ca_file = {:?}\n",
        dir.path().join("nothing.pem")
    );
    let agent = Agent { name: DEVICE, bundles: Vec::new(), site: None, broker: None };
    let toml = agent.toml(dir.path()) + &missing;
    let failed = start_agent_with(super::program(), dir.path(), DEVICE, &toml).await.unwrap_err();
    assert!(format!("{failed:#}").contains("nothing.pem has no certificate"), "{failed:#}");
}
