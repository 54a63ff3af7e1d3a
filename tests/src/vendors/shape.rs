//! What a strict server does with JSON: every key is known, every needed one is there.
//!
//! **Invariant:** a refusal names the place and what must be there.

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};
use serde_json::{Map, Value};

/// What is read, or what the server says against it.
pub(super) type Checked<T> = Result<T, String>;

/// An object with these keys and no others.
pub(super) fn object<'a>(
    value: &'a Value,
    at: &str,
    needed: &[&str],
    known: &[&str],
) -> Checked<&'a Map<String, Value>> {
    let map = value.as_object().ok_or_else(|| format!("{at}: must be an object"))?;
    if let Some(key) = needed.iter().find(|key| !map.contains_key(**key)) {
        return Err(format!("{at}.{key}: field required"));
    }
    let is_known =
        |key: &&String| !needed.contains(&key.as_str()) && !known.contains(&key.as_str());
    match map.keys().find(is_known) {
        Some(key) => Err(format!("{at}.{key}: extra inputs are not permitted")),
        None => Ok(map),
    }
}

/// A text that is not empty.
pub(super) fn text<'a>(value: &'a Value, at: &str) -> Checked<&'a str> {
    let text = value.as_str().filter(|text| !text.is_empty());
    text.ok_or_else(|| format!("{at}: must be a text that is not empty"))
}

/// A list that is not empty.
pub(super) fn list<'a>(value: &'a Value, at: &str) -> Checked<&'a Vec<Value>> {
    let list = value.as_array().filter(|list| !list.is_empty());
    list.ok_or_else(|| format!("{at}: must be a list that is not empty"))
}

/// A number in a range.
pub(super) fn number(value: &Value, at: &str, range: std::ops::RangeInclusive<f64>) -> Checked<()> {
    match value.as_f64().is_some_and(|number| range.contains(&number)) || value.is_null() {
        true => Ok(()),
        false => Err(format!("{at}: must be {} to {}", range.start(), range.end())),
    }
}

/// One of some words.
pub(super) fn word<'a>(value: &'a Value, at: &str, words: &[&str]) -> Checked<&'a str> {
    let word = value.as_str().filter(|word| words.contains(word));
    word.ok_or_else(|| format!("{at}: must be one of {}, is {value}", words.join(", ")))
}

/// Bytes in base64, of either alphabet.
pub(super) fn bytes(value: &Value, at: &str) -> Checked<Vec<u8>> {
    let text = text(value, at)?;
    let decoded = BASE64_STANDARD.decode(text).or_else(|_| BASE64_URL_SAFE.decode(text));
    decoded.map_err(|_| format!("{at}: must be base64"))
}

/// A JSON schema of an object.
pub(super) fn schema(value: &Value, at: &str) -> Checked<()> {
    match value["type"] == "object" && value["properties"].is_object() {
        true => Ok(()),
        false => Err(format!("{at}: must be the schema of an object")),
    }
}

/// A picture whose bytes are of the kind that it is said to be.
pub(super) fn picture(kind: &str, bytes: &[u8], at: &str) -> Checked<()> {
    let begins: &[u8] = match kind.trim_start_matches("image/") {
        "jpeg" => b"\xff\xd8",
        "png" => b"\x89PNG",
        "webp" => b"RIFF",
        "gif" => b"GIF8",
        _ => return Err(format!("{at}: pictures of kind {kind} are not taken")),
    };
    match bytes.starts_with(begins) {
        true => Ok(()),
        false => Err(format!("{at}: the picture is no {kind}")),
    }
}
