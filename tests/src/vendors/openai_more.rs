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
    let inputs = match body["input"].is_string() {
        true => vec![text(&body["input"], "input")?],
        false => {
            let inputs = list(&body["input"], "input")?.iter();
            inputs.map(|input| text(input, "input")).collect::<Checked<_>>()?
        }
    };
    if inputs.len() > 2048 {
        return Err("input: at most 2048".to_owned());
    }
    let is_packed = !body["encoding_format"].is_null()
        && word(&body["encoding_format"], "encoding_format", &["float", "base64"])? == "base64";
    let length = body["dimensions"].as_u64().unwrap_or(3);
    if length > MOST_DIMENSIONS {
        return Err(format!("dimensions: at most {MOST_DIMENSIONS}"));
    }
    let data: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(at, input)| {
            let mut vector = vec![0.5_f32; usize::try_from(length).unwrap_or_default().max(2)];
            vector[0] = f32::from(u16::try_from(input.len()).unwrap_or(u16::MAX));
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

/// The text tells what was heard.
fn transcription(call: &Call<'_>) -> Checked<Reply> {
    let kind = call.header("content-type").unwrap_or_default();
    let mark = kind.strip_prefix("multipart/form-data; boundary=");
    let mark = mark.ok_or("content-type: must be multipart/form-data")?.trim_matches('"');
    let parts = parts(call.body, mark)?;
    let known = ["file", "model", "language", "prompt", "response_format", "temperature"];
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
    if one("response_format")?.is_some_and(|format| format != b"json") {
        return Err("response_format: this stand-in has json alone".to_owned());
    }
    let file = one("file")?.ok_or("file: field required")?;
    if !file.starts_with(b"RIFF") {
        return Err("file: invalid file format".to_owned());
    }
    let language = one("language")?.map(|text| String::from_utf8_lossy(text).into_owned());
    let heard = format!("{} bytes in {}", file.len(), language.unwrap_or("any".to_owned()));
    let usage = json!({ "type": "tokens", "input_tokens": 14, "output_tokens": 9,
        "total_tokens": 23, "input_token_details": { "text_tokens": 0, "audio_tokens": 14 } });
    Ok(Reply::json(200, vec![], &json!({ "text": heard, "usage": usage })))
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
