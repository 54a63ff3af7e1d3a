//! Owns reading what `generateContent` answers, in one piece or as a stream of such responses.
//!
//! **Invariant:** both ways of answering come to the same.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::NUMBERED;
use crate::conversation::{Answer, Said, Stop, ToolCall, Usage};
use crate::dialect::{Malformed, json};
use crate::event::StreamError;
use crate::gathering::add;
use crate::reader::Pen;

/// A response as it comes.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Response {
    #[serde(default)]
    candidates: Vec<Candidate>,
    prompt_feedback: Option<Feedback>,
    usage_metadata: Option<Tokens>,
    model_version: Option<String>,
    response_id: Option<String>,
    error: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Feedback {
    block_reason: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate {
    content: Option<Content>,
    finish_reason: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Content {
    #[serde(default)]
    parts: Vec<Piece>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Piece {
    text: Option<String>,
    #[serde(default)]
    thought: bool,
    function_call: Option<FunctionCall>,
    thought_signature: Option<String>,
}

#[derive(Debug, Deserialize)]
struct FunctionCall {
    id: Option<String>,
    name: String,
    #[serde(default)]
    args: Map<String, Value>,
}

/// What is zero is left out.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Tokens {
    prompt_token_count: u64,
    tool_use_prompt_token_count: u64,
    cached_content_token_count: u64,
    candidates_token_count: u64,
    thoughts_token_count: u64,
}

impl Tokens {
    fn counted(&self) -> Usage {
        Usage {
            input: self.prompt_token_count.saturating_add(self.tool_use_prompt_token_count),
            cached: self.cached_content_token_count,
            output: self.candidates_token_count.saturating_add(self.thoughts_token_count),
            reasoning: self.thoughts_token_count,
        }
    }
}

fn stop(finish: String, has_calls: bool) -> Stop {
    match finish.as_str() {
        "STOP" if has_calls => Stop::Calls,
        "STOP" => Stop::End,
        "MAX_TOKENS" => Stop::Length,
        "SAFETY"
        | "RECITATION"
        | "BLOCKLIST"
        | "PROHIBITED_CONTENT"
        | "SPII"
        | "MODEL_ARMOR"
        | "IMAGE_SAFETY"
        | "IMAGE_PROHIBITED_CONTENT"
        | "IMAGE_RECITATION" => Stop::Filtered,
        _ => Stop::Other(finish),
    }
}

/// The id of a call that has none, out of its answer's id and its number there.
fn numbered(response: Option<&str>, number: usize) -> String {
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || *c == '-' || *c == '_';
    let id: String = response.unwrap_or_default().chars().filter(is_plain).take(32).collect();
    match id.is_empty() {
        true => format!("{NUMBERED}{number}"),
        false => format!("{NUMBERED}{id}-{number}"),
    }
}

impl Candidate {
    /// What it says; `calls` were made before.
    fn said(content: Option<Content>, response: Option<&str>, calls: usize) -> Vec<Said> {
        let mut said = Vec::new();
        let mut calls = calls;
        for part in content.into_iter().flat_map(|content| content.parts) {
            if let Some(call) = part.function_call {
                let id = call.id.filter(|id| !id.is_empty());
                said.push(Said::Call(ToolCall {
                    id: id.unwrap_or_else(|| numbered(response, calls)),
                    name: call.name,
                    arguments: call.args.into(),
                    signature: part.thought_signature,
                }));
                calls += 1;
            } else if let Some(text) = part.text.filter(|text| !text.is_empty()) {
                let signature = part.thought_signature.filter(|_| part.thought);
                let next = match part.thought {
                    true => Said::Reasoning { text, signature },
                    false => Said::Text(text),
                };
                add(&mut said, next);
            }
        }
        said
    }
}

/// The answer in a response.
pub(crate) fn answer(response: Response) -> Result<Answer, Malformed> {
    let model = response.model_version.unwrap_or_default();
    let usage = response.usage_metadata.map(|tokens| tokens.counted());
    let is_blocked = response.prompt_feedback.is_some_and(|told| told.block_reason.is_some());
    let Some(candidate) = response.candidates.into_iter().next() else {
        return match is_blocked {
            true => Ok(Answer { model, said: Vec::new(), stop: Stop::Filtered, usage }),
            false => Err(Malformed("no candidate in it".to_owned())),
        };
    };
    let finish = candidate.finish_reason.ok_or(Malformed("no finishReason in it".to_owned()))?;
    let said = Candidate::said(candidate.content, response.response_id.as_deref(), 0);
    let has_calls = said.iter().any(|said| matches!(said, Said::Call(_)));
    Ok(Answer { model, said, stop: stop(finish, has_calls), usage })
}

/// The state between two responses of a stream: there is none but what was told.
#[derive(Debug, Default)]
pub(crate) struct Stream;

impl Stream {
    /// The next response.
    pub(crate) fn take(&mut self, data: &[u8], pen: &mut Pen<'_>) -> Result<(), StreamError> {
        let response: Response = json(data)?;
        if response.error.is_some() {
            return Err(StreamError::Failed(super::failure_amid(&json(data)?)));
        }
        pen.model(response.model_version.as_deref().unwrap_or_default());
        if let Some(tokens) = &response.usage_metadata {
            pen.usage(tokens.counted());
        }
        let is_blocked = response.prompt_feedback.is_some_and(|told| told.block_reason.is_some());
        let Some(candidate) = response.candidates.into_iter().next() else {
            if is_blocked {
                pen.stop(Stop::Filtered);
            }
            return Ok(());
        };
        let response_id = response.response_id.as_deref();
        for said in Candidate::said(candidate.content, response_id, pen.calls()) {
            match said {
                Said::Text(text) => pen.text(text),
                Said::Reasoning { text, signature } => {
                    pen.reasoning(text);
                    pen.sealed(signature.unwrap_or_default());
                }
                Said::Redacted(_) => {}
                Said::Call(call) => {
                    let number = pen.call(call.id, call.name, call.signature)?;
                    pen.arguments(number, call.arguments.to_string());
                }
            }
        }
        if let Some(finish) = candidate.finish_reason {
            pen.stop(stop(finish, pen.calls() > 0));
        }
        Ok(())
    }
}
