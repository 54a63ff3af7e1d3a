//! Owns the choice of a protocol: which module makes a call of a conversation, reads its answer and
//! sorts its failures; and what holds for every conversation whoever is asked.
//!
//! **Invariant:** a call carries no credential; whoever sends it adds that.

use serde_json::Value;
use thiserror::Error;

use crate::conversation::{Answer, Conversation, Output, Part, Said, Turn};
use crate::failure::Failure;
use crate::reader::Reader;
use crate::unfit::{Unfit, What};
use crate::vectors::{self, Inputs, Vectors};
use crate::{anthropic, bedrock, gemini, ids, openai};

/// A protocol, with what its addresses need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI chat completions, and whoever speaks them.
    OpenAi,
    /// Azure OpenAI: the deployment is in the address.
    AzureOpenAi {
        /// The deployment.
        deployment: String,
        /// Such as `2024-10-21`.
        api_version: String,
    },
    /// Mistral's chat completions.
    Mistral,
    /// Anthropic messages.
    Anthropic,
    /// Gemini's `generateContent`.
    Gemini,
    /// Vertex AI's `generateContent`.
    Vertex {
        /// The project.
        project: String,
        /// The location, such as `europe-west4`.
        region: String,
    },
    /// Bedrock's Converse.
    Bedrock {
        /// The region, such as `eu-central-1`.
        region: String,
    },
}

/// What is to be posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Path and query, to be put behind the base address.
    pub path: String,
    /// Headers of the protocol, beside `content-type: application/json`.
    pub headers: Vec<(&'static str, String)>,
    /// JSON.
    pub body: Vec<u8>,
    /// Tokens of the answer at most, thoughts included, where the call says so.
    pub most_tokens: Option<u32>,
}

/// A body that is not what the protocol says.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Malformed(pub String);

impl Dialect {
    /// The protocol's name in the configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::AzureOpenAi { .. } => "azure-openai",
            Self::Mistral => "mistral",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Vertex { .. } => "vertex",
            Self::Bedrock { .. } => "bedrock",
        }
    }

    /// What to post so that `model` is asked.
    ///
    /// # Errors
    /// What the protocol cannot express; nothing may be sent then.
    pub fn call(&self, model: &str, conversation: &Conversation) -> Result<Call, Unfit> {
        self.made(model, conversation, Way::InOnePiece)
    }

    fn made(&self, model: &str, conversation: &Conversation, way: Way) -> Result<Call, Unfit> {
        let unfit = |what| Unfit { protocol: self.name(), what };
        check(conversation).map_err(unfit)?;
        let conversation = &*ids::fitted(self.ids(), conversation);
        let path = self.path(model, way);
        let headers = match self {
            Self::Anthropic => {
                let version = anthropic::version(&conversation.sampling);
                vec![("anthropic-version", version.to_owned())]
            }
            _ => Vec::new(),
        };
        let body = match self {
            Self::OpenAi => openai::body(openai::Flavour::OpenAi, Some(model), conversation),
            Self::AzureOpenAi { .. } => openai::body(openai::Flavour::OpenAi, None, conversation),
            Self::Mistral => openai::body(openai::Flavour::Mistral, Some(model), conversation),
            Self::Anthropic => anthropic::body(model, conversation),
            Self::Gemini | Self::Vertex { .. } => gemini::body(model, conversation),
            Self::Bedrock { .. } => bedrock::body(model, conversation),
        };
        let mut body = body.map_err(unfit)?;
        match (self, way) {
            (Self::OpenAi | Self::AzureOpenAi { .. }, Way::Streamed) => {
                body["stream"] = true.into();
                body["stream_options"] = serde_json::json!({ "include_usage": true });
            }
            (Self::Mistral | Self::Anthropic, Way::Streamed) => body["stream"] = true.into(),
            // The address says it.
            (Self::Gemini | Self::Vertex { .. } | Self::Bedrock { .. }, _)
            | (_, Way::InOnePiece) => {}
        }
        // One dialect has a limit of its own where nobody gives one.
        let own = body.get("max_tokens").and_then(Value::as_u64).and_then(|n| n.try_into().ok());
        let most_tokens = conversation.max_tokens.or(own);
        let body = body.to_string().into_bytes();
        Ok(Call { path, headers, body, most_tokens })
    }

    /// As [`Self::call`], for an answer in pieces.
    ///
    /// # Errors
    /// What the protocol cannot express; nothing may be sent then.
    pub fn call_streamed(&self, model: &str, conversation: &Conversation) -> Result<Call, Unfit> {
        self.made(model, conversation, Way::Streamed)
    }

    /// The reader of a streamed response with a status of success.
    pub fn reader(&self) -> Reader {
        match self {
            Self::OpenAi | Self::AzureOpenAi { .. } | Self::Mistral => Reader::openai(),
            Self::Anthropic => Reader::anthropic(),
            Self::Gemini | Self::Vertex { .. } => Reader::gemini(),
            Self::Bedrock { .. } => Reader::bedrock(),
        }
    }

    /// The content type that a streamed response has.
    pub fn stream_type(&self) -> &'static str {
        match self {
            Self::Bedrock { .. } => "application/vnd.amazon.eventstream",
            _ => "text/event-stream",
        }
    }

    /// What to post so that `model` makes vectors of `inputs`, for this end user.
    ///
    /// # Errors
    /// What the protocol cannot express; nothing may be sent then.
    pub fn embed(
        &self,
        model: &str,
        inputs: &Inputs,
        dimensions: Option<u32>,
        user: Option<&str>,
    ) -> Result<Call, Unfit> {
        let unfit = |what| Unfit { protocol: self.name(), what };
        let asked = vectors::Asked { model, inputs, dimensions, user };
        let (path, body) = match self {
            Self::OpenAi => ("/v1/embeddings".to_owned(), Ok(asked.openai(true))),
            Self::Mistral => ("/v1/embeddings".to_owned(), asked.mistral()),
            Self::AzureOpenAi { deployment, api_version } => {
                let (deployment, version) = (encoded(deployment), encoded(api_version));
                let path =
                    format!("/openai/deployments/{deployment}/embeddings?api-version={version}");
                (path, Ok(asked.openai(false)))
            }
            Self::Anthropic => (String::new(), Err(What::Parameter("embeddings"))),
            Self::Gemini => {
                let path = format!("/v1/models/{}:batchEmbedContents", gemini_model(model));
                let bare = model.strip_prefix("models/").unwrap_or(model);
                (path, asked.gemini(bare))
            }
            Self::Vertex { .. } => (self.vertex(model, "predict"), asked.vertex()),
            Self::Bedrock { .. } => (format!("/model/{}/invoke", encoded(model)), asked.bedrock()),
        };
        let body = match inputs.count() {
            0 => Err(What::Turns("nothing is asked")),
            _ => body,
        };
        let body = body.map_err(unfit)?.to_string().into_bytes();
        Ok(Call { path, headers: Vec::new(), body, most_tokens: None })
    }

    /// The vectors in the body of a response with a status of success.
    ///
    /// # Errors
    /// [`Malformed`] with what is missing or wrong.
    pub fn vectors(&self, body: &[u8]) -> Result<Vectors, Malformed> {
        vectors::vectors(json(body)?)
    }

    /// The answer in the body of a response with a status of success.
    ///
    /// # Errors
    /// [`Malformed`] with what is missing or wrong, without a word of the answer itself.
    pub fn answer(&self, body: &[u8]) -> Result<Answer, Malformed> {
        match self {
            Self::OpenAi | Self::AzureOpenAi { .. } | Self::Mistral => openai::answer(json(body)?),
            Self::Anthropic => anthropic::answer(json(body)?),
            Self::Gemini | Self::Vertex { .. } => gemini::answer(json(body)?),
            Self::Bedrock { .. } => bedrock::answer(json(body)?),
        }
    }

    /// What to do about a response with any other status. `header` gives a header by its name in
    /// lower case.
    pub fn failure(
        &self,
        status: u16,
        header: &dyn Fn(&str) -> Option<String>,
        body: &[u8],
    ) -> Failure {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        match self {
            Self::OpenAi | Self::AzureOpenAi { .. } | Self::Mistral => {
                openai::failure(status, header, &body)
            }
            Self::Anthropic => anthropic::failure(status, header, &body),
            Self::Gemini | Self::Vertex { .. } => gemini::failure(status, header, &body),
            Self::Bedrock { .. } => bedrock::failure(status, header, &body),
        }
    }

    /// A path that costs nothing, to see whether anybody is there.
    pub fn idle_path(&self) -> &'static str {
        match self {
            Self::OpenAi | Self::Mistral | Self::Anthropic | Self::Gemini => "/v1/models",
            Self::AzureOpenAi { .. } | Self::Vertex { .. } | Self::Bedrock { .. } => "/",
        }
    }

    /// `path` behind a base address, which may end with the version already, as is customary.
    pub fn address(base: &str, path: &str) -> String {
        let version = path.split('/').nth(1).unwrap_or_default();
        let bare = base.strip_suffix(version).and_then(|bare| bare.strip_suffix('/'));
        // What follows the two slashes is the host, whatever it is called.
        let is_segment = |bare: &&str| !version.is_empty() && !bare.ends_with('/');
        format!("{}{path}", bare.filter(is_segment).unwrap_or(base))
    }

    /// Which ids of calls it takes.
    fn ids(&self) -> ids::Rule {
        match self {
            Self::OpenAi | Self::AzureOpenAi { .. } => ids::Rule::Short,
            Self::Mistral => ids::Rule::Nine,
            Self::Anthropic | Self::Bedrock { .. } => ids::Rule::Plain,
            Self::Gemini | Self::Vertex { .. } => ids::Rule::Any,
        }
    }

    fn path(&self, model: &str, way: Way) -> String {
        let google = match way {
            Way::InOnePiece => "generateContent",
            Way::Streamed => "streamGenerateContent?alt=sse",
        };
        let bedrock = match way {
            Way::InOnePiece => "converse",
            Way::Streamed => "converse-stream",
        };
        match self {
            Self::OpenAi | Self::Mistral => "/v1/chat/completions".to_owned(),
            Self::AzureOpenAi { deployment, api_version } => {
                let (deployment, version) = (encoded(deployment), encoded(api_version));
                format!("/openai/deployments/{deployment}/chat/completions?api-version={version}")
            }
            Self::Anthropic => "/v1/messages".to_owned(),
            Self::Gemini => format!("/v1/models/{}:{google}", gemini_model(model)),
            Self::Vertex { .. } => self.vertex(model, google),
            Self::Bedrock { .. } => format!("/model/{}/{bedrock}", encoded(model)),
        }
    }

    fn vertex(&self, model: &str, method: &str) -> String {
        let Self::Vertex { project, region } = self else { return String::new() };
        let (project, region) = (encoded(project), encoded(region));
        let model = gemini_model(model);
        format!(
            "/v1/projects/{project}/locations/{region}/publishers/google/models/{model}:{method}"
        )
    }
}

/// How an answer is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    InOnePiece,
    Streamed,
}

/// A model's name in an address; Google's own lists have `models/` before it.
fn gemini_model(model: &str) -> String {
    encoded(model.strip_prefix("models/").unwrap_or(model))
}

/// A segment of a path.
pub(crate) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push_str(&hex::encode_upper([byte]));
        }
    }
    out
}

/// The position says enough; serde's own text could quote the answer.
pub(crate) fn json<'a, T: serde::Deserialize<'a>>(body: &'a [u8]) -> Result<T, Malformed> {
    // Its items would be taken for the fields, one after the other.
    if body.trim_ascii_start().starts_with(b"[") {
        return Err(Malformed("its JSON is a list".to_owned()));
    }
    serde_json::from_slice(body).map_err(|error| {
        Malformed(format!("its JSON is wrong at line {} column {}", error.line(), error.column()))
    })
}

/// What holds for every protocol.
fn check(conversation: &Conversation) -> Result<(), What> {
    let is_name = |name: &str| {
        (1..=64).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    let named = |name: &str| if is_name(name) { Ok(()) } else { Err(What::Name(name.to_owned())) };
    let object = |name: &str, schema: &Value| match schema["type"] == "object" {
        true => Ok(()),
        false => Err(What::Schema(name.to_owned())),
    };
    for tool in &conversation.tools {
        named(&tool.name)?;
        object(&tool.name, &tool.parameters)?;
    }
    if let Output::Json { name, schema } = &conversation.output {
        named(name)?;
        object(name, schema)?;
    }
    check_turns(&conversation.turns)
}

fn is_said(part: &Part) -> bool {
    !matches!(part, Part::Speaker(_))
}

fn check_turns(turns: &[Turn]) -> Result<(), What> {
    let mut called: Vec<&str> = Vec::new();
    for (at, turn) in turns.iter().enumerate() {
        match turn {
            Turn::User(parts) if !parts.iter().any(is_said) => {
                return Err(What::Turns("a turn is empty"));
            }
            Turn::User(parts) if parts.contains(&Part::Text(String::new())) => {
                return Err(What::Turns("a text is empty"));
            }
            Turn::User(_) | Turn::Model(_) if !called.is_empty() => {
                return Err(What::Turns("a tool was called and its result is not told"));
            }
            Turn::Model(_) if at == 0 => return Err(What::Turns("the model speaks first")),
            Turn::Model(said) if said.is_empty() => return Err(What::Turns("a turn is empty")),
            Turn::Model(said) => {
                called = said
                    .iter()
                    .filter_map(|said| match said {
                        Said::Call(call) => Some(call.id.as_str()),
                        Said::Text(_) | Said::Reasoning { .. } | Said::Redacted(_) => None,
                    })
                    .collect();
            }
            Turn::Results(results) => {
                let told = |id: &&str| results.iter().any(|result| result.id == *id);
                if results.len() != called.len() || !called.iter().all(told) {
                    return Err(What::Turns("results are told of other calls than were made"));
                }
                called.clear();
            }
            Turn::User(_) => {}
        }
    }
    match turns.last() {
        None => Err(What::Turns("nothing is asked")),
        Some(Turn::Model(_)) => Err(What::Turns("the last turn is the model's")),
        Some(Turn::User(_) | Turn::Results(_)) => Ok(()),
    }
}

/// A number as it was written: the shortest that is this one.
pub(crate) fn exact(number: f32) -> Value {
    number.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}
