//! TLS and the Unix socket: callers who are known by their certificate or by the kernel.

use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_tests::authority::{Authority, Signed};
use holdfast_tests::node::Node;
use holdfast_tests::site::{Agent, DEVICE, bundles, start_agent_with};
use holdfast_tests::vendors::{Fake, MODEL, Vendor};
use reqwest::{Certificate, Client, Identity};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{client, command};

fn file(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

async fn start(dir: &Path, api: &str, tables: &str) -> Node {
    let agent =
        Agent { name: DEVICE, bundles: bundles(&["voice-commands"]), site: None, broker: None };
    let toml = agent.toml(dir).replace("[api]\n", &format!("[api]\n{api}\n")) + tables;
    start_agent_with(super::program(), dir, DEVICE, &toml).await.unwrap()
}

async fn status(client: &Client, url: &str) -> u16 {
    client.get(url).send().await.unwrap().status().as_u16()
}

/// A client that shows this certificate.
fn certified(root: &Certificate, Signed { certificate, key, .. }: Signed) -> Client {
    let identity = Identity::from_pem((certificate + &key).as_bytes()).unwrap();
    client().tls_certs_only([root.clone()]).identity(identity).build().unwrap()
}

#[tokio::test]
async fn over_tls_callers_are_known_by_token_or_by_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new().unwrap();
    let (certificate, key) =
        authority.sign("localhost").unwrap().write(dir.path(), "agent").unwrap();
    let tls = format!("\n[api.tls]\ncertificate = {certificate:?}\nkey = {key:?}\n");
    let required = "require_token = true";
    let root = Certificate::from_pem(authority.root().as_bytes()).unwrap();

    let node = start(dir.path(), required, &tls).await;
    let port = node.address("api").unwrap().port();
    let url = |path: &str| format!("https://localhost:{port}{path}");
    let trusting = client().tls_certs_only([root.clone()]).build().unwrap();
    assert_eq!(status(&trusting, &url("/healthz")).await, 200);
    assert_eq!(status(&trusting, &url("/v1/tasks")).await, 401);
    let (is_fine, said) = command(dir.path(), &["token", "add", "line-7"]);
    assert!(is_fine, "{said}");
    let token = said.lines().find(|line| line.starts_with("hf_")).unwrap();
    let got = trusting.get(url("/v1/tasks")).bearer_auth(token).send().await.unwrap();
    assert_eq!(got.status(), 200);
    let plain = client().build().unwrap();
    let got = plain.get(format!("http://localhost:{port}/healthz")).send().await;
    assert!(got.is_err(), "nothing is said without TLS");
    let stranger = client().tls_certs_only([]).build().unwrap();
    assert!(stranger.get(url("/healthz")).send().await.is_err(), "the root is not its");
    // The command line goes over the socket, and needs no root.
    let (is_fine, said) = command(dir.path(), &["queue", "stats", "--json"]);
    assert!(is_fine, "{said}");
    drop(node);

    let clients = Authority::new().unwrap();
    let roots = file(dir.path(), "clients.crt", &clients.root());
    let node = start(dir.path(), required, &format!("{tls}client_ca = {roots:?}\n")).await;
    let port = node.address("api").unwrap().port();
    let url = |path: &str| format!("https://localhost:{port}{path}");
    assert!(trusting.get(url("/healthz")).send().await.is_err(), "no certificate, no word");
    let with = |signed| certified(&root, signed);
    assert!(with(authority.sign("line-7").unwrap()).get(url("/healthz")).send().await.is_err());
    let known = with(clients.sign("line-7").unwrap());
    assert_eq!(status(&known, &url("/v1/tasks")).await, 200, "its certificate is enough");
    assert_eq!(status(&known, &url("/v1/queue")).await, 403, "and makes nobody an operator");
    // OpenAI's clients always show some key.
    let with_key = |path: &str| known.get(url(path)).bearer_auth("sk-none").send();
    assert_eq!(with_key("/v1/tasks").await.unwrap().status(), 200);
    assert_eq!(with_key("/v1/queue").await.unwrap().status(), 403, "with a key neither");
}

/// Puts a file in another's place, as who renews a certificate does.
fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

/// A client that believes one authority, and has a certificate of the other.
fn between(server: &Authority, own: &Authority) -> reqwest::ClientBuilder {
    let Signed { certificate, key, .. } = own.sign("line-7").unwrap();
    let identity = Identity::from_pem((certificate + &key).as_bytes()).unwrap();
    let root = Certificate::from_pem(server.root().as_bytes()).unwrap();
    client().tls_certs_only([root]).identity(identity)
}

#[tokio::test]
async fn a_renewed_certificate_is_served_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let new = || Authority::new().unwrap();
    let (before, after, clients, other_clients) = (new(), new(), new(), new());
    let signed = before.sign("localhost").unwrap();
    let (certificate, key) = signed.write(dir.path(), "agent").unwrap();
    let roots = file(dir.path(), "clients.crt", &clients.root());
    let api = "require_token = true\naccess_log = false\ngrpc_listen = \"127.0.0.1:0\"";
    let tls = format!(
        "\n[api.tls]\ncertificate = {certificate:?}\nkey = {key:?}\nclient_ca = {roots:?}\n"
    );
    let node = start(dir.path(), api, &tls).await;
    let url = format!("https://localhost:{}/healthz", node.address("api").unwrap().port());
    let grpc = format!(
        "https://localhost:{}/inference.GRPCInferenceService/ServerLive",
        node.address("grpc").unwrap().port()
    );
    let socket = dir.path().join(DEVICE).join("agent.sock");
    let local = client().unix_socket(socket).build().unwrap();
    let told = async |path: &str| {
        local.get(format!("http://agent{path}")).send().await.unwrap().text().await.unwrap()
    };
    let said = async || -> Value {
        serde_json::from_str::<Value>(&told("/readyz").await).unwrap()["tls"].clone()
    };
    let until = Instant::now() + super::SOON;
    let in_time = || assert!(Instant::now() < until, "{}", node.log_tail());

    let open = between(&before, &clients).build().unwrap();
    assert_eq!(status(&open, &url).await, 200);
    assert_eq!(said().await, json!({ "current": true, "why": null }));
    let signed = after.sign("localhost").unwrap();
    replace(&certificate, &signed.certificate);
    replace(&key, &signed.key);
    replace(&roots, &other_clients.root());
    let renewed = between(&after, &other_clients).build().unwrap();
    while renewed.get(&url).send().await.is_err() {
        in_time();
        sleep(Duration::from_millis(50)).await;
    }
    // A new connection would not be believed, on either side.
    assert_eq!(status(&open, &url).await, 200, "a connection that is open goes on");
    for (server, own) in [(&before, &other_clients), (&after, &clients), (&before, &clients)] {
        assert!(between(server, own).build().unwrap().get(&url).send().await.is_err());
    }
    let caller = between(&after, &other_clients).http2_prior_knowledge().build().unwrap();
    let live = caller.post(&grpc).header("content-type", "application/grpc").body(vec![0; 5]);
    assert_eq!(live.send().await.unwrap().status(), 200, "gRPC has it too");

    let other = after.sign("localhost").unwrap();
    replace(&certificate, &other.certificate);
    while said().await["current"] != json!(false) {
        in_time();
        sleep(Duration::from_millis(50)).await;
    }
    let why = said().await["why"].as_str().unwrap().to_owned();
    assert!(why.contains("certificate and key cannot be used"), "{why}");
    // Time in which the files are looked at again and again.
    sleep(Duration::from_secs(3)).await;
    let lines = node.log_tail();
    assert_eq!(lines.matches("certificate is not renewed").count(), 1, "{lines}");
    let fresh = between(&after, &other_clients).build().unwrap();
    assert_eq!(status(&fresh, &url).await, 200, "the one before is in service");
    assert!(told("/metrics").await.contains("\nholdfast_tls_current 0\n"));
    let config = dir.path().join(format!("{DEVICE}.toml"));
    let mut doctor = std::process::Command::new(super::program());
    let looked = doctor.args(["agent", "doctor", "--json", "--config"]).arg(config).output();
    let found: Vec<Value> = serde_json::from_slice(&looked.unwrap().stdout).unwrap();
    let found = found.iter().find(|found| found["check"] == "api.tls").unwrap();
    assert_eq!(found["health"], "fault", "{found}");

    replace(&key, &other.key);
    while said().await["current"] != json!(true) {
        in_time();
        sleep(Duration::from_millis(50)).await;
    }
    let last = between(&after, &other_clients).build().unwrap();
    assert_eq!(status(&last, &url).await, 200);
    assert_eq!(status(&open, &url).await, 200, "the first connection is still the same");
}

#[tokio::test]
async fn who_is_known_by_certificates_alone_shares_no_answer_with_others() {
    let dir = tempfile::tempdir().unwrap();
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let (authority, clients) = (Authority::new().unwrap(), Authority::new().unwrap());
    let (certificate, key) =
        authority.sign("localhost").unwrap().write(dir.path(), "agent").unwrap();
    let roots = file(dir.path(), "clients.crt", &clients.root());
    let api_key = file(dir.path(), "near.key", &Vendor::OpenAi.credential(&near.url));
    let tables = format!(
        "\n[api.tls]\ncertificate = {certificate:?}\nkey = {key:?}\nclient_ca = {roots:?}\n\
         [[destination]]\nname = \"near\"\nzone = \"site\"\nprotocol = \"openai\"\n\
         model = {MODEL:?}\nurl = {:?}\napi_key_file = {api_key:?}\n\
         [[cache.rules]]\nmodels = [\"*\"]\nclasses = [\"confidential\"]\nttl_s = 3600\n",
        near.url
    );
    let agent = Agent { name: DEVICE, bundles: Vec::new(), site: None, broker: None };
    let toml = agent.toml(dir.path()).replace("[api]\n", "[api]\nrequire_token = true\n") + &tables;
    let node = start_agent_with(super::program(), dir.path(), DEVICE, &toml).await.unwrap();
    let port = node.address("api").unwrap().port();
    let (is_fine, said) = command(dir.path(), &["token", "add", "line-9"]);
    assert!(is_fine, "{said}");
    let token = said.lines().find(|line| line.starts_with("hf_")).unwrap();
    let root = Certificate::from_pem(authority.root().as_bytes()).unwrap();
    let [one, two] = ["line-7", "line-8"].map(|name| certified(&root, clients.sign(name).unwrap()));
    let ask = async |client: &Client, token: Option<&str>| {
        let body = serde_json::json!({ "model": "near", "messages":
            [{ "role": "user", "content": "hello" }] });
        let url = format!("https://localhost:{port}/v1/chat/completions");
        let mut request = client.post(url).json(&body);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        response.headers().get("holdfast-cache").map(|found| found.to_str().unwrap().to_owned())
    };
    for (client, asked) in [(&one, 1), (&two, 2), (&one, 3)] {
        assert_eq!((ask(client, None).await, near.asked()), (None, asked), "no rule covers it");
    }
    let at_once = tokio::join!(ask(&one, None), ask(&two, None));
    assert_eq!((at_once, near.asked()), ((None, None), 5));
    // Its token says who one is, whatever certificate it comes with.
    for (client, want) in [(&one, "miss"), (&two, "hit")] {
        assert_eq!(ask(client, Some(token)).await.as_deref(), Some(want));
    }
    assert_eq!(near.asked(), 6);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_read_ends_the_start_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let nothing = file(dir.path(), "agent.crt", "nothing");
    let tls = format!("\n[api.tls]\ncertificate = {nothing:?}\nkey = {nothing:?}\n");
    let agent = Agent { name: DEVICE, bundles: Vec::new(), site: None, broker: None };
    let toml = agent.toml(dir.path()) + &tls;
    let failed = start_agent_with(super::program(), dir.path(), DEVICE, &toml).await.unwrap_err();
    assert!(format!("{failed:#}").contains("agent.crt has no certificate"), "{failed:#}");
}

#[tokio::test]
async fn over_the_socket_the_kernel_says_who_calls() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("run/agent.sock");
    let api = format!("require_token = true\nunix_socket = {socket:?}");
    let node = start(dir.path(), &api, "").await;
    let local = client().unix_socket(socket.clone()).build().unwrap();
    let got = local.get("http://agent/v1/queue").send().await.unwrap();
    assert_eq!(got.status(), 200, "its own user may do everything");
    let queue: Value = serde_json::from_str(&got.text().await.unwrap()).unwrap();
    assert!(queue.is_object(), "{queue}");
    let far = format!("http://{}/v1/queue", node.address("api").unwrap());
    assert_eq!(status(&client().build().unwrap(), &far).await, 401);
    drop(node);
    // It was killed: the file is there, and the next agent takes its place.
    assert!(socket.exists());
    let _node = start(dir.path(), &api, "").await;
    assert_eq!(status(&local, "http://agent/v1/tasks").await, 200);
}
