//! TLS and the Unix socket: callers who are known by their certificate or by the kernel.

use std::path::{Path, PathBuf};

use holdfast_tests::authority::{Authority, Signed};
use holdfast_tests::node::Node;
use holdfast_tests::site::{Agent, DEVICE, bundles, start_agent_with};
use holdfast_tests::vendors::{Fake, MODEL, Vendor};
use reqwest::{Certificate, Client, Identity};
use serde_json::Value;

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
