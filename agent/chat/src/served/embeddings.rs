//! Owns `POST /v1/embeddings`.
//!
//! **Invariant:** inputs are all texts, or all tokens; as many vectors are answered as there were inputs.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use super::Refusal;
use super::fault::{invalid, missing, parsed};
use super::fields::{self, OneOrMany};
use super::json::{number, text};
use crate::vectors::{Inputs, Vectors};

/// OpenAI takes so many inputs.
const MOST_INPUTS: usize = 2048;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedVectors {
    /// A bundle, a destination's model or a route.
    pub model: String,
    /// 1 to 2048, none empty.
    pub inputs: Inputs,
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
    input: Option<OneOrMany<Input>>,
    dimensions: Option<u64>,
    encoding_format: Option<String>,
    user: Option<String>,
}

/// One of several inputs; of one text in tokens each is one.
enum Input {
    Text(String),
    Token(u32),
    Tokens(Vec<u32>),
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct In;
        impl<'de> Visitor<'de> for In {
            type Value = Input;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a token or a list of tokens")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Input, E> {
                Ok(Input::Text(text.to_owned()))
            }
            fn visit_u64<E: Error>(self, token: u64) -> Result<Input, E> {
                let wrong = |_| E::invalid_value(Unexpected::Unsigned(token), &self);
                u32::try_from(token).map(Input::Token).map_err(wrong)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Input, A::Error> {
                let mut tokens = Vec::new();
                while let Some(token) = list.next_element()? {
                    tokens.push(token);
                }
                Ok(Input::Tokens(tokens))
            }
        }
        deserializer.deserialize_any(In)
    }
}

/// What is to become vectors: all texts, all lists of tokens, or the tokens of one text.
fn inputs(given: OneOrMany<Input>) -> Result<Inputs, Refusal> {
    let many = match given {
        OneOrMany::One(text) => return Ok(Inputs::Texts(vec![text])),
        OneOrMany::Many(many) => many,
    };
    let (mut texts, mut single, mut tokens) = (Vec::new(), Vec::new(), Vec::new());
    for (at, input) in many.into_iter().enumerate() {
        match input {
            Input::Text(text) => texts.push(text),
            Input::Token(token) => single.push(token),
            Input::Tokens(list) => tokens.push(list),
        }
        if [texts.len(), single.len(), tokens.len()].iter().filter(|count| **count > 0).count() > 1
        {
            let param = format!("input[{at}]");
            let message = format!("{param}: must be of the kind of those before it");
            return Err(invalid(param, message));
        }
    }
    if !single.is_empty() {
        tokens.push(single);
    }
    Ok(if tokens.is_empty() { Inputs::Texts(texts) } else { Inputs::Tokens(tokens) })
}

/// What the body of a request asks.
///
/// # Errors
/// The first field that cannot be honoured, by its path.
pub fn read(body: &[u8]) -> Result<AskedVectors, Refusal> {
    let request: Request = parsed(body)?;
    let inputs = inputs(request.input.ok_or_else(|| missing("input"))?)?;
    if !(1..=MOST_INPUTS).contains(&inputs.count()) {
        return Err(invalid("input", format!("input: must be 1 to {MOST_INPUTS} texts")));
    }
    let empty = match &inputs {
        Inputs::Texts(texts) => texts.iter().position(String::is_empty),
        Inputs::Tokens(tokens) => tokens.iter().position(Vec::is_empty),
    };
    if let Some(at) = empty {
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
