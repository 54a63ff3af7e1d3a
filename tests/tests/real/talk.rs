//! Servers that are talked to: llama.cpp's with a tiny model of random weights, and LiteLLM's proxy.

use holdfast_tests::servers::{Kind, Server};
use holdfast_tests::vendors::{Fake, KEY, MODEL, Vendor};
use serde_json::{Value, json};

use super::desk::{Desk, destination};

pub(crate) const COMPLETIONS: &str = "/v1/chat/completions";
/// The key of LiteLLM's proxy, which wants one.
const MASTER_KEY: &str = "sk-master-0123456789abcdef";

/// A question whose answer is the same each time.
pub(crate) fn question(model: &str) -> Value {
    json!({ "model": model, "max_tokens": 24, "temperature": 0,
        "messages": [{ "role": "user", "content": "count 5" }] })
}

/// The text of a stream, piece by piece, and its last reason.
fn pieces(stream: &str) -> (Vec<String>, String) {
    let events = stream.lines().filter_map(|line| line.strip_prefix("data: "));
    let (mut texts, mut reason) = (Vec::new(), String::new());
    for event in events.filter(|event| *event != "[DONE]") {
        let event: Value = serde_json::from_str(event).unwrap();
        let choice = &event["choices"][0];
        texts.extend(choice["delta"]["content"].as_str().map(str::to_owned));
        reason = choice["finish_reason"].as_str().map_or(reason, str::to_owned);
    }
    assert!(stream.trim_end().ends_with("data: [DONE]"), "{stream}");
    (texts, reason)
}

/// What every server of conversations has to do behind the agent.
pub(crate) async fn talks(desk: &Desk, model: &str) {
    let told = desk.asked(COMPLETIONS, &question(model)).await;
    let choice = &told["choices"][0];
    assert!(choice["message"]["content"].is_string(), "{told}");
    assert!(told["usage"]["completion_tokens"].as_u64().is_some_and(|count| count > 0), "{told}");
    let mut streamed = question(model);
    streamed["stream"] = true.into();
    let (status, stream) = desk.post(COMPLETIONS, &streamed, &[]).await;
    assert_eq!(status, 200, "{stream}");
    let (texts, reason) = pieces(&stream);
    assert!(texts.len() > 2, "{stream}");
    assert_eq!(choice["finish_reason"].as_str(), Some(reason.as_str()), "{stream}");
    let texts = json!({ "model": model, "input": ["one", "two"] });
    let vectors = desk.asked("/v1/embeddings", &texts).await;
    let vectors = vectors["data"].as_array().unwrap().clone();
    let lengths: Vec<_> =
        vectors.iter().map(|each| each["embedding"].as_array().map(Vec::len)).collect();
    assert!(lengths.len() == 2 && lengths[0] > Some(1) && lengths[0] == lengths[1], "{lengths:?}");
}

pub(crate) async fn llama(dir: &std::path::Path) -> Option<Server> {
    Server::start(Kind::LlamaCpp, &dir.join("llama"), &[]).await.unwrap()
}

/// An answer by a schema is of that schema, whatever the weights say.
async fn keeps_to_a_schema(desk: &Desk, model: &str) {
    let schema = json!({ "type": "object", "additionalProperties": false,
        "properties": { "label": { "type": "string", "enum": ["good", "bad"] } },
        "required": ["label"] });
    let mut asked = question(model);
    asked["max_tokens"] = 200.into();
    asked["response_format"] = json!({ "type": "json_schema",
        "json_schema": { "name": "verdict", "strict": true, "schema": schema } });
    let told = desk.asked(COMPLETIONS, &asked).await;
    let text = told["choices"][0]["message"]["content"].as_str().unwrap();
    let said: Value = serde_json::from_str(text).unwrap();
    assert!(said["label"] == "good" || said["label"] == "bad", "{said}");
}

#[tokio::test]
async fn llama_cpp_s_server_talks_embeds_keeps_to_schemas_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut server) = llama(dir.path()).await else { return };
    let more = "protocol = \"openai\"\nmodel = \"tiny\"";
    let desk = Desk::bare(dir.path(), &destination("llama", &server.url(), more)).await;
    talks(&desk, "tiny").await;
    keeps_to_a_schema(&desk, "tiny").await;
    server.kill();
    let (status, text) = desk.post(COMPLETIONS, &question("tiny"), &[]).await;
    assert!(status >= 500, "{status}: {text}");
    server.restart().await.unwrap();
    let up = |told: &Value| told["data"].as_array().map(|_| ());
    desk.client.until("/v1/models", std::time::Duration::from_secs(5), up).await.unwrap();
    talks_again(&desk, "tiny").await;
}

/// Asks until the link is seen to be up again.
async fn talks_again(desk: &Desk, model: &str) {
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let (status, text) = desk.post(COMPLETIONS, &question(model), &[]).await;
        if status == 200 {
            return;
        }
        assert!(tokio::time::Instant::now() < until, "{status}: {text}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn litellm_s_proxy_passes_on_what_the_agent_asks() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(Vendor::OpenAi).await.unwrap();
    let config = dir.path().join("litellm.yaml");
    let own =
        format!("{{model: \"openai/{MODEL}\", api_base: \"{}/v1\", api_key: {KEY}}}", fake.url);
    let text = format!(
        "model_list:\n  - model_name: far\n    litellm_params: {own}\n  - model_name: said\n    \
         litellm_params: {{model: openai/said, api_key: k, mock_response: \"as it was said\"}}\n\
         litellm_settings: {{telemetry: false, num_retries: 0}}\n\
         general_settings: {{master_key: {MASTER_KEY}}}\n"
    );
    std::fs::write(&config, text).unwrap();
    let arguments = ["--config".to_owned(), config.display().to_string()];
    let started = Server::start(Kind::LiteLlm, &dir.path().join("litellm"), &arguments).await;
    let Some(server) = started.unwrap() else { return };
    let key = dir.path().join("key");
    std::fs::write(&key, MASTER_KEY).unwrap();
    let section = |name: &str| {
        let key = key.display();
        let more = format!("protocol = \"openai\"\nmodel = {name:?}\napi_key_file = \"{key}\"");
        destination(&format!("litellm-{name}"), &server.url(), &more)
    };
    let desk = Desk::bare(dir.path(), &(section("far") + &section("said"))).await;
    let told = desk.asked(COMPLETIONS, &question("said")).await;
    assert_eq!(told["choices"][0]["message"]["content"], "as it was said");
    let told = desk.asked(COMPLETIONS, &question("far")).await;
    assert_eq!(told["choices"][0]["message"]["content"], "1 2 3 4 5", "{:?}", fake.refused());
    talks(&desk, "far").await;
}
