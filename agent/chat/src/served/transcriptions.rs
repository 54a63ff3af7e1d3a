//! Owns `POST /v1/audio/transcriptions`: the fields of its form, which somebody else takes apart, and
//! the forms of its answer.
//!
//! **Invariant:** a form is filled with what is known: one that wants more than the words is what its
//! provider made of it, as it came.

use serde::Deserialize;

use super::Refusal;
use super::fault::{invalid, missing, unsupported, unsupported_value};
use super::fields::within;
use super::json::text;

/// What is asked, beside the file.
#[derive(Debug, Clone, PartialEq)]
pub struct AskedTranscript {
    /// A bundle, a destination's model or a route.
    pub model: String,
    /// What is wanted of the answer.
    pub wanted: Wanted,
    /// How the recording is cut; what is not set is the provider's affair.
    pub chunking: Option<Chunking>,
    /// What is spoken, as in `de`.
    pub language: Option<String>,
    /// What was said before, for the style of it.
    pub prompt: Option<String>,
    /// `0.0..=1.0`
    pub temperature: Option<f32>,
}

/// What is wanted of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// How it is answered.
    pub form: Form,
    /// When each word is spoken, of verbose JSON.
    pub words: bool,
    /// When each segment is spoken, of verbose JSON; what is not asked for by name is the provider's affair.
    pub segments: bool,
    /// How sure each token is, of JSON.
    pub logprobs: bool,
}

impl Wanted {
    /// Whether the words alone will do, which every model has.
    pub fn is_plain(self) -> bool {
        matches!(self.form, Form::Json | Form::Text) && !self.logprobs
    }

    /// Whether `body` is of the form that is wanted: a server that does not have it answers with another.
    pub fn fits(self, body: &str) -> bool {
        let object = || serde_json::from_str::<serde_json::Map<_, serde_json::Value>>(body).ok();
        let has = |wanted: &[(&str, bool)]| {
            let named = wanted.iter().filter(|(_, is_wanted)| *is_wanted);
            let mut named = named.map(|(name, _)| *name).chain(["text"]);
            object().is_some_and(|object| named.all(|name| object.contains_key(name)))
        };
        match self.form {
            Form::Json | Form::Text => has(&[("logprobs", self.logprobs)]),
            Form::VerboseJson => has(&[("words", self.words), ("segments", self.segments)]),
            Form::DiarizedJson => has(&[("segments", true)]),
            // Of silence there is none.
            Form::Srt => body.trim().is_empty() || body.contains(" --> "),
            Form::Vtt => body.trim_start_matches('\u{feff}').starts_with("WEBVTT"),
        }
    }
}

/// The form of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// `{"text": ...}`
    #[default]
    Json,
    /// The bare text.
    Text,
    /// With the language, the duration and times.
    VerboseJson,
    /// With who speaks.
    DiarizedJson,
    /// Subtitles: `SubRip`.
    Srt,
    /// Subtitles: `WebVTT`.
    Vtt,
}

impl Form {
    const NAMED: [(&str, Self); 6] = [
        ("json", Self::Json),
        ("text", Self::Text),
        ("verbose_json", Self::VerboseJson),
        ("diarized_json", Self::DiarizedJson),
        ("srt", Self::Srt),
        ("vtt", Self::Vtt),
    ];

    /// OpenAI's word for it.
    pub fn name(self) -> &'static str {
        Self::NAMED.iter().find(|(_, form)| *form == self).map_or("", |(name, _)| name)
    }
}

/// How a recording is cut.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Chunking {
    /// As the provider likes.
    Auto,
    /// Where nobody speaks.
    Vad(Vad),
}

/// What counts as nobody speaking; what is not set is the provider's affair.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Vad {
    /// `0.0..=1.0`: the higher, the louder it has to be.
    pub threshold: Option<f32>,
    /// Milliseconds before the first word.
    pub prefix_padding_ms: Option<u32>,
    /// Milliseconds after the last one.
    pub silence_duration_ms: Option<u32>,
}

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its content type.
    pub content_type: &'static str,
    /// Its body.
    pub body: Vec<u8>,
}

/// The field of how a recording is cut.
const CHUNKING: &str = "chunking_strategy";

/// The fields as they are read.
#[derive(Default)]
struct Fields {
    model: Option<String>,
    language: Option<String>,
    prompt: Option<String>,
    temperature: Option<f32>,
    form: Option<Form>,
    chunking: Option<Chunking>,
    vad: ServerVad,
    wanted: Wanted,
}

/// As OpenAI has it, whole or field by field.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServerVad {
    #[serde(rename = "type")]
    kind: Option<String>,
    threshold: Option<f32>,
    prefix_padding_ms: Option<u32>,
    silence_duration_ms: Option<u32>,
}

/// What the text fields of a form ask, by their names as they came.
///
/// # Errors
/// The first field that cannot be honoured, by its name.
pub fn read(fields: &[(&str, &str)]) -> Result<AskedTranscript, Refusal> {
    let mut read = Fields::default();
    for (name, value) in fields {
        let is_again = match name.strip_prefix(CHUNKING).and_then(|rest| rest.strip_prefix('[')) {
            Some(rest) => read.vad.take(name, rest.trim_end_matches(']'), value)?,
            None => read.take(name, value)?,
        };
        if is_again {
            return Err(invalid(*name, format!("{name}: is there twice")));
        }
    }
    read.asked()
}

impl Fields {
    /// Takes a field; whether it was there before.
    fn take(&mut self, name: &str, value: &str) -> Result<bool, Refusal> {
        let given = || Some(value.to_owned()).filter(|value| !value.is_empty());
        Ok(match name {
            "model" => self.model.replace(value.to_owned()).is_some(),
            "language" => std::mem::replace(&mut self.language, given()).is_some(),
            "prompt" => std::mem::replace(&mut self.prompt, given()).is_some(),
            "response_format" => self.form.replace(form(value)?).is_some(),
            "temperature" => {
                let number = within(name, Some(parsed(name, value, "a number")?), 0.0..=1.0)?;
                std::mem::replace(&mut self.temperature, number).is_some()
            }
            "timestamp_granularities" | "timestamp_granularities[]" => {
                let wanted = match value {
                    "word" => &mut self.wanted.words,
                    "segment" => &mut self.wanted.segments,
                    _ => return Err(invalid(name, format!("{name}: must be word or segment"))),
                };
                std::mem::replace(wanted, true)
            }
            "include" | "include[]" if value == "logprobs" => {
                std::mem::replace(&mut self.wanted.logprobs, true)
            }
            "stream" if value == "false" => false,
            "stream" => return Err(unsupported_value(name, "stream: can only be false here")),
            CHUNKING if value == "auto" => self.chunking.replace(Chunking::Auto).is_some(),
            CHUNKING => {
                let wrong = |_| invalid(CHUNKING, format!("{CHUNKING}: {VAD}"));
                let vad: ServerVad = serde_json::from_str(value).map_err(wrong)?;
                self.chunking.replace(Chunking::Vad(vad.checked()?)).is_some()
            }
            "include"
            | "include[]"
            | "keywords[]"
            | "known_speaker_names[]"
            | "known_speaker_references[]"
            | "languages[]" => return Err(unsupported(name)),
            _ => {
                let message = format!("unknown parameter: {name}");
                let param = Some(name.to_owned());
                return Err(Refusal { param, code: "unknown_parameter", message });
            }
        })
    }

    fn asked(self) -> Result<AskedTranscript, Refusal> {
        let Self { model, language, prompt, temperature, form, chunking, vad, wanted } = self;
        let model = model.filter(|model| !model.is_empty()).ok_or_else(|| missing("model"))?;
        let form = form.unwrap_or_default();
        if (wanted.words || wanted.segments) && form != Form::VerboseJson {
            let message = "timestamp_granularities: only of response_format verbose_json";
            return Err(invalid("timestamp_granularities", message));
        }
        if wanted.logprobs && form != Form::Json {
            return Err(invalid("include", "include: logprobs are only of response_format json"));
        }
        let chunking = match (chunking, vad.is_there()) {
            (Some(_), true) => {
                return Err(invalid(CHUNKING, format!("{CHUNKING}: is there twice")));
            }
            (given, false) => given,
            (None, true) => Some(Chunking::Vad(vad.checked()?)),
        };
        let wanted = Wanted { form, ..wanted };
        Ok(AskedTranscript { model, wanted, chunking, language, prompt, temperature })
    }
}

const VAD: &str = "must be auto, or an object of the type server_vad with threshold, \
                   prefix_padding_ms and silence_duration_ms";

impl ServerVad {
    /// Takes a field of it, as OpenAI's clients send them in a form; whether it was there before.
    fn take(&mut self, name: &str, field: &str, value: &str) -> Result<bool, Refusal> {
        let whole = || parsed::<u32>(name, value, "a whole number, 0 or more");
        Ok(match field {
            "type" => self.kind.replace(value.to_owned()).is_some(),
            "threshold" => self.threshold.replace(parsed(name, value, "a number")?).is_some(),
            "prefix_padding_ms" => self.prefix_padding_ms.replace(whole()?).is_some(),
            "silence_duration_ms" => self.silence_duration_ms.replace(whole()?).is_some(),
            _ => return Err(invalid(name, format!("{CHUNKING}: {VAD}"))),
        })
    }

    fn is_there(&self) -> bool {
        let Self { kind, threshold, prefix_padding_ms, silence_duration_ms } = self;
        let is_timed = prefix_padding_ms.is_some() || silence_duration_ms.is_some();
        kind.is_some() || threshold.is_some() || is_timed
    }

    fn checked(self) -> Result<Vad, Refusal> {
        let Self { kind, threshold, prefix_padding_ms, silence_duration_ms } = self;
        if kind.as_deref() != Some("server_vad") {
            return Err(invalid(CHUNKING, format!("{CHUNKING}: {VAD}")));
        }
        let threshold = within("chunking_strategy.threshold", threshold, 0.0..=1.0)?;
        Ok(Vad { threshold, prefix_padding_ms, silence_duration_ms })
    }
}

fn parsed<T: std::str::FromStr>(name: &str, value: &str, what: &str) -> Result<T, Refusal> {
    value.parse().map_err(|_| invalid(name, format!("{name}: must be {what}")))
}

fn form(name: &str) -> Result<Form, Refusal> {
    let found = Form::NAMED.iter().find(|(known, _)| *known == name).map(|(_, form)| *form);
    let names = || Form::NAMED.map(|(name, _)| name).join(", ");
    let param = "response_format";
    found.ok_or_else(|| invalid(param, format!("{param}: must be one of {}", names())))
}

/// The response: the words in the form that is wanted, or what the provider made of it; `duration_s` is how
/// long the recording is, in seconds, if that is known.
pub fn answer(wanted: Wanted, said: &str, duration_s: Option<f64>) -> Written {
    let content_type = match wanted.form {
        Form::Json | Form::VerboseJson | Form::DiarizedJson => "application/json",
        Form::Text | Form::Srt | Form::Vtt => "text/plain; charset=utf-8",
    };
    let mut body = Vec::with_capacity(said.len().saturating_add(128));
    match wanted.form {
        Form::Json if !wanted.logprobs => {
            body.extend_from_slice(b"{\"text\":");
            text(&mut body, said);
            if let Some(seconds) = duration_s.filter(|seconds| seconds.is_finite()) {
                body.extend_from_slice(b",\"usage\":{\"type\":\"duration\",\"seconds\":");
                body.extend_from_slice(seconds.to_string().as_bytes());
                body.push(b'}');
            }
            body.push(b'}');
        }
        Form::Text => {
            body.extend_from_slice(said.as_bytes());
            body.push(b'\n');
        }
        Form::Json | Form::VerboseJson | Form::DiarizedJson | Form::Srt | Form::Vtt => {
            body.extend_from_slice(said.as_bytes());
        }
    }
    Written { content_type, body }
}
