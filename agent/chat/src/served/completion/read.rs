//! Owns reading a request for a chat completion.
//!
//! **Invariant:** every field that OpenAI documents is here, and each is honoured or refused.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::message::{self, Message};
use crate::conversation::{
    Conversation, Effort, Hints, Output, Sampling, Thinking, Tool, Verbosity,
};
use crate::served::fault::{asks_no_more, has_none_of, invalid, missing, parsed, unsupported};
use crate::served::fields::{self, Given, Object, OneOrMany, Streaming, TIERS, Word, WordOr, text};
use crate::served::tools::{self, Form, Function};
use crate::served::{Asked, Refusal};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request<'a> {
    model: Option<String>,
    #[serde(borrow)]
    messages: Option<Vec<Object<Message<'a>>>>,
    tools: Option<Vec<Object<Declared<'a>>>>,
    tool_choice: Option<WordOr<Choice>>,
    #[serde(borrow)]
    response_format: Option<Object<Format<'a>>>,
    stream: Option<bool>,
    stream_options: Option<Object<Streaming>>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<u64>,
    seed: Option<i64>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    stop: Option<OneOrMany<String>>,
    metadata: Option<BTreeMap<String, String>>,
    user: Option<String>,
    #[serde(borrow)]
    reasoning_effort: Option<Word<'a>>,
    parallel_tool_calls: Option<bool>,
    #[serde(borrow)]
    verbosity: Option<Word<'a>>,
    // These change nothing of the answer: what it costs, how soon it comes, on whose behalf it is asked.
    prediction: Option<Object<Predicted>>,
    safety_identifier: Option<String>,
    prompt_cache_key: Option<String>,
    // These may say what holds anyway.
    store: Option<bool>,
    n: Option<u64>,
    logprobs: Option<bool>,
    top_logprobs: Option<u64>,
    #[serde(borrow)]
    service_tier: Option<Word<'a>>,
    #[serde(borrow)]
    modalities: Option<Vec<Word<'a>>>,
    logit_bias: Option<Map<String, Value>>,
    // These cannot be honoured.
    #[serde(default)]
    audio: Given,
    #[serde(default)]
    function_call: Given,
    #[serde(default)]
    functions: Given,
    #[serde(default)]
    moderation: Given,
    #[serde(default)]
    prompt_cache_options: Given,
    #[serde(default)]
    prompt_cache_retention: Given,
    #[serde(default)]
    web_search_options: Given,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Declared<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Word<'a>>,
    function: Option<Object<Function>>,
    #[serde(default)]
    custom: Given,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Choice {
    #[serde(rename = "type")]
    kind: Option<String>,
    function: Option<Object<Chosen>>,
    #[serde(default)]
    allowed_tools: Given,
    #[serde(default)]
    custom: Given,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Chosen {
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Format<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Word<'a>>,
    json_schema: Option<Object<Schema>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Schema {
    name: Option<String>,
    description: Option<String>,
    schema: Option<Map<String, Value>>,
    strict: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Predicted {
    #[serde(rename = "type")]
    kind: Option<String>,
    content: Option<OneOrMany<Object<Piece>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Piece {
    #[serde(rename = "type")]
    kind: Option<String>,
    text: Option<String>,
}

/// What the body of a request asks.
///
/// # Errors
/// The first field that cannot be honoured, by its path.
pub fn read(body: &[u8]) -> Result<Asked, Refusal> {
    let request: Request<'_> = parsed(body)?;
    honoured(&request)?;
    let model = fields::model(request.model)?;
    let messages = request.messages.ok_or_else(|| missing("messages"))?;
    let (system, turns) = message::turns(messages)?;
    let tools = tools::tools(request.tools, tool)?;
    let tool_choice = tools::choice(request.tool_choice, &tools, chosen)?;
    let output = match request.response_format {
        None => Output::Text,
        Some(Object(format)) => {
            let kind = format.kind.ok_or_else(|| missing("response_format.type"))?;
            let form = format.json_schema.map(|Object(form)| Form {
                name: form.name,
                description: form.description,
                schema: form.schema,
                strict: form.strict,
            });
            tools::output("response_format.json_schema", &kind.0, form)?
        }
    };
    let most = match (request.max_completion_tokens, request.max_tokens) {
        (Some(most), Some(old)) if most != old => {
            let message = "max_tokens: max_completion_tokens says otherwise";
            return Err(invalid("max_tokens", message));
        }
        (None, old) => fields::at_least_one("max_tokens", old)?,
        (most, _) => fields::at_least_one("max_completion_tokens", most)?,
    };
    let conversation = Conversation {
        system,
        turns,
        tools,
        tool_choice,
        parallel_tool_calls: request.parallel_tool_calls,
        output,
        thinking: Thinking {
            effort: fields::one_of(
                "reasoning_effort",
                text(&request.reasoning_effort),
                &Effort::NAMED,
            )?,
            is_told: false,
        },
        verbosity: fields::one_of("verbosity", text(&request.verbosity), &Verbosity::NAMED)?,
        sampling: Sampling {
            temperature: fields::within("temperature", request.temperature, 0.0..=2.0)?,
            top_p: fields::within("top_p", request.top_p, 0.0..=1.0)?,
            top_k: fields::at_least_one("top_k", request.top_k)?,
            seed: fields::seed(request.seed)?,
            presence_penalty: fields::within(
                "presence_penalty",
                request.presence_penalty,
                -2.0..=2.0,
            )?,
            frequency_penalty: fields::within(
                "frequency_penalty",
                request.frequency_penalty,
                -2.0..=2.0,
            )?,
        },
        max_tokens: most,
        stop: fields::stops(request.stop)?,
        hints: Hints {
            user: request.user.clone(),
            safety_identifier: request.safety_identifier,
            prompt_cache_key: request.prompt_cache_key,
            prediction: request.prediction.map(predicted).transpose()?,
        },
    };
    Ok(Asked {
        model,
        conversation,
        stream: fields::stream(request.stream, request.stream_options.as_ref())?,
        metadata: fields::metadata(request.metadata)?,
        store: request.store,
        background: false,
        user: request.user,
    })
}

/// Refuses what cannot be honoured, unless it says what holds anyway.
fn honoured(request: &Request<'_>) -> Result<(), Refusal> {
    has_none_of([
        ("audio", request.audio.0),
        ("function_call", request.function_call.0),
        ("functions", request.functions.0),
        ("moderation", request.moderation.0),
        ("prompt_cache_options", request.prompt_cache_options.0),
        ("prompt_cache_retention", request.prompt_cache_retention.0),
        ("web_search_options", request.web_search_options.0),
    ])?;
    let tier = text(&request.service_tier);
    let is_text = |words: &Vec<Word<'_>>| words.iter().all(|word| word.0 == "text");
    asks_no_more([
        ("store", request.store == Some(true), "false"),
        ("n", request.n.is_some_and(|n| n != 1), "1"),
        ("logprobs", request.logprobs == Some(true), "false"),
        ("top_logprobs", request.top_logprobs.is_some_and(|count| count > 0), "0"),
        // What another tier costs is not known.
        ("service_tier", tier.is_some_and(|tier| !TIERS.contains(&tier)), "auto or default"),
        ("modalities", !request.modalities.as_ref().is_none_or(is_text), "[\"text\"]"),
        // Tokens are one model's own, and who is asked may have several.
        ("logit_bias", request.logit_bias.as_ref().is_some_and(|bias| !bias.is_empty()), "empty"),
    ])
}

/// The text that is foreseen, of one piece or of several.
fn predicted(Object(given): Object<Predicted>) -> Result<String, Refusal> {
    let wrong = |param: &str, must: &str| Err(invalid(param, format!("{param}: must be {must}")));
    if given.kind.as_deref() != Some("content") {
        return wrong("prediction.type", "content");
    }
    let pieces = match given.content.ok_or_else(|| missing("prediction.content"))? {
        OneOrMany::One(text) => return Ok(text),
        OneOrMany::Many(pieces) => pieces.into_iter().enumerate(),
    };
    let texts = pieces.map(|(at, Object(piece))| match (piece.kind.as_deref(), piece.text) {
        (Some("text"), Some(text)) => Ok(text),
        _ => wrong(&format!("prediction.content[{at}]"), "a text"),
    });
    texts.collect()
}

fn tool(param: &str, declared: Declared<'_>) -> Result<Tool, Refusal> {
    let kind = declared.kind.as_ref().map(|kind| &*kind.0);
    tools::is_function(param, kind)?;
    if declared.custom.0 {
        return Err(unsupported(format!("{param}.custom")));
    }
    let param = format!("{param}.function");
    tools::tool(&param, declared.function.ok_or_else(|| missing(param.clone()))?.0)
}

fn chosen(choice: Choice) -> Result<String, Refusal> {
    tools::is_function("tool_choice", choice.kind.as_deref())?;
    has_none_of([
        ("tool_choice.allowed_tools", choice.allowed_tools.0),
        ("tool_choice.custom", choice.custom.0),
    ])?;
    let Object(chosen) = choice.function.ok_or_else(|| missing("tool_choice.function"))?;
    chosen.name.ok_or_else(|| missing("tool_choice.function.name"))
}
