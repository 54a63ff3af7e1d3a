//! Owns what is said against a request, and finding the path of what is wrong in a body.
//!
//! **Invariant:** a body that is in order is read once; only one that is refused is looked at again.

use serde::Deserialize;
use serde_json::error::Category;

use super::Refusal;
use super::fields::Object;

/// A refusal of the field at `param`.
pub(super) fn refusal(
    code: &'static str,
    param: impl Into<String>,
    message: impl Into<String>,
) -> Refusal {
    Refusal { param: Some(param.into()), code, message: message.into() }
}

/// The value is none that the field has.
pub(super) fn invalid(param: impl Into<String>, message: impl Into<String>) -> Refusal {
    refusal("invalid_value", param, message)
}

/// The field has to be there.
pub(super) fn missing(param: impl Into<String>) -> Refusal {
    let param = param.into();
    let message = format!("missing required parameter: {param}");
    refusal("missing_required_parameter", param, message)
}

/// OpenAI has the field, and what it asks for cannot be done here.
pub(super) fn unsupported(param: impl Into<String>) -> Refusal {
    let param = param.into();
    let message = format!("unsupported parameter: {param}");
    refusal("unsupported_parameter", param, message)
}

/// OpenAI has the value, and what it asks for cannot be done here.
pub(super) fn unsupported_value(param: impl Into<String>, message: impl Into<String>) -> Refusal {
    refusal("unsupported_value", param, message)
}

/// Refuses the first of these fields that is there.
pub(super) fn has_none_of<const N: usize>(given: [(&str, bool); N]) -> Result<(), Refusal> {
    let first = given.into_iter().find(|(_, is_there)| *is_there);
    first.map_or(Ok(()), |(name, _)| Err(unsupported(name)))
}

/// A body as a type that knows all of its fields.
pub(super) fn parsed<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refusal> {
    let read: Result<Object<T>, _> = serde_json::from_slice(body);
    read.map(|Object(read)| read).map_err(|error| {
        let text = error.to_string();
        let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
        if error.classify() != Category::Data {
            let message = format!("the body is no JSON that can be read: {text}");
            return Refusal { param: None, code: "invalid_json", message };
        }
        let param = path(body, error.line(), error.column());
        if what.starts_with("unknown field") {
            let message = format!("unknown parameter: {param}");
            return refusal("unknown_parameter", param, message);
        }
        let message = format!("{param}: {what}");
        Refusal { param: Some(param).filter(|it| !it.is_empty()), code: "invalid_type", message }
    })
}

/// A place that JSON is nested into.
enum Place {
    Object(String),
    Array(usize),
}

/// The path of what is read at a line and column.
fn path(body: &[u8], line: usize, column: usize) -> String {
    let mut lines = body.split_inclusive(|byte| *byte == b'\n');
    let before: usize = lines.by_ref().take(line.saturating_sub(1)).map(<[u8]>::len).sum();
    let mut rest = body.get(..before.saturating_add(column)).unwrap_or(body);
    let mut places: Vec<Place> = Vec::new();
    let mut is_key = false;
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        match byte {
            b'{' => {
                places.push(Place::Object(String::new()));
                is_key = true;
            }
            b'[' => places.push(Place::Array(0)),
            b'}' | b']' => {
                places.pop();
            }
            b':' => is_key = false,
            b',' => match places.last_mut() {
                Some(Place::Array(index)) => *index += 1,
                Some(Place::Object(_)) => is_key = true,
                None => {}
            },
            b'"' => {
                let length = text_length(rest);
                let (text, behind) = rest.split_at(length);
                rest = behind.get(1..).unwrap_or_default();
                if let (true, Some(Place::Object(key))) = (is_key, places.last_mut()) {
                    *key = String::from_utf8_lossy(text).into_owned();
                }
            }
            _ => {}
        }
    }
    let mut path = String::new();
    for place in &places {
        match place {
            Place::Array(index) => path.push_str(&format!("[{index}]")),
            Place::Object(key) if path.is_empty() || key.is_empty() => path.push_str(key),
            Place::Object(key) => {
                path.push('.');
                path.push_str(key);
            }
        }
    }
    path
}

/// How long a text is whose opening quote was read.
fn text_length(bytes: &[u8]) -> usize {
    let mut is_escaped = false;
    let end = bytes.iter().position(|byte| {
        let is_end = *byte == b'"' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        is_end
    });
    end.unwrap_or(bytes.len())
}
