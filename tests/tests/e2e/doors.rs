//! The doors of the agent: how many come in at once, who gives way, and which heads are believed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use holdfast_tests::authority::Authority;
use holdfast_tests::client::Client;
use holdfast_tests::node::Node;
use holdfast_tests::site::{Agent, DEVICE, bundles, start_agent_with};
use reqwest::Certificate;
use serde_json::Value;
use tokio::time::Instant;

use super::{SOON, client, command};

/// An agent whose doors are narrow and patient: nothing is closed by its own deadline here.
async fn narrow(dir: &Path, api: &str, tables: &str) -> Node {
    let agent =
        Agent { name: DEVICE, bundles: bundles(&["voice-commands"]), site: None, broker: None };
    let limits = format!("[api]\nheader_timeout_ms = 600000\nread_timeout_ms = 600000\n{api}\n");
    let toml = agent.toml(dir).replace("[api]\n", &limits) + tables;
    start_agent_with(super::program(), dir, DEVICE, &toml).await.unwrap()
}

fn connect(address: SocketAddr, said: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(said.as_bytes()).unwrap();
    stream
}

/// What is said until the other end closes; one that closes with bytes unread resets.
fn rest(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    if let Err(error) = stream.read_to_end(&mut said) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "closed, not left open");
    }
    String::from_utf8(said).unwrap()
}

/// Bare connections that say nothing, half a head, or one whole request and nothing more.
fn idle(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let said =
        ["", "GET /healthz HTTP/1.1\r\nHost: loc", "GET /healthz HTTP/1.1\r\nHost: l\r\n\r\n"];
    said.iter().cycle().take(count).map(|said| connect(address, said)).collect()
}

async fn metric(client: &Client, rule: &str) -> u64 {
    let (_, text) = client.get("/metrics").await.unwrap();
    let name = format!("holdfast_connections_closed_total{{rule=\"{rule}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |number| number.parse().unwrap())
}

#[tokio::test]
async fn connections_that_wait_give_way_to_who_asks() {
    let dir = tempfile::tempdir().unwrap();
    let api = "max_connections = 8\ngrpc_listen = \"127.0.0.1:0\"";
    let node = narrow(dir.path(), api, "").await;
    let address = node.address("api").unwrap();
    let mut waiting = idle(address, 30);
    let client = Client::new(address).unwrap();
    let voice = super::sample("voice-commands", |_| true);
    client.ask("voice-commands", voice, &[]).await.expect("whoever asks comes in");
    let (is_fine, said) = command(dir.path(), &["queue", "stats", "--json"]);
    assert!(is_fine, "{said}");
    // Of the others, some were answered when there were more already.
    for stream in &mut waiting[..10] {
        rest(stream);
    }
    assert!(metric(&client, "longest_waiting").await >= 22);
    assert_eq!(metric(&client, "newcomer").await, 0);

    let grpc = node.address("grpc").unwrap();
    let mut waiting: Vec<_> = (0..30).map(|_| connect(grpc, "PRI * HTTP/2.0\r\n")).collect();
    let caller = super::client().http2_prior_knowledge().timeout(SOON).build().unwrap();
    let url = format!("http://{grpc}/inference.GRPCInferenceService/ServerLive");
    let live = caller.post(url).header("content-type", "application/grpc").body(vec![0; 5]);
    assert_eq!(live.send().await.unwrap().status(), 200, "gRPC has the same door");
    for stream in &mut waiting[..20] {
        rest(stream);
    }
}

#[tokio::test]
async fn a_handshake_that_does_not_end_gives_way_too() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new().unwrap();
    let (certificate, key) =
        authority.sign("localhost").unwrap().write(dir.path(), "agent").unwrap();
    let tls = format!("\n[api.tls]\ncertificate = {certificate:?}\nkey = {key:?}\n");
    let node = narrow(dir.path(), "max_connections = 8", &tls).await;
    let address = node.address("api").unwrap();
    // The beginning of a ClientHello.
    let mut waiting: Vec<_> = (0..30).map(|_| connect(address, "\u{16}\u{3}\u{1}")).collect();
    let root = Certificate::from_pem(authority.root().as_bytes()).unwrap();
    let trusting = client().tls_certs_only([root]).timeout(SOON).build().unwrap();
    let got = trusting.get(format!("https://localhost:{}/healthz", address.port())).send().await;
    assert_eq!(got.unwrap().status(), 200);
    for stream in &mut waiting[..20] {
        rest(stream);
    }
}

#[tokio::test]
async fn no_connection_with_a_request_under_way_is_closed_for_another() {
    let dir = tempfile::tempdir().unwrap();
    let node = narrow(dir.path(), "max_connections = 4\nmax_concurrent = 16", "").await;
    let address = node.address("api").unwrap();
    let head = "POST /v1/tasks/voice-commands HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                Content-Length: 5\r\n\r\nhell";
    let mut asking: Vec<_> = (0..4).map(|_| connect(address, head)).collect();
    // When their heads are read, all have a request under way.
    let until = Instant::now() + SOON;
    let refused = loop {
        let mut newcomer = connect(address, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
        newcomer.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut said = [0; 12];
        let is_said = newcomer.read_exact(&mut said).is_ok();
        if is_said && &said == b"HTTP/1.1 503" {
            newcomer.set_read_timeout(Some(SOON)).unwrap();
            break rest(&mut newcomer);
        }
        assert!(Instant::now() < until, "{}", node.log_tail());
        // A place was taken from one whose head was not read yet.
        asking.iter_mut().for_each(|stream| {
            stream.set_nonblocking(true).unwrap();
            let seen = stream.peek(&mut [0]).map_err(|error| error.kind());
            stream.set_nonblocking(false).unwrap();
            if seen != Err(std::io::ErrorKind::WouldBlock) {
                *stream = connect(address, head);
            }
        });
    };
    assert!(refused.contains("retry-after: 1") && refused.contains("api.max_connections"));
    let body: Value = serde_json::from_str(refused.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(body["code"], "busy", "{refused}");
    let mut stats = Command::new(super::program());
    let config = dir.path().join(format!("{DEVICE}.toml"));
    let said = stats.args(["agent", "models", "ls", "--config"]).arg(config).output().unwrap();
    let said = String::from_utf8(said.stderr).unwrap();
    assert!(said.contains("api.max_connections") && !said.contains("is it running"), "{said}");
    // Those that ask are answered all the same.
    for stream in &mut asking {
        stream.write_all(b"o").unwrap();
        let said = rest(stream);
        assert!(said.starts_with("HTTP/1.1 415"), "{said}");
    }
    let client = Client::new(address).unwrap();
    assert!(metric(&client, "newcomer").await >= 2);
}

#[tokio::test]
async fn a_head_that_can_be_read_in_two_ways_is_refused_and_the_connection_ends() {
    let dir = tempfile::tempdir().unwrap();
    let node = narrow(dir.path(), "", "").await;
    let address = node.address("api").unwrap();
    let host = format!("Host: {address}\r\n");
    let chunks = "0\r\n\r\n";
    for (case, head, want) in [
        ("two hosts", format!("GET /v1/tasks HTTP/1.1\r\n{host}{host}\r\n"), 400),
        ("no host", "GET /v1/tasks HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("no host where all may ask", "GET /healthz HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("no path", "GET /nowhere HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("no host", "GET /v1/models HTTP/1.1\r\nHost: a b\r\n\r\n".to_owned(), 400),
        ("a user", "GET /v2 HTTP/1.1\r\nHost: me@localhost\r\n\r\n".to_owned(), 400),
        (
            "another host in the target",
            format!("GET http://localhost/v1/tasks HTTP/1.1\r\n{host}\r\n"),
            400,
        ),
        (
            "another coding",
            format!(
                "POST /v1/tasks/voice-commands HTTP/1.1\r\n{host}Transfer-Encoding: gzip, \
                 chunked\r\n\r\n{chunks}"
            ),
            501,
        ),
        (
            "another coding at the end",
            format!(
                "POST /v1/chat/completions HTTP/1.1\r\n{host}Transfer-Encoding: chunked, \
                 gzip\r\n\r\n{chunks}"
            ),
            400,
        ),
        (
            "chunked twice",
            format!(
                "POST /v1/tasks/voice-commands HTTP/1.1\r\n{host}Transfer-Encoding: \
                 chunked\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
            ),
            400,
        ),
    ] {
        let said = rest(&mut connect(address, &head));
        assert!(said.starts_with(&format!("HTTP/1.1 {want} ")), "{case}: {said}");
    }
    let last = "Connection: close\r\n\r\n";
    for (case, head) in [
        ("an old client", "GET /v1/tasks HTTP/1.0\r\n\r\n".to_owned()),
        ("a proxy's form", format!("GET http://{address}/v1/tasks HTTP/1.1\r\n{host}{last}")),
        ("chunked", {
            let body = "Transfer-Encoding: Chunked\r\nConnection: close\r\n\r\n";
            format!("GET /v1/tasks HTTP/1.1\r\n{host}{body}{chunks}")
        }),
    ] {
        let said = rest(&mut connect(address, &head));
        assert!(said.split("\r\n").next().unwrap().ends_with(" 200 OK"), "{case}: {said}");
    }
    // The host that a page's own name would be rebound to is looked for in the target too.
    let rebound = rest(&mut connect(address, "GET http://news.example/v1/tasks HTTP/1.0\r\n\r\n"));
    assert!(rebound.split("\r\n").next().unwrap().contains(" 403 "), "{rebound}");
}

#[tokio::test]
async fn a_query_and_a_path_that_cannot_be_used_say_why_and_what_can() {
    let dir = tempfile::tempdir().unwrap();
    let node = narrow(dir.path(), "", "").await;
    let client = Client::new(node.address("api").unwrap()).unwrap();
    for (path, status, wants) in [
        ("/v1/results?after=-1", 400, &["after must be a whole number", "known parameters"][..]),
        ("/v1/results?limit=many", 400, &["limit must be a whole number"]),
        ("/v1/results?after=99999999999999999999", 400, &["after is too large"]),
        ("/v1/results?since=1", 400, &["unknown field `since`;", "after"]),
        ("/v1/results?after=1&after=2", 400, &["duplicate field `after`"]),
        ("/v1/queue?all=yes", 400, &["unknown field `all`;"]),
        ("/v1/task", 404, &["/v1/task;", "/v1/chat/completions", "/v1/models", "/openapi.json"]),
    ] {
        let (got, text) = client.get(path).await.unwrap();
        let problem: Value = serde_json::from_str(&text).unwrap();
        let detail = problem["detail"].as_str().unwrap();
        assert_eq!(got.as_u16(), status, "{path}: {text}");
        for want in wants {
            assert!(detail.contains(want), "{path}: no {want:?} in {detail}");
        }
    }
}

#[test]
fn a_token_for_what_nothing_here_is_called_is_made_with_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("agent.toml");
    let state = dir.path().join("state");
    let text = format!(
        "[device]\nstate_dir = {state:?}\n[models]\nbundles = [{:?}]\n\
         [[destination]]\nname = \"cloud\"\nzone = \"public\"\nprotocol = \"openai\"\n\
         model = \"gpt-small\"\nurl = \"http://127.0.0.1:9\"\ntasks = [\"weld-seams\"]\n",
        bundles(&["voice-commands"]).first().unwrap()
    );
    std::fs::write(&config, text).unwrap();
    let token = |args: &[&str]| {
        let mut command = Command::new(super::program());
        let output = command.args(["agent", "token"]).args(args).arg("--config").arg(&config);
        let output = output.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    };
    let file = state.join("tokens.json").display().to_string();
    for (at, (task, wants)) in [
        ("voice-commands", &[][..]),
        ("gpt-small", &[]),
        ("cloud", &[]),
        ("weld-seams", &[]),
        ("voise-commands", &["\"voise-commands\"; is voice-commands meant?"]),
        ("gpt-smal", &["is gpt-small meant?"]),
        ("ocr", &["is called \"ocr\""]),
    ]
    .into_iter()
    .enumerate()
    {
        let (is_fine, told, said) = token(&["add", &format!("t{at}"), "--task", task]);
        assert!(is_fine && told.starts_with("hf_") && told.lines().count() == 1, "{task}: {said}");
        assert!(said.contains(&file), "{task}: {said}");
        assert_eq!(said.contains("warning:"), !wants.is_empty(), "{task}: {said}");
        assert!(wants.iter().all(|want| said.contains(want)), "{task}: {said}");
    }
    let (_, listed, said) = token(&["ls"]);
    assert!(said.contains(&file) && listed.contains("gpt-small"), "{said}{listed}");
    let (_, listed, said) = token(&["ls", "--json"]);
    assert!(said.is_empty() && serde_json::from_str::<Value>(&listed).unwrap().is_array());
    let (is_fine, told, _) = token(&["revoke", "t0"]);
    assert!(is_fine && told.contains(&file), "{told}");
    let (is_fine, _, said) = token(&["revoke", "t0"]);
    assert!(!is_fine && said.contains(&file), "{said}");
}
