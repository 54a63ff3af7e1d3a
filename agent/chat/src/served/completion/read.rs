//! Owns reading a request for a chat completion.
//!
//! **Invariant:** every field that OpenAI documents is here, and each is honoured or refused.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::message::{self, Message};
use crate::conversation::{Conversation, Output, Sampling, Tool, ToolChoice};
use crate::served::fault::{has_none_of, invalid, missing, parsed, unsupported, unsupported_value};
use crate::served::fields::{
    self, Form, Function, Given, Object, OneOrMany, Streaming, Word, WordOr,
};
use crate::served::{Asked, Refusal};

/// OpenAI takes so many tools.
const MOST_TOOLS: usize = 128;

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
    // These change nothing.
    #[serde(default, rename = "safety_identifier")]
    _safety_identifier: Given,
    #[serde(default, rename = "prompt_cache_key")]
    _prompt_cache_key: Given,
    // These may say what holds anyway.
    store: Option<bool>,
    n: Option<u64>,
    logprobs: Option<bool>,
    parallel_tool_calls: Option<bool>,
    #[serde(borrow)]
    service_tier: Option<Word<'a>>,
    #[serde(borrow)]
    verbosity: Option<Word<'a>>,
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
    prediction: Given,
    #[serde(default)]
    prompt_cache_options: Given,
    #[serde(default)]
    prompt_cache_retention: Given,
    #[serde(default)]
    reasoning_effort: Given,
    #[serde(default)]
    top_logprobs: Given,
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
    let tools = tools(request.tools.unwrap_or_default())?;
    let tool_choice = choice(request.tool_choice, &tools)?;
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
            fields::output("response_format.json_schema", &kind.0, form)?
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
        output,
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
        ("prediction", request.prediction.0),
        ("prompt_cache_options", request.prompt_cache_options.0),
        ("prompt_cache_retention", request.prompt_cache_retention.0),
        ("reasoning_effort", request.reasoning_effort.0),
        ("top_logprobs", request.top_logprobs.0),
        ("web_search_options", request.web_search_options.0),
    ])?;
    let is_odd = |word: &Option<Word<'_>>, plain: &[&str]| {
        word.as_ref().is_some_and(|word| !plain.contains(&&*word.0))
    };
    let is_biased = request.logit_bias.as_ref().is_some_and(|bias| !bias.is_empty());
    let is_text = |words: &Vec<Word<'_>>| words.iter().all(|word| word.0 == "text");
    for (param, is_asked, only) in [
        ("store", request.store == Some(true), "false"),
        ("n", request.n.is_some_and(|n| n != 1), "1"),
        ("logprobs", request.logprobs == Some(true), "false"),
        ("parallel_tool_calls", request.parallel_tool_calls == Some(false), "true"),
        ("service_tier", is_odd(&request.service_tier, &["auto", "default"]), "auto or default"),
        ("verbosity", is_odd(&request.verbosity, &["medium"]), "medium"),
        ("modalities", !request.modalities.as_ref().is_none_or(is_text), "[\"text\"]"),
        ("logit_bias", is_biased, "empty"),
    ] {
        if is_asked {
            let message = format!("unsupported parameter: {param} can only be {only} here");
            return Err(Refusal { message, ..unsupported(param) });
        }
    }
    Ok(())
}

fn tools(declared: Vec<Object<Declared<'_>>>) -> Result<Vec<Tool>, Refusal> {
    if declared.len() > MOST_TOOLS {
        return Err(invalid("tools", format!("tools: must be up to {MOST_TOOLS}")));
    }
    let each = declared.into_iter().enumerate().map(|(at, Object(declared))| {
        let kind = declared.kind.ok_or_else(|| missing(format!("tools[{at}].type")))?;
        if kind.0 != "function" || declared.custom.0 {
            let param = format!("tools[{at}].type");
            let message = format!("{param}: can only be function here");
            return Err(unsupported_value(param, message));
        }
        let param = format!("tools[{at}].function");
        fields::tool(&param, declared.function.ok_or_else(|| missing(param.clone()))?.0)
    });
    each.collect()
}

fn choice(choice: Option<WordOr<Choice>>, tools: &[Tool]) -> Result<ToolChoice, Refusal> {
    let choice = match choice {
        None => return Ok(ToolChoice::Auto),
        Some(WordOr::Word(word)) => match word.as_str() {
            "auto" => return Ok(ToolChoice::Auto),
            "none" => return Ok(ToolChoice::Never),
            "required" => ToolChoice::Any,
            _ => {
                let message = "tool_choice: must be none, auto, required or a function";
                return Err(invalid("tool_choice", message));
            }
        },
        Some(WordOr::Object(choice)) => {
            let kind = choice.kind.ok_or_else(|| missing("tool_choice.type"))?;
            if kind != "function" || choice.allowed_tools.0 || choice.custom.0 {
                let message = "tool_choice.type: can only be function here";
                return Err(unsupported_value("tool_choice.type", message));
            }
            let Object(chosen) = choice.function.ok_or_else(|| missing("tool_choice.function"))?;
            ToolChoice::Named(chosen.name.ok_or_else(|| missing("tool_choice.function.name"))?)
        }
    };
    fields::is_among("tool_choice", choice, tools)
}
