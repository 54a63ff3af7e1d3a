//! Owns the parts of messages that chat completions and responses have in common: words, pictures and
//! recordings in base64, and the seal on a call.
//!
//! **Invariant:** nothing is fetched; a part that is empty is refused.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;

use super::Refusal;
use super::fault::{invalid, missing, unsupported_value};
use super::fields::{Object, Word, one_of};
use crate::conversation::{Detail, Part};
use crate::media::{Audio, Image};

/// A recording.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InputAudio<'a> {
    #[serde(borrow)]
    data: Option<Word<'a>>,
    #[serde(borrow)]
    format: Option<Word<'a>>,
}

/// What OpenAI does not have and providers want back with a call.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Extra {
    google: Option<Object<OfGoogle>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfGoogle {
    thought_signature: Option<String>,
}

/// The seal on a call.
pub(super) fn seal(extra: Option<Object<Extra>>) -> Option<String> {
    extra?.0.google?.0.thought_signature
}

/// Words.
pub(super) fn words(param: &str, text: String) -> Result<Part, Refusal> {
    match text.is_empty() {
        true => Err(invalid(param, format!("{param}: must not be empty"))),
        false => Ok(Part::Text(text)),
    }
}

/// Who speaks, of several.
pub(super) fn speaker(param: &str, name: String) -> Result<Part, Refusal> {
    let is_odd = |letter: char| letter.is_whitespace() || "<|\\/>".contains(letter);
    match name.is_empty() || name.chars().count() > 64 || name.contains(is_odd) {
        true => {
            let message = "must be 1 to 64 characters, no spaces and none of < | \\ / >";
            Err(invalid(param, format!("{param}: {message}")))
        }
        false => Ok(Part::Speaker(name)),
    }
}

/// How closely a picture is to be looked at.
pub(super) fn detail(param: &str, word: Option<&str>) -> Result<Detail, Refusal> {
    Ok(one_of(param, word, &Detail::NAMED)?.unwrap_or_default())
}

/// A picture out of a data URL.
pub(super) fn picture(param: &str, url: &str, detail: Detail) -> Result<Part, Refusal> {
    let Some(rest) = url.strip_prefix("data:") else {
        let message = "must be a data URL with the picture in base64: nothing is fetched";
        return Err(unsupported_value(param, format!("{param}: {message}")));
    };
    let (head, data) = rest.split_once(',').unwrap_or((rest, ""));
    let mime = head.strip_suffix(";base64").and_then(|head| head.split(';').next());
    let kind = match mime {
        Some("image/jpeg" | "image/jpg") => Image::Jpeg,
        Some("image/png") => Image::Png,
        Some("image/webp") => Image::Webp,
        Some("image/gif") => Image::Gif,
        _ => {
            let message = "must be JPEG, PNG, WebP or GIF in base64";
            return Err(unsupported_value(param, format!("{param}: {message}")));
        }
    };
    Ok(Part::Image(kind, decoded(param, data)?, detail))
}

/// A recording in base64.
pub(super) fn recording(param: &str, audio: &InputAudio<'_>) -> Result<Part, Refusal> {
    let format = audio.format.as_ref().ok_or_else(|| missing(format!("{param}.format")))?;
    let data = audio.data.as_ref().ok_or_else(|| missing(format!("{param}.data")))?;
    let kind = match &*format.0 {
        "wav" => Audio::Wav,
        "mp3" => Audio::Mp3,
        _ => {
            let param = format!("{param}.format");
            let message = format!("{param}: must be wav or mp3");
            return Err(invalid(param, message));
        }
    };
    Ok(Part::Audio(kind, decoded(&format!("{param}.data"), &data.0)?))
}

fn decoded(param: &str, data: &str) -> Result<Bytes, Refusal> {
    match STANDARD.decode(data) {
        Ok(bytes) if !bytes.is_empty() => Ok(bytes.into()),
        _ => Err(invalid(param, format!("{param}: must be base64 that is not empty"))),
    }
}
