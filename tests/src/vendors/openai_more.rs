//! Embeddings and transcriptions as OpenAI documents them.
//!
//! **Invariant:** a form has each field once, and one file.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::shape::{Checked, list, object, text, word};
use super::{Call, KEY, MODEL, Refused, Reply};

/// The largest model has no more.
const MOST_DIMENSIONS: u64 = 3072;
/// Where they are.
pub(super) const PATHS: [&str; 2] = ["/v1/embeddings", "/v1/audio/transcriptions"];

pub(super) fn serve(call: &Call<'_>) -> Result<Reply, Refused> {
    call.shows("authorization", &format!("Bearer {KEY}"))?;
    match call.path {
        "/v1/embeddings" => Ok(embeddings(call)?),
        _ => Ok(transcription(call)?),
    }
}

/// A vector tells the length of its text and its place.
fn embeddings(call: &Call<'_>) -> Checked<Reply> {
    let body = call.posts_json("/v1/embeddings")?;
    let known = ["encoding_format", "dimensions", "user"];
    object(&body, "body", &["model", "input"], &known)?;
    word(&body["model"], "model", &[MODEL])?;
    if !body["user"].is_null() {
        text(&body["user"], "user")?;
    }
    let lengths = lengths(&body["input"])?;
    if lengths.len() > 2048 {
        return Err("input: at most 2048".to_owned());
    }
    let is_packed = !body["encoding_format"].is_null()
        && word(&body["encoding_format"], "encoding_format", &["float", "base64"])? == "base64";
    let length = body["dimensions"].as_u64().unwrap_or(3);
    if length > MOST_DIMENSIONS {
        return Err(format!("dimensions: at most {MOST_DIMENSIONS}"));
    }
    let data: Vec<Value> = lengths
        .into_iter()
        .enumerate()
        .map(|(at, count)| {
            let mut vector = vec![0.5_f32; usize::try_from(length).unwrap_or_default().max(2)];
            vector[0] = f32::from(u16::try_from(count).unwrap_or(u16::MAX));
            vector[1] = f32::from(u16::try_from(at).unwrap_or(u16::MAX));
            let packed = || -> Vec<u8> { vector.iter().flat_map(|v| v.to_le_bytes()).collect() };
            let vector = match is_packed {
                true => json!(BASE64_STANDARD.encode(packed())),
                false => json!(vector),
            };
            json!({ "object": "embedding", "index": at, "embedding": vector })
        })
        .collect();
    let usage = json!({ "prompt_tokens": 8, "total_tokens": 8 });
    let answer = json!({ "object": "list", "data": data, "model": MODEL, "usage": usage });
    Ok(Reply::json(200, vec![], &answer))
}

/// How long each input is, in bytes or in tokens.
fn lengths(input: &Value) -> Checked<Vec<usize>> {
    let tokens = |input: &Value| {
        let list = list(input, "input")?;
        match list.iter().all(|token| token.as_u64().is_some_and(|token| token < 300_000)) {
            true => Ok(list.len()),
            false => Err("input: must be tokens".to_owned()),
        }
    };
    match input {
        Value::Array(all) if all.first().is_some_and(Value::is_number) => Ok(vec![tokens(input)?]),
        Value::Array(all) if all.first().is_some_and(Value::is_array) => {
            all.iter().map(tokens).collect()
        }
        Value::Array(_) => {
            let inputs = list(input, "input")?.iter();
            inputs.map(|input| text(input, "input").map(str::len)).collect()
        }
        _ => Ok(vec![text(input, "input")?.len()]),
    }
}

/// The text tells what was heard, and how it was cut.
fn transcription(call: &Call<'_>) -> Checked<Reply> {
    let kind = call.header("content-type").unwrap_or_default();
    let mark = kind.strip_prefix("multipart/form-data; boundary=");
    let mark = mark.ok_or("content-type: must be multipart/form-data")?.trim_matches('"');
    let parts = parts(call.body, mark)?;
    let known = [
        "file",
        "model",
        "language",
        "prompt",
        "response_format",
        "temperature",
        "timestamp_granularities[]",
        "include[]",
        "chunking_strategy",
        "chunking_strategy[type]",
        "chunking_strategy[threshold]",
        "chunking_strategy[prefix_padding_ms]",
        "chunking_strategy[silence_duration_ms]",
    ];
    let one = |name: &str| {
        let found: Vec<_> = parts.iter().filter(|(each, _)| each == name).collect();
        match found.as_slice() {
            [] => Ok(None),
            [(_, bytes)] => Ok(Some(bytes.as_slice())),
            _ => Err(format!("{name}: is there twice")),
        }
    };
    if let Some((name, _)) = parts.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        return Err(format!("{name}: extra fields are not permitted"));
    }
    if one("model")? != Some(MODEL.as_bytes()) {
        return Err("model: does not exist".to_owned());
    }
    let said = |name: &str| -> Checked<Option<String>> {
        Ok(one(name)?.map(|text| String::from_utf8_lossy(text).into_owned()))
    };
    let all = |name: &str| -> Vec<&[u8]> {
        parts.iter().filter(|(each, _)| each == name).map(|(_, bytes)| bytes.as_slice()).collect()
    };
    let format = said("response_format")?.unwrap_or_else(|| "json".to_owned());
    let granularities = all("timestamp_granularities[]");
    if !granularities.is_empty() && format != "verbose_json" {
        return Err("timestamp_granularities: only of verbose_json".to_owned());
    }
    if granularities.iter().any(|each| ![&b"word"[..], b"segment"].contains(each)) {
        return Err("timestamp_granularities: must be word or segment".to_owned());
    }
    let include = all("include[]");
    if !include.is_empty() && (include != [b"logprobs"] || format != "json") {
        return Err("include: must be logprobs, of json".to_owned());
    }
    let file = one("file")?.ok_or("file: field required")?;
    if !file.starts_with(b"RIFF") {
        return Err("file: invalid file format".to_owned());
    }
    let language = said("language")?.unwrap_or_else(|| "any".to_owned());
    let mut heard = format!("{} bytes in {language}", file.len());
    match (said("chunking_strategy")?.as_deref(), said("chunking_strategy[type]")?.as_deref()) {
        (None, None) => {}
        (Some("auto"), None) => heard += ", cut anywhere",
        (None, Some("server_vad")) => {
            for name in ["threshold", "prefix_padding_ms", "silence_duration_ms"] {
                if let Some(value) = said(&format!("chunking_strategy[{name}]"))? {
                    let number = value.parse::<f32>();
                    let number = number.map_err(|_| format!("{name}: must be a number"))?;
                    heard += &format!(", {name} {number}");
                }
            }
        }
        _ => return Err("chunking_strategy: must be auto or server_vad".to_owned()),
    }
    if format != "json" {
        return in_form(&format, &heard, &granularities);
    }
    let usage = json!({ "type": "tokens", "input_tokens": 14, "output_tokens": 9,
        "total_tokens": 23, "input_token_details": { "text_tokens": 0, "audio_tokens": 14 } });
    let mut answer = json!({ "text": heard, "usage": usage });
    if !include.is_empty() {
        answer["logprobs"] = json!([{ "token": "a", "logprob": -0.5, "bytes": [97] }]);
    }
    Ok(Reply::json(200, vec![], &answer))
}

/// What was heard in one second, in another form than JSON.
fn in_form(format: &str, heard: &str, granularities: &[&[u8]]) -> Checked<Reply> {
    let plain = |text: String| {
        let headers = vec![("content-type", "text/plain; charset=utf-8".to_owned())];
        Reply { status: 200, headers, body: text.into() }
    };
    let segment = json!({ "id": 0, "start": 0.0, "end": 1.0, "text": heard });
    match format {
        "text" => Ok(plain(format!("{heard}\n"))),
        "srt" => Ok(plain(format!("1\n00:00:00,000 --> 00:00:01,000\n{heard}\n\n\n"))),
        "vtt" => Ok(plain(format!("WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n{heard}\n\n"))),
        "verbose_json" => {
            let mut answer = json!({ "task": "transcribe", "language": "english", "duration": 1.0,
                "text": heard, "usage": { "type": "duration", "seconds": 1 } });
            if granularities.contains(&&b"word"[..]) {
                answer["words"] = json!([{ "word": heard, "start": 0.0, "end": 1.0 }]);
            }
            if granularities.is_empty() || granularities.contains(&&b"segment"[..]) {
                answer["segments"] = json!([segment]);
            }
            Ok(Reply::json(200, vec![], &answer))
        }
        "diarized_json" => {
            let segment = json!({ "type": "transcript.text.segment", "id": "seg_0",
                "start": 0.0, "end": 1.0, "text": heard, "speaker": "A" });
            let answer = json!({ "task": "transcribe", "duration": 1.0, "text": heard,
                "segments": [segment] });
            Ok(Reply::json(200, vec![], &answer))
        }
        _ => Err(format!("response_format: {format} is none")),
    }
}

/// The parts of a form by their names.
fn parts(body: &[u8], mark: &str) -> Checked<Vec<(String, Vec<u8>)>> {
    let mark = format!("--{mark}");
    let at = |from: usize, needle: &[u8]| {
        let rest = body.get(from..)?;
        rest.windows(needle.len()).position(|window| window == needle).map(|found| from + found)
    };
    let cut = || "the form is cut off".to_owned();
    let (mut found, mut from) = (Vec::new(), 0);
    while let Some(start) = at(from, mark.as_bytes()).map(|start| start + mark.len()) {
        if body[start..].starts_with(b"--") {
            return Ok(found);
        }
        let head = at(start, b"\r\n\r\n").ok_or_else(cut)?;
        let end = at(head, format!("\r\n{mark}").as_bytes()).ok_or_else(cut)?;
        let text = String::from_utf8_lossy(&body[start..head]).into_owned();
        let name = text.split_once("name=\"").and_then(|(_, rest)| rest.split_once('"'));
        let name = name.ok_or("a part has no name")?.0.to_owned();
        found.push((name, body[head + 4..end].to_vec()));
        from = end;
    }
    Err(cut())
}
