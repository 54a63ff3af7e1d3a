//! Owns reading a request for a response.
//!
//! **Invariant:** every field that OpenAI documents is here, and each is honoured or refused.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::item::{self, Item};
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
    // These change nothing.
    #[serde(default, rename = "safety_identifier")]
    _safety_identifier: Given,
    #[serde(default, rename = "prompt_cache_key")]
    _prompt_cache_key: Given,
    // These may say what holds anyway.
    include: Option<Vec<String>>,
    reasoning: Option<Object<Reasoning>>,
    parallel_tool_calls: Option<bool>,
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
struct Reasoning {
    #[serde(default)]
    context: Given,
    #[serde(default)]
    effort: Given,
    #[serde(default)]
    generate_summary: Given,
    #[serde(default)]
    mode: Given,
    summary: Option<String>,
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
    let tools = tools(request.tools.unwrap_or_default())?;
    let tool_choice = choice(request.tool_choice, &tools)?;
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
            fields::output("text.format", &kind.0, is_there.then_some(form))?
        }
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
            ..Sampling::default()
        },
        max_tokens: fields::at_least_one("max_output_tokens", request.max_output_tokens)?,
        stop: Vec::new(),
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
    if let Some(Object(reasoning)) = &request.reasoning {
        has_none_of([
            ("reasoning.context", reasoning.context.0),
            ("reasoning.effort", reasoning.effort.0),
            ("reasoning.generate_summary", reasoning.generate_summary.0),
            ("reasoning.mode", reasoning.mode.0),
        ])?;
    }
    let is_odd =
        |word: Option<&str>, plain: &[&str]| word.is_some_and(|word| !plain.contains(&word));
    let word = |word: &'_ Option<Word<'_>>| word.as_ref().map(|word| word.0.clone().into_owned());
    let summary = request.reasoning.as_ref().and_then(|reasoning| reasoning.0.summary.as_deref());
    let verbosity = request.text.as_ref().and_then(|text| word(&text.0.verbosity));
    let (tier, truncation) = (word(&request.service_tier), word(&request.truncation));
    let included = request.include.iter().flatten();
    let is_included = included.into_iter().any(|each| each != "reasoning.encrypted_content");
    for (param, is_asked, only) in [
        ("include", is_included, "[\"reasoning.encrypted_content\"]"),
        ("parallel_tool_calls", request.parallel_tool_calls == Some(false), "true"),
        ("reasoning.summary", is_odd(summary, &["auto"]), "auto"),
        ("service_tier", is_odd(tier.as_deref(), &["auto", "default"]), "auto or default"),
        ("text.verbosity", is_odd(verbosity.as_deref(), &["medium"]), "medium"),
        ("top_logprobs", request.top_logprobs.is_some_and(|count| count > 0), "0"),
        ("truncation", is_odd(truncation.as_deref(), &["disabled"]), "disabled"),
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
        let param = format!("tools[{at}]");
        let kind = declared.kind.ok_or_else(|| missing(format!("{param}.type")))?;
        if kind.0 != "function" {
            let param = format!("{param}.type");
            return Err(unsupported_value(
                param.clone(),
                format!("{param}: can only be function here"),
            ));
        }
        for (field, is_there) in [
            ("allowed_callers", declared.allowed_callers.0),
            ("defer_loading", declared.defer_loading.0),
            ("output_schema", declared.output_schema.0),
        ] {
            if is_there {
                return Err(unsupported(format!("{param}.{field}")));
            }
        }
        let function = Function {
            name: declared.name,
            description: declared.description,
            parameters: declared.parameters,
            strict: declared.strict,
        };
        fields::tool(&param, function)
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
            if choice.kind.ok_or_else(|| missing("tool_choice.type"))? != "function" {
                let message = "tool_choice.type: can only be function here";
                return Err(unsupported_value("tool_choice.type", message));
            }
            ToolChoice::Named(choice.name.ok_or_else(|| missing("tool_choice.name"))?)
        }
    };
    fields::is_among("tool_choice", choice, tools)
}
