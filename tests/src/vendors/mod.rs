//! Stand-ins for the providers of models, since the real ones cost money and have no tests: each takes
//! what its provider's documented protocol takes and refuses everything else as that provider would.
//!
//! What is answered is what was scripted, or follows from what is asked: `fail NAME` as the last text
//! gets the provider's documented error, `show hints` what it was told of who asks, `count N` so many numbers, `talk on` words without an end where
//! they are streamed, a tool is called where one is offered, a schema with labels gets the last of them.
//! Each is proved with its provider's own SDK (`tests/sdks`).
//!
//! **Invariant:** nothing of a request is ignored: a field, header or order that the protocol does not
//! have is a refusal.

mod anthropic;
mod bedrock;
mod gemini;
mod openai;
mod openai_more;
pub mod sdks;
mod shape;
mod stream;
pub mod token;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use shape::Checked;

/// A provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vendor {
    /// OpenAI.
    OpenAi,
    /// Azure OpenAI.
    AzureOpenAi,
    /// Mistral.
    Mistral,
    /// Anthropic.
    Anthropic,
    /// Gemini.
    Gemini,
    /// Vertex AI.
    Vertex,
    /// Amazon Bedrock.
    Bedrock,
}

/// The model that every stand-in has, and no other.
pub const MODEL: &str = "model-1:0";
/// The key that every stand-in takes; Bedrock's is the secret of [`ACCESS_KEY_ID`].
pub const KEY: &str = "sk-fake-0123456789abcdef0123456789abcdef";
/// Who signs at Bedrock.
pub const ACCESS_KEY_ID: &str = "AKIDFAKE000000000000";
/// Where Bedrock and Vertex are.
pub const REGION: &str = "eu-central-1";
/// The project at Vertex.
pub const PROJECT: &str = "project-1";
/// The version of Azure's API.
pub const API_VERSION: &str = "2024-10-21";
/// Seconds to wait, where the provider has a way of telling.
pub const WAIT_S: u64 = 7;
/// Between two pieces of a stream.
const PIECE_EVERY: std::time::Duration = std::time::Duration::from_millis(2);
/// Tokens that are counted for every answer: in, of these cached, out.
pub const TOKENS: (u64, u64, u64) = (120, 20, 9);

impl Vendor {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::OpenAi,
        Self::AzureOpenAi,
        Self::Mistral,
        Self::Anthropic,
        Self::Gemini,
        Self::Vertex,
        Self::Bedrock,
    ];

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::AzureOpenAi => "azure-openai",
            Self::Mistral => "mistral",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Vertex => "vertex",
            Self::Bedrock => "bedrock",
        }
    }

    /// What a file with its credential holds; `url` is the stand-in's.
    pub fn credential(self, url: &str) -> String {
        match self {
            Self::Vertex => token::account(url),
            Self::Bedrock => {
                format!(
                    "[default]\naws_access_key_id = {ACCESS_KEY_ID}\naws_secret_access_key = {KEY}\n"
                )
            }
            _ => format!("{KEY}\n"),
        }
    }

    /// Whether it takes recordings.
    pub fn takes_audio(self) -> bool {
        self != Self::Anthropic
    }

    /// Whether it has a way of telling how long to wait.
    pub fn tells_wait(self) -> bool {
        self != Self::Bedrock
    }

    fn check(self, call: &Call<'_>) -> Result<Asked, Refused> {
        match self {
            Self::OpenAi | Self::AzureOpenAi | Self::Mistral => openai::check(self, call),
            Self::Anthropic => anthropic::check(call),
            Self::Gemini | Self::Vertex => gemini::check(self, call),
            Self::Bedrock => bedrock::check(call),
        }
    }

    fn answer(self, says: &Says) -> Value {
        match self {
            Self::OpenAi | Self::AzureOpenAi | Self::Mistral => openai::answer(self, says),
            Self::Anthropic => anthropic::answer(says),
            Self::Gemini | Self::Vertex => gemini::answer(says),
            Self::Bedrock => bedrock::answer(says),
        }
    }

    fn trouble(self, trouble: Trouble, what: &str) -> Reply {
        match self {
            Self::OpenAi | Self::AzureOpenAi => openai::trouble(self, trouble, what),
            Self::Mistral => openai::trouble_of_mistral(trouble, what),
            Self::Anthropic => anthropic::trouble(trouble, what),
            Self::Gemini | Self::Vertex => gemini::trouble(trouble, what),
            Self::Bedrock => bedrock::trouble(trouble, what),
        }
    }
}

/// A documented error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the sorts of failure that holdfast_chat has")]
pub enum Trouble {
    Transient,
    Throttled,
    OutOfCredit,
    BadRequest,
    Authentication,
    Safety,
}

impl Trouble {
    /// All of them, with their names in a prompt.
    pub const ALL: [(&'static str, Self); 6] = [
        ("transient", Self::Transient),
        ("throttled", Self::Throttled),
        ("out of credit", Self::OutOfCredit),
        ("bad request", Self::BadRequest),
        ("authentication", Self::Authentication),
        ("safety", Self::Safety),
    ];
}

/// What a stand-in says.
#[derive(Debug, Clone, PartialEq)]
pub enum Says {
    /// Words.
    Text(String),
    /// A tool that is to be called.
    Call(String, Value),
    /// Half of something, cut at its length limit.
    Cut(String),
    /// That its filter took the answer away.
    Filtered,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// An answer.
    Says(Says),
    /// The provider's documented error.
    Fails(Trouble),
    /// Anything else: status, headers and body as they are.
    Sends(Reply),
}

/// A response.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Headers beside `content-type: application/json`.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// JSON.
    pub fn json(status: u16, headers: Vec<(&'static str, String)>, body: &Value) -> Self {
        Self { status, headers, body: body.to_string().into() }
    }
}

/// What was asked, as far as an answer follows from it.
#[derive(Debug, Clone, Default)]
struct Asked {
    /// The last text.
    text: String,
    /// Files, as they arrived.
    files: Vec<Vec<u8>>,
    schema: Option<Value>,
    /// Whether the answer is to come piece by piece, and whether its tokens are to be told then.
    stream: Option<bool>,
    /// A tool that is offered and was not called yet.
    tool: Option<String>,
    /// What changes no answer: who asks, what to cache, what to expect.
    hints: Value,
}

/// Why it is refused.
#[derive(Debug)]
enum Refused {
    Credential(String),
    Request(String),
}

impl From<String> for Refused {
    fn from(what: String) -> Self {
        Self::Request(what)
    }
}

/// One call, as it arrived.
struct Call<'a> {
    method: &'a Method,
    path: &'a str,
    query: &'a str,
    headers: &'a HeaderMap,
    body: &'a [u8],
}

impl Call<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// What holds for all: a post of JSON to this path.
    fn posts_json(&self, path: &str) -> Checked<Value> {
        if self.method != Method::POST || self.path != path {
            return Err(format!("{} {}: not found; there is {path}", self.method, self.path));
        }
        let kind = self.header("content-type").unwrap_or_default();
        if kind.split(';').next() != Some("application/json") {
            return Err(format!("content-type: must be application/json, is {kind}"));
        }
        serde_json::from_slice(self.body).map_err(|error| format!("body: {error}"))
    }

    fn shows(&self, header: &str, value: &str) -> Result<(), Refused> {
        match self.header(header) {
            Some(shown) if shown == value => Ok(()),
            // The vendor repeats the key in its message; ours must not.
            Some(shown) => Err(Refused::Credential(format!("wrong key provided: {shown}"))),
            None => Err(Refused::Credential(format!("{header} is missing"))),
        }
    }
}

/// A stand-in that runs; it ends when it is dropped.
#[derive(Debug)]
pub struct Fake {
    /// Its address.
    pub url: String,
    state: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Seen {
    script: VecDeque<Next>,
    files: Vec<Vec<u8>>,
    asked: usize,
    left: usize,
    refused: Vec<String>,
    gives_no_token: bool,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    /// Starts one on a port of its own.
    pub async fn start(vendor: Vendor) -> std::io::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let state = Arc::<Mutex<Seen>>::default();
        let routes = Router::new().fallback(serve).with_state((vendor, state.clone()));
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes).await {
                println!("{vendor:?} ended: {error}");
            }
        });
        Ok(Self { url, state, task })
    }

    /// What comes next, instead of what would follow from the question.
    pub fn next(&self, next: Next) {
        self.seen().script.push_back(next);
    }

    /// Questions that were posted, the refused ones too.
    pub fn asked(&self) -> usize {
        self.seen().asked
    }

    /// Streams whose reader went away before their end.
    pub fn left(&self) -> usize {
        self.seen().left
    }

    /// Whether Vertex's token server fails from here on.
    pub fn gives_no_token(&self, fails: bool) {
        self.seen().gives_no_token = fails;
    }

    /// Why questions were refused.
    pub fn refused(&self) -> Vec<String> {
        self.seen().refused.clone()
    }

    /// The files of all questions that were in order.
    pub fn files(&self) -> Vec<Vec<u8>> {
        self.seen().files.clone()
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.state.lock().expect("no test holds it and panics")
    }
}

async fn serve(
    State((vendor, state)): State<(Vendor, Arc<Mutex<Seen>>)>,
    request: Request,
) -> Response {
    let (Parts { method, uri, headers, .. }, body) = request.into_parts();
    let body = to_bytes(body, 64 << 20).await.unwrap_or_default();
    let query = uri.query().unwrap_or_default();
    let call = Call { method: &method, path: uri.path(), query, headers: &headers, body: &body };
    // What sees whether anybody is there, and Vertex's tokens, are no questions.
    if method == Method::GET {
        return respond(Reply::json(404, vec![], &json!({})));
    }
    let mut seen = state.lock().expect("no handler panics");
    if call.path == token::PATH {
        return respond(match seen.gives_no_token {
            true => Reply::json(500, vec![], &json!({ "error": "internal_failure" })),
            false => token::serve(&call),
        });
    }
    seen.asked += 1;
    let is_more = vendor == Vendor::OpenAi && openai_more::PATHS.contains(&call.path);
    let told = is_more.then(|| openai_more::serve(&call));
    let checked = match told {
        Some(Ok(reply)) => return respond(reply),
        Some(Err(refused)) => Err(refused),
        None => vendor.check(&call),
    };
    let reply = match checked {
        Err(Refused::Credential(what)) => {
            seen.refused.push(what.clone());
            vendor.trouble(Trouble::Authentication, &what)
        }
        Err(Refused::Request(what)) => {
            seen.refused.push(what.clone());
            vendor.trouble(Trouble::BadRequest, &what)
        }
        Ok(asked) => {
            seen.files.extend(asked.files.iter().cloned());
            let next = seen.script.pop_front().unwrap_or_else(|| following(vendor, &asked));
            match (next, asked.stream) {
                (Next::Says(says), Some(tells_usage)) => {
                    let is_endless = asked.text == "talk on";
                    let pieces = stream::pieces(vendor, &says, tells_usage);
                    return pour(vendor, pieces, is_endless, state.clone());
                }
                (Next::Says(says), None) => Reply::json(200, vec![], &vendor.answer(&says)),
                (Next::Fails(trouble), _) => vendor.trouble(trouble, "as it was told"),
                (Next::Sends(reply), _) => reply,
            }
        }
    };
    respond(reply)
}

/// A stream on its way, which counts when its reader goes away.
struct Pouring {
    pieces: std::vec::IntoIter<Bytes>,
    endless: Option<Bytes>,
    state: Arc<Mutex<Seen>>,
    is_whole: bool,
}

impl Pouring {
    fn end(mut self) {
        self.is_whole = true;
    }
}

impl Drop for Pouring {
    fn drop(&mut self) {
        if !self.is_whole {
            self.state.lock().expect("no handler panics").left += 1;
        }
    }
}

/// Sends `pieces`, each by itself; without an end the one in the middle is said again and again.
fn pour(vendor: Vendor, pieces: Vec<Bytes>, is_endless: bool, state: Arc<Mutex<Seen>>) -> Response {
    let middle = pieces.len() / 2;
    let endless = is_endless.then(|| pieces.get(middle).cloned()).flatten();
    let mut pieces = pieces;
    if is_endless {
        pieces.truncate(middle);
    }
    let pieces = pieces.into_iter();
    let pouring = Pouring { pieces, endless, state, is_whole: false };
    let body = futures_util::stream::unfold(pouring, |mut pouring| async move {
        // Whoever reads has each piece before the next one comes.
        tokio::time::sleep(PIECE_EVERY).await;
        let piece = pouring.pieces.next();
        let Some(piece) = piece.or_else(|| pouring.endless.clone()) else {
            pouring.end();
            return None;
        };
        Some((Ok::<_, std::io::Error>(piece), pouring))
    });
    let mut response = Response::new(Body::from_stream(body));
    if let Ok(kind) = stream::content_type(vendor).parse() {
        response.headers_mut().insert("content-type", kind);
    }
    response
}

/// What follows from a question.
fn following(vendor: Vendor, asked: &Asked) -> Next {
    if let Some(name) = asked.text.strip_prefix("fail ") {
        let found = Trouble::ALL.into_iter().find(|(each, _)| *each == name);
        if let Some((_, trouble)) = found {
            return Next::Fails(trouble);
        }
    }
    if asked.text == "show hints" {
        return Next::Says(Says::Text(asked.hints.to_string()));
    }
    if let Some(count) = asked.text.strip_prefix("count ").and_then(|text| text.parse().ok()) {
        let numbers: Vec<String> = (1..=count).map(|n: u32| n.to_string()).collect();
        return Next::Says(Says::Text(numbers.join(" ")));
    }
    if let Some(tool) = &asked.tool {
        return Next::Says(Says::Call(tool.clone(), json!({ "city": "Bonn" })));
    }
    let labels = asked.schema.as_ref().map(|schema| &schema["properties"]["label"]["enum"]);
    let label = labels.and_then(|labels| labels.as_array()?.last()?.as_str().map(str::to_owned));
    Next::Says(Says::Text(match label {
        Some(label) => json!({ "label": label, "confidence": 0.97 }).to_string(),
        None => format!("{} says hello", vendor.name()),
    }))
}

fn respond(reply: Reply) -> Response {
    let mut response = Response::new(Body::from(reply.body));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or_default();
    let mut headers = vec![("content-type", "application/json".to_owned())];
    headers.extend(reply.headers);
    for (name, value) in headers {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    response
}
