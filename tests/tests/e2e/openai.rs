//! A device that escalates to an OpenAI-compatible endpoint.
//!
//! The endpoint is a stand-in, since the real one costs money: it takes what the documented chat
//! completions API takes, and refuses anything else with 400.

use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use holdfast_tests::client::Client;
use holdfast_tests::node::Node;
use holdfast_tests::site::{Agent, DEVICE, bundles, start_agent_with};
use serde_json::{Value, json};

const KEY: &str = "sk-a-key-that-is-a-secret";

/// Inputs that arrived, decoded, or why a request was refused.
type Inbox = Arc<Mutex<Vec<Result<Vec<u8>, String>>>>;

/// Starts the stand-in; returns its base URL.
async fn endpoint(inbox: Inbox) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let routes = Router::new()
        .route("/v1/models", get(|| async { Json(json!({ "object": "list", "data": [] })) }))
        .route("/v1/chat/completions", post(complete))
        .with_state(inbox);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    url
}

async fn complete(
    State(inbox): State<Inbox>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, Json<Value>) {
    let checked = check(&headers, &body);
    let reply = match &checked {
        Ok((_, label)) => {
            let content = json!({ "label": label, "confidence": 0.97 }).to_string();
            let reply = json!({
                "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-test",
                "choices": [{
                    "index": 0, "finish_reason": "stop",
                    "message": { "role": "assistant", "content": content, "refusal": null },
                }],
                "usage": { "prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12 },
            });
            (StatusCode::OK, Json(reply))
        }
        Err(why) => {
            let error = json!({ "error": { "message": why, "type": "invalid_request_error", "param": null, "code": null } });
            (StatusCode::BAD_REQUEST, Json(error))
        }
    };
    inbox.lock().unwrap().push(checked.map(|(input, _)| input));
    reply
}

/// The input of a request that is as documented, and the last label that it may be answered with.
fn check(headers: &HeaderMap, body: &[u8]) -> Result<(Vec<u8>, String), String> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if header("authorization") != Some(&format!("Bearer {KEY}")) {
        return Err("Incorrect API key provided".into());
    }
    if header("content-type") != Some("application/json") {
        return Err("the body must be application/json".into());
    }
    let body: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let known = [
        "model",
        "messages",
        "response_format",
        "temperature",
        "max_completion_tokens",
        "n",
        "modalities",
        "store",
        "stream",
        "user",
        "metadata",
    ];
    if let Some(key) =
        body.as_object().and_then(|map| map.keys().find(|key| !known.contains(&key.as_str())))
    {
        return Err(format!("Unrecognized request argument supplied: {key}"));
    }
    if body["model"] != "gpt-test" {
        return Err(format!("the model {} does not exist", body["model"]));
    }
    let schema = &body["response_format"]["json_schema"]["schema"];
    let labels =
        schema["properties"]["label"]["enum"].as_array().ok_or("no labels in the schema")?;
    let label = labels.last().and_then(Value::as_str).ok_or("no label")?;
    let messages = body["messages"].as_array().ok_or("messages is not an array")?;
    let parts = messages.iter().filter(|message| message["role"] == "user");
    let parts: Vec<_> =
        parts.filter_map(|message| message["content"].as_array()).flatten().collect();
    let data = parts.iter().find_map(|part| match part["type"].as_str()? {
        "image_url" => {
            part["image_url"]["url"].as_str()?.split_once(";base64,").map(|(_, data)| data)
        }
        "input_audio" if part["input_audio"]["format"] == "wav" => {
            part["input_audio"]["data"].as_str()
        }
        _ => None,
    });
    let input =
        BASE64_STANDARD.decode(data.ok_or("no input")?).map_err(|error| error.to_string())?;
    Ok((input, label.to_owned()))
}

async fn device(dir: &std::path::Path, url: &str) -> Node {
    let key = dir.join("key");
    std::fs::write(&key, format!("{KEY}\n")).unwrap();
    let bundles = bundles(&["voice-commands", "part-inspection"]);
    let agent = Agent { name: DEVICE, bundles, site: None, broker: None };
    let toml = agent.toml(dir)
        + &format!(
            "\n[[destination]]\nname = \"cloud\"\nzone = \"public\"\nprotocol = \"openai\"\nmodel = \"gpt-test\"\n\
             url = {url:?}\napi_key_file = {:?}\n",
            key.display().to_string()
        );
    start_agent_with(super::program(), dir, DEVICE, &toml).await.unwrap()
}

#[tokio::test]
async fn recordings_and_pictures_are_answered_by_an_openai_endpoint() {
    let dir = tempfile::tempdir().unwrap();
    let inbox = Inbox::default();
    let url = endpoint(inbox.clone()).await;
    // Both forms of a base URL are in use.
    for base in [url.clone(), format!("{url}/v1")] {
        let mut device = device(dir.path(), &base).await;
        let client = Client::new(device.address("api").unwrap()).unwrap();
        for (task, bundle) in
            [("voice-commands", "voice-commands"), ("part-inspection", "part-inspection")]
        {
            let body = super::sample(bundle, |_| true);
            let terms = [("holdfast-class", "public"), ("holdfast-escalate", "always")];
            let reply = client.ask(task, body.clone(), &terms).await.unwrap();
            let arrived = inbox.lock().unwrap().pop().expect("it was sent").expect("as documented");
            assert_eq!(arrived, body, "{base} {task}: the input arrives as it is");
            let why = reply.why();
            let answer = reply.answer.unwrap();
            assert_eq!(
                (reply.state.as_str(), answer.zone.as_str()),
                ("answered", "public"),
                "{base} {task}: {why}"
            );
            assert_eq!(answer.place, "cloud");
        }
        device.kill().unwrap();
        assert!(!device.log_tail().contains(KEY), "the key is in the log");
    }
}

#[tokio::test]
async fn nothing_above_public_goes_there() {
    let dir = tempfile::tempdir().unwrap();
    let inbox = Inbox::default();
    let device = device(dir.path(), &endpoint(inbox.clone()).await).await;
    let client = Client::new(device.address("api").unwrap()).unwrap();
    for class in ["internal", "confidential", "restricted"] {
        let terms = [("holdfast-class", class), ("holdfast-escalate", "always")];
        let body = super::sample("voice-commands", |_| true);
        let reply = client.ask("voice-commands", body, &terms).await.unwrap();
        assert_eq!(reply.state, "answered", "{class}");
        assert!(reply.has("class_forbids"), "{class}: {}", reply.why());
    }
    assert!(inbox.lock().unwrap().is_empty());
}
