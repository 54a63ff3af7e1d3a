//! Owns what is said against a request, and finding the path of what is wrong in a body.
//!
//! **Invariant:** a body that is in order is read once; only one that is refused is looked at again.

use serde::Deserialize;
use serde_json::error::Category;

use super::Refusal;
use super::fields::Object;

/// So many characters of a name are shown.
const LONGEST_NAME: usize = 128;

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

/// Refuses the first of these fields that asks for more than the one thing that holds here anyway.
pub(super) fn asks_no_more<const N: usize>(asked: [(&str, bool, &str); N]) -> Result<(), Refusal> {
    let first = asked.into_iter().find(|(_, is_asked, _)| *is_asked);
    first.map_or(Ok(()), |(param, _, only)| {
        let message = format!("unsupported parameter: {param} can only be {only} here");
        Err(Refusal { message, ..unsupported(param) })
    })
}

/// A body as a type that knows all of its fields.
pub(super) fn parsed<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refusal> {
    let read: Result<Object<T>, _> = serde_json::from_slice(body);
    read.map(|Object(read)| read).map_err(|error| match error.classify() {
        Category::Data => misfit(body, &error),
        Category::Eof => unread("it ends too early"),
        Category::Syntax | Category::Io => unread(&syntax(&error)),
    })
}

/// The body cannot be read.
fn unread(why: &str) -> Refusal {
    let message = format!("the body is no JSON that can be read: {why}");
    Refusal { param: None, code: "invalid_json", message }
}

fn syntax(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    let what = match text.split(" at line ").next() {
        Some("recursion limit exceeded") => "it is nested too deep",
        Some("number out of range") => "a number is too large",
        Some(what) if what.contains("control character") => {
            "a text has a control character that is not escaped"
        }
        Some(what) if what.contains("escape") || what.contains("surrogate") => {
            "a text has an escape that is none"
        }
        Some(what) if what.contains("unicode") => "a text is not UTF-8",
        Some(what) if what.contains("trailing comma") => "a comma has nothing behind it",
        Some(what) if what.contains("trailing characters") => "something follows its end",
        _ => "something else is expected",
    };
    format!("{what} at line {line}, column {column}")
}

/// What is read is of another form than is wanted.
fn misfit(body: &[u8], error: &serde_json::Error) -> Refusal {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    let mut path = path(body, error.line(), error.column());
    // Of what may be a text, a list is noticed when it is open already.
    if what.starts_with("invalid type: sequence, expected a text or ") && path.ends_with("[0]") {
        path.truncate(path.len().saturating_sub(3));
    }
    let param = Some(path).filter(|path| !path.is_empty());
    let path = param.as_deref().unwrap_or("the body");
    if what.starts_with("unknown field") {
        let message = format!("unknown parameter: {path}");
        return Refusal { param, code: "unknown_parameter", message };
    }
    if what.starts_with("duplicate field") {
        return Refusal {
            message: format!("{path}: is there twice"),
            code: "invalid_value",
            param,
        };
    }
    let message = match said(what) {
        Some((wanted, found)) => format!("{path}: must be {wanted}, and is {found}"),
        None => format!("{path}: is of another form than it must be"),
    };
    Refusal { param, code: "invalid_type", message }
}

/// What is wanted and what was found, of what the parser says about it.
fn said(what: &str) -> Option<(&str, String)> {
    let rest = what.strip_prefix("invalid type: ").or_else(|| what.strip_prefix("invalid value: "));
    // What was found may be a text that has the word in it.
    let (found, wanted) = rest?.rsplit_once(", expected ")?;
    let wanted = match wanted {
        "a string" | "a borrowed string" | "string" => "a text",
        "a boolean" => "true or false",
        "f32" | "f64" => "a number",
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "i64" => "a whole number",
        "a map" => "an object",
        "a sequence" => "a list",
        // As the types of this module say it.
        wanted if wanted.starts_with("a text") || wanted.starts_with("an object") => wanted,
        _ => return None,
    };
    let kind = found.split(' ').next().unwrap_or_default();
    let found = match kind {
        "null" | "unit" | "Option" => "null".to_owned(),
        "map" => "an object".to_owned(),
        "sequence" => "a list".to_owned(),
        // It may be long, and is the caller's own.
        "string" | "character" => "a text".to_owned(),
        "boolean" | "integer" | "floating" | "number" => {
            found.split('`').nth(1).map_or("a number".to_owned(), str::to_owned)
        }
        _ => return None,
    };
    Some((wanted, found))
}

/// The name of a field of the caller's, no longer than anybody reads.
pub(super) fn shown(name: &str) -> String {
    name.chars().take(LONGEST_NAME).collect()
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
                    *key = shown(&String::from_utf8_lossy(text));
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
