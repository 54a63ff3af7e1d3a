//! Owns the sorts of failure, by what to do about them.
//!
//! **Invariant:** each provider's documented errors come to exactly one sort; what is not
//! documented is sorted by its status.

use std::time::Duration;

use serde_json::Value;

/// What a provider refused with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What to do about it.
    pub kind: Kind,
    /// How long to wait, if it says so.
    pub wait: Option<Duration>,
    /// What it says: anything, and it may repeat what was sent.
    pub detail: Option<String>,
    /// Its own name for it, as OpenAI's clients look for it, if it has one: see [`plain_code`].
    pub code: Option<String>,
}

/// What to do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It passes: ask again.
    Transient,
    /// Too much was asked: wait, then ask again.
    Throttled,
    /// Somebody has to pay first.
    OutOfCredit,
    /// This will never be answered.
    BadRequest,
    /// Somebody has to renew or change the credential first.
    Authentication,
    /// A filter does not let the question through.
    Safety,
}

impl Kind {
    /// By the status alone.
    pub(crate) fn of_status(status: u16, has_wait: bool) -> Self {
        match status {
            401 | 403 | 407 => Self::Authentication,
            402 => Self::OutOfCredit,
            429 => Self::Throttled,
            503 | 529 if has_wait => Self::Throttled,
            408 | 425 | 500.. => Self::Transient,
            _ => Self::BadRequest,
        }
    }
}

/// The words that some text field of an error holds, wherever the provider has it.
pub(crate) fn words(body: &Value) -> Option<String> {
    let found = [
        &body["error"]["message"],
        &body["message"],
        &body["Message"],
        &body["detail"],
        &body["detail"][0]["msg"],
        &body["title"],
        &body["error"],
    ];
    found.into_iter().find_map(Value::as_str).map(str::to_owned)
}

/// A provider's own code, if it is a short and plain one: up to 64 of `a-z`, `0-9` and `_`, a letter first.
#[must_use]
pub fn plain_code(code: &Value) -> Option<String> {
    let code = code.as_str().filter(|code| code.len() <= 64)?;
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let begins = code.starts_with(|first: char| first.is_ascii_lowercase());
    (begins && code.bytes().all(is_plain)).then(|| code.to_owned())
}

/// OpenAI's code for too long a question, of providers that say so in words alone.
pub(crate) fn code_of_words(text: Option<&str>) -> Option<String> {
    let words = ["prompt is too long", "input is too long", "exceeds the maximum number of tokens"];
    says(text, &words).then(|| "context_length_exceeded".to_owned())
}

/// Whether `text` has one of `words` in it, in any case.
pub(crate) fn says(text: Option<&str>, words: &[&str]) -> bool {
    let text = text.unwrap_or_default().to_ascii_lowercase();
    words.iter().any(|word| text.contains(word))
}
