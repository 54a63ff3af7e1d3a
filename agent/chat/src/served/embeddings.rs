//! Owns `POST /v1/embeddings`.
//!
//! **Invariant:** inputs are texts; as many vectors are answered as there were inputs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use super::Refusal;
use super::fault::{invalid, missing, parsed, unsupported_value};
use super::fields::{self, OneOrMany};
use super::json::{number, text};
use crate::vectors::Vectors;

/// OpenAI takes so many inputs.
const MOST_INPUTS: usize = 2048;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedVectors {
    /// A bundle, a destination's model or a route.
    pub model: String,
    /// 1 to 2048 texts, none empty.
    pub inputs: Vec<String>,
    /// So many numbers in each vector.
    pub dimensions: Option<u32>,
    /// How the numbers are written.
    pub encoding: Encoding,
    /// The end user, as the caller calls them.
    pub user: Option<String>,
}

/// How the numbers of a vector are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// A list of numbers.
    #[default]
    Float,
    /// Little-endian f32 in base64.
    Base64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    model: Option<String>,
    input: Option<OneOrMany<Value>>,
    dimensions: Option<u64>,
    encoding_format: Option<String>,
    user: Option<String>,
}

/// What the body of a request asks.
///
/// # Errors
/// The first field that cannot be honoured, by its path.
pub fn read(body: &[u8]) -> Result<AskedVectors, Refusal> {
    let request: Request = parsed(body)?;
    let inputs = match request.input.ok_or_else(|| missing("input"))? {
        OneOrMany::One(input) => vec![input],
        OneOrMany::Many(many) => {
            let texts = many.into_iter().enumerate().map(|(at, input)| match input {
                Value::String(text) => Ok(text),
                _ => {
                    let param = format!("input[{at}]");
                    let message = format!("{param}: must be a text here, no tokens");
                    Err(unsupported_value(param, message))
                }
            });
            texts.collect::<Result<Vec<_>, _>>()?
        }
    };
    if inputs.is_empty() || inputs.len() > MOST_INPUTS {
        return Err(invalid("input", format!("input: must be 1 to {MOST_INPUTS} texts")));
    }
    if let Some(at) = inputs.iter().position(String::is_empty) {
        let param = format!("input[{at}]");
        return Err(invalid(param.clone(), format!("{param}: must not be empty")));
    }
    let encoding = match request.encoding_format.as_deref() {
        None | Some("float") => Encoding::Float,
        Some("base64") => Encoding::Base64,
        Some(_) => {
            let message = "encoding_format: must be float or base64";
            return Err(invalid("encoding_format", message));
        }
    };
    Ok(AskedVectors {
        model: fields::model(request.model)?,
        inputs,
        dimensions: fields::at_least_one("dimensions", request.dimensions)?,
        encoding,
        user: request.user,
    })
}

/// The body of the response; `model` is the model as the caller knows it. What was not counted is 0.
pub fn answer(model: &str, vectors: &Vectors, encoding: Encoding) -> Vec<u8> {
    let numbers: usize = vectors.vectors.iter().map(Vec::len).sum();
    let mut out = Vec::with_capacity(numbers.saturating_mul(12).saturating_add(256));
    out.extend_from_slice(b"{\"object\":\"list\",\"data\":[");
    for (at, vector) in vectors.vectors.iter().enumerate() {
        let head: &[u8] = if at == 0 { b"{" } else { b",{" };
        out.extend_from_slice(head);
        out.extend_from_slice(b"\"object\":\"embedding\",\"index\":");
        number(&mut out, u64::try_from(at).unwrap_or_default());
        out.extend_from_slice(b",\"embedding\":");
        match encoding {
            Encoding::Float => floats(&mut out, vector),
            Encoding::Base64 => {
                let bytes: Vec<u8> =
                    vector.iter().flat_map(|number| number.to_le_bytes()).collect();
                text(&mut out, &STANDARD.encode(bytes));
            }
        }
        out.push(b'}');
    }
    out.extend_from_slice(b"],\"model\":");
    text(&mut out, model);
    let tokens = vectors.usage.map(|usage| usage.input).unwrap_or_default();
    out.extend_from_slice(b",\"usage\":{\"prompt_tokens\":");
    number(&mut out, tokens);
    out.extend_from_slice(b",\"total_tokens\":");
    number(&mut out, tokens);
    out.extend_from_slice(b"}}");
    out
}

/// Numbers as JSON has them; one that is none is 0.
fn floats(out: &mut Vec<u8>, vector: &[f32]) {
    out.push(b'[');
    for (at, number) in vector.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        let number = if number.is_finite() { *number } else { 0.0 };
        out.extend_from_slice(number.to_string().as_bytes());
    }
    out.push(b']');
}
