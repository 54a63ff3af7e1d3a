//! Owns `POST /v1/audio/transcriptions`: the fields of its form, which somebody else takes apart, and
//! the forms of its answer.
//!
//! **Invariant:** a form that cannot be filled is refused, never filled with what nobody knows.

use super::Refusal;

/// What is asked, beside the file.
#[derive(Debug, Clone, PartialEq)]
pub struct AskedTranscript {
    /// A bundle, a destination's model or a route.
    pub model: String,
    /// How it is answered.
    pub form: Form,
    /// What is spoken, as in `de`.
    pub language: Option<String>,
    /// What was said before, for the style of it.
    pub prompt: Option<String>,
    /// `0.0..=1.0`
    pub temperature: Option<f32>,
}

/// The form of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// `{"text": ...}`
    #[default]
    Json,
    /// The bare text.
    Text,
    /// With the language and the duration.
    VerboseJson,
}

/// What was heard.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Transcript {
    /// The words.
    pub text: String,
    /// In which language, if that is known.
    pub language: Option<String>,
    /// How long it is, in seconds, if that is known.
    pub duration_s: Option<f64>,
}

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its content type.
    pub content_type: &'static str,
    /// Its body.
    pub body: Vec<u8>,
}

/// What the text fields of a form ask, by their names as they came.
///
/// # Errors
/// The first field that cannot be honoured, by its name.
pub fn read(fields: &[(&str, &str)]) -> Result<AskedTranscript, Refusal> {
    let _ = fields;
    Err(Refusal { param: None, code: "invalid_json", message: "nothing is read yet".to_owned() })
}

/// The response.
///
/// # Errors
/// A form that cannot be filled with what is known.
pub fn answer(form: Form, transcript: &Transcript) -> Result<Written, Refusal> {
    let _ = (form, transcript);
    Ok(Written { content_type: "application/json", body: Vec::new() })
}
