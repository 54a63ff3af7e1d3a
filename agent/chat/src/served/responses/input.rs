//! Owns telling the input of a response again, as the items that it was: `GET /v1/responses/{id}/input_items`.
//!
//! **Invariant:** an item has the same id whenever it is told; nothing of the input is left out but the
//! system prompt.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::REDACTED;
use crate::conversation::{Detail, Part, Said, Turn, word};
use crate::served::Refusal;
use crate::served::fault::invalid;

/// Which of the items are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The id of the last one that is known.
    pub after: Option<String>,
    /// 1 to 100.
    pub limit: usize,
    /// Whether the first one comes first.
    pub is_ascending: bool,
}

impl Default for Page {
    /// As OpenAI has it: the last 20, the last one first.
    fn default() -> Self {
        Self { after: None, limit: 20, is_ascending: false }
    }
}

/// The body of a page of the items that these turns were, of the response of this id.
///
/// # Errors
/// An item that is to be gone on behind and is not there.
pub fn items(id: &str, turns: &[Turn], page: &Page) -> Result<Vec<u8>, Refusal> {
    let suffix = id.strip_prefix("resp_").unwrap_or(id);
    let named = |at: usize| format!("in_{suffix}_{at}");
    let mut places: Vec<(usize, Item<'_>)> = each(turns).into_iter().enumerate().collect();
    if !page.is_ascending {
        places.reverse();
    }
    let begin = match &page.after {
        None => 0,
        Some(after) => {
            let known = places.iter().position(|(at, _)| named(*at) == *after);
            let unknown = || invalid("after", "after: no item of this input has this id");
            known.ok_or_else(unknown)?.saturating_add(1)
        }
    };
    let rest = places.get(begin..).unwrap_or_default();
    let told = rest.get(..page.limit).unwrap_or(rest);
    let ids = |place: Option<&(usize, Item<'_>)>| place.map(|(at, _)| named(*at));
    let data: Vec<Value> = told.iter().map(|(at, item)| value(&named(*at), item)).collect();
    let list = json!({ "object": "list", "data": data, "first_id": ids(told.first()),
        "last_id": ids(told.last()), "has_more": rest.len() > told.len() });
    Ok(list.to_string().into_bytes())
}

/// What becomes one item.
enum Item<'a> {
    User(&'a [Part]),
    Said(&'a Said),
    Result(&'a crate::conversation::ToolResult),
}

/// The items of these turns, in their order.
fn each(turns: &[Turn]) -> Vec<Item<'_>> {
    let mut items = Vec::new();
    for turn in turns {
        match turn {
            Turn::User(parts) => items.push(Item::User(parts)),
            Turn::Model(said) => items.extend(said.iter().map(Item::Said)),
            Turn::Results(results) => items.extend(results.iter().map(Item::Result)),
        }
    }
    items
}

fn value(id: &str, item: &Item<'_>) -> Value {
    let mut value = match item {
        Item::User(parts) => {
            let content: Vec<Value> = parts.iter().map(part).collect();
            json!({ "type": "message", "role": "user", "content": content })
        }
        Item::Result(result) => json!({ "type": "function_call_output",
            "call_id": result.id, "output": result.content }),
        Item::Said(Said::Text(text)) => {
            let text = json!({ "type": "output_text", "text": text, "annotations": [],
                "logprobs": [] });
            json!({ "type": "message", "role": "assistant", "content": [text] })
        }
        Item::Said(Said::Reasoning { text, signature }) => {
            json!({ "type": "reasoning", "encrypted_content": signature,
                "summary": [{ "type": "summary_text", "text": text }] })
        }
        Item::Said(Said::Redacted(data)) => json!({ "type": "reasoning", "summary": [],
            "encrypted_content": format!("{REDACTED}{data}") }),
        Item::Said(Said::Call(call)) => {
            // What was no JSON is told as it came.
            let arguments = match &call.arguments {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let mut value = json!({ "type": "function_call", "call_id": call.id,
                "name": call.name, "arguments": arguments });
            if let Some(seal) = &call.signature {
                value["extra_content"] = json!({ "google": { "thought_signature": seal } });
            }
            value
        }
    };
    value["id"] = id.into();
    value["status"] = "completed".into();
    value
}

fn part(part: &Part) -> Value {
    match part {
        Part::Text(text) => json!({ "type": "input_text", "text": text }),
        // Of a chat completion that was held; a response has no names.
        Part::Speaker(name) => json!({ "type": "input_text", "text": format!("{name}:") }),
        Part::Image(kind, bytes, detail) => {
            let url = format!("data:{};base64,{}", kind.mime(), STANDARD.encode(bytes));
            json!({ "type": "input_image", "image_url": url, "file_id": null,
                "detail": word(&Detail::NAMED, *detail) })
        }
        Part::Audio(kind, bytes) => json!({ "type": "input_audio", "input_audio":
            { "data": STANDARD.encode(bytes), "format": kind.name() } }),
    }
}
