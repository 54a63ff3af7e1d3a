//! Owns reading a request for a response.
//!
//! **Invariant:** every field that OpenAI documents is here, and each is honoured or refused.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::item::{self, Item};
use crate::conversation::{
    Conversation, Effort, Hints, Output, Sampling, Thinking, Tool, Verbosity,
};
use crate::served::fault::{asks_no_more, has_none_of, missing, parsed, unsupported};
use crate::served::fields::{self, Given, Object, OneOrMany, Streaming, TIERS, Word, WordOr, text};
use crate::served::tools::{self, Form, Function};
use crate::served::{Asked, Refusal};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request<'a> {
    model: Option<String>,
    #[serde(borrow)]
    input: Option<OneOrMany<Object<Item<'a>>>>,
    instructions: Option<String>,
    #[serde(borrow)]
    tools: Option<Vec<Object<Declared<'a>>>>,
    tool_choice: Option<WordOr<Choice>>,
    #[serde(borrow)]
    text: Option<Object<Text<'a>>>,
    stream: Option<bool>,
    stream_options: Option<Object<Streaming>>,
    background: Option<bool>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    max_output_tokens: Option<u64>,
    metadata: Option<BTreeMap<String, String>>,
    store: Option<bool>,
    user: Option<String>,
    #[serde(borrow)]
    reasoning: Option<Object<Reasoning<'a>>>,
    parallel_tool_calls: Option<bool>,
    safety_identifier: Option<String>,
    prompt_cache_key: Option<String>,
    // These may say what holds anyway.
    include: Option<Vec<String>>,
    #[serde(borrow)]
    service_tier: Option<Word<'a>>,
    top_logprobs: Option<u64>,
    #[serde(borrow)]
    truncation: Option<Word<'a>>,
    // These cannot be honoured.
    #[serde(default)]
    access_programs: Given,
    #[serde(default)]
    background_options: Given,
    #[serde(default)]
    context_management: Given,
    #[serde(default)]
    conversation: Given,
    #[serde(default)]
    image: Given,
    #[serde(default)]
    max_tool_calls: Given,
    #[serde(default)]
    moderation: Given,
    #[serde(default)]
    previous_response_id: Given,
    #[serde(default)]
    prompt: Given,
    #[serde(default)]
    prompt_cache_options: Given,
    #[serde(default)]
    prompt_cache_retention: Given,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Declared<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Word<'a>>,
    name: Option<String>,
    description: Option<String>,
    parameters: Option<Map<String, Value>>,
    strict: Option<bool>,
    #[serde(default)]
    allowed_callers: Given,
    #[serde(default)]
    defer_loading: Given,
    #[serde(default)]
    output_schema: Given,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Choice {
    #[serde(rename = "type")]
    kind: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text<'a> {
    #[serde(borrow)]
    format: Option<Object<Format<'a>>>,
    #[serde(borrow)]
    verbosity: Option<Word<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Format<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Word<'a>>,
    name: Option<String>,
    description: Option<String>,
    schema: Option<Map<String, Value>>,
    strict: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reasoning<'a> {
    #[serde(borrow)]
    effort: Option<Word<'a>>,
    #[serde(borrow)]
    summary: Option<Word<'a>>,
    /// As `summary` was called before.
    #[serde(borrow)]
    generate_summary: Option<Word<'a>>,
    // These may say what holds anyway.
    #[serde(borrow)]
    context: Option<Word<'a>>,
    #[serde(borrow)]
    mode: Option<Word<'a>>,
}

/// What the body of a request asks.
///
/// # Errors
/// The first field that cannot be honoured, by its path.
pub fn read(body: &[u8]) -> Result<Asked, Refusal> {
    let request: Request<'_> = parsed(body)?;
    honoured(&request)?;
    let model = fields::model(request.model)?;
    let input = request.input.ok_or_else(|| missing("input"))?;
    let (system, turns) = item::turns(request.instructions, input)?;
    let tools = tools::tools(request.tools, tool)?;
    let tool_choice = tools::choice(request.tool_choice, &tools, chosen)?;
    let verbosity = request.text.as_ref().and_then(|Object(given)| text(&given.verbosity));
    let verbosity = fields::one_of("text.verbosity", verbosity, &Verbosity::NAMED)?;
    let thinking = request.reasoning.as_ref().map(|Object(given)| thinking(given)).transpose()?;
    let output = match request.text.and_then(|Object(text)| text.format) {
        None => Output::Text,
        Some(Object(format)) => {
            let kind = format.kind.ok_or_else(|| missing("text.format.type"))?;
            let form = Form {
                name: format.name,
                description: format.description,
                schema: format.schema,
                strict: format.strict,
            };
            let is_there = kind.0 == "json_schema" || form.name.is_some() || form.schema.is_some();
            tools::output("text.format", &kind.0, is_there.then_some(form))?
        }
    };
    let conversation = Conversation {
        system,
        turns,
        tools,
        tool_choice,
        parallel_tool_calls: request.parallel_tool_calls,
        output,
        thinking: thinking.unwrap_or_default(),
        verbosity,
        sampling: Sampling {
            temperature: fields::within("temperature", request.temperature, 0.0..=2.0)?,
            top_p: fields::within("top_p", request.top_p, 0.0..=1.0)?,
            ..Sampling::default()
        },
        max_tokens: fields::at_least_one("max_output_tokens", request.max_output_tokens)?,
        stop: Vec::new(),
        hints: Hints {
            user: request.user.clone(),
            safety_identifier: request.safety_identifier,
            prompt_cache_key: request.prompt_cache_key,
            prediction: None,
        },
    };
    Ok(Asked {
        model,
        conversation,
        stream: fields::stream(request.stream, request.stream_options.as_ref())?,
        metadata: fields::metadata(request.metadata)?,
        store: request.store,
        background: request.background.unwrap_or_default(),
        user: request.user,
    })
}

/// Refuses what cannot be honoured, unless it says what holds anyway.
fn honoured(request: &Request<'_>) -> Result<(), Refusal> {
    has_none_of([
        ("access_programs", request.access_programs.0),
        ("background_options", request.background_options.0),
        ("context_management", request.context_management.0),
        ("conversation", request.conversation.0),
        ("image", request.image.0),
        ("max_tool_calls", request.max_tool_calls.0),
        ("moderation", request.moderation.0),
        ("previous_response_id", request.previous_response_id.0),
        ("prompt", request.prompt.0),
        ("prompt_cache_options", request.prompt_cache_options.0),
        ("prompt_cache_retention", request.prompt_cache_retention.0),
    ])?;
    let is_odd =
        |word: Option<&str>, plain: &[&str]| word.is_some_and(|word| !plain.contains(&word));
    let reasoning = request.reasoning.as_ref().map(|Object(reasoning)| reasoning);
    let context = reasoning.and_then(|reasoning| text(&reasoning.context));
    let mode = reasoning.and_then(|reasoning| text(&reasoning.mode));
    let mut included = request.include.iter().flatten();
    let is_included = included.any(|each| each != "reasoning.encrypted_content");
    asks_no_more([
        ("include", is_included, "[\"reasoning.encrypted_content\"]"),
        ("reasoning.context", is_odd(context, &["auto"]), "auto"),
        ("reasoning.mode", is_odd(mode, &["standard"]), "standard"),
        // What another tier costs is not known.
        ("service_tier", is_odd(text(&request.service_tier), &TIERS), "auto or default"),
        ("top_logprobs", request.top_logprobs.is_some_and(|count| count > 0), "0"),
        ("truncation", is_odd(text(&request.truncation), &["disabled"]), "disabled"),
    ])
}

/// How much is to be thought, and whether it is to be told.
fn thinking(reasoning: &Reasoning<'_>) -> Result<Thinking, Refusal> {
    let effort = text(&reasoning.effort);
    let mut is_told = false;
    for (param, word) in [
        ("reasoning.summary", &reasoning.summary),
        ("reasoning.generate_summary", &reasoning.generate_summary),
    ] {
        // However long they are told.
        let named = [("auto", ()), ("concise", ()), ("detailed", ())];
        is_told |= fields::one_of(param, text(word), &named)?.is_some();
    }
    let effort = fields::one_of("reasoning.effort", effort, &Effort::NAMED)?;
    Ok(Thinking { effort, is_told })
}

fn tool(param: &str, declared: Declared<'_>) -> Result<Tool, Refusal> {
    tools::is_function(param, declared.kind.as_ref().map(|kind| &*kind.0))?;
    for (field, is_there) in [
        ("allowed_callers", declared.allowed_callers.0),
        ("defer_loading", declared.defer_loading.0),
        ("output_schema", declared.output_schema.0),
    ] {
        if is_there {
            return Err(unsupported(format!("{param}.{field}")));
        }
    }
    let Declared { name, description, parameters, strict, .. } = declared;
    tools::tool(param, Function { name, description, parameters, strict })
}

fn chosen(choice: Choice) -> Result<String, Refusal> {
    tools::is_function("tool_choice", choice.kind.as_deref())?;
    choice.name.ok_or_else(|| missing("tool_choice.name"))
}
