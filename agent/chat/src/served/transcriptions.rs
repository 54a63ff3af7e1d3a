//! Owns `POST /v1/audio/transcriptions`: the fields of its form, which somebody else takes apart, and
//! the forms of its answer.
//!
//! **Invariant:** a form that cannot be filled is refused, never filled with what nobody knows.

use super::Refusal;
use super::fault::{invalid, missing, unsupported, unsupported_value};
use super::fields::within;
use super::json::text;

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
    let (mut model, mut language, mut prompt, mut temperature) = (None, None, None, None);
    let mut form = None;
    for (name, value) in fields {
        let given = || Some((*value).to_owned()).filter(|value| !value.is_empty());
        let is_again = match *name {
            "model" => model.replace((*value).to_owned()).is_some(),
            "language" => std::mem::replace(&mut language, given()).is_some(),
            "prompt" => std::mem::replace(&mut prompt, given()).is_some(),
            "response_format" => form.replace(self::form(value)?).is_some(),
            "temperature" => {
                let number = value
                    .parse::<f32>()
                    .map_err(|_| invalid(*name, "temperature: must be a number"))?;
                std::mem::replace(&mut temperature, within(name, Some(number), 0.0..=1.0)?)
                    .is_some()
            }
            "stream" if *value == "false" => false,
            "stream" => {
                return Err(unsupported_value(*name, "stream: can only be false here"));
            }
            "chunking_strategy" if *value == "auto" => false,
            "chunking_strategy"
            | "chunking_strategy[type]"
            | "include"
            | "include[]"
            | "keywords[]"
            | "known_speaker_names[]"
            | "known_speaker_references[]"
            | "languages[]"
            | "timestamp_granularities"
            | "timestamp_granularities[]" => return Err(unsupported(*name)),
            _ => {
                let message = format!("unknown parameter: {name}");
                let param = Some((*name).to_owned());
                return Err(Refusal { param, code: "unknown_parameter", message });
            }
        };
        if is_again {
            return Err(invalid(*name, format!("{name}: is there twice")));
        }
    }
    let model = model.filter(|model| !model.is_empty()).ok_or_else(|| missing("model"))?;
    let form = form.unwrap_or_default();
    Ok(AskedTranscript { model, form, language, prompt, temperature })
}

fn form(name: &str) -> Result<Form, Refusal> {
    match name {
        "json" => Ok(Form::Json),
        "text" => Ok(Form::Text),
        "verbose_json" => Ok(Form::VerboseJson),
        "srt" | "vtt" | "diarized_json" => {
            let message = "response_format: nobody here knows when or by whom words are spoken; \
                           can only be json, text or verbose_json";
            Err(unsupported_value("response_format", message))
        }
        _ => Err(invalid("response_format", "response_format: must be json, text or verbose_json")),
    }
}

/// The response.
///
/// # Errors
/// A form that cannot be filled with what is known.
pub fn answer(form: Form, transcript: &Transcript) -> Result<Written, Refusal> {
    let duration = transcript.duration_s.filter(|seconds| seconds.is_finite());
    let mut body = Vec::with_capacity(transcript.text.len().saturating_add(128));
    match form {
        Form::Text => {
            body.extend_from_slice(transcript.text.as_bytes());
            body.push(b'\n');
            return Ok(Written { content_type: "text/plain; charset=utf-8", body });
        }
        Form::Json => body.extend_from_slice(b"{\"text\":"),
        Form::VerboseJson => {
            let (Some(language), Some(seconds)) = (&transcript.language, duration) else {
                let message = "response_format: the language or the duration is not known; can \
                               only be json or text here";
                return Err(unsupported_value("response_format", message));
            };
            body.extend_from_slice(b"{\"task\":\"transcribe\",\"language\":");
            text(&mut body, language);
            body.extend_from_slice(b",\"duration\":");
            body.extend_from_slice(seconds.to_string().as_bytes());
            body.extend_from_slice(b",\"text\":");
        }
    }
    text(&mut body, &transcript.text);
    if let Some(seconds) = duration {
        body.extend_from_slice(b",\"usage\":{\"type\":\"duration\",\"seconds\":");
        body.extend_from_slice(seconds.to_string().as_bytes());
        body.push(b'}');
    }
    body.push(b'}');
    Ok(Written { content_type: "application/json", body })
}
