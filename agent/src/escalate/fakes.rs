//! Servers that hold a client to the documented protocol, and raw ones that break it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A server on a port of its own; it ends when it is dropped.
pub(crate) struct Fake {
    pub(crate) url: String,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

/// One request that reached a fake.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) what: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// One scripted answer: status (0: never), extra headers, body.
pub(crate) type Scripted = (u16, Vec<(&'static str, String)>, Value);

#[derive(Clone)]
struct Script {
    answers: Arc<Mutex<VecDeque<Scripted>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    secret: Option<&'static str>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    async fn serve(router: Router, seen: Arc<Mutex<Vec<Seen>>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, seen, task }
    }

    /// A Holdfast agent that gives `answers` one after the other and checks what it is asked.
    pub(crate) async fn holdfast(answers: Vec<Scripted>, secret: Option<&'static str>) -> Self {
        let script = Script::new(answers, secret);
        let seen = script.seen.clone();
        let router = Router::new()
            .route("/v1/tasks/{task}", post(holdfast_ask))
            .route("/v1/requests/{id}", get(holdfast_poll))
            .route("/healthz", get(holdfast_health))
            .with_state(script);
        Self::serve(router, seen).await
    }

    /// A server that gives `answers` one after the other, whatever it is asked.
    pub(crate) async fn plain(answers: Vec<Scripted>) -> Self {
        let script = Script::new(answers, None);
        let seen = script.seen.clone();
        let router = Router::new().fallback(plain).with_state(script);
        Self::serve(router, seen).await
    }

    /// An OpenAI endpoint that gives `answers` one after the other and checks what it is asked.
    pub(crate) async fn openai(answers: Vec<Scripted>, secret: Option<&'static str>) -> Self {
        let script = Script::new(answers, secret);
        let seen = script.seen.clone();
        let router =
            Router::new().route("/v1/chat/completions", post(openai_chat)).with_state(script);
        Self::serve(router, seen).await
    }
}

impl Script {
    fn new(answers: Vec<Scripted>, secret: Option<&'static str>) -> Self {
        Self { answers: Arc::new(Mutex::new(answers.into())), seen: Arc::default(), secret }
    }

    fn see(&self, what: String, headers: &HeaderMap, body: Bytes) {
        self.seen.lock().unwrap().push(Seen { what, headers: headers.clone(), body });
    }

    async fn next(&self) -> Response {
        let next = self.answers.lock().unwrap().pop_front();
        let (status, headers, body) =
            next.unwrap_or_else(|| (500, vec![], json!({ "title": "the script is over" })));
        if status == 0 {
            std::future::pending::<()>().await;
        }
        let mut response = axum::Json(body).into_response();
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        for (name, value) in headers {
            let name = header::HeaderName::from_static(name);
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        response
    }

    fn knows(&self, headers: &HeaderMap) -> bool {
        let shown = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap());
        shown == self.secret.map(|secret| format!("Bearer {secret}")).as_deref()
    }
}

fn wrong(what: &str) -> Response {
    let problem = json!({ "type": "about:blank#strict", "title": "wrong", "detail": what });
    let mut response = axum::Json(problem).into_response();
    *response.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
    response
}

const HEADERS: [&str; 7] = [
    "holdfast-class",
    "holdfast-priority",
    "holdfast-deadline-ms",
    "holdfast-ttl-ms",
    "holdfast-escalate",
    "holdfast-hops",
    "idempotency-key",
];

async fn plain(
    State(script): State<Script>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    script.see(format!("{method} {uri}"), &headers, body);
    script.next().await
}

async fn holdfast_ask(
    State(script): State<Script>,
    Path(task): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    script.see(format!("POST /v1/tasks/{task}"), &headers, body.clone());
    if !script.knows(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let own = headers.keys().filter(|name| name.as_str().starts_with("holdfast-"));
    if own.count() != HEADERS.len() - 1 {
        return wrong("a header that the task API does not have, or one too few");
    }
    for name in HEADERS {
        let Some(value) = headers.get(name).and_then(|value| value.to_str().ok()) else {
            return wrong(&format!("{name} is missing"));
        };
        let fits = match name {
            "holdfast-class" => ["public", "internal", "confidential"].contains(&value),
            "holdfast-priority" | "holdfast-hops" => value.parse::<u8>().is_ok_and(|n| n <= 9),
            "holdfast-escalate" => value == "auto",
            "idempotency-key" => value.parse::<uuid::Uuid>().is_ok(),
            _ => value.parse::<u64>().is_ok_and(|ms| ms > 0),
        };
        if !fits {
            return wrong(&format!("{name}: {value}"));
        }
    }
    if headers.get(header::CONTENT_TYPE).is_none_or(|value| value != "audio/wav") {
        return wrong("content-type");
    }
    if !body.starts_with(b"RIFF") {
        return wrong("body");
    }
    script.next().await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Poll {
    wait_ms: u64,
}

async fn holdfast_poll(
    State(script): State<Script>,
    Path(id): Path<uuid::Uuid>,
    Query(poll): Query<Poll>,
    headers: HeaderMap,
) -> Response {
    script.see(format!("GET /v1/requests/{id}"), &headers, Bytes::new());
    if poll.wait_ms == 0 || !script.knows(&headers) {
        return wrong("wait_ms or credential");
    }
    script.next().await
}

async fn holdfast_health(State(script): State<Script>, headers: HeaderMap) -> StatusCode {
    script.see("GET /healthz".to_owned(), &headers, Bytes::new());
    StatusCode::OK
}

/// The documented fields of a chat completion request that a classification needs, and no other.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Chat {
    model: String,
    messages: Vec<ChatMessage>,
    response_format: ResponseFormat,
}

#[derive(Deserialize)]
#[serde(tag = "role", rename_all = "lowercase", deny_unknown_fields)]
enum ChatMessage {
    System { content: String },
    User { content: Vec<Part> },
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum Part {
    InputAudio { input_audio: InputAudio },
    ImageUrl { image_url: ImageUrl },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InputAudio {
    data: String,
    format: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ImageUrl {
    url: String,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum ResponseFormat {
    JsonSchema { json_schema: JsonSchema },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonSchema {
    name: String,
    strict: bool,
    schema: Value,
}

async fn openai_chat(State(script): State<Script>, headers: HeaderMap, body: Bytes) -> Response {
    script.see("POST /v1/chat/completions".to_owned(), &headers, body.clone());
    if !script.knows(&headers) {
        // The vendor repeats the key in its message; ours must not.
        let shown = headers.get(header::AUTHORIZATION).cloned();
        let shown = shown.map_or(String::new(), |value| value.to_str().unwrap().to_owned());
        let message = format!("Incorrect API key provided: {shown}");
        let error = json!({ "error": { "message": message, "type": "invalid_request_error",
            "param": null, "code": "invalid_api_key" } });
        return (StatusCode::UNAUTHORIZED, axum::Json(error)).into_response();
    }
    if headers.get(header::CONTENT_TYPE).is_none_or(|value| value != "application/json") {
        return wrong("content-type");
    }
    match serde_json::from_slice::<Chat>(&body).map_err(|error| error.to_string()) {
        Err(error) => wrong(&error),
        Ok(chat) => match chat_fault(&chat) {
            Some(what) => wrong(&what),
            None => script.next().await,
        },
    }
}

/// What the vendor's validation would say.
fn chat_fault(chat: &Chat) -> Option<String> {
    let ResponseFormat::JsonSchema { json_schema } = &chat.response_format;
    let schema = &json_schema.schema;
    // Strict mode: every property is required, and no other is allowed.
    let properties = schema["properties"].as_object()?;
    let required = schema["required"].as_array()?;
    if !json_schema.strict
        || schema["additionalProperties"] != json!(false)
        || schema["type"] != json!("object")
        || properties.keys().any(|key| !required.contains(&json!(key)))
    {
        return Some("schema is not strict".to_owned());
    }
    let name_fits =
        json_schema.name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if !name_fits || chat.model.is_empty() {
        return Some("name or model".to_owned());
    }
    let [ChatMessage::System { content: system }, ChatMessage::User { content: parts }] =
        chat.messages.as_slice()
    else {
        return Some("messages".to_owned());
    };
    let parts_fit = parts.iter().all(|part| match part {
        Part::InputAudio { input_audio } => {
            ["wav", "mp3"].contains(&input_audio.format.as_str())
                && decoded(&input_audio.data).is_some_and(|bytes| bytes.starts_with(b"RIFF"))
        }
        Part::ImageUrl { image_url } => image_url
            .url
            .strip_prefix("data:image/png;base64,")
            .and_then(decoded)
            .is_some_and(|bytes| bytes.starts_with(b"\x89PNG")),
    });
    (system.is_empty() || parts.is_empty() || !parts_fit).then(|| "content".to_owned())
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

/// What a raw server does after it has read a request and written its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// Ends the connection in order.
    Close,
    /// Ends it with a reset.
    Reset,
    /// Keeps it open and says nothing more.
    Stall,
    /// Writes for ever.
    Flood,
}

/// A server without manners.
pub(crate) struct Raw {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Raw {
    pub(crate) async fn new(bytes: Vec<u8>, then: Then) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let bytes = bytes.clone();
                tokio::spawn(misbehave(stream, bytes, then));
            }
        });
        Self { address, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn misbehave(mut stream: tokio::net::TcpStream, bytes: Vec<u8>, then: Then) {
    let mut buffer = [0; 4096];
    // The head is enough; what the client then sees does not depend on the rest.
    if !stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
        return;
    }
    if stream.write_all(&bytes).await.is_err() {
        return;
    }
    match then {
        Then::Close => stream.shutdown().await.unwrap_or_default(),
        Then::Reset => drop(stream.set_zero_linger()),
        Then::Stall => std::future::pending().await,
        Then::Flood => while stream.write_all(&[b' '; 16 * 1024]).await.is_ok() {},
    }
}

/// A port that counts who connects to it, and how many bytes they bring.
pub(crate) struct Recorder {
    pub(crate) url: String,
    pub(crate) connections: Arc<Mutex<usize>>,
    task: JoinHandle<()>,
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Recorder {
    pub(crate) async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let connections = Arc::new(Mutex::new(0));
        let count = connections.clone();
        let task = tokio::spawn(async move {
            let mut open = Vec::new();
            loop {
                open.push(listener.accept().await.unwrap());
                *count.lock().unwrap() += 1;
            }
        });
        Self { url, connections, task }
    }

    pub(crate) fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}
