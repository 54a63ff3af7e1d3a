//! Owns asking a destination what a recording says: OpenAI's `POST /v1/audio/transcriptions`, a form with
//! the file in it, which Mistral and other servers have too.
//!
//! Stated conversions: to Mistral no form of the answer is said, since it has one alone, and no way of cutting
//! that is `auto`, since it always cuts as it likes.
//!
//! **Invariant:** the form has the file as it came, and nothing of the caller's in its frame that could
//! be taken for a part of it.

use std::time::Duration;

use bytes::Bytes;
use holdfast_chat::served::transcriptions::{Chunking, Vad, Wanted};
use holdfast_chat::{Dialect, Unfit, Usage, What};
use serde::Deserialize;

use super::chat::count;
use super::error::{Fault, SendError};
use super::exchange::Exchange;
use super::hedge::Attempt;
use super::http::{Call, Method};
use super::passage::Errand;
use super::talk::{Told, key, passed_on, plain, talked_to};
use super::{Escalator, proof};
use crate::destination::Chat;
use crate::inquiry::{Inquiry, Recording, length};
use crate::policy::Cleared;
use crate::price::{Content, wav_ms};

/// Bytes of a millisecond of a recording whose length nobody sees: 64 kbit/s.
const BYTES_OF_MS: u64 = 8;

/// What comes back.
#[derive(Debug, Deserialize)]
struct Heard {
    text: String,
    usage: Option<Counted>,
}

/// What comes back in a form with more than the words.
#[derive(Debug, Default, Deserialize)]
struct Priced {
    usage: Option<Counted>,
}

/// Tokens, of models that count them.
#[derive(Debug, Deserialize)]
struct Counted {
    #[serde(default)]
    input_tokens: u64,
    #[serde(default)]
    output_tokens: u64,
}

impl Escalator {
    /// Asks what a recording says, as one attempt of several.
    ///
    /// # Errors
    /// [`SendError`], whose [`next`](SendError::next) says what to do.
    pub(crate) async fn transcribe(
        &self,
        cleared: Cleared<'_, Inquiry<Recording>>,
        within: Duration,
        attempt: &Attempt,
    ) -> Result<Told<String>, SendError> {
        let destination = cleared.destination();
        let attempt = Some(attempt);
        let sending = async {
            let Inquiry { id, terms, matter } = cleared.request();
            let chat = talked_to(destination)?;
            fits(&chat.dialect, matter).map_err(|what| {
                let source = Unfit { protocol: chat.dialect.name(), what };
                SendError::Unfit { destination: destination.name.clone(), source }
            })?;
            let mark = id.to_string();
            let body = form(&mark, chat, matter);
            let audio_ms = match matter.bytes.starts_with(b"RIFF") {
                true => wav_ms(&matter.bytes),
                false => length(&matter.bytes) / BYTES_OF_MS,
            };
            let errand = Errand {
                bytes: length(&body),
                content: Content { audio_ms, ..Content::default() },
                attempt,
                ..plain(destination, (*id, terms), within)
            };
            let passage = self.enter(&errand, None).await?;
            let mut headers = passed_on(destination, terms);
            headers.push(("idempotency-key", key(terms, &mark)));
            let exchange = passage.exchange();
            let mut usage = None;
            let asked = (matter.wanted, mark.as_str(), headers);
            let result = ask(&exchange, chat, asked, body, &mut usage).await;
            passage.settle(result, usage.as_ref()).await
        };
        let (answer, cost_micros) = self.counted(&destination.name, sending).await?;
        Ok(Told { answer, cost_micros })
    }
}

/// Whether a protocol has what is asked.
fn fits(dialect: &Dialect, recording: &Recording) -> Result<(), What> {
    let is_cut = matches!(recording.chunking, Some(Chunking::Vad(_)));
    let of_mistral = [
        ("response_format but json and text, and no include", !recording.wanted.is_plain()),
        ("chunking_strategy but auto", is_cut),
        ("prompt", recording.prompt.is_some()),
    ];
    match dialect {
        Dialect::OpenAi => Ok(()),
        Dialect::Mistral => match of_mistral.into_iter().find(|(_, is_asked)| *is_asked) {
            Some((name, _)) => Err(What::Parameter(name)),
            None => Ok(()),
        },
        _ => Err(What::Parameter("transcriptions")),
    }
}

/// The words, or the body as it came where more than these is wanted.
async fn ask(
    exchange: &Exchange<'_>,
    chat: &Chat,
    (wanted, mark, mut headers): (Wanted, &str, Vec<(&'static str, String)>),
    body: Bytes,
    usage: &mut Option<Usage>,
) -> Result<String, SendError> {
    let url = Dialect::address(&exchange.destination().url, "/v1/audio/transcriptions");
    headers.push(("content-type", format!("multipart/form-data; boundary={mark}")));
    let proof = proof::of(exchange, &chat.dialect, &url, &body);
    let reply = exchange.call(Call { method: Method::Post, url, headers, proof, body }).await?;
    let (counted, heard) = match wanted.is_plain() {
        true => {
            let heard: Heard = exchange.json(&reply)?;
            (heard.usage, heard.text)
        }
        false => {
            let told = String::from_utf8(reply.body.to_vec()).ok();
            let what = || format!("no {} in it", wanted.form.name());
            let foreign = || exchange.unusable(Fault::Foreign { what: what() });
            let told = told.filter(|told| wanted.fits(told)).ok_or_else(foreign)?;
            // Subtitles tell nothing of what was counted.
            let priced: Priced = serde_json::from_str(&told).unwrap_or_default();
            (priced.usage, told)
        }
    };
    *usage = counted.map(|counted| Usage {
        input: counted.input_tokens,
        output: counted.output_tokens,
        ..Usage::default()
    });
    if let Some(usage) = usage {
        count(&exchange.destination().name, usage);
    }
    Ok(heard)
}

/// The form, its parts divided by `mark`, which nobody could foresee.
fn form(mark: &str, chat: &Chat, recording: &Recording) -> Bytes {
    let mut form = Vec::with_capacity(recording.bytes.len() + 1024);
    let Recording { language, prompt, temperature, .. } = recording;
    let mut fields = vec![("model", Some(chat.model.clone()))];
    if chat.dialect != Dialect::Mistral {
        fields.extend(of_openai(recording));
    }
    fields.extend([
        ("language", language.clone()),
        ("prompt", prompt.clone()),
        ("temperature", temperature.map(|temperature| temperature.to_string())),
    ]);
    for (name, value) in fields {
        let Some(value) = value else { continue };
        let head = format!("--{mark}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n");
        form.extend_from_slice(head.as_bytes());
        form.extend_from_slice(value.as_bytes());
        form.extend_from_slice(b"\r\n");
    }
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || ['.', '-', '_', ' '].contains(c);
    let name: String = recording.name.chars().filter(is_plain).take(100).collect();
    let head = format!(
        "--{mark}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
         content-type: application/octet-stream\r\n\r\n"
    );
    form.extend_from_slice(head.as_bytes());
    form.extend_from_slice(&recording.bytes);
    form.extend_from_slice(format!("\r\n--{mark}--\r\n").as_bytes());
    form.into()
}

/// The fields that OpenAI alone has, as its own clients write them.
fn of_openai(recording: &Recording) -> Vec<(&'static str, Option<String>)> {
    let Wanted { form, words, segments, logprobs } = recording.wanted;
    let if_so = |is_so: bool, value: &str| is_so.then(|| value.to_owned());
    let form = if recording.wanted.is_plain() { "json" } else { form.name() };
    let (is_auto, vad) = match recording.chunking {
        None => (false, None),
        Some(Chunking::Auto) => (true, None),
        Some(Chunking::Vad(vad)) => (false, Some(vad)),
    };
    let is_cut = vad.is_some();
    let Vad { threshold, prefix_padding_ms, silence_duration_ms } = vad.unwrap_or_default();
    let number = |number: Option<u32>| number.map(|number| number.to_string());
    vec![
        ("response_format", Some(form.to_owned())),
        ("timestamp_granularities[]", if_so(words, "word")),
        ("timestamp_granularities[]", if_so(segments, "segment")),
        ("include[]", if_so(logprobs, "logprobs")),
        ("chunking_strategy", if_so(is_auto, "auto")),
        ("chunking_strategy[type]", if_so(is_cut, "server_vad")),
        ("chunking_strategy[threshold]", threshold.map(|number| number.to_string())),
        ("chunking_strategy[prefix_padding_ms]", number(prefix_padding_ms)),
        ("chunking_strategy[silence_duration_ms]", number(silence_duration_ms)),
    ]
}

#[cfg(test)]
mod tests {
    use holdfast_chat::served::transcriptions::Form;

    use super::*;

    fn recording() -> Recording {
        Recording {
            bytes: Bytes::from_static(b"RIFF"),
            name: "a.wav".to_owned(),
            language: None,
            prompt: None,
            temperature: None,
            chunking: None,
            wanted: Wanted::default(),
        }
    }

    #[test]
    fn what_a_protocol_does_not_have_is_refused_by_its_name() {
        let of = |form| Wanted { form, ..Wanted::default() };
        let vad = Some(Chunking::Vad(Vad::default()));
        let plain = recording();
        for (case, asked, of_mistral) in [
            ("plain", plain.clone(), None),
            ("text", Recording { wanted: of(Form::Text), ..plain.clone() }, None),
            ("auto", Recording { chunking: Some(Chunking::Auto), ..plain.clone() }, None),
            ("srt", Recording { wanted: of(Form::Srt), ..plain.clone() }, Some("response_format")),
            ("vad", Recording { chunking: vad, ..plain.clone() }, Some("chunking_strategy")),
            ("prompt", Recording { prompt: Some("x".to_owned()), ..plain }, Some("prompt")),
        ] {
            assert!(fits(&Dialect::OpenAi, &asked).is_ok(), "{case}");
            assert!(fits(&Dialect::Anthropic, &asked).is_err(), "{case}");
            let told = fits(&Dialect::Mistral, &asked).err().map(|what| what.to_string());
            match (of_mistral, told) {
                (None, None) => {}
                (Some(name), Some(told)) => assert!(told.contains(name), "{case}: {told}"),
                (want, told) => panic!("{case}: {told:?} is not {want:?}"),
            }
        }
    }

    #[test]
    fn a_form_has_the_fields_that_its_protocol_has() {
        let asked = Recording { chunking: Some(Chunking::Auto), ..recording() };
        for (dialect, has) in [(Dialect::OpenAi, true), (Dialect::Mistral, false)] {
            let written = form("mark", &Chat::new(dialect.clone(), "m"), &asked);
            let text = String::from_utf8_lossy(&written);
            assert!(text.contains("name=\"model\"\r\n\r\nm\r\n"), "{dialect:?}: {text}");
            for name in ["response_format", "chunking_strategy"] {
                assert_eq!(text.contains(&format!("name=\"{name}\"")), has, "{dialect:?}: {text}");
            }
        }
    }
}
