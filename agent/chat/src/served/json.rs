//! Owns writing JSON straight into bytes, where a chunk may cost microseconds only.
//!
//! **Invariant:** what is written is valid JSON without a line break.

use super::Named;
use crate::conversation::{Stop, Usage};

/// Behind the last chunk.
pub(super) const DONE: &[u8] = b"data: [DONE]\n\n";

/// A text with its quotes.
pub(super) fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    escaped(out, text);
    out.push(b'"');
}

/// A text without its quotes.
pub(super) fn escaped(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    let is_odd = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
    while let Some(at) = rest.iter().position(is_odd) {
        let (plain, behind) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((byte, behind)) = behind.split_first() else { return };
        rest = behind;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            other => out.extend_from_slice(format!("\\u{other:04x}").as_bytes()),
        }
    }
    out.extend_from_slice(rest);
}

/// A whole number.
pub(super) fn number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(number.to_string().as_bytes());
}

/// Pairs of texts, as an object.
pub(super) fn pairs<'a>(
    out: &mut Vec<u8>,
    pairs: impl IntoIterator<Item = (&'a String, &'a String)>,
) {
    out.push(b'{');
    for (at, (key, value)) in pairs.into_iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        text(out, key);
        out.push(b':');
        text(out, value);
    }
    out.push(b'}');
}

/// Tokens, as completions count them.
pub(super) fn usage(out: &mut Vec<u8>, usage: &Usage) {
    out.extend_from_slice(b"{\"prompt_tokens\":");
    number(out, usage.input);
    out.extend_from_slice(b",\"completion_tokens\":");
    number(out, usage.output);
    out.extend_from_slice(b",\"total_tokens\":");
    number(out, usage.input.saturating_add(usage.output));
    out.extend_from_slice(b",\"prompt_tokens_details\":{\"cached_tokens\":");
    number(out, usage.cached);
    out.extend_from_slice(b"},\"completion_tokens_details\":{\"reasoning_tokens\":");
    number(out, usage.reasoning);
    out.extend_from_slice(b"}}");
}

/// The reason that OpenAI has for the end.
pub(super) fn reason(stop: &Stop) -> &'static [u8] {
    match stop {
        Stop::Length => b"\"length\"",
        Stop::Calls => b"\"tool_calls\"",
        Stop::Filtered => b"\"content_filter\"",
        Stop::Declined(words) if words.is_empty() => b"\"content_filter\"",
        Stop::End | Stop::Declined(_) | Stop::Other(_) => b"\"stop\"",
    }
}

/// What every object begins with, up to its choices.
pub(super) fn begin(out: &mut Vec<u8>, object: &str, named: &Named) {
    out.extend_from_slice(b"{\"id\":");
    text(out, &named.id);
    out.extend_from_slice(b",\"object\":");
    text(out, object);
    out.extend_from_slice(b",\"created\":");
    number(out, named.created);
    out.extend_from_slice(b",\"model\":");
    text(out, &named.model);
    out.extend_from_slice(b",\"choices\":[");
}

/// What a body in one piece ends with, behind its choices.
pub(super) fn end(out: &mut Vec<u8>, named: &Named, counted: Option<&Usage>) {
    out.push(b']');
    if let Some(counted) = counted {
        out.extend_from_slice(b",\"usage\":");
        usage(out, counted);
    }
    if !named.metadata.is_empty() {
        out.extend_from_slice(b",\"metadata\":");
        pairs(out, &named.metadata);
    }
    out.push(b'}');
}
