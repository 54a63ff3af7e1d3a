//! The OpenAPI document is what the agent does: schemathesis asks a real one everything that is in it,
//! right and wrong, and every method that is not in it is refused.

use std::collections::BTreeSet;

use holdfast_tests::client::Client;
use holdfast_tests::node::Node;
use holdfast_tests::schemathesis;
use holdfast_tests::site::{Agent, DEVICE, bundles, start_agent_with};
use holdfast_tests::vendors::{Fake, MODEL, Vendor};
use reqwest::{Method, StatusCode};
use serde_json::Value;

/// An agent of the shipped small bundles.
async fn start(dir: &std::path::Path, in_api: &str, more: &str) -> Node {
    let bundles = bundles(&["voice-commands", "part-inspection"]);
    let agent = Agent { name: DEVICE, bundles, site: None, broker: None };
    let toml = agent.toml(dir).replace("[api]\n", &format!("[api]\n{in_api}\n")) + more;
    start_agent_with(super::program(), dir, DEVICE, &toml).await.unwrap()
}

#[tokio::test]
async fn each_path_has_the_methods_of_the_document_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let agent = start(dir.path(), "", "").await;
    let client = Client::new(agent.address("api").unwrap()).unwrap();
    let (status, text) = client.get("/openapi.json").await.unwrap();
    assert_eq!(status, StatusCode::OK, "{text}");
    let document: Value = serde_json::from_str(&text).unwrap();
    let http = super::client().build().unwrap();
    for (path, item) in document["paths"].as_object().unwrap() {
        let methods = item.as_object().unwrap().keys().filter(|key| *key != "parameters");
        let mut documented: BTreeSet<String> = methods.map(|name| name.to_uppercase()).collect();
        if documented.contains("GET") {
            documented.insert("HEAD".to_owned());
        }
        let path = path.replace(['{', '}'], "");
        let url = format!("http://{}{path}", agent.address("api").unwrap());
        let response = http.request(Method::PATCH, url).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
        let allowed = response.headers()["allow"].to_str().unwrap().split(',');
        let allowed: BTreeSet<String> = allowed.map(|name| name.trim().to_owned()).collect();
        assert_eq!(allowed, documented, "{path}");
    }
}

#[tokio::test]
async fn a_refusal_has_the_form_of_the_protocol_that_is_spoken_there() {
    let dir = tempfile::tempdir().unwrap();
    let agent = start(dir.path(), "", "").await;
    let address = agent.address("api").unwrap();
    let http = super::client().build().unwrap();
    let (problem, json) = ("application/problem+json", "application/json");
    for (method, path, status, kind, at) in [
        (Method::GET, "/v1/requests/%ff", 400, problem, "/code"),
        (Method::GET, "/nowhere", 404, problem, "/code"),
        (Method::PUT, "/v1/tasks", 405, problem, "/code"),
        (Method::GET, "/v1/models/%ff", 400, json, "/error/code"),
        (Method::GET, "/v1/chat/nothing", 404, json, "/error/code"),
        (Method::PUT, "/v1/chat/completions", 405, json, "/error/code"),
        (Method::GET, "/v2/models/%ff", 400, json, "/error"),
        (Method::GET, "/v2/nothing", 404, json, "/error"),
        (Method::GET, "/v2/", 404, json, "/error"),
        (Method::PUT, "/v2/models/x", 405, json, "/error"),
    ] {
        let request = http.request(method.clone(), format!("http://{address}{path}"));
        let response = request.send().await.unwrap();
        let case = format!("{method} {path}");
        assert_eq!(response.status().as_u16(), status, "{case}");
        assert_eq!(response.headers()["content-type"], kind, "{case}");
        let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        let found = body.pointer(at).and_then(Value::as_str);
        assert!(found.is_some_and(|text| !text.is_empty()), "{case}: {body}");
    }
}

/// Requests that wait for an hour, by their ids.
async fn held(agent: &Node, token: &str, count: usize) -> Vec<String> {
    let url = format!("http://{}/v1/tasks/part-inspection", agent.address("api").unwrap());
    let http = super::client().build().unwrap();
    let picture = super::sample("part-inspection", |_| true);
    let mut ids = Vec::new();
    for _ in 0..count {
        let request = http.post(&url).bearer_auth(token).body(picture.clone());
        let request = request.header("holdfast-escalate", "always");
        let response = request.header("holdfast-not-before-ms", "3600000").send().await.unwrap();
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        ids.push(body["id"].as_str().unwrap().to_owned());
    }
    ids
}

#[tokio::test]
async fn schemathesis_finds_the_agent_to_be_what_its_document_says() {
    let Some(mut check) = schemathesis::run() else { return };
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(Vendor::OpenAi).await.unwrap();
    let key = dir.path().join("key");
    std::fs::write(&key, Vendor::OpenAi.credential(&fake.url)).unwrap();
    let near = format!(
        "\n[[destination]]\nname = \"near\"\nzone = \"site\"\nprotocol = \"openai\"\nmodel = \
         {MODEL:?}\nurl = {:?}\napi_key_file = {:?}\n",
        fake.url,
        key.display().to_string(),
    );
    let agent = start(dir.path(), "require_token = true", &near).await;
    let (is_made, token) = super::command(dir.path(), &["token", "add", "tester", "--admin"]);
    assert!(is_made, "{token}");
    let (token, base) = (token.trim(), format!("http://{}", agent.address("api").unwrap()));
    let ids = held(&agent, token, 12).await;
    let http = super::client().build().unwrap();
    let got = async |path: &str| {
        let response = http.get(format!("{base}{path}")).bearer_auth(token).send().await;
        response.unwrap().text().await.unwrap()
    };
    let record = got(&format!("/v1/requests/{}/record", ids[0])).await;
    let file = dir.path().join("openapi.json");
    std::fs::write(&file, got("/openapi.json").await).unwrap();
    check.arg(&file).args(["--url", &base]).current_dir(dir.path());
    check.env("HOLDFAST_TOKEN", token).env("HOLDFAST_HELD", ids.join(" "));
    check.env("HOLDFAST_RECORD", record);
    let output = tokio::task::spawn_blocking(move || check.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}\n{:#?}", fake.refused());
    println!("{said}");
    assert!(fake.asked() > 5, "{said}");
}
