//! Owns writing a chat completion, in one piece or in chunks.
//!
//! **Invariant:** each event is a chunk of its own, written at once; what all chunks have in common is
//! written once for an answer.

use crate::conversation::{Answer, Said, Stop, Usage};
use crate::event::Event;
use crate::served::json::{DONE, begin, end, escaped, number, reason, text, usage};
use crate::served::{Named, StreamOptions};

/// The body of the response.
pub fn answer(named: &Named, answer: &Answer) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    begin(&mut out, "chat.completion", named);
    out.extend_from_slice(b"{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":");
    match answer.text() {
        Some(words) => text(&mut out, &words),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"refusal\":");
    match &answer.stop {
        Stop::Declined(words) if !words.is_empty() => text(&mut out, words),
        _ => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"annotations\":[]");
    thoughts(&mut out, &answer.said);
    calls(&mut out, &answer.said);
    out.extend_from_slice(b"},\"logprobs\":null,\"finish_reason\":");
    out.extend_from_slice(reason(&answer.stop));
    out.push(b'}');
    end(&mut out, named, answer.usage.as_ref());
    out
}

fn thoughts(out: &mut Vec<u8>, said: &[Said]) {
    let shown = said.iter().filter_map(|said| match said {
        Said::Reasoning { text, .. } if !text.is_empty() => Some(text.as_str()),
        _ => None,
    });
    let shown: Vec<&str> = shown.collect();
    if !shown.is_empty() {
        out.extend_from_slice(b",\"reasoning_content\":\"");
        shown.iter().for_each(|thoughts| escaped(out, thoughts));
        out.push(b'"');
    }
    let is_wanted_back = |said: &&Said| {
        matches!(said, Said::Reasoning { signature: Some(_), .. } | Said::Redacted(_))
    };
    for (at, said) in said.iter().filter(is_wanted_back).enumerate() {
        out.extend_from_slice(if at == 0 { b",\"thinking_blocks\":[" } else { b"," });
        match said {
            Said::Reasoning { text, signature: Some(seal) } => sealed(out, text, seal),
            Said::Redacted(data) => redacted(out, data),
            _ => {}
        }
    }
    if said.iter().any(|said| is_wanted_back(&said)) {
        out.push(b']');
    }
}

fn sealed(out: &mut Vec<u8>, thoughts: &str, seal: &str) {
    out.extend_from_slice(b"{\"type\":\"thinking\",\"thinking\":");
    text(out, thoughts);
    out.extend_from_slice(b",\"signature\":");
    text(out, seal);
    out.push(b'}');
}

fn redacted(out: &mut Vec<u8>, data: &str) {
    out.extend_from_slice(b"{\"type\":\"redacted_thinking\",\"data\":");
    text(out, data);
    out.push(b'}');
}

fn calls(out: &mut Vec<u8>, said: &[Said]) {
    let calls = said.iter().filter_map(|said| match said {
        Said::Call(call) => Some(call),
        _ => None,
    });
    let mut is_first = true;
    for call in calls {
        out.extend_from_slice(if is_first { b",\"tool_calls\":[{" } else { b",{" });
        is_first = false;
        begin_call(out, &call.id, &call.name, call.signature.as_deref());
        // What was no JSON goes on as it came.
        match &call.arguments {
            serde_json::Value::String(words) => escaped(out, words),
            other => escaped(out, &other.to_string()),
        }
        out.extend_from_slice(b"\"}}");
    }
    if !is_first {
        out.push(b']');
    }
}

/// A call up to its arguments, which are a text that is open.
fn begin_call(out: &mut Vec<u8>, id: &str, name: &str, signature: Option<&str>) {
    out.extend_from_slice(b"\"id\":");
    text(out, id);
    out.extend_from_slice(b",\"type\":\"function\"");
    if let Some(signature) = signature {
        out.extend_from_slice(b",\"extra_content\":{\"google\":{\"thought_signature\":");
        text(out, signature);
        out.extend_from_slice(b"}}");
    }
    out.extend_from_slice(b",\"function\":{\"name\":");
    text(out, name);
    out.extend_from_slice(b",\"arguments\":\"");
}

/// Writes an answer piece by piece, as server-sent events.
#[derive(Debug)]
pub struct Writer {
    /// What every chunk begins with, up to its delta.
    head: Vec<u8>,
    /// What every chunk ends with that is not the last.
    tail: &'static [u8],
    options: StreamOptions,
    has_begun: bool,
    /// Calls of whose arguments nothing was said yet.
    bare: Vec<usize>,
    /// Thoughts that have no seal yet.
    thoughts: String,
    usage: Option<Usage>,
}

impl Writer {
    /// A writer of one answer.
    pub fn new(named: &Named, options: StreamOptions) -> Self {
        let mut head = b"data: ".to_vec();
        begin(&mut head, "chat.completion.chunk", named);
        head.extend_from_slice(b"{\"index\":0,\"delta\":{");
        let tail: &[u8] = match options.include_usage {
            true => b"},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n",
            false => b"},\"logprobs\":null,\"finish_reason\":null}]}\n\n",
        };
        let (has_begun, bare, thoughts, usage) = (false, Vec::new(), String::new(), None);
        Self { head, tail, options, has_begun, bare, thoughts, usage }
    }

    /// Appends what `event` becomes to `out`; the first of all opens the answer.
    pub fn write(&mut self, event: &Event, out: &mut Vec<u8>) {
        if !self.has_begun {
            self.has_begun = true;
            self.chunk(out, |out| {
                out.extend_from_slice(b"\"role\":\"assistant\",\"content\":\"\",\"refusal\":null");
            });
        }
        match event {
            Event::Model(_) => {}
            Event::Text(words) => self.delta(out, b"\"content\":", words),
            Event::Reasoning(words) => {
                self.thoughts.push_str(words);
                self.delta(out, b"\"reasoning_content\":", words);
            }
            Event::Sealed(seal) => {
                let thoughts = std::mem::take(&mut self.thoughts);
                self.block(out, |out| sealed(out, &thoughts, seal));
            }
            Event::Redacted(data) => self.block(out, |out| redacted(out, data)),
            Event::Call { index, id, name, signature } => {
                self.bare.push(*index);
                self.chunk(out, |out| {
                    out.extend_from_slice(b"\"tool_calls\":[{\"index\":");
                    number(out, u64::try_from(*index).unwrap_or_default());
                    out.push(b',');
                    begin_call(out, id, name, signature.as_deref());
                    out.extend_from_slice(b"\"}}]");
                });
            }
            Event::Arguments { index, text } => {
                self.bare.retain(|bare| bare != index);
                self.arguments(*index, text, out);
            }
            Event::Usage(usage) => self.usage = Some(*usage),
            Event::Stop(stop) => {
                for index in std::mem::take(&mut self.bare) {
                    self.arguments(index, "{}", out);
                }
                self.stop(stop, out);
            }
        }
    }

    fn arguments(&self, index: usize, words: &str, out: &mut Vec<u8>) {
        self.chunk(out, |out| {
            out.extend_from_slice(b"\"tool_calls\":[{\"index\":");
            number(out, u64::try_from(index).unwrap_or_default());
            out.extend_from_slice(b",\"function\":{\"arguments\":");
            text(out, words);
            out.extend_from_slice(b"}}]");
        });
    }

    /// The answer is over: appends its usage, if it is asked for and was counted, and `[DONE]`.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if let (true, Some(counted)) = (self.options.include_usage, &self.usage) {
            // The head without its one choice.
            let choice = b"{\"index\":0,\"delta\":{";
            let head = self.head.strip_suffix(choice).unwrap_or(&self.head);
            out.extend_from_slice(head);
            out.extend_from_slice(b"],\"usage\":");
            usage(out, counted);
            out.extend_from_slice(b"}\n\n");
        }
        out.extend_from_slice(DONE);
    }

    fn stop(&self, stop: &Stop, out: &mut Vec<u8>) {
        if let Stop::Declined(words) = stop
            && !words.is_empty()
        {
            self.delta(out, b"\"refusal\":", words);
        }
        out.extend_from_slice(&self.head);
        out.extend_from_slice(b"},\"logprobs\":null,\"finish_reason\":");
        out.extend_from_slice(reason(stop));
        let tail: &[u8] = match self.options.include_usage {
            true => b"}],\"usage\":null}\n\n",
            false => b"}]}\n\n",
        };
        out.extend_from_slice(tail);
    }

    fn delta(&self, out: &mut Vec<u8>, key: &[u8], words: &str) {
        self.chunk(out, |out| {
            out.extend_from_slice(key);
            text(out, words);
        });
    }

    fn block(&self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        self.chunk(out, |out| {
            out.extend_from_slice(b"\"thinking_blocks\":[");
            write(out);
            out.push(b']');
        });
    }

    fn chunk(&self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        out.extend_from_slice(&self.head);
        write(out);
        out.extend_from_slice(self.tail);
    }
}
