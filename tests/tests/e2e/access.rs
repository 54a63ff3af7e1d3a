//! Tokens: who has none learns nothing, who has one does what it is for, over HTTP and gRPC alike.

use std::net::SocketAddr;

use holdfast_tests::node::Node;
use holdfast_tests::site::{Agent, DEVICE, bundles, start_agent_with};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// An agent that asks for tokens on loopback too.
struct Guarded {
    dir: tempfile::TempDir,
    node: Node,
    http: reqwest::Client,
}

/// What came back: the status, the headers that matter here, and the body.
struct Got {
    status: u16,
    authenticate: Option<String>,
    retry_after: Option<String>,
    body: Value,
}

impl Guarded {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let agent = Agent {
            name: DEVICE,
            bundles: bundles(&["voice-commands", "part-inspection"]),
            site: None,
            broker: None,
        };
        let toml = agent
            .toml(dir.path())
            .replace("[api]\n", "[api]\nrequire_token = true\ngrpc_listen = \"127.0.0.1:0\"\n");
        let node = start_agent_with(super::program(), dir.path(), DEVICE, &toml).await.unwrap();
        let http = super::client().build().unwrap();
        Self { dir, node, http }
    }

    /// `holdfast-agent token ...`: whether it went well, and what it said.
    fn token(&self, args: &[&str]) -> (bool, String) {
        super::command(self.dir.path(), &[&["token"], args].concat())
    }

    fn add(&self, args: &[&str]) -> String {
        let (is_fine, said) = self.token(&[&["add"], args].concat());
        assert!(is_fine, "{args:?}: {said}");
        said.trim().to_owned()
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        headers: &[(&str, &str)],
    ) -> Got {
        let address = self.node.address("api").unwrap();
        let mut request = self.http.request(method.clone(), format!("http://{address}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if method == Method::POST {
            request = request.body(super::sample("voice-commands", |_| true));
        }
        let response = request.send().await.unwrap();
        let header = |name| response.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
        let (authenticate, retry_after) = (header("www-authenticate"), header("retry-after"));
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Got { status, authenticate, retry_after, body }
    }
}

const VOICE: &str = "/v1/tasks/voice-commands";

#[tokio::test]
async fn who_shows_no_token_learns_that_the_agent_lives_and_nothing_else() {
    let guarded = Guarded::start().await;
    for path in ["/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"] {
        assert_eq!(guarded.ask(Method::GET, path, None, &[]).await.status, 200, "{path}");
    }
    for (method, path) in [
        (Method::GET, "/v1/tasks"),
        (Method::POST, VOICE),
        (Method::GET, "/v1/queue"),
        (Method::GET, "/metrics"),
        (Method::GET, "/v1/requests/01890000-0000-7000-8000-000000000000"),
        (Method::GET, "/no/such/path"),
        (Method::DELETE, "/v1/tasks"),
    ] {
        for token in [None, Some("hf_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), Some("x")] {
            let got = guarded.ask(method.clone(), path, token, &[]).await;
            assert_eq!((got.status, &got.body["code"]), (401, &json!("unauthenticated")), "{path}");
            assert_eq!(got.authenticate.as_deref(), Some("Bearer realm=\"holdfast\""), "{path}");
        }
    }
    // The Open Inference Protocol has its own form of errors.
    let got = guarded.ask(Method::GET, "/v2/models/voice-commands", None, &[]).await;
    assert_eq!(got.status, 401);
    assert!(got.body["error"].as_str().unwrap().contains("token"), "{}", got.body);
}

#[tokio::test]
async fn a_token_does_what_it_is_for() {
    let guarded = Guarded::start().await;
    let voice = guarded.add(&["voice", "--task", "voice-commands", "--class", "restricted"]);
    let all = guarded.add(&["all"]);
    let boss = guarded.add(&["boss", "--admin"]);
    let parts = guarded.add(&["parts", "--task", "part-inspection"]);
    let restricted = ("holdfast-class", "restricted");
    let public = ("holdfast-class", "public");

    let got = guarded.ask(Method::POST, VOICE, Some(&voice), &[restricted]).await;
    assert_eq!(got.status, 200, "{}", got.body);
    for (token, path, header, want) in [
        // A class that the token may not say, and the one that unlabelled data has.
        (&voice, VOICE, Some(public), "may not label data public"),
        (&voice, VOICE, None, "may not label data confidential"),
        (&voice, "/v1/tasks/part-inspection", Some(restricted), "is not for \"part-inspection\""),
    ] {
        let headers: Vec<_> = header.into_iter().collect();
        let got = guarded.ask(Method::POST, path, Some(token), &headers).await;
        assert_eq!((got.status, &got.body["code"]), (403, &json!("forbidden")), "{path}");
        assert!(got.body["detail"].as_str().unwrap().contains(want), "{}", got.body);
    }
    assert_eq!(guarded.ask(Method::POST, VOICE, Some(&all), &[public]).await.status, 200);
    // What was asked with another task's token is not there for this one.
    let keyed = [public, ("idempotency-key", "job-1")];
    let got = guarded.ask(Method::POST, VOICE, Some(&all), &keyed).await;
    let of_voice = format!("/v1/requests/{}", got.body["id"].as_str().unwrap());
    for (token, want) in [(&parts, 404), (&voice, 200), (&all, 200)] {
        let got = guarded.ask(Method::GET, &of_voice, Some(token), &[]).await;
        assert_eq!(got.status, want, "{}", got.body);
    }
    for path in [format!("{of_voice}?forget=true"), of_voice.clone()] {
        assert_eq!(guarded.ask(Method::DELETE, &path, Some(&parts), &[]).await.status, 404);
    }
    let events = format!("{of_voice}/events");
    assert_eq!(guarded.ask(Method::GET, &events, Some(&parts), &[]).await.status, 404);
    for path in ["/v1/queue", "/v1/results", "/v1/queue/stats", "/v1/takers", "/metrics"] {
        assert_eq!(guarded.ask(Method::GET, path, Some(&all), &[]).await.status, 403, "{path}");
        assert_eq!(guarded.ask(Method::GET, path, Some(&boss), &[]).await.status, 200, "{path}");
    }
    let unload = "/v2/repository/models/part-inspection/unload";
    assert_eq!(guarded.ask(Method::POST, unload, Some(&all), &[]).await.status, 403);
    // The device's own command line is an operator without being told a token.
    let (is_fine, said) = super::command(guarded.dir.path(), &["queue", "stats", "--json"]);
    assert!(is_fine, "{said}");
    let (is_fine, said) = super::command(guarded.dir.path(), &["models", "ls", "--json"]);
    assert!(is_fine, "{said}");
}

#[tokio::test]
async fn a_token_is_listed_without_its_text_and_ends_when_it_is_revoked() {
    let guarded = Guarded::start().await;
    let token = guarded.add(&["line-7", "--per-minute", "2", "--days", "30"]);
    let (_, listed) = guarded.token(&["ls", "--json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((&listed[0]["name"], &listed[0]["per_min"]), (&json!("line-7"), &json!(2)));
    assert!(listed[0]["left_s"].as_u64().is_some_and(|left| left > 29 * 86_400), "{listed}");
    assert!(!guarded.token(&["add", "line-7"]).0, "a name is taken once");
    assert!(!guarded.token(&["revoke", "line-8"]).0, "there is no such token");

    for _ in 0..2 {
        let got = guarded.ask(Method::GET, "/v1/tasks", Some(&token), &[]).await;
        assert_eq!(got.status, 200, "{}", got.body);
    }
    let got = guarded.ask(Method::GET, "/v1/tasks", Some(&token), &[]).await;
    assert_eq!((got.status, &got.body["code"]), (429, &json!("too_many_requests")));
    let seconds: u64 = got.retry_after.unwrap().parse().unwrap();
    assert!((1..=31).contains(&seconds), "{seconds}");

    guarded.token(&["revoke", "line-7"]);
    let until = Instant::now() + super::SOON;
    while guarded.ask(Method::GET, "/v1/tasks", Some(&token), &[]).await.status != 401 {
        assert!(Instant::now() < until, "a token that is revoked still counts");
        sleep(std::time::Duration::from_millis(50)).await;
    }
    // No text of a token is anywhere on disk but the operator's own.
    let state = guarded.dir.path().join(DEVICE);
    let text = std::fs::read_to_string(state.join("tokens.json")).unwrap();
    assert!(!text.contains(token.trim_start_matches("hf_")));
    assert!(!guarded.node.log_tail().contains(&token));
}

#[tokio::test]
async fn each_request_is_a_line_in_the_log_without_its_content() {
    let guarded = Guarded::start().await;
    let token = guarded.add(&["line-7"]);
    let class = ("holdfast-class", "internal");
    assert_eq!(guarded.ask(Method::POST, VOICE, Some(&token), &[class]).await.status, 200);
    assert_eq!(guarded.ask(Method::GET, "/v1/tasks", Some("x"), &[]).await.status, 401);
    let until = Instant::now() + super::SOON;
    loop {
        let log = guarded.node.log_tail();
        let line = |what: &str| log.lines().find(|line| line.contains(what)).map(str::to_owned);
        if let (Some(asked), Some(refused)) = (line("caller=\"line-7\""), line("status=401")) {
            for part in ["/v1/tasks/{task}", "voice-commands", "internal", "status=200", "answered"]
            {
                assert!(asked.contains(part), "{part} is not in {asked}");
            }
            assert!(refused.contains("refused"), "{refused}");
            break;
        }
        assert!(Instant::now() < until, "{log}");
        sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// A call over gRPC with its bare message, and the status that it ends with.
async fn grpc(address: SocketAddr, method: &str, token: Option<&str>, model: &str) -> String {
    let mut message = vec![0x0a, u8::try_from(model.len()).unwrap()];
    message.extend_from_slice(model.as_bytes());
    let mut body = vec![0];
    body.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    body.extend_from_slice(&message);
    let client = super::client().http2_prior_knowledge().build().unwrap();
    let url = format!("http://{address}/inference.GRPCInferenceService/{method}");
    let mut request = client.post(url).header("content-type", "application/grpc").body(body);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let response = request.send().await.unwrap();
    // A refusal is all headers; an answer has its status behind its message.
    match response.headers().get("grpc-status") {
        Some(status) => status.to_str().unwrap().to_owned(),
        None => {
            assert!(!response.bytes().await.unwrap().is_empty());
            "0".to_owned()
        }
    }
}

#[tokio::test]
async fn grpc_asks_for_the_same_tokens() {
    let guarded = Guarded::start().await;
    let address = guarded.node.address("grpc").unwrap();
    let voice = guarded.add(&["voice", "--task", "voice-commands"]);
    for (method, token, model, want) in [
        ("ServerLive", None, "", "0"),
        ("ModelMetadata", None, "voice-commands", "16"),
        ("ModelMetadata", Some("x"), "voice-commands", "16"),
        ("ModelMetadata", Some(voice.as_str()), "voice-commands", "0"),
        ("ModelMetadata", Some(voice.as_str()), "part-inspection", "7"),
        ("RepositoryModelUnload", Some(voice.as_str()), "voice-commands", "7"),
    ] {
        let got = grpc(address, method, token, model).await;
        assert_eq!(got, want, "{method} {token:?} {model}");
    }
}

#[tokio::test]
async fn each_call_over_grpc_is_a_line_in_the_log_too() {
    let guarded = Guarded::start().await;
    let address = guarded.node.address("grpc").unwrap();
    let voice = guarded.add(&["voice", "--task", "voice-commands"]);
    let all = guarded.add(&["all"]);
    for (token, method, model, wanted) in [
        (
            Some(&voice),
            "ModelMetadata",
            "voice-commands",
            ["caller=\"voice\"", "task=\"voice-commands\"", "grpc_status=0", "answered"],
        ),
        (Some(&voice), "ModelConfig", "part-inspection", ["voice", "Config", "=7", "refused"]),
        (
            Some(&all),
            "ModelInfer",
            "none",
            ["caller=\"all\"", "task=\"none\"", "ModelInfer", "refused"],
        ),
        (None, "ModelReady", "voice-commands", ["caller=\"-\"", "Ready", "=16", "refused"]),
        (Some(&all), "What/is\nthis", "", ["caller=\"all\"", "route=\"-\"", "=12", "refused"]),
    ] {
        let method = method.replace('\n', "%0a");
        grpc(address, &method, token.map(String::as_str), model).await;
        let until = Instant::now() + super::SOON;
        loop {
            let log = guarded.node.log_tail();
            if log.lines().any(|line| wanted.iter().all(|part| line.contains(part))) {
                break;
            }
            assert!(Instant::now() < until, "{wanted:?}: {log}");
            sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}
