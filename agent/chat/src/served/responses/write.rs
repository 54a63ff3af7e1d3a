//! Owns writing a response, in one piece or as typed events.
//!
//! **Invariant:** an item is told when it begins and when it is done; text and thoughts are done when
//! something else begins, calls when the answer ends, since their arguments may come by turns.

use std::mem;

use serde_json::{Value, json};

use super::REDACTED;
use crate::conversation::{Answer, Effort, Output, Said, Stop, ToolChoice, Usage, Verbosity, word};
use crate::event::Event;
use crate::served::json::{number, text};
use crate::served::{Asked, Named};

/// A response without an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is held.
    Queued,
    /// It is being answered.
    InProgress,
    /// The caller took it back.
    Cancelled,
    /// There will be no answer.
    Failed {
        /// Such as `server_error` or `rate_limit_exceeded`.
        code: String,
        /// Why.
        message: String,
    },
}

impl Standing {
    /// Whether nothing more is to come.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Queued | Self::InProgress => false,
            Self::Cancelled | Self::Failed { .. } => true,
        }
    }
}

/// The body of a response that has no answer, or none yet; `asked` is what was read of its request.
pub fn standing(named: &Named, asked: &Asked, standing: &Standing) -> Vec<u8> {
    let mut response = bare(named, asked);
    response["status"] = match standing {
        Standing::Queued => "queued",
        Standing::InProgress => "in_progress",
        Standing::Cancelled => "cancelled",
        Standing::Failed { .. } => "failed",
    }
    .into();
    if let Standing::Failed { code, message } = standing {
        response["error"] = json!({ "code": code, "message": message });
    }
    response.to_string().into_bytes()
}

/// The body of a response with its answer; `asked` is what was read of its request.
pub fn answer(named: &Named, asked: &Asked, answer: &Answer) -> Vec<u8> {
    let mut writer = Writer::new(named, asked);
    let mut events = Vec::new();
    let mut calls = 0;
    for said in &answer.said {
        replay(said, &mut calls, |event| writer.write(&event, &mut events));
        events.clear();
    }
    writer.usage = answer.usage;
    writer.write(&Event::Stop(answer.stop.clone()), &mut events);
    writer.ended().to_string().into_bytes()
}

/// What was said, as the events that it would have been.
pub(super) fn replay(said: &Said, calls: &mut usize, mut take: impl FnMut(Event)) {
    match said {
        Said::Text(text) => take(Event::Text(text.clone())),
        Said::Reasoning { text, signature } => {
            if !text.is_empty() {
                take(Event::Reasoning(text.clone()));
            }
            signature.iter().for_each(|seal| take(Event::Sealed(seal.clone())));
        }
        Said::Redacted(data) => take(Event::Redacted(data.clone())),
        Said::Call(call) => {
            let (index, id, name) = (*calls, call.id.clone(), call.name.clone());
            *calls += 1;
            take(Event::Call { index, id, name, signature: call.signature.clone() });
            // What was no JSON goes on as it came.
            let text = match &call.arguments {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            take(Event::Arguments { index, text });
        }
    }
}

/// The response without its output.
fn bare(named: &Named, asked: &Asked) -> Value {
    let conversation = &asked.conversation;
    let tools: Vec<Value> = conversation
        .tools
        .iter()
        .map(|tool| {
            json!({ "type": "function", "name": tool.name, "description": tool.description,
                "parameters": tool.parameters, "strict": tool.strict })
        })
        .collect();
    let choice = match &conversation.tool_choice {
        ToolChoice::Auto => json!("auto"),
        ToolChoice::Never => json!("none"),
        ToolChoice::Any => json!("required"),
        ToolChoice::Named(name) => json!({ "type": "function", "name": name }),
    };
    let format = match &conversation.output {
        Output::Text => json!({ "type": "text" }),
        Output::Json { schema, .. } if *schema == json!({ "type": "object" }) => {
            json!({ "type": "json_object" })
        }
        Output::Json { name, schema } => {
            json!({ "type": "json_schema", "name": name, "schema": schema })
        }
    };
    let mut shape = json!({ "format": format });
    if let Some(verbosity) = conversation.verbosity {
        shape["verbosity"] = word(&Verbosity::NAMED, verbosity).into();
    }
    let effort = conversation.thinking.effort.map(|effort| word(&Effort::NAMED, effort));
    let summary = conversation.thinking.is_told.then_some("auto");
    let exact = |number: Option<f32>| number.map(crate::dialect::exact);
    let mut metadata = asked.metadata.clone();
    metadata.extend(named.metadata.clone());
    json!({ "id": named.id, "object": "response", "created_at": named.created,
        "status": "in_progress", "background": asked.background, "error": null,
        "incomplete_details": null, "instructions": conversation.system,
        "max_output_tokens": conversation.max_tokens, "model": named.model, "output": [],
        "parallel_tool_calls": conversation.parallel_tool_calls.unwrap_or(true),
        "previous_response_id": null,
        "reasoning": { "effort": effort, "summary": summary },
        "store": asked.store.unwrap_or(true), "temperature": exact(conversation.sampling.temperature),
        "text": shape, "tool_choice": choice, "tools": tools,
        "top_p": exact(conversation.sampling.top_p), "truncation": "disabled", "usage": null,
        "user": asked.user, "metadata": metadata })
}

fn counted(usage: &Usage) -> Value {
    json!({ "input_tokens": usage.input,
        "input_tokens_details": { "cached_tokens": usage.cached, "cache_write_tokens": 0 },
        "output_tokens": usage.output,
        "output_tokens_details": { "reasoning_tokens": usage.reasoning },
        "total_tokens": usage.input.saturating_add(usage.output) })
}

/// A text or thoughts that are being told.
#[derive(Debug)]
struct Open {
    place: usize,
    id: String,
    is_thought: bool,
    text: String,
}

/// A call that is being told.
#[derive(Debug)]
struct OpenCall {
    place: usize,
    id: String,
    item: Value,
    arguments: String,
}

/// Writes an answer piece by piece, as typed server-sent events.
#[derive(Debug)]
pub struct Writer {
    pub(super) response: Value,
    /// What the ids of items end with, before their number.
    suffix: String,
    pub(super) has_begun: bool,
    /// The number of the next event.
    pub(super) sequence: u64,
    /// Events before this one are counted and not written.
    pub(super) from: u64,
    /// The items in their order; null while they are told.
    items: Vec<Value>,
    open: Option<Open>,
    calls: Vec<OpenCall>,
    pub(super) usage: Option<Usage>,
    stop: Option<Stop>,
}

impl Writer {
    /// A writer of one answer; `asked` is what was read of its request.
    pub fn new(named: &Named, asked: &Asked) -> Self {
        Self {
            response: bare(named, asked),
            suffix: named.id.strip_prefix("resp_").unwrap_or(&named.id).to_owned(),
            has_begun: false,
            sequence: 0,
            from: 0,
            items: Vec::new(),
            open: None,
            calls: Vec::new(),
            usage: None,
            stop: None,
        }
    }

    /// Appends what `event` becomes to `out`; the first of all opens the response.
    pub fn write(&mut self, event: &Event, out: &mut Vec<u8>) {
        self.begin(out);
        match event {
            Event::Model(_) => {}
            Event::Text(words) => self.more(false, words, out),
            Event::Reasoning(words) => self.more(true, words, out),
            Event::Sealed(seal) => {
                if !self.open.as_ref().is_some_and(|open| open.is_thought) {
                    self.close(None, "completed", out);
                    self.begin_item(true, out);
                }
                self.close(Some(seal), "completed", out);
            }
            Event::Redacted(data) => {
                self.close(None, "completed", out);
                self.begin_item(true, out);
                self.close(Some(&format!("{REDACTED}{data}")), "completed", out);
            }
            Event::Call { id, name, signature, .. } => {
                self.close(None, "completed", out);
                self.begin_call(id, name, signature.as_deref(), out);
            }
            Event::Arguments { index, text } => self.more_arguments(*index, text, out),
            Event::Usage(usage) => self.usage = Some(*usage),
            Event::Stop(stop) => self.stop(stop, out),
        }
    }

    /// The answer is over: appends `response.completed` or `response.incomplete`, or, where it has not
    /// come to its end, `response.failed`.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if self.stop.is_none() {
            return self.fail("server_error", "the answer ended too soon", out);
        }
        let response = self.ended();
        let kind = match response["status"].as_str() {
            Some("incomplete") => "response.incomplete",
            _ => "response.completed",
        };
        self.whole(kind, &response, out);
    }

    /// There is no more of the answer: appends `response.failed`.
    pub fn fail(&mut self, code: &str, message: &str, out: &mut Vec<u8>) {
        self.begin(out);
        let mut response = mem::take(&mut self.response);
        response["status"] = "failed".into();
        response["error"] = json!({ "code": code, "message": message });
        let items = mem::take(&mut self.items);
        response["output"] = items.into_iter().filter(|item| !item.is_null()).collect();
        response["usage"] = self.usage.as_ref().map(counted).into();
        self.whole("response.failed", &response, out);
    }

    /// The response with its output.
    fn ended(&mut self) -> Value {
        let mut response = mem::take(&mut self.response);
        let reason = match &self.stop {
            Some(Stop::Length) => Some("max_output_tokens"),
            Some(Stop::Filtered) => Some("content_filter"),
            Some(Stop::Declined(words)) if words.is_empty() => Some("content_filter"),
            _ => None,
        };
        response["status"] = if reason.is_some() { "incomplete" } else { "completed" }.into();
        response["incomplete_details"] = reason.map(|reason| json!({ "reason": reason })).into();
        response["output"] = mem::take(&mut self.items).into();
        response["usage"] = self.usage.as_ref().map(counted).into();
        response
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if !self.has_begun {
            self.has_begun = true;
            let response = mem::take(&mut self.response);
            self.whole("response.created", &response, out);
            self.whole("response.in_progress", &response, out);
            self.response = response;
        }
    }

    pub(super) fn whole(&mut self, kind: &str, response: &Value, out: &mut Vec<u8>) {
        self.event(kind, out, |out| {
            out.extend_from_slice(b",\"response\":");
            out.extend_from_slice(response.to_string().as_bytes());
        });
    }

    /// An event with its type and its number, and what `write` adds to it.
    fn event(&mut self, kind: &str, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        let number_of_it = self.sequence;
        self.sequence += 1;
        if number_of_it < self.from {
            return;
        }
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(b"\ndata: {\"type\":\"");
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(b"\",\"sequence_number\":");
        number(out, number_of_it);
        write(out);
        out.extend_from_slice(b"}\n\n");
    }

    fn item(&mut self, kind: &str, place: usize, item: &Value, out: &mut Vec<u8>) {
        self.event(kind, out, |out| {
            index(out, "output_index", place);
            out.extend_from_slice(b",\"item\":");
            out.extend_from_slice(item.to_string().as_bytes());
        });
    }

    /// An event about a part of an item: its only summary, or its only content.
    fn part(&mut self, kind: &str, open: &Open, more: Option<(&str, &Value)>, out: &mut Vec<u8>) {
        self.event(kind, out, |out| {
            within(out, &open.id, open.place);
            index(out, if open.is_thought { "summary_index" } else { "content_index" }, 0);
            if let Some((key, value)) = more {
                out.extend_from_slice(format!(",\"{key}\":{value}").as_bytes());
            }
        });
    }

    fn begin_item(&mut self, is_thought: bool, out: &mut Vec<u8>) {
        let place = self.items.len();
        self.items.push(Value::Null);
        let prefix = if is_thought { "rs" } else { "msg" };
        let id = format!("{prefix}_{}_{place}", self.suffix);
        let item = match is_thought {
            true => {
                json!({ "type": "reasoning", "id": id, "summary": [], "status": "in_progress" })
            }
            false => json!({ "type": "message", "id": id, "role": "assistant", "content": [],
                "status": "in_progress" }),
        };
        self.item("response.output_item.added", place, &item, out);
        self.open = Some(Open { place, id, is_thought, text: String::new() });
    }

    /// More words or thoughts.
    fn more(&mut self, is_thought: bool, words: &str, out: &mut Vec<u8>) {
        if self.open.as_ref().is_none_or(|open| open.is_thought != is_thought) {
            self.close(None, "completed", out);
            self.begin_item(is_thought, out);
        }
        let Some(mut open) = self.open.take() else { return };
        if open.text.is_empty() {
            let part = part(is_thought, "");
            let kind = match is_thought {
                true => "response.reasoning_summary_part.added",
                false => "response.content_part.added",
            };
            self.part(kind, &open, Some(("part", &part)), out);
        }
        open.text.push_str(words);
        let kind = match is_thought {
            true => "response.reasoning_summary_text.delta",
            false => "response.output_text.delta",
        };
        self.event(kind, out, |out| {
            within(out, &open.id, open.place);
            index(out, if is_thought { "summary_index" } else { "content_index" }, 0);
            out.extend_from_slice(b",\"delta\":");
            text(out, words);
            if !is_thought {
                out.extend_from_slice(b",\"logprobs\":[]");
            }
        });
        self.open = Some(open);
    }

    /// The text or the thoughts that are open are done.
    fn close(&mut self, seal: Option<&str>, status: &str, out: &mut Vec<u8>) {
        let Some(open) = self.open.take() else { return };
        let whole = json!(open.text);
        let told = part(open.is_thought, &open.text);
        if !open.text.is_empty() && open.is_thought {
            self.part("response.reasoning_summary_text.done", &open, Some(("text", &whole)), out);
            self.part("response.reasoning_summary_part.done", &open, Some(("part", &told)), out);
        } else if !open.text.is_empty() {
            self.event("response.output_text.done", out, |out| {
                within(out, &open.id, open.place);
                index(out, "content_index", 0);
                out.extend_from_slice(format!(",\"text\":{whole},\"logprobs\":[]").as_bytes());
            });
            self.part("response.content_part.done", &open, Some(("part", &told)), out);
        }
        let parts = if open.text.is_empty() { json!([]) } else { json!([told]) };
        let item = match open.is_thought {
            true => json!({ "type": "reasoning", "id": open.id, "summary": parts,
                "encrypted_content": seal, "status": status }),
            false => json!({ "type": "message", "id": open.id, "role": "assistant",
                "content": parts, "status": status }),
        };
        self.done(open.place, item, out);
    }

    fn done(&mut self, place: usize, item: Value, out: &mut Vec<u8>) {
        self.item("response.output_item.done", place, &item, out);
        if let Some(slot) = self.items.get_mut(place) {
            *slot = item;
        }
    }

    fn begin_call(&mut self, call: &str, name: &str, signature: Option<&str>, out: &mut Vec<u8>) {
        let place = self.items.len();
        self.items.push(Value::Null);
        let id = format!("fc_{}_{place}", self.suffix);
        let mut item = json!({ "type": "function_call", "id": id, "call_id": call, "name": name,
            "arguments": "", "status": "in_progress" });
        if let Some(signature) = signature {
            item["extra_content"] = json!({ "google": { "thought_signature": signature } });
        }
        self.item("response.output_item.added", place, &item, out);
        self.calls.push(OpenCall { place, id, item, arguments: String::new() });
    }

    fn more_arguments(&mut self, at: usize, more: &str, out: &mut Vec<u8>) {
        let Some(call) = self.calls.get_mut(at) else { return };
        call.arguments.push_str(more);
        let (id, place) = (call.id.clone(), call.place);
        self.event("response.function_call_arguments.delta", out, |out| {
            within(out, &id, place);
            out.extend_from_slice(b",\"delta\":");
            text(out, more);
        });
    }

    fn stop(&mut self, stop: &Stop, out: &mut Vec<u8>) {
        self.stop = Some(stop.clone());
        let is_whole = !matches!(stop, Stop::Length | Stop::Filtered);
        let status = if is_whole { "completed" } else { "incomplete" };
        self.close(None, status, out);
        for at in 0..self.calls.len() {
            if self.calls.get(at).is_some_and(|call| call.arguments.is_empty()) {
                self.more_arguments(at, "{}", out);
            }
        }
        for call in mem::take(&mut self.calls) {
            let OpenCall { place, id, mut item, arguments } = call;
            self.event("response.function_call_arguments.done", out, |out| {
                within(out, &id, place);
                out.extend_from_slice(b",\"arguments\":");
                text(out, &arguments);
            });
            item["arguments"] = arguments.into();
            item["status"] = status.into();
            self.done(place, item, out);
        }
        if let Stop::Declined(words) = stop
            && !words.is_empty()
        {
            self.decline(words, out);
        }
    }

    /// A message with the words of a model that would not answer.
    fn decline(&mut self, words: &str, out: &mut Vec<u8>) {
        self.begin_item(false, out);
        let Some(open) = self.open.take() else { return };
        let refusal = |words: &str| json!({ "type": "refusal", "refusal": words });
        let (none, whole, told) = (refusal(""), json!(words), refusal(words));
        self.part("response.content_part.added", &open, Some(("part", &none)), out);
        self.part("response.refusal.delta", &open, Some(("delta", &whole)), out);
        self.part("response.refusal.done", &open, Some(("refusal", &whole)), out);
        self.part("response.content_part.done", &open, Some(("part", &told)), out);
        let item = json!({ "type": "message", "id": open.id, "role": "assistant",
            "content": [told], "status": "completed" });
        self.done(open.place, item, out);
    }
}

fn part(is_thought: bool, words: &str) -> Value {
    match is_thought {
        true => json!({ "type": "summary_text", "text": words }),
        false => json!({ "type": "output_text", "text": words, "annotations": [], "logprobs": [] }),
    }
}

fn within(out: &mut Vec<u8>, id: &str, place: usize) {
    out.extend_from_slice(b",\"item_id\":");
    text(out, id);
    index(out, "output_index", place);
}

fn index(out: &mut Vec<u8>, key: &str, at: usize) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
    number(out, u64::try_from(at).unwrap_or_default());
}
