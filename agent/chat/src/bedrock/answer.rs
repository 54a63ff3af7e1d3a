//! Owns reading what Converse answers, in one piece or as the frames of ConverseStream.
//!
//! **Invariant:** a seal follows the thoughts of its own block.

use std::mem;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use crate::conversation::{Answer, Said, Stop, ToolCall, Usage};
use crate::dialect::{Malformed, json};
use crate::event::StreamError;
use crate::frames::Frame;
use crate::gathering::add;
use crate::reader::Pen;

/// A response as it comes.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Response {
    output: Produced,
    stop_reason: String,
    usage: Tokens,
}

#[derive(Debug, Deserialize)]
struct Produced {
    message: Message,
}

#[derive(Debug, Deserialize)]
struct Message {
    content: Vec<Block>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Block {
    text: Option<String>,
    tool_use: Option<ToolUse>,
    reasoning_content: Option<Reasoning>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToolUse {
    tool_use_id: String,
    name: String,
    input: Value,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reasoning {
    reasoning_text: Option<Thoughts>,
    redacted_content: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Thoughts {
    text: String,
    signature: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tokens {
    input_tokens: u64,
    output_tokens: u64,
    cache_read_input_tokens: Option<u64>,
    cache_write_input_tokens: Option<u64>,
}

impl Tokens {
    fn counted(&self) -> Usage {
        let cached = self.cache_read_input_tokens.unwrap_or_default();
        let written = self.cache_write_input_tokens.unwrap_or_default();
        Usage {
            input: self.input_tokens.saturating_add(cached).saturating_add(written),
            cached,
            output: self.output_tokens,
            reasoning: 0,
        }
    }
}

fn stop(reason: &str) -> Stop {
    match reason {
        "end_turn" | "stop_sequence" => Stop::End,
        "max_tokens" | "model_context_window_exceeded" => Stop::Length,
        "tool_use" => Stop::Calls,
        "guardrail_intervened" | "content_filtered" => Stop::Filtered,
        other => Stop::Other(other.to_owned()),
    }
}

impl Block {
    fn said(self) -> Option<Said> {
        if let Some(text) = self.text {
            return (!text.is_empty()).then_some(Said::Text(text));
        }
        if let Some(call) = self.tool_use {
            let (id, name, arguments) = (call.tool_use_id, call.name, call.input);
            return Some(Said::Call(ToolCall { id, name, arguments, signature: None }));
        }
        let reasoning = self.reasoning_content?;
        let shown = reasoning.reasoning_text.map(|Thoughts { text, signature }| {
            let signature = signature.filter(|seal| !seal.is_empty());
            Said::Reasoning { text, signature }
        });
        shown.or_else(|| reasoning.redacted_content.map(Said::Redacted))
    }
}

/// The answer in a response, which does not name the model.
#[allow(clippy::unnecessary_wraps, reason = "every protocol's answer may be malformed")]
pub(crate) fn answer(response: Response) -> Result<Answer, Malformed> {
    let mut said = Vec::new();
    let blocks = response.output.message.content.into_iter();
    blocks.filter_map(Block::said).for_each(|next| add(&mut said, next));
    let (stop, usage) = (stop(&response.stop_reason), Some(response.usage.counted()));
    Ok(Answer { model: String::new(), said, stop, usage })
}

/// A payload of any kind of event; those that matter have some of these.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    #[serde(default)]
    content_block_index: u64,
    start: Option<Start>,
    delta: Option<Delta>,
    stop_reason: Option<String>,
    usage: Option<Tokens>,
    message: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Start {
    tool_use: Option<StartOfTool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StartOfTool {
    tool_use_id: String,
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Delta {
    text: Option<String>,
    tool_use: Option<MoreOfTool>,
    reasoning_content: Option<MoreReasoning>,
}

#[derive(Debug, Deserialize)]
struct MoreOfTool {
    input: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MoreReasoning {
    text: Option<String>,
    signature: Option<String>,
    redacted_content: Option<String>,
}

/// The state between two frames.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    /// The block of each call.
    calls: Vec<u64>,
    seal: String,
    redacted: Vec<u8>,
}

impl Stream {
    /// The next frame.
    pub(crate) fn take(&mut self, frame: &Frame<'_>, pen: &mut Pen<'_>) -> Result<(), StreamError> {
        match frame.header(":message-type")? {
            Some("event") => {}
            Some("exception") => {
                let kind = frame.header(":exception-type")?.unwrap_or_default();
                let message = json::<Told>(frame.payload).ok().and_then(|told| told.message);
                return Err(StreamError::Failed(super::failure_amid(kind, message)));
            }
            Some("error") => {
                let code = frame.header(":error-code")?.unwrap_or_default();
                let message = frame.header(":error-message")?.map(str::to_owned);
                return Err(StreamError::Failed(super::failure_amid(code, message)));
            }
            _ => return Err(Malformed("a frame is of no known kind".to_owned()).into()),
        }
        let kind = frame.header(":event-type")?.unwrap_or_default();
        if !KINDS.contains(&kind) {
            return Ok(());
        }
        let told: Told = json(frame.payload)?;
        let missing = |what: &str| Malformed(format!("no {what} in a frame"));
        match kind {
            "contentBlockStart" => {
                let start = told.start.ok_or_else(|| missing("start"))?;
                if let Some(tool) = start.tool_use {
                    pen.call(tool.tool_use_id, tool.name, None)?;
                    self.calls.push(told.content_block_index);
                }
            }
            "contentBlockDelta" => {
                let delta = told.delta.ok_or_else(|| missing("delta"))?;
                self.add(told.content_block_index, delta, pen)?;
            }
            "contentBlockStop" => self.end(pen),
            "messageStop" => {
                self.end(pen);
                pen.stop(stop(&told.stop_reason.ok_or_else(|| missing("stopReason"))?));
            }
            _ => pen.usage(told.usage.ok_or_else(|| missing("usage"))?.counted()),
        }
        Ok(())
    }

    fn add(&mut self, block: u64, delta: Delta, pen: &mut Pen<'_>) -> Result<(), Malformed> {
        pen.text(delta.text.unwrap_or_default());
        if let Some(more) = delta.tool_use {
            let number = self.calls.iter().rposition(|call| *call == block);
            let number =
                number.ok_or(Malformed("input of a call that has not begun".to_owned()))?;
            pen.arguments(number, more.input);
        }
        if let Some(more) = delta.reasoning_content {
            pen.reasoning(more.text.unwrap_or_default());
            self.seal.push_str(&more.signature.unwrap_or_default());
            let redacted = STANDARD.decode(more.redacted_content.unwrap_or_default());
            let redacted = redacted.map_err(|_| Malformed("bytes are no base64".to_owned()))?;
            self.redacted.extend(redacted);
        }
        Ok(())
    }

    fn end(&mut self, pen: &mut Pen<'_>) {
        pen.sealed(mem::take(&mut self.seal));
        pen.redacted(STANDARD.encode(mem::take(&mut self.redacted)));
    }
}

/// Kinds of events that something is read of; others may come.
const KINDS: [&str; 5] =
    ["contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata"];
